'use strict';

require('./instrument');

const http = require('node:http');

const database = require('./lib/database');
const { report } = require('./lib/report');
const { run } = require('./lib/service');

const given = Number.parseInt(process.env.PORT ?? '', 10);
const PORT = Number.isInteger(given) ? given : 3000;

let attempt = 0;

function answer(response, status, body) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
}

const server = http.createServer(async (request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  if (request.method === 'GET' && pathname === '/health') {
    answer(response, 200, { status: 'ok', uptime: process.uptime() });
  } else if (request.method === 'GET' && pathname === '/api/bookings') {
    try {
      await database.ping('select_bookings', 1);
      answer(response, 200, []);
    } catch (error) {
      report(error, error.context);
      answer(response, 503, { error: 'database unavailable' });
    }
  } else {
    answer(response, 404, { error: 'not found' });
  }
});

server.on('error', (error) => {
  console.error(`port ${PORT}: ${error.message}`);
  process.exit(1);
});
server.listen(PORT, '127.0.0.1');

run({
  work: () => database.ping('keep_alive', (attempt += 1)),
  close: () => new Promise((resolve) => server.close(resolve)),
});
