"""Finding a file in a directory that another user may own: one directory after the other, by descriptor.

The owner of a directory can replace any name in it at any moment. So a path is walked once, with ``openat``, and what
follows happens relative to the descriptor of the last directory. The kernel never follows a symbolic link here; the walk
reads each one itself, from a descriptor of the link, and remembers its owner. A link of root, or of the user that we are,
leads anywhere. A link of another user leads only to what that user owns (see ``Found.check_links``), and, where it is only
read, to what every user may read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from .errors import CoreError
from .process import user_name

_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
#: As many as the kernel follows in one path (path_resolution(7)).
_MOST_LINKS = 40
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FIRST_PROCESS = Path("/proc/1/stat")


class ForeignError(CoreError):
    """A file of another user is not used, and why."""


@dataclass(frozen=True)
class Place:
    """Where a file really is: its directory without symbolic links, that directory's identity, the file's name.

    ``owner``: user id of the directory's owner; ``file_owner``: of the file's. ``boot``: id of the boot in which this was
    recorded (see ``boot_id``), because a file system may get another device number when it is mounted again.
    """

    directory: str
    name: str
    device: int
    inode: int
    owner: int
    file_owner: int
    boot: str

    @property
    def path(self) -> str:
        """The real path."""
        return os.path.join(self.directory, self.name)

    def difference(self, now: Place) -> str:
        """How the place is another one ``now``, as a predicate about the file; empty when it is the same."""
        if self.path != now.path:
            return f"is really {now.path} now, and was {self.path} when it was recorded"
        same = (self.inode, self.owner) == (now.inode, now.owner)
        if not same or (self.boot == now.boot and self._is_other_device(now)):
            return f"is in another directory than the one that was recorded: {self.directory} was replaced"
        if now.file_owner not in (self.file_owner, 0, now.owner):
            return f"belongs to {user_name(now.file_owner)} now, and belonged to {user_name(self.file_owner)}"
        return ""

    def _is_other_device(self, now: Place) -> bool:
        """Whether the file system is another one.

        Overlay, NFS, btrfs, ZFS, FUSE and tmpfs get an anonymous number (major number 0), another one at each mount.
        """
        anonymous = os.major(self.device) == os.major(now.device) == 0
        return self.device != now.device and not anonymous


def boot_id() -> str:
    """What is another one after the next boot of the machine, or of the container that we are in.

    That is the kernel's id of its boot, and when the first process that we can see was started (proc(5), ``stat``, field 22).
    """
    found = []
    for path, field in ((_BOOT_ID, 0), (_FIRST_PROCESS, 19)):
        try:
            found.append(path.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[field])
        except (OSError, IndexError):
            found.append("-")
    return " ".join(found)


@dataclass(frozen=True)
class Link:
    """A symbolic link on the way: its path and its owner's user id."""

    path: str
    owner: int


@dataclass
class Found:
    """An open directory, and a name in it that is no symbolic link (or does not exist). Close it, or use ``with``.

    ``directory`` is its path without symbolic links, ``owner`` its owner, ``owners`` are the owners of all directories on the way,
    ``is_open`` whether every user may pass through all of them.
    For a path that leads to the root directory ``name`` is ``.``. ``recorded_owner``: owner of the file when root recorded this
    very place, whose links to it are trusted also while the file is missing or damaged.
    """

    asked: Path
    descriptor: int
    directory: str
    name: str
    links: tuple[Link, ...] = ()
    owner: int = 0
    owners: frozenset[int] = frozenset()
    is_open: bool = False
    recorded_owner: int | None = None

    def __enter__(self) -> Found:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)

    @property
    def path(self) -> Path:
        """The real path of the name."""
        return Path(self.directory) / self.name if self.name != "." else Path(self.directory)

    def stat(self, name: str | None = None) -> os.stat_result:
        """What ``lstat`` says of the name, or of another one in the directory. Raises OSError."""
        return os.stat(self.name if name is None else name, dir_fd=self.descriptor, follow_symlinks=False)

    def place(self) -> Place:
        """The place, to be recorded or compared; ``file_owner`` is the directory's where there is no such file."""
        info = os.fstat(self.descriptor)
        try:
            file_owner = self.stat().st_uid
        except OSError:
            file_owner = info.st_uid
        return Place(self.directory, self.name, info.st_dev, info.st_ino, info.st_uid, file_owner, boot_id())

    def is_in(self, other: Found) -> bool:
        """Whether both are in the same directory."""
        return os.path.samestat(os.fstat(self.descriptor), os.fstat(other.descriptor))

    def check_readable(self, info: os.stat_result) -> None:
        """As ``check_links``, for reading what has that ``info``: every link may lead to what every user may read."""
        if not (self.is_open and info.st_mode & stat.S_IROTH):
            self.check_links(info.st_uid)

    def check_links(self, file_owner: int | None = None) -> None:
        """Raise ForeignError when another user's link leads to a directory, or a file, that is not that user's."""
        for link in self.links:
            if link.owner not in (0, os.geteuid(), self.owner, file_owner, self.recorded_owner):
                user = user_name(link.owner)
                raise ForeignError(
                    f"{self.asked} leads to {self.path}, which is not of user {user}, by a symbolic link of that user "
                    f"({link.path}), so it is not used. Where that is intended, name {self.path} itself in the settings, or "
                    f"give the link to root: chown -h root {link.path}"
                )


