"""The switch on the real PM2 and the real SDK: eight services of the sample product (node, npm)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from integration.cutover.conftest import NEW_KEY, OLD_KEY, executable
from integration.cutover.tracker import FakeTracker
from integration.quick import zipapp

from glitchtip_core.pm2 import find_daemons
from glitchtip_cutover.config import Pm2Settings
from glitchtip_cutover.errors import CutoverError
from glitchtip_cutover.manager import Process
from glitchtip_cutover.pm2 import Pm2

KEY = "SENTRY_DSN"
CARRIER = "whatsapp-backup-service"
JOB = "ai-admin-batch-processor"
SERVICES = (
    "ai-admin-api",
    "ai-admin-worker-v2",
    JOB,
    "ai-admin-telegram-bot",
    "ai-admin-booking-monitor",
    "baileys-whatsapp-service",
    CARRIER,
    "whatsapp-safe-monitor",
)

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="node and npm are not installed"
)


@dataclass
class Host:
    """Services of the sample product under a PM2 of their own."""

    root: Path
    binary: Path
    program: Path
    old: FakeTracker
    new: FakeTracker
    services: tuple[str, ...]

    @property
    def home(self) -> Path:
        return self.root / "pm2"

    @property
    def env_file(self) -> Path:
        return self.root / "app" / ".env"

    @property
    def pm2(self) -> Pm2:
        return Pm2(Pm2Settings("root", self.home, self.binary, Path(shutil.which("node") or "/usr/bin/node")))

    def call(self, *arguments: str, **variables: str) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": "/root", "PM2_HOME": str(self.home), **variables}
        return subprocess.run(
            [self.binary, *arguments], cwd=self.root / "app", env=environment, capture_output=True, text=True,
            check=True, timeout=120,
        ).stdout  # fmt: skip

    def run(self, command: str, *arguments: str, code: int = 0) -> dict[str, Any]:
        foreground = ["--foreground"] if command in ("apply", "rollback") else []
        done = subprocess.run(
            [*zipapp(self.program), command, "--json", f"--config={self.root / 'config.json'}", *foreground, *arguments],
            capture_output=True,
            text=True,
            env={"PATH": f"{self.root / 'bin'}:{os.environ['PATH']}"},
            timeout=180,
        )  # fmt: skip
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert not any(secret in done.stdout + done.stderr for secret in (OLD_KEY, NEW_KEY, self.new.token))
        result = json.loads(done.stdout)
        assert isinstance(result, dict)
        return result

    def write_config(self, **changes: Any) -> None:
        side = {"organization": "ai-admin", "project": "ai-admin"}
        settings = {
            "migration_id": "real",
            "state_dir": str(self.root / "state"),
            "env_file": str(self.env_file),
            "app_dir": str(self.root / "app"),
            "pm2": {"user": "root", "home": str(self.home), "binary": str(self.binary), "node": shutil.which("node")},
            "services": list(self.services),
            "canary": "",
            "strategy": "all_at_once",
            "new": {**side, "api_url": self.new.url, "project_id": "3", "dsn_file": str(self.root / "new.dsn"),
                    "token_file": str(self.root / "new.token")},
            "old": {**side, "api_url": self.old.url, "token_file": str(self.root / "old.token")},
            "own_event_wait": 6,
            "stable_seconds": 1,
            "watch": {"seconds": 0},
            **changes,
        }  # fmt: skip
        (self.root / "config.json").write_text(json.dumps(settings))


@contextlib.contextmanager
def running_host(
    tmp_path: Path, binary: Path, program: Path, installed: Path, services: tuple[str, ...]
) -> Iterator[Host]:
    """A host with these services, which report to the old tracker; all of it is stopped at the end."""
    app = tmp_path / "app"
    shutil.copytree(installed, app, ignore=shutil.ignore_patterns("node_modules"))
    (app / "node_modules").symlink_to(installed / "node_modules")
    (tmp_path / "bin").mkdir()
    for name in ("systemd-run", "systemctl"):
        executable(tmp_path / "bin" / name, "systemd")
    with FakeTracker(key=OLD_KEY, project_id="7") as old, FakeTracker(key=NEW_KEY, project_id="3") as new:
        made = Host(tmp_path, binary, program, old, new, services)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        made.env_file.write_text(
            f"NODE_ENV=production\nPORT={port}\nSENTRY_ENABLED=true\n{KEY}={old.dsn}\n"
            f"AI_ADMIN_EVENT_INTERVAL_MS=1000\nAI_ADMIN_LEDGER={tmp_path / 'ledger.jsonl'}\n"
            f"AI_ADMIN_SPOOL={tmp_path / 'spool'}\n"
        )
        for name, text in (("old.token", old.token), ("new.token", new.token), ("new.dsn", new.dsn)):
            (tmp_path / name).write_text(text)
        made.write_config()
        carrier = CARRIER if CARRIER in services else ""
        try:
            made.call("start", "ecosystem.config.js", "--only", ",".join(services), AI_ADMIN_DSN_IN_PM2_ENV=carrier)
            wait_until(lambda: all(process.healthy for process in made.pm2.processes()))
            assert {process.name for process in made.pm2.processes()} == set(services)
            assert new.events == []
            yield made
        finally:
            made.call("kill")


@pytest.fixture
def host(tmp_path: Path, binary: Path, program: Path, installed: Path) -> Iterator[Host]:
    """All eight."""
    with running_host(tmp_path, binary, program, installed, SERVICES) as made:
        yield made


@pytest.fixture
def carrier_host(tmp_path: Path, binary: Path, program: Path, installed: Path) -> Iterator[Host]:
    """The one that carries the DSN in PM2's environment, alone."""
    with running_host(tmp_path, binary, program, installed, (CARRIER,)) as made:
        yield made


