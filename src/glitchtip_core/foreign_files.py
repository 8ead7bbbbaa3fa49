"""Files in a directory that another user may own: read, written, moved and listed without being led astray.

Everything happens relative to the descriptor of the directory (see ``foreign_paths``), to regular files only, at most to a
limit, and without ever waiting: a pipe, a device or a socket is not opened. Bytes, mode, owner and attributes come from one
open file. What is written never has a setuid, setgid or sticky bit, nor a file capability.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .files import fsync_directory, fsync_file, is_no_room, replace_bytes, write_all
from .foreign_paths import ForeignError, Found, walk

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
_OVER = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: The bits of a mode that are kept: no setuid, setgid or sticky bit.
MODE_BITS = 0o777
#: Extended attributes that are kept. A capability would give a program that the owner can change root's power.
_KEPT = ("user.", "system.posix_acl_access", "security.selinux")
_CAPABILITY = "security.capability"
_CHANGED = "was changed by somebody else meanwhile"


@dataclass(frozen=True)
class Content:
    """A file as it was read, all from one open file: bytes, what ``fstat`` said, extended attributes."""

    data: bytes = field(repr=False)
    info: os.stat_result
    attributes: Mapping[str, bytes] = field(repr=False)

    @property
    def mode(self) -> int:
        """Permission bits, without setuid, setgid and sticky."""
        return self.info.st_mode & MODE_BITS

    @property
    def owner(self) -> tuple[int, int]:
        """User and group id."""
        return self.info.st_uid, self.info.st_gid

    def is_same(self, other: os.stat_result) -> bool:
        """Whether the file is still the one that was read."""
        names = ("st_dev", "st_ino", "st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ctime_ns")
        return all(getattr(self.info, name) == getattr(other, name) for name in names)


def attributes_of(descriptor: int) -> dict[str, bytes]:
    """The extended attributes of an open file that are kept; none where the file system has none."""
    try:
        names = [name for name in os.listxattr(descriptor) if name.startswith(_KEPT)]
        return {name: os.getxattr(descriptor, name) for name in names}
    except OSError:
        return {}


# --- reading ------------------------------------------------------------------------------------------------


def open_regular(found: Found, name: str | None = None, *, any_names: bool = False) -> tuple[int, os.stat_result]:
    """A descriptor for reading the regular file of that name, and its ``fstat``; never waits.

    ``any_names``: also one whose second name may be somebody else's doing, for bytes that are neither kept nor written.
    Raises OSError when it cannot be opened (FileNotFoundError when there is none), ForeignError when it is something else
    than a regular file, a symbolic link by now, or another user's file that got a second name here.
    """
    wanted = found.name if name is None else name
    shown = found.asked if name is None else Path(found.directory) / name
    check_file(found, found.stat(wanted), shown, any_names=any_names)
    try:
        descriptor = os.open(wanted, _READ, dir_fd=found.descriptor)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ForeignError(f"{shown} {_CHANGED}") from None
        raise
    try:
        info = os.fstat(descriptor)
        check_file(found, info, shown, any_names=any_names)  # of what was opened, which may be another one
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, info


def check_file(found: Found, info: os.stat_result, shown: Path, *, any_names: bool = False) -> None:
    """Raise ForeignError for anything but a regular file that its owner, or root, gave this name (or ``any_names``)."""
    if not stat.S_ISREG(info.st_mode):
        raise ForeignError(f"{shown} is not a regular file")
    if not any_names and has_risky_name(os.fstat(found.descriptor), info):
        raise ForeignError(
            f"{shown} has {info.st_nlink} names (hard links), and may be a file of another user that got a name here: "
            "remove the others, or copy the file"
        )
    found.check_readable(info)


def has_risky_name(directory: os.stat_result, info: os.stat_result) -> bool:
    """Whether the file has several names and somebody else than its owner could have made the one in this directory."""
    trusted = {0, os.geteuid(), info.st_uid}
    return info.st_nlink > 1 and (bool(directory.st_mode & 0o022) or directory.st_uid not in trusted)


def read(found: Found, limit: int, name: str | None = None) -> Content:
    """Read the file of ``found``, or another one of that name in its directory, whole.

    Raises OSError as ``open_regular``, ForeignError where that refuses, when the file has more than ``limit`` bytes, when
    it changes while it is read, or when another user's symbolic link led here wrongly.
    """
    shown = found.asked if name is None else Path(found.directory) / name
    descriptor, info = open_regular(found, name)
    try:
        if info.st_size > limit:
            raise ForeignError(f"{shown} has {info.st_size} bytes, too many to be read ({limit})")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
        if len(data) != info.st_size:
            raise ForeignError(f"{shown} {_CHANGED}")
        return Content(data, info, attributes_of(descriptor))
    finally:
        os.close(descriptor)


def read_file(path: Path, limit: int) -> Content:
    """Read one file by its path; raises as ``read`` and ``walk``."""
    with walk(path) as found:
        return read(found, limit)


def read_text(path: Path, limit: int) -> str | None:
    """The text of a file, undecodable bytes replaced; None where it cannot be read, whatever the reason."""
    try:
        return read_file(path, limit).data.decode("utf-8", "replace")
    except (OSError, ValueError, ForeignError):
        return None


def info_of(path: Path, *, follow: bool = True) -> os.stat_result | None:
    """What ``lstat`` says of the real file; None where there is none, or where it cannot be reached."""
    try:
        with walk(path, follow=follow) as found:
            info = found.stat()
            found.check_readable(info)
            return info
    except (OSError, ValueError, ForeignError):
        return None


def is_file(path: Path) -> bool:
    """Whether there is a regular file."""
    info = info_of(path)
    return info is not None and stat.S_ISREG(info.st_mode)


def is_directory(path: Path) -> bool:
    """Whether there is a directory."""
    info = info_of(path)
    return info is not None and stat.S_ISDIR(info.st_mode)


def is_program(path: Path) -> bool:
    """Whether there is a regular file that we may execute."""
    try:
        with walk(path) as found:
            return stat.S_ISREG(found.stat().st_mode) and os.access(
                found.name, os.X_OK, dir_fd=found.descriptor
            )
    except (OSError, ValueError):
        return False


def first_bytes(path: Path, count: int) -> bytes:
    """The first bytes of a regular file, to be compared only. Raises OSError or ForeignError.

    A program may have several names: pnpm and others link each one from their store.
    """
    with walk(path) as found:
        descriptor, _ = open_regular(found, any_names=True)
        try:
            return os.read(descriptor, count)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def open_socket(path: Path) -> Iterator[str]:
    """An address of the very socket that is at ``path``, to connect to, whatever has its name then.

    Raises OSError (FileNotFoundError where there is no socket), ForeignError when another user's link leads to it wrongly.
    """
    with walk(path) as found:
        descriptor = os.open(found.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=found.descriptor)
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISSOCK(info.st_mode) or info.st_nlink > 1:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        found.check_links(info.st_uid)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


# --- directories --------------------------------------------------------------------------------------------


def open_directory(path: Path) -> Found:
    """The directory itself, open, with the name ``.``. Raises OSError as ``walk``, ForeignError for a wrong link to it."""
    found = walk(path / "_", follow=False)  # whatever has that name: only the directory is used
    try:
        found.check_links()  # although everybody may read it: files in it are then opened without any link
    except BaseException:
        os.close(found.descriptor)
        raise
    return replace(found, asked=path, name=".")


def names_in(found: Found) -> list[str]:
    """The names in the open directory, sorted. Raises OSError, ForeignError when another user's link led here wrongly."""
    found.check_links()
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=found.descriptor)
    try:
        return sorted(os.listdir(descriptor))
    finally:
        os.close(descriptor)


