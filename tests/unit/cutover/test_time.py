"""A clock that is set, a machine that sleeps and a step that hangs change no safety decision."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from unit.cutover.simulation import NEW, OLD, Simulation
from unit.cutover.test_crash import switched
from unit.cutover.test_proof_conditions import talks
from unit.cutover.test_watch import Watched, memory_full

from glitchtip_core.transaction.limits import limit_step, unlimited
from glitchtip_cutover import limits, rolling_back, transaction, watch, wayback
from glitchtip_cutover.errors import CutoverError, IncompleteError, InterruptedRunError, RolledBackError
from glitchtip_cutover.watch_mark import WatchMark, read_mark, watch_mark, write_mark
from glitchtip_cutover.wayback import WayBack

HOURS = 3600.0


class Jumping(Watched):
    """A watch whose wall clock is set at look ``at`` by ``by`` seconds; the monotonic one goes on."""

    def __init__(self, root: Path, by: float, at: int = 2, **changes: Any) -> None:
        super().__init__(root, **changes)
        self.offset = 0.0
        self.wall: Callable[[], float] = lambda: self.world.clock.now + self.offset

        def jump(look: int) -> None:
            if look == at:
                self.offset = by

        self.at_look = jump

    def watch(self, roll_back: Any = None) -> watch.Watch:
        made = super().watch(roll_back)
        made.host = dataclasses.replace(made.host, clock=self.wall)
        made.checks.host = made.host
        return made


@pytest.mark.parametrize("by", [2 * HOURS, -2 * HOURS, 400 * 24 * HOURS], ids=["forward", "backward", "a year"])
def test_a_clock_that_is_set_changes_nothing_of_the_watched_time(tmp_path: Path, by: float) -> None:
    case = Jumping(tmp_path, by)
    began = case.world.clock.now
    assert case.watch().run()["state"] == "passed"
    assert 599 <= case.world.clock.now - began < 700
    assert case.looks >= 10


def test_a_watch_by_the_wall_clock_would_pass_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    case = Jumping(tmp_path, 2 * HOURS)

    class Wall:
        """Time by the wall clock, as a watch that keeps the date of its end has it."""

        def __init__(self, *_: object) -> None:
            self.began = case.wall()

        @property
        def seconds(self) -> float:
            return case.wall() - self.began

        def tick(self) -> float:
            return self.seconds

        skip = tick

    monkeypatch.setattr(watch, "WatchedTime", Wall)
    monkeypatch.setattr(watch.Watch, "_fewest", 0)
    assert case.watch().run()["state"] == "passed"
    assert case.looks == 2


def test_time_in_which_the_machine_sleeps_is_not_watched(tmp_path: Path) -> None:
    case = Watched(tmp_path)

    def asleep(look: int) -> None:
        if look in (2, 4):
            case.world.clock.now += 3 * HOURS  # the monotonic clock of a stopped process goes on, too

    case.at_look = asleep
    assert case.watch().run()["state"] == "passed"
    assert case.looks >= 10


def test_time_between_two_boots_is_not_watched(tmp_path: Path) -> None:
    case = Watched(tmp_path)
    case.going_down = True

    def reboot(look: int) -> None:
        if look in (3, 5, 7):
            raise InterruptedRunError("the run was interrupted by SIGTERM")

    case.at_look = reboot
    for _ in range(3):
        assert case.watch().run()["state"] == "paused"
        case.world.clock.now += 2 * HOURS
    case.at_look = lambda _look: None
    assert case.watch().run()["state"] == "passed"
    assert case.looks >= 20


def test_a_fault_after_the_jump_still_takes_the_switch_back(tmp_path: Path) -> None:
    case = Jumping(tmp_path, 2 * HOURS)
    jump = case.at_look

    def then(look: int) -> None:
        jump(look)
        if look > 4:
            memory_full(case, look)

    case.at_look = then
    with pytest.raises(RolledBackError):
        case.watch().run()
    assert set(case.world.uses().values()) == {OLD}


def test_a_watch_that_never_saw_the_services_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Watched(tmp_path)

    def blind() -> list[Any]:
        raise CutoverError("PM2 does not answer")

    monkeypatch.setattr(case.world.pm2, "processes", blind)
    with pytest.raises(IncompleteError, match=r"ends without a result: 0 checks in 0 s could see the services, and \d+ checks"):
        case.watch().run()
    assert "watch_passed" not in case.events()
    assert [event for event, _ in case.world.told][-1] == "incomplete"
    assert not watch_mark(case.world.config).exists()
    assert set(case.world.uses().values()) == {NEW}


def test_seconds_alone_do_not_pass(tmp_path: Path) -> None:
    """A mark that says that the time is over, after too few checks."""
    case = Watched(tmp_path)
    write_mark(case.world.config, WatchMark(attempt=1, began=case.world.clock.now, watched=1e9, checks=1, begun=True))
    assert case.watch().run()["state"] == "passed"
    assert case.looks >= 5


def test_a_mark_of_an_earlier_version_begins_anew(tmp_path: Path) -> None:
    case = Watched(tmp_path)
    now = case.world.clock.now
    watch_mark(case.world.config).write_text(json.dumps({"attempt": 1, "began": now, "until": now + 1, "begun": True}))
    assert read_mark(case.world.config) == WatchMark(1, now, begun=True)
    assert case.watch().run()["state"] == "passed"
    assert case.looks >= 10


# ------------------------------------------------------------------ events of before the switch


def heard_before(root: Path) -> tuple[Simulation, transaction.Cutover]:
    """The clock is two hours behind at the switch; the new tracker has an event of a job that rests from before it."""
    world = Simulation(root)
    world.cutover().snapshot()
    talks(world, "job")
    world.store(NEW, "job")
    world.clock.sleep(60)
    behind = dataclasses.replace(world.host(), clock=lambda: world.clock.now - 2 * HOURS)
    cutover = transaction.Cutover(world.config, behind)
    rows = {row["name"]: row for row in cutover.apply()["services"]}
    assert "has to be heard before confirm" in rows["job"]["note"]
    return world, cutover


def test_an_event_of_before_the_switch_is_not_heard_whatever_the_clock_says(tmp_path: Path) -> None:
    world, cutover = heard_before(tmp_path)
    with pytest.raises(CutoverError, match="job was not heard since its restart"):
        cutover.confirm()
    world.store(NEW, "job")
    assert cutover.confirm()["changed"] is True


def test_by_its_date_alone_it_would_be_heard(tmp_path: Path) -> None:
    """Negative control: a list without the ids of the events of before."""
    world, cutover = heard_before(tmp_path)
    path = world.config.state_dir / "attempts" / "0001" / "awaited.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in document.items() if name != "known"}))
    assert cutover.confirm()["changed"] is True


# ------------------------------------------------------------------ steps of a rollback


def hanging(world: Simulation, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Restoring the first file does not end."""
    restore = WayBack.restore_env

    def hang(way_back: WayBack, path: Path, dsn: str) -> None:
        if path == world.env_file:
            time.sleep(seconds)
        restore(way_back, path, dsn)

    monkeypatch.setattr(WayBack, "restore_env", hang)


