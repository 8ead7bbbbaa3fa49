"""What is told about the stack comes from docker's own answers, and an engine that is down is said."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from unit.ops_support import World, container

from glitchtip_ops.docker_stack import DatabaseSession, Stack, parse_container, parse_size
from glitchtip_ops.process import OpsError


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_containers_come_from_the_engine_sorted_without_finished_jobs(world: World) -> None:
    migrate = container(
        "migrate",
        State={"Status": "exited", "ExitCode": 0},
        HostConfig={"Memory": 0, "RestartPolicy": {"Name": "no"}},
    )
    world.state["containers"].append(migrate)
    world.save()
    found = Stack().containers()
    assert [c.service for c in found] == ["postgres", "valkey", "web", "worker"]
    assert all(c.well for c in found)
    assert "--filter=label=com.docker.compose.project=glitchtip" in world.calls()[0]
    assert Stack().memory_used(found)["glitchtip-web-1"] == 10 * 2**20


def test_a_failed_job_is_not_hidden() -> None:
    failed = container(
        "migrate", State={"Status": "exited", "ExitCode": 1}, HostConfig={"RestartPolicy": {"Name": "no"}}
    )
    assert not parse_container(failed).finished_job


@pytest.mark.parametrize(
    ("state", "well"),
    [
        ({"Status": "running", "Health": {"Status": "healthy"}}, True),
        ({"Status": "running", "Health": {"Status": "none"}}, True),
        ({"Status": "running", "Health": {"Status": "starting"}}, False),
        ({"Status": "running", "Health": {"Status": "unhealthy"}}, False),
        ({"Status": "restarting", "Health": {"Status": "healthy"}}, False),
        ({"Status": "paused", "Health": {"Status": "healthy"}}, False),
    ],
)
def test_well_means_running_and_healthy(state: dict[str, object], well: bool) -> None:
    assert parse_container(container("web", State=state)).well is well


def test_an_engine_that_does_not_answer_is_said(world: World) -> None:
    world.state["down"] = True
    world.save()
    with pytest.raises(OpsError, match="docker ps failed: Cannot connect to the Docker daemon"):
        Stack().containers()
    with pytest.raises(OpsError, match="cannot be run"):
        Stack(docker="docker-that-is-not-there").containers()


def test_a_stack_that_is_not_there_has_no_containers(world: World) -> None:
    world.state["containers"] = []
    world.save()
    assert Stack().containers() == []
    with pytest.raises(OpsError, match="no running container of service web"):
        Stack().container("web")


@pytest.mark.parametrize("entry", [{}, {"State": None}, {"State": {}, "Config": {}, "HostConfig": {}}])
def test_an_odd_answer_is_refused(entry: dict[str, object]) -> None:
    with pytest.raises(OpsError, match="something unexpected"):
        parse_container(entry)


@pytest.mark.parametrize(
    ("text", "size"), [("12.5MiB", 13107200), ("0B", 0), ("1.2kB", 1200), ("3GiB", 3 * 2**30)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "12", "1 XB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(OpsError, match="not one"):
        parse_size(text)


def test_use_is_memory_and_cpu_of_running_containers(world: World) -> None:
    world.state["stats"] = "10MiB / 100MiB\t12.50%"
    world.save()
    used = Stack().usage(Stack().containers())
    assert (used["glitchtip-web-1"].memory, used["glitchtip-web-1"].cpu) == (10 * 2**20, 12.5)
    world.state["stats"] = "10MiB / 100MiB\t--"
    world.save()
    assert Stack().usage(Stack().containers())["glitchtip-web-1"].cpu is None


def test_the_engine_tells_where_it_keeps_its_data(world: World) -> None:
    assert Stack().root_directory() == Path("/var/lib/docker")
    world.state["root"] = ""
    world.save()
    with pytest.raises(OpsError, match="did not tell"):
        Stack().root_directory()


def test_the_worker_is_left_out_only_where_one_process_does_all(world: World) -> None:
    named = ("postgres", "valkey", "web", "worker")
    assert Stack().services(named, Stack().containers()) == named
    without = [entry for entry in world.state["containers"] if "worker" not in entry["Name"]]
    world.state["containers"] = without
    world.save()
    assert Stack().services(named, Stack().containers()) == named  # a worker that is gone is missed
    without[0]["Config"]["Env"] = ["SECRET_KEY=s3cret", "SERVER_ROLE=all_in_one"]
    world.save()
    assert Stack().services(named, Stack().containers()) == named[:3]
    assert Stack().environment(Stack().container("web"), ["SERVER_ROLE"]) == {"SERVER_ROLE": "all_in_one"}


def session(*argv: str) -> DatabaseSession:
    pipe = subprocess.PIPE
    return DatabaseSession(subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True))


def test_a_database_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    begin = time.monotonic()
    with pytest.raises(OpsError, match=r"the database did not answer within 0\.3 s: see its container's log"):
        session("sleep", "60").execute("SELECT 1;", timeout=0.3)
    assert time.monotonic() - begin < 10


def test_a_session_that_ends_by_itself_says_why_at_once() -> None:
    ended = session("sh", "-c", "echo 'FATAL: no such database' >&2")
    with pytest.raises(OpsError, match=r"the database session ended: .*no such database"):
        ended.execute("SELECT 1;", timeout=30)
