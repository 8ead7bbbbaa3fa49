"""Durable writes: what was written is on the disk before the next step begins."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

# Called with ("file" or "directory", its path, "before" or "after") around every fsync. Tests cut the power there.
observer: Callable[[str, Path, str], None] | None = None


def _observed(kind: str, path: Path, when: str) -> None:
    if observer is not None:
        observer(kind, path, when)


def fsync_file(descriptor: int, path: Path) -> None:
    """Make the bytes of the open file, which is at ``path``, durable."""
    _observed("file", path, "before")
    os.fsync(descriptor)
    _observed("file", path, "after")


def fsync_directory(path: Path, *, opened: int | None = None) -> None:
    """Make a rename, a removal or a new name in directory ``path`` durable.

    ``opened``: a descriptor of that directory, where it was opened safely; the path is then for observers only.
    """
    _observed("directory", path, "before")
    where: str | Path = path if opened is None else "."
    descriptor = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=opened)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _observed("directory", path, "after")


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes to an open file. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
