"""PM2: which calls restart many services, and whose daemon is asked. (The real PM2: tests/integration/cutover.)"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from glitchtip_core.process import Completed
from glitchtip_cutover import deadline
from glitchtip_cutover.config import Pm2Settings
from glitchtip_cutover.config_file import parse_config
from glitchtip_cutover.errors import CutoverError, IncompleteError
from glitchtip_cutover.manager import Process, manager_for
from glitchtip_cutover.pm2 import Pm2

KEY = "SENTRY_DSN"


def process(name: str, number: int, **environment: str) -> Process:
    return Process(
        name=name,
        pm_id=number,
        pid=100 + number,
        status="online",
        started_at=0.0,
        restarts=0,
        cwd="/",
        interpreter="node",
        cron_job=False,
        module=False,
        environment=environment,
    )


class Recorded(Pm2):
    """Keeps the calls; those of ``fails`` end with a failure."""

    def __init__(self, settings: Pm2Settings, fails: str = "") -> None:
        super().__init__(settings)
        self.calls: list[tuple[list[str], dict[str, str]]] = []
        self.fails = fails
        self.now: list[Process] = []

    def _call(self, arguments: Any, *, timeout: float, extra: Any = None) -> Completed:
        assert timeout
        self.calls.append((list(arguments), dict(extra or {})))
        failed = bool(self.fails) and re.search(self.fails, " ".join(arguments)) is not None
        return Completed(1 if failed else 0, "", "")

    def processes(self) -> list[Process]:
        return self.now


@pytest.fixture
def pm2(tmp_path: Path) -> Recorded:
    return Recorded(Pm2Settings("root", tmp_path, tmp_path / "pm2", tmp_path / "node"))


def test_services_without_own_variables_are_restarted_by_one_call_at_the_same_time(pm2: Recorded) -> None:
    pm2.restart_together([(process("api", 0), None), (process("bot.v2", 1), None), (process("api", 2), None)])
    assert pm2.calls == [(["restart", r"/^(?:api|bot\.v2)$/", "--parallel", "3"], {})]


def test_carriers_of_a_value_get_calls_of_their_own_beside_that(pm2: Recorded) -> None:
    """With ``--update-env`` PM2 takes the whole environment over, so PATH and HOME stay those of the process."""
    carrier = process("carrier", 3, SENTRY_DSN="old", PATH="/opt/bin", HOME="/home/app")
    pm2.restart_together([(process("a", 0), None), (process("b", 1), None), (carrier, {KEY: "new"})])
    assert sorted(pm2.calls) == [
        (["restart", "/^(?:a|b)$/", "--parallel", "2"], {}),
        (["restart", "3", "--update-env"], {"PATH": "/opt/bin", "HOME": "/home/app", KEY: "new"}),
    ]


def test_what_cannot_be_named_together_is_restarted_by_id(pm2: Recorded) -> None:
    """A name with a slash, and instances of one service that need different variables."""
    pm2.restart_together(
        [
            (process("with/slash", 0), None),
            (process("two", 1), None),
            (process("two", 2, SENTRY_DSN="old"), {KEY: "new"}),
            (process("a", 3), None),
            (process("b", 4), None),
        ]
    )
    assert sorted(call[0] for call in pm2.calls) == [
        ["restart", "/^(?:a|b)$/", "--parallel", "2"],
        ["restart", "0"],
        ["restart", "1"],
        ["restart", "2", "--update-env"],
    ]


def test_a_failure_of_the_common_call_leaves_no_service_untried(pm2: Recorded) -> None:
    """PM2 gives up at the first failure; those that kept their process are tried one by one, and the bad one is named."""
    pm2.fails = r"parallel|restart 1$"
    services = [process("a", 0), process("b", 1), process("c", 2)]
    pm2.now = [process("a", 50), *services[1:]]
    with pytest.raises(CutoverError) as caught:
        pm2.restart_together([(one, None) for one in services])
    assert [call[0] for call in pm2.calls[1:]] == [["restart", "1"], ["restart", "2"]]
    assert caught.value.details["failed"] == {"b": "pm2 restart of b failed with exit code 1"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be told apart from another user here")
def test_a_daemon_of_another_user_is_refused_whoever_owns_the_file(tmp_path: Path) -> None:
    """What counts is who listens, not whose the file is."""
    home = tmp_path / "pm2"
    home.mkdir()
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(home / "rpc.sock"))
        daemon.listen(8)
        os.chown(home / "rpc.sock", 65534, 65534)
        mine = Pm2(Pm2Settings("root", home, tmp_path / "pm2.js", tmp_path / "node"))
        assert mine.running
        with pytest.raises(CutoverError, match="pm2 is not at"):
            mine.processes()
        other = Pm2(Pm2Settings("nobody", home, tmp_path / "pm2.js", tmp_path / "node"))
        with pytest.raises(CutoverError) as caught:
            other.processes()
    assert str(caught.value) == f"PM2 at {home} runs as user root, not as nobody: set the user of PM2 to root"


def test_the_command_line_cannot_start_a_daemon_and_no_secret_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is minimal, and an option of Node.js that does not exist keeps a new daemon from coming up."""
    seen = tmp_path / "seen"
    program = tmp_path / "pm2"
    program.write_text(f"#!/bin/sh\nenv > {seen}\necho \"$@\" >> {seen}\necho '[]'\n")
    program.chmod(0o755)
    pm2 = Pm2(Pm2Settings("root", tmp_path, program, Path("/usr/bin/node")))
    monkeypatch.setattr("glitchtip_core.pm2.check_daemon", lambda _access: 1)
    monkeypatch.setenv("CANARY", "canary-secret")
    pm2.processes()
    names = {line.split("=", 1)[0] for line in seen.read_text().splitlines() if "=" in line}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"PATH", "HOME", "PM2_HOME", "PM2_NODE_OPTIONS"}
    pm2.restart(process("a", 1), {KEY: "http://key@host/1"})
    text = seen.read_text()
    assert f"{KEY}=http://key@host/1" in text
    assert "PM2_NODE_OPTIONS" not in text  # it would become a variable of the service
    assert text.splitlines()[-1] == "restart 1 --update-env"
    program.write_text("#!/bin/sh\necho '[PM2] Spawning PM2 daemon with pm2_home=/x'\n")
    with pytest.raises(CutoverError, match="went away while it was asked"):
        pm2.save()


