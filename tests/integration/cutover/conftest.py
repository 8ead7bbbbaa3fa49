"""A small product under a fake PM2, between two trackers; the real program is run as a zipapp."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from integration.cutover.fakes import show_process
from integration.cutover.tracker import FakeTracker
from integration.quick import made_once, npm

from glitchtip_cutover.api import Tracker
from glitchtip_cutover.bundle import bundle
from glitchtip_cutover.cli import main
from glitchtip_cutover.config import Config
from glitchtip_cutover.host import Host, real_host
from glitchtip_cutover.proof import Prober

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[2] / "src" / "glitchtip_cutover"
PM2 = "pm2@7.0.4"
OLD_KEY = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
NEW_KEY = "0123456789abcdef0123456789abcdef"
OTHER_SECRET = "canary-of-another-variable"
ENV_TEMPLATE = '# product\r\nPUBLIC_SENTRY_DSN=untouched\r\nSENTRY_DSN="{dsn}"  # tracker\r\nSECRET={secret}'


@dataclass
class World:
    """Paths, trackers and the program of one test."""

    root: Path
    shipped: Path
    old: FakeTracker
    new: FakeTracker
    settings: dict[str, Any] = field(default_factory=dict)
    output: list[str] = field(default_factory=list)

    @functools.cached_property
    def program(self) -> Path:
        """The program; it looks for processes where the fake PM2 shows them."""
        own = self.root / "ai-admin-cutover.pyz"
        with zipfile.ZipFile(self.shipped) as packed:
            members = {name: packed.read(name) for name in packed.namelist()}
        members["glitchtip_cutover/running.py"] += f"\nPROC = Path({str(self.root / 'proc')!r})\n".encode()
        own.write_bytes(self.shipped.read_bytes().splitlines(keepends=True)[0])
        own.chmod(0o755)
        with zipfile.ZipFile(own, "a") as packed:
            for name, data in members.items():
                packed.writestr(name, data)
        return own

    @property
    def env_file(self) -> Path:
        return self.root / "app" / ".env"

    @property
    def state_dir(self) -> Path:
        return self.root / "state"

    @property
    def pm2_home(self) -> Path:
        return self.root / "pm2"

    def write_config(self, **changes: Any) -> None:
        self.settings |= changes
        (self.root / "config.json").write_text(json.dumps(self.settings))

    def services(self) -> dict[str, Any]:
        return {entry["name"]: entry for entry in json.loads((self.pm2_home / "fake.json").read_text())}

    def change_service(self, service: str, **changes: Any) -> None:
        entries = self.services()
        details = changes.pop("pm2_env", {})
        entries[service] |= changes
        entries[service]["pm2_env"] |= details
        (self.pm2_home / "fake.json").write_text(json.dumps(list(entries.values())))
        show_process(self.pm2_home, entries[service])

    def calls(self) -> list[str]:
        log = self.pm2_home / "calls.log"
        return log.read_text().splitlines() if log.exists() else []

    def timers(self) -> list[list[str]]:
        log = self.root / "systemd.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.state_dir / "journal.jsonl").read_text().splitlines()]

    def command(self, name: str, *arguments: str) -> list[str]:
        foreground = ["--foreground"] if name in ("apply", "rollback") else []
        config = f"--config={self.root / 'config.json'}"
        return [sys.executable, "-I", str(self.program), name, "--json", config, *foreground, *arguments]

    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.root / 'bin'}:{os.environ['PATH']}"}

    def run(self, name: str, *arguments: str, code: int = 0, shipped: bool = False) -> dict[str, Any]:
        """Run a command, check its exit code, return its JSON document; ``shipped``: of the zipapp."""
        command = self.command(name, *arguments)
        if shipped:
            done = subprocess.run(command, capture_output=True, text=True, env=self.environment(), timeout=60)
            returned, out, err = done.returncode, done.stdout, done.stderr
        else:
            returned, out, err = self._run_here(command[3:])
        self.output += [out, err]
        assert returned == code, (returned, out, err)
        result = json.loads(out)
        assert isinstance(result, dict)
        return result

    def _run_here(self, arguments: list[str]) -> tuple[int, str, str]:
        handlers = {
            number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        out, err = io.StringIO(), io.StringIO()
        try:
            with (
                mock.patch.dict(os.environ, self.environment()),
                mock.patch("glitchtip_cutover.cli.real_host", impatient_host),
                mock.patch("glitchtip_cutover.running.PROC", self.root / "proc"),
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
            ):
                returned = main(arguments)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return returned, out.getvalue(), err.getvalue()


def impatient_host(config: Config, progress: Callable[[str], None]) -> Host:
    """The real host, but each wait between two looks is at most 20 ms."""

    def nap(seconds: float) -> None:
        time.sleep(min(seconds, 0.02))

    return dataclasses.replace(
        real_host(config, progress),
        sleep=nap,
        tracker=lambda side: Tracker(side, sleep=nap),
        prober=Prober(config, monotonic=time.monotonic, sleep=nap),
    )


def executable(path: Path, role: str) -> Path:
    log = f"FAKE_SYSTEMD_LOG={path.parents[1] / 'systemd.log'}"
    quick = 'if [ "$1" = jlist ]; then echo "[PM2] a notice"; exec cat "$PM2_HOME/fake.json"; fi'
    program = f'{log} exec {os.path.realpath(sys.executable)} -I -S {HERE / "fakes.py"} {role} "$@"'
    path.write_text(f"#!/bin/sh\n{quick if role == 'pm2' else ''}\n{program}\n")
    path.chmod(0o755)
    return path


def service(number: int, name: str, cwd: Path, **more: Any) -> dict[str, Any]:
    details = {
        "status": "online",
        "pm_uptime": 1,
        "restart_time": 0,
        "pm_cwd": str(cwd),
        "pm_exec_path": str(cwd / f"{name}.js"),
        "exec_interpreter": "node",
        "autorestart": True,
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        **more.pop("pm2_env", {}),
    }
    return {"name": name, "pm_id": number, "pid": 500 + number, "pm2_env": details, **more}


def answer(daemon: socket.socket) -> None:
    """Take every connection, until the socket is closed."""
    with contextlib.suppress(OSError):
        while True:
            daemon.accept()[0].close()


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """PM2, where another user can run it, too; a copy for each worker, of one installation."""

    def install(directory: Path) -> None:
        npm("install", "--global", f"--prefix={directory}", PM2, cwd=directory)

    made = made_once(tmp_path_factory, "pm2", install)
    directory = Path(tempfile.mkdtemp(prefix="cutover-pm2-"))
    shutil.copytree(made, directory, symlinks=True, copy_function=os.link, dirs_exist_ok=True)
    directory.chmod(0o755)
    yield directory / "bin" / "pm2"
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zipapp, built by the standard library from the sources."""
    target = tmp_path_factory.mktemp("program") / "ai-admin-cutover.pyz"
    target.write_bytes(bundle(SOURCE))
    return target


