// Asks the SDK client of every running service of a PM2 which tracker it has, from outside: SIGUSR1 opens the process's own
// inspector, and the client is read there. Nothing of the product or of the cutover program takes part.
// Run as PM2's user: `node --input-type=module - '{"pm2": "...", "wait": 75}'`; prints one JSON list, no DSN key in it.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const { pm2, wait } = JSON.parse(process.argv[2]);
const INSPECTOR = 'http://127.0.0.1:9229';
const SETTLED_MS = 2500;

const READ_CLIENT = `(() => {
  const builtin = process.getBuiltinModule;
  setTimeout(() => builtin('inspector').close(), 100);
  const found = { pid: process.pid, sdk: globalThis.__SENTRY__ !== undefined };
  if (found.sdk) {
    const sdk = builtin('module').createRequire(process.cwd() + '/')('@sentry/node');
    const client = sdk.getClient();
    const dsn = client?.getDsn();
    if (dsn) {
      found.host = dsn.port ? dsn.host + ':' + dsn.port : dsn.host;
      found.project = dsn.projectId;
      found.key = builtin('crypto').createHash('sha256').update(dsn.publicKey).digest('hex');
      found.enabled = client.getOptions().enabled !== false;
    }
  }
  return JSON.stringify(found);
})()`;

const listed = () => {
  const text = execFileSync(process.execPath, [pm2, 'jlist'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  return JSON.parse(text.slice(text.indexOf('[{')));
};

const isJob = (entry) => Boolean(entry.pm2_env.cron_restart) && entry.pm2_env.autorestart === false;

/** The process and all below it whose program is node: what `npm start` started is one of the latter. */
function nodesBelow(pid) {
  const found = [];
  try {
    if (fs.readlinkSync(`/proc/${pid}/exe`).endsWith('/node')) {
      found.push(pid);
    }
    for (const task of fs.readdirSync(`/proc/${pid}/task`)) {
      const children = fs.readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean);
      found.push(...children.flatMap((child) => nodesBelow(Number(child))));
    }
  } catch (error) {
    if (!['ENOENT', 'ESRCH'].includes(error.code)) {
      throw error;
    }
  }
  return found;
}

async function target(until) {
  for (;;) {
    try {
      const [first] = await (await fetch(`${INSPECTOR}/json/list`)).json();
      return first.webSocketDebuggerUrl;
    } catch (error) {
      if (Date.now() > until) {
        throw new Error(`no inspector answers: ${error.message}`);
      }
      await sleep(100);
    }
  }
}

async function closed(until) {
  for (;;) {
    try {
      await fetch(`${INSPECTOR}/json/list`);
    } catch {
      return;
    }
    if (Date.now() > until) {
      throw new Error('an inspector stays open');
    }
    await sleep(100);
  }
}

/** What the SDK client of this process uses. Throws where it does not answer. */
async function read(pid) {
  process.kill(pid, 'SIGUSR1');
  const socket = new WebSocket(await target(Date.now() + 15_000));
  const answer = await new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error('its inspector does not answer')), 15_000);
    socket.onopen = () =>
      socket.send(JSON.stringify({ id: 1, method: 'Runtime.evaluate', params: { expression: READ_CLIENT, returnByValue: true } }));
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.id === 1) {
        clearTimeout(late);
        resolve(message.result);
      }
    };
    socket.onerror = () => reject(new Error('its inspector closed the connection'));
  });
  socket.close();
  await closed(Date.now() + 15_000);
  if (answer.exceptionDetails) {
    throw new Error(answer.exceptionDetails.exception?.description ?? answer.exceptionDetails.text);
  }
  return JSON.parse(answer.result.value);
}

/** The entries of PM2's list, each alive for a while; a job is waited for until a run of it is under way. */
async function alive() {
  const names = new Set(listed().map((entry) => entry.name));
  const found = new Map();
  const until = Date.now() + wait * 1000;
  for (;;) {
    for (const entry of listed()) {
      if (entry.pid > 0 && Date.now() - entry.pm2_env.pm_uptime > SETTLED_MS && !found.has(entry.pm_id)) {
        found.set(entry.pm_id, await ask(entry));
      }
    }
    const missing = listed().filter((entry) => !found.has(entry.pm_id));
    if (missing.length === 0 || Date.now() > until) {
      return { names, found, missing };
    }
    await sleep(1000);
  }
}

async function ask(entry) {
  const row = { service: entry.name, pm_id: entry.pm_id, job: isJob(entry), clients: [], problem: '' };
  try {
    for (const pid of nodesBelow(entry.pid)) {
      const client = await read(pid);
      if (client.pid !== pid) {
        throw new Error(`process ${client.pid} answered instead of ${pid}`);
      }
      if (client.sdk) {
        row.clients.push(client);
      }
    }
  } catch (error) {
    row.problem = error.message.split('\n')[0];
  }
  return row;
}

const { found, missing } = await alive();
const rows = [...found.values(), ...missing.map((entry) => ({
  service: entry.name,
  pm_id: entry.pm_id,
  job: isJob(entry),
  clients: [],
  problem: `it does not run (${entry.pm2_env.status})`,
}))];
process.stdout.write(`${JSON.stringify(rows)}\n`);
