"""A deploy made the directory of ``.env`` anew while nothing is switched: it is recorded anew, and can be switched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from unit.cutover.simulation import KEY, NEW, OLD, Simulation

from glitchtip_cutover import parts
from glitchtip_cutover.errors import CutoverError, IncompleteError


def deploy(world: Simulation, text: str | None = None) -> Path:
    """The next release: a directory with a ``.env`` of its own, which ``current`` leads to."""
    number = len(list(world.root.glob("release-*"))) + 1
    release = world.root / f"release-{number}"
    release.mkdir()
    file = release / ".env"
    file.write_text(text if text is not None else world.env_file.read_text() + f"RELEASE={number}\n")
    file.chmod(0o640)
    world.env_file.unlink()
    world.env_file.symlink_to(file)
    return file


@pytest.fixture
def world(tmp_path: Path) -> Simulation:
    made = Simulation(tmp_path)
    deploy(made)
    made.cutover().snapshot()
    return made


def recorded(world: Simulation) -> list[str]:
    return [row["place"] for row in world.cutover().journal.records() if row["event"] == "env_recorded_anew"]


def test_a_deploy_before_the_switch_is_recorded_anew_and_the_rollback_restores_its_bytes(world: Simulation) -> None:
    file = deploy(world)
    before = file.read_text()
    plan = world.cutover().plan()
    assert plan["problems"] == []
    assert f"{world.env_file} is really {file} now" in str(plan["notes"])
    assert recorded(world) == []  # a plan reads only
    world.cutover().apply()
    assert recorded(world) == [str(file)]
    assert NEW in file.read_text()
    file.unlink()  # only the bytes that were recorded anew can come back
    world.cutover().rollback()
    assert file.read_text() == before
    assert set(world.uses().values()) == {OLD}


def test_without_recording_it_anew_apply_refuses_for_ever(world: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    monkeypatch.setattr(parts, "find_moved", lambda *_: [])
    deploy(world)
    for _ in range(2):
        with pytest.raises(CutoverError, match="put it back where it was"):
            world.cutover().apply()


def test_snapshot_and_rollback_record_it_anew_too(world: Simulation) -> None:
    first = deploy(world)
    assert world.cutover().snapshot()["changed"] is True
    assert world.cutover().snapshot()["changed"] is False
    second = deploy(world)
    assert world.cutover().rollback()["changed"] is False
    assert recorded(world) == [str(first), str(second)]


def test_after_a_rollback_a_deploy_is_recorded_anew(world: Simulation) -> None:
    world.cutover().apply()
    world.cutover().rollback()
    file = deploy(world)
    world.cutover().apply()
    assert recorded(world) == [str(file)]


def test_while_something_is_switched_nothing_is_recorded(world: Simulation) -> None:
    world.cutover().apply()
    text = world.env_file.read_text().replace(NEW, OLD)
    file = deploy(world, text)
    with pytest.raises(IncompleteError, match="is really"):
        world.cutover().rollback()
    assert file.read_text() == text
    assert recorded(world) == []


def test_another_dsn_is_not_the_state_of_before(world: Simulation) -> None:
    deploy(world, f"{KEY}={NEW}\n")
    with pytest.raises(CutoverError, match="put it back where it was"):
        world.cutover().apply()
    assert recorded(world) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")
def test_another_user_s_link_leads_to_no_file_of_root(world: Simulation) -> None:
    deploy(world)
    os.lchown(world.env_file, 54321, 54321)
    with pytest.raises(CutoverError, match="put it back where it was"):
        world.cutover().apply()
    assert recorded(world) == []
