'use strict';

const { Sentry, service } = require('../instrument');
const { report } = require('./report');

const CLOSE_TIMEOUT_MS = 2000;

/** Milliseconds between two errors of an emitting service. */
function interval() {
  const value = Number.parseInt(process.env.AI_ADMIN_EVENT_INTERVAL_MS ?? '', 10);
  return value >= 50 ? value : 2000;
}

/**
 * Run a service until it is told to stop.
 *
 * `work` is one round of the service's own work, run at the steady interval; what it throws is
 * reported with `error.context`. `null` for a service that has no work of its own and only waits.
 * `close` stops what the service opened. On SIGINT and SIGTERM no new round starts, the round in hand
 * ends, the SDK's queue is sent, and the process exits with 0.
 */
function run({ work = null, close = () => {} } = {}) {
  let timer = null;
  let inHand = Promise.resolve();
  let stopping = false;

  async function round() {
    try {
      await Sentry.startSpan({ name: `${service} round`, op: 'task' }, work);
    } catch (error) {
      report(error, error.context);
    }
    if (!stopping) {
      timer = setTimeout(next, interval());
    }
  }

  function next() {
    inHand = round();
  }

  async function stop(signal) {
    if (stopping) {
      return;
    }
    stopping = true;
    clearTimeout(timer);
    clearInterval(idle);
    console.log(`${service}: ${signal}, closing`);
    await inHand;
    await close();
    await Sentry.close(CLOSE_TIMEOUT_MS);
    process.exit(0);
  }

  // A waiting service has no open handle: this keeps it alive.
  const idle = setInterval(() => {}, 60_000);
  process.on('SIGINT', () => stop('SIGINT'));
  process.on('SIGTERM', () => stop('SIGTERM'));
  if (work !== null) {
    // Services that PM2 starts together do not speak in the same moment.
    timer = setTimeout(next, Math.random() * interval());
  }
  console.log(`${service}: running`);
}

module.exports = { run };
