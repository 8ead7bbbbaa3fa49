'use strict';

const { UniqueViolationError } = require('./errors');

/** Clients of a company, unique by phone: the same constraint as the table's. */
class ClientRepository {
  #byPhone = new Map();

  /** Store a client; throws UniqueViolationError (SQLSTATE 23505) where the phone is taken. */
  insert(client) {
    const key = `${client.companyId}:${client.phone}`;
    if (this.#byPhone.has(key)) {
      throw new UniqueViolationError(
        'duplicate key value violates unique constraint "clients_company_id_phone_key"',
        {
          code: '23505',
          tags: { component: 'repository', operation: 'insert', backend: 'postgresql' },
          extra: { table: 'clients', filters: { companyId: client.companyId, phone: client.phone }, data: client },
        },
      );
    }
    this.#byPhone.set(key, client);
    return client;
  }
}

module.exports = { ClientRepository };
