"""Fixtures of the tests of who listens on GlitchTip's port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from unit.host_modules import run_host_module as run_host_module
from unit.listener.support import (
    NOBODY,
    Engine,
    Squatter,
    forked,
    serve,
)

from glitchtip_core import allowed_listeners, listener


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(listener, "_checked", listener._Checked())
    monkeypatch.setattr(allowed_listeners, "SETTINGS", tmp_path / "listeners.json")


@pytest.fixture
def squat(tmp_path: Path) -> Iterator[Callable[..., Squatter]]:
    """squat(uid, address, family, bound): a squatter; ``bound`` is done before it takes on its user."""
    pids: list[int] = []

    def start(
        uid: int = NOBODY,
        address: str = "127.0.0.1",
        family: socket.AddressFamily = socket.AF_INET,
        server: socket.socket | None = None,
    ) -> Squatter:
        log = tmp_path / f"heard-{len(pids)}"
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        reading, writing = os.pipe()

        def work() -> None:
            own = server or socket.socket(family, socket.SOCK_STREAM)
            if server is None:
                own.bind((address, 0))
                own.listen(5)
            os.write(writing, f"{own.getsockname()[1]}\n".encode())
            serve(own, descriptor)

        pids.append(forked(uid, work))
        os.close(writing)
        port = int(os.read(reading, 100))
        os.close(reading)
        os.close(descriptor)
        return Squatter(pids[-1], port, log)

    yield start
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    root = tmp_path / "engine"
    root.mkdir()
    monkeypatch.setenv("PATH", f"{root}:{os.environ['PATH']}")
    return Engine(root)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[int]:
    """The port of a process of root whose program is called docker-proxy."""
    program = tmp_path / "docker-proxy"
    shutil.copy("/usr/bin/python3", program)
    source = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); time.sleep(600)"
    process = subprocess.Popen([program, "-ISc", source], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait(10)
