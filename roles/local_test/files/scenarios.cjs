'use strict';

/*
 * Captures test errors with the SDK that the product itself uses. scenarios.py does the same with Sentry's SDK for Python.
 *
 * In: on standard input one JSON object {"app_dir", "items": [{"scenario", "event_id"}], "burst": [event ids]};
 * the DSN in the environment as LOCAL_TEST_DSN.
 * Out: JSON lines. {"sdk", "version"} first. For each event {"scenario", "event_id", "sent_at"} (milliseconds),
 * written before it is captured; {"event_id", "raised": {"file", "function", "line"}}, where V8 says that its error was
 * made; and {"event_id", "status", "answered_at"} when the tracker has answered (null: it did not). At the end
 * {"profiles", "transaction_status", "complete"}: how many profiles left, what their envelopes were answered, and
 * whether the SDK says that it handed everything over in time. Exit code 1 with one sentence where it cannot be loaded.
 */

const fs = require('node:fs');
const path = require('node:path');
const { createRequire } = require('node:module');

const CLOSE_TIMEOUT_MS = 120_000;

/** An error of a class of its own: the name is what the tracker shows as its type. */
function errorClass(name) {
  return class extends Error {
    get name() {
      return name;
    }
  };
}

const LocalTestError = errorClass('LocalTestError');
const UniqueViolation = errorClass('UniqueViolation');
const SessionError = errorClass('SessionError');
const ServiceError = errorClass('ServiceError');
const JobError = errorClass('JobError');
const BurstError = errorClass('BurstError');

function tell(line) {
  fs.writeSync(1, `${JSON.stringify(line)}\n`);
}

function basicError() {
  throw new LocalTestError('local test: basic error');
}

function withUser(scope) {
  scope.setUser({ id: '4711', email: 'user@example.org', username: 'local-test-user' });
  throw new LocalTestError('local test: with a user');
}

function withBreadcrumbs(scope) {
  scope.addBreadcrumb({ category: 'auth', message: 'user signed in', level: 'info' });
  scope.addBreadcrumb({ category: 'query', message: 'select bookings', level: 'debug' });
  scope.addBreadcrumb({ category: 'queue', message: 'reminder queued', level: 'warning' });
  throw new LocalTestError('local test: with breadcrumbs');
}

function withNestedExtra(scope) {
  scope.setExtra('order', { id: 7, lines: [{ sku: 'A-1', price: { amount: 12.5, currency: 'EUR' } }] });
  throw new LocalTestError('local test: with nested extra');
}

/** Returns the text of a message instead of throwing. */
function warningMessage(scope) {
  scope.setLevel('warning');
  return 'local test: a warning message';
}

function connectDatabase(scope) {
  scope.setTags({ component: 'database', operation: 'connect', backend: 'postgresql' });
  scope.setExtras({ host: '192.0.2.10', port: 5432, database: 'ai_admin', attempt: 3 });
  throw Object.assign(new Error('local test: connect ECONNREFUSED 192.0.2.10:5432'), { code: 'ECONNREFUSED' });
}

function insertClient(scope) {
  scope.setTags({ component: 'repository', operation: 'insert', backend: 'postgresql' });
  scope.setExtras({ filters: { company_id: 12 }, data: { name: 'Example', visits: 3 } });
  throw new UniqueViolation('local test: duplicate key value violates unique constraint "clients_phone_key"');
}

function sendWhatsapp(scope) {
  scope.setTags({ component: 'whatsapp', subcomponent: 'session', companyId: '12' });
  scope.setExtra('connection', { state: 'expired', reconnects: 4 });
  throw new SessionError('local test: WhatsApp session expired');
}

function synchroniseBooking(scope) {
  scope.setTags({ component: 'booking-monitor', operation: 'synchronise' });
  scope.setExtra('booking', {
    id: 99,
    client: { name: 'Example', visits: [{ at: '2026-01-01T10:00:00Z', services: [{ id: 1, price: { amount: 1500 } }] }] },
  });
  throw new ServiceError('local test: booking could not be synchronised');
}

