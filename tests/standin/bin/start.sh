#!/bin/sh
# The image's command: SERVER_ROLE decides what this container is.
set -e
case "${STANDIN_LINE:-5.2}:${SERVER_ROLE:-web}" in
  5.2:web | 6.2:web) exec ./bin/run-web.sh ;;
  5.2:worker) exec ./bin/run-celery.sh ;;
  5.2:worker_with_beat) exec ./bin/run-celery-with-beat.sh ;;
  5.2:beat) exec ./bin/run-beat.sh ;;
  6.2:worker) exec ./bin/run-worker.sh ;;
  6.2:all_in_one) exec ./bin/run-all-in-one.sh ;;
  *)
    echo "Unknown SERVER_ROLE: ${SERVER_ROLE}" >&2
    exit 1
    ;;
esac
