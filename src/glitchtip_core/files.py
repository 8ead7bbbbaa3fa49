"""Durable writes: what was written is on the disk before the next step begins."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

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


def is_no_room(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, says that the disk or a quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        error = error.__cause__
    return False


def replace_bytes(
    descriptor: int, path: Path, old: bytes, data: bytes, *, mode: int, owner: tuple[int, int] | None = None
) -> None:
    """Replace the content ``old`` of the file that is open for writing, and at ``path``, durably, by ``data``.

    Room for all of it is taken before any byte is changed. Raises OSError, with the old bytes, mode and owner in place. A power
    cut in between can leave a mix of both texts.
    """
    info = os.fstat(descriptor)
    same = _common(old, data)
    try:
        if len(data) > len(old):
            os.posix_fallocate(descriptor, len(old), len(data) - len(old))
        _put(descriptor, data, same)
        if owner is not None and owner != (info.st_uid, info.st_gid):
            os.fchown(descriptor, *owner)
        if mode != stat.S_IMODE(os.fstat(descriptor).st_mode):
            os.fchmod(descriptor, mode)
        fsync_file(descriptor, path)
    except BaseException:
        with contextlib.suppress(OSError):
            _undo(descriptor, old, same, info)
        raise


def _common(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    shorter = min(len(one), len(other))
    return next((at for at in range(shorter) if one[at] != other[at]), shorter)


def _put(descriptor: int, data: bytes, start: int) -> None:
    """Write ``data`` from ``start`` on, and only then cut off what is left of a longer text."""
    view = memoryview(data)
    while start < len(view):
        start += os.pwrite(descriptor, view[start:], start)
    os.ftruncate(descriptor, len(data))


def _undo(descriptor: int, old: bytes, same: int, info: os.stat_result) -> None:
    """Mode and owner first: the old bytes are for no other owner to read."""
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (info.st_uid, info.st_gid):
        os.fchmod(descriptor, 0)
        os.fchown(descriptor, info.st_uid, info.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(info.st_mode))
    _put(descriptor, old, same)
    os.fsync(descriptor)
