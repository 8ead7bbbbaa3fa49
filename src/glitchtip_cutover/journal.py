"""The journal: one JSON line per act, on the disk before the act begins."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .errors import CutoverError
from .files import fsync_directory, fsync_file

Record = dict[str, Any]


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

    def records(self) -> list[Record]:
        """All whole records. Raises CutoverError when a line before the last one is damaged."""
        return self._parse()[0]

    def append(self, event: str, **fields: Any) -> Record:
        """Write one record durably and return it."""
        if self._observer is not None:
            self._observer(event, "before")
        records, size = self._parse()
        record: Record = {"seq": len(records) + 1, "at": round(self._clock(), 3), "event": event, **fields}
        line = (json.dumps(record, sort_keys=True) + "\n").encode()
        created = not self.path.exists()
        try:
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
        except OSError as error:
            raise CutoverError(f"cannot write the journal {self.path}: {error.strerror}") from error
        if self._observer is not None:
            self._observer(event, "after")
        return record

    def _parse(self) -> tuple[list[Record], int]:
        """Whole records and the length in bytes of what they take."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return [], 0
        except OSError as error:
            raise CutoverError(f"cannot read the journal {self.path}: {error.strerror}") from error
        records: list[Record] = []
        size = 0
        for line in data.splitlines(keepends=True):
            try:
                record = json.loads(line)
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


def fold(records: Iterable[Record]) -> State:
    """Work out the state from the records, oldest first."""
    state = State()
    stood = state  # what stood before the current attempt, and stands again once that is taken back
    for record in records:
        event = record["event"]
        if event == "apply_begin":
            stood = state
            state = State(
                phase="applying",
                attempt=record["attempt"],
                new_dsn_sha256=record["new_dsn_sha256"],
                target=record.get("target", "glitchtip"),
                stands=state.stands,
                stands_sha256=state.stands_sha256,
                overrides=state.overrides,
                stack_id=record.get("stack_id", ""),
            )
        elif event == "pm2_save":
            state = replace(state, saved=True)
        elif event == "applied":
            state = replace(
                state,
                phase="applied",
                deadline=record.get("deadline"),
                stands=state.target,
                stands_sha256=state.new_dsn_sha256,
            )
        elif event == "confirmed":
            state = replace(state, phase="confirmed", deadline=None)
        elif event == "rollback_begin":
            state = replace(
                state, phase="rolling_back", rollback_target=record["target"], problems=(), deadline=None
            )
        elif event == "rollback_incomplete":
            state = replace(state, problems=tuple(record["problems"]))
        elif event == "rolled_back":
            kept = stood if record.get("target", state.rollback_target) == "attempt" else State()
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
            state = replace(state, overriding=record["service"], problems=())
        elif event == "override_incomplete":
            state = replace(state, problems=tuple(record["problems"]))
        elif event == "override_done":
            names = (*(name for name in state.overrides if name != record["service"]), record["service"])
            state = replace(state, overriding="", overrides=names, problems=())
        elif event == "override_dropped":
            state = replace(state, overriding="", problems=())
        elif event == "override_removed":
            names = tuple(name for name in state.overrides if name != record["service"])
            state = replace(state, overrides=names)
    return state
