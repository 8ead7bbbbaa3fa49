/*
 * Error tracking of every service: `node --import ./instrument.mjs service.mjs`.
 */

import './lib/settings.mjs';

import * as Sentry from '@sentry/node';

import ledger from './lib/ledger.js';

export const service = process.env.name ?? 'unknown';

const client = Sentry.init({
  dsn: process.env.SENTRY_DSN,
  environment: process.env.SENTRY_ENVIRONMENT,
  release: process.env.SENTRY_RELEASE,
  initialScope: { tags: { service } },
});

ledger.attach(client, service);
