"""The journal: one JSON line per act, on the disk before the act begins."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from glitchtip_core.files import fsync_directory, fsync_file
from glitchtip_core.json_text import decode_json

from .errors import CutoverError, unexpected

Record = dict[str, Any]
#: Records of what was seen or decided; each other one is written before an act that changes something.
_REMARKS = frozenset(
    {"note", "env_recorded_anew", "gate_overridden", "proved", "heard", "unproven_accepted", "verified", "unexpected", "record_incomplete"}
    | {"watch_begin", "watch_note", "watch_alarm", "watch_passed", "watch_stopped", "watch_drift"}
)


class Journal:
    """Append-only file of records ``{"seq", "at" (epoch seconds), "event", ...}``, mode 600.

    A last line that was torn by a power cut is ignored and cut off by the next append. ``observer`` is called
    with (event, "before"/"after") around each append; tests use it to stop a run at every step.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float], observer: Callable[[str, str], None] | None = None
    ) -> None:
        self.path = path
        self._clock = clock
        self._observer = observer
        #: How many acts this process has recorded, or may have recorded where writing failed.
        self.acts = 0

    def records(self) -> list[Record]:
        """All whole records. Raises CutoverError when a line before the last one is damaged."""
        return self._parse()[0]

    def append(self, event: str, **fields: Any) -> Record:
        """Write one record durably and return it. Raises CutoverError; a record that failed is taken away again.

        Where even that fails, it counts as recorded.
        """
        if self._observer is not None:
            self._observer(event, "before")
        records, size = self._parse()
        record: Record = {"seq": len(records) + 1, "at": round(self._clock(), 3), "event": event, **fields}
        line = (json.dumps(record, sort_keys=True) + "\n").encode()
        act = event not in _REMARKS
        self.acts += act
        try:
            created = not self.path.exists()
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(descriptor, size)
                os.lseek(descriptor, size, os.SEEK_SET)
                while line:
                    line = line[os.write(descriptor, line) :]
                fsync_file(descriptor, self.path)
            finally:
                os.close(descriptor)
            if created:
                fsync_directory(self.path.parent)
        except Exception as error:
            if self._undo(size):
                self.acts -= act
            if isinstance(error, CutoverError):
                raise
            told = (error.strerror if isinstance(error, OSError) else "") or unexpected(error)
            raise CutoverError(f"cannot write the journal {self.path}: {told}") from error
        if self._observer is not None:
            self._observer(event, "after")
        return record

    def count(self, event: str) -> None:
        """Count an act that was begun although its record could not be written."""
        self.acts += event not in _REMARKS

    def _undo(self, size: int) -> bool:
        """Cut the file back to ``size`` bytes; whether the record that could not be written is gone for sure."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.ftruncate(descriptor, size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return size == 0
        except Exception:
            return False
        return True

    def _parse(self) -> tuple[list[Record], int]:
        """Whole records and the length in bytes of what they take."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return [], 0
        except Exception as error:
            told = (error.strerror if isinstance(error, OSError) else "") or unexpected(error)
            raise CutoverError(f"cannot read the journal {self.path}: {told}") from error
        records: list[Record] = []
        size = 0
        for line in data.splitlines(keepends=True):
            try:
                record = decode_json(line)
            except ValueError:
                record = None
            if not line.endswith(b"\n") or not isinstance(record, dict) or "event" not in record:
                if size + len(line) < len(data):
                    raise CutoverError(f"the journal {self.path} is damaged in line {len(records) + 1}")
                break
            records.append(record)
            size += len(line)
        return records, size


