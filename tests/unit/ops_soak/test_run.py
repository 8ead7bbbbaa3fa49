"""The sampler covers the ordered time and goes on after an interruption; an order is given once."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from unit.ops_support import World, container

from glitchtip_ops import soak
from glitchtip_ops.docker_stack import Stack
from glitchtip_ops.files import append_line
from glitchtip_ops.host_state import Memory, Pm2Process
from glitchtip_ops.probe import Probe
from glitchtip_ops.process import OpsError
from glitchtip_ops.soak import GO, NO_GO, Plan, Sampler, SoakConfig, SoakFiles, run_soak, start

START = datetime(2026, 1, 10, 6, 0, tzinfo=UTC)


class Time:
    """A clock that moves when somebody sleeps, and a little with every sample."""

    def __init__(self) -> None:
        self.now = START
        self.slept: list[float] = []

    def clock(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)


class FakeSampler:
    """Answers like a healthy host; ``cost`` seconds a sample."""

    def __init__(self, time: Time, cost: float = 1.3) -> None:
        self.time, self.cost, self.sinces = time, cost, []  # type: ignore[var-annotated]

    def take(self, now: datetime, since: datetime) -> dict[str, Any]:
        self.sinces.append(since)
        self.time.now += timedelta(seconds=self.cost)
        return {
            "at": now.isoformat(timespec="seconds"),
            "containers": [],
            "memory": {"system_percent": 1, "system_source": "meminfo", "stack_used": 1, "stack_limit": 0},
            "pm2": [],
            "worker_errors": 0,
            "probe": {"event_id": "e", "captured": True, "seconds": 1.0, "error": None},
            "errors": [],
        }


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path, monkeypatch)
    world.without_processes(monkeypatch)
    return world


def order(world: World, **options: Any) -> dict[str, Any]:
    config = SoakConfig(services=())
    return start(world.settings, config, 60, 10, clock=lambda: START, **{"restart": False, **options})


def files(world: World) -> SoakFiles:
    return SoakFiles(world.root / "state" / "m1")


def test_samples_cover_the_ordered_time_at_its_interval(world: World) -> None:
    order(world)
    time = Time()
    plan = files(world).read_plan()
    assert plan is not None
    verdict = run_soak(plan, files(world), FakeSampler(time), clock=time.clock, sleep=time.sleep)  # type: ignore[arg-type]
    assert verdict["verdict"] == GO
    times = [entry["at"][-14:-6] for entry in files(world).read_samples()]
    assert times == ["06:00:00", "06:00:10", "06:00:20", "06:00:30", "06:00:40", "06:00:50", "06:01:00"]
    assert files(world).status()["state"] == "finished"
    assert files(world).verdict.stat().st_mode & 0o777 == 0o600


def test_a_run_that_was_interrupted_goes_on_and_its_gap_is_seen(world: World) -> None:
    order(world)
    time = Time()
    plan = files(world).read_plan()
    assert plan is not None
    sampler = FakeSampler(time)
    append_line(files(world).samples, json.dumps(sampler.take(START, START)))
    time.now = START + timedelta(seconds=45)
    verdict = run_soak(plan, files(world), sampler, clock=time.clock, sleep=time.sleep)  # type: ignore[arg-type]
    assert verdict["verdict"] == NO_GO
    assert verdict["reasons"] == ["1 gap(s) in the samples, the longest 45 s (allowed: 30 s)"]
    assert sampler.sinces[1] == START


def test_a_sample_slower_than_the_interval_does_not_end_the_run_early(world: World) -> None:
    order(world)
    time = Time()
    plan = files(world).read_plan()
    assert plan is not None
    verdict = run_soak(plan, files(world), FakeSampler(time, 14), clock=time.clock, sleep=time.sleep)  # type: ignore[arg-type]
    assert verdict["verdict"] == GO
    assert verdict["figures"]["span_seconds"] >= 60


def test_an_order_is_given_once(world: World) -> None:
    assert order(world, dry_run=True)["changed"]
    assert files(world).read_plan() is None
    first = order(world)
    second = order(world)
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["state"] == second["state"] == "running"
    with pytest.raises(OpsError, match="exists already for migration m1"):
        start(world.settings, SoakConfig(), 120, 10, restart=False)


def test_a_new_run_keeps_the_files_of_the_old(world: World) -> None:
    order(world)
    append_line(files(world).samples, "{}")
    assert order(world, restart=True)["changed"]
    assert files(world).read_samples() == []
    kept = sorted(path.name for path in files(world).directory.iterdir())
    assert kept == ["plan.20260110-060000.json", "plan.json", "soak.20260110-060000.jsonl"]


def test_an_interval_longer_than_the_run_is_refused(world: World) -> None:
    with pytest.raises(OpsError, match="longer than the soak"):
        start(world.settings, SoakConfig(), 10, 60, restart=False)


def test_a_torn_line_is_left_out_and_closed(world: World) -> None:
    path = files(world).samples
    append_line(path, '{"at": "2026-01-10T06:00:00+00:00"}')
    with path.open("a") as stream:
        stream.write('{"at": "2026-01-10T06:0')
    append_line(path, '{"at": "2026-01-10T06:00:20+00:00"}')
    assert [entry["at"][17:19] for entry in files(world).read_samples()] == ["00", "20"]


def test_a_sample_holds_every_reading(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.state["logs"] = {"worker": "fine\nERROR: bad\n"}
    world.save()
    monkeypatch.setattr(soak, "read_memory", lambda: Memory(1000, 610, "cgroup"))
    monkeypatch.setattr(soak, "read_pm2", lambda *_: [Pm2Process("api", "online", 4, 0, False)])
    monkeypatch.setenv("TZ", "UTC")
    config = SoakConfig(pm2_services=("api",))
    taken = Sampler(config, Stack(), lambda: Probe("e" * 32, True, 1.0, None)).take(START, START)
    assert taken["errors"] == []
    assert [entry["service"] for entry in taken["containers"]] == ["postgres", "valkey", "web", "worker"]
    assert taken["memory"]["system_percent"] == 61.0
    assert (taken["memory"]["stack_used"], taken["memory"]["stack_limit"]) == (40 * 2**20, 400 * 2**20)
    assert taken["pm2"] == [{**asdict(Pm2Process("api", "online", 4, 0, False)), "well": True}]
    assert taken["worker_errors"] == 1
    assert taken["probe"]["captured"]


def test_a_reading_that_fails_is_named_and_the_rest_is_still_taken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Memory:
        raise OpsError("no meminfo")

    monkeypatch.setattr(soak, "read_memory", broken)
    world.state["containers"] = [container("web")]
    world.save()
    taken = Sampler(SoakConfig(), Stack(), lambda: Probe("e", False, 30.0, "refused")).take(START, START)
    assert taken["errors"] == [
        "memory: no meminfo",
        "worker log: no running container of service worker in the Compose project glitchtip",
    ]
    assert len(taken["containers"]) == 1
    assert taken["probe"]["error"] == "refused"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"intervall": 3}', "unknown keys: intervall"),
        ('{"thresholds": {"max_x": 1}}', "threshold that does not"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "soak.json"
    path.write_text(text)
    with pytest.raises(OpsError, match=sentence):
        SoakConfig.read(path)


def test_settings_of_the_role_are_read(tmp_path: Path) -> None:
    path = tmp_path / "soak.json"
    path.write_text('{"services": ["web"], "thresholds": {"max_memory_percent": 70}}')
    config = SoakConfig.read(path)
    assert (config.services, config.thresholds.max_memory_percent) == (("web",), 70)


def test_plan_keeps_thresholds_of_the_day_it_was_ordered(world: World) -> None:
    order(world)
    plan = files(world).read_plan()
    assert isinstance(plan, Plan)
    assert plan.thresholds.max_memory_percent == 80.0
