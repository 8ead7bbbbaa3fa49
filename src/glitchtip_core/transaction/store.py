"""The state directory: the lock, the mark of an open change, one directory an attempt."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import BusyError, CoreError, unexpected
from ..files import fsync_directory, private_directory, read_json, write_json, write_new

_LOCK_POLL = 1.0


class Store:
    """The directory of one transaction (mode 700)."""

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
        """Leave the mark that makes the verify unit look at everything once it runs again."""
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
        """One run at a time; the lock dies with its holder. Raises BusyError after ``wait`` seconds.

        The directory itself is locked, and the file ``lock`` in it: the directory needs no room on the disk and can
        be locked on a read-only one, the file tells who holds it. CoreError: neither can be locked.
        """
        descriptors = self._acquire(wait)
        try:
            yield
        finally:
            for descriptor in reversed(descriptors):
                os.close(descriptor)

    def _acquire(self, wait: float) -> list[int]:
        """The descriptors that hold the lock. Raises BusyError after ``wait`` seconds, CoreError otherwise."""
        deadline = self._monotonic() + wait
        held: list[int] = []
        refused: OSError | None = None
        path = self.directory / "lock"
        try:
            if not self.directory.is_dir():
                private_directory(self.directory)
            for place in (self.directory, path):
                try:
                    descriptor = _open_to_lock(place)
                except OSError as error:
                    refused = error
                    continue
                held.append(descriptor)
                try:
                    self._wait_for(descriptor, deadline)
                except OSError as error:  # a file system that locks no directories, or nothing that is read-only
                    refused = error
                    os.close(held.pop())
            if not held:
                raise refused or OSError("there is nothing to lock")
            _write_holder(path)
        except BaseException as error:
            for descriptor in reversed(held):
                os.close(descriptor)
            if isinstance(error, CoreError) or not isinstance(error, Exception):
                raise
            raise CoreError(f"cannot lock {path}: {unexpected(error)}") from error
        return held

    def _wait_for(self, descriptor: int, deadline: float) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if self._monotonic() >= deadline:
                    holder = _holder(self.directory / "lock")
                    raise BusyError(f"another run is under way on this host (process {holder})") from None
                self._sleep(_LOCK_POLL)


def _open_to_lock(place: Path) -> int:
    """A descriptor of the directory or of the lock's file, which is made where there is none and the disk allows it."""
    if place.is_dir():
        return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _write_holder(path: Path) -> None:
    """Tell who holds the lock, where the disk takes it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            name = str(os.getpid()).encode()
            os.ftruncate(descriptor, os.pwrite(descriptor, name, 0))
        finally:
            os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        return path.read_bytes()[:20].decode("ascii", "replace").strip() or "unknown"
    except OSError:
        return "unknown"
