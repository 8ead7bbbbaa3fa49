"""The same against a real PostgreSQL, where this machine has one: partitions, concurrent writes, damage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from unit.ops_support import World

from glitchtip_ops.backup import BackupConfig, Backups
from glitchtip_ops.process import OpsError

BINARIES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None)
pytestmark = pytest.mark.skipif(BINARIES is None, reason="PostgreSQL's server is not installed here")

SCHEMA = """
CREATE TABLE issue (id int PRIMARY KEY, title text);
CREATE TABLE event (day date NOT NULL, issue int, body text) PARTITION BY RANGE (day);
CREATE TABLE event_1 PARTITION OF event FOR VALUES FROM ('2026-01-01') TO ('2026-01-02');
CREATE TABLE event_2 PARTITION OF event FOR VALUES FROM ('2026-01-02') TO ('2026-01-03');
CREATE TABLE "Odd name.x" (id int);
CREATE TABLE django_migrations (id int, app text, name text);
INSERT INTO issue SELECT n, 'title ' || n FROM generate_series(1, 50) n;
INSERT INTO event SELECT '2026-01-01', n, repeat(md5(n::text), 20) FROM generate_series(1, 3000) n;
INSERT INTO event SELECT '2026-01-02', n, 'x' FROM generate_series(1, 7) n;
INSERT INTO django_migrations
VALUES (1, 'issues', '0001_initial'), (2, 'issues', '0002_more'), (3, 'users', '0009_x');
"""


def as_postgres(argv: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    return subprocess.run([*user, *argv], check=True, capture_output=True, text=True, cwd="/", **options)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    assert BINARIES is not None
    base = tmp_path_factory.mktemp("pg")
    for directory in (base, *base.parents[:3]):
        directory.chmod(0o755)
    data = base / "run"
    data.mkdir()
    if os.geteuid() == 0:
        shutil.chown(data, "postgres", "postgres")
    tools = BINARIES.parent
    as_postgres([str(tools / "initdb"), "-D", str(data / "db"), "-U", "glitchtip", "--auth=trust", "-N"])
    options = f"-c listen_addresses= -c unix_socket_directories={data} -c fsync=off"
    as_postgres(
        [str(tools / "pg_ctl"), "-D", str(data / "db"), "-o", options, "-l", str(data / "log"), "-w", "start"]
    )
    try:
        yield data
    finally:
        as_postgres([str(tools / "pg_ctl"), "-D", str(data / "db"), "-m", "immediate", "-w", "stop"])


@pytest.fixture
def backups(server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backups:
    assert BINARIES is not None
    monkeypatch.setenv("PATH", f"{BINARIES.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PGHOST", str(server))
    world = World(tmp_path, monkeypatch)
    for arguments in (["-c", "DROP DATABASE IF EXISTS glitchtip"], ["-c", "CREATE DATABASE glitchtip"]):
        subprocess.run(["psql", "-qX", "-U", "glitchtip", "-d", "postgres", *arguments], check=True)
    sql("glitchtip", SCHEMA)
    return Backups(world.settings, BackupConfig())


def settings_of(backups: Backups) -> SimpleNamespace:
    return SimpleNamespace(
        backup_dir=backups.directory,
        compose_dir=backups.compose_dir,
        migration_id=backups.migration_id,
        stack_id=backups.stack_id,
        run_id=backups.run_id,
    )


def sql(database: str, text: str) -> str:
    done = subprocess.run(
        ["psql", "-qXAt", "-v", "ON_ERROR_STOP=1", "-U", "glitchtip", "-d", database],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def scratch_databases() -> str:
    return sql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'glitchtip_verify%'")


def test_a_backup_of_partitions_and_odd_names_restores_to_its_manifest(backups: Backups) -> None:
    backup = backups.create()
    manifest = backup.manifest()
    assert manifest["tables"] == {
        "public.Odd name.x": 0,
        "public.django_migrations": 3,
        "public.event_1": 3000,
        "public.event_2": 7,
        "public.issue": 50,
    }
    assert manifest["migrations"] == {"issues": "0002_more", "users": "0009_x"}
    proof = backups.verify(backup)
    assert proof["rows"] == 3060
    assert scratch_databases() == ""


def test_rows_written_between_counting_and_dumping_do_not_spoil_the_proof(
    backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    from glitchtip_ops.backup import making as module

    counted = module.count_rows

    def count_then_write(session: object) -> dict[str, int]:
        found = counted(session)  # type: ignore[arg-type]
        sql("glitchtip", "INSERT INTO issue SELECT n, 'late' FROM generate_series(100, 140) n")
        return found

    monkeypatch.setattr(module, "count_rows", count_then_write)
    backup = backups.create()
    monkeypatch.setattr(module, "count_rows", counted)
    assert backup.manifest()["tables"]["public.issue"] == 50
    assert backups.verify(backup)["rows"] == 3060
    assert sql("glitchtip", "SELECT count(*) FROM issue").strip() == "91"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--exclude-table=issue"], "table public.issue is missing"),
        (["--schema-only"], r"rows instead of"),
    ],
)
def test_a_dump_that_lacks_what_the_manifest_names_is_refused_though_it_restores(
    backups: Backups, arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = backups.stack.database_run

    def crippled(postgres: object, argv: list[str], **options: object) -> str:
        return run(postgres, [*argv, *arguments] if argv[0] == "pg_dump" else argv, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(backups.stack, "database_run", crippled)
    backup = backups.create()
    with pytest.raises(OpsError, match=sentence):
        backups.verify(backup)
    assert scratch_databases() == ""
    assert not backups.newest().verified


@pytest.mark.parametrize("cut", [1, "half"])
def test_a_cut_dump_is_refused_by_the_restore_even_when_its_checksum_was_made_to_match(
    backups: Backups, cut: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from glitchtip_ops.backup import sets
    from glitchtip_ops.backup.encryption import Digest

    backup = backups.create()
    dump = backup.path(".dump")
    data = dump.read_bytes()
    dump.write_bytes(data[:-1] if cut == 1 else data[: len(data) // 2])
    recorded = Digest(backup.manifest()["dump"]["sha256"], 0)
    monkeypatch.setattr(sets, "digest_of", lambda _: recorded)
    with pytest.raises(OpsError, match="pg_restore failed"):
        backups.verify(backup)
    assert scratch_databases() == ""


@pytest.mark.skipif(shutil.which("age") is None, reason="age is not installed here")
def test_an_encrypted_backup_is_proven_before_and_restores_with_the_key(
    backups: Backups,
) -> None:
    key = subprocess.run(["age-keygen"], check=True, capture_output=True, text=True).stdout
    recipient = next(line.split()[-1] for line in key.splitlines() if "public key" in line)
    sealed = Backups(
        settings_of(backups),  # type: ignore[arg-type]
        BackupConfig(age_recipients=[recipient]),
    )
    backup = sealed.create()
    assert (backup.encrypted, backup.verified) == (True, True)
    assert not list(backups.directory.glob("*.dump"))
    backup.path(".verified.json").unlink()
    assert sealed.verify(sealed.newest(), key)["rows"] == 3060
    assert scratch_databases() == ""


def test_a_failing_statement_is_told_with_the_servers_message(backups: Backups) -> None:
    postgres = backups.stack.container("postgres")
    with (
        backups.stack.database_session(postgres) as session,
        pytest.raises(OpsError, match='relation "nowhere" does not exist'),
    ):
        session.execute("SELECT * FROM nowhere;")


def test_a_dump_that_dies_leaves_nothing(backups: Backups) -> None:
    broken = backups.directory.parent / "bin" / "pg_dump"
    broken.write_text(
        f"#!{sys.executable}\nimport os, sys\nos.write(1, b'PGDMP' * 1000)\nsys.exit('pg_dump: killed')\n"
    )
    broken.chmod(0o755)
    with pytest.raises(OpsError, match="pg_dump failed with exit code 1: pg_dump: killed"):
        backups.create()
    assert not [path for path in backups.directory.iterdir() if not path.name.startswith(".")]