@pytest.fixture
def world(tmp_path: Path, program: Path) -> Iterator[World]:
    """Two services that report by themselves, a silent one, one that carries the DSN, a job, a module."""
    for name in ("app/src", "pm2", "bin", "secrets"):
        (tmp_path / name).mkdir(parents=True)
    with FakeTracker(key=OLD_KEY, project_id="7") as old, FakeTracker(key=NEW_KEY, project_id="3") as new:
        made = World(tmp_path, program, old, new)
        app = tmp_path / "app"
        (app / "src" / "instrument.js").write_text("// the fake node does not read it\n")
        made.env_file.write_text(ENV_TEMPLATE.format(dsn=old.dsn, secret=OTHER_SECRET), newline="")
        made.env_file.chmod(0o640)
        job = {"cron_restart": "0 3 * * *", "autorestart": False, "status": "stopped", "exit_code": 0}
        entries = [
            service(0, "api", app, fake_emits=True),
            service(1, "monitor", app, fake_emits=True),
            service(2, "silent", app),
            service(3, "carrier", app, pm2_env={"SENTRY_DSN": old.dsn}),
            service(4, "job", app, pm2_env=job),
            service(5, "pm2-logrotate", Path("/"), pm2_env={"pmx_module": True}),
        ]
        entries[4]["pid"] = 0
        (made.pm2_home / "fake.json").write_text(json.dumps(entries))
        for entry in entries:
            show_process(made.pm2_home, entry)
        for side, tracker in (("new", new), ("old", old)):
            (tmp_path / "secrets" / f"{side}.token").write_text(tracker.token)
        (tmp_path / "secrets" / "new.dsn").write_text(new.dsn)
        bin_directory = tmp_path / "bin"
        executable(bin_directory / "systemd-run", "systemd")
        executable(bin_directory / "systemctl", "systemd")
        made.write_config(
            migration_id="test",
            state_dir=str(made.state_dir),
            env_file=str(made.env_file),
            env_key="SENTRY_DSN",
            app_dir=str(app),
            instrument="src/instrument.js",
            pm2={
                "user": pwd.getpwuid(os.geteuid()).pw_name,
                "home": str(made.pm2_home),
                "binary": str(executable(bin_directory / "pm2", "pm2")),
                "node": str(executable(bin_directory / "node", "node")),
            },
            services=["api", "monitor", "silent", "carrier", "job"],
            without_sdk=["pm2-logrotate"],
            canary="monitor",
            strategy="one_by_one",
            service_tag="service",
            new={
                "dsn_file": str(tmp_path / "secrets" / "new.dsn"),
                "api_url": new.url,
                "organization": "ai-admin",
                "project": "ai-admin",
                "project_id": "3",
                "token_file": str(tmp_path / "secrets" / "new.token"),
            },
            old={
                "api_url": old.url,
                "organization": "ai-admin",
                "project": "ai-admin",
                "token_file": str(tmp_path / "secrets" / "old.token"),
            },
            own_event_wait=0.3,
            probe_wait=1,
            restart_wait=2,
            stable_seconds=0.1,
            confirm_window=600,
        )
        daemon = socket.socket(socket.AF_UNIX)
        daemon.bind(str(made.pm2_home / "rpc.sock"))
        daemon.listen(64)
        threading.Thread(target=answer, args=(daemon,), daemon=True).start()
        yield made
        daemon.close()
        for text in made.output:
            for secret in (OLD_KEY, NEW_KEY, OTHER_SECRET, old.token, new.token):
                assert secret not in text
