// Asks the SDK client of every running service of a PM2 which tracker it has, from outside: SIGUSR1 opens the process's own
// inspector, and the client is read there. Nothing of the product or of the cutover program takes part.
// Run as PM2's user: `node --input-type=module - '{"pm2": "...", "wait": 75}'`; prints one JSON list, no DSN key in it.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const { pm2, wait } = JSON.parse(process.argv[2]);
const INSPECTOR = 'http://127.0.0.1:9229';
const SETTLED_MS = 2500;
const LOADED_MS = 20_000;
const ANSWER_MS = 30_000;

const READ_CLIENT = `(() => {
  const builtin = process.getBuiltinModule;
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

// Later, when nobody is connected any more: Node.js may crash when it closes an inspector under a session.
const CLOSE = "setTimeout(() => process.getBuiltinModule('inspector').close(), 500), 0";

const listed = () => {
  const text = execFileSync(process.execPath, [pm2, 'jlist'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  return JSON.parse(text.slice(text.indexOf('[{')));
};

const isJob = (entry) => Boolean(entry.pm2_env.cron_restart) && entry.pm2_env.autorestart === false;

/** The process and all below it whose program is node: what `npm start` started is one of the latter. */
function nodesBelow(pid) {
  const found = [];
  try {
    // npm only starts the service, and holds no SDK.
    const isNpm = /^npm |\/npm(-cli\.js)?\0/.test(fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8'));
    if (fs.readlinkSync(`/proc/${pid}/exe`).endsWith('/node') && !isNpm) {
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

/** The result of an expression in the process behind the socket. */
async function evaluate(socket, id, expression) {
  const request = { id, method: 'Runtime.evaluate', params: { expression, returnByValue: true } };
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error('its inspector does not answer')), ANSWER_MS);
    socket.onopen = () => socket.send(JSON.stringify(request));
    socket.onerror = () => reject(new Error('its inspector closed the connection'));
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.id === id) {
        clearTimeout(late);
        resolve(message.result);
      }
    };
    if (socket.readyState === WebSocket.OPEN) {
      socket.onopen();
    }
  });
}

/** What the SDK client of this process uses. Throws where it does not answer. */
async function read(pid) {
  process.kill(pid, 'SIGUSR1');
  const socket = new WebSocket(await target(Date.now() + ANSWER_MS));
  const answer = await evaluate(socket, 1, READ_CLIENT);
  // Only now: an inspector that closes by itself may take the answer with it.
  await evaluate(socket, 2, CLOSE);
  socket.close();
  await closed(Date.now() + ANSWER_MS);
  if (answer.exceptionDetails) {
    throw new Error(answer.exceptionDetails.exception?.description ?? answer.exceptionDetails.text);
  }
  return JSON.parse(answer.result.value);
}

/** Whether a row is an answer. A process that has just begun may not have loaded its SDK yet, and a job ends while it is asked. */
const answered = (row, age) => row.problem === '' && (row.clients.length > 0 || (age > LOADED_MS && !row.job));

/** A row for each entry of PM2's list, the last one that was given; who does not answer is asked again until the time is over. */
async function alive() {
  const found = new Map();
  const settled = new Set();
  const until = Date.now() + wait * 1000;
  for (;;) {
    for (const entry of listed()) {
      const age = Date.now() - entry.pm2_env.pm_uptime;
      if (entry.pid > 0 && age > SETTLED_MS && !settled.has(entry.pm_id)) {
        const row = await ask(entry);
        found.set(entry.pm_id, row);
        if (answered(row, age)) {
          settled.add(entry.pm_id);
        }
      }
    }
    const entries = listed();
    if (entries.every((entry) => settled.has(entry.pm_id)) || Date.now() > until) {
      return { found, missing: entries.filter((entry) => !found.has(entry.pm_id)) };
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
