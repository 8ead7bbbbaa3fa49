"""Root in the directories of an unprivileged user: the short form of ``make attack``, and the attacks that once worked."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attack import matrix, touches, world
from attack.matrix import Cell, Measured, as_user, measure, place, run
from attack.world import (
    COMMANDS,
    KEY,
    SECRET,
    USER,
    Attacked,
    fingerprint,
    leaks,
    perform,
    simulated_processes,
)

from glitchtip_core import foreign_paths
from glitchtip_cutover import envfile

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="it is root who is attacked")]


@pytest.fixture(scope="module")
def measured() -> Measured:
    return measure()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "PATIENCE_OFF", 0.7)


@contextmanager
def product(command: str) -> Iterator[Attacked]:
    """A product on which ``command`` is prepared."""
    with place() as root:
        made = Attacked(root)
        with simulated_processes(made.home):
            COMMANDS[command][0](made)
            yield made


# --- the list of names is measured --------------------------------------------------------------------------


def test_root_touches_names_of_another_user_through_one_layer_only(measured: Measured) -> None:
    """A new access, by whatever command, fails here until it goes through ``glitchtip_core.foreign_files``."""
    assert measured.outside == set()
    assert {"home/app/.env", "home/app/.env.part", "home/.pm2/dump.pm2", "home/app/.env.pre-glitchtip-20270115-0800"} <= set(
        measured.files()
    )
    assert len(measured.files()) > 25
    failed = {command: told for command, told in measured.ended.items() if told and command != "verify"}
    assert failed == {}


@pytest.mark.parametrize(
    "code",
    ["open(path).close()", "path.exists()", "path.resolve()", "list(path.parent.iterdir())", "subprocess.run(['/bin/true'], cwd=path.parent)"],
)
def test_an_access_by_a_path_is_noticed(code: str) -> None:
    text = f"import subprocess\ndef planted(path):\n    {code}\n"
    names: dict[str, object] = {}
    exec(compile(text, str(touches.ROOT / "src/glitchtip_cutover/planted.py"), "exec"), names)  # noqa: S102
    with product("phase 0") as made, touches.recorded(made.theirs) as found:
        found.armed = True
        names["planted"](made.app / ".env")  # type: ignore[operator]
        found.armed = False
        assert any(text.startswith("planted.py:planted") for text in found.outside)


# --- a part of the matrix -----------------------------------------------------------------------------------

NAMES = ("home/app/.env", "home/app/package.json", "home/app/.env.pre-glitchtip-20270115-0800.part", "home/.pm2/dump.pm2")


@pytest.mark.parametrize("kind", matrix.KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_an_attack_is_held_and_works_without_the_protection(measured: Measured, name: str, kind: str) -> None:
    cell, calls = Cell(name, kind, measured.commands[name]), measured.calls[name]
    assert run(cell, calls, 20) == ""
    assert run(cell, calls, 1000, protected=False)


@pytest.mark.parametrize("kind", matrix.KINDS)
def test_an_attack_on_a_file_that_is_written_in_place_is_held_and_works_without_the_protection(measured: Measured, kind: str) -> None:
    assert {"home/app/.env", "home/app/own/.env", "home/.pm2/dump.pm2"} <= measured.overwritten.keys()
    name = "home/app/.env"
    cell = Cell(name, kind, measured.overwritten[name], in_place=True)
    assert run(cell, measured.calls_of(cell), 20) == ""
    assert run(cell, measured.calls_of(cell), 1000, protected=False)


# --- what was reproduced ------------------------------------------------------------------------------------


def test_a_rollback_writes_through_no_link_to_a_file_of_root() -> None:
    """The user puts a line into ``.env`` before the snapshot, then makes it a link to a file of root's."""
    with product("rollback") as made:
        victim = made.root / "cron"
        victim.write_text("SHELL=/bin/sh\n")
        as_user(lambda: (made.env_file.unlink(), made.env_file.symlink_to(victim))[0])
        told = perform(made, "rollback")
        assert f"is really {victim} now, and was {made.env_file}" in told
        assert (victim.read_text(), victim.stat().st_uid) == ("SHELL=/bin/sh\n", 0)
        assert made.uses()["file of silent"] == world.OWN_OLD  # the others are rolled back all the same


