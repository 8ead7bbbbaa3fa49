"""PM2 is asked only where it runs, never started, and values of environments never leave it."""

from __future__ import annotations

import json
import os
import pwd
import socket
from pathlib import Path

import pm2_info
import pytest

from glitchtip_core.pm2_list import read_entry

ME = pwd.getpwuid(os.getuid()).pw_name
SECRET = "http://0123456789abcdef0123456789abcdef@sentry.example.org/1"


def entry(name, status="online", **environment):
    return {
        "name": name,
        "pid": 4242,
        "pm_id": 0,
        "monit": {"memory": 50 * 1024 * 1024, "cpu": 0},
        "pm2_env": {
            "status": status,
            "restart_time": 3,
            "pm_uptime": 1_000_000,
            "autorestart": True,
            "pm_cwd": "/opt/ai-admin",
            "username": "root",
            "env": {},
            **environment,
        },
    }


JOB = {"cron_restart": "0 3 * * *", "autorestart": False}


def ask(run_host_module, fake_pm2, **options):
    place = {"home": str(fake_pm2.home), "binary": str(fake_pm2.binary)}
    return run_host_module("pm2_info", user=ME, **place, **options)


def test_without_a_socket_the_client_is_not_called(run_host_module, fake_pm2):
    result = ask(run_host_module, fake_pm2, expected=["ai-admin-api"])
    assert result["daemon_running"] is False
    assert result["missing"] == ["ai-admin-api"]
    assert not fake_pm2.called.exists()


def test_a_socket_that_a_dead_daemon_left_is_no_daemon(run_host_module, fake_pm2):
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(fake_pm2.home / "rpc.sock"))
    dead.close()
    assert ask(run_host_module, fake_pm2)["daemon_running"] is False
    assert not fake_pm2.called.exists()


@pytest.mark.usefixtures("daemon")
def test_the_client_is_called_with_its_own_environment_only(run_host_module, fake_pm2, monkeypatch):
    monkeypatch.setenv("SENTRY_DSN", SECRET)
    assert ask(run_host_module, fake_pm2)["daemon_running"] is True
    home = pwd.getpwnam(ME).pw_dir
    assert fake_pm2.called.read_text().strip() == f"jlist PM2_HOME={fake_pm2.home} HOME={home}"


@pytest.mark.usefixtures("daemon")
def test_processes_are_described_without_any_value_of_their_environment(run_host_module, fake_pm2):
    with_dsn = entry("ai-admin-api", SENTRY_DSN=SECRET, env={"SENTRY_DSN": SECRET})
    fake_pm2.answers(json.dumps([with_dsn, entry("ai-admin-worker-v2")]))
    result = ask(run_host_module, fake_pm2, expected=["ai-admin-api", "ai-admin-worker-v2", "gone"])
    first, second = result["processes"]
    assert (first["sentry_dsn_in_environment"], second["sentry_dsn_in_environment"]) == (True, False)
    assert (first["name"], first["cwd"]) == ("ai-admin-api", "/opt/ai-admin")
    assert (first["memory_mib"], first["restarts"]) == (50, 3)
    assert result["missing"] == ["gone"]
    assert result["not_online"] == []
    assert SECRET not in json.dumps(result)


@pytest.mark.usefixtures("daemon")
def test_what_pm2_says_before_its_list_is_skipped(run_host_module, fake_pm2):
    notice = ">>>> In-memory PM2 is out-of-date, do:\n>>>> $ pm2 update\n[PM2] hello\n"
    fake_pm2.answers(notice + json.dumps([entry("a")]))
    assert [process["name"] for process in ask(run_host_module, fake_pm2)["processes"]] == ["a"]


@pytest.mark.usefixtures("daemon")
def test_an_answer_without_a_list_fails_and_is_not_quoted(run_host_module, fake_pm2):
    fake_pm2.answers("trouble with " + SECRET)
    result = ask(run_host_module, fake_pm2)
    assert (result["failed"], result["msg"]) == (True, "PM2 did not print its process list as JSON.")


@pytest.mark.usefixtures("daemon")
def test_a_client_that_is_missing_gets_a_sentence(run_host_module, fake_pm2):
    fake_pm2.binary.unlink()
    result = ask(run_host_module, fake_pm2)
    assert result["failed"]
    assert result["msg"] == f"pm2 is not at {fake_pm2.binary}: No such file or directory."


