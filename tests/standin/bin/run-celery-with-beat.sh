#!/bin/sh
# A worker that also keeps the schedule; exactly one may run.
set -e
if [ "${STANDIN_LINE:-5.2}" = "5.2" ]; then
  exec python3 -m standin worker_with_beat
fi
exec python3 -m standin worker
