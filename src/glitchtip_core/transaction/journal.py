"""The journal: one JSON line per act, on the disk before the act begins."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import CoreError, reason_of
from ..files import fsync_directory, fsync_file
from ..json_text import decode_json
from .state import Kinds, Record, State, fold


class Journal:
    """Append-only file of records ``{"seq", "at" (epoch seconds), "event", ...}``, mode 600.

    A last line that was torn by a power cut is ignored and cut off by the next append. ``observer`` is called
    with (event, "before"/"after") around each append; tests use it to stop a run at every step.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float],
        observer: Callable[[str, str], None] | None = None,
        *,
        kinds: Kinds,
    ) -> None:
        self.path = path
        self._kinds = kinds
        self._clock = clock
        self._observer = observer
        #: How many acts this process has recorded, or may have recorded where writing failed.
        self.acts = 0

    def records(self) -> list[Record]:
        """All whole records. Raises CoreError when a line before the last one is damaged."""
        return read_records(self.path)[0]

    def state(self) -> State:
        """What the records say. Raises CoreError where they cannot be read, or do not say what the state depends on."""
        return fold(self.records(), self._kinds)

    def append(self, event: str, **fields: Any) -> Record:
        """Write one record durably and return it. Raises CoreError; a record that failed is taken away again.

        Where even that fails, it counts as recorded.
        """
        if self._observer is not None:
            self._observer(event, "before")
        records, size = read_records(self.path)
        record: Record = {"seq": len(records) + 1, "at": round(self._clock(), 3), "event": event, **fields}
        line = (json.dumps(record, sort_keys=True) + "\n").encode()
        act = self._kinds.is_act(event)
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
            if isinstance(error, CoreError):
                raise
            raise CoreError(f"cannot write the journal {self.path}: {reason_of(error)}") from error
        if self._observer is not None:
            self._observer(event, "after")
        return record

    def count(self, event: str) -> None:
        """Count an act that was begun although its record could not be written."""
        self.acts += self._kinds.is_act(event)

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


def read_records(path: Path) -> tuple[list[Record], int]:
    """The whole records of the journal at ``path``, none where there is no such file, and the length in bytes of what they take.

    Raises CoreError when it cannot be read, or a line before the last one is damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except Exception as error:
        raise CoreError(f"cannot read the journal {path}: {reason_of(error)}") from error
    records: list[Record] = []
    size = 0
    for line in data.splitlines(keepends=True):
        try:
            record = decode_json(line)
        except ValueError:
            record = None
        if not line.endswith(b"\n") or not isinstance(record, dict) or "event" not in record:
            if size + len(line) < len(data):
                raise CoreError(f"the journal {path} is damaged in line {len(records) + 1}")
            break
        records.append(record)
        size += len(line)
    return records, size
