"""What can go wrong, each with the exit code that tells the caller in which state the host was left.

One base for all packages: what a shared part raises is an error of its caller's, as it is.
"""

from __future__ import annotations

from typing import Any


class CoreError(Exception):
    """A refusal or failure in one clear sentence; nothing of the host was changed by the refused act.

    ``exit_code`` is the process's exit code. The message says what is wrong, where, and what to do, and never holds a DSN, a
    key or a token.
    """

    exit_code = 1

    def __init__(self, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details: dict[str, Any] = details or {}


class UsageError(CoreError):
    """The command line or the configuration file is wrong (exit code 2)."""

    exit_code = 2


class RolledBackError(CoreError):
    """The change failed and the state of before is back (exit code 3)."""

    exit_code = 3


class IncompleteError(CoreError):
    """A change was begun and is neither complete nor rolled back (exit code 4)."""

    exit_code = 4


class UnrecordedError(IncompleteError):
    """Everything is restored, but its record could not be written as a whole (exit code 4)."""


class UnprovenError(CoreError):
    """Everything is restored, but that could not be proven (exit code 5)."""

    exit_code = 5


class BusyError(CoreError):
    """Another run holds the lock (exit code 75, as in sysexits' EX_TEMPFAIL)."""

    exit_code = 75


class StoppedError(CoreError):
    """The run, or its step, has to end. Raised in the middle of any call, and not a result of that call.

    Code that continues after a CoreError must re-raise this one.
    """


class InterruptedRunError(StoppedError):
    """A signal asked the run to end; raised in the main thread, so that the rollback starts at once."""


class StepTooLongError(StoppedError):
    """A step took longer than its limit and was given up."""


class UnexpectedError(CoreError):
    """Something failed in a way that nobody foresaw; the sentence names the kind and the place, never a value."""


def unexpected(error: BaseException) -> str:
    """The sentence about an exception: its own where it is one of ours, else its kind and where it was raised."""
    if isinstance(error, CoreError):
        return str(error)
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" in {place.tb_frame.f_code.co_name}:{place.tb_lineno}" if place else ""
    return f"unexpected {type(error).__name__}{where}"


def reason_of(error: Exception) -> str:
    """The reason within a sentence: what the system says of a refused call, else as :func:`unexpected`."""
    return (error.strerror if isinstance(error, OSError) else "") or unexpected(error)
