import http from 'node:http';

import { run } from './lib/run.mjs';

// Two workers of a cluster share the port.
http.createServer((request, response) => response.end('{"status":"ok"}')).listen(3100, '127.0.0.1');
run('the price list is older than a day');
