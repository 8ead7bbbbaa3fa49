"""What a disk still holds after the power went: only what was fsynced, or any mix of that with what was not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from glitchtip_core import files

# After a power cut the not yet durable changes are: all there; all gone; there but for the content of files;
# gone in the state directory only; gone everywhere but there.
FATES = ("kept", "lost", "names only", "state lost", "state kept")


class Disk:
    """The durable content of one directory tree, told by the program's own fsync calls.

    With ``honest=False`` no fsync makes anything durable: the program's protection is off.
    """

    def __init__(self, root: Path, state: Path, *, honest: bool = True) -> None:
        self.root = root
        self.state = state
        self.honest = honest
        self.cut: Callable[[str], None] = lambda _point: None
        self._data: dict[int, tuple[bytes, int]] = {}
        self._names: dict[Path, dict[str, tuple[bool, int]]] = {}
        self._held: dict[int, int] = {}
        for directory, _, names in os.walk(root):
            self._directory(Path(directory))
            for name in names:
                self._file(Path(directory) / name)

    def __enter__(self) -> Disk:
        files.observer = self._observe
        return self

    def __exit__(self, *_error: object) -> None:
        files.observer = None
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def _observe(self, kind: str, path: Path, when: str) -> None:
        if when == "after" and self.honest:
            (self._file if kind == "file" else self._directory)(path)
        place = path.relative_to(self.root) if path.is_relative_to(self.root) else path.name
        self.cut(f"{when} fsync of {kind} {place}")

    def _file(self, path: Path) -> None:
        info = path.stat()
        if info.st_ino not in self._held:  # held open, so that its number is not given to another file
            self._held[info.st_ino] = os.open(path, os.O_RDONLY)
        self._data[info.st_ino] = (path.read_bytes(), info.st_mode & 0o7777)

    def _directory(self, path: Path) -> None:
        with os.scandir(path) as entries:
            self._names[path] = {entry.name: (entry.is_dir(), entry.inode()) for entry in entries}

    def lose(self, fate: str) -> None:
        """Leave in the tree what ``fate`` says."""
        if fate == "lost":
            self._revert(self.root, lambda _path: True)
        elif fate == "state lost":
            self._revert(self.root, lambda path: path.is_relative_to(self.state))
        elif fate == "state kept":
            self._revert(self.root, lambda path: not path.is_relative_to(self.state))
        elif fate == "names only":
            for directory, _, names in os.walk(self.root):
                for name in names:
                    path = Path(directory) / name
                    data, _ = self._data.get(path.stat().st_ino, (b"", 0))
                    if path.read_bytes() != data:
                        path.write_bytes(data)

    def _revert(self, directory: Path, concerned: Callable[[Path], bool]) -> None:
        durable = self._names.get(directory, {})
        for entry in list(os.scandir(directory)):
            path = Path(entry.path)
            known = durable.get(entry.name)
            if known is None and concerned(path):
                shutil.rmtree(path) if entry.is_dir() else path.unlink()
            elif entry.is_dir():
                self._revert(path, concerned)
        for name, (is_directory, number) in durable.items():
            path = directory / name
            if not concerned(path):
                continue
            if is_directory:
                path.mkdir(exist_ok=True)
                self._revert(path, concerned)
                continue
            data, mode = self._data.get(number, (b"", 0o600))
            if not path.exists() or path.stat().st_ino != number or path.read_bytes() != data:
                path.unlink(missing_ok=True)
                path.write_bytes(data)
                path.chmod(mode)
