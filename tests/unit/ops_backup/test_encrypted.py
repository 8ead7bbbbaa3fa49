"""Sets encrypted to public keys: proven first, nothing readable left, and everything else works on them as on plain ones.

With the real ``age`` of the distribution.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from unit.ops_support import World

from glitchtip_ops.backup import Backup, BackupConfig, Backups, ensure, list_backups, making, take
from glitchtip_ops.backup.encryption import decrypted, encrypt
from glitchtip_ops.cli import main
from glitchtip_ops.monitor import MonitorConfig, check_backup
from glitchtip_ops.process import OpsError
from glitchtip_ops.sentry_checklist import backup_point

pytestmark = pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed here")

NOW = datetime(2026, 3, 31, 3, 0, tzinfo=UTC)
#: Names of tables are the content of a dump of the fake database; this one is the canary in it.
CANARY = "canary_in_the_dump"
TABLES = {f"public.{CANARY}": 12, "public.event": 345}
SECRETS = (CANARY, "5" * 64, "7" * 32, "canary-of-compose")
ENCRYPTED = {".dump.age", ".compose.yml.age", ".env.age", ".age.sha256", ".manifest.json", ".verified.json"}


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def keygen() -> tuple[str, str]:
    """(public key, private key with its comments)."""
    text = subprocess.run(["age-keygen"], check=True, capture_output=True, text=True).stdout
    return next(line.split()[-1] for line in text.splitlines() if "public key" in line), text


@pytest.fixture(scope="module")
def pair() -> tuple[str, str]:
    return keygen()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path, monkeypatch)
    world.with_fake_postgres(TABLES)
    world.without_processes(monkeypatch)
    (world.compose / "docker-compose.yml").write_text("# canary-of-compose\n")
    return world


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def plain(world: World, clock: Clock) -> Backups:
    return Backups(world.settings, BackupConfig(), clock=clock)


@pytest.fixture
def sealed(world: World, clock: Clock, pair: tuple[str, str]) -> Backups:
    return Backups(world.settings, BackupConfig(age_recipients=[pair[0]]), clock=clock)


def files_of(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.iterdir()) if path.name != ".lock")


def readable_secrets(directory: Path) -> set[str]:
    """Which of the secrets stand in any file of the directory."""
    return {
        secret for path in files_of(directory) for secret in SECRETS if secret.encode() in path.read_bytes()
    }


# --- what a set is ----------------------------------------------------------------------------------------


def test_no_file_of_a_set_has_a_secret_in_it(sealed: Backups, world: World) -> None:
    """The names of tables and their rows are in the manifest, and nothing else of the data."""
    backup = sealed.create()
    assert {path.name.removeprefix(backup.name) for path in files_of(world.backups)} == ENCRYPTED
    assert {path.stat().st_mode & 0o777 for path in files_of(world.backups)} == {0o600}
    manifest = backup.path(".manifest.json")
    tables = json.loads(manifest.read_text())["tables"]
    assert tables == TABLES
    manifest.write_text(manifest.read_text().replace(CANARY, "table"))
    backup.path(".verified.json").write_text("{}")
    assert readable_secrets(world.backups) == set()


def test_the_search_for_secrets_finds_them_in_a_plain_set(plain: Backups, world: World) -> None:
    """The control of the test above."""
    plain.create()
    assert readable_secrets(world.backups) == set(SECRETS)


def test_it_is_proven_before_it_is_encrypted_and_the_ciphertexts_are_in_the_manifest(
    sealed: Backups, world: World, pair: tuple[str, str]
) -> None:
    backup = sealed.create()
    assert (backup.encrypted, backup.verified, backup.size) == (True, True, backup.dump.stat().st_size)
    assert any("pg_restore" in call for call in world.calls())
    encryption = backup.manifest()["encryption"]
    assert (encryption["program"], encryption["recipients"]) == ("age", [pair[0]])
    assert set(encryption["files"]) == {".dump.age", ".compose.yml.age", ".env.age"}
    for suffix, entry in encryption["files"].items():
        content = backup.path(suffix).read_bytes()
        assert (entry["sha256"], entry["size"]) == (hashlib.sha256(content).hexdigest(), len(content))
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", backup.path(".age.sha256").name], cwd=world.backups, check=False
    )
    assert checked.returncode == 0
    assert pair[1].splitlines()[-1] not in str(world.calls())


def test_a_dump_that_fails_its_proof_is_not_kept_encrypted(sealed: Backups, world: World) -> None:
    world.set_cluster({"glitchtip": TABLES}, dump_drops=f"public.{CANARY}")
    with pytest.raises(OpsError, match="is missing"):
        sealed.create()
    assert list(files_of(world.backups)) == []


def test_what_is_decrypted_elsewhere_is_what_was_there(
    sealed: Backups, world: World, pair: tuple[str, str], tmp_path: Path
) -> None:
    """As docs/backups.md says it, with age alone."""
    backup = sealed.create()
    key = tmp_path / "key.txt"
    key.write_text(pair[1])
    found = {
        suffix: subprocess.run(
            ["age", "-d", "-i", str(key), str(backup.path(suffix + ".age"))], check=True, capture_output=True
        ).stdout
        for suffix in (".dump", ".compose.yml", ".env")
    }
    assert found[".env"] == (world.compose / ".env").read_bytes()
    assert found[".compose.yml"] == b"# canary-of-compose\n"
    assert hashlib.sha256(found[".dump"]).hexdigest() == backup.manifest()["dump"]["sha256"]


def test_every_recipient_can_open_it(world: World, clock: Clock) -> None:
    pairs = [keygen(), keygen()]
    backups = Backups(
        world.settings, BackupConfig(age_recipients=[public for public, _ in pairs]), clock=clock
    )
    backup = backups.create()
    for _, private in pairs:
        assert backups.verify(backup, private)["rows"] == 357


def test_the_superusers_password_of_an_earlier_version_is_in_no_set(plain: Backups, world: World) -> None:
    environment = world.compose / ".env"
    kept = environment.read_bytes()
    environment.write_bytes(kept + b"SUPERUSER_PASSWORD=canary-superuser\nEMAIL_URL='smtp://x'\n")
    backup = plain.create()
    assert backup.path(".env").read_bytes() == kept + b"EMAIL_URL='smtp://x'\n"
    assert not [path for path in files_of(world.backups) if b"canary-superuser" in path.read_bytes()]


# --- proofs of encrypted sets -----------------------------------------------------------------------------


def test_it_is_restored_with_a_key_that_never_touches_the_disk(
    sealed: Backups, world: World, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The command reads it from standard input; afterwards no file of the host has it."""
    backup = sealed.create()
    backup.path(".verified.json").unlink()
    assert not sealed.newest().verified
    monkeypatch.setattr("glitchtip_ops.backup.command.load_settings", lambda: world.settings)
    monkeypatch.setenv("GLITCHTIP_OPS_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", io.StringIO(pair[1]))
    assert main(["backup", "verify", backup.name, "--identity-stdin"]) == 0
    assert sealed.newest().verified
    secret = pair[1].splitlines()[-1].encode()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert list(world.cluster()["databases"]) == ["glitchtip"]


