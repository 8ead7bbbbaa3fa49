"""Services of a Compose project, over a docker that behaves as the real one does."""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.cutover.simulation import PROCESSES

from glitchtip_core.process import Completed
from glitchtip_cutover import compose
from glitchtip_cutover.compose import Compose, epoch
from glitchtip_cutover.config_file import parse_config
from glitchtip_cutover.engine import reason_of
from glitchtip_cutover.errors import CutoverError
from glitchtip_cutover.manager import Process, manager_for
from glitchtip_cutover.prechecks import Findings, check_product
from glitchtip_cutover.running import Running
from glitchtip_cutover.services import Services
from glitchtip_cutover.snapshot import Snapshot

pytestmark = pytest.mark.slow

OLD = "http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@sentry.example.org/7"
NEW = "http://bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb@127.0.0.1:8080/3"
KEY = "SENTRY_DSN"


class Host:
    """Services: DSN by env_file, by a value in the Compose file, read by the product itself; and a job."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env_file = root / ".env"
        self.env_file.write_text(f"{KEY}={OLD}\n")
        compose_file = str(root / "compose.yaml")
        services: dict[str, Any] = {
            "file": {"env_file": str(self.env_file), "environment": {}},
            "text": {"env_file": str(self.env_file), "environment": {KEY: OLD, "PRICE": "5$"}},
            "reads": {"environment": {}},
            "job": {"env_file": str(self.env_file), "environment": {}},
        }
        containers = {
            name: {
                "id": f"{name}-1",
                "pid": 100 + number,
                "restarts": 0,
                "status": "exited" if name == "job" else "running",
                "started": "2026-11-21T08:00:00.123456789Z",
                "policy": "no" if name == "job" else "unless-stopped",
                "env": {"PATH": "/usr/bin", **({KEY: OLD} if name != "reads" else {})},
                "files": compose_file,
            }
            for number, name in enumerate(services)
        }
        containers["job"]["pid"] = 0
        self.store = root / "project.json"
        self.store.write_text(
            json.dumps({"file": compose_file, "services": services, "containers": containers})
        )
        program = root / "docker"
        fake = Path(__file__).with_name("fake_docker.py")
        program.write_text(f'#!/bin/sh\nFAKE_DOCKER={root} exec {sys.executable} -I -S {fake} "$@"\n')
        program.chmod(0o755)
        self.config = parse_config(
            {
                "migration_id": "m",
                "manager": "compose",
                "state_dir": str(root / "state"),
                "env_file": str(self.env_file),
                "app_dir": str(root),
                "compose": {"directory": str(root), "project": "shop", "docker": str(program)},
                "services": ["file", "text", "reads", "job"],
            },
            root / "config.json",
        )
        self.manager = Compose(self.config)

    def give_to(self, user: int) -> None:
        """All of it is that user's; docker is a program of the system's Python, which every user may run."""
        program = self.root / "docker"
        fake = self.root / "fake_docker.py"
        fake.write_text(Path(__file__).with_name("fake_docker.py").read_text())
        program.write_text(f'#!/bin/sh\nFAKE_DOCKER={self.root} exec /usr/bin/python3 -I -S {fake} "$@"\n')
        (self.root / "compose.yaml").touch()
        (self.root / "calls.log").touch()
        for path in (self.root, *self.root.iterdir()):
            os.chown(path, user, user)

    def project(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.store.read_text())
        return data

    def change(self, **changes: Any) -> None:
        self.store.write_text(json.dumps(self.project() | changes))

    def change_container(self, name: str, **changes: Any) -> None:
        project = self.project()
        project["containers"][name] |= changes
        self.store.write_text(json.dumps(project))

    def calls(self, word: str) -> list[str]:
        return [
            line for line in (self.root / "calls.log").read_text().splitlines() if f" {word}" in f" {line}"
        ]

    def processes(self) -> dict[str, Process]:
        return {process.name: process for process in self.manager.processes()}

    def uses(self) -> dict[str, str | None]:
        """The DSN that each running container was created with."""
        return {name: one["env"].get(KEY) for name, one in self.project()["containers"].items()}

    def services(self) -> Services:
        return Services(self.config, self.manager, monotonic=time.monotonic, sleep=lambda _: None)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_containers_are_read_as_services(host: Host) -> None:
    found = host.processes()
    assert list(found) == ["file", "text", "reads", "job"]
    assert all(process.healthy for process in found.values())
    assert found["job"].idle_job
    assert found["file"].command == ("node", "--import", "./a.mjs", "src/x.js")
    assert [name for name, process in found.items() if process.watches_files] == ["text"]
    assert found["file"].started_at == epoch("2026-11-21T08:00:00.123456Z")
    assert all(process.environment.get(KEY) is None for process in found.values())


def switch(host: Host, dsn: str, names: tuple[str, ...] = ("file", "text", "reads")) -> None:
    host.env_file.write_text(f"{KEY}={dsn}\n")
    services = host.services()
    assert services.restart_together(dict.fromkeys(names, dsn)) == {}
    for name in names:
        services.wait_online(name)


def test_all_services_are_made_anew_by_one_call_and_all_use_the_new_dsn(host: Host) -> None:
    switch(host, NEW)
    ups = host.calls("up")
    assert len(ups) == 1
    assert ups[0].endswith("up --detach --force-recreate --no-deps --no-build -- file text reads")
    assert host.uses() == {"file": NEW, "text": NEW, "reads": None, "job": OLD}
    assert host.processes()["text"].environment.get(KEY) is None
    assert host.processes()["file"].environment.get(KEY) is None


def test_a_container_that_env_file_has_left_behind_shows_the_dsn_that_it_has(host: Host) -> None:
    """The file alone proves nothing: without being made anew the container keeps the old value."""
    host.env_file.write_text(f"{KEY}={NEW}\n")
    found = host.processes()
    assert (found["file"].environment[KEY], found["text"].environment[KEY]) == (OLD, OLD)


def test_only_a_value_that_env_file_cannot_change_goes_into_our_file_which_is_private(host: Host) -> None:
    switch(host, NEW)
    override = host.config.state_dir / "compose.override.json"
    assert json.loads(override.read_text()) == {"services": {"text": {"environment": {KEY: NEW}}}}
    assert stat.S_IMODE(override.stat().st_mode) == 0o600
    assert NEW not in (host.root / "calls.log").read_text()


def test_the_way_back_leaves_no_override(host: Host) -> None:
    switch(host, NEW)
    switch(host, OLD)
    assert not (host.config.state_dir / "compose.override.json").exists()
    assert host.uses() == {"file": OLD, "text": OLD, "reads": None, "job": OLD}


def test_the_project_s_own_files_are_named_before_ours(host: Host) -> None:
    switch(host, NEW)
    host.manager.processes()
    last = host.calls("config")[-1]
    files = [word for word in last.split() if word.startswith("--file=")]
    assert files == [
        f"--file={host.root}/compose.yaml",
        f"--file={host.config.state_dir}/compose.override.json",
    ]


def test_compose_is_asked_again_only_when_a_file_has_changed(host: Host) -> None:
    for _ in range(5):
        host.manager.processes()
    assert len(host.calls("config")) == 1
    host.env_file.write_text(f"{KEY}={NEW}\nMORE=1\n")
    os.utime(host.env_file, (1, 1))
    host.manager.processes()
    assert len(host.calls("config")) == 2


def test_without_docker_the_way_back_is_not_called_complete(host: Host) -> None:
    switch(host, NEW)
    host.change(down=True)
    assert not host.manager.running
    with pytest.raises(CutoverError, match="start Docker, then run ai-admin-cutover recover"):
        host.manager.rewrite_dump(KEY, dict.fromkeys(host.config.services, OLD))
    assert OLD in (host.config.state_dir / "compose.override.json").read_text()


def test_a_service_that_does_not_start_is_named(host: Host) -> None:
    project = host.project()
    project["services"]["text"]["dies"] = True
    host.store.write_text(json.dumps(project))
    services = host.services()
    failed = services.restart_together(dict.fromkeys(("file", "text"), OLD))
    assert {name: str(error) for name, error in failed.items()} == {
        "text": "docker compose up of text failed"
    }
    assert set(services.watched) == {"file"}


def test_variables_that_cannot_be_written_keep_no_other_service_from_being_made_anew(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise CutoverError("cannot write the file: No space left on device")

    monkeypatch.setattr(compose, "write_json", full)
    host.env_file.write_text(f"{KEY}={NEW}\n")
    failed = host.services().restart_together(dict.fromkeys(("file", "text", "reads"), NEW))
    assert all("cannot be written: cannot write the file" in str(error) for error in failed.values())
    made = host.calls("up")[0].split(" -- ")[1].split()
    assert "text" in failed
    assert sorted([*made, *failed]) == ["file", "reads", "text"]
    assert "reads" in made


def test_a_container_that_restarts_by_itself_is_not_stable(host: Host) -> None:
    services = host.services()
    host.change_container("reads", restarts=7)
    services.restart_together({"reads": OLD})
    services.wait_online("reads")
    host.change_container("reads", restarts=1)
    with pytest.raises(CutoverError, match="reads is not stable"):
        services.wait_stable(["reads"])


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"health": "unhealthy"}, "unhealthy"), ({"status": "exited", "code": 1}, "errored"), ({"status": "restarting"}, "launching")],
)  # fmt: skip
def test_a_container_that_is_ill_is_no_healthy_service(
    host: Host, changes: dict[str, Any], status: str
) -> None:
    host.change_container("file", **changes)
    process = host.processes()["file"]
    assert (process.status, process.healthy) == (status, False)


def test_a_probe_runs_in_the_service_s_container_or_in_a_new_one_for_a_job(host: Host) -> None:
    """What an entry point has put into the environment is in docker's own, never in its command line."""
    found = host.processes()
    pid = found["file"].pid
    argv = ("node", "--inspect", "--import", "./a.mjs", "src/x.js", "arg")
    given = {"PATH": "/bin", KEY: NEW}
    PROCESSES[pid] = Running(pid, 1, 0.0, argv, "/usr/local/bin/node", "/srv/app", given, 1000, 1000, apart=True)
    launch = host.manager.launch(found["file"])
    out = host.manager.run_launch(found["file"], launch, "--import=data:,", 10).output.strip()
    options = "--import ./a.mjs --import=data:,"
    assert out == f"exec {OLD} given {NEW} 1000:1000 /srv/app /usr/local/bin/node {options} src/x.js arg"
    assert NEW not in (host.root / "calls.log").read_text()
    host.env_file.write_text(f"{KEY}={NEW}\n")
    launch = host.manager.launch(found["job"])
    assert host.manager.run_launch(found["job"], launch, "--import=data:,", 10).output.strip() == f"run {NEW}"
    assert not host.calls("up")


