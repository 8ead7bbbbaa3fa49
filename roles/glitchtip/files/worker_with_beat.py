"""GlitchTip 5.2's worker with celery's scheduler (beat) as a thread; it leaves a mark whenever the scheduler has queued a task.

The image's own command forks the scheduler, which costs about 70 MiB after the first events (measured on 5.2). Relies on two names of
celery, hence only for versions on which it was seen to work (BEAT_THREAD_VERSIONS in filter_plugins/sizing.py).
"""

import sys
import time
from pathlib import Path
from typing import Any

import celery.beat
from celery.__main__ import main

MARK = Path("/tmp/beat_mark")  # noqa: S108 - the container has a tmpfs there
# Without a process class celery starts its embedded scheduler as a thread.
celery.beat._Process = None
queue_task = celery.beat.Scheduler.apply_async


def queue_and_mark(self: Any, *arguments: Any, **options: Any) -> Any:
    """Queue a task as celery does; an error leaves the mark as it is."""
    result = queue_task(self, *arguments, **options)
    MARK.write_text(f"{time.time():.0f}\n")
    return result


celery.beat.Scheduler.apply_async = queue_and_mark
SCHEDULE = "/tmp/celerybeat-schedule"  # noqa: S108 - as above
sys.argv = ["celery", "-A", "glitchtip", "worker", "-l", "info", "-B", "-s", SCHEDULE]
main()
