'use strict';

const net = require('node:net');

const { DatabaseError } = require('./errors');

const CONNECT_TIMEOUT_MS = 1000;

function connect(host, port) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host, port, timeout: CONNECT_TIMEOUT_MS });
    socket.once('connect', () => resolve(socket));
    socket.once('error', reject);
    socket.once('timeout', () => {
      socket.destroy();
      reject(Object.assign(new Error(`connect ETIMEDOUT ${host}:${port}`), { code: 'ETIMEDOUT' }));
    });
  });
}

/** Check that the database answers; throws DatabaseError (code ECONNREFUSED, ...) where it does not. */
async function ping(operation, attempt) {
  const host = process.env.DATABASE_HOST || '127.0.0.1';
  const port = Number.parseInt(process.env.DATABASE_PORT ?? '', 10) || 5432;
  const database = process.env.DATABASE_NAME || 'ai_admin';
  try {
    const socket = await connect(host, port);
    socket.destroy();
  } catch (cause) {
    throw new DatabaseError(`connect ${cause.code} ${host}:${port}`, {
      code: cause.code,
      cause,
      tags: { component: 'database', operation, backend: 'postgresql' },
      extra: { host, port, database, attempt },
    });
  }
}

module.exports = { ping };