def test_times_of_the_engine_are_read() -> None:
    assert epoch("1970-01-01T00:00:10.5Z") == 10.5
    assert epoch("1970-01-01T01:00:10.123456789+01:00") == 10.123456
    assert epoch("0001-01-01T00:00:00Z") == 0.0


def test_the_configuration_names_the_manager(host: Host) -> None:
    assert isinstance(manager_for(host.config), Compose)


# ------------------------------------------------------------------ a project of another user

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0 or not Path("/usr/bin/python3").exists(), reason="only root takes a user on")


@pytest.fixture
def foreign() -> Iterator[Host]:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        host = Host(Path(name))
        host.give_to(NOBODY)
        yield host


@as_root
def test_compose_runs_as_the_user_whose_files_say_what_it_does(foreign: Host) -> None:
    """Otherwise a file of that user's could mount root's directories into a container of root's."""
    foreign.manager.restart(foreign.processes()["text"], {KEY: NEW})
    assert foreign.uses()["text"] == NEW
    calls = foreign.calls("compose")
    assert {line.partition("] ")[0] for line in calls} == {f"[by {NOBODY} in {foreign.root}"}
    assert [line for line in calls if "--file=-" in line]  # our file is only root's to read
    assert stat.S_IMODE(foreign.manager.override.stat().st_mode) == 0o600
    assert {line.split()[1] for line in foreign.calls("inspect")} == {"0"}


