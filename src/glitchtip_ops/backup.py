"""``glitchtip-ops backup``: dumps of GlitchTip's database that are proven by a restore.

A backup is a custom-format dump taken in the same snapshot as a manifest (rows of every table, server
version, images, migrations, hashes of the secrets), with its checksum and copies of the Compose file and
``.env`` beside it. It counts as verified when it was restored into a scratch database and every table had as
many rows as the manifest says; listing an archive proves nothing (a dump cut in half still lists).

Files in the backup directory (all 600, times in UTC)::

    glitchtip-YYYYMMDD-HHMM.dump              pg_dump -Fc
    glitchtip-YYYYMMDD-HHMM.dump.sha256       checksum, as sha256sum writes it
    glitchtip-YYYYMMDD-HHMM.manifest.json
    glitchtip-YYYYMMDD-HHMM.compose.yml       copies; the dump holds tokens in clear text, .env the keys
    glitchtip-YYYYMMDD-HHMM.env
    glitchtip-YYYYMMDD-HHMM.verified.json     written by a successful verification
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from .cli import Outcome
from .docker_stack import Container, DatabaseSession, Stack
from .files import fsync_directory, lock, make_private, read_json, write_bytes, write_json
from .host_state import read_disk
from .process import OpsError
from .settings import Settings, load_settings, settings_directory

_NAME = re.compile(r"glitchtip-(\d{8}-\d{4})(?:-\d+)?")
_SUFFIXES = (".dump", ".dump.sha256", ".manifest.json", ".compose.yml", ".env", ".verified.json")
_SMALLEST_NEED = 64 * 2**20
_CLOCK_TOLERANCE = timedelta(hours=1)
_SCRATCH = "glitchtip_verify_"
_DUMP_TIMEOUT = 3600.0
_PGDATA = "/var/lib/postgresql/data"

# Tables and the partitions that hold the rows; a partitioned parent has none of its own.
_COUNT_ROWS = r"""
SELECT format('SELECT %L, count(*) FROM %I.%I', n.nspname || '.' || c.relname, n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\_%'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                  AND d.deptype = 'e')
ORDER BY n.nspname, c.relname \gexec"""
_LAST_MIGRATIONS = r"""
SELECT 'SELECT DISTINCT ON (app) app, name FROM django_migrations ORDER BY app, id DESC'
WHERE to_regclass('django_migrations') IS NOT NULL \gexec"""


def utc_now() -> datetime:
    """The clock of this module; tests hand in their own."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class BackupConfig:
    """``backup.json`` of role backups. Sizes in bytes, times in days."""

    compose_project: str = "glitchtip"
    postgres_service: str = "postgres"
    keep_days: int = 30
    keep_verified: int = 3

    @staticmethod
    def read(path: Path) -> BackupConfig:
        """The file at ``path``; defaults when there is none. Raises OpsError for unknown or bad values."""
        data = read_json(path) or {}
        unknown = sorted(set(data) - {each.name for each in fields(BackupConfig)})
        if unknown:
            raise OpsError(f"{path} has unknown keys: {', '.join(unknown)}")
        config = BackupConfig(**data)
        if config.keep_days < 1 or config.keep_verified < 1:
            raise OpsError("retention must keep at least one day and one verified backup")
        return config


@dataclass(frozen=True)
class Backup:
    """One backup of the directory; ``taken_at`` comes from the name, never from the file's time."""

    directory: Path
    name: str
    taken_at: datetime
    size: int
    verified_at: str | None

    @property
    def verified(self) -> bool:
        """Whether a restore of it once equalled its manifest."""
        return self.verified_at is not None

    def path(self, suffix: str) -> Path:
        """Its file with ``suffix`` (``.dump``, ``.manifest.json``, ...)."""
        return self.directory / f"{self.name}{suffix}"

    def manifest(self) -> dict[str, Any]:
        """The manifest. Raises OpsError when it is missing or not whole."""
        data = read_json(self.path(".manifest.json"))
        if data is None:
            raise OpsError(f"backup {self.name} has no manifest: what it should hold is not known")
        if not isinstance(data.get("tables"), dict) or not isinstance(data.get("dump"), dict):
            raise OpsError(f"the manifest of backup {self.name} is not whole")
        return data

    def to_json(self) -> dict[str, Any]:
        """``{"name", "taken_at", "size", "verified_at"}``."""
        return {
            "name": self.name,
            "taken_at": self.taken_at.isoformat(timespec="minutes"),
            "size": self.size,
            "verified_at": self.verified_at,
        }


def list_backups(directory: Path) -> list[Backup]:
    """All backups in ``directory``, oldest first. Files of other names are ignored."""
    found: list[Backup] = []
    for path in directory.glob("glitchtip-*.dump") if directory.is_dir() else []:
        match = _NAME.fullmatch(path.stem)
        if match is None:
            continue
        try:
            taken_at = datetime.strptime(match[1], "%Y%m%d-%H%M").replace(tzinfo=UTC)
        except ValueError:
            continue
        mark = read_json(directory / f"{path.stem}.verified.json") or {}
        verified_at = str(mark["verified_at"]) if "verified_at" in mark else None
        found.append(Backup(directory, path.stem, taken_at, path.stat().st_size, verified_at))
    return sorted(found, key=lambda backup: (backup.taken_at, len(backup.name), backup.name))


def plan_prune(
    backups: Sequence[Backup], now: datetime, *, keep_days: int, keep_verified: int
) -> tuple[list[Backup], str]:
    """Which of ``backups`` (oldest first) may go, and one sentence about it.

    Never fewer than ``keep_verified`` verified ones stay; nothing goes when the newest backup is not verified
    or lies in the future (then the clock cannot be trusted).
    """
    if keep_days < 1 or keep_verified < 1:
        return [], "retention must keep at least one day and one verified backup: nothing pruned"
    if not backups:
        return [], "there is no backup: nothing pruned"
    newest = backups[-1]
    if newest.taken_at > now + _CLOCK_TOLERANCE:
        return [], f"backup {newest.name} lies in the future, the clock is not trusted: nothing pruned"
    if not newest.verified:
        return [], f"the newest backup {newest.name} is not verified: nothing pruned"
    kept = {backup.name for backup in [b for b in backups if b.verified][-keep_verified:]}
    limit = now - timedelta(days=keep_days)
    going = [backup for backup in backups if backup.taken_at < limit and backup.name not in kept]
    return going, f"{len(going)} of {len(backups)} backups are older than {keep_days} days and may go"


def compare_tables(expected: Mapping[str, int], restored: Mapping[str, int]) -> list[str]:
    """Differences between the manifest's row counts and those of the restored database, one sentence each."""
    differences = [f"table {name} is missing" for name in sorted(set(expected) - set(restored))]
    differences += [f"table {name} is not in the manifest" for name in sorted(set(restored) - set(expected))]
    differences += [
        f"table {name} has {restored[name]} rows instead of {expected[name]}"
        for name in sorted(set(expected) & set(restored))
        if restored[name] != expected[name]
    ]
    return differences


def needed_space(previous: Sequence[Backup]) -> int:
    """Bytes that must be free before a backup begins: twice the last one, at least 64 MiB."""
    return max(_SMALLEST_NEED, 2 * previous[-1].size if previous else 0)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()


def _secret_hashes(environment: bytes) -> dict[str, str]:
    """Hashes that tell at restore time whether the secrets are the same; high-entropy ones only."""
    hashes = {".env": hashlib.sha256(environment).hexdigest()}
    for line in environment.splitlines():
        name, separator, value = line.partition(b"=")
        if separator and name.strip() == b"SECRET_KEY":
            hashes["SECRET_KEY"] = hashlib.sha256(value.strip().strip(b"\"'")).hexdigest()
    return hashes


def _count_rows(session: DatabaseSession) -> dict[str, int]:
    return {row[0]: int(row[1]) for row in session.execute(_COUNT_ROWS)}


class Backups:
    """Makes, proves and prunes the backups of one stack."""

    def __init__(
        self, settings: Settings, config: BackupConfig, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.directory = Path(settings.backup_dir)
        self.compose_dir = Path(settings.compose_dir)
        self.migration_id = settings.migration_id
        self.stack_id, self.run_id = settings.stack_id, settings.run_id
        self.config = config
        self.stack = Stack(config.compose_project)
        self.clock = clock

    def present(self) -> list[Backup]:
        """All backups, oldest first."""
        return list_backups(self.directory)

    def newest(self) -> Backup:
        """The newest backup. Raises OpsError when there is none."""
        backups = self.present()
        if not backups:
            raise OpsError(f"there is no backup in {self.directory}")
        return backups[-1]

    def find(self, name: str) -> Backup:
        """The backup called ``name`` (with or without ``.dump``). Raises OpsError when there is none."""
        wanted = Path(name).name.removesuffix(".dump")
        for backup in self.present():
            if backup.name == wanted:
                return backup
        raise OpsError(f"there is no backup {wanted} in {self.directory}")

    def create(self) -> Backup:
        """Take a backup and return it, not yet verified. Earlier backups are untouched when this fails.

        Raises OpsError when space is short, the database does not answer or the dump fails.
        """
        make_private(self.directory)
        with lock(self.directory / ".lock", "a backup"):
            return self._create()

    def _create(self) -> Backup:
        self._clear_unfinished()
        need, disk = needed_space(self.present()), read_disk(self.directory)
        if disk.free < need:
            raise OpsError(
                f"{self.directory} has {disk.free // 2**20} MiB free, a backup needs {need // 2**20} MiB: "
                f"{-(-(need - disk.free) // 2**20)} MiB short"
            )
        containers = self.stack.containers()
        postgres = self.stack.container(self.config.postgres_service)
        try:
            environment = (self.compose_dir / ".env").read_bytes()
            compose = (self.compose_dir / "docker-compose.yml").read_bytes()
        except OSError as error:
            raise OpsError(f"{error.filename} cannot be read: {error.strerror}") from None
        now = self.clock()
        name = self._free_name(now)
        part = self.directory / f"{name}.dump.part"
        try:
            manifest = self._dump(postgres, part)
            digest = _sha256(part)
            manifest |= {
                "format": 1,
                "name": name,
                "taken_at": now.isoformat(timespec="seconds"),
                "migration_id": self.migration_id,
                "stack_id": self.stack_id,
                "run_id": self.run_id,
                "images": self.stack.image_digests(containers),
                "secrets_sha256": _secret_hashes(environment),
                "compose_sha256": hashlib.sha256(compose).hexdigest(),
                "dump": {"sha256": digest, "size": part.stat().st_size},
            }
            write_bytes(self.directory / f"{name}.compose.yml", compose)
            write_bytes(self.directory / f"{name}.env", environment)
            write_bytes(self.directory / f"{name}.dump.sha256", f"{digest}  {name}.dump\n".encode())
            write_json(self.directory / f"{name}.manifest.json", manifest)
            part.rename(self.directory / f"{name}.dump")
            fsync_directory(self.directory)
        except BaseException as error:
            part.unlink(missing_ok=True)
            self._remove(name)
            if isinstance(error, OSError):
                raise OpsError(f"the backup cannot be written: {error.strerror}") from None
            raise
        return self.find(name)

    def _clear_unfinished(self) -> None:
        """Remove what a killed run left: partial files, and companions of a dump that was never finished."""
        for path in self.directory.iterdir():
            match = re.match(r"(glitchtip-\d{8}-\d{4}(?:-\d+)?)\.", path.name)
            unfinished = match is not None and not (self.directory / f"{match[1]}.dump").exists()
            if unfinished or path.name.endswith(".part"):
                path.unlink()

    def _free_name(self, now: datetime) -> str:
        base = f"glitchtip-{now.astimezone(UTC):%Y%m%d-%H%M}"
        name, number = base, 1
        while (self.directory / f"{name}.dump").exists():
            number += 1
            name = f"{base}-{number}"
        return name

    def _dump(self, postgres: Container, part: Path) -> dict[str, Any]:
        """Write the dump to ``part`` and return what the same snapshot holds."""
        with self.stack.database_session(postgres) as session:
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;")
            ((snapshot,),) = session.execute("SELECT pg_export_snapshot();")
            ((database, version),) = session.execute(
                "SELECT current_database(), current_setting('server_version');"
            )
            # Counting locks the tables against removal until the transaction ends: the dump finds them all.
            tables = _count_rows(session)
            if not tables:
                raise OpsError(f"the database {database} has no tables: there is nothing to back up")
            migrations = {row[0]: row[1] for row in session.execute(_LAST_MIGRATIONS)}
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                self.stack.database_run(
                    postgres,
                    ["pg_dump", "-Fc", f"--snapshot={snapshot}"],
                    timeout=_DUMP_TIMEOUT,
                    stdout=stream,
                )
                stream.flush()
                os.fsync(stream.fileno())
        return {
            "database": database,
            "server_version": version,
            "tables": tables,
            "rows": sum(tables.values()),
            "migrations": migrations,
        }

    def verify(self, backup: Backup) -> dict[str, Any]:
        """Restore ``backup`` into a scratch database and compare it with its manifest; mark it verified.

        The scratch database is dropped whatever happens, as are those of earlier runs that were killed.
        Returns ``{"name", "verified_at", "tables", "rows"}``. Raises OpsError when anything differs.
        """
        with lock(self.directory / ".lock", "a backup"):
            return self._verify(backup)

    def _verify(self, backup: Backup) -> dict[str, Any]:
        manifest = backup.manifest()
        dump = backup.path(".dump")
        if _sha256(dump) != manifest["dump"].get("sha256"):
            raise OpsError(f"backup {backup.name} is damaged: its checksum differs from the manifest")
        postgres = self.stack.container(self.config.postgres_service)
        with self.stack.database_session(postgres) as session:
            ((version,),) = session.execute("SELECT current_setting('server_version');")
            ((size,),) = session.execute("SELECT pg_database_size(current_database());")
            leftovers = session.execute(
                f"SELECT datname FROM pg_database WHERE starts_with(datname::text, '{_SCRATCH}');"
            )
        if int(version.split(".", 1)[0]) < int(str(manifest["server_version"]).split(".", 1)[0]):
            raise OpsError(
                f"backup {backup.name} is of PostgreSQL {manifest['server_version']}, this one is {version}"
            )
        self._require_database_space(postgres, int(size))
        for (leftover,) in leftovers:
            self._drop(postgres, leftover)
        scratch = f"{_SCRATCH}{self.clock():%Y%m%d%H%M%S}_{secrets.token_hex(3)}"
        try:
            self.stack.database_run(postgres, ["createdb", "-T", "template0", scratch], timeout=60)
            with dump.open("rb") as stream:
                self._restore(postgres, scratch, stream)
            with self.stack.database_session(postgres, scratch) as session:
                restored = _count_rows(session)
        finally:
            self._drop(postgres, scratch)
        expected = {str(name): int(rows) for name, rows in manifest["tables"].items()}
        differences = compare_tables(expected, restored)
        if differences:
            more = f", and {len(differences) - 1} more differences" if len(differences) > 1 else ""
            raise OpsError(
                f"backup {backup.name} does not restore to what it should hold: {differences[0]}{more}"
            )
        proof = {
            "name": backup.name,
            "verified_at": self.clock().isoformat(timespec="seconds"),
            "tables": len(restored),
            "rows": sum(restored.values()),
            "stack_id": _stack_of(backup) or "",
        }
        write_json(backup.path(".verified.json"), {**proof, "server_version": version})
        return proof

    def _restore(self, postgres: Container, database: str, dump: BinaryIO) -> None:
        self.stack.database_run(
            postgres,
            ["pg_restore", "-e", "-1", "--no-owner", "--no-privileges", "-d", database],
            timeout=_DUMP_TIMEOUT,
            stdin=dump,
        )

    def _drop(self, postgres: Container, database: str) -> None:
        if not database.startswith(_SCRATCH):
            raise OpsError(f"refused to drop {database}: it is not a scratch database")
        self.stack.database_run(postgres, ["dropdb", "--if-exists", "--force", database], timeout=60)

    def _require_database_space(self, postgres: Container, size: int) -> None:
        source = self.stack.volume_source(postgres, _PGDATA)
        if source is None or not source.exists():
            return
        free, need = read_disk(source).free, max(_SMALLEST_NEED, size + size // 2)
        if free < need:
            raise OpsError(
                f"the proof by restore needs {need // 2**20} MiB beside the database, "
                f"{free // 2**20} MiB are free"
            )

    def prune(self, *, dry_run: bool = False) -> dict[str, Any]:
        """Remove what retention allows; ``{"removed": [names], "note"}``. ``dry_run`` removes nothing."""
        with lock(self.directory / ".lock", "a backup"):
            going, note = plan_prune(
                self.present(),
                self.clock(),
                keep_days=self.config.keep_days,
                keep_verified=self.config.keep_verified,
            )
            if not dry_run:
                for backup in going:
                    self._remove(backup.name)
            return {"removed": [backup.name for backup in going], "note": note}

    def _remove(self, name: str) -> None:
        for suffix in _SUFFIXES:
            (self.directory / f"{name}{suffix}").unlink(missing_ok=True)

    def newest_verified(self) -> Backup | None:
        """The newest backup whose restore was proven, or None."""
        return next((backup for backup in reversed(self.present()) if backup.verified), None)


def newest_verified_of(backups: Sequence[Backup], migration_id: str, stack_id: str = "") -> Backup | None:
    """The newest verified backup that was taken for ``migration_id`` of the stack ``stack_id``, or None."""
    for backup in reversed(verified_of_stack(backups, stack_id)):
        if backup.manifest().get("migration_id") == migration_id:
            return backup
    return None


def verified_of_stack(backups: Sequence[Backup], stack_id: str) -> list[Backup]:
    """The verified backups of that stack, in their order; all verified ones where its id is not known ("").

    One of a stack that was removed proves nothing about the one that is deployed now. A backup whose manifest
    cannot be read is left out.
    """
    return [backup for backup in backups if backup.verified and stack_id in ("", _stack_of(backup))]


def _stack_of(backup: Backup) -> str | None:
    """The stack that a backup was taken of; None where its manifest cannot tell."""
    try:
        return str(backup.manifest().get("stack_id") or "") or None
    except OpsError:
        return None


def ensure(backups: Backups, *, dry_run: bool = False) -> dict[str, Any]:
    """See to it that this migration has a backup proven by a restore; ``{"changed", "backup", ...proof}``.

    ``dry_run`` only says whether something would be done. Raises OpsError when the proof fails.
    """
    present = backups.present()
    known = newest_verified_of(present, backups.migration_id, backups.stack_id)
    if known is not None:
        mark = read_json(known.path(".verified.json")) or {}
        return {"changed": False, "backup": known.name, **_proof(mark)}
    if dry_run:
        return {"changed": True, "backup": None}
    proof = backups.verify(backups.create())
    return {"changed": True, "backup": proof["name"], **_proof(proof)}


def _proof(mark: Mapping[str, Any]) -> dict[str, Any]:
    return {name: mark.get(name) for name in ("verified_at", "tables", "rows")}


def take(backups: Backups) -> dict[str, Any]:
    """The daily run: create, verify, prune.

    Returns ``{"backup", "size", "verified_at", "tables", "rows", "removed", "note"}``.

    Raises OpsError when the backup cannot be taken or proven; then nothing is pruned.
    """
    backup = backups.create()
    proof = backups.verify(backup)
    pruned = backups.prune()
    return {"backup": backup.name, "size": backup.size, **_proof(proof), **pruned}


def _command(arguments: argparse.Namespace, settings: Settings) -> tuple[int, dict[str, Any]]:
    backups = Backups(settings, BackupConfig.read(settings_directory() / "backup.json"))
    match arguments.action:
        case "create":
            return 0, {"changed": True, **backups.create().to_json()}
        case "verify":
            wanted = backups.find(arguments.name) if arguments.name else backups.newest()
            return 0, backups.verify(wanted)
        case "prune":
            return 0, backups.prune(dry_run=arguments.dry_run)
        case "ensure":
            return 0, ensure(backups, dry_run=arguments.dry_run)
        case "run":
            return 0, take(backups)
        case _:
            return 0, {"backups": [backup.to_json() for backup in backups.present()]}


def describe(result: Mapping[str, Any]) -> str:
    """The result of a backup command for people, some lines."""
    if "backups" in result:
        lines = [
            f"{backup['name']}  {backup['size'] / 2**20:8.1f} MiB  proven {backup['verified_at'] or 'never'}"
            for backup in result["backups"]
        ]
        return "\n".join(lines) or "no backups"
    lines = []
    name = result.get("backup") or result.get("name")
    if name:
        verified = result.get("verified_at")
        proof = f"restored and compared: {result.get('tables')} tables, {result.get('rows')} rows"
        lines.append(f"{name}: {proof if verified else 'not verified yet'}")
    elif "changed" in result:
        lines.append("a backup would be taken and proven" if result["changed"] else "nothing to do")
    if "note" in result:
        lines.append(str(result["note"]))
        lines += [f"removed {removed}" for removed in result["removed"]]
    return "\n".join(lines)


def register(subparsers: Any) -> None:
    """Add ``backup`` with its actions."""
    parser = subparsers.add_parser("backup", help="backups of GlitchTip's database, proven by a restore")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("run", help="create, verify, then prune: what the timer does")
    first = actions.add_parser("ensure", help="have a verified backup of this migration")
    first.add_argument("--dry-run", action="store_true", help="only say whether one would be taken")
    actions.add_parser("create", help="take a backup, without the proof")
    proof = actions.add_parser("verify", help="restore a backup into a scratch database and compare")
    proof.add_argument("name", nargs="?", help="name of the backup (default: the newest)")
    prune = actions.add_parser("prune", help="remove what the retention allows")
    prune.add_argument("--dry-run", action="store_true", help="only say what would go")
    actions.add_parser("list", help="all backups")
    parser.set_defaults(handler=_handle)


def _handle(arguments: argparse.Namespace) -> Outcome:
    code, result = _command(arguments, load_settings())
    return Outcome(result, describe(result).splitlines(), code)
