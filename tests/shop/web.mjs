import http from 'node:http';

import { run } from './lib/run.mjs';

http.createServer((request, response) => response.end('<h1>Shop</h1>')).listen(3101, '127.0.0.1');
run('the page of an unknown product was asked for');
