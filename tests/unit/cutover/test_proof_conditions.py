"""When a probe counts, who has to be heard, and what an operator may accept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.cutover.simulation import KEY, NEW, OLD, PROCESSES, Simulation

from glitchtip_cutover.api import Event
from glitchtip_cutover.config_file import parse_config
from glitchtip_cutover.errors import CutoverError, RolledBackError, UsageError
from glitchtip_cutover.heard import DAY, Attribution, Rate, talkers
from glitchtip_cutover.manager import Process
from glitchtip_cutover.running import Running
from glitchtip_cutover.verify import run_verify


def snapshot(root: Path, **changes: Any) -> Simulation:
    world = Simulation(root, **changes)
    world.cutover().snapshot()
    return world


@pytest.fixture
def world(tmp_path: Path) -> Simulation:
    return snapshot(tmp_path)


def rows(world: Simulation) -> dict[str, Any]:
    return {row["name"]: row for row in world.cutover().apply()["services"]}


def journalled(world: Simulation, event: str) -> list[dict[str, Any]]:
    return [record for record in world.cutover().journal.records() if record["event"] == event]


# ---------------------------------------------------------------- the environment of the running process


@pytest.mark.parametrize("accepted", [[], ["silent"]])
def test_a_process_with_another_dsn_in_its_environment_is_not_proven_whatever_the_probe_says(
    tmp_path: Path, accepted: list[str]
) -> None:
    """Accepting a service without a proof accepts no proof of the contrary."""
    world = snapshot(tmp_path, accept_unproven=accepted)
    world.pm2.smuggled["silent"] = OLD
    with pytest.raises(RolledBackError, match=f"silent still runs with another {KEY} in the environment"):
        world.cutover().apply()
    assert set(world.uses().values()) == {OLD}


def test_confirm_and_verify_see_what_came_into_the_environment_after_the_switch(world: Simulation) -> None:
    world.cutover().apply()
    world.pm2.smuggled["silent"] = OLD
    with pytest.raises(CutoverError, match="not confirmed: silent still runs with another"):
        world.cutover().confirm()
    shown = {row["name"]: row["process_dsn_host"] for row in world.cutover().status()["services"]}
    assert (shown["silent"], shown["api"]) == ("sentry.example.org:9000", "-")
    with pytest.raises(CutoverError, match="silent still runs with another"):
        run_verify(world.config, world.cutover().host)
    del world.pm2.smuggled["silent"]
    assert world.cutover().confirm()["changed"] is True


# ---------------------------------------------------------------- services that no probe can prove


@pytest.mark.parametrize("old", [True, False])
def test_a_service_that_cannot_be_proven_is_refused_before_anything_is_changed(
    tmp_path: Path, old: bool
) -> None:
    """With an old tracker to look into, and without one."""
    world = snapshot(tmp_path, **({} if old else {"old": {}}))
    world.no_probe = {"silent", "job"}
    plan = world.cutover().plan()
    assert [text.split(":")[0] for text in plan["problems"]] == ["silent", "job"]
    assert all("accept_unproven" in text for text in plan["problems"])
    with pytest.raises(CutoverError, match="silent: a probe proves nothing") as caught:
        world.cutover().apply()
    assert (caught.value.exit_code, world.pm2.restarted) == (1, [])
    assert world.env_file.read_text() == f"A=1\n{KEY}={OLD}\nB=2\n"


def test_a_doubt_that_shows_only_after_the_switch_takes_it_back(world: Simulation) -> None:
    world.no_probe, world.late_doubt = {"silent"}, True
    with pytest.raises(RolledBackError, match=r"silent: a probe proves nothing.*accept_unproven"):
        world.cutover().apply()
    assert set(world.uses().values()) == {OLD}


def test_an_accepted_service_passes_with_its_reason_in_row_and_journal(tmp_path: Path) -> None:
    world = snapshot(tmp_path, accept_unproven=["silent"])
    world.no_probe = {"silent"}
    row = rows(world)["silent"]
    assert (row["proof"], row["event_id"]) == ("none", "")
    assert row["note"].startswith("accepted as unproven: silent: a probe proves nothing")
    record = journalled(world, "unproven_accepted")[0]
    assert record["service"] == "silent"
    assert "a probe proves nothing" in record["reason"]
    assert world.cutover().confirm()["changed"] is True
    assert world.cutover().rollback()["unproven"] == []


def test_accepting_one_service_accepts_no_other(tmp_path: Path) -> None:
    world = snapshot(tmp_path, accept_unproven=["carrier"])
    world.no_probe = {"silent"}
    with pytest.raises(CutoverError, match="silent: a probe proves nothing"):
        world.cutover().apply()


def test_only_services_can_be_accepted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="accept_unproven names slient, which is not one of the services"):
        Simulation(tmp_path, accept_unproven=["slient"])


# ---------------------------------------------------------------- services that have to be heard


def talks(world: Simulation, name: str, events: int = 600) -> None:
    """The service reported so often on the day before."""
    for number in reversed(range(events)):
        event = Event(f"{number:032x}", world.clock.now - (number + 0.5) * DAY / events, {"service": name})
        world.stored.setdefault("7", []).append(event)


def test_a_service_that_reports_often_has_to_be_heard_before_confirm(world: Simulation) -> None:
    """A probe is not enough for it; 600 events a day are 4.2 within the window of 600 s."""
    talks(world, "silent")
    row = rows(world)["silent"]
    assert row["proof"] == "probe"
    assert "has to be heard before confirm: about 4.2 events" in row["note"]
    with pytest.raises(CutoverError, match="not confirmed: silent was not heard") as caught:
        world.cutover().confirm()
    assert caught.value.exit_code == 1
    assert world.cutover().state().phase == "applied"
    world.emitting.add("silent")
    assert world.cutover().confirm()["changed"] is True
    assert journalled(world, "heard")[0]["service"] == "silent"
    again = {row["name"]: row for row in world.cutover().apply()["services"]}
    assert again["silent"]["proof"] == "own_event"


def test_a_service_that_is_heard_seldom_needs_no_event(world: Simulation) -> None:
    """2.9 events within the window are less than 3."""
    talks(world, "silent", 420)
    assert "has to be heard" not in rows(world)["silent"]["note"]
    assert world.cutover().confirm()["changed"] is True


def test_a_process_that_runs_for_minutes_only_is_judged_by_these(world: Simulation) -> None:
    """Three events in the 1000 s since its start are 1.8 in a window; 8 are 4.8, far more than over a whole day."""
    start = world.pm2.table["silent"].started_at
    for number in range(3):
        world.stored.setdefault("7", []).append(Event(f"{number:032x}", start + 1, {"service": "silent"}))
    assert world.cutover().plan()["heard_themselves"] == {}
    for number in range(3, 8):
        world.stored["7"].append(Event(f"{number:032x}", start + 1, {"service": "silent"}))
    assert set(world.cutover().plan()["heard_themselves"]) == {"silent"}


def test_confirm_waits_for_what_is_to_be_heard_and_not_beyond_the_window(world: Simulation) -> None:
    talks(world, "silent")
    deadline = world.cutover().apply()["confirm_before"]
    with pytest.raises(CutoverError, match="silent was not heard"):
        world.cutover().confirm(wait=3600)
    assert deadline - 30 < world.clock.now < deadline


def test_confirm_ends_waiting_as_soon_as_it_is_heard(world: Simulation) -> None:
    talks(world, "silent")
    world.cutover().apply()
    sleep, began = world.clock.sleep, world.clock.now

    def later(seconds: float) -> None:
        sleep(seconds)
        if world.clock.now > began + 60:
            world.emitting.add("silent")

    world.clock.sleep = later  # type: ignore[method-assign]
    assert world.cutover().confirm(wait=3600)["changed"] is True
    assert 60 < world.clock.now - began < 120


def test_a_service_that_reports_often_needs_no_probe_but_its_event(world: Simulation) -> None:
    talks(world, "silent")
    world.no_probe = {"silent"}
    row = rows(world)["silent"]
    assert row["proof"] == "none"
    with pytest.raises(CutoverError, match="silent was not heard"):
        world.cutover().confirm()
    world.emitting.add("silent")
    assert world.cutover().confirm()["changed"] is True


def test_what_reports_often_to_the_old_tracker_alone_is_not_confirmed(world: Simulation) -> None:
    """Its first event after the switch goes where all of them went."""
    talks(world, "silent")
    world.cutover().apply()
    world.clock.sleep(60)
    world.store(OLD, "silent")
    with pytest.raises(CutoverError, match="silent still reports to the old tracker alone"):
        world.cutover().confirm()


def test_without_a_window_a_service_that_reports_often_has_to_be_heard_at_once(tmp_path: Path) -> None:
    """The window is then the time that services have to report by themselves: 20 s."""
    world = snapshot(tmp_path, confirm_window=0)
    talks(world, "silent", 15000)
    with pytest.raises(RolledBackError, match="events of silent were expected, and none arrived"):
        world.cutover().apply()


def test_an_accepted_service_need_not_be_heard(tmp_path: Path) -> None:
    world = snapshot(tmp_path, accept_unproven=["silent"])
    talks(world, "silent")
    world.cutover().apply()
    assert world.cutover().confirm()["changed"] is True


def test_an_old_tracker_that_does_not_answer_stops_no_switch(world: Simulation) -> None:
    talks(world, "silent")
    world.unreachable = {"old"}
    assert "has to be heard" not in rows(world)["silent"]["note"]


def test_a_job_is_awaited_only_where_it_was_heard_lately(world: Simulation) -> None:
    listed = list(world.pm2.table.values())
    now = world.clock.now
    counted = {"job": Rate(1000, DAY, now - 3600), "silent": Rate(1000, DAY, now - 3600)}
    assert talkers(world.config, counted, listed, now) == {"silent": 6.9}
    counted["job"] = Rate(1000, DAY, now - 30)
    assert set(talkers(world.config, counted, listed, now)) == {"job", "silent"}


# ---------------------------------------------------------------- whose event it is


def process(name: str, pid: int, began: float) -> Process:
    """A running service; the kernel shows when its process was started."""
    PROCESSES[pid] = Running(pid, 1, began, ("node", f"{name}.js"), "/usr/bin/node", "/opt/app", {})
    return Process(
        name=name,
        pm_id=pid,
        pid=pid,
        status="online",
        started_at=began,
        restarts=0,
        cwd="/opt/app",
        interpreter="node",
        cron_job=False,
        module=False,
        environment={},
        hostname="web-1",
    )


@pytest.fixture
def config(tmp_path: Path) -> Any:
    return parse_config(
        {
            "migration_id": "m",
            "state_dir": "/s",
            "env_file": "/opt/app/.env",
            "app_dir": "/opt/app",
            "services": ["api", "bot"],
            "pm2": {},
        },
        tmp_path / "c",
    )


def untold(_event_id: str) -> Event | None:
    raise AssertionError("the event was whole already")


def nameless(began: float, **changes: Any) -> Event:
    event = Event("a" * 32, 2000.0, {"server_name": "web-1"}, process_started=began)
    return dataclasses.replace(event, **changes)


@pytest.mark.parametrize(
    ("event", "whose"),
    [
        (nameless(1000.3), "api"),
        (nameless(1500.1), "bot"),
        (nameless(1500.1, tags={"service": "something else"}), "bot"),
        (nameless(1500.1, tags={"service": "api", "server_name": "web-1"}), "api"),
        (nameless(1500.1, tags={"server_name": "web-2"}), None),
        (nameless(1500.1, tags={"cutover_probe": "service"}), None),
        (nameless(1250.0), None),
        (nameless(0.0, process_started=None), None),
    ],
)
def test_an_event_without_a_name_is_of_the_service_whose_process_was_started_then(
    config: Any, event: Event, whose: str | None
) -> None:
    listed = [process("api", 11, 1000.0), process("bot", 12, 1500.0)]
    attribution = Attribution(config, listed)
    found = [one.name for one in listed if attribution.find([event], [one], (), untold)]
    assert found == ([whose] if whose else [])


def test_two_services_that_were_started_together_are_not_told_apart(config: Any) -> None:
    listed = [process("api", 11, 1000.0), process("bot", 12, 1000.4)]
    attribution = Attribution(config, listed)
    assert not any(attribution.find([nameless(1000.5)], [one], (), untold) for one in listed)


def test_a_list_without_contexts_is_completed_by_the_event_itself(config: Any) -> None:
    listed = [process("api", 11, 1000.0), process("bot", 12, 1500.0)]
    asked: list[str] = []

    def detail(event_id: str) -> Event | None:
        asked.append(event_id)
        return nameless(1500.2)

    event = nameless(0.0, process_started=None, whole=False)
    attribution = Attribution(config, listed)
    assert attribution.find([event], listed[1:], (), detail) == event
    assert attribution.find([event], listed[:1], (), detail) is None
    assert asked == [event.event_id], "each event is asked for once"


def test_a_service_without_a_tag_proves_itself(tmp_path: Path) -> None:
    """Its events carry no name; the start of its new process tells."""
    world = snapshot(tmp_path)
    world.no_probe, world.late_doubt = {"silent"}, True
    world.pm2.after_restart = report_without_a_name(world)
    row = rows(world)["silent"]
    assert row["proof"] == "own_event"


def report_without_a_name(world: Simulation) -> Callable[[str], None]:
    def report(name: str) -> None:
        if name == "silent":
            now = world.clock.now
            event = Event("f" * 32, now + 1, {}, process_started=now + 0.1)
            world.stored.setdefault("3", []).append(event)

    assert NEW.endswith("/3")
    return report


def test_a_job_s_event_from_before_the_switch_does_not_confirm_it(tmp_path: Path) -> None:
    """On the way out of the mirror the new tracker already has events of its earlier runs."""
    world = snapshot(tmp_path)
    world.pm2.table["job"] = dataclasses.replace(world.pm2.table["job"], started_at=world.clock.now - 30)
    talks(world, "job")
    world.stored["3"] = [Event("e" * 32, world.clock.now - 20, {"service": "job"})]
    assert "has to be heard" in rows(world)["job"]["note"]
    with pytest.raises(CutoverError, match="job was not heard"):
        world.cutover().confirm()
    world.store(NEW, "job")
    assert world.cutover().confirm()["changed"] is True
