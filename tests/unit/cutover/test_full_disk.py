"""A full or read-only state directory keeps no rollback from restoring; the exit code says that the record is incomplete."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.cutover.faults import STATE_FAULTS_STEP
from unit.cutover.full_disk import FULL, Refusals, SmallDisk, small_disk
from unit.cutover.simulation import NEW, OLD, OWN_OLD, Simulation
from unit.cutover.test_crash import place, switched, torn, unconfirmed, violations
from unit.cutover.test_watch import Watched, memory_full

from glitchtip_core.transaction import bookkeeping, store
from glitchtip_core.transaction.bookkeeping import Bookkeeping
from glitchtip_core.transaction.reserve import BYTES, FILES, Reserve
from glitchtip_core.transaction.store import Store
from glitchtip_cutover.errors import (
    BusyError,
    CutoverError,
    IncompleteError,
    RolledBackError,
    UnrecordedError,
)

KINDS = ("bytes", "inodes", "read-only")
BEFORE = {OLD, OWN_OLD}


def unswitched(root: Path) -> Simulation:
    world = Simulation(root, own=True)
    world.cutover().snapshot()
    return world


Act = Callable[[Simulation], Any]
SCENARIOS: dict[str, tuple[Callable[[Path], Simulation], Act]] = {
    "rollback": (switched, lambda world: world.cutover().rollback()),
    "timer of the confirm window": (unconfirmed, lambda world: world.cutover().rollback(unconfirmed_attempt=1)),
    "recover": (torn, lambda world: world.cutover().recover()),
}


def ended(act: Callable[[], Any]) -> int:
    try:
        act()
    except CutoverError as error:
        return error.exit_code
    return 0


def services_of(world: Simulation) -> set[str]:
    return {*world.pm2.loaded.values(), world.pm2.env_dsn(), world.pm2.env_dsn("silent")}


def without_reserve(world: Simulation) -> None:
    Reserve(world.config.state_dir).release()


@contextlib.contextmanager
def full(tmp_path: Path, make: Callable[[Path], Simulation], kind: str, *, reserve: bool = True) -> Iterator[tuple[Simulation, SmallDisk]]:
    with small_disk(tmp_path / "state", "2m") as disk:
        world = make(tmp_path)
        if not reserve:
            without_reserve(world)
        disk.fill(kind)
        yield world, disk


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_restored_on_a_full_disk(tmp_path: Path, kind: str, scenario: str) -> None:
    make, act = SCENARIOS[scenario]
    with full(tmp_path, make, kind) as (world, disk):
        code = ended(lambda: act(world))
        assert services_of(world) == BEFORE
        # The room that was set aside takes the whole record; nothing is written to a read-only disk.
        assert code == (4 if kind == "read-only" else 0)
        if code:
            assert [event for event, _ in world.told][-1] == "incomplete"
        disk.empty()
        assert ended(world.cutover().rollback) == 0
        assert violations(world, {"before"}) == []


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_restored_without_any_room(tmp_path: Path, kind: str, scenario: str) -> None:
    make, act = SCENARIOS[scenario]
    with full(tmp_path, make, kind, reserve=False) as (world, disk):
        with pytest.raises(UnrecordedError, match="everything is restored, but the record of it is incomplete") as caught:
            act(world)
        assert caught.value.exit_code == 4
        assert services_of(world) == BEFORE
        assert caught.value.details["problems"]
        event, facts = world.told[-1]
        assert (event, bool(facts["problems"])) == ("incomplete", True)
        disk.empty()
        assert ended(world.cutover().rollback) == 0
        assert violations(world, {"before"}) == []


@pytest.mark.parametrize("kind", ["bytes", "inodes"])
def test_a_failed_apply_restores_on_a_full_disk(tmp_path: Path, kind: str) -> None:
    with small_disk(tmp_path / "state", "2m") as disk:
        world = unswitched(tmp_path)

        def fill(name: str) -> None:
            if name == "api" and world.pm2.loaded["api"] == NEW:
                without_reserve(world)
                disk.fill(kind)
                raise CutoverError("api does not start")

        world.pm2.after_restart = fill
        with pytest.raises(IncompleteError, match="the record of it is incomplete"):
            world.cutover().apply()
        assert services_of(world) == BEFORE
        disk.empty()
        assert ended(world.cutover().rollback) == 0
        assert violations(world, {"before"}) == []


@pytest.mark.parametrize("kind", KINDS)
def test_one_service_is_restored_alone_on_a_full_disk(tmp_path: Path, kind: str) -> None:
    with full(tmp_path, switched, kind, reserve=False) as (world, disk):
        with pytest.raises(UnrecordedError):
            world.cutover().rollback(service="api")
        assert world.pm2.loaded["api"] == OLD
        disk.empty()
        world.cutover().rollback(service="api")
        assert violations(world, {"glitchtip/api"}) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_alarm_of_the_watch_takes_the_switch_back_on_a_full_disk(tmp_path: Path, kind: str) -> None:
    with small_disk(tmp_path / "state", "2m") as disk:
        watched = Watched(tmp_path)
        without_reserve(watched.world)
        disk.fill(kind)
        watched.at_look = lambda look: memory_full(watched, look)

        def roll_back(config: Any, reason: str) -> tuple[int, str]:
            try:
                return watched.roll_back(config, reason)
            except CutoverError as error:
                return error.exit_code, json.dumps({**error.details, "reason": str(error)})

        with pytest.raises((UnrecordedError, RolledBackError), match="the switch was taken back"):
            watched.watch(roll_back).run()
        assert len(watched.rolled_back) == 1
        assert set(watched.world.uses().values()) == {OLD}


def test_a_watch_goes_through_its_time_on_a_read_only_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state", "2m") as disk:
        watched = Watched(tmp_path)
        disk.fill("read-only")
        with pytest.raises(UnrecordedError, match="the watch passed, but its record is incomplete"):
            watched.watch().run()
        assert watched.looks >= 10
        assert [event for event, _ in watched.world.told][-1] == "watch_passed"


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_protection_a_full_disk_keeps_everything_switched(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: a record that fails ends the rollback."""

    def strict(_books: Bookkeeping, write: Callable[[], object]) -> bool:
        write()
        return True

    monkeypatch.setattr(Bookkeeping, "_do", strict)
    with full(tmp_path, switched, kind, reserve=False) as (world, _):
        assert ended(world.cutover().rollback) == 1
        assert OLD not in services_of(world)