@pytest.mark.usefixtures("daemon")
@pytest.mark.slow
def test_a_client_that_hangs_is_given_up(run_host_module, fake_pm2):
    fake_pm2.binary.write_text("#!/bin/sh\nexec sleep 30\n")
    result = ask(run_host_module, fake_pm2, timeout=1)
    assert result["msg"] == "pm2 did not end within 1 s."


def test_a_user_that_does_not_exist_gets_a_sentence(run_host_module):
    result = run_host_module("pm2_info", user="no-such-user")
    assert result["msg"] == "there is no user no-such-user on this host."


@pytest.mark.parametrize(
    ("listed", "fine"),
    [
        (entry("x"), True),
        (entry("x", "stopped"), False),
        (entry("x", "errored"), False),
        (entry("x", "stopped", **JOB), True),
        (entry("x", "errored", **JOB), False),
        (entry("x", "stopped", cron_restart="0 3 * * *"), False),
        (entry("x", "stopped", autorestart=False), False),
        (entry("x", "launching"), False),
    ],
)
def test_only_online_processes_and_waiting_jobs_are_fine(listed, fine):
    process = pm2_info.describe(read_entry(listed), now=2000.0)
    _, not_online = pm2_info.compare([process], ["x"])
    assert not_online == ([] if fine else [{"name": "x", "status": process["status"]}])


def test_processes_that_nobody_expects_are_not_judged():
    process = pm2_info.describe(read_entry(entry("hobby", "errored")), now=2000.0)
    assert pm2_info.compare([process], []) == ([], [])


def test_uptime_is_that_of_a_running_process_only():
    assert pm2_info.describe(read_entry(entry("x")), now=1060.0)["uptime_seconds"] == 60
    assert pm2_info.describe(read_entry(entry("x", "stopped")), now=1060.0)["uptime_seconds"] == 0


@pytest.fixture
def processes(tmp_path):
    """A /proc of one namespace: add(pid, command, parent, environment, namespace)."""
    proc = tmp_path / "proc"

    def add(pid, command, parent=1, environment="", namespace="pid:[1]"):
        directory = proc / str(pid)
        (directory / "ns").mkdir(parents=True)
        (directory / "cmdline").write_text(command)
        (directory / "environ").write_text(environment)
        (directory / "status").write_text(f"Name:\tnode\nPPid:\t{parent}\n")
        (directory / "ns" / "pid").symlink_to(namespace)
        return proc

    add("self", "python3")
    return add


def test_daemons_and_their_services_are_found(processes):
    processes(10, "PM2 v7.0.4: God Daemon (/home/app/.pm2)\0\0\0")
    processes(11, "node /opt/ai-admin/src/index.js", 10, "PATH=/bin\0name=ai-admin-api\0SENTRY_DSN=x\0")
    processes(12, "node /opt/x.js", 10, 'pm2_env={"name":"cluster-app","env":{}}\0')
    proc = processes(13, "grep PM2 v7.0.4: God Daemon (", 10)
    assert pm2_info.find_daemons(proc) == [
        {
            "pid": 10,
            "user": ME,
            "version": "7.0.4",
            "home": "/home/app/.pm2",
            "services": ["ai-admin-api", "cluster-app"],
        }
    ]


def test_a_daemon_inside_a_container_is_none_of_this_host(processes):
    proc = processes(10, "PM2 v7.0.4: God Daemon (/root/.pm2)", namespace="pid:[2]")
    assert pm2_info.find_daemons(proc) == []


def daemon_of(user, home, *services):
    return {"pid": 10, "user": user, "version": "7.0.4", "home": home, "services": list(services)}


def test_a_service_in_the_pm2_of_another_user_is_named():
    ours = daemon_of("root", "/root/.pm2", "ai-admin-api")
    daemons = [ours, daemon_of("app", "/home/app/.pm2", "ai-admin-api", "z")]
    own, others = pm2_info.split_daemons(daemons, Path("/root/.pm2"), "root", ["ai-admin-api"])
    assert own == {"pid": 10, "user": "root", "version": "7.0.4"}
    assert [(other["user"], other["expected"]) for other in others] == [("app", ["ai-admin-api"])]


def test_our_home_in_the_hands_of_another_user_is_named():
    daemons = [daemon_of("app", "/root/.pm2", "ai-admin-api")]
    own, others = pm2_info.split_daemons(daemons, Path("/root/.pm2"), "root", ["ai-admin-api"])
    assert own["user"] == "app"
    assert [other["user"] for other in others] == ["app"]
