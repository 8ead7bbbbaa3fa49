"""How long each step of a way back may take. A step that takes longer is given up, and the others still run.

The calls of a step have limits of their own. These ones are for what has none: a file system that hangs, a peer that never stops to
answer, a wait that does not end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from ..clock import time_limit
from ..errors import StepTooLongError

#: Takes seconds and the name of a step, and limits the block that it is put around.
Limit = Callable[[float, str], AbstractContextManager[None]]

#: Seconds on top of what the wait for the lock and the notifications take at most by themselves.
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
