"""Where ``.env`` lies, and who owns the links to it: phase 0, apply and rollback judge by one rule."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.cutover.simulation import KEY, NEW, OLD, Simulation

from glitchtip_core import foreign_paths
from glitchtip_cutover.envfile import EnvFile
from glitchtip_cutover.errors import CutoverError, IncompleteError

DEPLOY = 54321
APP = 54322
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")


def shared_env(world: Simulation) -> Path:
    """``.env`` is deploy's link into a directory of root's, to a file of deploy's."""
    real = world.root / "shared" / ".env"
    real.parent.mkdir()
    world.env_file.rename(real)
    world.env_file.symlink_to("shared/.env")
    for path in (real, world.env_file):
        os.lchown(path, DEPLOY, DEPLOY)
    return real


def released_env(world: Simulation) -> Path:
    """``current`` is deploy's link to a directory of app's with a file of deploy's; it is named through the link."""
    real = world.root / "releases" / ".env"
    real.parent.mkdir()
    world.env_file.rename(real)
    world.env_file.symlink_to("releases/.env")
    os.chown(real.parent, APP, APP)
    for path in (real, world.env_file):
        os.lchown(path, DEPLOY, DEPLOY)
    return real


def cut(real: Path) -> None:
    real.write_text("damaged\n")


def missing(real: Path) -> None:
    real.unlink()


def taken_over(real: Path) -> None:
    """Root edited it with a program that makes a new file."""
    real.unlink()
    real.write_text("damaged\n")
    real.chmod(0o600)


@pytest.mark.parametrize("damage", [cut, missing, taken_over], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("layout", [shared_env, released_env], ids=lambda layout: layout.__name__)
def test_what_could_be_switched_can_be_put_back(
    tmp_path: Path, layout: Callable[[Simulation], Path], damage: Callable[[Path], None]
) -> None:
    world = Simulation(tmp_path)
    real = layout(world)
    before = real.read_bytes()
    EnvFile(world.env_file, KEY).check()
    world.cutover().snapshot()
    world.cutover().apply()
    assert NEW in real.read_text()
    damage(real)
    world.cutover().rollback()
    assert (real.read_bytes(), real.stat().st_uid) == (before, DEPLOY)
    assert set(world.uses().values()) == {OLD}
    assert world.env_file.is_symlink()


def test_without_the_recorded_owner_it_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    monkeypatch.setattr(foreign_paths.Found, "__setattr__", lambda self, name, value: object.__setattr__(
        self, name, None if name == "recorded_owner" else value
    ))  # fmt: skip
    world = Simulation(tmp_path)
    real = shared_env(world)
    world.cutover().snapshot()
    world.cutover().apply()
    missing(real)
    with pytest.raises(IncompleteError, match="by a symbolic link of that user"):
        world.cutover().rollback()


def test_the_recorded_owner_opens_no_other_place(tmp_path: Path) -> None:
    """The link leads to another directory of root's after the snapshot."""
    world = Simulation(tmp_path)
    real = shared_env(world)
    world.cutover().snapshot()
    world.cutover().apply()
    guarded = tmp_path / "guarded"
    guarded.mkdir()
    world.env_file.unlink()
    world.env_file.symlink_to(guarded / ".env")
    os.lchown(world.env_file, DEPLOY, DEPLOY)
    with pytest.raises(IncompleteError, match="is really"):
        world.cutover().rollback()
    assert os.listdir(guarded) == []
    assert NEW in real.read_text()


@pytest.mark.parametrize("owner", [DEPLOY, APP], ids=["of the file", "of the directory"])
def test_copies_are_kept_where_the_file_may_be_written(tmp_path: Path, owner: int) -> None:
    """``current`` is a link of deploy's; ``.env`` in it is no link."""
    directory = tmp_path / "releases"
    directory.mkdir()
    (directory / ".env").write_text(f"{KEY}={OLD}\n")
    os.chown(directory, owner, owner)
    os.chown(directory / ".env", DEPLOY, DEPLOY)
    (tmp_path / "current").symlink_to("releases")
    os.lchown(tmp_path / "current", DEPLOY, DEPLOY)
    file = EnvFile(tmp_path / "current" / ".env", KEY)
    file.check()
    assert file.replace(NEW)
    assert file.backup("1").read_text() == f"{KEY}={NEW}\n"


def test_a_copy_follows_no_link_that_is_changed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_copies_are_kept_where_the_file_may_be_written(tmp_path, DEPLOY)
    guarded = tmp_path / "guarded"
    guarded.mkdir()
    reading = EnvFile._beside

    def swapped(self: EnvFile, *arguments: object) -> object:
        (tmp_path / "current").unlink()
        (tmp_path / "current").symlink_to(guarded)
        os.lchown(tmp_path / "current", DEPLOY, DEPLOY)
        return reading(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(EnvFile, "_beside", swapped)
    with pytest.raises(CutoverError, match="by a symbolic link of that user"):
        EnvFile(tmp_path / "current" / ".env", KEY).backup("2")
    assert os.listdir(guarded) == []


def test_phase_0_refuses_a_file_beside_which_no_copy_can_be_kept(tmp_path: Path) -> None:
    """Reading and writing it would do; only its copy would fail, in the middle of apply."""
    home = tmp_path / "home"
    (home / "app").mkdir(parents=True)
    real = tmp_path / "deploys"
    real.mkdir()
    (real / ".env").write_text(f"{KEY}={OLD}\n")
    os.chown(real / ".env", DEPLOY, DEPLOY)
    os.chown(real, DEPLOY, DEPLOY)
    (home / "app" / ".env").symlink_to(real / ".env")
    (tmp_path / "current").symlink_to(home / "app")
    os.lchown(tmp_path / "current", DEPLOY, DEPLOY)
    file = EnvFile(tmp_path / "current" / ".env", KEY)
    assert file.value() == OLD
    with pytest.raises(CutoverError, match=r"name .*/home/app/\.env itself in the settings, or give the link to root"):
        file.check()
    EnvFile(home / "app" / ".env", KEY).check()  # the control: what the sentence says helps


def test_a_file_system_that_was_mounted_again_is_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one boot: autofs, an overlay of a container, a btrfs subvolume."""
    world = Simulation(tmp_path)
    place = foreign_paths.Found.place
    number = [os.makedev(0, 40)]
    monkeypatch.setattr(foreign_paths.Found, "place", lambda found: dataclasses.replace(place(found), device=number[0]))
    world.cutover().snapshot()
    number[0] = os.makedev(0, 41)
    world.cutover().apply()
    number[0] = os.makedev(0, 42)
    world.cutover().rollback()
    assert set(world.uses().values()) == {OLD}
