#!/bin/sh
# A worker without the schedule.
set -e
exec python3 -m standin worker
