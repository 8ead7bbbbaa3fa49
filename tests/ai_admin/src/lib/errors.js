'use strict';

/** An error of the product with the context that `report` sends along. */
class ProductError extends Error {
  constructor(message, { code, cause, tags, extra, user } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    if (code !== undefined) {
      this.code = code;
    }
    // Not enumerable: context is sent as tags and extra, not a second time with the error itself.
    Object.defineProperty(this, 'context', { value: { tags, extra, user } });
  }
}

class DatabaseError extends ProductError {}
class UniqueViolationError extends ProductError {}
class WhatsAppSessionError extends ProductError {}
class BookingMonitorError extends ProductError {}
class YClientsRateLimitError extends ProductError {}
class JobFailedError extends ProductError {}

module.exports = {
  BookingMonitorError,
  DatabaseError,
  JobFailedError,
  ProductError,
  UniqueViolationError,
  WhatsAppSessionError,
  YClientsRateLimitError,
};
