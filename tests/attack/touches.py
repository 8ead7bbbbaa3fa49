"""Which names in the user's directories root touches, and whether each time through the one layer that may.

Two sources: wrappers around the functions of ``os`` that take a directory's descriptor, and an audit hook of the interpreter
(PEP 578), which no code of ours can go around. Both see the stack: the innermost frame of this repository says who did it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYER = {"foreign_files.py", "foreign_paths.py", "foreign_search.py"}
#: Calls that open, list, change or remove a name; the others only look at it.
_ACTS = {"open", "unlink", "remove", "rename", "chmod", "chown", "link", "symlink", "mkdir", "rmdir", "truncate", "listdir", "scandir"}
#: A file that is there is opened to be written.
OVERWRITE = "overwrite"
_WRAPPED = (*sorted(_ACTS - {"chmod", "chown"}), "stat", "lstat", "readlink", "access", "listxattr", "getxattr", "setxattr")
_EVENTS = ("open", "os.", "shutil.", "glob.", "pathlib.", "subprocess.Popen", "socket.connect")


@dataclass
class Touches:
    """What was recorded below ``theirs``."""

    theirs: Path
    #: Names (relative) that were acted on, with the calls.
    acted: dict[str, set[str]] = field(default_factory=dict)
    #: Names that were only looked at, without following anything.
    seen: set[str] = field(default_factory=set)
    #: Where the layer was gone around: place in the source, call, name.
    outside: set[str] = field(default_factory=set)
    armed: bool = False

    def note(self, call: str, path: str, flags: int = 0) -> None:
        if not self.armed or not path.startswith(f"{self.theirs}/"):
            return
        frame = _ours(sys._getframe(2))
        if frame is None or "tests" in Path(frame.f_code.co_filename).parts:
            return
        name = path.removeprefix(f"{self.theirs}/")
        if Path(frame.f_code.co_filename).name not in LAYER:
            place = f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"
            self.outside.add(f"{place} {call} {name}")
        elif call in _ACTS and not flags & os.O_PATH:
            over = call == "open" and flags & (os.O_WRONLY | os.O_CREAT) == os.O_WRONLY
            self.acted.setdefault(name, set()).add(OVERWRITE if over else call)
        else:
            self.seen.add(name)


_CURRENT: list[Touches] = []
_INSTALLED: list[bool] = []


def _ours(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of this repository, that of this file aside."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(str(ROOT)) and ".venv" not in name and name != __file__:
            return frame
        frame = frame.f_back
    return None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _CURRENT or not event.startswith(_EVENTS):
        return
    for argument in arguments:
        if isinstance(argument, str | bytes | os.PathLike):
            path = os.fsdecode(argument)
            if path.startswith("/"):
                _CURRENT[-1].note(event, path)


def _resolved(path: Any, directory: int | None) -> str:
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}") if path > 2 else ""
    text = os.fsdecode(path)
    if directory is not None and text == ".":  # what is open already, by no name
        return ""
    if directory is not None and not text.startswith("/"):
        return os.path.join(_READLINK(f"/proc/self/fd/{directory}"), text) if text else ""
    return text


_READLINK = os.readlink


@contextmanager
def recorded(theirs: Path) -> Iterator[Touches]:
    """Record while it is armed."""
    if not _INSTALLED:
        sys.addaudithook(_audit)
        _INSTALLED.append(True)
    touches = Touches(theirs)
    with pytest.MonkeyPatch.context() as patch:
        for name in _WRAPPED:
            patch.setattr(os, name, _wrapped(touches, name, getattr(os, name)))
        _CURRENT.append(touches)
        try:
            yield touches
        finally:
            touches.armed = False
            _CURRENT.pop()


def _wrapped(touches: Touches, name: str, function: Any) -> Any:
    def call(*arguments: Any, **named: Any) -> Any:
        if touches.armed and arguments:
            touches.armed = False
            try:
                directory = named.get("dir_fd", named.get("src_dir_fd"))
                path = _resolved(arguments[0], directory)
            finally:
                touches.armed = True
            flags = arguments[1] if name == "open" and len(arguments) > 1 else 0
            touches.note(name, path, flags)
        return function(*arguments, **named)

    return call
