'use strict';

const { Sentry, service } = require('../instrument');

const fs = require('node:fs');
const path = require('node:path');

const { report } = require('../lib/report');

const SPOOL = process.env.AI_ADMIN_SPOOL || '/var/lib/ai-admin/spool';

/** The messages that wait in the spool directory, oldest name first; no directory, no messages. */
function waiting() {
  if (!fs.existsSync(SPOOL)) {
    return [];
  }
  return fs.readdirSync(SPOOL).filter((name) => name.endsWith('.json')).sort().map((name) => path.join(SPOOL, name));
}

/** Group the waiting messages by chat and take them out of the spool. Throws on one that is not JSON. */
function processBatch() {
  const chats = new Map();
  for (const file of waiting()) {
    const message = JSON.parse(fs.readFileSync(file, 'utf8'));
    chats.set(message.chat, (chats.get(message.chat) ?? 0) + 1);
    fs.unlinkSync(file);
  }
  return chats;
}

// One run of the job that PM2 starts every minute. It ends by itself, after the SDK's queue is sent.
try {
  const chats = processBatch();
  console.log(`${service}: ${chats.size} chats`);
} catch (error) {
  report(error, {
    tags: { component: 'batch-processor', operation: 'group', backend: 'spool' },
    extra: { spool: SPOOL },
  });
  process.exitCode = 1;
}
// The SDK's timer of close() would keep the process for its whole time-out.
Sentry.close(2000).then(() => process.exit());
