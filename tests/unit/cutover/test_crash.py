"""Crash consistency: whatever stops a change at whatever step, recovery leaves every service on exactly one DSN.

The sweep stops the transaction at every journal step, at every fsync and after every restart. Killed, the machine
goes on; without power, files that were not fsynced are in any state that a file system may leave them in.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from unit.cutover.disk import FATES, Disk
from unit.cutover.simulation import KEY, MIRROR, NEW, OLD, OWN_MIRROR, OWN_NEW, OWN_OLD, Crash, Simulation

from glitchtip_core.transaction.journal import Journal
from glitchtip_core.transaction.state import Record
from glitchtip_cutover.errors import CutoverError

# The DSN of the services that share the .env, and that of the one with its own.
DSNS = {"before": (OLD, OWN_OLD), "mirror": (MIRROR, OWN_MIRROR), "glitchtip": (NEW, OWN_NEW)}
OWN = "silent"


def fresh(root: Path) -> Simulation:
    world = Simulation(root, own=True)
    world.cutover().snapshot()
    return world


def mirrored(root: Path) -> Simulation:
    world = fresh(root)
    world.cutover().apply("mirror")
    world.cutover().confirm()
    return world


def switched(root: Path) -> Simulation:
    world = fresh(root)
    world.cutover().apply()
    world.cutover().confirm()
    return world


def unconfirmed(root: Path) -> Simulation:
    world = fresh(root)
    world.cutover().apply()
    return world


def together(root: Path) -> Simulation:
    world = Simulation(root, own=True, strategy="all_at_once", canary="")
    world.cutover().snapshot()
    return world


def torn(root: Path) -> Simulation:
    """Killed after the second restart of an apply."""
    world = fresh(root)

    def crash(name: str) -> None:
        if name == "api":
            raise Crash

    world.pm2.after_restart = crash
    with pytest.raises(Crash):
        world.cutover().apply()
    world.pm2.after_restart = lambda _name: None
    return world


def overridden(root: Path) -> Simulation:
    world = switched(root)
    world.cutover().rollback(service="api")
    return world


Act = Callable[[Any], Any]
# What is stopped: the world it begins in, the act, and what may stand after its recovery (services put back alone
# behind a slash).
SCENARIOS: dict[str, tuple[Callable[[Path], Simulation], Act, set[str]]] = {
    "apply to glitchtip": (fresh, lambda c: c.apply(), {"before"}),
    "apply, all at once": (together, lambda c: c.apply(), {"before"}),
    "apply to the mirror": (fresh, lambda c: c.apply("mirror"), {"before"}),
    "apply from the mirror": (mirrored, lambda c: c.apply(), {"mirror"}),
    "apply over an override": (overridden, lambda c: c.apply(), {"glitchtip/api"}),
    "confirm": (unconfirmed, lambda c: c.confirm(), {"before", "glitchtip"}),
    "rollback": (switched, lambda c: c.rollback(), {"before", "glitchtip"}),
    "rollback from the mirror": (mirrored, lambda c: c.rollback(), {"before", "mirror"}),
    "rollback of one service": (
        switched,
        lambda c: c.rollback(service="api"),
        {"glitchtip", "glitchtip/api"},
    ),
    "rollback of one with its own .env": (
        switched,
        lambda c: c.rollback(service=OWN),
        {"glitchtip", f"glitchtip/{OWN}"},
    ),
    "recover": (torn, lambda c: c.recover(), {"before"}),
}


@dataclass
class Cut:
    """Stops everything at point ``number`` (0: never)."""

    number: int
    points: list[str] = field(default_factory=list)

    def __call__(self, point: str) -> None:
        self.points.append(point)
        if len(self.points) == self.number:
            raise Crash


def run(world: Simulation, act: Act, cut: Cut, disk: Disk) -> bool:
    """Begin the act; True when it was stopped."""
    disk.cut = cut
    world.pm2.after_restart = lambda name: cut(f"after the restart of {name}")
    try:
        # what comes after a journal step is the point after its fsync
        act(world.cutover(lambda event, when: cut(f"before {event}") if when == "before" else None))
    except Crash:
        return True
    finally:
        disk.cut = lambda _point: None
        world.pm2.after_restart = lambda _name: None
    return False


def violations(world: Simulation, allowed: set[str], *, recovered: bool = True) -> list[str]:
    """What does not hold, looked at from outside: the processes, PM2's lists and the files.

    Where nothing was open, nothing recovers; what a torn write left in the state directory goes with the next run.
    """
    found: list[str] = []
    try:
        state = world.cutover().state()
        told = "/".join((state.stands, *state.overrides))
        if told not in allowed:
            found.append(f"{told} stands, not {' or '.join(sorted(allowed))}")
        if state.open or state.overriding:
            found.append(f"the journal is open: {state.phase}")
    except CutoverError as error:
        return [str(error)]
    common, own = DSNS[state.stands]
    wanted = {
        name: DSNS["before" if name in state.overrides else state.stands][name == OWN] for name in world.names
    }
    found += [f"{name} runs on another DSN" for name, dsn in world.pm2.loaded.items() if dsn != wanted[name]]
    for name, process in world.pm2.table.items():
        if process.environment.get(KEY, wanted[name]) != wanted[name]:
            found.append(f"PM2 gives {name} another DSN")
        if world.pm2.saved.get(name, wanted[name]) != wanted[name]:
            found.append(f"the saved list gives {name} another DSN")
    if world.env_file.read_text() != f"A=1\n{KEY}={common}\nB=2\n":
        found.append("the common .env is another")
    if world.own_file.read_text() != f"{KEY}={OWN_OLD if OWN in state.overrides else own}\n":
        found.append("the .env of one service is another")
    if world.cutover().store.open_marker.exists():
        found.append("the mark of an open change is left")
    swept = world.root if recovered else world.env_file.parent
    for part in swept.glob("**/*.part" if recovered else "*.part"):
        found.append(f"left over: {part.name}")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(world.cutover().store.lock())
        except CutoverError as error:
            found.append(str(error))
    return found


def one(
    root: Path, scenario: str, number: int, fate: str, *, recovery: bool = True, honest: bool = True
) -> tuple[list[str], str]:
    """Stop one scenario at one point; what does not hold after the recovery, and the point (empty: past the end)."""
    make, act, allowed = SCENARIOS[scenario]
    world = make(root)
    cut = Cut(number)
    with Disk(root, root / "state", honest=honest) as disk:
        if not run(world, act, cut, disk):
            return [], ""
        if fate != "killed":
            world.pm2.running = False
            disk.lose(fate)
    opened = (root / "state" / "open").exists()  # the recovery unit's condition
    if recovery and opened:
        try:
            world.cutover().recover()
        except CutoverError as error:
            return [str(error)], cut.points[-1]
    if fate != "killed":
        world.pm2.boot()
    found = violations(world, allowed, recovered=opened)
    if recovery and honest and not found and number % 9 == 0:
        world.cutover().rollback()
        found = [f"then rolled back: {text}" for text in violations(world, {"before"})]
        found += [] if world.cutover().apply()["state"] == "applied" else ["then not applied"]
    return found, cut.points[-1]


def points(root: Path, scenario: str) -> list[str]:
    make, act, _ = SCENARIOS[scenario]
    world = make(root)
    cut = Cut(0)
    with Disk(root, root / "state") as disk:
        assert not run(world, act, cut, disk)
    return cut.points


@contextlib.contextmanager
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="crash-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None
    ) as directory:
        yield Path(directory)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of the disk takes the place of the disk."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


def sweep(scenario: str, *, step: int = 1, **options: bool) -> tuple[int, list[str]]:
    """Stop one scenario at every ``step``-th point, killed and without power; runs made, and what did not hold."""
    with place() as root:
        all_points = points(root, scenario)
    found: list[str] = []
    runs = 0
    for number, name in list(enumerate(all_points, start=1))[::step]:
        # who is only killed finds a file as it is, whether its fsync came or not
        killed = [] if name.startswith("before fsync") else ["killed"]
        for fate in (*killed, FATES[number % len(FATES)]):
            with place() as root:
                broken, point = one(root, scenario, number, fate, **options)
            runs += 1
            found += [f"{scenario}, {fate} {point} ({number}): {text}" for text in broken]
    return runs, found


#: The short ones; the others, of the same kind and five seconds each, run with `make integration`.
QUICK = {"confirm", "rollback of one service"}


@pytest.mark.parametrize(
    "scenario",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in SCENARIOS],
)
def test_every_step_and_every_fsync_recovers(scenario: str) -> None:
    runs, found = sweep(scenario)
    print(f"{scenario}: stopped {runs} times")
    assert runs >= 8
    assert found == []


def test_every_quick_scenario_exists() -> None:
    assert set(SCENARIOS) > QUICK


def test_without_recovery_the_sweep_finds_torn_hosts() -> None:
    """Negative control: nothing looks after a crash."""
    runs, found = sweep("apply to glitchtip", step=4, recovery=False)
    assert len({text.split(":")[0] for text in found}) > runs / 2


@pytest.mark.slow
def test_a_journal_written_after_the_act_is_found_by_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: each record reaches the file only when the next act is about to begin."""
    whole = Journal.append
    waiting: dict[Path, list[tuple[str, dict[str, Any]]]] = {}

    def late(journal: Journal, event: str, **fields: Any) -> Record:
        before = waiting.setdefault(journal.path, [])
        for told, more in before:
            whole(journal, told, **more)
        waiting[journal.path] = [(event, fields)]
        return {}

    def late_run(world: Simulation, act: Act, cut: Cut, disk: Disk) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", late)
            return run(world, act, cut, disk)

    found = []
    for number in range(12, 40):
        with place() as root:
            world = fresh(root)
            cut = Cut(number)
            with Disk(root, root / "state") as disk:
                late_run(world, SCENARIOS["apply to glitchtip"][1], cut, disk)
            if (root / "state" / "open").exists():
                world.cutover().recover()
            found += violations(world, {"before"})
    assert found


