import { run } from './lib/run.mjs';

run('the mail server refused a recipient');
