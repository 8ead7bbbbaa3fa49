"""A real file system that can be made full or read-only, and refusals of the simulated one at any of its writes."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FULL = errno.ENOSPC, errno.EDQUOT, errno.EROFS


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


class SmallDisk:
    """A tmpfs at ``place``."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def fill(self, kind: str) -> None:
        """``bytes``, ``inodes`` or ``read-only``."""
        if kind == "read-only":
            _mount("-o", "remount,ro", str(self.place))
            return
        filler = self.place / "filler"
        with contextlib.suppress(OSError):
            if kind == "inodes":
                filler.mkdir()
                for number in range(10_000):
                    (filler / str(number)).touch()
            else:
                with filler.open("wb", buffering=0) as file:
                    while True:
                        file.write(b"x" * 4096)

    def empty(self) -> None:
        """Room again."""
        _mount("-o", "remount,rw", str(self.place))
        filler = self.place / "filler"
        for path in filler.iterdir() if filler.is_dir() else ():
            path.unlink()
        if filler.is_dir():
            filler.rmdir()
        filler.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(place: Path, size: str, inodes: int = 200) -> Iterator[SmallDisk]:
    """A file system of that size at ``place``; the test is skipped where nothing can be mounted."""
    place.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size},nr_inodes={inodes},mode=700", "none", str(place))
    try:
        yield SmallDisk(place)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


class Refusals:
    """Lets write number ``at`` below ``root`` fail, and with ``lasting`` every later one."""

    def __init__(self, root: Path, at: int = 0, number: int = errno.ENOSPC, *, lasting: bool = False) -> None:
        self.root = root
        self.at = at
        self.number = number
        self.lasting = lasting
        self.calls: list[str] = []
        self._files: set[int] = set()

    def _refuse(self, call: str) -> None:
        self.calls.append(call)
        if self.at and (len(self.calls) == self.at or (self.lasting and len(self.calls) > self.at)):
            raise OSError(self.number, os.strerror(self.number))

    def _is_below(self, place: Any) -> bool:
        return isinstance(place, str | Path) and Path(place).is_relative_to(self.root)

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Put it before the calls that write."""
        plain_open, plain_close = os.open, os.close

        def opened(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and self._is_below(path)
            if writes:
                self._refuse(f"open {Path(path).name}")
            descriptor = plain_open(path, flags, *arguments, **named)
            if writes:
                self._files.add(descriptor)
            return descriptor

        def closed(descriptor: int) -> None:
            self._files.discard(descriptor)
            plain_close(descriptor)

        def on_file(name: str) -> Callable[..., Any]:
            plain = getattr(os, name)

            def call(descriptor: int, *arguments: Any) -> Any:
                if descriptor in self._files:
                    self._refuse(name)
                return plain(descriptor, *arguments)

            return call

        def on_path(name: str) -> Callable[..., Any]:
            plain = getattr(os, name)

            def call(place: Any, *arguments: Any, **named: Any) -> Any:
                # Removing frees room: only a read-only disk refuses that.
                if self._is_below(place) and (name != "unlink" or self.number == errno.EROFS):
                    self._refuse(f"{name} {Path(place).name}")
                return plain(place, *arguments, **named)

            return call

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", opened)
            patch.setattr(os, "close", closed)
            for name in ("write", "pwrite", "ftruncate"):
                patch.setattr(os, name, on_file(name))
            for name in ("rename", "unlink", "mkdir"):
                patch.setattr(os, name, on_path(name))
            patch.setattr(os, "fsync", lambda _descriptor: None)
            yield
