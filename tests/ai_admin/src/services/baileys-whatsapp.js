'use strict';

require('../instrument');

const { WhatsAppSessionError } = require('../lib/errors');
const { run } = require('../lib/service');

const SESSION_LIFE_MS = 1000;

const session = { companyId: 962302, openedAt: Date.now() - SESSION_LIFE_MS };

function send(operation) {
  const ageMs = Date.now() - session.openedAt;
  if (ageMs >= SESSION_LIFE_MS) {
    throw new WhatsAppSessionError('WhatsApp session is closed: credentials expired', {
      code: 'SESSION_EXPIRED',
      tags: {
        component: 'whatsapp', subcomponent: 'baileys', operation, backend: 'whatsapp', companyId: String(session.companyId),
      },
      extra: { session: { companyId: session.companyId, ageMs, lifeMs: SESSION_LIFE_MS } },
    });
  }
}

run({ work: () => send('send_message') });