@pytest.mark.slow
def test_a_disk_that_ignores_fsync_is_found_by_the_sweep() -> None:
    """Negative control: what was written may be lost although the program asked for it to stay."""
    _, found = sweep("apply to glitchtip", step=2, honest=False)
    assert {text.split(",")[1].split()[0] for text in found} >= {"names", "state"}
    assert not any(", killed" in text for text in found)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["rollback", "apply to the mirror"])
def test_a_crash_during_recovery_is_recovered(first: str) -> None:
    """Also a second stop, at every point of the recovery of a stopped change."""
    make, act, allowed = SCENARIOS[first]
    number = 0
    while True:
        number += 1
        with place() as root:
            world = make(root)
            with Disk(root, root / "state") as disk:
                assert run(world, act, Cut(30), disk)
                stopped = run(world, lambda c: c.recover(), Cut(number), disk)
            if not stopped:
                break
            if (root / "state" / "open").exists():
                world.cutover().recover()
            assert violations(world, allowed) == [], number
    assert number > 12


def test_untouched_services_are_not_restarted_by_the_way_back(tmp_path: Path) -> None:
    world = fresh(tmp_path)

    def crash(name: str) -> None:
        if name == "canary" and world.pm2.loaded[name] == NEW:
            raise Crash

    world.pm2.after_restart = crash
    with pytest.raises(Crash):
        world.cutover().apply()
    world.pm2.restarted.clear()
    world.cutover().recover()
    assert world.pm2.restarted == ["canary"]
    assert violations(world, {"before"}) == []