@as_root
def test_compose_of_roots_own_project_runs_as_root(host: Host) -> None:
    host.manager.restart(host.processes()["text"], {KEY: NEW})
    assert {line.split()[1] for line in host.calls("compose")} == {"0"}
    assert not [line for line in host.calls("compose") if "--file=-" in line]


@as_root
def test_phase_0_refuses_a_project_whose_user_has_no_access_to_the_engine(foreign: Host) -> None:
    findings = Findings()
    check_product(foreign.config, foreign.manager, findings)
    assert not [text for text in findings.problems if "access to Docker" in text]
    foreign.change(denied=NOBODY)
    check_product(foreign.config, foreign.manager, findings)
    told = [text for text in findings.problems if "has no access to Docker" in text]
    assert told
    assert told[0].startswith(f"the Compose project shop in {foreign.root} belongs to user nobody, who has no access to Docker")
    with pytest.raises(CutoverError, match="has no access to Docker"):
        Compose(foreign.config).restart(foreign.processes()["text"], {KEY: NEW})


@as_root
def test_a_project_of_several_users_is_refused(foreign: Host) -> None:
    os.chown(foreign.root / "compose.yaml", 1, 1)
    with pytest.raises(CutoverError, match="belongs to several users"):
        foreign.manager.check_access()


