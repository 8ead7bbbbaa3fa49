#!/bin/sh
# Web, worker and schedule in one process, after migrations.
set -e
STANDIN_ALL_IN_ONE=1
export STANDIN_ALL_IN_ONE
exec python3 -m standin all_in_one