function processJob(scope) {
  scope.setTags({ component: 'queue', queue: 'messages' });
  scope.setExtras({ jobId: 'job-31', queue: 'messages', retry: { attempt: 2, of: 5, delayMs: 4000 } });
  throw new JobError('local test: job failed, will be retried');
}

function burst() {
  throw new BurstError('local test: burst');
}

/** Scenario -> function of the scope that throws what is captured, or returns the text of a message. */
const scenarios = {
  'sdk-basic-error': basicError,
  'sdk-user': withUser,
  'sdk-breadcrumbs': withBreadcrumbs,
  'sdk-extra': withNestedExtra,
  'sdk-level-warning': warningMessage,
  'pattern-database': connectDatabase,
  'pattern-repository': insertClient,
  'pattern-whatsapp': sendWhatsapp,
  'pattern-booking-monitor': synchroniseBooking,
  'pattern-queue-job': processJob,
};

/** Where V8 says that an error was made: file (its last part), function and line. */
function origin(error) {
  const [, name, file, line] = /\n\s+at (?:(.+) \()?(.+?):(\d+):\d+\)?/.exec(error.stack);
  return { file: path.basename(file), function: name ?? '', line: Number(line) };
}

function main() {
  const order = JSON.parse(fs.readFileSync(0, 'utf8'));
  const product = createRequire(path.join(order.app_dir, 'package.json'));
  const Sentry = product('@sentry/node');
  tell({ sdk: '@sentry/node', version: Sentry.SDK_VERSION });
  const totals = { profiles: 0, transaction_status: null };

  /** The product's profiling, where the product has it and its native module loads here. */
  function profiling() {
    try {
      return [product('@sentry/profiling-node').nodeProfilingIntegration()];
    } catch {
      return [];
    }
  }

  const client = Sentry.init({
    dsn: process.env.LOCAL_TEST_DSN,
    environment: 'local-test',
    release: 'local-test@1',
    tracesSampleRate: 1,
    profilesSampleRate: 1,
    integrations: profiling(),
    // The SDK cuts extra below its third level by default; here the tracker is to show what it keeps.
    normalizeDepth: 10,
    // The SDK drops what exceeds 64 unanswered events by default; here each of the burst is to leave.
    transportOptions: { bufferSize: 10_000 },
  });
  client.on('beforeEnvelope', ([, items]) => {
    totals.profiles += items.filter(([header]) => header.type === 'profile').length;
  });
  client.on('afterSendEvent', (event, response) => {
    const status = response?.statusCode ?? null;
    if (event.type === 'transaction') {
      totals.transaction_status = status;
    } else if (event.type === undefined) {
      tell({ event_id: event.event_id, status, answered_at: Date.now() });
    }
  });

  function capture(scenario, eventId, make) {
    Sentry.withScope((scope) => {
      scope.setTag('local_test', scenario);
      scope.setTag('local_test_sdk', 'node');
      try {
        const message = make(scope);
        tell({ scenario, event_id: eventId, sent_at: Date.now() });
        // Sentry.captureMessage takes no hint, and without one the event gets another id.
        scope.captureMessage(message, undefined, { event_id: eventId });
      } catch (error) {
        tell({ scenario, event_id: eventId, sent_at: Date.now() });
        tell({ event_id: eventId, raised: origin(error) });
        scope.captureException(error, { event_id: eventId });
      }
    });
  }

  Sentry.startSpan({ name: 'local test', op: 'test' }, () => {
    for (const { scenario, event_id: eventId } of order.items) {
      capture(scenario, eventId, scenarios[scenario]);
    }
    for (const eventId of order.burst) {
      capture('burst', eventId, burst);
    }
  });
  return Sentry.close(CLOSE_TIMEOUT_MS).then((complete) => tell({ ...totals, complete }));
}

Promise.resolve()
  .then(main)
  .then(
    // The SDK's timer of close() would keep the process for its whole time-out.
    () => process.exit(0),
    (error) => {
      console.error(error.message.split('\n')[0]);
      process.exit(1);
    },
  );
