#!/bin/sh
# The worker of the 6.x line, which keeps the schedule, too.
set -e
exec python3 -m standin worker
