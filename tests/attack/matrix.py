"""Every measured name x every kind of attack: held with the protection, and successful without it."""

from __future__ import annotations

import mmap
import os
import re
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from attack.off import protection_off
from attack.touches import OVERWRITE, Touches, recorded
from attack.world import (
    COMMANDS,
    SECRET,
    USER,
    Attacked,
    fingerprint,
    leaks,
    no_room,
    perform,
    simulated_processes,
)
from glitchtip_core import foreign_files
from glitchtip_core.errors import CoreError
from glitchtip_core.foreign_paths import walk

KINDS = ("symlink", "hard link", "FIFO", "directory swap", "races")
#: Seconds after which a command counts as one that hangs.
PATIENCE = 20.0
#: The same without the protection, where it is sure to hang.
PATIENCE_OFF = 2.0
_HELD, _BROKEN = 0, 42
#: A copy's name that got a number, because the one without is taken.
_NUMBERED = re.compile(r"-\d{4}-2(\.part)?$")


@dataclass(frozen=True)
class Cell:
    """One attack: on which name (relative to the user's directory), of which kind, during which command.

    ``in_place``: the command writes over the file itself.
    """

    name: str
    kind: str
    command: str
    in_place: bool = False


@dataclass
class Measured:
    """What the commands touch: names acted on with the first command that does, calls, and what went around the layer."""

    commands: dict[str, str] = field(default_factory=dict)
    calls: dict[str, set[str]] = field(default_factory=dict)
    #: Names that are written over, with the first command that does.
    overwritten: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    outside: set[str] = field(default_factory=set)
    ended: dict[str, str] = field(default_factory=dict)

    def add(self, command: str, touches: Touches) -> None:
        for name, calls in touches.acted.items():
            self.commands.setdefault(name, command)
            self.calls.setdefault(name, set()).update(calls - {OVERWRITE})
            if OVERWRITE in calls:
                self.overwritten.setdefault(name, command)
        self.seen |= touches.seen
        self.outside |= {f"{command}: {text}" for text in touches.outside}

    def files(self) -> list[str]:
        """The names that are attacked: all that were acted on and are no directories."""
        return sorted(name for name in self.calls if name not in _directories() and not _NUMBERED.search(name))

    def cells(self) -> list[Cell]:
        over = [Cell(name, kind, command, in_place=True) for name, command in self.overwritten.items() for kind in KINDS]
        return [Cell(name, kind, self.commands[name]) for name in self.files() for kind in KINDS] + over

    def calls_of(self, cell: Cell) -> set[str]:
        """What is done with the name in that attack."""
        return {OVERWRITE} if cell.in_place else self.calls[cell.name]


def _directories() -> set[str]:
    from attack.world import FILES

    return {str(parent) for name in FILES for parent in Path(name).parents}


@contextmanager
def place() -> Iterator[Path]:
    """A directory of root's that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="attack-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        Path(name).chmod(0o755)
        yield Path(name)


def measure(commands: Sequence[str] = tuple(COMMANDS)) -> Measured:
    """Run every command on a fresh product, and record; then again with a file of every name that was only looked for."""
    result = Measured()
    for command in commands:
        for more in (False, True):
            with place() as root:
                world = Attacked(root)
                with simulated_processes(world.home), recorded(world.theirs) as touches:
                    COMMANDS[command][0](world)
                    if more:
                        _fill(world, result.seen)
                    touches.armed = True
                    result.ended[command] = perform(world, command)
                    touches.armed = False
                result.add(command, touches)
    return result


def _fill(world: Attacked, names: set[str]) -> None:
    for name in names:
        path = world.theirs / name
        if path.parent.is_dir() and not path.exists():
            path.write_text("# nothing\n")
            os.chown(path, USER, USER)


# --- the attacker -------------------------------------------------------------------------------------------


def as_user(act: Callable[[], None]) -> None:
    """Do something in a process of the unprivileged user. Raises AssertionError when it fails."""
    pid = os.fork()
    if not pid:
        code = 1
        with suppress(BaseException):
            become_user()
            act()
            code = 0
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def become_user() -> None:
    """Give up everything for good."""
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _target(world: Attacked, name: str) -> Path:
    """The file of root's with that name; made where the tree has none."""
    target = world.guarded / name
    if not target.exists():
        target.write_text(f"# {SECRET}\nSENTRY_DSN=x\n")
        target.chmod(0o600)
    return target


def attack(world: Attacked, cell: Cell) -> None:
    """Put the attack in place, as the user."""
    path, target = world.theirs / cell.name, _target(world, cell.name)
    if cell.kind == "symlink":
        as_user(lambda: (_clear(path), path.symlink_to(target))[0])
    elif cell.kind == "FIFO":
        as_user(lambda: (_clear(path), os.mkfifo(path))[0])
    elif cell.kind == "hard link":
        as_user(lambda: _clear(path))
        os.link(target, path)  # by us, for kernels with fs.protected_hardlinks=0, where the user may do it
    elif cell.kind == "directory swap":
        as_user(lambda: _swap(path, target))


def _swap(path: Path, target: Path) -> None:
    path.parent.rename(path.parent.with_name("old"))
    path.parent.symlink_to(target.parent)


