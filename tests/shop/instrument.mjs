/*
 * Error tracking of every service: `node --import ./instrument.mjs service.mjs`.
 *
 * Settings come from the file that SHOP_ENV_FILE names, else from config/production.env. dotenv does not
 * override a variable that the process already has.
 */

import path from 'node:path';

import * as Sentry from '@sentry/node';
import { config } from 'dotenv';

import ledger from './lib/ledger.js';

const APP_DIR = import.meta.dirname;

config({ path: path.resolve(APP_DIR, process.env.SHOP_ENV_FILE ?? 'config/production.env'), quiet: true });

export const service = process.env.name ?? 'unknown';

const client = Sentry.init({
  dsn: process.env.SENTRY_DSN,
  environment: process.env.SENTRY_ENVIRONMENT,
  release: process.env.SENTRY_RELEASE,
  initialScope: { tags: { service } },
});

ledger.attach(client, service);
