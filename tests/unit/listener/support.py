"""A squatter, servers and a Docker for the tests of who listens on GlitchTip's port."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from glitchtip_core import listener

ROOT = Path(__file__).resolve().parents[3]
NOBODY, OTHER = 65534, 65533
TOKEN = "5" * 64
NO_TIME = 0.3
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="takes on another user, which needs root on Linux"
)


def stranger(sock: socket.socket) -> str:
    """Why nothing may be sent."""
    return listener.stranger(sock)[0]


class Squatter:
    """A process of another user that listens and writes down what it is sent."""

    def __init__(self, pid: int, port: int, log: Path) -> None:
        self.pid, self.port, self.log = pid, port, log

    def heard(self, seconds: float = 1.0) -> bytes:
        """What it was sent, once there is anything, or after some time nothing."""
        end = time.monotonic() + seconds
        while not self.log.stat().st_size and time.monotonic() < end:
            time.sleep(0.02)
        return self.log.read_bytes()


def serve(server: socket.socket, log: int) -> None:
    """Answer every request 200, and write down all that comes."""
    while True:
        taken, _ = server.accept()
        taken.settimeout(5)
        with contextlib.suppress(OSError), taken:
            data = taken.recv(65536)
            os.write(log, data)
            if data:
                taken.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
                )


def forked(uid: int, work: Callable[[], None]) -> int:
    """The id of a child that does the work as that user, and ends with it."""
    pid = os.fork()
    if pid:
        return pid
    with contextlib.suppress(BaseException):
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        work()
    os._exit(1)


@contextlib.contextmanager
def own_server(address: str = "127.0.0.1", family: socket.AddressFamily = socket.AF_INET) -> Iterator[int]:
    """A server of this very process."""
    reading, writing = os.pipe()
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind((address, 0))
        server.listen(5)
        threading.Thread(target=_serve_until_closed, args=(server, writing), daemon=True).start()
        yield server.getsockname()[1]
    os.close(reading)


def _serve_until_closed(server: socket.socket, log: int) -> None:
    with contextlib.suppress(OSError):
        serve(server, log)


def connected(port: int, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, port), 5)


class Engine:
    """A ``docker`` on PATH that answers from a file and counts its calls."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls = root / "calls"
        program = root / "docker"
        program.write_text(
            f"#!/bin/sh\necho x >> {self.calls}\n"
            f'if [ "$1" = ps ]; then cat {root}/ids; else cat {root}/inspected; fi; exit $(cat {root}/code)\n'
        )
        program.chmod(0o755)
        self.has()

    def has(self, *containers: dict[str, Any], text: str | None = None, code: int = 0) -> None:
        """The containers that publish the port."""
        (self.root / "ids").write_text("".join(f"{number}\n" for number, _ in enumerate(containers)))
        (self.root / "inspected").write_text(json.dumps(containers) if text is None else text)
        (self.root / "code").write_text(str(code))

    def hangs(self) -> None:
        """It never answers."""
        program = self.root / "docker"
        program.write_text(f"#!/bin/sh\necho x >> {self.calls}\nexec sleep 60\n")

    @property
    def asked(self) -> int:
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0


def container(port: int, service: str = "web", project: str = "glitchtip") -> dict[str, Any]:
    return {
        "Name": f"/{project}-{service}-1",
        "Config": {"Labels": {"com.docker.compose.service": service, "com.docker.compose.project": project}},
        "NetworkSettings": {
            "Ports": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}], "9/tcp": None}
        },
    }


def forget() -> None:
    """Judge the next connection as the first one."""
    listener._checked = listener._Checked()
