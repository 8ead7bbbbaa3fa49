// One-shot probe. Node.js loads it with --import, after everything that the service itself loads before its script
// (--require, --import, NODE_OPTIONS), in a process started just as the service's: program, options, script, arguments,
// directory, environment, user. It judges the SDK client that exists then. Only where there is none, and the script
// provably loads the service's instrument file first, that file is loaded. It sends one tagged event through that client,
// reports which tracker it uses and how this process runs, and ends the process: the script is never loaded.
// `request` is put in front of this text; it holds no secret.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { createRequire, isBuiltin } from 'node:module';
import { dirname, join, resolve, sep } from 'node:path';
import { pathToFileURL } from 'node:url';

const MAX_FILES = 3000;
const sha256 = (text) => createHash('sha256').update(text).digest('hex');
const report = (result) =>
  new Promise((done) => process.stdout.write(`\n${request.marker}${JSON.stringify(result)}\n`, done));

// ---------------------------------------------------------------- SDK clients of this process

/** Every scope that holds a client, one for each client; copies and versions of the SDK keep theirs apart. */
const scopes = () => {
  const carrier = globalThis.__SENTRY__ ?? {};
  const found = new Map();
  const add = (scope) => {
    const client = scope?.getClient?.();
    if (client && !found.has(client)) found.set(client, scope);
  };
  for (const part of [carrier, ...Object.values(carrier)]) {
    if (!part || typeof part !== 'object') continue;
    for (const read of [
      () => part.acs?.getCurrentScope?.(),
      () => part.acs?.getCurrentHub?.(),
      () => part.stack?.getScope?.(),
      () => part.defaultCurrentScope,
      () => part.globalScope,
      () => part.hub,
    ]) {
      try {
        add(read());
      } catch {
        // Not of this version.
      }
    }
  }
  return [...found.values()];
};

const used = (client) => {
  const dsn = client.getDsn?.();
  if (!dsn) return null;
  return {
    host: dsn.port ? `${dsn.host}:${dsn.port}` : dsn.host,
    project_id: dsn.projectId,
    key_sha256: sha256(dsn.publicKey),
  };
};

// ---------------------------------------------------------------- what the script loads

