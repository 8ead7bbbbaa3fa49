"""Health check of GlitchTip 5.2's worker: its queue responds, and the scheduler (beat) lives.

The scheduler's sign of life is the mark of worker_with_beat.py (a task queued), else the schedule file, which celery writes every three
minutes. Ends with a reason and code 1 when one of them fails. Standard library only; started every 30 s, so it imports little.
"""

import glob
import os
import socket
import sys
import time

MARK, SCHEDULE = "/tmp/beat_mark", "/tmp/celerybeat-schedule*"  # noqa: S108 - the container has a tmpfs there
# Uptime checks are queued every 10 s or so; celery syncs the schedule every 180 s.
MARK_SECONDS, SCHEDULE_SECONDS = 120, 420

try:
    with socket.create_connection(("valkey", 6379), 5) as connection:
        connection.sendall(b"PING\r\n")
        answer = connection.recv(64)
except OSError as error:
    sys.exit(f"Valkey does not respond: {error}")
if b"PONG" not in answer:
    sys.exit(f"Valkey answers {answer!r} to PING")
paths, limit = ([MARK], MARK_SECONDS) if os.path.exists(MARK) else (glob.glob(SCHEDULE), SCHEDULE_SECONDS)
if not paths:
    sys.exit("the scheduler has not started")
age = time.time() - max(os.stat(path).st_mtime for path in paths)
if age > limit:
    sys.exit(f"the scheduler has shown no sign of life for {age:.0f} s")
