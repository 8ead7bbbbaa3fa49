"""The stand-in without containers: own PostgreSQL and Redis (or Valkey) processes of this machine, then web
and worker.

For fast tests where ``postgresql`` and ``redis-server`` or ``valkey-server`` are installed. Use it as a
pytest fixture (``from local import running``) or by hand from ``tests/standin``::

    python -m local --line 5.2 --port 18080      # prints URL, e-mail and password; Ctrl-C ends everything

It runs with the Python that has tests/standin/requirements.txt. Everything lives in one temporary directory
and ends with it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
EMAIL = "admin@example.org"
PASSWORD = "Local-Passw0rd-1"


class Unavailable(Exception):  # noqa: N818 - it is a fact about the machine
    """A program that is needed is not installed, or a server did not start."""


@dataclass(frozen=True)
class Local:
    """A running stand-in: where it is, who may log in, and the environment of its processes."""

    url: str
    email: str
    password: str
    line: str
    environment: dict[str, str]
    log: Path


def free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _postgres_bin() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    if initdb is None:
        raise Unavailable("PostgreSQL is not installed (package postgresql)")
    return Path(initdb).parent


@contextmanager
def _process(
    command: list[str], log: Path, environment: Mapping[str, str], cwd: Path = HERE
) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=dict(environment), cwd=cwd)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _postgres(directory: Path) -> Iterator[str]:
    """A PostgreSQL server on a free port; its URL. Root runs it as the user ``postgres``."""
    binaries, data, port = _postgres_bin(), directory / "postgres", free_port()
    prefix: list[str] = []
    data.mkdir()
    if os.geteuid() == 0:
        directory.chmod(0o755)
        shutil.chown(data, "postgres", "postgres")
        prefix = ["runuser", "-u", "postgres", "--"]
    log = directory / "postgres.log"
    log.touch(0o666)
    init = [
        str(binaries / "initdb"),
        "-D",
        str(data),
        "-U",
        "postgres",
        "--auth=trust",
        "-E",
        "UTF8",
        "--no-sync",
    ]
    subprocess.run([*prefix, *init], check=True, capture_output=True)
    options = ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={data}"]
    server = [str(binaries / "postgres"), "-D", str(data), "-p", str(port), *options]
    with _process([*prefix, *server], log, os.environ, cwd=directory):
        for _ in range(100):
            ready = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            if subprocess.run(ready, check=False).returncode == 0:
                break
            time.sleep(0.1)
        else:
            raise Unavailable(f"PostgreSQL did not start, see {log}")
        yield f"postgres://postgres@127.0.0.1:{port}/postgres"


@contextmanager
def _valkey(directory: Path) -> Iterator[str]:
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        raise Unavailable("neither valkey-server nor redis-server is installed")
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
    with _process(command, directory / "valkey.log", os.environ):
        yield f"redis://127.0.0.1:{port}/0"


def wait_for(url: str, seconds: float = 30) -> None:
    """Wait until the URL answers 200.

    Raises :class:`Unavailable` when it does not in time.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=3) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.1)
    raise Unavailable(f"{url} does not answer")


@contextmanager
def running(
    line: str = "5.2",
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    worker: bool = True,
    valkey: bool = True,
) -> Iterator[Local]:
    """A stand-in with web and worker; everything ends with the block.

    ``environment`` adds GlitchTip settings. Raises :class:`Unavailable` when a program is missing.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="standin-")))
        port = port or free_port()
        url = f"http://127.0.0.1:{port}"
        settings = {
            **os.environ,
            "PYTHONPATH": str(HERE),
            "STANDIN_LINE": line,
            "DATABASE_URL": stack.enter_context(_postgres(directory)),
            "VALKEY_URL": stack.enter_context(_valkey(directory)) if valkey else "",
            "SECRET_KEY": "local",
            "GLITCHTIP_DOMAIN": url,
            "PORT": str(port),
            "GRANIAN_PORT": str(port),
            "CELERY_WORKER_CONCURRENCY": "2",
            "CELERY_WORKER_PREFETCH_MULTIPLIER": "50",
            "CELERY_WORKER_POOL": "threads",
            "GLITCHTIP_ALLOW_PRIVATE_IPS": "true",
            "GLITCHTIP_UPTIME_ALLOW_PRIVATE_IPS": "true",
            "ALERT_NOTIFICATION_INTERVAL": "2",
            "EMAIL_URL": "consolemail://",
            "DJANGO_SUPERUSER_EMAIL": EMAIL,
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
            **(environment or {}),
        }
        log = directory / "standin.log"
        for command in (["migrate"], ["createsuperuser", "--noinput"]):
            subprocess.run(
                [sys.executable, "manage.py", *command],
                check=True,
                env=settings,
                cwd=HERE,
                capture_output=True,
            )
        stack.enter_context(_process([sys.executable, "-m", "standin", "web"], log, settings))
        if worker:
            role = "worker_with_beat" if line == "5.2" else "worker"
            stack.enter_context(_process([sys.executable, "-m", "standin", role], log, settings))
        wait_for(f"{url}/api/settings/")
        yield Local(url, EMAIL, PASSWORD, line, settings, log)


def main(arguments: list[str] | None = None) -> int:
    """Run one until Ctrl-C, or run a command with GLITCHTIP_URL, _EMAIL, _PASSWORD and _LINE in its
    environment."""
    parser = argparse.ArgumentParser(description="Run the GlitchTip stand-in without containers.")
    parser.add_argument("--line", default="5.2", choices=("5.2", "6.2"))
    parser.add_argument("--port", type=int)
    parser.add_argument("--no-valkey", action="store_true", help="PostgreSQL is queue and cache")
    parser.add_argument("--show-log", action="store_true", help="print the servers' log at the end")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="run this and end with its exit status")
    options = parser.parse_args(arguments)
    try:
        with running(options.line, options.port, valkey=not options.no_valkey) as local:
            if options.command:
                environment = {
                    **os.environ,
                    "GLITCHTIP_URL": local.url,
                    "GLITCHTIP_EMAIL": local.email,
                    "GLITCHTIP_PASSWORD": local.password,
                    "GLITCHTIP_LINE": local.line,
                    "GLITCHTIP_MAIL_LOG": str(local.log),
                    "GLITCHTIP_ALLOW_PRIVATE_IPS": "true",
                    "GLITCHTIP_UPTIME_ALLOW_PRIVATE_IPS": "true",
                }
                command = options.command[1:] if options.command[0] == "--" else options.command
                status = subprocess.run(command, env=environment, check=False).returncode
                if options.show_log:
                    print(local.log.read_text())
                return status
            print(f"{local.url}  {local.email}  {local.password}  (log: {local.log})", flush=True)
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                return 0
    except Unavailable as error:
        print(f"stand-in: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
