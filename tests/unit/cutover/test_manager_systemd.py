"""Services that are units, over a systemctl that behaves as the real one was measured to."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from unit.cutover.simulation import PROCESSES

from glitchtip_cutover import systemd
from glitchtip_cutover.config_file import parse_config
from glitchtip_cutover.errors import CutoverError
from glitchtip_cutover.manager import Process, manager_for
from glitchtip_cutover.running import Running
from glitchtip_cutover.services import Services
from glitchtip_cutover.systemd import Systemd, parse_environment_file, parse_show, split_quoted

pytestmark = pytest.mark.slow

OLD = "http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@sentry.example.org/7"
NEW = "http://bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb@127.0.0.1:8080/3"
KEY = "SENTRY_DSN"


def unit(number: int, root: Path, **changes: Any) -> dict[str, Any]:
    made = {
        "active": "active",
        "pid": 100 + number,
        "restarts": 0,
        "began": int(time.monotonic() * 1e6),
        "cwd": str(root),
        "user": "root",
        "environment": {"A": "x y"},
        "files": [],
        **changes,
    }
    return {**made, "own_files": list(made["files"]), "loaded": made["environment"].get(KEY)}


class Host:
    """Units: one that reads .env itself, one by EnvironmentFile, one with the DSN in its text, one in another file, a job."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.env_file = root / ".env"
        self.env_file.write_text(f"{KEY}={OLD}\n")
        (root / "other.env").write_text(f"{KEY}={OLD}\nB=1\n")
        self.units = root / "units"
        (self.units / "bin").mkdir(parents=True)
        (self.units / "state").write_text("running\n")
        table = {
            "reads.service": unit(1, root),
            "file.service": unit(2, root, files=[str(self.env_file)]),
            "text.service": unit(3, root, environment={"A": "x y", KEY: OLD}),
            "other.service": unit(4, root, files=[str(root / "other.env")]),
            "job.service": unit(5, root, type="oneshot", timer="job.timer", active="inactive", pid=0),
        }
        (self.units / "units.json").write_text(json.dumps(table))
        program = self.units / "bin" / "systemctl"
        fake = Path(__file__).with_name("fake_systemctl.py")
        program.write_text(f'#!/bin/sh\nFAKE_UNITS={self.units} exec {sys.executable} -I -S {fake} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{self.units / 'bin'}:{os.environ['PATH']}")
        self.config = parse_config(
            {
                "migration_id": "m",
                "manager": "systemd",
                "state_dir": str(root / "state"),
                "env_file": str(self.env_file),
                "app_dir": str(root),
                "systemd": {"node": "/usr/bin/node"},
                "services": ["reads", "file", "text", "other", "job"],
            },
            root / "config.json",
        )
        self.manager = Systemd(self.config, units=self.units, runtime=root)

    def table(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.units / "units.json").read_text())
        return data

    def change(self, name: str, **changes: Any) -> None:
        table = self.table()
        table[name] |= changes
        (self.units / "units.json").write_text(json.dumps(table))

    def calls(self, command: str) -> list[str]:
        lines = (self.units / "calls.log").read_text().splitlines()
        return [line for line in lines if line.split()[0] == command]

    def processes(self) -> dict[str, Process]:
        return {process.name: process for process in self.manager.processes()}

    def services(self) -> Services:
        return Services(self.config, self.manager, monotonic=time.monotonic, sleep=lambda _: None)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_units_are_read_as_services(host: Host) -> None:
    found = host.processes()
    assert list(found) == ["reads", "file", "text", "other", "job"]
    assert all(process.healthy for process in found.values())
    assert found["job"].idle_job
    assert abs(found["reads"].started_at - time.time()) < 20
    assert found["reads"].command == ("/usr/bin/node", "--import", "./a.mjs", "src/x.js")
    assert [name for name, process in found.items() if process.watches_files] == ["other"]
    assert found["reads"].environment["A"] == "x y"
    assert found["reads"].counter_resets


