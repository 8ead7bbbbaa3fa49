"""What a rollback writes down about itself. A write that fails is collected, and the rollback goes on.

An apply does not begin an act whose record cannot be written. A rollback restores what was recorded before, which
a full or read-only disk does not take away: there a record is worth having, and never a reason not to restore.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import InterruptedRunError, UnrecordedError, unexpected
from ..files import is_no_room, write_json, write_new
from .journal import Journal
from .reserve import Reserve
from .state import State
from .store import Store


class Bookkeeping:
    """The records of one rollback. ``problems`` holds a sentence for each that could not be written."""

    def __init__(
        self, store: Store, journal: Journal, reserve: Reserve, progress: Callable[[str], None]
    ) -> None:
        self._store = store
        self._journal = journal
        self._reserve = reserve
        self._progress = progress
        self.problems: list[str] = []

    def begin(self, *, restores: bool) -> None:
        """Forget earlier problems; a run that ``restores`` frees the reserve where the disk is full."""
        self.problems.clear()
        if restores and self._reserve.is_needed():
            self._release()

    def state(self) -> State | None:
        """The state that the journal tells; None, and a problem, where it cannot be read."""
        states: list[State] = []
        self._do(lambda: states.append(self._journal.state()))
        return states[0] if states else None

    def record(self, event: str, **fields: Any) -> bool:
        """Write one record of the journal; whether it is there."""
        written = self._do(lambda: self._journal.append(event, **fields))
        if not written:
            self._journal.count(event)
        return written

    def mark_open(self, attempt: int) -> bool:
        """Leave the mark that makes the recovery unit look."""
        return self._do(lambda: self._store.mark_open(attempt))

    def unmark_open(self) -> bool:
        """Remove that mark."""
        return self._do(self._store.unmark_open)

    def mark_verify(self, facts: Mapping[str, Any]) -> bool:
        """Leave the mark that makes the verify unit look."""
        return self._do(lambda: self._store.mark_verify(facts))

    def unmark_verify(self) -> bool:
        """Remove that mark."""
        return self._do(self._store.unmark_verify)

    def write(self, path: Path, document: Mapping[str, Any]) -> bool:
        """Write a file of the state."""
        return self._do(lambda: write_json(path, dict(document)))

    def write_bytes(self, path: Path, data: bytes) -> bool:
        """Write any file into the state directory."""
        return self._do(lambda: write_new(path, data))

    def add(self, problem: str) -> None:
        """One more problem, once."""
        if problem not in self.problems:
            self.problems.append(problem)
            self._progress(f"the record is incomplete: {problem}")

    def raise_unrecorded(self) -> None:
        """Raise UnrecordedError where something is restored and records of that are missing."""
        problems = list(self.problems)
        if not problems:
            return
        self.record("record_incomplete", problems=problems)
        raise UnrecordedError(
            f"everything is restored, but the record of it is incomplete: {problems[0]}. Free disk space, or make "
            f"{self._store.directory} writable, then run the rollback again to complete the record",
            {"problems": problems, "restored": True},
        )

    def _do(self, write: Callable[[], object]) -> bool:
        for last in (False, True):
            try:
                write()
                return True
            except Exception as error:
                if not last and is_no_room(error) and self._release():
                    continue
                if isinstance(error, InterruptedRunError):
                    raise
                self.add(unexpected(error))
                return False
        return False

    def _release(self) -> bool:
        freed = self._reserve.release()
        if freed:
            self._progress("the disk of the state directory is full: the room that was set aside is used")
        return freed