@dataclass(frozen=True)
class State:
    """What the journal says.

    ``phase``: none, applying, applied, confirmed, rolling_back, rolled_back. ``target``: what the current attempt
    goes to, mirror or glitchtip. ``stands``: what is in effect, before, mirror or glitchtip, and
    ``stands_sha256`` the hash of its DSNs. ``overrides``: services put back alone; ``overriding``: one for which
    that was begun and not finished. ``stack_id`` is the stack that ``stands`` was proven on.
    """

    phase: str = "none"
    attempt: int = 0
    saved: bool = False
    new_dsn_sha256: str = ""
    rollback_target: str = ""
    deadline: float | None = None
    problems: tuple[str, ...] = field(default=())
    target: str = ""
    stands: str = "before"
    stands_sha256: str = ""
    overrides: tuple[str, ...] = field(default=())
    overriding: str = ""
    stack_id: str = ""

    @property
    def open(self) -> bool:
        """Whether a change was begun and neither confirmed nor taken back."""
        return self.phase in ("applying", "applied", "rolling_back")


class _Fields:
    """The fields of one record. What decides about the state has to be there and of its type."""

    def __init__(self, record: Record, number: int) -> None:
        self._record = record
        self._number = number
        self.event = record.get("event")

    def text(self, name: str, default: str | None = None) -> str:
        """A text; with a ``default`` where it is missing or none. Raises CutoverError without one."""
        value = self._record.get(name)
        if isinstance(value, str):
            return value
        if default is None:
            raise CutoverError(
                f"record {self._number} of the journal ({self.event}) is incomplete: it has no {name}; "
                "correct or remove that record; glitchtip-rollback restores the original DSN without it, too"
            )
        return default

    def number(self, name: str, default: int) -> int:
        """A whole number that is not negative; the default where it is missing or none."""
        value = self._record.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default

    def seconds(self, name: str) -> float | None:
        """A number of seconds; None where it is missing or none."""
        value = self._record.get(name)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def sentences(self, name: str) -> tuple[str, ...]:
        """A list of texts; one sentence where it is missing or none."""
        value = self._record.get(name)
        if isinstance(value, list):
            return tuple(item for item in value if isinstance(item, str))
        return ("the journal does not say what the problem was",)


def fold(records: Iterable[Record]) -> State:
    """Work out the state from the records, oldest first.

    A field that is missing is worked out where it can be. Raises CutoverError where the state depends on it.
    """
    state = State()
    stood = state  # what stood before the current attempt, and stands again once that is taken back
    for number, record in enumerate(records, start=1):
        fields = _Fields(record, number)
        event = fields.event
        if event == "apply_begin":
            stood = state
            state = State(
                phase="applying",
                attempt=fields.number("attempt", state.attempt + 1),
                new_dsn_sha256=fields.text("new_dsn_sha256", ""),
                target=fields.text("target", "glitchtip"),
                stands=state.stands,
                stands_sha256=state.stands_sha256,
                overrides=state.overrides,
                stack_id=fields.text("stack_id", ""),
            )
        elif event == "pm2_save":
            state = replace(state, saved=True)
        elif event == "applied":
            state = replace(
                state,
                phase="applied",
                deadline=fields.seconds("deadline"),
                stands=state.target,
                stands_sha256=state.new_dsn_sha256,
            )
        elif event == "confirmed":
            state = replace(state, phase="confirmed", deadline=None)
        elif event == "rollback_begin":
            state = replace(
                state, phase="rolling_back", rollback_target=fields.text("target"), problems=(), deadline=None
            )
        elif event in ("rollback_incomplete", "override_incomplete", "unexpected", "record_incomplete"):
            state = replace(state, problems=fields.sentences("problems"))
        elif event == "rolled_back":
            kept = stood if fields.text("target", state.rollback_target) == "attempt" else State()
            state = State(
                phase="rolled_back",
                attempt=state.attempt,
                target=kept.target,
                stands=kept.stands,
                stands_sha256=kept.stands_sha256,
                overrides=kept.overrides,
                stack_id=kept.stack_id,
            )
        elif event == "override_begin":
            state = replace(state, overriding=fields.text("service"), problems=())
        elif event == "override_done":
            service = fields.text("service", state.overriding)
            names = (*(name for name in state.overrides if name != service), service)
            state = replace(state, overriding="", overrides=names, problems=())
        elif event == "override_dropped":
            state = replace(state, overriding="", problems=())
        elif event == "override_removed":
            service = fields.text("service")
            names = tuple(name for name in state.overrides if name != service)
            state = replace(state, overrides=names)
    return state