def test_a_damaged_journal_keeps_no_rollback_from_restoring(tmp_path: Path) -> None:
    world = switched(tmp_path)
    journal = world.config.state_dir / "journal.jsonl"
    journal.write_text("{not a record}\n" + journal.read_text())
    with pytest.raises(UnrecordedError, match=r"the journal .* is damaged in line 1"):
        world.cutover().rollback()
    assert services_of(world) == BEFORE


def test_a_notification_that_fails_is_a_note_of_the_result(tmp_path: Path) -> None:
    world = switched(tmp_path)
    world.notify_problems = ["the file of notifications cannot be read: Input/output error"]
    result = world.cutover().rollback()
    assert result["notes"] == ["notification rolled_back: the file of notifications cannot be read: Input/output error"]
    assert services_of(world) == BEFORE


# ------------------------------------------------------------------ every single write


def refused(scenario: str, number: int, kind: int, *, lasting: bool, reserve: bool) -> tuple[list[str], list[str]]:
    """What does not hold when write ``number`` of a scenario is refused, and all its writes."""
    make, act = SCENARIOS[scenario]
    found: list[str] = []
    with place() as root:
        world = make(root)
        if not reserve:
            without_reserve(world)
        refusals = Refusals(world.config.state_dir, number, kind, lasting=lasting)
        with refusals.around():
            code = ended(lambda: act(world))
        if services_of(world) != BEFORE:
            found.append("not everything is restored")
        if code not in (0, 4):
            found.append(f"it ended with {code}")
        if code and "incomplete" not in [event for event, _ in world.told]:
            found.append("nobody was notified")
        if code == 0 and violations(world, {"before"}, recovered=False):
            found.append(f"it says that all is well, and {violations(world, {'before'}, recovered=False)}")
        if world.cutover().store.open_marker.exists():
            ended(world.cutover().recover)
        if ended(world.cutover().rollback):
            found.append("a rollback with room again fails")
        found += violations(world, {"before"})
    return found, refusals.calls


def sweep(scenario: str, step: int) -> tuple[int, list[str]]:
    found: list[str] = []
    runs = 0
    _, calls = refused(scenario, 0, FULL[0], lasting=False, reserve=True)
    for number in range(1, len(calls) + 1, step):
        for kind in FULL:
            for lasting in (False, True):
                broken, _ = refused(scenario, number, kind, lasting=lasting, reserve=bool(number % 2))
                runs += 1
                name = f"{scenario}, {calls[number - 1]} ({number}), {errno.errorcode[kind]}{' lasts' if lasting else ''}"
                found += [f"{name}: {text}" for text in broken]
    return runs, found


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_any_write_of_the_state_may_be_refused(scenario: str) -> None:
    runs, found = sweep(scenario, STATE_FAULTS_STEP)
    assert runs > 12
    assert found == []


