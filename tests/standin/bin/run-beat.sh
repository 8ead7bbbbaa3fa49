#!/bin/sh
# The schedule alone.
set -e
exec python3 -m standin beat