def test_only_a_dsn_that_env_cannot_change_counts_as_carried(host: Host) -> None:
    found = host.processes()
    assert {name: process.environment.get(KEY) for name, process in found.items()} == {
        "reads": None,
        "file": None,
        "text": OLD,
        "other": OLD,
        "job": None,
    }


def switch(host: Host, dsn: str) -> None:
    host.env_file.write_text(f"{KEY}={dsn}\n")
    services = host.services()
    assert services.restart_together(dict.fromkeys(host.config.services, dsn)) == {}
    for name in host.config.services:
        services.wait_online(name)


def test_all_units_are_restarted_by_one_call_and_carriers_are_switched(host: Host) -> None:
    switch(host, NEW)
    assert host.calls("restart") == ["restart -- reads.service file.service text.service other.service"]
    assert len(host.calls("daemon-reload")) == 1
    table = host.table()
    assert [table[f"{name}.service"]["loaded"] for name in ("file", "text", "other")] == [NEW] * 3
    assert host.processes()["text"].environment[KEY] == NEW


def test_the_dsn_stands_in_no_file_that_others_may_read(host: Host) -> None:
    switch(host, NEW)
    drop_in = host.units / "text.service.d" / "90-ai-admin-cutover.conf"
    assert NEW not in drop_in.read_text()
    holders = [
        path for path in host.root.rglob("*") if path.is_file() and NEW in path.read_text(errors="replace")
    ]
    ours = [path for path in holders if path.is_relative_to(host.config.state_dir)]
    assert len(ours) == 2
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in ours)
    assert all(NEW not in call for call in (host.units / "calls.log").read_text().splitlines())


def test_the_way_back_leaves_no_drop_in(host: Host) -> None:
    """The unit gives the old value by itself, so nothing of ours is needed any more."""
    switch(host, NEW)
    switch(host, OLD)
    assert not list(host.units.glob("*.d"))
    assert not list((host.config.state_dir / "systemd").glob("*"))
    assert host.table()["text.service"]["loaded"] == OLD
    assert host.table()["other.service"]["loaded"] == OLD


def test_before_the_units_start_at_boot_the_files_are_mended_without_systemd(host: Host) -> None:
    switch(host, NEW)
    before = (host.units / "calls.log").read_text()
    values = dict.fromkeys(host.config.services, OLD)
    assert host.manager.rewrite_dump(KEY, values) == ["other", "text"]
    assert host.manager.rewrite_dump(KEY, values) == []
    assert (host.units / "calls.log").read_text() == before
    host.manager.restart_together(
        [(process, None) for process in host.processes().values() if not process.cron_job]
    )
    assert host.table()["text.service"]["loaded"] == OLD


def test_a_restart_at_boot_would_wait_for_itself(host: Host) -> None:
    (host.units / "state").write_text("starting\n")
    assert host.manager.running
    for name in ("reads", "file", "text", "other"):
        host.change(f"{name}.service", active="inactive", pid=0)
    assert not host.manager.running
    (host.units / "state").write_text("degraded\n")
    assert host.manager.running


def test_the_counter_of_automatic_restarts_starts_anew_with_a_restart_that_was_asked_for(host: Host) -> None:
    host.change("reads.service", restarts=4)
    services = host.services()
    services.restart_together({"reads": OLD})
    services.wait_online("reads")
    host.change("reads.service", restarts=1)
    with pytest.raises(CutoverError, match="reads is not stable"):
        services.wait_stable(["reads"])


def test_a_unit_that_does_not_start_is_named_and_the_others_are_watched(host: Host) -> None:
    host.change("file.service", dies=True)
    services = host.services()
    failed = services.restart_together(dict.fromkeys(("reads", "file"), OLD))
    assert {name: str(error) for name, error in failed.items()} == {
        "file": "systemctl restart of file failed"
    }
    assert set(services.watched) == {"reads"}


