'use strict';

/*
 * Captures test errors with the SDK that the product itself uses.
 *
 * In: on standard input one JSON object {"app_dir", "items": [{"scenario", "event_id"}], "burst": [event ids]};
 * the DSN in the environment as LOCAL_TEST_DSN.
 * Out: JSON lines. For each event {"scenario", "event_id", "sent_at"} (milliseconds), written before it is
 * captured, and {"event_id", "status"} when the tracker has answered (null: it did not); at the end
 * {"profiles", "transaction_status"}: how many profiles left, and what their envelopes were answered.
 * Exit code 1 with one sentence where the SDK cannot be loaded or could not hand everything over.
 */

const fs = require('node:fs');
const path = require('node:path');
const { createRequire } = require('node:module');

const CLOSE_TIMEOUT_MS = 30_000;

function fail(name, message, fields = {}) {
  const error = new Error(message);
  error.name = name;
  return Object.assign(error, fields);
}

function tell(line) {
  fs.writeSync(1, `${JSON.stringify(line)}\n`);
}

/** Scenario -> function of the scope that returns what is captured: an error, or a text for a message. */
const scenarios = {
  'sdk-basic-error': () => fail('LocalTestError', 'local test: basic error'),
  'sdk-user': (scope) => {
    scope.setUser({ id: '4711', email: 'user@example.org', username: 'local-test-user' });
    return fail('LocalTestError', 'local test: with a user');
  },
  'sdk-breadcrumbs': (scope) => {
    scope.addBreadcrumb({ category: 'auth', message: 'user signed in', level: 'info' });
    scope.addBreadcrumb({ category: 'query', message: 'select bookings', level: 'debug' });
    return fail('LocalTestError', 'local test: with breadcrumbs');
  },
  'sdk-extra': (scope) => {
    scope.setExtra('order', { id: 7, lines: [{ sku: 'A-1', price: { amount: 12.5, currency: 'EUR' } }] });
    return fail('LocalTestError', 'local test: with nested extra');
  },
  'sdk-level-warning': (scope) => {
    scope.setLevel('warning');
    return 'local test: a warning message';
  },
  'pattern-database': (scope) => {
    scope.setTags({ component: 'database', operation: 'connect', backend: 'postgresql' });
    scope.setExtras({ host: '192.0.2.10', port: 5432, database: 'ai_admin', attempt: 3 });
    return fail('Error', 'local test: connect ECONNREFUSED 192.0.2.10:5432', { code: 'ECONNREFUSED' });
  },
  'pattern-repository': (scope) => {
    scope.setTags({ component: 'repository', operation: 'insert', backend: 'postgresql' });
    scope.setExtras({ filters: { company_id: 12 }, data: { name: 'Example', visits: 3 } });
    return fail('UniqueViolation', 'local test: duplicate key value violates unique constraint "clients_phone_key"');
  },
  'pattern-whatsapp': (scope) => {
    scope.setTags({ component: 'whatsapp', subcomponent: 'session', companyId: '12' });
    scope.setExtra('session', { state: 'expired', reconnects: 4 });
    return fail('SessionError', 'local test: WhatsApp session expired');
  },
  'pattern-booking-monitor': (scope) => {
    scope.setTags({ component: 'booking-monitor', operation: 'synchronise' });
    scope.setExtra('booking', {
      id: 99,
      client: { name: 'Example', visits: [{ at: '2026-01-01T10:00:00Z', services: [{ id: 1, price: { amount: 1500 } }] }] },
    });
    return fail('ServiceError', 'local test: booking could not be synchronised');
  },
  'pattern-queue-job': (scope) => {
    scope.setTags({ component: 'queue', queue: 'messages' });
    scope.setExtras({ jobId: 'job-31', queue: 'messages', retry: { attempt: 2, of: 5, delayMs: 4000 } });
    return fail('JobError', 'local test: job failed, will be retried');
  },
};

function main() {
  const order = JSON.parse(fs.readFileSync(0, 'utf8'));
  const product = createRequire(path.join(order.app_dir, 'package.json'));
  const Sentry = product('@sentry/node');
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
      tell({ event_id: event.event_id, status });
    }
  });

  function capture(scenario, eventId, make) {
    tell({ scenario, event_id: eventId, sent_at: Date.now() });
    Sentry.withScope((scope) => {
      scope.setTag('local_test', scenario);
      const captured = make(scope);
      if (typeof captured === 'string') {
        // Sentry.captureMessage takes no hint, and without one the event gets another id.
        scope.captureMessage(captured, undefined, { event_id: eventId });
      } else {
        scope.captureException(captured, { event_id: eventId });
      }
    });
  }

  Sentry.startSpan({ name: 'local test', op: 'test' }, () => {
    for (const { scenario, event_id: eventId } of order.items) {
      capture(scenario, eventId, scenarios[scenario]);
    }
    for (const eventId of order.burst) {
      capture('burst', eventId, () => fail('BurstError', 'local test: burst'));
    }
  });
  return Sentry.close(CLOSE_TIMEOUT_MS).then((complete) => {
    if (!complete) {
      throw new Error(`the SDK could not hand over every event within ${CLOSE_TIMEOUT_MS / 1000} s`);
    }
    tell(totals);
  });
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
