"""When people hear of trouble that lasts: at once, then once in a while, and once more when it is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar


class Checked(Protocol):
    """A check that was made: its name, and whether all is well."""

    @property
    def name(self) -> str:
        """What was checked."""

    @property
    def ok(self) -> bool:
        """Whether all is well."""


_Check = TypeVar("_Check", bound=Checked)


@dataclass(frozen=True)
class Decision(Generic[_Check]):
    """What to report (``firing``, ``recovered``) and the state to keep when it was reported, or could not be."""

    firing: tuple[_Check, ...]
    recovered: tuple[_Check, ...]
    told: dict[str, dict[str, Any]]
    untold: dict[str, dict[str, Any]]


def decide(
    state: Mapping[str, Mapping[str, Any]], checks: Sequence[_Check], now: datetime, throttle: float
) -> Decision[_Check]:
    """Which checks to report: trouble once in ``throttle`` seconds each, recovery of reported trouble once.

    ``state`` maps a check's name to ``{"since", "alerted_at"}`` while it is in trouble (ISO 8601, UTC).
    """
    firing: list[_Check] = []
    recovered: list[_Check] = []
    made = {check.name for check in checks}
    told = {
        name: dict(entry) for name, entry in state.items() if name not in made
    }  # a quick run makes a few only
    untold = {name: dict(entry) for name, entry in told.items()}
    stamp = now.isoformat(timespec="seconds")
    for check in checks:
        before = state.get(check.name)
        if check.ok:
            if before is not None and before.get("alerted_at"):
                recovered.append(check)
                untold[check.name] = dict(before)
            continue
        entry: dict[str, Any] = {"since": stamp, "alerted_at": None, **(before or {})}
        untold[check.name] = dict(entry)
        last = datetime.fromisoformat(str(entry["alerted_at"])) if entry["alerted_at"] else None
        # A mark in the future (clock set back) does not silence anything.
        if last is None or not 0 <= (now - last).total_seconds() < throttle:
            firing.append(check)
            entry["alerted_at"] = stamp
        told[check.name] = entry
    return Decision(tuple(firing), tuple(recovered), told, untold)
