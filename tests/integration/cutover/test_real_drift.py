"""An ordinary deploy with the real PM2 moves a service back: every command notices, and the documented deploy does not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.cutover.test_real_pm2 import KEY, Host, running_host, without_job
from integration.cutover.tracker import FakeTracker

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="node and npm are not installed"
)
DOCS = Path(__file__).resolve().parents[3] / "docs" / "after_the_switch.md"
BOT = "ai-admin-telegram-bot"
FILE = "deploy.config.cjs"
#: One on which the deploy is tried, and one that stays as it is. (``test_real_pm2`` asks about all eight.)
SERVICES = (BOT, "ai-admin-booking-monitor")


@pytest.fixture
def host(tmp_path: Path, binary: Path, program: Path, installed: Path) -> Iterator[Host]:
    with running_host(tmp_path, binary, program, installed, SERVICES) as made:
        yield made


def ecosystem(block: str, dsn: str, mode: str = "fork") -> str:
    return (
        f"module.exports = {{ apps: [{{\n  name: '{BOT}', script: 'src/services/telegram-bot.js', cwd: __dirname,\n"
        f"  exec_mode: '{mode}',\n  {block}: {{ {KEY}: '{dsn}' }},\n}}] }};\n"
    )


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
    assert result["processes"] == len(SERVICES)
    return found


def reports_to_the_old_tracker(host: Host) -> bool:
    """Seen from outside: where do the next events of the service arrive? One each second; three are enough for the new one."""
    known = {tracker.key: reported(tracker) for tracker in (host.old, host.new)}
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if reported(host.old) > known[host.old.key]:
            return True
        if reported(host.new) >= known[host.new.key] + 3:
            return False
        time.sleep(0.1)
    raise AssertionError(f"{BOT} reports to neither tracker")


def reported(tracker: FakeTracker) -> int:
    """How many events of the service have arrived there."""
    return sum({"key": "service", "value": BOT} in event["tags"] for event in tracker.events)


@pytest.mark.parametrize(
    ("block", "mode", "arguments"),
    [("env", "fork", ()), ("env_production", "fork", ("--env", "production")), ("env", "cluster", ())],
)
def test_a_reload_with_the_old_dsn_is_named_before_it_happens_and_noticed_after(
    host: Host, block: str, mode: str, arguments: tuple[str, ...]
) -> None:
    if mode == "cluster":
        host.call("delete", BOT)
    path = host.root / "app" / FILE
    path.write_text(ecosystem(block, host.old.dsn, mode))
    if mode == "cluster":
        host.call("start", FILE, "--only", BOT)
    host.run("snapshot")
    command = " ".join(["pm2 reload", FILE, *arguments])
    for note in host.run("plan")["notes"], host.run("apply")["notes"]:
        text = (
            f"{path}:4 {block}.{KEY} names {host.old.dsn.split('@')[1].split('/')[0]}: `{command}` would move {BOT} back. "
            f"Set it to the DSN in {host.root / 'new.dsn'}, or remove it so that {host.env_file} counts"
        )
        assert note == [text]
    host.run("confirm")
    assert drift(host, 1) == note
    assert not reports_to_the_old_tracker(host)

    host.call("reload", FILE, *arguments)
    assert reports_to_the_old_tracker(host)
    found = drift(host, 1)
    assert len(found) == 2
    assert re.match(rf"{BOT} \(process \d+\) runs with {KEY} in its environment, which names 127.0.0.1:\d+, not", found[0])
    assert host.run("verify", code=1)["problems"][-2:] == found

    path.write_text(ecosystem(block, host.new.dsn, mode))
    host.call("reload", FILE, *arguments)
    assert drift(host, 0) == []
    assert not reports_to_the_old_tracker(host)


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
