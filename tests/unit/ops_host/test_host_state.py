"""PM2 is asked only when its daemon answers; jobs may be stopped."""

from __future__ import annotations

import getpass
import json
import socket
import sys
from pathlib import Path

import pytest

from glitchtip_ops.host_state import parse_pm2_list, read_cpu, read_disk, read_pm2
from glitchtip_ops.process import OpsError

MIB = 2**20


def test_the_disk_of_a_path_that_does_not_exist_yet_is_its_parents(tmp_path: Path) -> None:
    disk = read_disk(tmp_path / "a" / "b")
    assert disk.path == str(tmp_path)
    assert 0 <= disk.percent <= 100


def entry(name: str, status: str, **details: object) -> dict[str, object]:
    pid = 7 if status == "online" else 0
    return {"name": name, "pid": pid, "pm2_env": {"status": status, "restart_time": 2, **details}}


def test_the_list_is_read_behind_notices_and_secrets_are_left_out() -> None:
    job = {"cron_restart": "0 4 * * *", "autorestart": False}
    listed = [
        entry("api", "online", SENTRY_DSN="http://secret@x/1"),
        entry("batch", "stopped", **job),
        entry("bad-batch", "errored", **job),
        entry("halted", "stopped"),
    ]
    found = parse_pm2_list(">>>> In-memory PM2 is out-of-date\n[PM2] notice\n" + json.dumps(listed))
    assert [(process.name, process.well) for process in found] == [
        ("api", True),
        ("batch", True),
        ("bad-batch", False),
        ("halted", False),
    ]
    assert "secret" not in repr(found)


@pytest.mark.parametrize("text", ["", "[PM2] nothing", '[{"name": "a"}]', '{"name": 1}'])
def test_other_output_is_refused(text: str) -> None:
    with pytest.raises(OpsError):
        parse_pm2_list(text)


def test_pm2_is_not_called_when_its_daemon_does_not_answer(tmp_path: Path) -> None:
    called = tmp_path / "called"
    binary = tmp_path / "pm2"
    binary.write_text(f"#!/bin/sh\ntouch {called}\necho '[]'\n")
    binary.chmod(0o755)
    with pytest.raises(OpsError, match=r"^PM2 of user .* does not run"):
        read_pm2(getpass.getuser(), str(tmp_path), str(binary), "")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "rpc.sock"))
    stale.close()
    with pytest.raises(OpsError, match=r"^PM2 of user .* does not run"):
        read_pm2(getpass.getuser(), str(tmp_path), str(binary), "")
    assert not called.exists()


def test_pm2_is_called_with_its_home(tmp_path: Path) -> None:
    binary = tmp_path / "pm2"
    binary.write_text(
        f"#!{sys.executable}\nimport json, os, sys\nassert sys.argv[1:] == ['jlist']\n"
        "print(json.dumps([{'name': os.environ['PM2_HOME'], 'pid': 1, 'pm2_env': {'status': 'online'}}]))\n"
    )
    binary.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(tmp_path / "rpc.sock"))
        daemon.listen()
        assert [process.name for process in read_pm2(getpass.getuser(), str(tmp_path), str(binary), "")] == [
            str(tmp_path)
        ]
        with pytest.raises(OpsError, match="there is no user"):
            read_pm2("nobody-such", str(tmp_path), str(binary), "")


def cpu_files(root: Path, stat: str, load: str = "0.50 0.40 0.30 1/100 42\n") -> Path:
    (root / "stat").write_text(stat)
    (root / "loadavg").write_text(load)
    return root


def test_cpu_time_is_that_of_all_cores_with_waiting_for_disks_as_idle(tmp_path: Path) -> None:
    first = read_cpu(cpu_files(tmp_path, "cpu  100 10 50 800 20 5 5 10 99 99\ncpu0 1 1 1 1 1 1 1 1 1 1\n"))
    assert (first.busy, first.total, first.load1, first.load5) == (180, 1000, 0.5, 0.4)
    assert first.cores >= 1
    later = read_cpu(cpu_files(tmp_path, "cpu  175 10 50 925 20 5 5 10 0 0\n"))
    assert later.percent_since(first.busy, first.total) == 37.5


def test_the_share_over_a_reboot_is_unknown(tmp_path: Path) -> None:
    now = read_cpu(cpu_files(tmp_path, "cpu  1 0 0 9 0 0 0 0 0 0\n"))
    assert now.percent_since(180, 1000) is None
    assert now.percent_since(now.busy, now.total) is None


@pytest.mark.parametrize(
    ("stat", "load"), [("", "1 1 1\n"), ("cpu 1 2 3\n", "1 1 1\n"), ("cpu 1 1 1 1 1 1 1 1\n", "")]
)
def test_cpu_time_that_cannot_be_read_is_said(tmp_path: Path, stat: str, load: str) -> None:
    with pytest.raises(OpsError, match="CPU time of this host cannot be read"):
        read_cpu(cpu_files(tmp_path, stat, load))


def test_the_list_has_memory_and_cpu_where_pm2_measured_them() -> None:
    listed = [entry("api", "online") | {"monit": {"memory": 64 * MIB, "cpu": 1.5}}, entry("other", "online")]
    found = parse_pm2_list(json.dumps(listed))
    assert [(process.memory, process.cpu) for process in found] == [(64 * MIB, 1.5), (0, 0.0)]
