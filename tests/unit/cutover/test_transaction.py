"""Rules of the transaction that need no process: stability, honesty of proofs, the confirm window."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from unit.cutover.simulation import KEY, NEW, OLD, MemoryPm2, Simulation

from glitchtip_cutover.errors import CutoverError, IncompleteError, RolledBackError


@pytest.fixture
def world(tmp_path: Path) -> Simulation:
    made = Simulation(tmp_path)
    made.cutover().snapshot()
    return made


def flapping(pm2: MemoryPm2, name: str, dsn: str) -> None:
    """After each restart of ``name`` on ``dsn`` PM2 has restarted it once more by itself."""

    def more(restarted: str) -> None:
        process = pm2.table[name]
        if restarted == name and pm2.loaded[name] == dsn:
            pm2.table[name] = dataclasses.replace(process, restarts=process.restarts + 1, pid=process.pid + 1)

    pm2.after_restart = more


def test_a_service_that_restarts_by_itself_is_not_stable(world: Simulation) -> None:
    flapping(world.pm2, "silent", NEW)
    with pytest.raises(RolledBackError, match="silent is not stable"):
        world.cutover().apply()
    assert set(world.uses().values()) == {OLD}


def test_the_window_is_armed_before_the_switch_and_again_after_it(world: Simulation) -> None:
    armed = []
    world.pm2.after_restart = lambda _name: armed.append(world.deadline.armed)
    world.cutover().apply()
    assert armed[0] == (1, 1500.0)
    assert world.deadline.armed == (1, 600.0)
    world.cutover().confirm()
    assert world.deadline.armed is None


def test_confirm_refuses_when_reality_differs(world: Simulation) -> None:
    world.cutover().apply()
    world.env_file.write_text(f"{KEY}={OLD}\n")
    with pytest.raises(CutoverError, match="no longer holds the applied DSN"):
        world.cutover().confirm()
    assert world.cutover().state().phase == "applied"


def test_confirm_needs_an_applied_switch(world: Simulation) -> None:
    with pytest.raises(CutoverError, match="nothing to confirm"):
        world.cutover().confirm()


def test_a_drifted_host_is_switched_again(world: Simulation) -> None:
    """A confirmed journal alone is no reason to believe: the file and PM2 are looked at."""
    world.cutover().apply()
    world.cutover().confirm()
    assert world.cutover().apply()["changed"] is False
    world.env_file.write_text(f"{KEY}={OLD}\n")
    assert world.cutover().apply()["changed"] is True
    assert set(world.uses().values()) == {NEW}


def test_a_service_that_stays_dead_makes_the_way_back_incomplete(world: Simulation) -> None:
    """The others are brought back all the same, the marker stays, and a later rollback closes it."""

    def die(name: str) -> None:
        if name == "silent":
            world.pm2.table[name] = dataclasses.replace(world.pm2.table[name], status="errored", pid=0)

    world.pm2.after_restart = die
    with pytest.raises(IncompleteError, match="silent"):
        world.cutover().apply()
    assert world.cutover().store.open_marker.exists()
    assert world.pm2.loaded["api"] == world.pm2.loaded["canary"] == OLD
    assert world.pm2.env_dsn() == OLD
    assert any("silent" in problem for problem in world.cutover().status()["problems"])
    world.pm2.after_restart = lambda _name: None
    assert world.cutover().rollback()["state"] == "rolled_back"
    assert not world.cutover().store.open_marker.exists()


def test_an_operator_rollback_goes_to_the_snapshot_not_to_the_attempt_before(world: Simulation) -> None:
    """After a second switch to a rotated key the way back still leads to before the migration."""
    world.cutover().apply()
    world.cutover().confirm()
    world.env_file.write_text(world.env_file.read_text().replace(NEW, NEW.replace("b@", "c@")))
    world.cutover().apply()
    world.cutover().rollback()
    assert set(world.uses().values()) == {OLD}


def test_a_busy_lock_is_refused_at_once(world: Simulation) -> None:
    with world.cutover().store.lock(), pytest.raises(CutoverError) as caught:
        world.cutover().apply()
    assert caught.value.exit_code == 75


def test_an_unexpected_failure_is_rolled_back_too(world: Simulation) -> None:
    def explode(_name: str) -> None:
        world.pm2.after_restart = lambda _name: None
        raise ZeroDivisionError

    world.pm2.after_restart = explode
    with pytest.raises(RolledBackError, match="unexpected ZeroDivisionError"):
        world.cutover().apply()
    assert set(world.uses().values()) == {OLD}


def test_an_empty_dsn_in_pm2_is_refused(world: Simulation) -> None:
    process = world.pm2.table["api"]
    world.pm2.table["api"] = dataclasses.replace(process, environment={KEY: ""})
    with pytest.raises(CutoverError, match=f"api carries an empty {KEY}"):
        world.cutover().apply()


def test_a_job_at_work_holds_the_way_forward_up_but_not_the_way_back(tmp_path: Path) -> None:
    """Otherwise a job that never ends would cost the way back the whole ``restart_wait``."""
    world = Simulation(tmp_path, restart_wait=30)
    world.cutover().snapshot()
    work(world)
    began = world.clock.now
    world.cutover().apply()
    assert restarted_after(world, began) > 30
    world.cutover().confirm()
    work(world)
    result = world.cutover().rollback()
    assert result["seconds_to_last_restart"] < 15


def work(world: Simulation) -> None:
    """The job is at work and does not end by itself."""
    job = world.pm2.table["job"]
    world.pm2.table["job"] = dataclasses.replace(job, pid=9000, status="online", started_at=world.clock.now)
    world.pm2.loaded["job"] = world.pm2.env_dsn()


def restarted_after(world: Simulation, began: float) -> float:
    """Seconds until the job was restarted."""
    return world.pm2.table["job"].started_at - began