def list_directory(path: Path) -> list[str]:
    """The names in a directory, sorted; none where it cannot be read."""
    try:
        with open_directory(path) as found:
            return names_in(found)
    except (OSError, ValueError, ForeignError):
        return []


# --- writing ------------------------------------------------------------------------------------------------


def write(
    found: Found,
    data: bytes,
    *,
    mode: int,
    owner: tuple[int, int],
    replaces: Content | None = None,
    guard: Callable[[], None] | None = None,
    name: str | None = None,
) -> None:
    """Write the file of ``found``, or another one in its directory, durably: whole under ``<name>.part``, then renamed.

    ``replaces``: the file as it was read, whose attributes are kept and which must still be there, unchanged. ``guard`` is
    called just before the new file takes the name; what it raises stops that. Raises ForeignError when the file system
    refuses, when attributes cannot be kept, and when something else than the new file has the name afterwards.
    """
    wanted = found.name if name is None else name
    shown = found.asked if name is None else Path(found.directory) / name
    part = f"{wanted}.part"
    found.check_links(replaces.info.st_uid if replaces else None)  # before anything is touched, and taken away again
    try:
        _write_part(found, part, data, mode, owner, replaces, guard, wanted, shown)
    except OSError as error:
        _remove_quietly(found, part)
        raise ForeignError(f"cannot write {shown}: {error.strerror}") from error
    except Exception:
        _remove_quietly(found, part)
        raise


def _write_part(
    found: Found,
    part: str,
    data: bytes,
    mode: int,
    owner: tuple[int, int],
    replaces: Content | None,
    guard: Callable[[], None] | None,
    wanted: str,
    shown: Path,
) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part, dir_fd=found.descriptor)
    descriptor = os.open(part, _NEW, 0o600, dir_fd=found.descriptor)
    try:
        write_all(descriptor, data)
        _dress(descriptor, mode, owner, replaces, shown)
        fsync_file(descriptor, Path(found.directory) / part)
        if replaces is not None and not replaces.is_same(found.stat(wanted)):
            raise ForeignError(f"{shown} {_CHANGED}")
        if guard is not None:
            guard()
        os.rename(part, wanted, src_dir_fd=found.descriptor, dst_dir_fd=found.descriptor)
        if not os.path.samestat(os.fstat(descriptor), found.stat(wanted)):
            raise ForeignError(f"{shown} {_CHANGED}")
    finally:
        os.close(descriptor)
    fsync_directory(Path(found.directory), opened=found.descriptor)