@pytest.mark.slow
def test_without_the_protection_the_sweep_finds_what_is_not_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control."""
    monkeypatch.setattr(Bookkeeping, "_do", lambda _books, write: bool(write()) or True)
    _, found = sweep("rollback", 23)
    assert any("not everything is restored" in text for text in found)


# ------------------------------------------------------------------ the lock


def locks(directory: Path) -> tuple[Store, Store]:
    clock = {"monotonic": lambda: 0.0, "sleep": lambda _seconds: None}
    return Store(directory, **clock), Store(directory, **clock)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("known", [True, False], ids=["lock file there", "no lock file"])
def test_a_second_run_is_excluded_on_a_full_disk(tmp_path: Path, kind: str, known: bool) -> None:
    with small_disk(tmp_path / "state", "64k", 40) as disk:
        if known:
            (tmp_path / "state" / "lock").write_text("4711")
        disk.fill(kind)
        first, second = locks(tmp_path / "state")
        with first.lock(), pytest.raises(BusyError), second.lock():
            pass
        with second.lock():
            pass


def test_without_the_lock_of_the_directory_nothing_excludes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the file alone cannot be made."""
    opening = store._open_to_lock

    def only_files(path: Path) -> int:
        if path.is_dir():
            raise OSError(errno.EBADF, "no directories")
        return opening(path)

    monkeypatch.setattr(store, "_open_to_lock", only_files)
    with small_disk(tmp_path / "state", "64k", 40) as disk:
        disk.fill("inodes")
        first, _ = locks(tmp_path / "state")
        with pytest.raises(CutoverError, match="cannot lock"), first.lock():
            pass


def test_where_nothing_can_be_locked_a_rollback_restores_and_an_apply_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = switched(tmp_path)

    def nothing(_place: Path) -> int:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(store, "_open_to_lock", nothing)
    with pytest.raises(CutoverError, match="cannot lock") as caught:
        world.cutover().apply("mirror")
    assert caught.value.exit_code == 1
    with pytest.raises(UnrecordedError, match="cannot lock"):
        world.cutover().rollback()
    assert services_of(world) == BEFORE


# ------------------------------------------------------------------ the reserve


def test_the_reserve_is_several_times_what_a_rollback_writes(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state", "2m"):
        world = switched(tmp_path)
        without_reserve(world)
        most = [0, 0]
        before = os.statvfs(tmp_path / "state")

        def measure(*_: object) -> None:
            now = os.statvfs(tmp_path / "state")
            most[0] = max(most[0], (before.f_bfree - now.f_bfree) * now.f_frsize)
            most[1] = max(most[1], before.f_ffree - now.f_ffree)

        with pytest.MonkeyPatch.context() as patch:
            fsync = os.fsync

            def measured(descriptor: int) -> None:
                fsync(descriptor)
                measure()

            patch.setattr(os, "fsync", measured)
            world.cutover().rollback()
        assert 0 < 4 * most[0] <= BYTES
        assert 0 < 2 * most[1] <= FILES


def test_it_is_set_aside_at_the_snapshot_and_again_before_a_switch(tmp_path: Path) -> None:
    world = unswitched(tmp_path)
    reserve = Reserve(world.config.state_dir)
    assert reserve.is_whole
    assert world.cutover().snapshot()["changed"] is False
    reserve.release()
    assert world.cutover().snapshot()["changed"] is True
    reserve.release()
    world.cutover().apply()
    assert reserve.is_whole


def test_no_switch_begins_where_it_cannot_be_set_aside(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state", "2m") as disk:
        world = unswitched(tmp_path)
        without_reserve(world)
        disk.fill("bytes")
        with pytest.raises(CutoverError, match=r"the 512 KiB that a rollback may need cannot be set aside: .*No space") as caught:
            world.cutover().apply()
        assert caught.value.exit_code == 1
        assert world.pm2.restarted == []
        assert list(Reserve(world.config.state_dir).path.iterdir()) == []


def test_a_copy_without_its_bytes_counts_as_none(tmp_path: Path) -> None:
    """As a restored or copied state directory may have it: a file with a hole takes no room."""
    reserve = Reserve(tmp_path)
    assert reserve.set_aside() is True
    room = reserve.path / "room"
    room.unlink()
    with room.open("wb") as file:
        file.truncate(BYTES)
    assert not reserve.is_whole
    assert reserve.set_aside() is True
    assert reserve.is_whole


def test_it_stays_where_there_is_room(tmp_path: Path) -> None:
    world = switched(tmp_path)
    world.cutover().rollback()
    assert Reserve(world.config.state_dir).is_whole


def test_a_quota_that_statvfs_does_not_show_releases_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = switched(tmp_path)
    reserve = Reserve(world.config.state_dir)

    def quota(_path: Path, _document: object) -> None:
        if reserve.is_whole:
            error = CutoverError("cannot write")
            raise error from OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(bookkeeping, "write_json", quota)
    assert world.cutover().rollback()["state"] == "rolled_back"
    assert not reserve.is_whole
