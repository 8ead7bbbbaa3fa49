"""How often and how many at a time: a rate limit with a bound on concurrency, and a circuit breaker.

Both are safe to share between threads. Clock and sleep are injected, so tests never wait. Own code, because
what it takes is a deque and a counter: the libraries for it weigh more than the rest of the client.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum

PER_SECOND = 10
CONCURRENT = 2
OPEN_AFTER = 5
OPEN_SECONDS = 60.0


class Limiter:
    """At most so many requests in any second, in any minute, and at a time.

    The windows are exact: between the start of a request and the start of the one `per_second` later there is
    always a second or more, with no burst at the edge of a window. None lifts a limit.

    Args:
        per_second, per_minute: requests that may start within that time.
        concurrent: requests that may be under way at the same time.
        clock, sleep: injected by tests; seconds.

    Raises ValueError for a limit below 1.
    """

    def __init__(
        self,
        per_second: int | None = PER_SECOND,
        per_minute: int | None = None,
        concurrent: int | None = CONCURRENT,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        for limit in (per_second, per_minute, concurrent):
            if limit is not None and limit < 1:
                raise ValueError("a limit is 1 or more, or None for none")
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._starts = [
            (seconds, deque[float](maxlen=count))
            for seconds, count in ((1.0, per_second), (60.0, per_minute))
            if count is not None
        ]
        self._slots = threading.BoundedSemaphore(concurrent) if concurrent is not None else None

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Wait until fewer than `concurrent` requests are under way; the block is one of them."""
        if self._slots is None:
            yield
            return
        with self._slots:
            yield

    def pace(self) -> None:
        """Wait until one more request may start. Its start is taken before the wait, first come first served."""
        if not self._starts:
            return
        with self._lock:
            start = now = self._clock()
            for seconds, starts in self._starts:
                if len(starts) == starts.maxlen:
                    start = max(start, starts[0] + seconds)
            for _, starts in self._starts:
                starts.append(start)
        if start > now:
            self._sleep(start - now)


class Verdict(Enum):
    """What a finished call says of the server."""

    UP = "it answered"
    DOWN = "it did not answer, or said that it cannot"
    UNKNOWN = "neither"


class CircuitBreaker:
    """Stops asking a server that is down, and tries it again with one request.

    Closed: every call passes. After `open_after` calls in a row with the verdict DOWN it is open: `enter`
    refuses for `open_seconds`. Then one call passes as a probe while others are still refused: UP closes,
    DOWN opens for the same time again, UNKNOWN lets the next call be the probe.

    Args:
        open_after: failed calls in a row; None never opens.
        open_seconds: how long it stays open.
        clock: injected by tests; seconds.
    """

    def __init__(
        self,
        open_after: int | None = OPEN_AFTER,
        open_seconds: float = OPEN_SECONDS,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if open_after is not None and open_after < 1:
            raise ValueError("a circuit opens after 1 failure or more, or None for never")
        self.open_after = open_after
        self._open_seconds = open_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until: float | None = None
        self._probing = False

    def enter(self) -> bool:
        """Ask to make a call: True when it is the probe. Each `enter` that returns needs its `leave`.

        Raises CircuitOpen.
        """
        with self._lock:
            if self._open_until is None:
                return False
            remaining = self._open_until - self._clock()
            if remaining > 0 or self._probing:
                raise CircuitOpen(max(remaining, 0.0))
            self._probing = True
            return True

    def leave(self, probe: bool, verdict: Verdict) -> None:
        """Say how the call ended. A late failure of a call that began before it opened changes nothing."""
        with self._lock:
            if probe:
                self._probing = False
            if verdict is Verdict.UP:
                self._failures, self._open_until = 0, None
            elif verdict is Verdict.DOWN and (probe or self._open_until is None):
                self._failures += 1
                if probe or (self.open_after is not None and self._failures >= self.open_after):
                    self._open_until = self._clock() + self._open_seconds


class CircuitOpen(Exception):  # noqa: N818 - it is a state, which the transport turns into its own error
    """No call now. `seconds` until the next one may try; 0 while another one is trying."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"open for {seconds:.0f} s")
        self.seconds = seconds