def test_variables_that_cannot_be_written_keep_no_other_unit_from_its_restart(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise CutoverError("cannot write the file: No space left on device")

    monkeypatch.setattr(systemd, "write_over", full)
    failed = host.services().restart_together(dict.fromkeys(("reads", "file", "text"), NEW))
    assert {name: str(error) for name, error in failed.items()} == {
        "text": "the variables of text cannot be written: cannot write the file: No space left on device"
    }
    assert host.calls("restart") == ["restart -- reads.service file.service"]


def test_a_unit_that_is_not_installed_is_not_listed(host: Host) -> None:
    table = host.table()
    del table["reads.service"]
    (host.units / "units.json").write_text(json.dumps(table))
    assert "reads" not in host.processes()


def running(pid: int, root: Path, node: Path, **environment: str) -> Running:
    """A unit's process as the kernel shows it."""
    argv = (str(node), "--import", "./a.mjs", "src/x.js")
    identity = (os.geteuid(), os.getegid())
    return Running(pid, 1, 0.0, argv, str(node), str(root), environment, *identity)


def test_a_probe_gets_what_the_unit_s_process_has(host: Host, tmp_path: Path) -> None:
    """Its Node.js, directory, options and environment; for a job that rests what systemd would give it."""
    node = tmp_path / "node"
    node.write_text(f'#!/bin/sh\necho "$PWD $A $B ${KEY} $*"\n')
    node.chmod(0o755)
    config = parse_config({**host.config.document, "systemd": {"node": str(node)}}, tmp_path / "c")
    manager = Systemd(config, units=host.units, runtime=tmp_path)
    processes = {process.name: process for process in manager.processes()}
    PROCESSES[processes["text"].pid] = running(
        processes["text"].pid, host.root, node, A="x y", NOTIFY_SOCKET="/run/x", **{KEY: NEW}
    )
    launch = manager.launch(processes["text"])
    assert "NOTIFY_SOCKET" not in launch.environment
    out = manager.run_launch(processes["text"], launch, "--import=data:,", 10).output.split()
    assert out == [str(host.root), "x", "y", NEW, "--import", "./a.mjs", "--import=data:,", "src/x.js"]
    launch = manager.launch(processes["job"])
    out = manager.run_launch(processes["job"], launch, "--import=data:,", 10).output.split()
    assert out == [str(host.root), "x", "y", "--import", "./a.mjs", "--import=data:,", "src/x.js"]
    assert not (host.units / "calls.log").read_text().count("restart")


def test_a_value_that_systemd_hands_on_from_its_own_environment_counts_as_carried(host: Host) -> None:
    """``systemctl set-environment``: no setting of the unit shows it, only the process."""
    for name in ("reads", "file"):
        pid = host.processes()[name].pid
        PROCESSES[pid] = running(pid, host.root, Path("/usr/bin/node"), **{KEY: OLD})
    found = host.processes()
    assert found["reads"].environment.get(KEY) == OLD
    assert found["file"].environment.get(KEY) is None, "EnvironmentFile= gives it, and is read anew at each start"


def test_what_systemctl_prints_is_read() -> None:
    assert split_quoted(r'A=1 "B=x y" "C=say \"hi\" \\ \$x" D=') == ["A=1", "B=x y", 'C=say "hi" \\ $x', "D="]
    assert parse_show("Id=a\nX=1=2\n\nId=b\nX=\nX=3\n") == [
        {"Id": ["a"], "X": ["1=2"]},
        {"Id": ["b"], "X": ["", "3"]},
    ]
    assert parse_environment_file("# c\n; d\nA=1\nB = 'x y'\nA=2\nbroken\n") == {"A": "2", "B": "x y"}


def test_the_configuration_names_the_manager(host: Host) -> None:
    assert isinstance(manager_for(host.config), Systemd)