@as_root
def test_each_path_of_a_project_of_several_users_is_named_with_its_owner(foreign: Host) -> None:
    os.chown(foreign.root / "compose.yaml", 1, 1)
    with pytest.raises(CutoverError) as caught:
        foreign.manager.check_access()
    assert f"({foreign.root}: nobody; {foreign.root}/compose.yaml: daemon, nobody)" in str(caught.value)


def record(host: Host) -> None:
    """A snapshot with what the manager says of itself."""
    before = host.config.state_dir / "before"
    before.mkdir(parents=True)
    (before / "snapshot.json").write_text(json.dumps({"manager": host.manager.recorded()}))


@as_root
def test_a_way_back_runs_as_the_user_of_the_snapshot_whoever_edited_a_file_since(foreign: Host) -> None:
    record(foreign)
    assert Snapshot(foreign.config.state_dir).manager() == {"user": "nobody", "files": [str(foreign.root / "compose.yaml")]}
    os.chown(foreign.root / "compose.yaml", 1, 1)
    Compose(foreign.config).restart(foreign.processes()["text"], {KEY: NEW})
    assert foreign.uses()["text"] == NEW
    assert {line.partition("] ")[0] for line in foreign.calls("compose")} == {f"[by {NOBODY} in {foreign.root}"}
    # Controls: in a directory of somebody else that user is not asked to run it, and never one who can change nothing.
    os.chown(foreign.root, 1, 1)
    os.chown(foreign.root / "compose.yaml", NOBODY, NOBODY)
    with pytest.raises(CutoverError, match="belongs to several users"):
        foreign.manager.user()
    os.chown(foreign.root / "compose.yaml", 2, 2)
    with pytest.raises(CutoverError, match="belongs to several users"):
        foreign.manager.user()


@as_root
def test_the_files_of_the_snapshot_are_used_where_no_container_names_any(foreign: Host) -> None:
    record(foreign)
    project = foreign.project()
    for one in project["containers"].values():
        one["files"] = ""
    foreign.store.write_text(json.dumps(project))
    Compose(foreign.config).restart(foreign.processes()["text"], {KEY: NEW})
    assert foreign.uses()["text"] == NEW
    (foreign.config.state_dir / "before" / "snapshot.json").unlink()
    with pytest.raises(CutoverError, match="Compose files of shop are not known"):  # the control
        Compose(foreign.config).processes()


@as_root
@pytest.mark.parametrize("name", [".env", "compose.yaml"])
def test_a_file_that_the_project_s_user_cannot_read_is_named_in_phase_0(foreign: Host, name: str) -> None:
    os.chown(foreign.root / name, 0, 0)
    findings = Findings()
    check_product(foreign.config, foreign.manager, findings)
    assert not [text for text in findings.problems if "cannot read" in text]  # the control: everybody may read it
    (foreign.root / name).chmod(0o600)
    (foreign.root / ".env").touch()
    check_product(foreign.config, Compose(foreign.config), findings)
    told = [text for text in findings.problems if "cannot read" in text]
    assert told
    assert f"runs as user nobody, who can change what it does, and that user cannot read {foreign.root / name} (root, mode 0600)" in told[0]
    assert OLD not in str(findings.problems)


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ("", ""),
        ('time="x" level=warning msg="old"\n', ""),
        ('time="x" level=warning msg="old"\nno configuration file provided: not found\n', ": no configuration file provided: not found"),
        (
            'failed to read /x/.env: line 1: unexpected character "+" in variable name "A+B=s3cret"\n',
            ': failed to read /x/.env: line 1: unexpected character "+" in variable name "A+B=***',
        ),
    ],
)
def test_docker_s_reason_is_told_without_values(errors: str, told: str) -> None:
    assert reason_of(Completed(1, "", errors)) == told


def test_every_failed_call_tells_its_reason(host: Host) -> None:
    host.change(complains="no space left on device")
    with pytest.raises(CutoverError, match=r"docker compose config of shop failed with exit code 3: no space left on device$"):
        host.processes()
    host.change(complains="")
    host.change(fails_to_start="driver failed programming external connectivity")
    with pytest.raises(CutoverError) as caught:
        host.manager.restart(host.processes()["text"], {KEY: NEW})
    assert caught.value.details["failed"]["text"] == (
        "docker compose up of text failed: driver failed programming external connectivity"
    )
