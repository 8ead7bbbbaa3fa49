"""What the transaction touches outside its own files, in one place, so that tests can put their own there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glitchtip_core.dsn import Dsn
from glitchtip_core.transaction.detached import Deadline
from glitchtip_core.transaction.limits import Limit, limit_step, unlimited

from .announce import notifier_of
from .api import Tracker, send_test_event
from .config import Config, Side
from .deadline import program_of
from .manager import Manager, Process, manager_for
from .proof import Prober
from .surroundings import Surroundings, read_surroundings


def _silent(_line: str) -> None:
    """Progress that nobody wants."""


def _untold(_event: str, _facts: Mapping[str, Any]) -> list[str]:
    """Nobody is told."""
    return []


def _unwatched(_facts: Mapping[str, Any]) -> None:
    """No watch follows."""


def _no_problem() -> str:
    """Nothing stands against it."""
    return ""


def _nothing_around(_listed: Sequence[Process]) -> Surroundings:
    """No files and no processes are compared."""
    return Surroundings()


@dataclass
class Host:
    """The services' manager, trackers, systemd, probes, time, and where progress and notifications go.

    ``notify`` takes an event and facts and returns problems; it never raises and takes a few seconds at most.
    ``limit`` bounds the time of a step. ``start_watch`` takes the facts of what was confirmed. ``mirror_problem`` says in
    one sentence why services must not enter the mirror now, and is empty when they may. ``surroundings`` reads what may give services their DSN.
    """

    manager: Manager
    tracker: Callable[[Side], Tracker]
    deadline: Deadline
    prober: Prober
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    limit: Limit = unlimited
    progress: Callable[[str], None] = _silent
    observer: Callable[[str, str], None] | None = None
    send_test_event: Callable[[Dsn, Mapping[str, str], str, float], str] = send_test_event
    notify: Callable[[str, Mapping[str, Any]], list[str]] = _untold
    start_watch: Callable[[Mapping[str, Any]], None] = _unwatched
    mirror_problem: Callable[[], str] = _no_problem
    surroundings: Callable[[Sequence[Process]], Surroundings] = _nothing_around


def real_host(config: Config, progress: Callable[[str], None]) -> Host:
    """The host we run on. Its ports raise nothing but CutoverError."""
    from .containment import contain_host  # these themselves need what is in here
    from .mirror import problem
    from .watch import start_watch

    manager = manager_for(config)
    host = Host(
        manager=manager,
        tracker=Tracker,
        deadline=Deadline(program_of(config)),
        prober=Prober(config, monotonic=time.monotonic, sleep=time.sleep, manager=manager),
        limit=limit_step,
        progress=progress,
        notify=notifier_of(config.notify_file).send,
        start_watch=lambda facts: start_watch(config, facts),
        mirror_problem=lambda: problem(config),
        surroundings=lambda listed: read_surroundings(config, listed),
    )
    return contain_host(host)