def _dress(
    descriptor: int, mode: int, owner: tuple[int, int], replaces: Content | None, shown: Path
) -> None:
    """Owner, mode and attributes of a new file. Raises OSError, ForeignError when attributes cannot be kept."""
    if owner != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, *owner)
    _drop_inherited(descriptor, replaces.attributes if replaces else {})
    os.fchmod(descriptor, mode & MODE_BITS)
    if replaces is not None:
        _keep_attributes(descriptor, replaces.attributes, shown)


def _drop_inherited(descriptor: int, wanted: Mapping[str, bytes]) -> None:
    """Remove what a new file got from its directory: a default ACL would let others read it. A label of SELinux stays."""
    for key in attributes_of(descriptor):
        if key not in wanted and not key.startswith("security."):
            with contextlib.suppress(OSError):
                os.removexattr(descriptor, key)


def rehearse_write(found: Found, replaces: Content) -> None:
    """Raise ForeignError when a new file in the directory cannot get owner, mode and attributes of the one that was read.

    Tried with a file that never has a name; where the file system has none such, nothing is found.
    """
    try:
        descriptor = os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=found.descriptor)
    except OSError:
        return
    try:
        _dress(descriptor, replaces.mode, replaces.owner, replaces, found.asked)
    except OSError as error:
        raise ForeignError(f"cannot write {found.asked}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _keep_attributes(descriptor: int, attributes: Mapping[str, bytes], shown: Path) -> None:
    refused: OSError | None = None
    for key, value in attributes.items():
        try:
            os.setxattr(descriptor, key, value)
        except OSError as error:
            refused = error
    if attributes_of(descriptor) != dict(attributes):
        raise ForeignError(f"cannot write {shown}: its extended attributes cannot be kept") from refused


def write_over(
    found: Found,
    data: bytes,
    *,
    mode: int,
    owner: tuple[int, int],
    seen: Content,
    replaces: Content | None = None,
    guard: Callable[[], None] | None = None,
    name: str | None = None,
) -> None:
    """As ``write``; where a full disk takes no second file, the bytes of the one that is there are replaced.

    ``seen``: that file as it was read. Another one, also one with a second name, is left alone. A power cut in that moment can
    leave a mix of both texts, so this is for files that a rollback must restore now, and whose earlier bytes are recorded
    elsewhere. ``guard`` is called before any byte is changed. Raises ForeignError as ``write``.
    """
    try:
        write(found, data, mode=mode, owner=owner, replaces=replaces, guard=guard, name=name)
    except ForeignError as error:
        if not is_no_room(error):
            raise
        try:
            _replace(found, data, mode & MODE_BITS, owner, seen, guard, found.name if name is None else name)
        except OSError as failure:
            raise ForeignError(f"{error}; nor can its bytes be replaced: {failure.strerror}") from failure
        except ForeignError as failure:
            raise ForeignError(f"{error}; nor can its bytes be replaced: {failure}") from failure


def _replace(
    found: Found,
    data: bytes,
    mode: int,
    owner: tuple[int, int],
    seen: Content,
    guard: Callable[[], None] | None,
    wanted: str,
) -> None:
    """Replace the bytes of the file as it was ``seen``. Raises OSError or ForeignError, with the old bytes in place."""
    shown = Path(found.directory) / wanted
    check_file(found, found.stat(wanted), shown)
    descriptor = os.open(wanted, _OVER, dir_fd=found.descriptor)
    try:
        info = os.fstat(descriptor)
        check_file(found, info, shown)  # of what was opened, which may be another one
        found.check_links(info.st_uid)
        if info.st_nlink > 1:
            raise ForeignError(f"{shown} has {info.st_nlink} names (hard links)")
        if not seen.is_same(info):
            raise ForeignError(f"{shown} {_CHANGED}")
        if guard is not None:
            guard()
        with contextlib.suppress(OSError):
            os.removexattr(descriptor, _CAPABILITY)
        replace_bytes(descriptor, shown, seen.data, data, mode=mode, owner=owner)
    finally:
        os.close(descriptor)


def _remove_quietly(found: Found, name: str) -> None:
    with contextlib.suppress(Exception):
        os.unlink(name, dir_fd=found.descriptor)


def is_writable(found: Found) -> bool:
    """Whether we may make names in the open directory."""
    return os.access(".", os.W_OK, dir_fd=found.descriptor)


def remove(found: Found, name: str) -> None:
    """Remove a name from the open directory, durably.

    Raises OSError (FileNotFoundError when there is none), ForeignError when another user's link led here wrongly.
    """
    found.check_links()
    os.unlink(name, dir_fd=found.descriptor)
    fsync_directory(Path(found.directory), opened=found.descriptor)


def set_aside(found: Found, name: str) -> None:
    """Give whatever has the name of ``found`` another ``name`` in the same directory, unread. Raises OSError.

    FileExistsError when that name is taken, ForeignError when another user's link led here wrongly.
    """
    found.check_links()
    try:
        found.stat(name)
    except FileNotFoundError:
        os.rename(found.name, name, src_dir_fd=found.descriptor, dst_dir_fd=found.descriptor)
        fsync_directory(Path(found.directory), opened=found.descriptor)
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
