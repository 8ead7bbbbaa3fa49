'use strict';

require('../instrument');

const { run } = require('../lib/service');

// Waits for the nightly backup of the sessions; nothing to report until something breaks.
run();