def test_the_configuration_names_the_manager(tmp_path: Path) -> None:
    document = {
        "migration_id": "m",
        "state_dir": str(tmp_path),
        "env_file": str(tmp_path / ".env"),
        "app_dir": str(tmp_path),
        "pm2": {},
        "services": ["a"],
    }
    assert isinstance(manager_for(parse_config(document, tmp_path / "c")), Pm2)


class FakeSystemdRun:
    """``systemd-run``: keeps its command line, writes the result document, ends with the code systemd gives."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, document: str, code: int = 0) -> None:
        self.log = root / "run.log"
        program = root / "systemd-run"
        program.write_text(
            f'#!/bin/sh\nfor word in "$@"; do echo "$word" >> {self.log}; case $word in --output=*) '
            f'printf %s {shlex.quote(document)} > "${{word#--output=}}";; esac; done\nexit {code}\n'
        )
        program.chmod(0o755)
        # As systemd does: a unit that failed keeps its name until it is reset, where another failed unit refers to it.
        self.failed = root / "failed"
        loaded = "Failed to start transient service unit: Unit ai-admin-cutover.service was already loaded or has a fragment file."
        program.write_text(
            program.read_text().replace(
                "\n", f'\n[ ! -e {self.failed} ] || {{ echo "{loaded}" >&2; exit 1; }}\n', 1
            )
        )
        systemctl = root / "systemctl"
        systemctl.write_text(
            f'#!/bin/sh\n[ "$1 $2" != "reset-failed ai-admin-cutover.service" ] || rm -f {self.failed}\n'
        )
        systemctl.chmod(0o755)
        monkeypatch.setenv("PATH", f"{root}:{os.environ['PATH']}")
        monkeypatch.setattr(deadline, "UNITS", dataclasses.replace(deadline.UNITS, results=root / "results"))
        self.config = parse_config(
            {
                "migration_id": "m",
                "state_dir": str(root / "state"),
                "env_file": str(root / ".env"),
                "app_dir": str(root),
                "pm2": {},
                "services": ["a"],
            },
            root / "c",
        )

    def words(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.mark.parametrize("code", [1, 3, 5, 75])
def test_a_run_that_ended_by_its_own_decision_is_no_failed_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Else OnFailure= would let the recovery take back a switch that waits for its confirm, because a second apply
    was refused. systemd-run then reports 0, and the code comes from the result document."""
    fake = FakeSystemdRun(tmp_path, monkeypatch, f'{{"exit_code": {code}, "reason": "x"}}')
    assert deadline.run_detached(fake.config, "apply", []) == (code, b'{"reason": "x"}')
    decided = next(word for word in fake.words() if word.startswith("--property=SuccessExitStatus="))
    assert str(code) in decided.split("=")[2].split()
    assert "--property=OnFailure=ai-admin-cutover-recover.service" in fake.words()
    assert "--unit=ai-admin-cutover" in fake.words()
    assert any(word.startswith("--property=RuntimeMaxSec=") for word in fake.words())


def test_an_incomplete_way_back_stays_a_failed_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the recovery tries once more."""
    fake = FakeSystemdRun(tmp_path, monkeypatch, '{"exit_code": 4}', code=4)
    assert deadline.run_detached(fake.config, "rollback", [])[0] == 4
    decided = next(word for word in fake.words() if word.startswith("--property=SuccessExitStatus="))
    assert "4" not in decided.split("=")[2].split()


def test_a_run_that_failed_together_with_its_recovery_does_not_stand_in_the_way_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSystemdRun(tmp_path, monkeypatch, '{"exit_code": 0}')
    fake.failed.touch()
    assert deadline.run_detached(fake.config, "rollback", [])[0] == 0


@pytest.mark.parametrize("blocked", [(), ("results",), ("results", "state")], ids=["room", "no /run", "nowhere"])
def test_a_result_that_can_be_left_nowhere_keeps_no_run_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocked: tuple[str, ...]
) -> None:
    fake = FakeSystemdRun(tmp_path, monkeypatch, '{"exit_code": 0, "state": "rolled_back"}')
    for name in blocked:
        (tmp_path / name).write_text("no directory")
    if len(blocked) < 2:
        assert deadline.run_detached(fake.config, "rollback", []) == (0, b'{"state": "rolled_back"}')
        assert not list(tmp_path.glob("**/*.json"))
    else:
        with pytest.raises(IncompleteError, match=r"left no result|cannot be read"):
            deadline.run_detached(fake.config, "rollback", [])
    assert "rollback" in fake.words()


def test_the_program_starts_itself_again_under_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    program = tmp_path / "glitchtip-rollback"
    with zipfile.ZipFile(program, "w") as archive:
        archive.writestr("__main__.py", "")
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert deadline.UNITS.command() == [sys.executable, "-I", str(program)]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pytest"])
    assert deadline.UNITS.command() == [sys.executable, "-P", "-m", "glitchtip_cutover"]