/** The text with comments replaced by spaces, so that offsets stay; strings are left alone. */
const code = (text) =>
  text.replace(
    /("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`)|\/\*[\s\S]*?\*\/|(^|[\s;{}(),])\/\/[^\n]*/g,
    (all, string, before) => string ?? (before ?? '') + ' '.repeat(all.length - (before ?? '').length),
  );

const LOADS = [
  /\b(?:import|export)\s+(?!type\b)(?:[\w*{}\s,$]+?\s+from\s*)?["']([^"'\n]+)["']/g,
  /\b(?:import|require)\s*\(\s*["'`]([^"'`\n$]+)["'`]\s*\)/g,
];

const texts = new Map();
const read = (file) => {
  if (!texts.has(file)) {
    let text = '';
    try {
      text = code(readFileSync(file, 'utf8'));
    } catch {
      // Not a file that this user may read.
    }
    texts.set(file, text);
  }
  return texts.get(file);
};

/** The file that `specifier` means in `from`; null for a package, a builtin module or what cannot be found. */
const target = (specifier, from) => {
  if (isBuiltin(specifier)) return null;
  const resolver = createRequire(from);
  const tries = [specifier, specifier.replace(/\.([cm]?)js$/, '.$1ts'), `${specifier}.ts`, `${specifier}.mjs`, `${specifier}/index.ts`];
  for (const name of tries) {
    try {
      const file = realpathSync(resolver.resolve(name.startsWith('file:') ? new URL(name).pathname : name));
      return file.includes(`${sep}node_modules${sep}`) ? null : file;
    } catch {
      // The next one.
    }
    const direct = /^[./]/.test(name) ? resolve(dirname(from), name) : '';
    if (direct && /\.[cm]?tsx?$/.test(direct) && existsSync(direct)) return realpathSync(direct);
  }
  return null;
};

/** What a file loads, in the order in which it does: import statements come before all other code. */
const loads = (file) => {
  const text = read(file);
  const found = [];
  LOADS.forEach((pattern, late) => {
    for (const match of text.matchAll(pattern)) found.push({ late, at: match.index, specifier: match[1] });
  });
  return found.sort((a, b) => a.late - b.late || a.at - b.at).map((one) => ({ ...one, file: target(one.specifier, file) }));
};

/** All files of the product that a file loads, itself included; packages are left out. */
const closure = (file, files = new Set()) => {
  const waiting = [file];
  while (waiting.length && files.size < MAX_FILES) {
    const next = waiting.pop();
    if (!next || files.has(next)) continue;
    files.add(next);
    waiting.push(...loads(next).map((one) => one.file));
  }
  return files;
};

const shown = (file) => (file.startsWith(process.cwd() + sep) ? file.slice(process.cwd().length + 1) : file);
const place = (file, at) => `${shown(file)}:${read(file).slice(0, at).split('\n').length}`;
const key = request.env_key;
const WRITES = new RegExp(
  `process\\.env\\s*(?:\\.\\s*${key}\\b|\\[\\s*["'\`]${key}["'\`]\\s*\\])\\s*(?:\\|\\||\\?\\?|&&)?=(?!=)`
    + `|Object\\.assign\\(\\s*process\\.env|process\\.env\\s*=(?!=)|process\\.loadEnvFile\\(`,
);
const CONFIG = /\b(?:dotenv\w*|config)\b[^;\n]*?\(\s*\{[^})]*\b(?:path|override|processEnv)\b/;
const OVERRIDE = /\boverride\s*:\s*true/;
const LITERAL = /["'`]https?:\/\/[0-9a-f]{32}(?::[0-9a-f]*)?@[^\s"'`/]+\/[^\s"'`]*\d["'`]/i;
const MENTIONS = /["'`]@sentry\/[\w-]+["'`/]/;
const INIT = /\binit\s*\(/;

/**
 * The first thing in a file that could give the service another DSN, as words; null when there is none. Once there is a
 * client (`early` false), only another client matters.
 */
const suspicion = (file, early) => {
  const text = read(file);
  const dotenv = early && /["'`]dotenv/.test(text);
  const checks = [
    [early ? WRITES : null, `changes ${key} or the whole environment`],
    [LITERAL, 'holds a DSN'],
    [MENTIONS.test(text) ? INIT : null, 'sets an SDK client up'],
    [dotenv ? CONFIG : null, 'reads variables from a file of its own'],
    [dotenv ? OVERRIDE : null, 'overrides variables from a file'],
  ];
  for (const [pattern, words] of checks) {
    const match = pattern?.exec(text);
    if (match) return `${place(file, match.index)} ${words}`;
  }
  return null;
};

/** Whether `file` loads `wanted` before anything that could change its settings: {reached} or {problem}, or neither. */
const reaches = (file, wanted, prelude, seen = new Set()) => {
  if (seen.has(file)) return {};
  seen.add(file);
  const text = read(file);
  for (const one of loads(file)) {
    const before = one.late ? WRITES.exec(text) : null;
    const config = one.late && /["'`]dotenv/.test(text) ? CONFIG.exec(text) : null;
    const first = [before, config].filter((match) => match && match.index < one.at)[0];
    if (one.file === wanted) {
      if (first) return { problem: `${place(file, first.index)} changes settings before the instrument file is loaded` };
      return { reached: true };
    }
    if (one.file) {
      const inner = reaches(one.file, wanted, prelude, seen);
      if (inner.reached || inner.problem) return inner;
      for (const loaded of closure(one.file)) {
        const found = suspicion(loaded, true) ?? (/["'`]dotenv/.test(read(loaded)) ? `${shown(loaded)} reads variables from a file` : null);
        if (found) return { problem: `${found}, before the instrument file is loaded` };
      }
    } else if (/^dotenv(\/config(\.js)?)?$/.test(one.specifier)) {
      prelude.add(JSON.stringify([one.specifier.startsWith('dotenv/') || /\.\s*config\s*\(\s*\)/.test(text) ? 'dotenv/config' : one.specifier, file]));
    }
  }
  return {};
};

// ---------------------------------------------------------------- the probe

const entryFile = () => {
  const from = join(process.cwd(), 'index.js');
  for (const name of [resolve(process.cwd(), request.script), `${resolve(process.cwd(), request.script)}.ts`]) {
    try {
      return realpathSync(createRequire(from).resolve(name));
    } catch {
      if (existsSync(name)) return realpathSync(name);
    }
  }
  return null;
};

/** Load the instrument file that the script loads; a sentence where that cannot be done in the service's way. */
const instrument = async (entry) => {
  const there = request.instruments.filter((path) => existsSync(path)).map((path) => realpathSync(path));
  if (!there.length) return { problem: `nothing sets an SDK client up before its script, and there is no instrument file ${request.instruments[0]}` };
  if (!entry) return { problem: `its script ${request.script} cannot be read` };
  for (const file of there) {
    const prelude = new Set();
    const found = entry === file ? {} : reaches(entry, file, prelude);
    if (found.problem) return { problem: found.problem };
    if (!found.reached) continue;
    for (const [specifier, from] of [...prelude].map((text) => JSON.parse(text))) {
      await import(pathToFileURL(createRequire(from).resolve(specifier)).href);
    }
    await import(pathToFileURL(file).href);
    return { file };
  }
  return { problem: `its script ${shown(entry)} does not load the instrument file ${shown(there[0])}` };
};

/** Files that Node.js was told to load before the script. */
const preloads = () => {
  const words = [...process.execArgv, ...(process.env.NODE_OPTIONS ?? '').split(/\s+/)];
  const found = [];
  words.forEach((word, index) => {
    const match = /^(?:-r|--require|--import)(?:=(.+))?$/.exec(word);
    const name = match && (match[1] ?? words[index + 1]);
    if (name && !name.startsWith('data:')) found.push(target(name, join(process.cwd(), 'index.js')));
  });
  return found.filter(Boolean);
};

const main = async () => {
  const ran = {
    cwd: process.cwd(),
    program: process.execPath,
    user: process.getuid?.() ?? null,
    env_sha256: key in process.env ? sha256(process.env[key]) : null,
  };
  const entry = entryFile();
  const evaluated = new Set();
  for (const file of preloads()) closure(file, evaluated);
  let source = 'preload';
  if (!scopes().length) {
    const loaded = await instrument(entry);
    if (loaded.problem) return { unproven: loaded.problem };
    closure(loaded.file, evaluated);
    source = 'instrument';
  }
  const found = scopes();
  const base = { source, ran };
  if (!found.length) return { ...base, unproven: 'the instrument file set up no SDK client' };
  const clients = found.map((scope) => used(scope.getClient()));
  if (clients.includes(null)) return { ...base, unproven: 'the SDK client has no DSN' };
  const client = found[0].getClient();
  if (client.getOptions().enabled === false) return { ...base, clients, unproven: 'the SDK client is switched off' };
  const doubts = [];
  for (const file of entry ? closure(entry) : []) {
    const words = evaluated.has(file) ? null : suspicion(file, false);
    if (words && doubts.length < 3) doubts.push(words);
  }
  if (!entry) doubts.push(`its script ${request.script} cannot be read`);
  const result = { ...base, clients, doubts, status: null };
  if (!request.send || doubts.length) return result;
  client.getOptions().sampleRate = 1;
  client.on?.('afterSendEvent', (event, response) => {
    if (event.event_id === request.event_id) result.status = response?.statusCode ?? null;
  });
  found[0].captureException(new Error(`ai-admin-cutover probe of ${request.service}`), {
    event_id: request.event_id,
    captureContext: { level: 'info', tags: request.tags, fingerprint: ['ai-admin-cutover', 'probe'] },
  });
  result.flushed = await client.flush(request.flush_ms);
  return result;
};

try {
  await report(await main());
} catch (error) {
  await report({ unproven: `${error.name}: ${String(error.code ?? error.message).split('\n')[0].slice(0, 200)}` });
} finally {
  process.reallyExit?.(0);
  process.exit(0);
}
