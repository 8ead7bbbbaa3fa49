"""Crash consistency: a power cut at any step of a change leaves a host that recovers to exactly one DSN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from unit.cutover.simulation import NEW, OLD, Crash, Simulation


class CutAt:
    """Cuts the power at the n-th look of the journal's observer."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.seen: list[str] = []

    def __call__(self, event: str, when: str) -> None:
        self.seen.append(f"{when} {event}")
        if len(self.seen) == self.number:
            raise Crash


def applied(root: Path) -> Simulation:
    world = Simulation(root)
    world.cutover().snapshot()
    world.cutover().apply()
    world.cutover().confirm()
    assert set(world.uses().values()) == {NEW}
    return world


def prepared(root: Path) -> Simulation:
    world = Simulation(root)
    world.cutover().snapshot()
    return world


def steps(make: Callable[[Path], Simulation], command: str, root: Path) -> list[str]:
    """Every step that ``command`` takes, as the observer sees them."""
    observer = CutAt(0)
    getattr(make(root).cutover(observer), command)()
    return observer.seen


@pytest.mark.parametrize("boot", [False, True], ids=["the run was killed", "the machine went down"])
@pytest.mark.parametrize(("make", "command"), [(prepared, "apply"), (applied, "rollback")])
def test_every_step_recovers(
    tmp_path: Path, make: Callable[[Path], Simulation], command: str, boot: bool
) -> None:
    (tmp_path / "whole").mkdir()
    all_steps = steps(make, command, tmp_path / "whole")
    assert len(all_steps) >= 18
    torn = 0
    for number, step in enumerate(all_steps, start=1):
        root = tmp_path / f"{number}"
        root.mkdir()
        world = make(root)
        with pytest.raises(Crash):
            getattr(world.cutover(CutAt(number)), command)()
        begun = world.cutover().state().open
        torn += len(set(world.uses().values())) > 1
        if boot:
            world.pm2.running = False
        world.cutover().recover()
        if boot:
            world.pm2.boot()
        wanted = OLD if command == "apply" or begun or step.endswith("rolled_back") else NEW
        assert set(world.uses().values()) == {wanted}, step
        assert world.env_file.read_text() == f"A=1\nSENTRY_DSN={wanted}\nB=2\n", step
        assert set(world.pm2.saved.values()) == {wanted}, step
        assert not world.cutover().store.open_marker.exists(), step
        assert not world.cutover().state().open, step
        assert list(root.glob("*.part")) == []
        world.cutover().rollback()
        assert set(world.uses().values()) == {OLD}, step
        assert world.cutover().apply()["state"] == "applied", step
    assert torn > 5  # without recovery the host would have stood between two trackers


def test_a_crash_during_recovery_is_recovered(tmp_path: Path) -> None:
    """Also a second power cut, at every step of the way back."""
    for number in range(1, 40):
        root = tmp_path / f"{number}"
        root.mkdir()
        world = prepared(root)
        with pytest.raises(Crash):
            world.cutover(CutAt(22)).apply()
        try:
            world.cutover(CutAt(number)).recover()
        except Crash:
            world.cutover().recover()
        else:
            break
        assert set(world.uses().values()) == {OLD}
        assert not world.cutover().store.open_marker.exists()
    assert number > 8


def test_untouched_services_are_not_restarted_by_the_way_back(tmp_path: Path) -> None:
    world = prepared(tmp_path)

    def crash(name: str) -> None:
        if name == "canary" and world.pm2.loaded[name] == NEW:
            raise Crash

    world.pm2.after_restart = crash
    with pytest.raises(Crash):
        world.cutover().apply()
    world.pm2.restarted.clear()
    world.cutover().recover()
    assert world.pm2.restarted == ["canary"]
    assert set(world.uses().values()) == {OLD}
