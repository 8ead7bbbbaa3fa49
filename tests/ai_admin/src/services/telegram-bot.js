'use strict';

require('../instrument');

const { run } = require('../lib/service');
const { YClients } = require('../lib/yclients');

const yclients = new YClients({ limit: 5, windowMs: 60_000 });

run({
  work: () => {
    // Answering one chat message takes more calls than the window still has.
    for (let call = 0; call <= yclients.limit; call += 1) {
      yclients.call('free_slots', { companyId: 962302 });
    }
  },
});
