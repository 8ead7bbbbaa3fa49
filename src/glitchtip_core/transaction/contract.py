"""How a command that changes the host may end.

Before its first act a failure is a refusal (exit code 1). Once an act was journalled, a run ends as done, as rolled
back (3), incomplete (4) or unproven (5), whatever kind of exception stopped it: a run that stops otherwise is made
incomplete here, so that it is recorded and reported and the recovery unit takes the change back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..errors import (
    BusyError,
    CoreError,
    IncompleteError,
    RolledBackError,
    UnexpectedError,
    UnprovenError,
    UsageError,
    unexpected,
)
from .journal import Journal
from .state import State
from .store import Store

_OUTCOMES = (RolledBackError, IncompleteError, UnprovenError)
_REFUSALS = (BusyError, UsageError)


@contextlib.contextmanager
def accountable(
    command: str,
    journal: Journal,
    store: Store,
    tell: Callable[[str, Mapping[str, Any]], object],
    *,
    following: str,
    unattended: bool = False,
) -> Iterator[None]:
    """Hold a command to the contract above.

    ``following``: what people do next after a run that is not complete. ``unattended``: nobody waits for the result, so a
    failure with a change still open is incomplete, even where this run began no act. Raises CoreError and nothing else.
    """
    begun = journal.acts
    try:
        yield
    except _OUTCOMES:
        raise
    except _REFUSALS:
        raise
    except Exception as error:
        reason = unexpected(error)
        state = _state(journal)
        foreseen = isinstance(error, CoreError) and not isinstance(error, UnexpectedError)
        still_open = (unattended or not foreseen) and _is_open(state, unattended)
        if journal.acts == begun and not still_open:
            if isinstance(error, CoreError):
                raise
            raise UnexpectedError(f"{reason}; {command} changed nothing") from error
        _report(command, reason, state, journal, store)
        tell("incomplete", {"reason": reason, "problems": [reason]})
        raise IncompleteError(
            f"{reason}; {command} is not complete: {following}",
            {"problems": [reason], "state": state.phase if state else "unknown", "changed": True},
        ) from error


def _state(journal: Journal) -> State | None:
    """What the journal says; None when it cannot be read."""
    try:
        return journal.state()
    except Exception:
        return None


def _is_open(state: State | None, unattended: bool) -> bool:
    """Whether a change is open that nobody but the recovery closes; an applied one waits for its confirm."""
    if state is None:
        return unattended
    return state.phase in ("applying", "rolling_back") or bool(state.overriding) or (unattended and state.open)


def _report(command: str, reason: str, state: State | None, journal: Journal, store: Store) -> None:
    """Keep in the journal what happened, and leave the mark that makes the recovery unit look."""
    with contextlib.suppress(Exception):
        if state is None or state.open or state.overriding:
            store.mark_open(state.attempt if state else 0)
    with contextlib.suppress(Exception):
        journal.append("unexpected", command=command, problems=[reason])
