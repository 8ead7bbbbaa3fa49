import { run } from './lib/run.mjs';

// Waits for the end of the month; nothing to report until something breaks.
run();
