"""What the kernel shows of a service: which process does its work, how that was started, with which environment."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from glitchtip_core.dsn import parse_dsn
from glitchtip_core.pm2_list import read_entries
from glitchtip_cutover import launch as launch_module
from glitchtip_cutover import pm2 as pm2_module
from glitchtip_cutover import running as running_module
from glitchtip_cutover.config import Pm2Settings
from glitchtip_cutover.config_file import parse_config
from glitchtip_cutover.errors import ProcessGoneError, ServiceError, UnprovenServiceError
from glitchtip_cutover.manager import Process
from glitchtip_cutover.pm2 import Pm2
from glitchtip_cutover.proof import environment_problem

KEY = "SENTRY_DSN"


class Kernel:
    """A ``/proc`` of our own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def show(
        self,
        pid: int,
        argv: Sequence[str],
        *,
        parent: int = 1,
        executable: str = "/usr/bin/node",
        cwd: str = "/opt/app",
        title: str = "",
        user: int = 1000,
        **environment: str,
    ) -> None:
        directory = self.root / str(pid)
        (directory / "ns").mkdir(parents=True)
        (directory / "environ").write_bytes(
            b"".join(f"{key}={value}\0".encode() for key, value in environment.items())
        )
        shown = title.encode() + b"\0\0\0" if title else b"".join(word.encode() + b"\0" for word in argv)
        (directory / "cmdline").write_bytes(shown)
        (directory / "exe").symlink_to(executable)
        (directory / "cwd").symlink_to(cwd)
        (directory / "stat").write_text(f"{pid} (no) de) S {parent} " + "0 " * 17 + "100 0\n")
        (directory / "status").write_text(f"Uid:\t0\t{user}\t0\t0\nGid:\t0\t{user}\t0\t0\nGroups:\t4 27 \n")


def as_it_is() -> ModuleType:
    """The module once more, without what ``conftest.py`` puts into it."""
    spec = running_module.__spec__
    assert spec is not None
    assert spec.loader is not None
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    return fresh


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """The functions as they are, with another ``/proc``; the other tests show a simulated machine instead."""
    fresh = as_it_is()
    monkeypatch.setattr(fresh, "PROC", tmp_path)
    for module in (running_module, pm2_module):
        monkeypatch.setattr(module, "read_running", fresh.read_running)
    monkeypatch.setattr(running_module, "PROC", tmp_path)
    monkeypatch.setattr(running_module, "_parents", fresh._parents)
    monkeypatch.setattr(launch_module, "single_node_process", running_module.single_node_process)
    return Kernel(tmp_path)


def service(pid: int, *command: str, **changes: Any) -> Process:
    return Process(
        name="api",
        pm_id=0,
        pid=pid,
        status="online",
        started_at=0.0,
        restarts=0,
        cwd="/opt/app",
        interpreter="node",
        cron_job=False,
        module=False,
        environment={},
        command=command,
        **changes,
    )


def parsed(*words: str) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    found = running_module.parse_command(words)
    return found.options, found.script, found.arguments


@pytest.mark.parametrize(
    ("words", "options", "script", "arguments"),
    [
        (["node", "a.js"], [], "a.js", []),
        (["node", "--import", "./i.mjs", "a.mjs", "--import", "x"], ["--import", "./i.mjs"], "a.mjs", ["--import", "x"]),
        (["node", "-r", "./i.cjs", "--max-old-space-size=64", "."], ["-r", "./i.cjs", "--max-old-space-size=64"], ".", []),
        (["node", "--env-file=.env", "--", "-odd.js", "b"], ["--env-file=.env"], "-odd.js", ["b"]),
        (["node", "-e", "code", "x"], [], "", []),
        (["node"], [], "", []),
    ],
)  # fmt: skip
def test_a_command_line_is_split(
    words: list[str], options: list[str], script: str, arguments: list[str]
) -> None:
    assert parsed(*words) == (tuple(options), script, tuple(arguments))


