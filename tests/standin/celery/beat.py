"""celery's scheduler as far as commands hook into it: the process class of the embedded one, and the call that queues a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: None makes the embedded scheduler a thread, as in celery; else it is a process.
_Process: Any = object


class Scheduler:
    """Queues tasks that are due."""

    def apply_async(
        self, entry: Callable[[], None], producer: Any = None, advance: bool = True, **_: Any
    ) -> None:
        """Queue one task; what goes wrong is raised, and logged by the caller."""
        del producer, advance
        entry()
