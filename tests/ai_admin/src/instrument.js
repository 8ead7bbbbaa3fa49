'use strict';

/*
 * Error tracking of every service. It is the first thing that a service requires, so that the SDK
 * can wrap what is loaded after it.
 *
 * Settings come from `.env` in the application's directory. dotenv does not override a variable that
 * the process already has: what PM2 carries in its own environment wins.
 */

const path = require('node:path');

const APP_DIR = path.resolve(__dirname, '..');

require('dotenv').config({ path: path.join(APP_DIR, '.env'), quiet: true });

const Sentry = require('@sentry/node');
const ledger = require('./lib/ledger');

/** A rate from the environment, or `fallback` where it is missing or not a number in 0..1. */
function rate(name, fallback) {
  const value = Number.parseFloat(process.env[name] ?? '');
  return value >= 0 && value <= 1 ? value : fallback;
}

/** The profiling integration, or nothing where its native module cannot be loaded on this machine. */
function profiling() {
  try {
    const { nodeProfilingIntegration } = require('@sentry/profiling-node');
    return [nodeProfilingIntegration()];
  } catch (error) {
    console.error(`profiling is off: ${error.message.split('\n')[0]}`);
    return [];
  }
}

const dsn = process.env.SENTRY_DSN || '';
const enabled = dsn !== '' && process.env.SENTRY_ENABLED !== 'false';
const service = process.env.name || path.basename(process.argv[1] || 'unknown', '.js');

const client = Sentry.init({
  dsn,
  enabled,
  environment: process.env.SENTRY_ENVIRONMENT || process.env.NODE_ENV || 'production',
  release: process.env.SENTRY_RELEASE || `ai-admin@${require('../package.json').version}`,
  tracesSampleRate: rate('SENTRY_TRACES_SAMPLE_RATE', 0.1),
  profilesSampleRate: rate('SENTRY_PROFILES_SAMPLE_RATE', 0.1),
  integrations: enabled ? profiling() : [],
  initialScope: { tags: { service } },
});

if (enabled && client) {
  ledger.attach(client, service);
}

module.exports = { Sentry, service, enabled };
