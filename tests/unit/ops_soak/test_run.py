"""Samples cover the ordered time whatever the timer, the disk and the power do; an order is given once."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from unit.ops_soak import START, make_plan, make_run, make_sample, with_mirror
from unit.ops_support import World, container

from glitchtip_core.files import append_line, lock, write_object
from glitchtip_core.memory import Memory
from glitchtip_ops import cli
from glitchtip_ops.docker_stack import Stack
from glitchtip_ops.host_state import Cpu, Pm2Process
from glitchtip_ops.probe import Probe
from glitchtip_ops.process import OpsError
from glitchtip_ops.soak import GO, NO_GO, SoakConfig, SoakFiles, commands, running, sampler
from glitchtip_ops.soak.running import open_verdict, refresh, sample_due, start, status
from glitchtip_ops.soak.sampler import Sampler, real_issues


class Host:
    """A healthy host with a clock of its own; a sample takes ``cost`` seconds."""

    def __init__(self, cost: float = 1.3) -> None:
        self.now, self.cost = START, cost
        self.taken = 0

    def clock(self) -> datetime:
        return self.now

    def take(self, plan: Any, now: datetime, _before: Any) -> dict[str, Any]:
        self.now += timedelta(seconds=self.cost)
        self.taken += 1
        sample = make_sample((now - START).total_seconds())
        return with_mirror([sample])[0] if plan.mode != "probe" else sample

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path, monkeypatch)
    world.without_processes(monkeypatch)
    return world


def order(world: World, **options: Any) -> dict[str, Any]:
    config = options.pop("config", SoakConfig(pm2_services=("ai-admin-api", "ai-admin-batch-processor")))
    values = {"restart": False, "clock": lambda: START, "versions": lambda _: {"GlitchTip": "5.2"}, **options}
    return start(world.settings, config, 60, 10, **values)


def files(world: World, name: str = "") -> SoakFiles:
    return SoakFiles(world.root / "state" / "m1", name)


def timer(soak_files: SoakFiles, host: Host, every: float, most: int = 40) -> list[str]:
    """What systemd does: start a step every so often until the soak has ended; the states of the steps."""
    states: list[str] = []
    began = host.now
    for number in range(most):
        host.now = max(host.now, began + timedelta(seconds=number * every))
        states.append(sample_due(soak_files, host, clock=host.clock)["state"])
        if states[-1] == "finished":
            return states
    return states


def test_samples_cover_the_ordered_time_at_its_interval(world: World) -> None:
    order(world)
    assert timer(files(world), Host(), 10) == ["sampled"] * 6 + ["finished"]
    times = [entry["at"][11:19] for entry in files(world).read_samples()]
    assert times == ["06:00:00", "06:00:10", "06:00:20", "06:00:30", "06:00:40", "06:00:50", "06:01:00"]
    found = status(files(world), START)
    assert (found["state"], found["verdict"], found["reasons"]) == ("finished", GO, [])
    assert files(world).verdict.stat().st_mode & 0o777 == 0o600
    document = json.loads(files(world).verdict.read_text())
    assert (document["verdict"], document["migration_id"]) == (GO, "m1")
    assert datetime.fromisoformat(document["judged_at"]).tzinfo is not None


@pytest.mark.parametrize("every", [10.15, 9.9, 5.0, 2.0])
def test_a_timer_that_is_early_late_or_faster_takes_no_sample_too_many(world: World, every: float) -> None:
    order(world)
    host = Host(cost=0.1)
    assert timer(files(world), host, every)[-1] == "finished"
    assert 6 <= host.taken <= 9
    assert status(files(world), START)["verdict"] == GO


def test_a_sample_slower_than_the_interval_does_not_end_the_run_early(world: World) -> None:
    order(world)
    timer(files(world), Host(14), 10)
    found = status(files(world), START)
    assert found["verdict"] == GO
    assert found["figures"]["span_seconds"] >= 60


def test_nothing_is_done_when_no_soak_was_ordered_or_its_verdict_stands(world: World) -> None:
    host = Host()
    assert sample_due(files(world), host, clock=host.clock)["state"] == "absent"
    order(world)
    timer(files(world), host, 10)
    before, taken = files(world).verdict.read_bytes(), host.taken
    host.pass_time(100)
    assert sample_due(files(world), host, clock=host.clock)["state"] == "finished"
    assert (files(world).verdict.read_bytes(), host.taken) == (before, taken)


def test_a_host_that_was_off_goes_on_and_its_gap_is_seen(world: World) -> None:
    order(world)
    host = Host()
    sample_due(files(world), host, clock=host.clock)
    host.now = START + timedelta(seconds=45)
    timer(files(world), host, 10)
    found = status(files(world), START)
    assert found["verdict"] == NO_GO
    assert found["reasons"] == ["1 gap(s) in the samples, the longest 45 s (allowed: 30 s)"]


def test_a_torn_last_line_is_left_out_and_closed(world: World) -> None:
    order(world)
    host = Host()
    for seconds in (0, 10):
        host.now = START + timedelta(seconds=seconds)
        sample_due(files(world), host, clock=host.clock)
    with files(world).samples.open("a") as stream:
        stream.write('{"at": "2026-01-10T06:0')
    host.now = START + timedelta(seconds=20)
    sample_due(files(world), host, clock=host.clock)
    assert [entry["at"][17:19] for entry in files(world).read_samples()] == ["00", "10", "20"]
    edges = files(world).edges()
    assert edges is not None
    assert [each["at"][17:19] for each in edges] == ["00", "20"]


def test_the_last_sample_is_found_behind_a_torn_line(world: World) -> None:
    files(world).add(make_sample(0))
    files(world).add(make_sample(10))
    with files(world).samples.open("ab") as stream:
        stream.write(b'{"at": "\xff')
    edges = files(world).edges()
    assert edges is not None
    assert edges[1]["at"] == make_sample(10)["at"]


@pytest.mark.parametrize("line", ["{}", "[]", "7", '{"at": 7}', '{"at": "noon"}', "\x00\x00"])
def test_a_line_that_is_no_sample_is_left_out(world: World, line: str) -> None:
    append_line(files(world).samples, line)
    assert files(world).edges() is None
    files(world).add(make_sample(10))
    assert len(list(files(world).read_samples())) == 1


def test_a_full_disk_costs_samples_and_is_said_and_the_verdict_comes_when_there_is_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    order(world)
    host, full = Host(0), [False]

    def fsync(descriptor: int, real: Callable[[int], None] = os.fsync) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    for number in range(6):
        host.now = START + timedelta(seconds=10 * number)
        full[0] = number == 3
        if full[0]:
            with pytest.raises(OpsError, match=r"the sample of .* is lost: .*No space left"):
                sample_due(files(world), host, clock=host.clock)
        else:
            sample_due(files(world), host, clock=host.clock)
    host.now = START + timedelta(seconds=60)
    with monkeypatch.context() as patch:
        patch.setattr(running, "write_object", lambda *_: (_ for _ in ()).throw(OpsError("no room")))
        with pytest.raises(OpsError, match="no room"):
            sample_due(files(world), host, clock=host.clock)
    assert not files(world).verdict.exists()
    taken = host.taken
    assert sample_due(files(world), host, clock=host.clock)["state"] == "finished"
    assert host.taken == taken  # judged, not sampled again
    assert status(files(world), START)["verdict"] == GO


def test_a_line_of_which_the_disk_took_a_part_is_written_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, bytes(data)[:3]))
    append_line(tmp_path / "lines", "0123456789")
    assert (tmp_path / "lines").read_text() == "0123456789\n"
    monkeypatch.setattr("glitchtip_core.files.write_all", os.write)
    append_line(tmp_path / "control", "0123456789")
    assert (tmp_path / "control").read_text() == "012"


def test_an_order_is_given_once(world: World) -> None:
    assert order(world, dry_run=True)["changed"]
    assert files(world).read_plan() is None
    first, second = order(world), order(world)
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["state"] == second["state"] == "running"
    assert first["plan"]["versions"] == {"GlitchTip": "5.2"}
    with pytest.raises(OpsError, match="exists already for migration m1"):
        start(world.settings, SoakConfig(), 120, 10, restart=False)
    with pytest.raises(OpsError, match="exists already for migration m1"):
        order(world, mode="mirror")


def test_a_new_run_keeps_the_files_of_the_old(world: World) -> None:
    order(world)
    files(world).add(make_sample(0))
    assert order(world, restart=True)["changed"]
    assert list(files(world).read_samples()) == []
    kept = sorted(path.name for path in files(world).directory.iterdir())
    assert kept == ["plan.20260110-060000.json", "plan.json", "soak.20260110-060000.jsonl"]


def test_a_sample_that_was_under_way_when_the_soak_began_anew_is_dropped(world: World) -> None:
    order(world)

    class Slow(Host):
        def take(self, plan: Any, now: datetime, before: Any) -> dict[str, Any]:
            order(world, restart=True, clock=lambda: START + timedelta(seconds=3))
            return super().take(plan, now, before)

    host = Slow()
    assert sample_due(files(world), host, clock=host.clock)["state"] == "waiting"
    assert list(files(world).read_samples()) == []


@pytest.mark.parametrize(
    ("config", "options", "sentence"),
    [
        (SoakConfig(thresholds={"max_memory_percent": 120}), {}, "a percentage ends at 100"),
        (SoakConfig(mode="twice"), {}, "'twice' is no mode of a soak"),
        (SoakConfig(valid_for=0), {}, "valid_for"),
        (SoakConfig(), {"name": "../up"}, "is no name of a soak"),
        (SoakConfig(), {"name": "Umlaut-ä"}, "is no name of a soak"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    world: World, config: SoakConfig, options: dict[str, Any], sentence: str, dry_run: bool
) -> None:
    with pytest.raises(OpsError, match=sentence):
        order(world, config=config, dry_run=dry_run, **options)
    assert not (world.root / "state").exists()


def test_a_refused_restart_leaves_the_running_soak_alone(world: World) -> None:
    order(world)
    before = files(world).plan.read_bytes()
    with pytest.raises(OpsError, match="cannot be negative"):
        order(world, restart=True, config=SoakConfig(thresholds={"max_pm2_restarts": -1}))
    assert files(world).plan.read_bytes() == before


def test_a_soak_after_the_cutover_has_files_of_its_own(world: World) -> None:
    order(world)
    host = Host()
    timer(files(world), host, 10)
    before = {path.name: path.read_bytes() for path in files(world).directory.iterdir()}
    order(world, name="after-cutover", mode="after", clock=host.clock)
    second = files(world, "after-cutover")
    assert [each.name for each in SoakFiles.all_of(files(world).directory)] == ["", "after-cutover"]
    timer(second, host, 10)
    document = json.loads(second.verdict.read_text())
    assert (document["verdict"], document["name"], document["mode"]) == (GO, "after-cutover", "after")
    assert {name: (files(world).directory / name).read_bytes() for name in before} == before


def test_a_verdict_is_judged_again_when_parity_has_come_and_gets_no_younger(world: World) -> None:
    config = SoakConfig(pm2_services=("ai-admin-api",), mode="mirror", require_parity=True)
    order(world, config=config)
    plan = files(world).read_plan()
    assert plan is not None
    with pytest.raises(OpsError, match="has not ended"):
        refresh(files(world), plan, START)
    timer(files(world), Host(), 10)
    first = json.loads(files(world).verdict.read_text())
    assert (first["verdict"], len(first["reasons"])) == (NO_GO, 1)
    later = START + timedelta(hours=3)
    parity = {"migration_id": "m1", "compared_at": later.isoformat(), "ratio": 1.0, "verdict": "equal"}
    write_object(files(world).parity, parity)
    refresh(files(world), plan, later)
    second = json.loads(files(world).verdict.read_text())
    assert second["verdict"] == GO
    assert second["judged_at"] == first["judged_at"]
    assert second["refreshed_at"] == later.isoformat(timespec="seconds")


def test_a_verdict_that_was_removed_comes_back_as_old_as_its_samples(world: World) -> None:
    order(world)
    host = Host()
    timer(files(world), host, 10)
    files(world).verdict.unlink()
    host.pass_time(3 * 86400)
    assert sample_due(files(world), host, clock=host.clock)["state"] == "finished"
    judged = datetime.fromisoformat(json.loads(files(world).verdict.read_text())["judged_at"])
    assert judged <= START + timedelta(seconds=70)


def test_a_restart_that_was_cut_off_leaves_no_soak_that_runs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    order(world)
    host = Host()
    timer(files(world), host, 10)
    renamed: list[Path] = []

    def cut(path: Path, target: Path, real: Callable[..., Path] = Path.rename) -> Path:
        if renamed:
            raise KeyboardInterrupt
        renamed.append(path)
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", cut)
        with pytest.raises(KeyboardInterrupt):
            order(world, restart=True)
    assert sample_due(files(world), host, clock=host.clock)["state"] == "absent"
    assert order(world)["changed"]
    assert list(files(world).read_samples()) == []


def test_a_soak_whose_timer_does_not_run_is_said_to_stand_still(world: World) -> None:
    order(world)
    assert status(files(world), START + timedelta(seconds=29))["stalled"] is None
    assert "glitchtip-soak.timer" in status(files(world), START + timedelta(seconds=31))["stalled"]


def test_the_verdict_of_a_running_soak_is_not_kept(world: World) -> None:
    order(world)
    host = Host()
    sample_due(files(world), host, clock=host.clock)
    plan = files(world).read_plan()
    assert plan is not None
    found = open_verdict(files(world), plan, host.now)
    assert (found["verdict"], found["final"]) == (NO_GO, False)
    assert not files(world).verdict.exists()


def test_one_sample_is_not_read_by_reading_all_of_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    order(world)
    for sample in make_run(duration=50):
        files(world).add(sample)
    parsed: list[int] = []
    from glitchtip_ops.soak import store

    monkeypatch.setattr(store, "_LONGEST_LINE", 4096)
    real = store._sample_of
    monkeypatch.setattr(store, "_sample_of", lambda line: (parsed.append(1), real(line))[1])
    assert files(world).edges() is not None
    assert len(parsed) <= 4


# --- the readings -----------------------------------------------------------------------------------------


@pytest.fixture
def readings(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(sampler, "read_memory", lambda: Memory(1000, 610, "cgroup"))
    monkeypatch.setattr(sampler, "read_cpu", lambda: Cpu(300, 1000, 2, 0.5, 0.4))
    monkeypatch.setattr(
        sampler, "read_pm2", lambda *_: [Pm2Process("api", "online", 4, 0, False, 64 * 2**20, 1.5)]
    )
    world.state["logs"] = {"worker": "fine\nERROR: bad\n"}
    world.state["queue"] = {"celery": 12}
    world.state["root"] = str(world.root)
    world.save()
    return world


def take(config: SoakConfig, before: Any = None, **options: Any) -> dict[str, Any]:
    plan = make_plan(pm2_services=config.pm2_services, mode=config.mode)
    probe = Probe("e" * 32, True, 1.0, None)
    return Sampler(config, Stack(), lambda: probe, **options).take(
        plan, START + timedelta(seconds=60), before
    )


@pytest.mark.usefixtures("readings")
def test_a_sample_holds_every_reading() -> None:
    earlier = {"at": START.isoformat(), "cpu": {"busy": 200, "total": 600}}
    taken = take(SoakConfig(pm2_services=("api",)), earlier)
    assert taken["errors"] == []
    assert [entry["service"] for entry in taken["containers"]] == ["postgres", "valkey", "web", "worker"]
    assert taken["containers"][0]["memory"] == 10 * 2**20
    assert taken["memory"]["system_percent"] == 61.0
    assert (taken["memory"]["stack_used"], taken["memory"]["stack_limit"]) == (40 * 2**20, 400 * 2**20)
    assert (taken["cpu"]["percent"], taken["cpu"]["load5"], taken["cpu"]["cores"]) == (25.0, 0.4, 2)
    assert taken["disk"][0]["path"] == "/"
    assert taken["disk"][0]["free"] > 0
    assert taken["pm2"] == [
        {**asdict(Pm2Process("api", "online", 4, 0, False, 64 * 2**20, 1.5)), "well": True}
    ]
    assert taken["worker_errors"] == 1
    assert taken["queue"] == 12
    assert (taken["queue_state"]["line"], taken["queue_state"]["abandoned"]) == ("5.2", 0)
    assert taken["probe"]["captured"]
    assert not {"mirror", "real"} & set(taken)


def test_the_worker_log_is_read_between_two_samples_only(readings: World) -> None:
    take(SoakConfig(), {"at": START.isoformat()})
    (asked,) = [call for call in readings.calls() if call[0] == "logs"]
    assert asked[1:5] == [
        "--since",
        "2026-01-10T06:00:00.000+00:00",
        "--until",
        "2026-01-10T06:01:00.000+00:00",
    ]


def test_a_reading_that_fails_is_named_and_the_rest_is_still_taken(
    readings: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Memory:
        raise OpsError("no meminfo")

    monkeypatch.setattr(sampler, "read_memory", broken)
    readings.state["containers"] = [container("web")]
    readings.save()
    taken = take(SoakConfig())
    assert taken["errors"] == [
        "memory: no meminfo",
        "worker log: no running container of service worker in the Compose project glitchtip",
    ]
    assert len(taken["containers"]) == 1
    assert taken["queue"] is None


def test_an_engine_that_is_down_leaves_the_readings_of_the_host(readings: World) -> None:
    readings.state["down"] = True
    readings.save()
    taken = take(SoakConfig(pm2_services=("api",)))
    assert [error.split(":")[0] for error in taken["errors"]] == ["containers", "disk", "worker log"]
    assert taken["memory"]["system_percent"] == 61.0
    assert taken["pm2"]


def test_a_host_without_the_stack_is_not_asked_for_containers(readings: World) -> None:
    readings.state["down"] = True
    readings.save()
    config = SoakConfig(services=(), pm2_services=("api",))
    plan = make_plan(services=(), pm2_services=("api",))
    probe = Probe("e" * 32, True, 1.0, None)
    taken = Sampler(config, Stack(), lambda: probe).take(plan, START, None)
    assert (taken["errors"], taken["containers"], taken["worker_errors"]) == ([], [], None)
    assert [disk["path"] for disk in taken["disk"]] == ["/"]


def test_lists_of_the_new_line_are_counted_and_the_old_lines_list_is_not(readings: World) -> None:
    queues = {"ingest": [30, ""], "default": [2, ""]}
    readings.state["queue"] = {"known": 2, "celery": 5, "queues": queues, "failed": 7}
    readings.save()
    taken = take(SoakConfig())
    assert taken["queue"] == 32
    state = taken["queue_state"]
    assert (state["line"], state["dead_letters"], state["left_behind"], state["loss_bound"]) == (
        "6.x",
        7,
        5,
        2100,
    )


def test_the_log_of_one_process_for_all_is_the_web_servers(readings: World) -> None:
    web = container("web")
    web["Config"]["Env"] = ["SECRET_KEY=s3cret", "SERVER_ROLE=all_in_one"]
    readings.state.update(
        containers=[web, container("postgres"), container("valkey")], logs={"web": "ERROR: x\n"}
    )
    readings.save()
    assert take(SoakConfig())["worker_errors"] == 1
    assert commands.watched_services(SoakConfig()).services == ("postgres", "valkey", "web")


@pytest.mark.usefixtures("readings")
def test_the_mirror_is_counted_without_a_hole_and_nothing_twice() -> None:
    asked: list[tuple[str, str, Any]] = []

    def counts(since: datetime, until: datetime, log_dir: Path | None) -> dict[str, Any]:
        asked.append((since.strftime("%H:%M:%S"), until.strftime("%H:%M:%S"), log_dir))
        if len(asked) == 2:
            raise OpsError("the log cannot be read")
        return {"sentry": {"sent": 1, "ok": 1, "failed": 0}, "glitchtip": {"sent": 1, "ok": 1, "failed": 0}}

    plan = make_plan(mode="mirror", pm2_services=())
    taker = Sampler(
        SoakConfig(mode="mirror", mirror_log_dir="/var/log/x"),
        Stack(),
        lambda: Probe("e", True, 1.0, None),
        mirror=counts,
    )
    before = None
    for seconds in (0, 60, 120, 180):
        before = taker.take(plan, START + timedelta(seconds=seconds), before)
    spans = [(since, until) for since, until, _ in asked]
    assert spans == [("06:00:00", "06:00:50"), ("06:00:50", "06:01:50"), ("06:00:50", "06:02:50")]
    assert asked[0][2] == Path("/var/log/x")


@pytest.mark.usefixtures("readings")
def test_a_soak_in_mode_mirror_without_a_mirror_says_so() -> None:
    taken = take(SoakConfig(mode="mirror"), mirror=lambda *_: None)
    assert taken["errors"] == [
        "mirror: no mirror is set up on this host, though the soak was ordered in mode mirror"
    ]


class Tracker(BaseHTTPRequestHandler):
    """Issues of an organization: test events of ours, old ones, and real ones."""

    issues: list[dict[str, Any]] = []  # noqa: RUF012
    tags: dict[str, list[dict[str, str]]] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path.endswith("/events/latest/"):
            body: Any = {"id": "e" * 32, "tags": self.tags[path.split("/")[4]]}
        else:
            body = self.issues
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_real_events_are_told_from_our_own_and_from_old_ones(world: World) -> None:
    def issue(number: int, seen: int, level: str = "error") -> dict[str, Any]:
        last = (START + timedelta(seconds=seen)).isoformat()
        return {"id": str(number), "level": level, "lastSeen": last, "count": "1", "title": "secret title"}

    Tracker.issues = [issue(1, 50), issue(2, 40, "info"), issue(3, 30), issue(4, 20), issue(5, -10)]
    Tracker.tags = {
        "1": [{"key": "cutover_probe", "value": "x"}],
        "3": [{"key": "component", "value": "db"}],
        "4": [{"key": "local_test", "value": "y"}],
        "5": [],
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), Tracker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    world_settings = world.settings
    world_settings.url = f"http://127.0.0.1:{server.server_port}"
    try:
        found = real_issues(world_settings, make_plan(mode="mirror"))
    finally:
        server.shutdown()
        server.server_close()
    assert found == {"issues": 1, "more": False, "last_seen": Tracker.issues[2]["lastSeen"]}
    with pytest.raises(OpsError):
        real_issues(world.settings, make_plan(mode="mirror"))


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def command(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    host = Host(0)
    (tmp_path / "etc").mkdir()
    services = ["ai-admin-api", "ai-admin-batch-processor"]
    (tmp_path / "etc" / "soak.json").write_text(json.dumps({"pm2_services": services}))
    monkeypatch.setenv("GLITCHTIP_OPS_CONFIG_DIR", str(tmp_path / "etc"))
    monkeypatch.setattr(commands, "load_settings", lambda: world.settings)
    monkeypatch.setattr(commands, "make_sampler", lambda *_: host)
    monkeypatch.setattr(commands, "utc_now", host.clock)
    monkeypatch.setattr(running.sample_due, "__kwdefaults__", {"clock": host.clock})
    monkeypatch.setattr(
        running.start, "__kwdefaults__", {**(running.start.__kwdefaults__ or {}), "clock": host.clock}
    )
    return host


def say(*words: str) -> int:
    return cli.main(["soak", *words])


def test_a_soak_by_its_commands(command: Host, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert say("sample") == 0
    assert "no soak was ordered" in capsys.readouterr().out
    assert say("verdict") == 1
    assert "no soak was ordered on this host" in capsys.readouterr().err
    assert say("start", "--duration", "60s", "--interval", "10s") == 0
    for _ in range(7):
        assert say("verdict") == 3
        assert say("sample") == 0
        command.pass_time(10)
    assert "verdict GO" in capsys.readouterr().out
    assert say("sample") == 0
    assert "nothing to do (finished)" in capsys.readouterr().out
    assert say("verdict") == 0
    out = capsys.readouterr().out
    assert out.startswith("GO (migration m1, mode probe)\n")
    assert "coverage" in out
    assert "60 s, no gap above 30 s" in out
    assert say("report") == 0
    assert (files(world).directory / "report.html").read_text().startswith("<!DOCTYPE html>")
    markdown = world.root / "report.md"
    assert say("report", "--markdown", str(markdown)) == 0
    assert markdown.read_text().startswith("**GO**")


@pytest.mark.usefixtures("command")
def test_no_go_is_exit_code_3_with_every_criterion_and_reason(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    say("start", "--duration", "60s", "--interval", "10s")
    for sample in make_run():
        sample["memory"]["system_percent"] = 85.0
        files(world).add(sample)
    say("sample")
    capsys.readouterr()
    assert say("verdict") == 3
    out = capsys.readouterr().out
    assert out.startswith("NO_GO")
    assert "NOT MET" in out
    assert "- system memory reached 85.0 % (cgroup" in out
    line = next(line for line in out.splitlines() if line.startswith("memory of the host"))
    assert line.split("  ")[-1] == "NOT MET"
    assert cli.main(["--json", "soak", "verdict"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert {"id", "name", "value", "threshold", "met", "reasons", "note"} == set(document["criteria"][0])


@pytest.mark.usefixtures("command")
def test_two_samples_at_once_are_refused(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    say("start", "--duration", "60s", "--interval", "10s")
    with lock(files(world).directory / ".soak.lock", "x"):
        assert say("sample") == 1
    assert "runs already" in capsys.readouterr().err
    assert say("sample") == 0


@pytest.mark.usefixtures("command")
def test_thresholds_are_refused_by_start_and_a_running_soak_keeps_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say("start", "--duration", "60s", "--interval", "10s") == 0
    config = tmp_path / "etc" / "soak.json"
    config.write_text('{"thresholds": {"max_memory_percent": 400}}')
    capsys.readouterr()
    assert say("start", "--duration", "60s", "--interval", "10s", "--restart") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "a percentage ends at 100" in error
    assert say("sample") == 0
    config.write_text('{"intervall": 3}')
    assert say("sample") == 1
    assert "unknown keys: intervall" in capsys.readouterr().err


def test_plan_keeps_thresholds_of_the_day_it_was_ordered(world: World) -> None:
    order(world, config=SoakConfig(thresholds={"max_memory_percent": 70}))
    plan = files(world).read_plan()
    assert plan is not None
    assert plan.thresholds.max_memory_percent == 70.0
    assert datetime.fromisoformat(plan.started_at) == START.astimezone(UTC)
