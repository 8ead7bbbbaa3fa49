'use strict';

/*
 * Captures test errors with the SDK that the product itself uses.
 *
 * In: on standard input one JSON object {"app_dir", "items": [{"scenario", "event_id"}], "burst": [event ids]}; the DSN in LOCAL_TEST_DSN.
 * Out: one JSON line for each event, {"scenario", "event_id", "sent_at"} (milliseconds), written before it is captured; exit code 1 when
 * the SDK could not hand everything over within 30 s.
 */

const fs = require('node:fs');
const path = require('node:path');
const { createRequire } = require('node:module');

const order = JSON.parse(fs.readFileSync(0, 'utf8'));
const Sentry = createRequire(path.join(order.app_dir, 'package.json'))('@sentry/node');

Sentry.init({
  dsn: process.env.LOCAL_TEST_DSN,
  environment: 'local-test',
  release: 'local-test@1',
  tracesSampleRate: 0,
  maxBreadcrumbs: 20,
  integrations: (defaults) => defaults.filter((integration) => integration.name !== 'OnUncaughtException'),
});

function fail(name, message, fields = {}) {
  const error = new Error(message);
  error.name = name;
  return Object.assign(error, fields);
}

/** Scenario -> function of the scope that returns what is captured. Ten of them are checked field by field by `glitchtip-ops local-test`. */
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
    return fail('Error', 'local test: connect ECONNREFUSED 192.0.2.10:5432', { code: 'ECONNREFUSED', syscall: 'connect' });
  },
  'pattern-repository': (scope) => {
    scope.setTags({ component: 'repository', operation: 'insert' });
    scope.setExtras({ filters: { company_id: 12 }, data: { phone: '+00000000000' } });
    return fail('UniqueViolation', 'local test: duplicate key value violates unique constraint "clients_phone_key"', { code: '23505' });
  },
  'pattern-whatsapp': (scope) => {
    scope.setTags({ component: 'whatsapp', subcomponent: 'session', companyId: '12' });
    return fail('SessionError', 'local test: WhatsApp session expired');
  },
  'pattern-booking-monitor': (scope) => {
    scope.setTags({ component: 'booking-monitor' });
    scope.setExtra('booking', { id: 99, client: { name: 'Example', visits: [{ at: '2026-01-01T10:00:00Z', services: [{ id: 1 }] }] } });
    return fail('ServiceError', 'local test: booking could not be synchronised');
  },
  'pattern-queue-job': (scope) => {
    scope.setTags({ component: 'queue', queue: 'messages' });
    scope.setExtras({ jobId: 'job-31', queue: 'messages', retry: { attempt: 2, of: 5, delayMs: 4000 } });
    return fail('JobError', 'local test: job failed, will be retried');
  },
};

function capture(scenario, eventId, make) {
  fs.writeSync(1, `${JSON.stringify({ scenario, event_id: eventId, sent_at: Date.now() })}\n`);
  Sentry.withScope((scope) => {
    scope.setTag('local_test', scenario);
    const captured = make(scope);
    if (typeof captured === 'string') {
      Sentry.captureMessage(captured, 'warning', { event_id: eventId });
    } else {
      Sentry.captureException(captured, { event_id: eventId });
    }
  });
}

async function main() {
  for (const item of order.items) {
    capture(item.scenario, item.event_id, scenarios[item.scenario]);
  }
  for (const eventId of order.burst) {
    capture('burst', eventId, () => fail('BurstError', 'local test: burst'));
    // The SDK drops what exceeds its buffer of unsent events; a real burst is spread over its requests too.
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  if (!(await Sentry.close(30000))) {
    throw new Error('the SDK could not hand over every event within 30 s');
  }
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
