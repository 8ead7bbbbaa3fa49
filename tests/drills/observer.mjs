/*
 * Which DSN does each running process really use? Asks the process itself, over its debugger.
 *
 *   node --experimental-websocket observer.mjs '{"name": pid, ...}'
 *
 * SIGUSR1 opens the debugger of a Node.js process on 127.0.0.1:9229; the SDK's own client is asked for its
 * DSN, then the debugger is closed again. Prints one JSON object: {"name": {"host", "key_sha256"} | {"problem"}}.
 */

import { createHash } from 'node:crypto';
import { readlinkSync, readdirSync, readFileSync } from 'node:fs';

const PORT = 9229;
const QUESTION = `(() => {
  const load = process.mainModule.require;
  const dsn = load('/opt/ai-admin/node_modules/@sentry/node').getClient()?.getDsn();
  return JSON.stringify(dsn ? { host: dsn.host + (dsn.port ? ':' + dsn.port : ''), key: dsn.publicKey } : {});
})()`;
const CLOSE = `setTimeout(() => process.mainModule.require('node:inspector').close(), 20)`;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The debugger's address, once it listens; only that of this very process counts. */
async function address(pid) {
  for (let tries = 0; tries < 60; tries += 1) {
    try {
      const found = await (await fetch(`http://127.0.0.1:${PORT}/json`)).json();
      if (owner() === pid) {
        return found[0].webSocketDebuggerUrl;
      }
    } catch {
      // Not open yet, or still the one before.
    }
    await pause(50);
  }
  throw new Error('its debugger does not open');
}

/** The process that listens on the debugger's port. */
function owner() {
  const port = PORT.toString(16).toUpperCase().padStart(4, '0');
  const line = readFileSync('/proc/net/tcp', 'utf8').split('\n').map((l) => l.trim().split(/\s+/))
    .find((f) => f[1]?.endsWith(`:${port}`) && f[3] === '0A');
  if (!line) return 0;
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      for (const fd of readdirSync(`/proc/${pid}/fd`)) {
        if (readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${line[9]}]`) return Number(pid);
      }
    } catch {
      // Ended meanwhile.
    }
  }
  return 0;
}

/** The process that does the work: npm and the shell that it starts only wait for it. */
function worker(pid) {
  const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split(/[\0 ]/);
  const launcher = ['npm', 'sh'].includes(words[0]) || /\/npm(-cli\.js)?$/.test(words[1] ?? '');
  const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
  return launcher && child ? worker(Number(child)) : pid;
}

async function ask(known) {
  const pid = worker(known);
  process.kill(pid, 'SIGUSR1');
  const socket = new WebSocket(await address(pid));
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error('its debugger refuses'));
  });
  const evaluate = (id, expression) => new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error('its debugger does not answer')), 5000).unref();
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.id === id) resolve(message.result.result);
    };
    socket.send(JSON.stringify({ id, method: 'Runtime.evaluate', params: { expression } }));
  });
  try {
    const { value } = await evaluate(1, QUESTION);
    if (typeof value !== 'string') throw new Error('it has no client of the SDK');
    const { host = '-', key = '' } = JSON.parse(value);
    return { host, key_sha256: createHash('sha256').update(key).digest('hex') };
  } finally {
    await evaluate(2, CLOSE).catch(() => {});
    socket.close();
    for (let tries = 0; tries < 40 && owner() !== 0; tries += 1) await pause(25);
  }
}

const found = {};
for (const [name, pid] of Object.entries(JSON.parse(process.argv[2]))) {
  try {
    found[name] = await ask(pid);
  } catch (error) {
    found[name] = { problem: error.message };
  }
}
console.log(JSON.stringify(found));
process.exit(0);
