"""A backup counts only when its restore equals the manifest; nothing good is ever lost for a bad one."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from unit.ops_support import World

from glitchtip_ops.backup import (
    Backup,
    BackupConfig,
    Backups,
    compare_tables,
    ensure,
    list_backups,
    plan_prune,
    take,
    verified_of_stack,
)
from glitchtip_ops.backup.making import needed_space
from glitchtip_ops.monitor import MonitorConfig, check_backup
from glitchtip_ops.process import OpsError
from glitchtip_ops.sentry_checklist import backup_point

NOW = datetime(2026, 3, 31, 3, 0, tzinfo=UTC)
TABLES = {"public.issue": 12, "public.event_20260331": 345, "public.empty": 0}


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path, monkeypatch)
    world.with_fake_postgres(TABLES)
    world.without_processes(monkeypatch)
    return world


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def backups(world: World, clock: Clock) -> Backups:
    return Backups(world.settings, BackupConfig(), clock=clock)


def listing(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.iterdir()
        if not path.name.startswith(".")
    }


def test_a_backup_has_dump_checksum_manifest_and_copies_all_for_root_only(
    backups: Backups, world: World
) -> None:
    backup = backups.create()
    assert backup.name == "glitchtip-20260331-0300"
    names = set(listing(world.backups))
    assert names == {
        backup.name + suffix for suffix in (".dump", ".dump.sha256", ".manifest.json", ".compose.yml", ".env")
    }
    assert {path.stat().st_mode & 0o777 for path in world.backups.iterdir() if path.name in names} == {0o600}
    assert world.backups.stat().st_mode & 0o777 == 0o700
    manifest = backup.manifest()
    assert manifest["tables"] == TABLES
    assert manifest["rows"] == 357
    assert manifest["migrations"] == {"issues": "0042_last"}
    assert manifest["images"]["web"]["digest"] == "sha256:" + "b" * 64
    assert manifest["secrets_sha256"]["SECRET_KEY"] == hashlib.sha256(b"5" * 64).hexdigest()
    assert "5" * 64 not in json.dumps(manifest)
    line = backup.path(".dump.sha256").read_text()
    assert line == f"{manifest['dump']['sha256']}  {backup.name}.dump\n"


def test_dump_is_taken_in_the_snapshot_that_was_counted(backups: Backups, world: World) -> None:
    backups.create()
    dumps = [call for call in world.calls() if "pg_dump" in call]
    assert dumps[0][-2:] == ["-Fc", "--snapshot=00000003-0000001B-1"]
    assert all("secret-pw" not in word for call in world.calls() for word in call)


def test_verification_restores_compares_marks_and_drops_the_scratch_database(
    backups: Backups, world: World
) -> None:
    backup = backups.create()
    assert not backup.verified
    proof = backups.verify(backup)
    assert (proof["tables"], proof["rows"]) == (3, 357)
    assert backups.newest().verified
    assert list(world.cluster()["databases"]) == ["glitchtip"]


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"dump_drops": "public.issue"}, "table public.issue is missing"),
        ({"restore_fails": True}, "pg_restore failed with exit code 1: pg_restore: error: could not read"),
    ],
)
def test_a_dump_that_does_not_restore_to_its_manifest_is_not_verified(
    backups: Backups, world: World, knobs: dict[str, object], sentence: str
) -> None:
    world.set_cluster({"glitchtip": TABLES}, **knobs)
    backup = backups.create()
    with pytest.raises(OpsError, match=sentence):
        backups.verify(backup)
    assert not backups.newest().verified
    assert list(world.cluster()["databases"]) == ["glitchtip"]


@pytest.mark.parametrize("damage", ["last byte cut", "half cut", "flipped", "empty", "grown"])
def test_a_damaged_dump_is_refused_before_the_database_is_touched(
    backups: Backups, world: World, damage: str
) -> None:
    backup = backups.create()
    dump = backup.path(".dump")
    data = dump.read_bytes()
    middle = len(data) // 2
    dump.write_bytes(
        {
            "last byte cut": data[:-1],
            "half cut": data[:middle],
            "flipped": data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :],
            "empty": b"",
            "grown": data + b"x",
        }[damage]
    )
    calls = len(world.calls())
    with pytest.raises(OpsError, match="damaged: its checksum differs"):
        backups.verify(backups.newest())
    assert len(world.calls()) == calls


@pytest.mark.parametrize("content", [None, "not json", "[]", '{"tables": {}}'])
def test_a_backup_without_a_whole_manifest_is_refused(backups: Backups, content: str | None) -> None:
    backup = backups.create()
    path = backup.path(".manifest.json")
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(OpsError, match="manifest"):
        backups.verify(backup)


def test_a_backup_of_a_newer_server_is_refused(backups: Backups, world: World) -> None:
    world.set_cluster({"glitchtip": TABLES}, version="18.1")
    backup = backups.create()
    world.set_cluster({"glitchtip": TABLES})
    with pytest.raises(OpsError, match=r"of PostgreSQL 18.1, this one is 17.6"):
        backups.verify(backup)


def test_scratch_databases_of_killed_runs_are_removed(backups: Backups, world: World) -> None:
    world.set_cluster({"glitchtip": TABLES, "glitchtip_verify_20260101000000_abc": {}})
    backups.verify(backups.create())
    assert list(world.cluster()["databases"]) == ["glitchtip"]


@pytest.mark.parametrize("fault", ["dump fails", "no space", "engine down", "no .env", "empty database"])
def test_a_failed_backup_leaves_the_earlier_ones_untouched_and_nothing_half(
    backups: Backups, world: World, clock: Clock, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups.verify(backups.create())
    before = listing(world.backups)
    clock.now += timedelta(days=1)
    if fault == "dump fails":
        world.set_cluster({"glitchtip": TABLES}, dump_fails=True)
    elif fault == "no space":
        monkeypatch.setattr("glitchtip_ops.backup.making.SMALLEST_NEED", 2**60)
    elif fault == "engine down":
        world.state["down"] = True
        world.save()
    elif fault == "no .env":
        (world.compose / ".env").unlink()
    else:
        world.set_cluster({"glitchtip": {}})
    with pytest.raises(OpsError) as caught:
        take(backups)
    assert listing(world.backups) == before
    if fault == "no space":
        assert "MiB short" in str(caught.value)


def test_a_disk_that_fills_up_in_the_middle_leaves_the_earlier_backups_untouched(
    backups: Backups, world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups.verify(backups.create())
    before = listing(world.backups)
    clock.now += timedelta(days=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("glitchtip_ops.backup.making.os.fsync", full)
    with pytest.raises(OpsError, match="No space left on device"):
        backups.create()
    assert listing(world.backups) == before


def test_what_a_killed_run_left_is_cleared_by_the_next(backups: Backups, world: World) -> None:
    world.backups.mkdir()
    for name in ("glitchtip-20260330-0300.dump.part", "glitchtip-20260330-0300.env", "foreign.txt"):
        (world.backups / name).write_text("x")
    backups.create()
    assert "foreign.txt" in listing(world.backups)
    assert not [name for name in listing(world.backups) if "20260330" in name]


def test_two_backups_of_one_minute_have_two_names_in_order(backups: Backups) -> None:
    assert [backups.create().name, backups.create().name] == [
        "glitchtip-20260331-0300",
        "glitchtip-20260331-0300-2",
    ]
    assert backups.newest().name == "glitchtip-20260331-0300-2"


def test_a_second_run_is_refused_while_one_holds_the_lock(backups: Backups, world: World) -> None:
    from glitchtip_core.files import lock

    with lock(world.backups / ".lock", "a backup"), pytest.raises(OpsError, match="a backup runs already"):
        backups.create()


def test_first_backup_is_taken_once_for_a_migration_and_again_for_another(
    backups: Backups, world: World
) -> None:
    assert ensure(backups, dry_run=True) == {"changed": True, "backup": None}
    assert not world.backups.exists()
    first = ensure(backups)
    again = ensure(backups)
    assert first["changed"]
    assert not again["changed"]
    assert {**first, "changed": False} == again
    settings = world.settings
    settings.migration_id = "m2"
    assert ensure(Backups(settings, BackupConfig(), clock=Clock(NOW)))["changed"]


# --- retention --------------------------------------------------------------------------------------------


def made(days_ago: float, verified: bool = True) -> Backup:
    taken = NOW - timedelta(days=days_ago)
    mark = taken.isoformat() if verified else None
    return Backup(Path("/x"), f"glitchtip-{taken:%Y%m%d-%H%M}", taken, 10, mark)


def pruned(*backups: Backup, days: int = 30, minimum: int = 3) -> list[float]:
    ordered = sorted(backups, key=lambda backup: backup.taken_at)
    going, _ = plan_prune(ordered, NOW, keep_days=days, keep_verified=minimum)
    return [(NOW - backup.taken_at) / timedelta(days=1) for backup in going]


def test_only_what_is_older_than_the_retention_goes() -> None:
    assert pruned(*(made(age) for age in (0, 1, 2, 30, 30.5, 40))) == [40, 30.5]


def test_never_fewer_than_the_minimum_of_verified_backups_stay() -> None:
    assert pruned(made(0), made(40), made(50)) == []
    assert pruned(made(0), made(40), made(50), made(60)) == [60]


def test_unverified_backups_do_not_count_for_the_minimum() -> None:
    assert pruned(made(0), made(35, verified=False), made(40), made(50), made(60)) == [60, 35]


def test_nothing_goes_while_the_newest_is_not_verified_or_lies_in_the_future() -> None:
    old = [made(age) for age in (40, 50, 60, 70)]
    assert pruned(made(0, verified=False), *old) == []
    assert pruned(made(-1), *old) == []
    assert pruned(*old[:0]) == []
    assert pruned(made(0), *old, days=0) == []
    assert pruned(made(0), *old, minimum=0) == []


def test_the_daily_run_prunes_after_its_own_success_only(
    backups: Backups, world: World, clock: Clock
) -> None:
    for _ in range(4):
        backups.verify(backups.create())
        clock.now += timedelta(days=1)
    clock.now = NOW + timedelta(days=60)
    world.set_cluster({"glitchtip": TABLES}, restore_fails=True)
    with pytest.raises(OpsError):
        take(backups)
    assert len(backups.present()) == 5
    clock.now += timedelta(minutes=1)
    world.set_cluster({"glitchtip": TABLES})
    result = take(backups)
    assert result["removed"] == ["glitchtip-20260331-0300", "glitchtip-20260401-0300"]
    assert not [path for path in world.backups.iterdir() if "20260331" in path.name]


def test_prune_removes_nothing_in_a_dry_run(backups: Backups, clock: Clock) -> None:
    for _ in range(5):
        backups.verify(backups.create())
        clock.now += timedelta(days=20)
    assert len(backups.prune(dry_run=True)["removed"]) == 2
    assert len(backups.present()) == 5


def test_foreign_and_odd_names_are_no_backups(tmp_path: Path) -> None:
    for name in ("glitchtip-20261399-9999.dump", "glitchtip-x.dump", "other-20260101-0000.dump"):
        (tmp_path / name).write_text("x")
    assert list_backups(tmp_path) == []


def test_needed_space_is_twice_the_last_backup() -> None:
    big = Backup(Path("/x"), "n", NOW, 100 * 2**20, None)
    assert needed_space([big]) == 200 * 2**20
    assert needed_space([big], encrypting=True) == 300 * 2**20
    assert needed_space([]) == 64 * 2**20


def test_every_kind_of_difference_is_named() -> None:
    assert compare_tables({"a": 1, "b": 2, "c": 3}, {"b": 2, "c": 0, "d": 0}) == [
        "table a is missing",
        "table d is not in the manifest",
        "table c has 0 rows instead of 3",
    ]
    assert compare_tables({"a": 1}, {"a": 1}) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"keep_dayz": 3}', "unknown keys: keep_dayz"),
        ('{"keep_days": 0}', "at least one day"),
        ("{", "not JSON"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "backup.json"
    path.write_text(text)
    with pytest.raises(OpsError, match=sentence):
        BackupConfig.read(path)


def test_a_backup_of_a_removed_stack_proves_nothing_about_the_new_one(world: World, clock: Clock) -> None:
    """The migration has the same name again after an uninstall; its first backup must be one of the new stack."""
    settings = world.settings
    settings.stack_id, settings.run_id = "old", "r1"
    first = ensure(Backups(settings, BackupConfig(), clock=clock))
    assert first["changed"] is True
    assert ensure(Backups(settings, BackupConfig(), clock=clock))["changed"] is False
    manifest = json.loads(next(Path(settings.backup_dir).glob("*.manifest.json")).read_text())
    proof = json.loads(next(Path(settings.backup_dir).glob("*.verified.json")).read_text())
    assert (manifest["stack_id"], manifest["run_id"], proof["stack_id"]) == ("old", "r1", "old")

    settings.stack_id = "new"
    present = list_backups(Path(settings.backup_dir))
    assert [len(verified_of_stack(present, stack)) for stack in ("old", "new", "")] == [1, 0, 1]
    check = check_backup(Path(settings.backup_dir), NOW, MonitorConfig(), "new")
    assert (check.ok, "there is no verified backup" in check.detail) == (False, True)
    point = backup_point(Path(settings.backup_dir), NOW.timestamp(), 48, "new")
    assert (point.done, point.value) == (False, "no verified backup")
    clock.now = NOW + timedelta(minutes=5)
    assert ensure(Backups(settings, BackupConfig(), clock=clock))["changed"] is True
    assert len(verified_of_stack(list_backups(Path(settings.backup_dir)), "new")) == 1
    for manifest_file in Path(settings.backup_dir).glob("*.manifest.json"):
        manifest_file.write_text("{")
    assert len(verified_of_stack(list_backups(Path(settings.backup_dir)), "old")) == 0
