"""Time that a safety decision may rest on: it is measured, never read off the wall clock, which can be set.

The wall clock (``time.time``) is for dates: when something was recorded, how old a backup is. Whether an hour was
watched, or a step takes too long, is measured with the monotonic clock.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

# An alarm that was swallowed by the code that it interrupted comes again after so many seconds.
_AGAIN = 5.0


class WatchedTime:
    """Seconds that were really spent: the sum of monotonic slices, each counted up to ``cap`` seconds.

    A slice is the time between two calls of ``tick``. What is above the cap was not spent by this process (it was
    stopped, or the machine slept), and what happens between two processes belongs to no slice. ``seconds`` is what
    an earlier process counted.
    """

    def __init__(self, monotonic: Callable[[], float], cap: float, seconds: float = 0.0) -> None:
        self.seconds = seconds if math.isfinite(seconds) and seconds > 0 else 0.0
        self._monotonic = monotonic
        self._cap = cap
        self._since = monotonic()

    def tick(self) -> float:
        """Count the time since the last call, and return the sum in seconds."""
        now = self._monotonic()
        self.seconds += min(max(now - self._since, 0.0), self._cap)
        self._since = now
        return self.seconds

    def skip(self) -> None:
        """Leave out the time since the last call."""
        self._since = self._monotonic()


@contextlib.contextmanager
def time_limit(seconds: float, error: Callable[[], Exception]) -> Iterator[None]:
    """Raise ``error()`` in the block once it has taken ``seconds``, also while it waits in a system call.

    It needs the main thread, as signals arrive there; in another thread there is no limit. A shorter limit around
    it stays in force.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise error()

    began = time.monotonic()
    outer, again = signal.getitimer(signal.ITIMER_REAL)
    handler = signal.getsignal(signal.SIGALRM)
    if outer and outer <= seconds:
        yield
        return
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - began), 0.01), again)
