"""Durable files of our own: what was written is on the disk before the next step begins.

Files in directories of another user go through ``glitchtip_core.foreign_files``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glitchtip_core.files import fsync_directory as fsync_directory
from glitchtip_core.files import fsync_file as fsync_file
from glitchtip_core.files import is_no_room as is_no_room
from glitchtip_core.files import replace_bytes, write_all
from glitchtip_core.json_text import decode_json

from .errors import CutoverError, unexpected


def _copy_attributes(source: Path, descriptor: int) -> None:
    """Copy extended attributes (ACLs, labels) where the file system has them."""
    with contextlib.suppress(OSError):
        for name in os.listxattr(source):
            with contextlib.suppress(OSError):
                os.setxattr(descriptor, name, os.getxattr(source, name))


def write_new(
    path: Path,
    data: bytes,
    *,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
    guard: Callable[[Path], None] | None = None,
) -> None:
    """Create ``path`` durably with ``mode`` and ``owner`` (uid, gid); an older file of that name is replaced.

    The bytes are first written to ``<path>.part`` in the same directory, so that ``path`` is never seen half
    written; ``guard`` is called with that file just before it takes the name, and its CutoverError stops that.
    Raises CutoverError when the file system refuses.
    """
    part = path.with_name(path.name + ".part")
    try:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            write_all(descriptor, data)
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            if path.exists():
                _copy_attributes(path, descriptor)
            fsync_file(descriptor, part)
        finally:
            os.close(descriptor)
        if guard is not None:
            guard(part)
        part.rename(path)
        fsync_directory(path.parent)
    except CutoverError:
        with contextlib.suppress(Exception):
            part.unlink()
        raise
    except Exception as error:
        with contextlib.suppress(Exception):
            part.unlink()
        told = (error.strerror if isinstance(error, OSError) else "") or unexpected(error)
        raise CutoverError(f"cannot write {path}: {told}") from error


def write_over(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """As ``write_new``; where a full disk takes no second file, the bytes of the one that is there are replaced.

    A power cut in the moment of that can leave a mix of both texts, so this is for files that a rollback must
    restore now and whose earlier bytes are recorded elsewhere.
    """
    try:
        write_new(path, data, mode=mode)
    except CutoverError as error:
        if not is_no_room(error):
            raise
        try:
            _replace(path, data, mode)
        except OSError as failure:
            raise CutoverError(f"{error}; nor can its bytes be replaced: {failure.strerror}") from failure


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Replace the content of the regular file at ``path``. Raises OSError, with the old bytes in place."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1:
            raise OSError(errno.EINVAL, "it is no regular file with one name")
        with open(descriptor, "rb", closefd=False) as file:
            old = file.read()
        replace_bytes(descriptor, path, old, data, mode=mode)
    finally:
        os.close(descriptor)


def write_json(path: Path, data: Any, *, mode: int = 0o600, over: bool = False) -> None:
    """Write ``data`` durably as JSON to ``path``; with ``over`` as ``write_over`` does."""
    write = write_over if over else write_new
    write(path, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode(), mode=mode)


def read_json(path: Path) -> Any:
    """Read JSON from ``path``; None when the file is not there. Raises CutoverError when it is damaged."""
    try:
        return decode_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except Exception as error:
        raise CutoverError(f"cannot read {path}: {type(error).__name__}") from error


def private_directory(path: Path) -> None:
    """Make directory ``path``, and its parents, durably with mode 700 where they are missing."""
    for directory in (*reversed(path.parents), path):
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            continue
        fsync_directory(directory.parent)


def read_secret(path: Path, what: str) -> str:
    """One line from a file: a token or a DSN. Raises CutoverError naming the file, never its content."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise CutoverError(f"{what} is missing: there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CutoverError(f"{what} cannot be read from {path}: {type(error).__name__}") from None
    if not text or len(text.split()) != 1:
        raise CutoverError(f"{path} must hold {what} as one word on one line")
    return text
