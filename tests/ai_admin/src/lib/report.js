'use strict';

const { Sentry, service, enabled } = require('../instrument');
const ledger = require('./ledger');

/**
 * Capture `error` with the team's context template.
 *
 * `context.tags` (component, operation, backend) make errors searchable, `context.extra` carries the
 * details, `context.user` the person. Returns the event id, or null where error tracking is off.
 */
function report(error, { tags = {}, extra = {}, user } = {}) {
  console.error(`${error.name}: ${error.message}`);
  if (!enabled) {
    return null;
  }
  const eventId = ledger.newEventId();
  ledger.recordCaptured(service, eventId);
  // The event id travels in the hint, beside the context: a hint that has tags at its top level is
  // taken for a context, and its event id is ignored.
  Sentry.captureException(error, { event_id: eventId, captureContext: { tags, extra, user } });
  return eventId;
}

module.exports = { report };
