"""Room in the state directory that is set aside while there is some, and freed when a rollback finds the disk full."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..errors import CoreError, reason_of
from ..files import private_directory, write_new

#: Bytes that are set aside. The largest way back takes 60 KiB (tests/unit/cutover/test_full_disk.py measures it).
BYTES = 512 * 1024
#: Files besides, each of which sets one inode aside. That way back makes six files.
FILES = 16

_BLOCK = 512  # of ``st_blocks``, in bytes


class Reserve:
    """The directory ``reserve`` of one transaction: ``room`` takes bytes, the others take inodes."""

    def __init__(self, state_dir: Path, size: int = BYTES, files: int = FILES) -> None:
        self.path = state_dir / "reserve"
        self._room = self.path / "room"
        self._size = size
        self._spare = [self.path / f"inode-{number}" for number in range(1, files + 1)]

    @property
    def is_whole(self) -> bool:
        """Whether all of it is set aside."""
        try:
            taken = self._room.stat().st_blocks * _BLOCK
            return taken >= self._size and all(path.exists() for path in self._spare)
        except OSError:
            return False

    def set_aside(self) -> bool:
        """Take the room; False when it was there already. Raises CoreError when the disk has no such room."""
        if self.is_whole:
            return False
        try:
            private_directory(self.path)
            write_new(self._room, os.urandom(self._size))  # bytes that no file system compresses or leaves out
            for path in self._spare:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        except Exception as error:
            self.release()
            raise CoreError(
                f"{self.path}: the {self._size // 1024} KiB that a rollback may need cannot be set aside: {reason_of(error)}. "
                "Free disk space, then run this again"
            ) from error
        return True

    def is_needed(self) -> bool:
        """Whether the disk has less left than what is set aside; False where it cannot tell."""
        try:
            disk = os.statvfs(self.path.parent)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize < self._size or (
            disk.f_files > 0 and disk.f_favail < len(self._spare)
        )

    def release(self) -> bool:
        """Free the room; whether there was any to free. What cannot be removed stops nothing."""
        freed = False
        for path in (self._room, *self._spare):
            with contextlib.suppress(OSError):
                path.unlink()
                freed = True
        return freed
