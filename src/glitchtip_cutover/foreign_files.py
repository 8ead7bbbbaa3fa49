"""Reading files in directories that another user owns, without being led astray.

Directories are opened one in the other by descriptor, never through a path twice. A symbolic link is followed only
where its owner could have read the file himself: one of root's anywhere, one of another user to that user's files.
Devices, pipes and sockets are never opened for reading, and no file is read beyond a limit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: No settings file is larger (bytes).
MAX_BYTES = 1024 * 1024
#: Directories that are entered in one search.
MAX_DIRECTORIES = 3000
# A directory with more names holds data: its own files are compared, those below it are not.
_MANY_NAMES = 2000
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class ForeignFile:
    """A file's path and its text; undecodable bytes are replaced. ``problem`` says why there is no text."""

    path: Path
    text: str = field(default="", repr=False)
    problem: str = ""


def read_foreign(path: Path, limit: int = MAX_BYTES, *, directory: int | None = None) -> ForeignFile | None:
    """Read one file; None where there is none, or something that is no file.

    ``directory``: a descriptor of the directory that holds it, where that was opened safely.
    """
    where: str | Path = path if directory is None else path.name
    try:
        info = os.stat(where, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISLNK(info.st_mode):
            return _read_link(path, info, limit)
        if not stat.S_ISREG(info.st_mode):
            return None
        descriptor = os.open(where, _FILE, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return ForeignFile(path, problem=f"{path} cannot be read: {error.strerror}")
    return _read_open(path, descriptor, limit)


def _read_link(path: Path, link: os.stat_result, limit: int) -> ForeignFile | None:
    try:
        target = os.path.realpath(path, strict=True)
        descriptor = os.open(target, _FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = "it leads back to itself" if error.errno == errno.ELOOP else error.strerror
        return ForeignFile(path, problem=f"{path} is a symbolic link that cannot be followed: {reason}")
    if link.st_uid not in (0, os.fstat(descriptor).st_uid):
        os.close(descriptor)
        return ForeignFile(
            path, problem=f"{path} is a symbolic link to a file of another user, so it was not read: {target}"
        )
    return _read_open(path, descriptor, limit)


def _read_open(path: Path, descriptor: int, limit: int) -> ForeignFile | None:
    with open(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            return None
        if info.st_size > limit:
            return ForeignFile(
                path, problem=f"{path} has {info.st_size} bytes, too many to be read ({limit})"
            )
        try:
            data = file.read(limit)
        except OSError as error:
            return ForeignFile(path, problem=f"{path} cannot be read: {error.strerror}")
    if b"\x00" in data:
        return None
    return ForeignFile(path, data.decode("utf-8", "replace").removeprefix("\ufeff"))


def find_files(
    root: Path,
    wanted: Callable[[str], bool],
    enter: Callable[[str], bool],
    depth: int,
    limit: int = MAX_BYTES,
    directories: int = MAX_DIRECTORIES,
) -> Iterator[ForeignFile]:
    """Files below ``root`` whose name is ``wanted``, ``depth`` directories deep at most, names in order.

    Directories are entered where ``enter`` says so for their name, symbolic links to directories never. After that many
    ``directories`` the search ends with a problem.
    """
    try:
        descriptor = os.open(os.path.realpath(root), _DIRECTORY)
    except OSError:
        return
    left = [directories]
    yield from _below(root, descriptor, wanted, enter, depth, limit, left)
    if left[0] < 0:
        yield ForeignFile(
            root,
            problem=f"{root} holds more than {directories} directories: not all of its files were compared",
        )


def _below(
    path: Path,
    directory: int,
    wanted: Callable[[str], bool],
    enter: Callable[[str], bool],
    depth: int,
    limit: int,
    left: list[int],
) -> Iterator[ForeignFile]:
    try:
        try:
            with os.scandir(directory) as listed:
                entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in listed)
        except OSError as error:
            yield ForeignFile(path, problem=f"{path} cannot be read: {error.strerror}")
            return
        for name, is_directory in entries:
            if (
                not is_directory
                and wanted(name)
                and (found := read_foreign(path / name, limit, directory=directory))
            ):
                yield found
        if depth == 0 or len(entries) > _MANY_NAMES:
            return
        for name in [name for name, is_directory in entries if is_directory and enter(name)]:
            left[0] -= 1
            if left[0] < 0:
                return
            with contextlib.suppress(OSError):
                inner = os.open(name, _DIRECTORY, dir_fd=directory)
                yield from _below(path / name, inner, wanted, enter, depth - 1, limit, left)
    finally:
        os.close(directory)
