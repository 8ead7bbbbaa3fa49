"""An ordinary deploy with the real PM2 moves a service back: every command notices, and the documented deploy does not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from integration.cutover.test_real_pm2 import KEY, Host, running_host, without_job
from integration.cutover.tracker import FakeTracker

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="node and npm are not installed"
)
DOCS = Path(__file__).resolve().parents[3] / "docs" / "after_the_switch.md"
BOT = "ai-admin-telegram-bot"
#: One on which the deploy is tried, and one that stays as it is. (``test_real_pm2`` asks about all eight.)
SERVICES = (BOT, "ai-admin-booking-monitor")


@pytest.fixture
def host(tmp_path: Path, binary: Path, program: Path, installed: Path) -> Iterator[Host]:
    with running_host(tmp_path, binary, program, installed, SERVICES) as made:
        yield made


def switched(host: Host) -> None:
    host.run("snapshot")
    host.run("apply")
    host.run("confirm")


def drift(host: Host, code: int) -> list[str]:
    """What ``drift`` says, in which status has to agree; ``verify`` ends accordingly."""
    result = host.run("drift", code=code)
    assert host.run("status")["problems"] == result["problems"]
    found = [str(problem) for problem in result["problems"]]
    assert result["files"] > 0
    assert result["processes"] == len(host.services)
    return found


def reported(tracker: FakeTracker, service: str) -> int:
    """How many events of the service have arrived there."""
    return sum({"key": "service", "value": service} in event["tags"] for event in tracker.events)


def report_to_the_old_tracker(host: Host, *services: str) -> set[str]:
    """Seen from outside, those whose next event arrives there; three events at the new tracker, one each second, are an answer too."""
    known = {(tracker.key, name): reported(tracker, name) for tracker in (host.old, host.new) for name in services}
    old: set[str] = set()
    new: set[str] = set()
    end = time.monotonic() + 30
    while old | new != set(services):
        assert time.monotonic() < end, f"{set(services) - old - new} report to neither tracker"
        time.sleep(0.1)
        old |= {name for name in services if reported(host.old, name) > known[host.old.key, name]}
        new |= {name for name in services if reported(host.new, name) >= known[host.new.key, name] + 3} - old
    return old


def reports_to_the_old_tracker(host: Host) -> bool:
    return report_to_the_old_tracker(host, BOT) == {BOT}


@dataclass(frozen=True)
class Deploy:
    """An ecosystem file of one service, and how it is reloaded."""

    service: str
    script: str
    block: str
    mode: str
    arguments: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        return f"{self.script}.config.cjs"

    def write(self, host: Host, dsn: str) -> None:
        (host.root / "app" / self.file).write_text(
            f"module.exports = {{ apps: [{{\n  name: '{self.service}', script: 'src/services/{self.script}.js', cwd: __dirname,\n"
            f"  exec_mode: '{self.mode}',\n  {self.block}: {{ {KEY}: '{dsn}' }},\n}}] }};\n"
        )

    def note(self, host: Host) -> str:
        """What is said of it while it has the old DSN."""
        command = " ".join(["pm2 reload", self.file, *self.arguments])
        return (
            f"{host.root / 'app' / self.file}:4 {self.block}.{KEY} names {host.old.netloc}: `{command}` would move {self.service} back. "
            f"Set it to the DSN in {host.root / 'new.dsn'}, or remove it so that {host.env_file} counts"
        )


DEPLOYS = (
    Deploy(BOT, "telegram-bot", "env", "fork"),
    Deploy("ai-admin-booking-monitor", "booking-monitor", "env_production", "fork", ("--env", "production")),
    Deploy("baileys-whatsapp-service", "baileys-whatsapp", "env", "cluster"),
)


@dataclass
class Reloaded:
    """What each step of the walk below gave: sentences, and the services that then reported to the old tracker."""

    host: Host
    notes: list[list[str]]
    before: list[str]
    old_before: set[str]
    old_after: set[str]
    found: list[str]
    verified: list[str]
    mended: list[str]
    old_mended: set[str]


@pytest.fixture(scope="module")
def reloaded(
    tmp_path_factory: pytest.TempPathFactory, binary: Path, program: Path, installed: Path
) -> Iterator[Reloaded]:
    """A switch with three such files, a reload of each, and a reload of each after it was corrected."""
    services = tuple(each.service for each in DEPLOYS)

    def reload(dsn: str) -> None:
        for each in DEPLOYS:
            each.write(host, dsn)
            host.call("reload", each.file, *each.arguments)

    with running_host(tmp_path_factory.mktemp("reload"), binary, program, installed, services) as host:
        for each in DEPLOYS:
            each.write(host, host.old.dsn)
            if each.mode == "cluster":
                host.call("delete", each.service)
                host.call("start", each.file)
        host.run("snapshot")
        notes = [host.run("plan")["notes"], host.run("apply")["notes"]]
        host.run("confirm")
        before, old_before = drift(host, 1), report_to_the_old_tracker(host, *services)
        reload(host.old.dsn)
        old_after, found = report_to_the_old_tracker(host, *services), drift(host, 1)
        verified = host.run("verify", code=1)["problems"]
        reload(host.new.dsn)
        mended, old_mended = drift(host, 0), report_to_the_old_tracker(host, *services)
        yield Reloaded(host, notes, before, old_before, old_after, found, verified, mended, old_mended)


@pytest.mark.parametrize(
    ("block", "mode", "arguments"),
    [("env", "fork", ()), ("env_production", "fork", ("--env", "production")), ("env", "cluster", ())],
)
def test_a_reload_with_the_old_dsn_is_named_before_it_happens_and_noticed_after(
    reloaded: Reloaded, block: str, mode: str, arguments: tuple[str, ...]
) -> None:
    (deploy,) = [each for each in DEPLOYS if (each.block, each.mode, each.arguments) == (block, mode, arguments)]
    name, note = deploy.service, deploy.note(reloaded.host)

    def about(sentences: list[str]) -> list[str]:
        return [each for each in sentences if name in each]

    for notes in *reloaded.notes, reloaded.before:
        assert about(notes) == [note]
        assert len(notes) == len(DEPLOYS)
    assert name not in reloaded.old_before

    assert name in reloaded.old_after
    moved, again = about(reloaded.found)
    assert re.match(rf"{name} \(process \d+\) runs with {KEY} in its environment, which names 127.0.0.1:\d+, not", moved)
    assert again == note
    assert len(reloaded.found) == 2 * len(DEPLOYS)
    assert reloaded.verified[-len(reloaded.found) :] == reloaded.found

    assert reloaded.mended == []
    assert name not in reloaded.old_mended


def test_a_deploy_that_rewrites_env_is_noticed_and_a_new_apply_mends_it(host: Host) -> None:
    switched(host)
    assert drift(host, 0) == []
    host.env_file.write_text(host.env_file.read_text().replace(host.new.dsn, host.old.dsn))
    host.call("restart", BOT)
    assert reports_to_the_old_tracker(host)
    assert f"{host.env_file}:4 {KEY} names" in drift(host, 1)[0]
    switched(host)
    assert drift(host, 0) == []


def test_a_shell_that_exports_the_old_dsn_is_noticed(host: Host) -> None:
    switched(host)
    host.call("restart", BOT, "--update-env", **{KEY: host.old.dsn})
    assert reports_to_the_old_tracker(host)
    assert drift(host, 1)[0].startswith(f"{BOT} (process ")
    host.run("rollback")
    assert without_job(host.pm2.processes())[BOT].environment.get(KEY) in (None, host.old.dsn)
    assert drift(host, 0) == []


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCS.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", [0, 1])
def test_the_documented_deploy_keeps_the_switch(host: Host, number: int) -> None:
    """The ecosystem files and the script of docs/after_the_switch.md, run as they are there."""
    app, release, tools = host.root / "app", host.root / "release", host.root / "tools"
    for directory in (release, tools):
        directory.mkdir()
    (app / "ecosystem.config.cjs").write_text(blocks("js")[number])
    (app / "ecosystem.config.js").unlink()
    script = host.root / "deploy.sh"
    script.write_text(blocks("sh")[0])
    (release / ".env").write_text(host.env_file.read_text() + "NEW_SETTING=1\n")  # CI still knows the old DSN
    for name, text in (
        ("pm2", f'exec {host.binary} "$@"'),
        ("sudo", 'exec "$@"'),
        ("ai-admin-cutover", f'exec python3 -I {host.program} "$@" --config={host.root / "config.json"}'),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    environment = {
        "PATH": f"{tools}:{host.root / 'bin'}:{os.environ['PATH']}",
        "HOME": "/root", "PM2_HOME": str(host.home), "APP": str(app),
    }  # fmt: skip

    def deploy() -> int:
        return subprocess.run(
            ["sh", script, release], env=environment, capture_output=True, timeout=120, check=False
        ).returncode

    switched(host)
    assert deploy() == 0
    assert "NEW_SETTING=1" in host.env_file.read_text()
    assert drift(host, 0) == []
    assert not reports_to_the_old_tracker(host)

    # The control: the same deploy with the release's .env as it is ends with an error.
    script.write_text(re.sub(r"^\{ grep.*$", 'cat "$release/.env" > "$app/.env.part"', script.read_text(), flags=re.MULTILINE))
    assert deploy() == 1


def test_what_pm2_keeps_of_a_deleted_ecosystem_file_moves_no_service(host: Host) -> None:
    """Its saved list holds ``env_production`` for ever; neither a start by name nor its next boot reads it from there."""
    switched(host)
    deploy = next(each for each in DEPLOYS if each.block == "env_production")
    deploy.write(host, host.old.dsn)
    host.call("reload", deploy.file, *deploy.arguments)
    (host.root / "app" / deploy.file).unlink()
    assert report_to_the_old_tracker(host, deploy.service) == {deploy.service}
    switched(host)

    kept = {entry["name"]: entry for entry in json.loads((host.home / "dump.pm2").read_text())}
    assert kept[deploy.service][deploy.block] == {KEY: host.old.dsn}
    assert drift(host, 0) == []
    host.call("start", deploy.service, *deploy.arguments)
    assert report_to_the_old_tracker(host, deploy.service) == set()
    host.call("kill")
    host.call("resurrect")
    assert report_to_the_old_tracker(host, deploy.service) == set()
    assert drift(host, 0) == []
