'use strict';

require('../instrument');

const { run } = require('../lib/service');

// Watches the sender's limits; nothing to report while they hold.
run();
