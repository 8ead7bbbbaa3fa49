"""Settings files in directories that another user may own, as text, with a sentence where one cannot be read."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .foreign_files import open_directory, read
from .foreign_paths import ForeignError, Found, walk

#: No settings file is larger (bytes).
MAX_BYTES = 1024 * 1024
#: Directories that are entered in one search.
MAX_DIRECTORIES = 3000
# A directory with more names holds data: its own files are compared, those below it are not.
_MANY_NAMES = 2000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class ForeignFile:
    """A file's path and its text; undecodable bytes are replaced. ``problem`` says why there is no text."""

    path: Path
    text: str = field(default="", repr=False)
    problem: str = ""


def read_foreign(path: Path, limit: int = MAX_BYTES) -> ForeignFile | None:
    """Read one file; None where there is none, or something that is no text file."""
    try:
        with walk(path) as found:
            return _read(found, path, limit)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = (
            "it is a symbolic link that leads back to itself"
            if error.errno == errno.ELOOP
            else error.strerror
        )
        return ForeignFile(path, problem=f"{path} cannot be read: {reason}")


def _read(found: Found, path: Path, limit: int) -> ForeignFile | None:
    try:
        kind = found.stat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISLNK(kind):  # a link came after the walk: refused below
            return None
        data = read(found, limit).data
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return ForeignFile(path, problem=f"{path} cannot be read: {error.strerror}")
    except ForeignError as error:
        return ForeignFile(path, problem=str(error))
    if b"\x00" in data:
        return None
    return ForeignFile(path, data.decode("utf-8", "replace").removeprefix("\ufeff"))


def _read_in(directory: int, path: Path, limit: int) -> ForeignFile | None:
    """The file of that name in an open directory; a symbolic link there is followed by its whole path."""
    info = None
    with contextlib.suppress(OSError):
        info = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
    if info is None or stat.S_ISLNK(info.st_mode):
        return None if info is None else read_foreign(path, limit)
    return _read(Found(path, directory, str(path.parent), path.name), path, limit)


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
        with open_directory(root) as found:
            descriptor = os.open(".", _DIRECTORY, dir_fd=found.descriptor)
    except OSError:
        return
    except ForeignError as error:
        yield ForeignFile(root, problem=str(error))
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
            if not is_directory and wanted(name) and (found := _read_in(directory, path / name, limit)):
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
