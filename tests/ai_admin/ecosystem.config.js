'use strict';

/*
 * The eight services under PM2. Their settings come from `.env` in this directory; nothing of it is
 * repeated here.
 *
 * AI_ADMIN_DSN_IN_PM2_ENV=<service>: that one gets SENTRY_DSN (the value of `.env`) in its PM2
 * environment as well, as happens on servers where somebody once exported it. PM2 keeps such a value
 * over every restart, whatever `.env` says later.
 */

const fs = require('node:fs');
const path = require('node:path');

// Heap and code space of a service that does little: about 65 MB of memory each.
const NODE_ARGS = '--max-old-space-size=64 --max-semi-space-size=1';

const SERVICES = {
  'ai-admin-api': { script: 'src/index.js' },
  'ai-admin-worker-v2': { script: 'src/workers/index-v2.js' },
  'ai-admin-batch-processor': {
    script: 'src/services/batch-processor.js',
    cron_restart: '*/1 * * * *',
    autorestart: false,
  },
  'ai-admin-telegram-bot': { script: 'src/services/telegram-bot.js' },
  'ai-admin-booking-monitor': { script: 'src/services/booking-monitor.js' },
  'baileys-whatsapp-service': { script: 'src/services/baileys-whatsapp.js' },
  'whatsapp-backup-service': { script: 'src/services/whatsapp-backup.js' },
  'whatsapp-safe-monitor': { script: 'src/services/whatsapp-safe-monitor.js' },
};

/** The DSN that `.env` holds now, for the service that is to carry it in PM2's environment. */
function dsnOfEnvFile() {
  const parsed = require('dotenv').parse(fs.readFileSync(path.join(__dirname, '.env')));
  return parsed.SENTRY_DSN;
}

const carrier = process.env.AI_ADMIN_DSN_IN_PM2_ENV || '';
if (carrier !== '' && !(carrier in SERVICES)) {
  throw new Error(`AI_ADMIN_DSN_IN_PM2_ENV names '${carrier}', which is not a service of this product`);
}

module.exports = {
  apps: Object.entries(SERVICES).map(([name, options]) => ({
    name,
    cwd: __dirname,
    node_args: NODE_ARGS,
    max_memory_restart: '150M',
    // Longer than the 2 s in which a stopping service sends what the SDK still holds.
    kill_timeout: 5000,
    ...(name === carrier ? { env: { SENTRY_DSN: dsnOfEnvFile() } } : {}),
    ...options,
  })),
};
