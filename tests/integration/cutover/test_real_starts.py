"""Services that are started in other ways than the rest, on the real PM2 and the real SDK: found, or switched and proven."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.cutover.test_real_pm2 import KEY, Host, running_host, wait_until

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="node and npm are not installed"
)
#: Reports nothing by itself.
SILENT = "whatsapp-safe-monitor"
#: That one, on which the starts are tried, and one that reports.
SERVICES = (SILENT, "baileys-whatsapp-service")
#: It reports each second, so a service that was not heard for so long is probed.
SETTINGS = {"own_event_wait": 4}


@pytest.fixture
def host(tmp_path: Path, binary: Path, program: Path, installed: Path) -> Iterator[Host]:
    with running_host(tmp_path, binary, program, installed, SERVICES) as made:
        made.write_config(**SETTINGS)
        yield made


def start(host: Host, *words: str) -> None:
    """Start the silent service with these words instead."""
    host.call("delete", SILENT)
    host.call("start", *words)
    wait_until(lambda: all(process.healthy for process in host.pm2.processes()))


def instances(host: Host) -> list[tuple[int, str]]:
    """Number of processes of the silent service, and the hosts of their DSNs: one row, whatever its number."""
    rows = host.run("status")["services"]
    return [(row["instances"], row["process_dsn_host"]) for row in rows if row["name"] == SILENT]


def test_a_dsn_of_pm2_s_daemon_in_cluster_mode_is_switched_and_taken_back(host: Host) -> None:
    """PM2's list does not show it, a plain restart keeps it, and the SDK of every worker uses it."""
    host.call("save")
    host.call("kill")
    host.call("resurrect", **{KEY: host.old.dsn})
    start(host, "src/services/whatsapp-safe-monitor.js", "-i", "2", "--name", SILENT)
    host.run("snapshot")
    plan = {row["name"]: row for row in host.run("plan")["services"]}
    assert KEY in plan[SILENT]["action"]
    rows = {row["name"]: row for row in host.run("apply")["services"]}
    assert rows[SILENT]["proof"] == "probe"
    assert instances(host) == [(2, host.new.netloc)]
    host.run("confirm")
    host.run("rollback")
    assert instances(host) == [(2, host.old.netloc)]


def esm(host: Host) -> tuple[str, ...]:
    """An ES module that loads an instrument file of its own, with the DSN in it."""
    app = host.root / "app"
    sdk = "import * as Sentry from '@sentry/node';\n"
    (app / "own.mjs").write_text(f"{sdk}Sentry.init({{ dsn: '{host.old.dsn}' }});\n")
    (app / "quiet.mjs").write_text("setInterval(() => {}, 60000);\n")
    return ("quiet.mjs", "--name", SILENT, "--node-args", "--import ./own.mjs")


def npm_start(host: Host) -> tuple[str, ...]:
    """``npm start`` with variables from another file."""
    directory = host.root / "npm"
    directory.mkdir()
    (directory / "node_modules").symlink_to(host.root / "app" / "node_modules")
    (directory / "other.env").write_text(f"{KEY}={host.old.dsn}\n")
    script = host.root / "app" / "src" / "services" / "whatsapp-safe-monitor.js"
    run = f"DOTENV_CONFIG_PATH=other.env node -r dotenv/config {script}"
    (directory / "package.json").write_text(f'{{"scripts": {{"start": "{run}"}}}}')
    return ("npm", "--name", SILENT, "--cwd", str(directory), "--", "start")


@pytest.mark.parametrize("way", [esm, npm_start])
def test_a_start_that_keeps_the_old_dsn_takes_the_switch_back(host: Host, way: object) -> None:
    assert callable(way)
    start(host, *way(host))
    host.run("snapshot")
    result = host.run("apply", code=3)
    assert f"{SILENT} would still report to {host.old.netloc}" in result["reason"]
    assert host.old.dsn in Path(host.env_file).read_text()


def test_without_an_old_tracker_code_that_sets_the_dsn_is_found_before_the_switch(host: Host) -> None:
    """The service talks, and nobody can hear it where it does."""
    name = "baileys-whatsapp"
    file = host.root / "app" / "src" / "services" / f"{name}.js"
    file.write_text(f"process.env.{KEY} = '{host.old.dsn}';\n{file.read_text()}")
    host.call("restart", f"{name}-service")
    host.write_config(**SETTINGS, old={})
    host.run("snapshot")
    result = host.run("apply", code=1)
    assert f"{name}.js:1 changes settings before the instrument file is loaded" in result["reason"]
    assert host.new.events == []