def wait_until(done: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def without_job(processes: list[Process]) -> dict[str, Process]:
    return {process.name: process for process in processes if not process.cron_job}


def test_a_dsn_in_pm2_s_stored_environment_is_detected_fixed_and_proven(host: Host) -> None:
    """There and back; each service is restarted once, and the saved list holds the value that stands."""
    before = without_job(host.pm2.processes())
    assert before[CARRIER].environment[KEY] == host.old.dsn
    host.run("snapshot")
    plan = {row["name"]: row for row in host.run("plan")["services"]}
    assert KEY in plan[CARRIER]["action"]
    assert plan["ai-admin-api"]["action"] == "restart"

    applied = host.run("apply")
    rows = {row["name"]: row for row in applied["services"]}
    stored = {event["eventID"] for event in host.new.events}
    assert set(rows) == set(SERVICES)
    assert all(row["event_id"] in stored for row in rows.values())
    assert (rows[CARRIER]["proof"], rows["ai-admin-api"]["proof"]) == ("probe", "own_event")
    after = without_job(host.pm2.processes())
    assert after[CARRIER].environment[KEY] == host.new.dsn
    assert {name: after[name].restarts - before[name].restarts for name in before} == dict.fromkeys(before, 1)
    changed = {
        key
        for key in {*before[CARRIER].environment, *after[CARRIER].environment}
        if before[CARRIER].environment.get(key) != after[CARRIER].environment.get(key)
    }
    assert KEY in changed
    assert {name for name in changed if name.isupper()} <= {KEY, "PM2_HOME", "PM2_USAGE"}
    assert host.new.dsn in (host.home / "dump.pm2").read_text()
    host.run("confirm")
    drift = host.run("drift")
    assert (drift["problems"], drift["processes"] >= len(before)) == ([], True)

    back = host.run("rollback")
    print(
        "seconds to the last restart:", back["seconds_to_last_restart"], "with proof:", back["seconds_proof"]
    )
    assert without_job(host.pm2.processes())[CARRIER].environment[KEY] == host.old.dsn
    assert NEW_KEY not in (host.home / "dump.pm2").read_text()


def test_a_plain_restart_keeps_the_stored_dsn(carrier_host: Host) -> None:
    """The negative control of the test above: without the value set anew the carrier stays where it was."""
    host = carrier_host
    carrier = without_job(host.pm2.processes())[CARRIER]
    host.env_file.write_text(host.env_file.read_text().replace(host.old.dsn, host.new.dsn))
    host.pm2.restart_together([(carrier, None)])
    assert without_job(host.pm2.processes())[CARRIER].environment[KEY] == host.old.dsn
    host.pm2.restart_together([(carrier, {KEY: host.new.dsn})])
    assert without_job(host.pm2.processes())[CARRIER].environment[KEY] == host.new.dsn


def test_eight_services_stop_together_although_their_tracker_hangs(host: Host) -> None:
    """Each needs seconds to stop, as its SDK still sends; one after the other they would need the sum."""
    with socket.socket() as hanging:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen(512)
        dsn = f"http://{NEW_KEY}@127.0.0.1:{hanging.getsockname()[1]}/3"
        host.env_file.write_text(host.env_file.read_text().replace(host.old.dsn, dsn))
        host.pm2.restart_together(
            [(one, {KEY: dsn} if KEY in one.environment else None) for one in without_job(host.pm2.processes()).values()]
        )  # fmt: skip
        time.sleep(3)
        before = without_job(host.pm2.processes())
        began = time.monotonic()
        host.pm2.restart(before["ai-admin-api"])
        alone = time.monotonic() - began
        began = time.monotonic()
        host.pm2.restart_together(
            [(one, {KEY: host.old.dsn} if KEY in one.environment else None) for one in before.values()]
        )
        together = time.monotonic() - began
    after = without_job(host.pm2.processes())
    print(f"one {alone:.1f} s, {len(before)} together {together:.1f} s")
    assert all(after[name].pid != before[name].pid and after[name].online for name in before)
    grown = {name: after[name].restarts - before[name].restarts for name in before}
    assert grown == {**dict.fromkeys(before, 1), "ai-admin-api": 2}
    assert together < max(10.0, 3 * alone)


def spawned(home: Path) -> bool:
    return any(Path(each.home) == home for each in find_daemons())


def test_no_daemon_is_ever_spawned(tmp_path: Path, binary: Path) -> None:
    """Not when none runs, and not when it vanishes between the look and the call; plain PM2 would start one."""
    settings = Pm2Settings("root", tmp_path / "none", binary, Path(shutil.which("node") or ""))
    with pytest.raises(CutoverError, match="PM2 of user root does not run: nothing answers on"):
        Pm2(settings).processes()
    assert not (tmp_path / "none").exists()

    with pytest.MonkeyPatch.context() as vanished:  # it was there a moment ago
        vanished.setattr("glitchtip_core.pm2.check_daemon", lambda _access: 1)
        for call in (Pm2(settings).processes, Pm2(settings).save):
            with pytest.raises(CutoverError, match="went away while it was asked"):
                call()
    time.sleep(1)
    assert not spawned(tmp_path / "none")

    environment = {"PATH": os.environ["PATH"], "HOME": "/root", "PM2_HOME": str(tmp_path / "plain")}
    subprocess.run([binary, "jlist"], env=environment, capture_output=True, timeout=60, check=True)
    try:
        assert spawned(tmp_path / "plain")
        with pytest.raises(CutoverError, match=r"PM2 runs here as user root \(PM2_HOME .*plain\)"):
            Pm2(settings).processes()
    finally:
        subprocess.run([binary, "kill"], env=environment, capture_output=True, timeout=60, check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start PM2 as somebody else")
def test_pm2_of_another_user_is_refused_in_one_sentence(binary: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="cutover-home-"))
    shutil.chown(home, "nobody")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PM2_HOME": str(home)}
    as_nobody = {"env": environment, "cwd": "/", "user": "nobody", "capture_output": True, "timeout": 60}
    subprocess.run([binary, "ping"], check=True, **as_nobody)  # type: ignore[call-overload]
    node = Path(shutil.which("node") or "")
    try:
        with pytest.raises(CutoverError) as caught:
            Pm2(Pm2Settings("root", home, binary, node)).processes()
        assert (
            str(caught.value)
            == f"PM2 at {home} runs as user nobody, not as root: set the user of PM2 to nobody"
        )
        assert Pm2(Pm2Settings("nobody", home, binary, node)).processes() == []
    finally:
        subprocess.run([binary, "kill"], check=True, **as_nobody)  # type: ignore[call-overload]
        shutil.rmtree(home, ignore_errors=True)
