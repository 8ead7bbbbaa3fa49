"""A service that PM2 calls online between two crashes is found, and so is what holds its port outside PM2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pm2_info
import pytest
from unit.host.test_pm2_info import ME

from glitchtip_core.pm2_list import read_entry

PORT = """
import socket, sys, time
server = socket.socket(socket.AF_INET6 if sys.argv[1] == "::1" else socket.AF_INET)
server.bind((sys.argv[1], 0))
if sys.argv[2] == "listens":
    server.listen()
print(server.getsockname()[1], flush=True)
time.sleep(60)
"""


def process(name="api", restarts=5, uptime=1, pm_id=0, **changes):
    details = {
        "status": "online",
        "restart_time": restarts,
        "pm_uptime": (1000 - uptime) * 1000,
        "pm_cwd": "/opt/ai-admin",
    }
    entry = {"name": name, "pm_id": pm_id, "pid": 42, "monit": {}, "pm2_env": {**details, **changes}}
    return pm2_info.describe(read_entry(entry), 1000.0)


class Looks:
    """What PM2 says at each look, and how often it was asked; the last one stays."""

    def __init__(self, *looks):
        self.looks, self.asked, self.slept = list(looks), 0, 0.0

    def __call__(self):
        self.asked += 1
        return self.looks[min(self.asked, len(self.looks)) - 1]

    def sleep(self, seconds):
        self.slept += seconds

    def watch(self, first, expected=("api",)):
        return pm2_info.watch_for_crash_loops(first, list(expected), self, self.sleep)


def turns(seconds, before=5):
    """Looks at a process that crashes after that many seconds of each start, or (0) never does; at the first it is 1 s old."""
    looks = []
    for number in range(1, int(pm2_info.WATCH / pm2_info.LOOK) + 1):
        age = int(1 + number * pm2_info.LOOK)
        done, uptime = divmod(age, seconds) if seconds else (0, age)
        looks.append([process(restarts=before + done, uptime=uptime)])
    return Looks(*looks)


@pytest.mark.parametrize("seconds", [1, 2, 7, 12, 18, 29])
@pytest.mark.parametrize("before", [1, 400])
def test_a_process_that_never_runs_for_half_a_minute_is_a_crash_loop(seconds, before):
    looks = turns(seconds, before)
    (found,) = looks.watch([process(restarts=before, uptime=1)])
    assert (found["name"], found["restarts"] - before >= 2) == ("api", True)
    assert looks.slept <= 2 * seconds + pm2_info.LOOK


@pytest.mark.parametrize("before", [1, 9, 10, 400])
def test_a_service_that_was_just_deployed_is_none_however_often_it_was_before(before):
    """PM2 counts every deploy as a restart: a service of a year has hundreds."""
    looks = turns(0, before)
    assert looks.watch([process(restarts=before, uptime=1)]) == []
    assert looks.slept == 30


def test_a_deploy_during_the_watch_is_none():
    looks = Looks([process(restarts=400, uptime=6)], [process(restarts=401, uptime=1)], [process(restarts=401, uptime=31)])
    assert looks.watch([process(restarts=400, uptime=3)]) == []
    assert looks.asked == 3


@pytest.mark.parametrize(
    "first",
    [
        process(restarts=0, uptime=1),
        process(restarts=400, uptime=pm2_info.STEADY),
        process(status="stopped", restarts=400),
        process(cron_restart="* * * * *", autorestart=False, restarts=400),
        process(name="another", restarts=400),
    ],
    ids=["first start", "runs long enough", "stopped", "a job", "none of ours"],
)
def test_what_is_no_crash_loop_is_not_waited_for(first):
    """The negative control: even though the restarts would rise."""
    looks = Looks([{**first, "restarts": 500}])
    assert looks.watch([first]) == []
    assert (looks.asked, looks.slept) == (0, 0.0)


def test_only_the_instance_that_crashes_is_named():
    first = [process(pm_id=0, restarts=3, uptime=9), process(pm_id=1, restarts=3, uptime=1)]
    looks = Looks([process(pm_id=0, restarts=3, uptime=39), process(pm_id=1, restarts=5)])
    assert [found["pm_id"] for found in looks.watch(first)] == [1]


def test_a_process_that_is_gone_meanwhile_is_judged_by_what_was_seen():
    assert Looks([]).watch([process(restarts=3)]) == []


# --- what holds the port ---------------------------------------------------------------------------------------------


@pytest.fixture
def left(tmp_path):
    """left(address, how) -> (pid, port) of a process that runs in the directory of the test and holds a port."""
    started = []

    def start(address="127.0.0.1", how="listens", cwd=tmp_path):
        child = subprocess.Popen(
            [sys.executable, "-c", PORT, address, how], cwd=cwd, stdout=subprocess.PIPE, text=True
        )
        started.append(child)
        return child.pid, int(child.stdout.readline())

    yield start
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_process_outside_pm2_in_the_same_directory_is_named_with_its_port(left, tmp_path, address):
    pid, port = left(address)
    (found,) = pm2_info.find_holders(str(tmp_path), [])
    assert (found["pid"], found["ports"]) == (pid, [port])
    assert found["program"].startswith("python")


def test_what_runs_elsewhere_below_pm2_or_holds_nothing_is_not(left, tmp_path):
    """The negative control."""
    (tmp_path / "other").mkdir()
    pid, _ = left(cwd=tmp_path / "other")
    left(how="bound")
    assert pm2_info.find_holders(str(tmp_path), []) == []
    assert [found["pid"] for found in pm2_info.find_holders(str(tmp_path / "other"), [])] == [pid]
    assert pm2_info.find_holders(str(tmp_path / "other"), [os.getpid()]) == []
    assert pm2_info.find_holders(str(tmp_path / "other"), [pid]) == []


def test_the_root_directory_says_nothing():
    assert pm2_info.find_holders("/", []) == []


def test_the_module_reports_the_loop_with_the_holder(
    run_host_module, fake_pm2, daemon, left, tmp_path, monkeypatch
):
    """A client whose count of restarts rises at each call, as under an npm that finds its port taken."""
    assert daemon
    monkeypatch.setattr(pm2_info, "LOOK", 0.01)
    pid, port = left()
    details = {
        "status": "online",
        "restart_time": 0,
        "pm_uptime": int(time.time() * 1000),
        "pm_cwd": str(tmp_path),
    }
    text = json.dumps([{"name": "api", "pm_id": 0, "pid": 1, "monit": {}, "pm2_env": details}])
    fake_pm2.answers("[]")
    before, after = text.split('"restart_time": 0')
    (tmp_path / "before").write_text(before + '"restart_time": ')
    (tmp_path / "after").write_text(after)
    fake_pm2.binary.write_text(
        f"#!/bin/sh\necho x >> {fake_pm2.called}\ncat {tmp_path}/before\nwc -l < {fake_pm2.called}\ncat {tmp_path}/after\n"
    )
    result = run_host_module(
        "pm2_info", user=ME, home=str(fake_pm2.home), binary=str(fake_pm2.binary), expected=["api"]
    )
    (loop,) = result["crash_loops"]
    assert loop["name"] == "api"
    assert [(holder["pid"], holder["ports"]) for holder in loop["holders"]] == [(pid, [port])]
    result = run_host_module(
        "pm2_info", user=ME, home=str(fake_pm2.home), binary=str(fake_pm2.binary), expected=["other"]
    )
    assert result["crash_loops"] == []