def test_without_a_key_it_is_refused_with_what_to_do(sealed: Backups) -> None:
    backup = sealed.create()
    with pytest.raises(OpsError, match=r"is encrypted .* --identity-stdin"):
        sealed.verify(backup)
    assert sealed.newest().verified  # what was proven stays proven


@pytest.mark.parametrize("identity", ["AGE-SECRET-KEY-1", "nonsense", "age1" + "q" * 58])
def test_what_is_no_private_key_is_refused(sealed: Backups, identity: str) -> None:
    backup = sealed.create()
    with pytest.raises(OpsError, match="no private key of age") as refused:
        sealed.verify(backup, identity)
    assert identity not in str(refused.value).replace("AGE-SECRET-KEY-1...", "")


def test_the_key_of_somebody_else_is_refused(sealed: Backups) -> None:
    backup = sealed.create()
    with pytest.raises(OpsError, match="age failed: no identity matched any of the recipients"):
        sealed.verify(backup, keygen()[1])


@pytest.mark.parametrize("suffix", [".dump.age", ".env.age", ".compose.yml.age"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "replaced"])
def test_a_damaged_file_is_refused_before_the_database_is_touched(
    sealed: Backups, world: World, pair: tuple[str, str], suffix: str, damage: str
) -> None:
    backup = sealed.create()
    path = backup.path(suffix)
    data = path.read_bytes()
    if damage == "missing" and suffix == ".dump.age":
        path.unlink()
        assert sealed.present() == []
        return
    if damage == "missing":
        path.unlink()
    elif damage == "replaced":  # by another file for the same recipient, which decrypts well
        path.unlink()
        encrypt(b"other", path, [pair[0]])
    else:
        path.write_bytes(data[:-1] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    calls = len(world.calls())
    with pytest.raises(OpsError, match="is damaged"):
        sealed.verify(backup, pair[1])
    assert len(world.calls()) == calls


def test_a_ciphertext_that_was_cut_never_reads_as_whole(pair: tuple[str, str], tmp_path: Path) -> None:
    """Also where its checksum was made to match: age authenticates to the last byte."""
    target = tmp_path / "x.age"
    encrypt(b"content" * 100_000, target, [pair[0]])
    with decrypted(target, pair[1]) as stream:
        assert stream.read() == b"content" * 100_000
    target.write_bytes(target.read_bytes()[:-70_000])
    with pytest.raises(OpsError, match="age failed"), decrypted(target, pair[1]) as stream:
        stream.read()


def test_a_reader_that_gives_up_ends_the_decryption(pair: tuple[str, str], tmp_path: Path) -> None:
    target = tmp_path / "x.age"
    encrypt(b"x" * 5_000_000, target, [pair[0]])
    with pytest.raises(OpsError, match=r"^the restore failed$"), decrypted(target, pair[1]):
        raise OpsError("the restore failed")


# --- failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["no age", "age fails", "disk full", "killed"])
def test_a_failed_encryption_leaves_earlier_sets_and_nothing_readable(
    sealed: Backups, world: World, clock: Clock, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed.create()
    before = {path.name: path.read_bytes() for path in files_of(world.backups)}
    clock.now += timedelta(days=1)
    if fault == "no age":
        monkeypatch.setattr("glitchtip_ops.backup.encryption._PROGRAM", "age-that-is-not-here")
    elif fault == "age fails":
        program = world.bin / "age"
        program.write_text(
            '#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "age: error: out of luck" >&2\nexit 1\n'
        )
        program.chmod(0o755)
    else:
        error: BaseException = (
            OSError(28, "No space left on device") if fault == "disk full" else KeyboardInterrupt()
        )

        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(making, "encrypt", fail)
    expected = KeyboardInterrupt if fault == "killed" else OpsError
    with pytest.raises(expected) as caught:
        take(sealed)
    if fault == "no age":
        assert "need the package age on this host" in str(caught.value)
    if fault == "age fails":
        assert str(caught.value) == "age failed: out of luck"
    assert {path.name: path.read_bytes() for path in files_of(world.backups)} == before


def test_plain_files_that_a_killed_run_left_beside_an_encrypted_set_are_removed(
    sealed: Backups, world: World, clock: Clock
) -> None:
    backup = sealed.create()
    for suffix in (".dump", ".env", ".compose.yml", ".dump.sha256"):
        backup.path(suffix).write_text(CANARY)
    (world.backups / "glitchtip-20260330-0300.dump.part").write_text(CANARY)
    (world.backups / "glitchtip-20260330-0300.env.age").write_text("x")
    assert sealed.newest().encrypted
    clock.now += timedelta(days=1)
    sealed.create()
    assert {path.name.partition(".")[2] for path in files_of(world.backups)} == {
        each[1:] for each in ENCRYPTED
    }


# --- everything else that reads sets ----------------------------------------------------------------------


def test_a_plain_set_is_proven_and_encrypted_afterwards(
    plain: Backups, sealed: Backups, world: World
) -> None:
    old = plain.create()
    plain.verify(old)
    result = sealed.encrypt(old)
    assert (result["changed"], result["rows"]) == (True, 357)
    backup = sealed.newest()
    assert (backup.name, backup.encrypted, backup.verified) == (old.name, True, True)
    assert {path.name.removeprefix(old.name) for path in files_of(world.backups)} == ENCRYPTED
    assert sealed.encrypt(backup)["changed"] is False


def test_a_plain_set_stays_where_it_cannot_be_encrypted(
    plain: Backups, sealed: Backups, world: World
) -> None:
    old = plain.create()
    before = {path.name: path.read_bytes() for path in files_of(world.backups)}
    with pytest.raises(OpsError, match="set backups_age_recipients"):
        plain.encrypt(old)
    world.set_cluster({"glitchtip": TABLES}, restore_fails=True)
    with pytest.raises(OpsError, match="pg_restore failed"):
        sealed.encrypt(old)
    assert {path.name: path.read_bytes() for path in files_of(world.backups)} == before


def test_retention_counts_and_removes_encrypted_sets(sealed: Backups, world: World, clock: Clock) -> None:
    for _ in range(5):
        take(sealed)
        clock.now += timedelta(days=20)
    names = {backup.name for backup in sealed.present()}
    assert len(names) == 3  # never fewer verified ones; the oldest of them is older than 30 days
    assert {path.name.partition(".")[0] for path in files_of(world.backups)} == names


def test_monitor_and_checklist_see_its_age_and_proof(sealed: Backups, world: World) -> None:
    sealed.create()
    young, old = NOW + timedelta(hours=1), NOW + timedelta(days=9)
    for now, fine in ((young, True), (old, False)):
        assert check_backup(world.backups, now, MonitorConfig()).ok is fine
        assert backup_point(world.backups, now.timestamp(), 48).done is fine


def test_the_first_backup_of_a_migration_is_taken_once(sealed: Backups) -> None:
    assert [ensure(sealed)["changed"], ensure(sealed)["changed"]] == [True, False]
    (only,) = sealed.present()
    assert only.encrypted


def test_names_are_free_only_where_no_set_of_either_kind_has_them(plain: Backups, sealed: Backups) -> None:
    names = [sealed.create().name, plain.create().name, sealed.create().name]
    assert names == ["glitchtip-20260331-0300", "glitchtip-20260331-0300-2", "glitchtip-20260331-0300-3"]
    assert sealed.find(names[0] + ".dump.age").encrypted
    assert not sealed.find(names[1] + ".dump").encrypted


def test_a_list_says_which_are_encrypted(sealed: Backups, plain: Backups, world: World) -> None:
    sealed.create()
    plain.create()
    assert [each.to_json()["encrypted"] for each in list_backups(world.backups)] == [True, False]


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("age1short", "no public key of age"),
        ("AGE-SECRET-KEY-1" + "Q" * 58, "has a private key"),
        ("-o/etc/passwd", "no public key of age"),
        (7, "no public key of age"),
    ],
)
def test_what_is_no_public_key_is_refused_and_never_quoted(
    tmp_path: Path, entry: object, sentence: str
) -> None:
    path = tmp_path / "backup.json"
    path.write_text(json.dumps({"age_recipients": [entry]}))
    with pytest.raises(OpsError, match=sentence) as refused:
        BackupConfig.read(path)
    assert str(entry) not in str(refused.value)


def test_a_key_with_a_typing_error_is_refused_by_age(tmp_path: Path, pair: tuple[str, str]) -> None:
    wrong = pair[0][:-1] + ("q" if pair[0][-1] != "q" else "p")
    with pytest.raises(OpsError, match="malformed recipient"):
        encrypt(b"x", tmp_path / "x.age", [wrong])
    assert not (tmp_path / "x.age").exists()


def test_the_dump_of_a_backup_is_named_by_its_kind() -> None:
    for encrypted, name in ((False, "n.dump"), (True, "n.dump.age")):
        assert Backup(Path("/x"), "n", NOW, 1, None, encrypted).dump == Path("/x") / name
