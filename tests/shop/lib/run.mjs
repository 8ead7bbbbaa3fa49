import * as Sentry from '@sentry/node';

import { service } from '../instrument.mjs';
import ledger from './ledger.js';

const CLOSE_TIMEOUT_MS = 2000;
const INTERVAL_MS = 3000;

/** Capture one error, written down in the ledger beforehand. */
export function report(message) {
  const eventId = ledger.newEventId();
  ledger.recordCaptured(service, eventId);
  Sentry.captureException(new Error(message), { event_id: eventId });
}

/** Run until SIGINT or SIGTERM; a service with a `message` reports that error at a steady interval. */
export function run(message = null) {
  const timer = setInterval(() => message !== null && report(message), INTERVAL_MS);
  const stop = async () => {
    clearInterval(timer);
    await Sentry.close(CLOSE_TIMEOUT_MS);
    process.exit(0);
  };
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  console.log(`${service}: running`);
}
