"""One value of a ``.env`` file, replaced with every other byte kept (see ``envtext``).

The file may lie in a directory that another user owns, so it is read and written through ``glitchtip_core.foreign_files``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from glitchtip_core.foreign_files import (
    Content,
    info_of,
    is_writable,
    names_in,
    read,
    rehearse_write,
    remove,
    set_aside,
    write,
    write_over,
)
from glitchtip_core.foreign_paths import ForeignError, Found, Place, walk

from .envtext import find_assignment as find_assignment
from .envtext import read_variables as read_variables
from .envtext import replace_value as replace_value
from .errors import CutoverError, StoppedError, unexpected

#: A larger file is no ``.env`` file.
MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class EnvFile:
    """A ``.env`` file at ``path``; symbolic links are followed and stay links.

    ``recorded``: where the file really was when the state before the migration was recorded. A file that is elsewhere now is
    neither read nor written: whoever owns its directory could lead us to any file.
    """

    path: Path
    key: str
    recorded: Place | None = None

    @contextlib.contextmanager
    def _found(self) -> Iterator[Found]:
        """The open directory that really holds the file. Raises CutoverError, also for what fails in the meantime."""
        try:
            with walk(self.path) as found:
                if self.recorded is not None:
                    if told := self.recorded.difference(found.place()):
                        raise CutoverError(
                            f"{self.path} {told}. It was left alone: put it back where it was, or set {self.key} there by hand "
                            "and restart its services"
                        )
                    found.recorded_owner = self.recorded.file_owner
                yield found
        except ForeignError as error:
            raise CutoverError(str(error)) from None
        except FileNotFoundError as error:
            missing = error.filename if os.path.isabs(error.filename or "") else str(found.path)
            link = info_of(self.path, follow=False)
            if link is not None and stat.S_ISLNK(link.st_mode):
                raise CutoverError(
                    f"{self.path} is a symbolic link to {missing}, which does not exist"
                ) from None
            raise CutoverError(f"there is no file {self.path}") from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise CutoverError(f"{self.path} is a symbolic link that leads back to itself") from None
            raise CutoverError(f"cannot read {self.path}: {error.strerror}") from None

    def content(self) -> Content:
        """Bytes, mode, owner and attributes of one moment. Raises CutoverError when there is no regular file to read."""
        with self._found() as found:
            return read(found, MAX_BYTES)

    def read(self) -> bytes:
        """The bytes. Raises CutoverError when the file is missing, unreadable or no regular file."""
        return self.content().data

    def value(self) -> str:
        """The value of ``key``. Raises CutoverError when there is not exactly one."""
        return find_assignment(self.read(), self.key, str(self.path)).value

    def copy(self) -> tuple[Content, Place]:
        """The content, and where the file really is, to be recorded. Raises CutoverError as ``content``."""
        with self._found() as found:
            seen = read(found, MAX_BYTES)
            return seen, replace(found.place(), file_owner=seen.info.st_uid)

    def rehearse(self, value: str) -> bytes:
        """The bytes that ``replace`` would write. Raises CutoverError for whatever ``replace`` would refuse."""
        with self._found() as found:
            return self._rehearse(found, read(found, MAX_BYTES), value)

    def _rehearse(self, found: Found, seen: Content, value: str) -> bytes:
        edited = replace_value(seen.data, self.key, value, str(self.path))
        if edited == seen.data:
            return edited
        self._check_names(seen)
        if not is_writable(found):
            raise CutoverError(f"cannot write {self.path}: its directory is not writable")
        return edited

    def _check_names(self, seen: Content) -> None:
        if seen.info.st_nlink > 1:
            raise CutoverError(
                f"{self.path} has {seen.info.st_nlink} names (hard links): the others would keep the old value, "
                "so remove them or make them symbolic links"
            )

    def check(self) -> None:
        """Raise CutoverError for whatever would keep the file from being edited, copied or put back. Its text is not judged."""
        with self._found() as found:
            seen = read(found, MAX_BYTES)
            self._check_names(seen)
            if not is_writable(found):
                raise CutoverError(f"cannot write {self.path}: its directory is not writable")
            found.check_links(seen.info.st_uid)
            rehearse_write(found, seen)
            with self._beside(found, seen) as beside:
                if not is_writable(beside):
                    raise CutoverError(f"cannot keep a copy of {self.path} beside it: its directory is not writable")

    def replace(self, value: str, *, in_place: bool = False) -> bool:
        """Set ``key`` to ``value`` atomically, keeping mode, owner and attributes; True when the file changed.

        ``in_place``: on a full disk the bytes of the file itself are replaced (``foreign_files.write_over``).
        Raises CutoverError, and leaves the file as it is, when it cannot be edited or written, or when somebody
        else changes it at the same time.
        """
        with self._found() as found:
            seen = read(found, MAX_BYTES)
            edited = self._rehearse(found, seen, value)
            if edited == seen.data:
                return False

            def guard() -> None:
                with walk(self.path) as now:
                    if now.path != found.path:
                        raise ForeignError(f"{self.path} was changed by somebody else meanwhile")

            over = seen if in_place else None
            self._write(found, edited, seen.mode, seen.owner, replaces=seen, guard=guard, over=over)
            return True

    def _write(
        self,
        found: Found,
        data: bytes,
        mode: int,
        owner: tuple[int, int],
        *,
        replaces: Content | None = None,
        guard: Callable[[], None] | None = None,
        name: str | None = None,
        over: Content | None = None,
    ) -> None:
        """Write into the open directory, on a full disk ``over`` that file. Raises CutoverError or ForeignError."""
        try:
            if over is not None:
                write_over(found, data, mode=mode, owner=owner, seen=over, replaces=replaces, guard=guard, name=name)
                return
            write(found, data, mode=mode, owner=owner, replaces=replaces, guard=guard, name=name)
        except (CutoverError, ForeignError):
            raise
        except Exception as error:
            raise CutoverError(f"cannot write {self.path}: {unexpected(error)}") from error

    def restore(self, data: bytes, mode: int, owner: tuple[int, int]) -> None:
        """Put the whole file back as ``data`` with ``mode`` and ``owner``; a hard link is left behind."""
        with self._found() as found:
            self._write(found, data, mode, owner)

    def stat(self) -> tuple[int, tuple[int, int]]:
        """Mode bits and (uid, gid) of the file."""
        seen = self.content()
        return seen.mode, seen.owner

    def backup(self, stamp: str, label: str = "pre-glitchtip") -> Path:
        """Copy the file beside itself as ``<name>.<label>-<stamp>`` with its mode; reuse an equal copy."""
        with self._found() as real, self._beside(real, seen := read(real, MAX_BYTES)) as found:
            for name in self._copy_names(label, stamp):
                with contextlib.suppress(FileNotFoundError):
                    if _holds(found, name, seen.data):
                        return self.path.with_name(name)
                    continue
                self._write(found, seen.data, seen.mode, seen.owner, name=name)
                return self.path.with_name(name)
        raise CutoverError(f"there are too many copies of {self.path} of {stamp}")

    def put_back(
        self,
        data: bytes,
        mode: int,
        owner: tuple[int, int],
        stamp: str,
        keep: Callable[[bytes, CutoverError], None],
    ) -> None:
        """Restore the whole file, and keep what had its name as ``<name>.damaged-<stamp>``.

        A file is copied; where that fails, ``keep`` gets its bytes and why, and on a full disk the bytes of the file itself are
        replaced. What is not to be read (a pipe, another user's file with a second name here) gets that name itself, once the
        new file is written. Raises CutoverError.
        """
        with self._found() as found:
            aside: Callable[[], None] | None = None
            seen: Content | None = None
            try:
                seen = read(found, MAX_BYTES)
            except FileNotFoundError:
                pass
            except (ForeignError, OSError):
                aside = lambda: self._set_aside(found, stamp)  # noqa: E731
            else:
                try:
                    self.backup(stamp, "damaged")
                except StoppedError:
                    raise
                except CutoverError as error:
                    keep(seen.data, error)
            self._write(found, data, mode, owner, guard=aside, over=seen)

    def _set_aside(self, found: Found, stamp: str) -> None:
        for name in self._copy_names("damaged", stamp):
            with contextlib.suppress(FileExistsError):
                set_aside(found, name)
                return

    def _copy_names(self, label: str, stamp: str) -> Iterator[str]:
        for number in range(1, 100):
            yield f"{self.path.name}.{label}-{stamp}" + ("" if number == 1 else f"-{number}")

    @contextlib.contextmanager
    def _beside(self, real: Found | None = None, seen: Content | None = None) -> Iterator[Found]:
        """The open directory that ``path`` itself names, where copies are kept. Raises CutoverError.

        Where that is the ``real`` directory of the file that was ``seen``, who owns the file counts as for writing it.
        """
        try:
            with walk(self.path, follow=False) as found:
                if real is not None and seen is not None and real.is_in(found):
                    known = real.recorded_owner
                    found.recorded_owner = seen.info.st_uid if known is None else known
                found.check_links()
                yield found
        except ForeignError as error:
            raise CutoverError(str(error)) from None
        except OSError as error:
            raise CutoverError(f"cannot keep a copy of {self.path}: {error.strerror}") from None

    def clean(self) -> None:
        """Remove what an interrupted write may have left beside the file."""
        for opened in (self._found, self._beside):
            with contextlib.suppress(CutoverError), opened() as found:
                for name in names_in(found):
                    if name.endswith(".part") and name.startswith((f"{found.name}.", f"{self.path.name}.")):
                        with contextlib.suppress(OSError):
                            remove(found, name)


def _holds(found: Found, name: str, data: bytes) -> bool:
    """Whether a copy of that name holds exactly these bytes. Raises FileNotFoundError where nothing has the name."""
    try:
        return read(found, MAX_BYTES, name).data == data
    except FileNotFoundError:
        raise
    except (OSError, ForeignError):
        return False