def limited(world: Simulation, limit: Callable[[float, str], AbstractContextManager[None]]) -> transaction.Cutover:
    return transaction.Cutover(world.config, dataclasses.replace(world.host(), limit=limit))


def test_a_step_that_hangs_is_given_up_and_the_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = switched(tmp_path)
    hanging(world, monkeypatch, 300)
    monkeypatch.setattr(wayback, "FILE", 0.2)
    began = time.monotonic()
    with pytest.raises(IncompleteError, match=r"restoring .*\.env took longer than 0.2 s and was given up"):
        limited(world, limit_step).rollback()
    assert time.monotonic() - began < 100
    assert world.pm2.env_dsn("silent") != world.pm2.env_dsn()
    assert {"api", "silent"} <= set(world.pm2.restarted)


def test_without_the_limit_it_takes_as_long_as_it_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    world = switched(tmp_path)
    hanging(world, monkeypatch, 1.0)
    monkeypatch.setattr(wayback, "FILE", 0.2)
    began = time.monotonic()
    assert limited(world, unlimited).rollback()["state"] == "rolled_back"
    assert time.monotonic() - began >= 1.0


def test_every_step_has_a_limit(tmp_path: Path) -> None:
    world = switched(tmp_path)
    steps: list[str] = []

    def noted(seconds: float, step: str) -> AbstractContextManager[None]:
        assert 0 < seconds <= 900
        steps.append(step.split(str(tmp_path))[0].strip())
        return unlimited(seconds, step)

    limited(world, noted).rollback()
    assert set(steps) == {
        "waiting for the lock",
        "looking where .env is",
        "reading the snapshot",
        "removing unfinished files",
        "restoring",
        "restarting the services",
        "saving the manager's list",
        "proving the services",
        "the notification",
    }
    assert f"{limits.FILE:g} s for a file" in limits.told_limits(world.config, rolling_back.ROLLBACK_PROOF)