def test_a_copy_never_has_bytes_of_one_file_and_the_mode_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with product("apply") as made:
        program = made.root / "program"
        program.write_text("x")
        program.chmod(0o4755)
        read = envfile.read

        def swapped(*arguments: object) -> object:
            seen = read(*arguments)  # type: ignore[arg-type]
            if not made.env_file.is_symlink():
                as_user(lambda: (made.env_file.unlink(), made.env_file.symlink_to(program))[0])
            return seen

        monkeypatch.setattr(envfile, "read", swapped)
        copy = envfile.EnvFile(made.env_file, KEY).backup("1")
        info = copy.lstat()
        assert (stat.S_IMODE(info.st_mode), info.st_uid) == (0o600, USER)
        assert leaks(made.theirs, made.guarded) == []


@pytest.mark.parametrize("name", [".env", ".env.damaged-20270115-0800"])
def test_a_pipe_holds_nobody_and_the_file_is_put_back(name: str) -> None:
    with product("rollback") as made:
        before = made.env_file.read_text()
        as_user(lambda: (made.env_file.unlink(), os.mkfifo(made.app / name))[0])
        assert perform(made, "rollback") == ""
        assert made.env_file.read_text() == before.replace(world.simulation.NEW, world.OLD)


def test_the_saved_list_of_another_file_is_not_taken_over() -> None:
    with product("recover at boot") as made:
        victim = made.guarded / "home/.pm2/dump.pm2"
        before = fingerprint(made.guarded)
        listed = made.home / ".pm2/dump.pm2"
        as_user(lambda: (listed.unlink(), listed.symlink_to(victim))[0])
        told = perform(made, "recover at boot")
        assert "PM2's saved list" in told
        assert fingerprint(made.guarded) == before
        assert SECRET not in json.dumps(told)


# --- what is legitimate still works -------------------------------------------------------------------------


def test_release_directories_work_while_the_file_stays_where_it_was() -> None:
    """current -> releases/5, whose .env is a link to shared/.env: a new release in between changes nothing."""
    with place() as root:
        made = Attacked(root)
        with simulated_processes(made.home):
            env = made.env_file

            def deploy(number: int) -> None:
                release = made.app / "releases" / str(number)
                release.mkdir(parents=True)
                (release / ".env").symlink_to("../../shared/.env")
                (made.app / "new").symlink_to(f"releases/{number}")
                (made.app / "new").rename(made.app / "current")

            def first() -> None:
                (made.app / "shared").mkdir()
                env.rename(made.app / "shared/.env")
                deploy(5)
                env.symlink_to("current/.env")

            as_user(first)
            made.cutover().snapshot()
            as_user(lambda: deploy(6))
            assert made.cutover().apply()["state"] == "applied"
            assert f"{KEY}={world.simulation.NEW}" in (made.app / "shared/.env").read_text()
            made.cutover().confirm()
            made.cutover().rollback()
            assert f"{KEY}={world.OLD}" in (made.app / "shared/.env").read_text()
            assert env.is_symlink()


@pytest.mark.parametrize("told", ["another DSN", "a link to a file of root"])
def test_a_directory_that_was_replaced_is_refused_before_anything_is_changed(told: str) -> None:
    """Only the user's own file with the very DSN of before is recorded anew."""
    with product("apply") as made:
        victim = made.root / "env_of_root"
        victim.write_text(f"{KEY}={world.OLD}\n")
        victim.chmod(0o600)
        text = f"{KEY}={world.OLD.replace('//', '//0')}\n"

        def replace() -> None:
            made.app.rename(made.home / "old")
            made.app.mkdir()
            (made.home / "old" / "own").rename(made.app / "own")
            if told == "another DSN":
                made.env_file.write_text(text)
            else:
                made.env_file.symlink_to(victim)

        before = made.pm2.restarted[:]
        as_user(replace)
        refused = perform(made, "apply")
        assert "is in another directory than the one that was recorded" in refused or f"is really {victim} now" in refused
        assert made.pm2.restarted == before
        assert victim.read_text() == f"{KEY}={world.OLD}\n"
        assert made.env_file.is_symlink() or made.env_file.read_text() == text
        assert "env_recorded_anew" not in {row["event"] for row in made.cutover().journal.records()}


def test_a_snapshot_of_before_places_were_recorded_is_still_used() -> None:
    with product("rollback") as made:
        path = made.config.state_dir / "before/snapshot.json"
        facts = json.loads(path.read_text())
        for row in facts["files"]:
            assert row.pop("place")["owner"] == USER
        path.write_text(json.dumps(facts))
        assert perform(made, "rollback") == ""
        assert foreign_paths.boot_id()
        assert Path(made.env_file).read_text().count(world.OLD) == 1
