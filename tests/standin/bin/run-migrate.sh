#!/bin/sh
# Schema, cache table, partitions. Safe to repeat.
set -e
exec python3 manage.py migrate