def test_options_that_only_one_process_can_have_are_left_out() -> None:
    options = ["--inspect=9229", "-r", "./a.js", "--watch", "--cpu-prof", "--title", "x", "--env-file=.env"]
    assert running_module.shareable_options(options) == ("-r", "./a.js", "--env-file=.env")


def test_the_real_process_below_npm_and_a_shell_is_the_service(kernel: Kernel) -> None:
    kernel.show(10, [], title="npm start")
    kernel.show(11, ["sh", "-c", "node -r x a.js"], parent=10, executable="/usr/bin/dash")
    argv = ["node", "-r", "dotenv/config", "a.js", "dotenv_config_path=/srv/other.env"]
    kernel.show(12, argv, parent=11, cwd="/srv", DOTENV_CONFIG_PATH="/x", SENTRY_DSN="y")
    kernel.show(13, ["node", "child.js"], parent=12)
    record = ["/usr/bin/npm", "start"]
    assert launch_module.launch_of_process(service(10, *record)).pid == 12
    launch = launch_module.launch_of_process(service(10, "node", *record))
    assert (launch.pid, launch.cwd, launch.script) == (12, "/srv", "a.js")
    assert launch.options == ("-r", "dotenv/config")
    assert launch.arguments == ("dotenv_config_path=/srv/other.env",)
    assert launch.environment == {"DOTENV_CONFIG_PATH": "/x", KEY: "y"}
    assert launch.identity is not None
    assert (launch.identity.user, launch.identity.groups) == (1000, (4, 27))


@pytest.mark.parametrize(
    "argv",
    [
        ["node", "/opt/app/node_modules/.bin/dotenv", "--", "node", "a.js"],
        ["/bin/sh", "/opt/app/start.sh"],
        ["/usr/bin/tini", "--", "node", "a.js"],
        ["node", "--run", "start"],
        ["node", "/usr/bin/nodemon", "a.js"],
    ],
)
def test_every_launcher_is_passed_over(kernel: Kernel, argv: list[str]) -> None:
    kernel.show(10, argv, executable="/usr/bin/node" if argv[0] == "node" else argv[0])
    kernel.show(11, ["node", "a.js"], parent=10)
    assert launch_module.launch_of_process(service(10, *argv)).pid == 11


def test_a_service_that_starts_workers_is_itself_the_process(kernel: Kernel) -> None:
    kernel.show(10, ["node", "server.js"])
    kernel.show(11, ["node", "worker.js"], parent=10)
    assert launch_module.launch_of_process(service(10, "node", "server.js")).pid == 10


def test_a_title_hides_the_command_line_and_the_manager_s_record_serves(kernel: Kernel) -> None:
    kernel.show(10, [], title="node /opt/app/src/a.js")
    launch = launch_module.launch_of_process(
        service(10, "node", "--import", "./i.mjs", "/opt/app/src/a.js", "x")
    )
    assert (launch.options, launch.script, launch.arguments) == (
        ("--import", "./i.mjs"),
        "/opt/app/src/a.js",
        ("x",),
    )
    kernel.show(11, ["node", "/usr/lib/node_modules/pm2/lib/ProcessContainerFork.js"])
    assert launch_module.launch_of_process(service(11, "node", "/opt/app/b.js")).script == "/opt/app/b.js"


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        ([(10, ["bun", "a.ts"], 1, "/usr/bin/bun")], r"process 10 \(bun\) runs no Node.js"),
        (
            [
                (10, ["sh", "x"], 1, "/bin/sh"),
                (11, ["node", "a"], 10, "/usr/bin/node"),
                (12, ["node", "b"], 10, "/usr/bin/node"),
            ],
            r"2 Node.js processes \(11, 12\)",
        ),
        (
            [(10, ["sh", "x"], 1, "/bin/sh"), (11, ["my app"], 10, "/usr/bin/node")],
            "does not show the script",
        ),
        ([(10, ["node", "a.js"], 1, "/none/node (deleted)")], "was removed from /none/node"),
    ],
)
def test_what_no_probe_can_repeat_is_unproven(kernel: Kernel, shown: list[Any], sentence: str) -> None:
    for pid, argv, parent, executable in shown:
        kernel.show(pid, argv, parent=parent, executable=executable)
    with pytest.raises(UnprovenServiceError, match=sentence):
        launch_module.launch_of_process(service(10))


