// One-shot probe: loads the product's own instrument file in a service's directory and environment,
// sends one tagged event through the SDK client that it set up, and reports which tracker that client uses.
// It is given to `node --input-type=module -` on standard input, with one JSON argument that holds no secret.
import { createHash } from 'node:crypto';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const request = JSON.parse(process.argv[2]);
const report = (result) =>
  new Promise((done) => process.stdout.write(`\n${request.marker}${JSON.stringify(result)}\n`, done));

const loadSdk = () => {
  const failures = [];
  for (const from of [request.instrument, resolve(process.cwd(), 'index.js')]) {
    try {
      return createRequire(from)('@sentry/node');
    } catch (error) {
      failures.push(error.code ?? error.name);
    }
  }
  throw new Error(`@sentry/node cannot be loaded (${failures.join(', ')})`);
};

const main = async () => {
  await import(pathToFileURL(request.instrument).href);
  const sdk = loadSdk();
  const client = sdk.getClient();
  const dsn = client?.getDsn();
  if (!client) return { problem: 'the instrument file set up no SDK client' };
  if (!dsn) return { problem: 'the SDK client has no DSN' };
  if (client.getOptions().enabled === false) return { problem: 'the SDK client is switched off' };
  let status = null;
  client.on('afterSendEvent', (event, response) => {
    if (event.event_id === request.event_id) status = response?.statusCode ?? null;
  });
  sdk.captureException(new Error(`ai-admin-cutover probe of ${request.service}`), {
    event_id: request.event_id,
    captureContext: { level: 'info', tags: request.tags, fingerprint: ['ai-admin-cutover', 'probe'] },
  });
  const flushed = await client.flush(request.flush_ms);
  return {
    host: dsn.port ? `${dsn.host}:${dsn.port}` : dsn.host,
    project_id: dsn.projectId,
    key_sha256: createHash('sha256').update(dsn.publicKey).digest('hex'),
    flushed,
    status,
  };
};

try {
  await report(await main());
} catch (error) {
  await report({ problem: `${error.name}: ${String(error.code ?? error.message).split('\n')[0].slice(0, 200)}` });
}
process.exit(0);
