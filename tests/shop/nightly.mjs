import * as Sentry from '@sentry/node';

import { report } from './lib/run.mjs';

const RUN_MS = 25_000;

// One run of the job that PM2 starts by cron_restart; it takes a while and ends by itself.
report('a line of the export is not complete');
await new Promise((done) => setTimeout(done, RUN_MS));
await Sentry.close(2000);
process.exit(0);