def walk(path: Path, *, follow: bool = True) -> Found:
    """Open the directory that really holds ``path``. ``follow``: the last name, too, when that is a symbolic link.

    Raises FileNotFoundError (with the missing path as ``filename``) or NotADirectoryError when a directory on the way is
    missing, OSError with ELOOP for links that lead to themselves, ValueError for a path that is not absolute.
    """
    if not path.is_absolute():
        raise ValueError(f"{path} is not an absolute path")
    opened = [os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    names: list[str] = []
    links: list[Link] = []
    left = deque(part for part in path.parts[1:] if part != ".")
    try:
        while left:
            part = left.popleft()
            if part == "..":
                if names:
                    os.close(opened.pop())
                    names.pop()
                continue
            here = "/" + "/".join(names)
            target = _read_link(part, opened[-1], here, links) if left or follow else None
            if target is not None:
                if len(links) > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
                if target.startswith("/"):
                    _close(opened[1:])
                    del opened[1:], names[:]
                left.extendleft(reversed([step for step in target.split("/") if step not in ("", ".")]))
            elif not left:
                return _found(path, opened, here, part, links)
            else:
                try:
                    opened.append(os.open(part, _STEP, dir_fd=opened[-1]))
                except FileNotFoundError:
                    missing = os.path.join(here, part, *left)
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), missing) from None
                names.append(part)
        # It ends with "..", or in a link to a directory by such a path: the directory itself.
        if not names:
            return _found(path, opened, "/", ".", links)
        name = names.pop()
        os.close(opened.pop())
        return _found(path, opened, "/" + "/".join(names), name, links)
    except BaseException:
        _close(opened)
        raise


def _read_link(name: str, directory: int, here: str, links: list[Link]) -> str | None:
    """Where a symbolic link leads, noting it and its owner; None for anything else, and for nothing."""
    try:
        if not stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            return None
        descriptor = os.open(name, _LINK, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISLNK(info.st_mode):
            return None
        links.append(Link(os.path.join(here, name), info.st_uid))
        return os.readlink("", dir_fd=descriptor)  # of the link that was opened, whatever has its name now
    finally:
        os.close(descriptor)


def _found(path: Path, opened: list[int], here: str, name: str, links: list[Link]) -> Found:
    passed = [os.fstat(descriptor) for descriptor in opened]
    owners = [info.st_uid for info in passed]
    is_open = all(info.st_mode & stat.S_IXOTH for info in passed)
    _close(opened[:-1])
    kept = opened[-1]
    del opened[:]
    return Found(path, kept, here, name, tuple(links), owners[-1], frozenset(owners), is_open)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def real_path(path: Path) -> Path:
    """The path without symbolic links, for comparisons; as it is where it leads nowhere or cannot be walked."""
    try:
        with walk(path) as found:
            return found.path
    except (OSError, ValueError):
        return Path(os.path.normpath(path))


def controllers_of(path: Path) -> set[int]:
    """Ids of the users, other than root and us, who can change what is at ``path``.

    They own the file, a directory on the way, or a symbolic link on the way. None where it leads nowhere.
    """
    try:
        with walk(path) as found:
            owners = {*found.owners, *(link.owner for link in found.links), found.stat().st_uid}
    except (OSError, ValueError):
        return set()
    return owners - {0, os.geteuid()}
