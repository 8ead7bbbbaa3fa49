"""The way back on the worst day: nothing but python3, the program under its other name, and what the host kept."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from integration.cutover.conftest import NEW_KEY, OLD_KEY, World
from integration.cutover.test_walk import before_bytes


def break_glass(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program by the name that operators are told; without the system's tools on PATH."""
    link = world.root / "glitchtip-rollback"
    if not link.exists():
        link.symlink_to(world.program)
    config = f"--config={world.root / 'config.json'}"
    done = subprocess.run(
        [sys.executable, "-I", str(link), config, f"--state-root={world.root}", *arguments],
        capture_output=True,
        text=True,
        env={"PATH": "/nonexistent"},
        timeout=120,
    )
    assert OLD_KEY not in done.stdout + done.stderr
    assert NEW_KEY not in done.stdout + done.stderr
    return done


@pytest.fixture
def switched(world: World) -> World:
    world.run("snapshot")
    world.run("apply")
    world.run("confirm")
    return world


def test_it_leads_back_with_progress_that_people_can_read(switched: World) -> None:
    done = break_glass(switched)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ +\d+\.\d s  restarting ", done.stderr, re.MULTILINE)
    assert "state: rolled_back" in done.stdout
    assert switched.env_file.read_bytes() == before_bytes(switched)
    assert break_glass(switched).returncode == 0


@pytest.mark.parametrize("damage", ["gone", "damaged", "without its apply"])
def test_it_needs_no_configuration_file(switched: World, damage: str) -> None:
    """The copies in the state directory serve: that of the last apply, else that of the snapshot."""
    config = switched.root / "config.json"
    config.unlink()
    if damage == "damaged":
        config.write_text('{"migration_id": ')
    if damage == "without its apply":
        (switched.state_dir / "config.json").unlink()
    done = break_glass(switched)
    assert done.returncode == 0, done.stderr
    assert f"its copy of {switched.state_dir} is used" in done.stderr
    assert switched.env_file.read_bytes() == before_bytes(switched)


def test_settings_of_the_new_tracker_that_cannot_be_read_do_not_matter(switched: World) -> None:
    settings = switched.root / "settings.json"
    settings.write_text("{")
    switched.write_config(new={**switched.settings["new"], "settings_file": str(settings)})
    (switched.root / "secrets" / "new.token").unlink()
    (switched.root / "secrets" / "new.dsn").unlink()
    assert break_glass(switched).returncode == 0
    assert switched.env_file.read_bytes() == before_bytes(switched)


def test_without_the_old_tracker_it_is_back_and_says_unproven(switched: World) -> None:
    for name in ("api", "monitor"):
        switched.change_service(name, fake_emits=False)
    switched.old.server.shutdown()
    switched.old.server.server_close()
    done = break_glass(switched)
    assert done.returncode == 5
    assert "unproven" in done.stderr
    assert switched.env_file.read_bytes() == before_bytes(switched)
    assert not (switched.state_dir / "open").exists()


def test_without_any_copy_it_says_so_and_changes_nothing(world: World) -> None:
    world.run("snapshot")
    (world.root / "config.json").unlink()
    (world.state_dir / "before" / "config.json").unlink()
    done = break_glass(world)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "there is no copy of it" in done.stderr


def test_one_service_alone(switched: World) -> None:
    done = break_glass(switched, "--service=silent")
    assert done.returncode == 0, done.stderr
    assert switched.services()["silent"]["pm2_env"]["SENTRY_DSN"] == switched.old.dsn
    assert switched.run("status")["overrides"] == ["silent"]
    unknown = break_glass(switched, "--service=nobody")
    assert unknown.returncode == 2
    assert "there is no service nobody" in unknown.stderr


def test_recovery_uses_the_copy_too(switched: World) -> None:
    """The recovery unit at boot must not stumble over a file that somebody was editing."""
    switched.run("rollback")
    switched.run("apply")
    (switched.root / "config.json").write_text("{")
    assert switched.run("recover", f"--state-root={switched.root}")["state"] == "rolled_back"
    assert switched.env_file.read_bytes() == before_bytes(switched)