def _toggle(path: Path, target: Path, swaps: mmap.mmap) -> None:
    """For ever: the file, a link to root's file, the file, and its directory as a link to root's directory."""
    away, lure = path.parent.with_name("away"), path.parent.with_name("lure")
    while True:
        swaps[:8] = (int.from_bytes(swaps[:8], "little") + 1).to_bytes(8, "little")
        with suppress(OSError):
            (path.parent / "link").symlink_to(target)
        with suppress(OSError):
            (path.parent / "link").rename(path)
        with suppress(OSError):
            os.link(path.parent / "kept", path.parent / "again")
        with suppress(OSError):
            (path.parent / "again").rename(path)
        with suppress(OSError):
            path.parent.rename(away)
            lure.rename(path.parent)
        with suppress(OSError):
            path.parent.rename(lure)
            away.rename(path.parent)


def _prepare_race(path: Path, target: Path) -> None:
    if not path.exists():
        path.write_text("A=1\n")
    (path.parent / "kept").write_bytes(path.read_bytes())
    path.parent.with_name("lure").symlink_to(target.parent)


@contextmanager
def racing(path: Path, target: Path) -> Iterator[Callable[[], int]]:
    """The user swaps while root works; gives how many times so far."""
    swaps = mmap.mmap(-1, 8)
    as_user(lambda: _prepare_race(path, target))
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            become_user()
            _toggle(path, target, swaps)
        os._exit(1)
    try:
        yield lambda: int.from_bytes(swaps[:8], "little")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# --- root, watched ------------------------------------------------------------------------------------------


class Watched:
    """Notes when one of root's files is opened."""

    def __init__(self, guarded: Path) -> None:
        self.roots = {(info.st_dev, info.st_ino) for info in (path.lstat() for path in guarded.rglob("*"))}
        self.opened: list[str] = []

    @contextmanager
    def on(self) -> Iterator[None]:
        real = os.open

        def opened(path: Any, flags: int, *more: Any, **named: Any) -> int:
            descriptor = real(path, flags, *more, **named)
            info = os.fstat(descriptor)
            if not flags & os.O_PATH and stat.S_ISREG(info.st_mode) and (info.st_dev, info.st_ino) in self.roots:
                self.opened.append(str(path))
            return descriptor

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", opened)
            yield


def replay(path: Path, calls: set[str]) -> None:
    """What the layer does with a name, once."""
    with suppress(OSError, CoreError):
        if OVERWRITE in calls:
            with walk(path) as found, no_room():
                seen = foreign_files.read(found, 1 << 20)
                data = str(time.monotonic_ns()).encode()
                foreign_files.write_over(found, data, mode=seen.mode, owner=seen.owner, seen=seen)
        elif path.suffix == ".part" or "rename" in calls:
            with walk(path.with_name(path.name.removesuffix(".part"))) as found:
                foreign_files.write(found, b"A=1\n", mode=0o600, owner=(USER, USER))
        else:
            foreign_files.read_file(path, 1 << 20)


def broken(cell: Cell, calls: set[str], races: int, *, protected: bool) -> list[str]:
    """Run one cell in this process; what should not have happened."""
    with place() as root:
        world = Attacked(root)
        with simulated_processes(world.home):
            COMMANDS[cell.command][0](world)
            path, target = world.theirs / cell.name, _target(world, cell.name)
            if cell.kind != "races":
                attack(world, cell)
            before, watched = fingerprint(world.guarded), Watched(world.guarded)
            with nullcontext() if protected else protection_off(), watched.on():
                if cell.kind == "races":
                    _race(path, target, calls, watched, races)
                else:  # replayed, too, as a command looks at some names before it opens them, and takes leftovers away first
                    steps = [lambda: perform(world, cell.command), lambda: replay(path, calls)]
                    for step in reversed(steps) if path.suffix == ".part" else steps:
                        step()
            found = [f"root's file was opened as {name}" for name in watched.opened]
            now = fingerprint(world.guarded)
            found += [f"root's {name} is another" for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
            return found + leaks(world.theirs, world.guarded)


def _race(path: Path, target: Path, calls: set[str], watched: Watched, races: int) -> None:
    """Root opens or writes the name so many times while the user swaps at least as often, or until a file of root's is hit."""
    done, deadline = 0, time.monotonic() + 5 * PATIENCE
    with racing(path, target) as swaps:
        while not watched.opened and (done < races or swaps() < races):
            replay(path, calls)
            done += 1
            assert time.monotonic() < deadline, f"the user came to swap {swaps()} times only"


def run(cell: Cell, calls: set[str], races: int, *, protected: bool = True) -> str:
    """Run one cell in a process of its own; what happened, empty when it held."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        os.close(reading)
        code = _BROKEN
        try:
            found = broken(cell, calls, races, protected=protected)
            os.write(writing, "; ".join(found[:3]).encode()[:2000])
            code = _BROKEN if found else _HELD
        except BaseException as error:
            os.write(writing, f"the attack itself failed: {type(error).__name__}: {error}".encode()[:2000])
            code = 1
        os._exit(code)
    os.close(writing)
    limit = PATIENCE if protected or cell.kind != "FIFO" else PATIENCE_OFF
    code = _wait(pid, limit if cell.kind != "races" else 10 * PATIENCE)
    with open(reading, "rb") as pipe:
        text = pipe.read().decode() if code is not None else ""
    if code is None:
        return f"root hangs (more than {limit:g} s)"
    if code == _HELD:
        return ""
    if code != _BROKEN:
        raise AssertionError(f"{cell}: {text}")
    return text


def _wait(pid: int, limit: float) -> int | None:
    """Exit code of a child; None when it had to be killed."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None
