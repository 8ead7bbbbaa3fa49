"""The role's services become containers with every restriction that the Compose file has, and memory counters are read from either cgroup version."""

from __future__ import annotations

import json

import pytest
from drills import limits, load, role_stack
from drills.role_stack import Memory, RoleStack, rendered, run_arguments
from rig import subject
from rig.subject import Subject

IMAGES = {"glitchtip": "g:1", "postgres": "p:1", "valkey": "v:1"}


@pytest.fixture(scope="module")
def document():
    given = {"glitchtip_version": "5.2.0", "glitchtip_images": IMAGES}
    return rendered(given)[0]


def options(arguments):
    """Option to its values."""
    found: dict[str, list[str]] = {}
    for number, word in enumerate(arguments):
        if word.startswith("--"):
            value = arguments[number + 1] if number + 1 < len(arguments) else ""
            found.setdefault(word, []).append("" if value.startswith("--") else value)
    return found


@pytest.mark.parametrize("service", ["web", "worker", "postgres", "valkey"])
def test_no_restriction_of_the_compose_file_is_lost(document, service):
    wanted = document["services"][service]
    found = options(run_arguments(wanted, {}))
    limit = wanted["deploy"]["resources"]["limits"]
    assert found["--memory"] == found["--memory-swap"] == [limit["memory"]]
    assert found["--cpus"] == [limit["cpus"]]
    assert found["--cpu-shares"] == [str(wanted["cpu_shares"])]
    assert found["--pids-limit"] == [str(wanted["deploy"]["resources"]["limits"]["pids"])]
    assert found["--cap-drop"] == wanted["cap_drop"]
    assert found.get("--cap-add", []) == wanted.get("cap_add", [])
    assert found["--security-opt"] == wanted["security_opt"]
    assert ("--read-only" in found) == bool(wanted.get("read_only"))
    assert found.get("--tmpfs", []) == wanted.get("tmpfs", [])


def test_a_control_replaces_the_memory_limit_alone(document):
    before, after = (
        run_arguments(document["services"]["valkey"], given) for given in ({}, {"memory": "64m"})
    )
    assert [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]] == [("336m", "64m")] * 2


def test_secrets_are_filled_in_from_the_stack(monkeypatch):
    given = Subject("example/glitchtip:5.2.0", "5.2.0", "5.2", given=True)
    monkeypatch.setattr(subject, "given", lambda: given)
    stack = RoleStack("gtm-test", 1)
    assert stack.image == "example/glitchtip:5.2.0"
    for service in ("web", "worker", "postgres"):
        values = stack.environment(service)
        assert not [value for value in values.values() if value.startswith("${")]
    assert stack.environment("web")["DATABASE_PASSWORD"] == stack.environment("postgres")["POSTGRES_PASSWORD"]
    assert stack.services[:2] == ["postgres", "valkey"]


V1 = {
    "memory.max_usage_in_bytes": f"{200 * 2**20}\n",
    "memory.limit_in_bytes": f"{336 * 2**20}\n",
    "memory.failcnt": "7\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "cgroup.procs": "",
}
V2 = {
    "memory.peak": f"{200 * 2**20}\n",
    "memory.max": f"{336 * 2**20}\n",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n",
    "cgroup.procs": "",
}


@pytest.mark.parametrize("files", [V1, V2], ids=["version 1", "version 2"])
def test_kills_are_read_from_either_version_of_control_groups(tmp_path, monkeypatch, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    state = {"State": {"OOMKilled": False, "Pid": 7}, "RestartCount": 0}
    monkeypatch.setattr(role_stack, "_inspected", lambda _: state)
    monkeypatch.setattr(role_stack, "cgroup_of", lambda _: tmp_path)
    found = role_stack.memory_of("x")
    assert (found.peak, found.limit, found.failures, found.kills) == (200, 336, 7, 2)
    assert limits.killed({"valkey": found}) == ["valkey was killed for memory (2 kills, 0 restarts)"]


@pytest.mark.parametrize(
    ("kills", "restarts", "killed", "red"),
    [(0, 0, False, False), (1, 0, False, True), (0, 1, False, True), (0, 0, True, True)],
)
def test_a_kill_is_seen_also_after_the_container_was_started_again(kills, restarts, killed, red):
    """Its control group is a new one then: the engine remembers."""
    one = Memory(1, 1, 1, 9999, kills, restarts, killed)
    assert bool(limits.killed({"web": one})) == red


@pytest.mark.parametrize("size", [2000, 8000, 50_000])
def test_an_envelope_has_about_the_size_that_was_asked_for(size):
    body = load.envelope("0" * 32, 7, size)
    header, item, event = body.decode().splitlines()
    assert json.loads(header)["event_id"] == "0" * 32
    assert json.loads(item) == {"type": "event"}
    assert abs(len(event) - size) < 900
    assert len(json.loads(event)["breadcrumbs"]) == 20
