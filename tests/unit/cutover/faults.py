"""A fault at any call of any port: the call number ``at`` raises, once or (``lasting``) with every later call of that port."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from unit.cutover.simulation import Simulation

from glitchtip_cutover import running
from glitchtip_cutover.host import Host

ERRORS: tuple[Callable[[], Exception], ...] = (
    lambda: ValueError("x"),
    lambda: KeyError("x"),
    lambda: RecursionError("x"),
    lambda: OSError(5, "Input/output error"),
    lambda: OverflowError("x"),
    lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
    lambda: MemoryError(),
    lambda: TypeError("x"),
)
#: The distance of two refused writes in the sweep over the state directory (FAULTS_STEP=1: each write).
STATE_FAULTS_STEP = int(os.environ.get("FAULTS_STEP", "9"))
#: What changes something outside: these also fail after they did their work.
_ACTS = {"restart", "restart_together", "save", "rewrite_dump", "arm", "disarm"}
_FILE_CALLS = ("open", "write", "fsync", "ftruncate", "rename", "unlink", "mkdir", "pwrite")


class Faults:
    """Counts the calls of all ports while it is armed, and lets one of them fail."""

    def __init__(self, at: int = 0, error: Callable[[], Exception] = ERRORS[0], *, lasting: bool = False) -> None:
        self.at = at
        self.error = error
        self.lasting = lasting
        self.armed = False
        self.calls: list[str] = []
        self.failed = ""

    def __call__(self, port: str, call: str) -> None:
        if not self.armed:
            return
        self.calls.append(f"{port}.{call}")
        if len(self.calls) == self.at:
            self.failed = port
            raise self.error()
        if self.lasting and self.failed == port:
            raise self.error()

    def function(self, port: str, function: Callable[..., Any], call: str = "") -> Callable[..., Any]:
        """The same function, which may fail."""
        name = call or port

        def called(*arguments: Any, **named: Any) -> Any:
            self(port, name)
            result = function(*arguments, **named)
            if name in _ACTS:
                self(port, f"{name}, done")
            return result

        return called

    def port(self, port: str, target: Any) -> Any:
        """An object whose methods may fail."""
        return _Port(self, port, target)

    def host(self, host: Host) -> Host:
        """The same host, whose ports may fail."""
        functions = ("clock", "monotonic", "sleep", "notify", "start_watch", "send_test_event", "mirror_problem")
        return dataclasses.replace(
            host,
            **{name: self.function(name, getattr(host, name)) for name in (*functions, "surroundings", "progress")},
            **{name: self.port(name, getattr(host, name)) for name in ("manager", "deadline", "prober")},
            tracker=self.function("tracker", lambda side: self.port("tracker", host.tracker(side)), "tracker"),
        )

    @contextmanager
    def around(self) -> Iterator[None]:
        """Arm it, and put it before the calls of files and of /proc, too."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda _descriptor: None)
            for name in _FILE_CALLS:
                patch.setattr(os, name, self.function("files", getattr(os, name), name))
            for name in ("read_bytes", "read_text"):
                patch.setattr(Path, name, self.function("files", getattr(Path, name), name))
            patch.setattr(running, "read_running", self.function("process", running.read_running, "read_running"))
            self.armed = True
            try:
                yield
            finally:
                self.armed = False


class _Port:
    def __init__(self, faults: Faults, port: str, target: Any) -> None:
        self.__dict__["_held"] = (faults, port, target)

    def __getattr__(self, name: str) -> Any:
        faults, port, target = self.__dict__["_held"]
        value = getattr(target, name)
        if name.startswith("_") or (not callable(value) and name != "running"):
            return value
        if not callable(value):
            faults(port, name)
            return value
        call = faults.function(port, value, name)
        return lambda *arguments, **named: _again(faults, port, target, call(*arguments, **named))


def _again(faults: Faults, port: str, target: Any, result: Any) -> Any:
    return _Port(faults, port, result) if type(result) is type(target) else result


def shape(world: Simulation) -> object:
    """What services use and are given, and what the files hold."""
    carried = {name: dict(process.environment) for name, process in world.pm2.table.items()}
    files = [path.read_text() for path in (world.env_file, world.own_file)]
    return dict(world.pm2.loaded), carried, dict(world.pm2.saved), files
