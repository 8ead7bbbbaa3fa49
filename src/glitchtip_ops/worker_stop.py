"""Work that needs the worker stopped, so that it always ends with the worker started.

The order to stop is on disk before the worker is: a program that was killed in between leaves a record, and the
next ``queue recover``, ``stack restart`` or health check (``glitchtip-queue.timer``, every two minutes) starts
the worker. Docker alone would not: a container that was stopped stays stopped, also over a reboot.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from glitchtip_core.files import lock, read_object, write_object

from .docker_stack import Container, Stack
from .process import OpsError

#: Shortest time (seconds) that a worker gets to store its batch; a longer one of the container wins.
GRACE = 30
#: Exit code of a process that SIGKILL ended: the grace was too short.
KILLED = 137
_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_HEALTHY_WITHIN = 120.0


def record_of(state_dir: Path) -> Path:
    """Where it is noted that the worker was stopped on purpose."""
    return state_dir / "worker-stopped.json"


def exclusive(state_dir: Path) -> AbstractContextManager[None]:
    """Only one of ``queue recover`` and ``stack restart`` at a time. Raises OpsError when one runs."""
    return lock(state_dir / ".stack.lock", "a recovery of the queue or a restart of the stack")


def finish_interrupted(stack: Stack, state_dir: Path) -> str | None:
    """Start the worker that an interrupted command left stopped; a sentence about it, None when none did.

    Only to be called by who holds :func:`exclusive`. Raises OpsError when it cannot be started.
    """
    record = read_object(record_of(state_dir))
    if record is None:
        return None
    started = [worker.service for worker in stack.workers(stack.containers()) if not worker.running]
    for worker in stack.workers(stack.containers()):
        stack.start(worker)
    record_of(state_dir).unlink(missing_ok=True)
    state = "started the worker that it left stopped" if started else "the worker runs"
    return f"{record.get('reason', 'a command')} of {record.get('since', 'earlier')} was interrupted: {state}"


@contextmanager
def _ended_by_exception() -> Iterator[None]:
    """Have a signal leave the block as an exception, so that what it must undo is undone."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before: dict[signal.Signals, Any] = {}
    try:
        for each in _SIGNALS:
            before[each] = signal.signal(each, end)
    except ValueError:  # not the main thread: whoever started it handles signals
        before = {}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Have signals wait until the block is left."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


@contextmanager
def stopped_worker(stack: Stack, state_dir: Path, reason: str) -> Iterator[bool]:
    """Stop every worker for the block and start it again whatever happens; whether it ended by itself.

    False: it did not store its batch within the grace and was killed. Raises OpsError when the engine fails.
    """
    workers = stack.workers(stack.containers())
    if not workers:
        raise OpsError(f"there is no worker in the Compose project {stack.project}; deploy it first")
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    with _ended_by_exception():
        write_object(record_of(state_dir), {"since": stamp, "reason": reason})
        try:
            codes = [stack.stop(worker, max(GRACE, worker.stop_timeout)) for worker in workers]
            yield KILLED not in codes
        finally:
            with _undisturbed():
                for worker in workers:
                    stack.start(worker)
                record_of(state_dir).unlink(missing_ok=True)


def see_stopped(stack: Stack) -> None:
    """Raise OpsError when somebody else has started a worker within the block of :func:`stopped_worker`."""
    running = [worker.name for worker in stack.workers(stack.containers()) if worker.running]
    if running:
        raise OpsError(
            f"{', '.join(running)} was started by another program while it had to be stopped (a deployment?):"
            " nothing more was changed; run the command again when that has ended"
        )


def wait_until_well(
    stack: Stack,
    services: Sequence[str],
    *,
    seconds: float = _HEALTHY_WITHIN,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Container]:
    """The containers of ``services`` once each runs and is healthy. Raises OpsError when that takes longer."""
    end = time.monotonic() + seconds
    while True:
        found = {each.service: each for each in stack.containers()}
        ill = [name for name in services if name not in found or not found[name].well]
        if not ill:
            return [found[name] for name in services]
        if time.monotonic() >= end:
            raise OpsError(f"{', '.join(ill)} did not become healthy within {seconds:.0f} s; see docker logs")
        sleep(0.5)
