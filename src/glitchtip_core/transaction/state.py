"""What a journal says: the only place in which its records are interpreted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import CoreError

Record = dict[str, Any]
#: The active target before anything is changed.
ORIGIN = "before"
#: Targets of a rollback: the state before the last attempt, or the snapshot taken before the migration.
ATTEMPT, SNAPSHOT = "attempt", "snapshot"


@dataclass(frozen=True)
class Kinds:
    """What the journal of one client holds beside the records of every transaction.

    ``remarks``: events that record what was seen or decided; each other one is written before an act that changes something.
    ``saved``: the event after which what an attempt changed also survives a restart of the machine. ``part`` and
    ``fingerprint``: fields that name a part of the whole, and the hash of what an attempt brings. ``target``: what an attempt
    goes to that does not say it. ``otherwise``: what helps where the journal does not, for people.
    """

    remarks: frozenset[str] = frozenset()
    saved: str = "saved"
    part: str = "part"
    fingerprint: str = "fingerprint"
    target: str = ""
    otherwise: str = ""

    def is_act(self, event: str) -> bool:
        """Whether an event is written before something is changed."""
        return event not in self.remarks and event not in _REMARKS


#: Remarks of every transaction.
_END_OF_TIME = 253_402_300_800  # the first second that no date has, 10000-01-01
_REMARKS = frozenset({"note", "unexpected", "record_incomplete"})


@dataclass(frozen=True)
class State:
    """What the journal says. Times are in epoch seconds.

    ``phase``: none, applying, applied, confirmed, rolling_back, rolled_back, and ``phase_at`` since when. ``target``: what the
    current attempt goes to. ``stands``: what is in effect, ``before`` or a target, ``stands_sha256`` the hash of what it brought,
    and ``confirmed_at`` when it was confirmed. ``overrides``: parts put back alone; ``overriding``: one for which that was begun
    and not finished. ``stack_id`` is the stack that ``stands`` was proven on.
    """

    phase: str = "none"
    attempt: int = 0
    saved: bool = False
    target_sha256: str = ""
    rollback_target: str = ""
    deadline: float | None = None
    problems: tuple[str, ...] = field(default=())
    target: str = ""
    stands: str = ORIGIN
    stands_sha256: str = ""
    overrides: tuple[str, ...] = field(default=())
    overriding: str = ""
    stack_id: str = ""
    phase_at: float | None = None
    confirmed_at: float | None = None

    @property
    def open(self) -> bool:
        """Whether a change was begun and neither confirmed nor taken back."""
        return self.phase in ("applying", "applied", "rolling_back")

    @property
    def settled(self) -> bool:
        """Whether no change is open, of the whole or of a part of it."""
        return not self.open and not self.overriding

    @property
    def at_origin(self) -> bool:
        """Whether everything is as it was before anything was changed. A failed attempt that was taken back is not enough."""
        return self.settled and self.stands == ORIGIN

    @property
    def parts_back(self) -> tuple[str, ...]:
        """Parts that are, or may be, where they were before everything, while the rest is not."""
        return tuple(dict.fromkeys((*self.overrides, *([self.overriding] if self.overriding else []))))


class _Fields:
    """The fields of one record. What decides about the state has to be there and of its type."""

    def __init__(self, record: Mapping[str, Any], number: int, otherwise: str) -> None:
        self._record = record
        self._number = number
        self._otherwise = otherwise
        self.event = record.get("event")

    def text(self, name: str, default: str | None = None) -> str:
        """A text; with a ``default`` where it is missing or none. Raises CoreError without one."""
        value = self._record.get(name)
        if isinstance(value, str):
            return value
        if default is None:
            what = f"record {self._number} of the journal ({self.event}) is incomplete: it has no {name}"
            raise CoreError("; ".join(filter(None, (what, "correct or remove that record", self._otherwise))))
        return default

    def number(self, name: str, default: int) -> int:
        """A whole number that is not negative; the default where it is missing or none."""
        value = self._record.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default

    def seconds(self, name: str) -> float | None:
        """A time of the years 1970 to 9999; None where it is missing or none."""
        value = self._record.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        return value if 0 <= value < _END_OF_TIME else None

    def sentences(self, name: str) -> tuple[str, ...]:
        """A list of texts; one sentence where it is missing or none."""
        value = self._record.get(name)
        if isinstance(value, list):
            return tuple(item for item in value if isinstance(item, str))
        return ("the journal does not say what the problem was",)


def fold(records: Iterable[Mapping[str, Any]], kinds: Kinds) -> State:
    """Work out the state from the records, oldest first.

    A field that is missing is worked out where it can be. Raises CoreError where the state depends on it.
    """
    state = State()
    stood = state  # what stood before the current attempt, and stands again once that is taken back
    for number, record in enumerate(records, start=1):
        fields = _Fields(record, number, kinds.otherwise)
        if fields.event == "apply_begin":
            stood = state
        before = state.phase
        state = _after_change(state, stood, fields, kinds) or _after_part(state, fields, kinds) or state
        if fields.event == "apply_begin" or state.phase != before:
            state = replace(state, phase_at=fields.seconds("at"))
    return state


def _after_change(state: State, stood: State, fields: _Fields, kinds: Kinds) -> State | None:
    """The state after a record about the whole; None for any other record."""
    event = fields.event
    if event == "apply_begin":
        return State(
            phase="applying",
            attempt=fields.number("attempt", state.attempt + 1),
            target_sha256=fields.text(kinds.fingerprint, ""),
            target=fields.text("target", kinds.target),
            stands=state.stands,
            stands_sha256=state.stands_sha256,
            overrides=state.overrides,
            stack_id=fields.text("stack_id", ""),
            confirmed_at=state.confirmed_at,
        )
    if event == kinds.saved:
        return replace(state, saved=True)
    if event == "applied":
        return replace(
            state,
            phase="applied",
            deadline=fields.seconds("deadline"),
            stands=state.target,
            stands_sha256=state.target_sha256,
            confirmed_at=None,
        )
    if event == "confirmed":
        return replace(state, phase="confirmed", deadline=None, confirmed_at=fields.seconds("at"))
    if event == "rollback_begin":
        target = fields.text("target")
        return replace(state, phase="rolling_back", rollback_target=target, problems=(), deadline=None)
    if event == "rolled_back":
        kept = stood if fields.text("target", state.rollback_target) == ATTEMPT else State()
        return State(
            phase="rolled_back",
            attempt=state.attempt,
            target=kept.target,
            stands=kept.stands,
            stands_sha256=kept.stands_sha256,
            overrides=kept.overrides,
            stack_id=kept.stack_id,
            confirmed_at=kept.confirmed_at,
        )
    if event in ("rollback_incomplete", "override_incomplete", "unexpected", "record_incomplete"):
        return replace(state, problems=fields.sentences("problems"))
    return None


def _after_part(state: State, fields: _Fields, kinds: Kinds) -> State | None:
    """The state after a record about one part of the whole; None for any other record."""
    event = fields.event
    if event == "override_begin":
        return replace(state, overriding=fields.text(kinds.part), problems=())
    if event == "override_dropped":
        return replace(state, overriding="", problems=())
    if event == "override_done":
        part = fields.text(kinds.part, state.overriding)
        names = (*(name for name in state.overrides if name != part), part)
        return replace(state, overriding="", overrides=names, problems=())
    if event == "override_removed":
        part = fields.text(kinds.part)
        return replace(state, overrides=tuple(name for name in state.overrides if name != part))
    return None
