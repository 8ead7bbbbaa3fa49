"""The state directory: the lock, the mark of an open change, one directory an attempt."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import BusyError, CutoverError, unexpected
from .files import fsync_directory, private_directory, read_json, write_json, write_new

_LOCK_POLL = 1.0


class Store:
    """The directory of one migration (mode 700)."""

    def __init__(
        self, directory: Path, *, monotonic: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self.directory = directory
        self.open_marker = directory / "open"
        self.verify_mark = directory / "verify"
        self._monotonic = monotonic
        self._sleep = sleep

    def attempt_directory(self, attempt: int) -> Path:
        """Where the state before an attempt is kept."""
        return self.directory / "attempts" / f"{attempt:04d}"

    def mark_open(self, attempt: int) -> None:
        """Leave the mark that makes the recovery unit look, at boot or after a kill."""
        write_new(self.open_marker, f"{attempt}\n".encode())

    def unmark_open(self) -> None:
        """Remove that mark."""
        with contextlib.suppress(FileNotFoundError):
            self.open_marker.unlink()
            fsync_directory(self.open_marker.parent)

    def mark_verify(self, facts: Mapping[str, Any]) -> None:
        """Leave the mark that makes the verify unit look at every service once the manager is up again."""
        write_json(self.verify_mark, dict(facts))

    def to_verify(self) -> dict[str, Any] | None:
        """What that mark says; None when there is nothing to verify. A damaged one says nothing."""
        if not self.verify_mark.exists():
            return None
        with contextlib.suppress(Exception):
            data = read_json(self.verify_mark)
            if isinstance(data, dict):
                return data
        return {}

    def unmark_verify(self) -> None:
        """Remove that mark."""
        with contextlib.suppress(FileNotFoundError):
            self.verify_mark.unlink()
            fsync_directory(self.directory)

    def clean(self) -> None:
        """Remove what an interrupted write may have left in the directory; call it with the lock held."""
        shutil.rmtree(self.directory / "before.part", ignore_errors=True)
        with contextlib.suppress(OSError):
            for part in self.directory.rglob("*.part"):
                with contextlib.suppress(OSError):
                    part.unlink()

    @contextlib.contextmanager
    def lock(self, wait: float = 0.0) -> Iterator[None]:
        """One run at a time; the lock dies with its holder. Raises BusyError after ``wait`` seconds."""
        descriptor = self._acquire(wait)
        try:
            yield
        finally:
            os.close(descriptor)

    def _acquire(self, wait: float) -> int:
        """The descriptor that holds the lock. Raises BusyError after ``wait`` seconds, CutoverError otherwise."""
        deadline = self._monotonic() + wait
        descriptor = -1
        try:
            private_directory(self.directory)
            descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self._monotonic() >= deadline:
                        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
                        raise BusyError(f"another run is under way on this host (process {holder})") from None
                    self._sleep(_LOCK_POLL)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except BaseException as error:
            if descriptor >= 0:
                os.close(descriptor)
            if isinstance(error, CutoverError) or not isinstance(error, Exception):
                raise
            raise CutoverError(f"cannot lock {self.directory / 'lock'}: {unexpected(error)}") from error
        return descriptor
