'use strict';

/*
 * The ledger of captured errors: one JSON line before an event is handed to the SDK, one after the
 * tracker has answered. It is what "nothing was lost" is counted from, so it is written with
 * appendFileSync: a line is in the file before the next statement runs, and a short line appended to
 * a file opened with O_APPEND never mixes with another process's.
 *
 *   {"at","service","event_id","state":"captured"}
 *   {"at","service","event_id","state":"acknowledged","status","host"}    answered 2xx
 *   {"at","service","event_id","state":"refused","status","host"}         any other answer; status null: none
 *
 * `host` is the host name of the DSN, without its port.
 */

const crypto = require('node:crypto');
const fs = require('node:fs');

const FILE = process.env.AI_ADMIN_LEDGER || '/var/lib/ai-admin/ledger.jsonl';

const captured = new Set();

/** A new event id: 32 hexadecimal digits, as the SDK makes them. */
function newEventId() {
  return crypto.randomUUID().replaceAll('-', '');
}

function append(entry) {
  fs.appendFileSync(FILE, `${JSON.stringify({ at: new Date().toISOString(), ...entry })}\n`, { mode: 0o600 });
}

/** Write down that `eventId` is about to be captured. Throws where the ledger cannot be written. */
function recordCaptured(service, eventId) {
  append({ service, event_id: eventId, state: 'captured' });
  captured.add(eventId);
}

/** Write the tracker's answer to every error event of this client. */
function attach(client, service) {
  const host = client.getDsn()?.host ?? null;
  // Errors that did not pass through report(), such as an uncaught exception, are written down too.
  client.on('beforeSendEvent', (event) => {
    if (event.type === undefined && event.event_id && !captured.has(event.event_id)) {
      safely(() => recordCaptured(service, event.event_id));
    }
  });
  client.on('afterSendEvent', (event, response) => {
    if (event.type !== undefined || !event.event_id) {
      return;
    }
    captured.delete(event.event_id);
    const status = response?.statusCode ?? null;
    const state = status !== null && status >= 200 && status < 300 ? 'acknowledged' : 'refused';
    safely(() => append({ service, event_id: event.event_id, state, status, host }));
  });
}

/** Inside the SDK's hooks a ledger that cannot be written must not break the product. */
function safely(write) {
  try {
    write();
  } catch (error) {
    console.error(`ledger ${FILE} cannot be written: ${error.message}`);
  }
}

module.exports = { attach, newEventId, recordCaptured };
