'use strict';

/*
 * Started and deployed with `pm2 start ecosystem.config.cjs --env production`, so that env_production counts.
 * provision.sh puts the DSN where @SENTRY_DSN@ is: a value that an ordinary deploy hands out again.
 */

const path = require('node:path');

// PM2 starts the workers of a cluster in its own directory: a relative path would be looked up there.
const INSTRUMENT = `--import=${path.join(__dirname, 'instrument.mjs')}`;
const HEAP = '--max-old-space-size=64 --max-semi-space-size=1';

const COMMON = {
  cwd: __dirname,
  node_args: `${INSTRUMENT} ${HEAP}`,
  kill_timeout: 5000,
  env: { NODE_ENV: 'development' },
  env_production: { NODE_ENV: 'production' },
};

module.exports = {
  apps: [
    { ...COMMON, name: 'shop-api', script: 'api.mjs', exec_mode: 'cluster', instances: 2 },
    // Its own settings file; `npm start` brings its own --import.
    {
      ...COMMON,
      name: 'shop-web',
      script: 'npm',
      args: 'start',
      node_args: HEAP,
      env_production: { NODE_ENV: 'production', SHOP_ENV_FILE: 'config/web.env' },
    },
    { ...COMMON, name: 'shop-worker', script: 'worker.cjs', node_args: `--import ./instrument.mjs ${HEAP}` },
    {
      ...COMMON,
      name: 'shop-mailer',
      script: 'mailer.mjs',
      env_production: { NODE_ENV: 'production', SENTRY_DSN: '@SENTRY_DSN@' },
    },
    { ...COMMON, name: 'shop-archive', script: 'archive.mjs' },
    {
      ...COMMON,
      name: 'shop-nightly',
      script: 'nightly.mjs',
      cron_restart: '*/1 * * * *',
      autorestart: false,
    },
  ],
};
