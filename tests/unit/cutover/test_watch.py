"""The first-hour watch: each trigger takes the switch back, and without the trigger nothing happens."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.cutover.simulation import NEW, OLD, Simulation

from glitchtip_core.memory import Memory
from glitchtip_cutover.errors import BusyError, CutoverError, InterruptedRunError, RolledBackError
from glitchtip_cutover.watch import Watch, start_watch
from glitchtip_cutover.watch_mark import watch_mark

CONTAINERS = ("glitchtip-web-1", "glitchtip-worker-1")


def container(
    name: str, *, restarts: int = 0, status: str = "running", health: str = "healthy"
) -> dict[str, Any]:
    return {
        "Name": f"/{name}",
        "RestartCount": restarts,
        "State": {"Status": status, "ExitCode": 0, "Health": {"Status": health}},
        "HostConfig": {"RestartPolicy": {"Name": "unless-stopped"}},
    }


class FakeDocker:
    """Containers of the new tracker."""

    def __init__(self, root: Path) -> None:
        self.binary = root / "node"
        self.table = {name: container(name) for name in CONTAINERS}
        self.fails = False

    def containers(self, _project: str) -> list[dict[str, Any]]:
        if self.fails:
            raise CutoverError("Docker does not answer: is its service running?")
        return list(self.table.values())


class Watched:
    """A confirmed switch, its watch, and what happens at each look."""

    def __init__(self, root: Path, **changes: Any) -> None:
        settings = {"seconds": 600, "interval": 30, "max_memory_percent": 90, "missed_events": 3}
        self.world = Simulation(root, watch={**settings, **changes})
        self.world.cutover().snapshot()
        self.world.cutover().apply()
        self.world.cutover().confirm()
        start_watch(self.world.config, self.world.watches[-1])
        self.docker = FakeDocker(root)
        self.memory = Memory(1000, 500, "meminfo")
        self.rolled_back: list[str] = []
        self.going_down = False
        self.looks = 0
        self.at_look: Callable[[int], None] = lambda _number: None

    def roll_back(self, _config: object, reason: str) -> tuple[int, str]:
        self.rolled_back.append(reason)
        self.world.cutover().rollback(reason)
        return 0, "{}"

    def watch(self, roll_back: Callable[[Any, str], tuple[int, str]] | None = None) -> Watch:
        watch = Watch(
            self.world.config,
            self.world.cutover().host,
            docker=self.docker,  # type: ignore[arg-type]
            memory=lambda: self.memory,
            roll_back=roll_back or self.roll_back,
            going_down=lambda: self.going_down,
        )
        look = watch.look

        def counted() -> str | None:
            self.looks += 1
            self.at_look(self.looks)
            return look()

        watch.look = counted  # type: ignore[method-assign]
        return watch

    def events(self) -> list[str]:
        lines = (self.world.config.state_dir / "journal.jsonl").read_text().splitlines()
        return [json.loads(line)["event"] for line in lines]

    def change(self, service: str, **changes: Any) -> None:
        self.world.pm2.table[service] = dataclasses.replace(self.world.pm2.table[service], **changes)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_quiet_hour_passes_and_takes_nothing_back(watched: Watched) -> None:
    """The negative control of every trigger below."""
    began = watched.world.clock.now
    result = watched.watch().run()
    assert (result["state"], watched.rolled_back) == ("passed", [])
    assert watched.world.clock.now - began >= 599.4
    assert watched.looks >= 10
    assert watched.events()[-2:] == ["watch_begin", "watch_passed"]
    assert [event for event, _ in watched.world.told][-1] == "watch_passed"
    assert not watch_mark(watched.world.config).exists()
    assert set(watched.world.uses().values()) == {NEW}


def errored(watched: Watched, _look: int) -> None:
    watched.change("api", status="errored", pid=0)


def not_started(watched: Watched, _look: int) -> None:
    watched.change("api", status="launching", pid=0)


def gone(watched: Watched, _look: int) -> None:
    watched.world.pm2.table.pop("silent", None)


def crash_loop(watched: Watched, _look: int) -> None:
    watched.change("silent", restarts=watched.world.pm2.table["silent"].restarts + 1)


def many_restarts(watched: Watched, look: int) -> None:
    watched.change("silent", restarts=20 if look >= 3 else 0)


def container_restarted(watched: Watched, look: int) -> None:
    watched.docker.table["glitchtip-web-1"] = container("glitchtip-web-1", restarts=int(look >= 3))


def container_exited(watched: Watched, _look: int) -> None:
    watched.docker.table["glitchtip-worker-1"] = container("glitchtip-worker-1", status="exited")


def container_unhealthy(watched: Watched, _look: int) -> None:
    watched.docker.table["glitchtip-web-1"] = container("glitchtip-web-1", health="unhealthy")


def container_removed(watched: Watched, look: int) -> None:
    if look >= 3:
        watched.docker.table.pop("glitchtip-web-1", None)


def engine_dead(watched: Watched, look: int) -> None:
    watched.docker.fails = look >= 3


def memory_full(watched: Watched, _look: int) -> None:
    watched.memory = Memory(2 * 1024**3, int(1.9 * 1024**3), "cgroup")


def worker_dead(watched: Watched, _look: int) -> None:
    watched.world.lost = {"3"}


def tracker_dead(watched: Watched, _look: int) -> None:
    watched.world.unreachable = {"new"}


TRIGGERS = [
    (errored, "api does not start"),
    (not_started, "the service api does not run: it is launching"),
    (gone, "the service silent does not run: it is gone"),
    (crash_loop, "silent restarts again and again"),
    (many_restarts, "silent restarts again and again"),
    (container_restarted, "glitchtip-web-1 of the new tracker crashed"),
    (container_exited, "glitchtip-worker-1 of the new tracker is exited"),
    (container_unhealthy, "glitchtip-web-1 of the new tracker is unhealthy"),
    (container_removed, "glitchtip-web-1 of the new tracker is gone"),
    (engine_dead, "Docker, which runs the new tracker, does not answer"),
    (memory_full, "memory is used to 95 % of 2048 MiB (cgroup), more than 90 %"),
    (worker_dead, "3 test events in a row were not read back"),
    (tracker_dead, "3 test events in a row were not read back"),
]


@pytest.mark.parametrize(("fault", "sentence"), TRIGGERS, ids=[fault.__name__ for fault, _ in TRIGGERS])
def test_each_trigger_takes_the_switch_back(
    watched: Watched, fault: Callable[[Watched, int], None], sentence: str
) -> None:
    watched.at_look = lambda look: fault(watched, look)
    told: list[str] = []

    def only_told(_config: object, reason: str) -> tuple[int, str]:
        told.append(reason)
        return 0, "{}"

    with pytest.raises(RolledBackError, match="the switch was taken back") as caught:
        watched.watch(only_told).run()
    assert sentence in str(caught.value)
    assert [sentence in reason for reason in told] == [True]
    assert told[0].startswith("first-hour watch: ")
    assert watched.events()[-1] == "watch_alarm"
    assert not watch_mark(watched.world.config).exists()
    assert any(event == "watch_alarm" for event, _ in watched.world.told)


def test_the_rollback_of_an_alarm_is_the_ordinary_one(watched: Watched) -> None:
    watched.at_look = lambda look: memory_full(watched, look)
    with pytest.raises(RolledBackError):
        watched.watch().run()
    assert set(watched.world.uses().values()) == {OLD}
    assert watched.world.cutover().state().phase == "rolled_back"


def once(
    fault: Callable[[Watched, int], None], cure: Callable[[Watched], None]
) -> Callable[[Watched, int], None]:
    def at(watched: Watched, look: int) -> None:
        if look == 3:
            fault(watched, look)
        elif look == 4:
            cure(watched)

    return at


@pytest.mark.parametrize(
    "fault",
    [
        once(not_started, lambda watched: watched.change("api", status="online", pid=9000)),
        once(crash_loop, lambda _watched: None),
        once(
            container_unhealthy,
            lambda watched: watched.docker.table.update({"glitchtip-web-1": container("glitchtip-web-1")}),
        ),
        once(memory_full, lambda watched: setattr(watched, "memory", Memory(1000, 500, "meminfo"))),
        once(worker_dead, lambda watched: watched.world.lost.clear()),
        once(
            lambda watched, _: setattr(watched.docker, "fails", True),
            lambda watched: setattr(watched.docker, "fails", False),
        ),
    ],
    ids=["slow start", "one restart", "one failed check", "one peak", "one lost event", "engine restarted"],
)
def test_what_happens_once_is_no_alarm(watched: Watched, fault: Callable[[Watched, int], None]) -> None:
    watched.at_look = lambda look: fault(watched, look)
    assert watched.watch().run()["state"] == "passed"
    assert watched.rolled_back == []


def test_a_watch_goes_on_after_a_reboot_for_the_rest_of_its_time(watched: Watched) -> None:
    began = watched.world.clock.now

    def power_cut(look: int) -> None:
        if look == 4:
            raise InterruptedRunError("the run was interrupted by SIGTERM")

    watched.at_look = power_cut
    watched.going_down = True
    assert watched.watch().run()["state"] == "paused"
    assert watch_mark(watched.world.config).exists()
    watched.at_look = lambda _look: None
    assert watched.watch().run()["state"] == "passed"
    assert 599.4 <= watched.world.clock.now - began < 700
    assert watched.events().count("watch_begin") == 1


def test_a_stop_by_hand_ends_it_for_good_and_is_journalled(watched: Watched) -> None:
    def stop(look: int) -> None:
        if look == 2:
            raise InterruptedRunError("the run was interrupted by SIGTERM")

    watched.at_look = stop
    assert watched.watch().run()["state"] == "stopped"
    assert watched.events()[-1] == "watch_stopped"
    assert not watch_mark(watched.world.config).exists()
    assert watched.rolled_back == []
    assert watched.watch().run()["state"] == "not watching"


@pytest.mark.parametrize(
    "place", ["look_at_services", "look_at_containers", "look_at_memory", "look_at_events"]
)
def test_a_stop_in_the_middle_of_a_look_is_no_finding(
    watched: Watched, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interruption is an error of ours, too; taken for a failed look it would be lost."""

    def interrupted(*_: object, **__: object) -> Any:
        raise InterruptedRunError("the run was interrupted by SIGTERM")

    watch = watched.watch()
    if place == "look_at_services":
        monkeypatch.setattr(watched.world.pm2, "processes", interrupted)
    elif place == "look_at_containers":
        monkeypatch.setattr(watched.docker, "containers", interrupted)
    elif place == "look_at_memory":
        monkeypatch.setattr(watch.checks, "_memory", interrupted)
    else:
        watch.host.send_test_event = interrupted
    assert watch.run()["state"] == "stopped"