def test_the_environment_of_a_service_without_node_is_read_all_the_same(kernel: Kernel) -> None:
    kernel.show(10, ["bun", "a.ts"], executable="/usr/bin/bun", SENTRY_DSN="x")
    found = running_module.service_processes("api", 10)
    assert [running.environment for running, _ in found] == [{KEY: "x"}]


@pytest.mark.usefixtures("kernel")
def test_a_process_that_is_gone_is_an_error_of_the_service() -> None:
    with pytest.raises(ServiceError, match="process 10 is gone") as caught:
        launch_module.launch_of_process(service(10))
    assert not isinstance(caught.value, UnprovenServiceError)


@pytest.mark.usefixtures("kernel")
def test_a_job_whose_run_has_ended_since_it_was_listed_is_one_that_rests(tmp_path: Path) -> None:
    """A job of every minute that takes a second is met at work now and then."""
    config = parse_config(
        {
            "migration_id": "m",
            "state_dir": "/s",
            "env_file": "/e",
            "app_dir": "/a",
            "services": ["api"],
            "pm2": {},
        },
        tmp_path / "c",
    )
    job = dataclasses.replace(service(10, "node", "/opt/app/job.js"), cron_job=True)
    launch = Pm2(Pm2Settings("root", tmp_path, tmp_path / "pm2", Path("/n/node")), KEY).launch(job)
    assert (launch.pid, launch.executable, launch.script) == (0, "/n/node", "/opt/app/job.js")
    dsn = parse_dsn("http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@sentry.example.org/7")
    assert environment_problem(config, job, dsn) == ""
    with pytest.raises(ProcessGoneError):
        environment_problem(config, dataclasses.replace(job, cron_job=False), dsn)


def test_a_cluster_s_worker_has_the_daemon_s_environment_below_its_own(kernel: Kernel) -> None:
    own = json.dumps({"A": "own", "n": 1, "flag": True, "env": {"x": "y"}})
    kernel.show(10, ["node", "a.js"], SENTRY_DSN="daemon", A="daemon", pm2_env=own)
    found = running_module.read_running(10)
    assert found is not None
    assert found.environment == {KEY: "daemon", "A": "own", "n": "1", "flag": "true"}
    assert "daemon" not in repr(found)


def test_a_dsn_that_only_pm2_s_daemon_has_counts_as_carried(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its list does not show it; without this, a restart would keep it and no check would see it."""
    kernel.show(10, ["node", "a.js"], SENTRY_DSN="daemon", pm2_env="{}")
    kernel.show(11, ["node", "a.js"], SENTRY_DSN="daemon", pm2_env=json.dumps({KEY: "own"}))
    kernel.show(12, ["node", "a.js"])
    pm2 = Pm2(Pm2Settings("root", tmp_path, tmp_path / "pm2", tmp_path / "node"), KEY)
    details = [{}, {KEY: "own"}, {}]
    listed = json.dumps(
        [
            {
                "name": str(number),
                "pm_id": number,
                "pid": 10 + number,
                "pm2_env": {"status": "online", **more},
            }
            for number, more in enumerate(details)
        ]
    )
    monkeypatch.setattr(pm2_module.core, "list_processes", lambda _access, **_: read_entries(listed))
    assert [process.environment.get(KEY) for process in pm2.processes()] == ["daemon", "own", None]


def test_our_own_process_is_read_from_the_real_kernel() -> None:
    found = as_it_is().read_running(os.getpid())
    assert (found.parent, found.user_id, found.cwd, found.apart) == (
        os.getppid(),
        os.geteuid(),
        os.getcwd(),
        False,
    )
    assert found.started_at > 0
