'use strict';

require('../instrument');

const { ClientRepository } = require('../lib/client-repository');
const { JobFailedError } = require('../lib/errors');
const { run } = require('../lib/service');

const ATTEMPTS = 3;

const repository = new ClientRepository();
let jobs = 0;

/** Store the client of a message. The same client writes again and again. */
function storeClient() {
  repository.insert({ companyId: 962302, phone: '+10000000000', name: 'Example Client' });
}

/** Run a job up to ATTEMPTS times; throws JobFailedError after the last attempt. */
function withRetries(jobId, job) {
  let cause;
  for (let attemptsMade = 1; attemptsMade <= ATTEMPTS; attemptsMade += 1) {
    try {
      return job();
    } catch (error) {
      cause = error;
    }
  }
  throw new JobFailedError(`job process-message failed after ${ATTEMPTS} attempts`, {
    cause,
    tags: { component: 'queue', operation: 'process-message', backend: 'bullmq' },
    extra: { queue: 'messages', jobId, retry: { attemptsMade: ATTEMPTS, attempts: ATTEMPTS } },
  });
}

/** Every third job is a message that is worth retrying; the others are stored once, directly. */
function work() {
  jobs += 1;
  if (jobs % 3 === 0) {
    withRetries(String(jobs), storeClient);
  } else {
    storeClient();
  }
}

run({ work });