def test_a_rollback_by_hand_ends_the_watch(watched: Watched) -> None:
    def by_hand(look: int) -> None:
        if look == 2:
            watched.world.cutover().rollback()

    watched.at_look = by_hand
    assert watched.watch().run()["state"] == "over"
    assert watched.rolled_back == []
    assert not watch_mark(watched.world.config).exists()


def test_an_alarm_while_another_run_is_under_way_is_decided_by_the_next_look(watched: Watched) -> None:
    busy = [True, False]

    def roll_back(config: object, reason: str) -> tuple[int, str]:
        if busy.pop(0):
            raise BusyError("another run is under way on this host")
        return watched.roll_back(config, reason)

    watched.at_look = lambda look: memory_full(watched, look)
    with pytest.raises(RolledBackError):
        watched.watch(roll_back).run()
    assert len(watched.rolled_back) == 1


def test_a_rollback_that_fails_is_told_and_keeps_the_mark(watched: Watched) -> None:
    watched.at_look = lambda look: memory_full(watched, look)
    with pytest.raises(CutoverError, match="the rollback ended with code 4"):
        watched.watch(lambda _config, _reason: (4, '{"reason": "silent did not come back"}')).run()
    assert watch_mark(watched.world.config).exists()


@pytest.mark.parametrize("changes", [{"compose_project": ""}, {}], ids=["not wanted", "none there"])
def test_without_containers_that_is_said_once(tmp_path: Path, changes: dict[str, Any]) -> None:
    watched = Watched(tmp_path, **changes)
    watched.docker.table.clear()
    assert watched.watch().run()["state"] == "passed"
    assert watched.events().count("watch_note") == 1


def test_services_that_fell_silent_are_reported_and_no_reason(watched: Watched) -> None:
    watched.world.emitting = {"canary"}
    watched.at_look = lambda _look: watched.world.store(NEW, "api", server="another.example.org")
    assert watched.watch().run()["silent"] == ["api"]


def test_the_mirror_and_a_watch_of_no_seconds_are_not_watched(tmp_path: Path) -> None:
    world = Simulation(tmp_path, watch={"seconds": 0})
    world.config.state_dir.mkdir()
    start_watch(world.config, {"attempt": 1})
    other = Simulation(tmp_path)
    start_watch(other.config, {"attempt": 1, "stands": "mirror"})
    assert not watch_mark(world.config).exists()
