"""Durable files of our own: what was written is on the disk before the next step begins; and a lock that nobody waits for.

Files in directories of another user go through ``foreign_files``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import CoreError, StoppedError, reason_of
from .json_text import decode_json

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


# ------------------------------------------------------------------ whole files


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

    Its extended attributes are kept.

    The bytes are first written to ``<path>.part`` in the same directory, so that ``path`` is never seen half
    written; ``guard`` is called with that file just before it takes the name, and its CoreError stops that.
    Raises CoreError when the file system refuses.
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
    except CoreError:
        with contextlib.suppress(Exception):
            part.unlink()
        raise
    except Exception as error:
        with contextlib.suppress(Exception):
            part.unlink()
        raise CoreError(f"cannot write {path}: {reason_of(error)}") from error


def write_over(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """As ``write_new``; where a full disk takes no second file, the bytes of the one that is there are replaced.

    A power cut in the moment of that can leave a mix of both texts, so this is for files that a rollback must
    restore now and whose earlier bytes are recorded elsewhere.
    """
    try:
        write_new(path, data, mode=mode)
    except StoppedError:
        raise
    except CoreError as error:
        if not is_no_room(error):
            raise
        try:
            _replace(path, data, mode)
        except OSError as failure:
            raise CoreError(f"{error}; nor can its bytes be replaced: {failure.strerror}") from failure


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
    """Read JSON from ``path``; None when the file is not there. Raises CoreError when it is damaged."""
    try:
        return decode_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except Exception as error:
        raise CoreError(f"cannot read {path}: {type(error).__name__}") from error


def private_directory(path: Path, *, parents: int = 0o700) -> None:
    """Make directory ``path`` durably with mode 700, and its parents with ``parents``, where they are missing."""
    if path.is_dir():
        return
    for directory in (*reversed(path.parents), path):
        try:
            directory.mkdir(mode=0o700 if directory == path else parents)
        except FileExistsError:
            continue
        fsync_directory(directory.parent)


def read_secret(path: Path, what: str) -> str:
    """One line from a file: a token or a DSN. Raises CoreError naming the file, never its content."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise CoreError(f"{what} is missing: there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CoreError(f"{what} cannot be read from {path}: {type(error).__name__}") from None
    if not text or len(text.split()) != 1:
        raise CoreError(f"{path} must hold {what} as one word on one line")
    return text


# ------------------------------------------------------------------ files of the operators' tools


def write_bytes(path: Path, data: bytes, mode: int = 0o600) -> None:
    """As ``write_new``; a missing directory is made for its owner only."""
    try:
        private_directory(path.parent, parents=0o777)
    except OSError as error:
        raise CoreError(f"cannot write {path}: {error.strerror}") from error
    write_new(path, data, mode=mode)


def write_object(path: Path, data: Mapping[str, Any], mode: int = 0o600) -> None:
    """Write ``data`` durably as JSON, keys sorted; a missing directory is made. Raises CoreError."""
    write_bytes(path, (json.dumps(data, indent=2, sort_keys=True) + "\n").encode(), mode)


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in ``path``; None when there is no such file. Raises CoreError when it is not one."""
    try:
        data = decode_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CoreError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError:
        raise CoreError(f"{path} is not JSON") from None
    if not isinstance(data, dict):
        raise CoreError(f"{path} does not hold a JSON object")
    return data


def append_line(path: Path, line: str, mode: int = 0o600) -> None:
    """Append one line and fsync it. A torn last line of an earlier power cut is closed first. Raises CoreError."""
    try:
        private_directory(path.parent, parents=0o777)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode)
        try:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            torn = b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""
            write_all(descriptor, torn + line.encode() + b"\n")
            fsync_file(descriptor, path)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CoreError(f"cannot write {path}: {error.strerror}") from error


@contextlib.contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Hold ``path`` for the block; a second holder is refused at once. Raises CoreError then."""
    private_directory(path.parent, parents=0o777)
    with path.open("w", encoding="ascii") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CoreError(f"{what} runs already on this host; try again when it has ended") from None
        yield
