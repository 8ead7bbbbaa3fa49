"""The state directory: the lock, the mark of an open change, one directory an attempt."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import BusyError
from .files import fsync_directory, private_directory, write_new

_LOCK_POLL = 1.0


class Store:
    """The directory of one migration (mode 700)."""

    def __init__(
        self, directory: Path, *, monotonic: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self.directory = directory
        self.open_marker = directory / "open"
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

    @contextlib.contextmanager
    def lock(self, wait: float = 0.0) -> Iterator[None]:
        """One run at a time; the lock dies with its holder. Raises BusyError after ``wait`` seconds."""
        private_directory(self.directory)
        deadline = self._monotonic() + wait
        descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
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
            yield
        finally:
            os.close(descriptor)
