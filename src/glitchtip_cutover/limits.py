"""How long each step of a rollback may take. A step that takes longer is given up, and the others still run.

The calls of a step (PM2, systemd, Docker, trackers) have limits of their own. These ones are for what has none: a
file system that hangs, a peer that never stops to answer, a wait that does not end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from glitchtip_core.clock import time_limit

from .config import Config
from .errors import StepTooLongError

#: Takes seconds and the name of a step, and limits the block that it is put around.
Limit = Callable[[float, str], AbstractContextManager[None]]

#: Seconds for removing what interrupted writes left, for one file, and for the manager's saved list.
CLEANING, FILE, SAVING = 20.0, 30.0, 180.0
#: Seconds on top of what the proof, the wait for the lock and the notifications take at most by themselves.
MARGIN = 30.0
NOTIFYING = 60.0


def limit_step(seconds: float, step: str) -> AbstractContextManager[None]:
    """Raise StepTooLongError in the block once it has taken ``seconds``."""
    return time_limit(
        seconds, lambda: StepTooLongError(f"{step} took longer than {seconds:g} s and was given up")
    )


def unlimited(_seconds: float, _step: str) -> AbstractContextManager[None]:
    """No limit, for simulations whose time is not the clock's."""
    return nullcontext()


def restart_seconds(config: Config) -> float:
    """The limit for restarting all services and seeing them run: that of a whole run."""
    return config.run_max


def told_limits(config: Config, proof: float) -> str:
    """The limits in one sentence, for people who wait."""
    return (
        f"each step has a time limit: {FILE:g} s for a file, {restart_seconds(config):g} s for all restarts, {SAVING:g} s for the "
        f"manager's saved list, {proof + MARGIN:g} s for the proof; a step that takes longer is given up and the next one begins"
    )
