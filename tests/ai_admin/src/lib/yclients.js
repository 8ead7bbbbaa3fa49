'use strict';

const { YClientsRateLimitError } = require('./errors');

/** The booking service's client: `limit` calls in `windowMs`, as its API allows. */
class YClients {
  #calls = [];

  constructor({ limit, windowMs }) {
    this.limit = limit;
    this.windowMs = windowMs;
  }

  /** One call; throws YClientsRateLimitError (status 429) where the window is used up. */
  call(operation, { companyId, now = Date.now() }) {
    this.#calls = this.#calls.filter((at) => at > now - this.windowMs);
    if (this.#calls.length >= this.limit) {
      const retryAfterMs = this.#calls[0] + this.windowMs - now;
      throw new YClientsRateLimitError('YClients answered 429 Too Many Requests', {
        code: 429,
        tags: { component: 'yclients', operation, backend: 'yclients' },
        extra: { companyId, status: 429, limit: this.limit, windowMs: this.windowMs, retryAfterMs },
      });
    }
    this.#calls.push(now);
    return { ok: true };
  }
}

module.exports = { YClients };
