'use strict';

// Written before the others became ES modules; PM2 gives it --import like the rest.
import('./lib/run.mjs').then(({ run }) => run('an order has no address'));
