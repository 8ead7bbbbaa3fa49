"""Making, proving, encrypting and pruning the backups of one stack."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glitchtip_core.files import fsync_directory, lock, private_directory, write_bytes, write_object

from ..docker_stack import Container, Stack
from ..host_state import read_disk
from ..process import OpsError
from ..settings import Settings
from .config import BackupConfig
from .encryption import ENDING, Digest, decrypted, digest_of, encrypt, require_program
from .proof import DUMP_TIMEOUT, SMALLEST_NEED, Prover, count_rows
from .retention import plan_prune
from .sets import (
    CHECKSUMS,
    MANIFEST,
    MARK,
    NAME,
    PLAIN_CHECKSUM,
    PRIVATE,
    SUFFIXES,
    Backup,
    list_backups,
    newest_verified_of,
)

_PART = ".part"
#: Variables of ``.env`` that no restore needs: earlier versions of role glitchtip kept the superuser's password there.
_LEFT_OUT = (b"SUPERUSER_PASSWORD",)

_LAST_MIGRATIONS = r"""
SELECT 'SELECT DISTINCT ON (app) app, name FROM django_migrations ORDER BY app, id DESC'
WHERE to_regclass('django_migrations') IS NOT NULL \gexec"""


def utc_now() -> datetime:
    """The clock of this module; tests hand in their own."""
    return datetime.now(UTC)


def needed_space(previous: Sequence[Backup], *, encrypting: bool = False) -> int:
    """Bytes that must be free before a backup begins: twice the last one, at least 64 MiB.

    Three times where it is encrypted: for a moment the dump is there twice.
    """
    return max(SMALLEST_NEED, (3 if encrypting else 2) * previous[-1].size if previous else 0)


def without_unneeded(environment: bytes) -> bytes:
    """``.env`` without the variables that no restore needs."""
    lines = environment.splitlines(keepends=True)
    return b"".join(line for line in lines if line.partition(b"=")[0].strip() not in _LEFT_OUT)


def _secret_hashes(environment: bytes) -> dict[str, str]:
    """Hashes that tell at restore time whether the secrets are the same; high-entropy ones only."""
    hashes = {".env": hashlib.sha256(environment).hexdigest()}
    for line in environment.splitlines():
        name, separator, value = line.partition(b"=")
        if separator and name.strip() == b"SECRET_KEY":
            hashes["SECRET_KEY"] = hashlib.sha256(value.strip().strip(b"\"'")).hexdigest()
    return hashes


class Backups:
    """Makes, proves, encrypts and prunes the backups of one stack."""

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
        self.prover = Prover(self.stack, config.postgres_service, clock)

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
        wanted = Path(name).name.removesuffix(ENDING).removesuffix(".dump")
        for backup in self.present():
            if backup.name == wanted:
                return backup
        raise OpsError(f"there is no backup {wanted} in {self.directory}")

    def create(self) -> Backup:
        """Take a backup and return it: not yet verified, or, with recipients, proven by a restore and encrypted.

        Earlier backups are untouched when this fails. Raises OpsError when space is short, the database does not
        answer, or dump, proof or encryption fail.
        """
        private_directory(self.directory, parents=0o777)
        with lock(self.directory / ".lock", "a backup"):
            return self._create()

    def _create(self) -> Backup:
        recipients = self.config.age_recipients
        if recipients:
            require_program()
        self._clear_unfinished()
        self._require_space(needed_space(self.present(), encrypting=bool(recipients)))
        containers = self.stack.containers()
        postgres = self.stack.container(self.config.postgres_service)
        try:
            environment = without_unneeded((self.compose_dir / ".env").read_bytes())
            compose = (self.compose_dir / "docker-compose.yml").read_bytes()
        except OSError as error:
            raise OpsError(f"{error.filename} cannot be read: {error.strerror}") from None
        now = self.clock()
        name = self._free_name(now)
        part = self.directory / f"{name}.dump{_PART}"
        copies = {".compose.yml": compose, ".env": environment}
        try:
            manifest = self._dump(postgres, part)
            dump = digest_of(part)
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
                "dump": {"sha256": dump.sha256, "size": dump.size},
            }
            if recipients:
                with part.open("rb") as stream:
                    proof = self.prover.prove(name, manifest, stream)
                self._seal(name, {".dump": part, **copies}, manifest, proof)
                part.unlink()
            else:
                self._lay_down(name, part, copies, manifest)
            fsync_directory(self.directory)
        except BaseException as error:
            part.unlink(missing_ok=True)
            self._remove(name)
            if isinstance(error, OSError):
                raise OpsError(f"the backup cannot be written: {error.strerror}") from None
            raise
        return self.find(name)

    def _require_space(self, need: int) -> None:
        disk = read_disk(self.directory)
        if disk.free < need:
            raise OpsError(
                f"{self.directory} has {disk.free // 2**20} MiB free, a backup needs {need // 2**20} MiB: "
                f"{-(-(need - disk.free) // 2**20)} MiB short"
            )

    def _lay_down(
        self, name: str, dump: Path, copies: Mapping[str, bytes], manifest: Mapping[str, Any]
    ) -> None:
        """The files of a plain set; the dump gets its name last, which makes the set one."""
        for suffix, content in copies.items():
            write_bytes(self.directory / f"{name}{suffix}", content)
        line = f"{manifest['dump']['sha256']}  {name}.dump\n"
        write_bytes(self.directory / f"{name}{PLAIN_CHECKSUM}", line.encode())
        write_object(self.directory / f"{name}{MANIFEST}", dict(manifest))
        dump.rename(self.directory / f"{name}.dump")

    def _seal(
        self,
        name: str,
        sources: Mapping[str, Path | bytes],
        manifest: Mapping[str, Any],
        proof: Mapping[str, Any],
    ) -> None:
        """The files of an encrypted set, already proven; the dump gets its name last, which makes the set one.

        After a failure nothing encrypted of ``name`` is left.
        """
        recipients = self.config.age_recipients
        files: dict[str, Digest] = {}
        try:
            for suffix, source in sources.items():
                ending = suffix + ENDING
                files[ending] = encrypt(source, self.directory / f"{name}{ending}{_PART}", recipients)
            encryption = {
                "program": "age",
                "recipients": list(recipients),
                "files": {
                    ending: {"sha256": each.sha256, "size": each.size} for ending, each in files.items()
                },
            }
            lines = [f"{each.sha256}  {name}{ending}\n" for ending, each in files.items()]
            write_bytes(self.directory / f"{name}{CHECKSUMS}", "".join(lines).encode())
            write_object(self.directory / f"{name}{MANIFEST}", {**manifest, "encryption": encryption})
            write_object(self.directory / f"{name}{MARK}", dict(proof))
            for ending in sorted(files, key=lambda each: each == ".dump" + ENDING):
                (self.directory / f"{name}{ending}{_PART}").rename(self.directory / f"{name}{ending}")
            fsync_directory(self.directory)
        except BaseException:
            for suffix in PRIVATE:
                for ending in (suffix + ENDING, suffix + ENDING + _PART):
                    (self.directory / f"{name}{ending}").unlink(missing_ok=True)
            (self.directory / f"{name}{CHECKSUMS}").unlink(missing_ok=True)
            raise

    def encrypt(self, backup: Backup) -> dict[str, Any]:
        """Prove a plain backup by a restore, then encrypt it and remove the plain files.

        Returns ``{"changed", "name", ...proof}``. Raises OpsError, with the plain set as it was, when there is no
        recipient, or proof or encryption fail.
        """
        if not self.config.age_recipients:
            raise OpsError("there is no public key to encrypt to: set backups_age_recipients and run phase 5")
        with lock(self.directory / ".lock", "a backup"):
            if backup.encrypted:
                return {"changed": False, "name": backup.name, **proof_of(backup.mark())}
            require_program()
            self._clear_unfinished()
            self._require_space(max(SMALLEST_NEED, 2 * backup.size))
            manifest = backup.manifest()
            backup.require_intact(manifest)
            try:
                with backup.dump.open("rb") as stream:
                    proof = self.prover.prove(backup.name, manifest, stream)
                environment = without_unneeded(backup.path(".env").read_bytes())
                copies = {".compose.yml": backup.path(".compose.yml").read_bytes(), ".env": environment}
                hashes = {"secrets_sha256": _secret_hashes(environment)}
                self._seal(backup.name, {".dump": backup.dump, **copies}, {**manifest, **hashes}, proof)
            except OSError as error:
                raise OpsError(f"backup {backup.name} cannot be encrypted: {error.strerror}") from None
            self._remove_plain(backup.name)
            return {"changed": True, "name": backup.name, **proof_of(proof)}

    def _remove_plain(self, name: str) -> None:
        for suffix in (*PRIVATE, PLAIN_CHECKSUM):
            (self.directory / f"{name}{suffix}").unlink(missing_ok=True)
        fsync_directory(self.directory)

    def _clear_unfinished(self) -> None:
        """Remove what a killed run left: partial files, companions of a dump that was never finished, plain files of a
        set that was encrypted.
        """
        for path in self.directory.iterdir():
            name, _, _ = path.name.partition(".")
            ours = NAME.fullmatch(name) is not None
            finished = any((self.directory / f"{name}.dump{ending}").exists() for ending in ("", ENDING))
            if (ours and not finished) or path.name.endswith(_PART):
                path.unlink()
        for backup in self.present():
            if backup.encrypted and backup.path(".dump").exists():
                self._remove_plain(backup.name)

    def _free_name(self, now: datetime) -> str:
        base = f"glitchtip-{now.astimezone(UTC):%Y%m%d-%H%M}"
        name, number = base, 1
        while any((self.directory / f"{name}.dump{ending}").exists() for ending in ("", ENDING)):
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
            tables = count_rows(session)
            if not tables:
                raise OpsError(f"the database {database} has no tables: there is nothing to back up")
            migrations = {row[0]: row[1] for row in session.execute(_LAST_MIGRATIONS)}
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                self.stack.database_run(
                    postgres,
                    ["pg_dump", "-Fc", f"--snapshot={snapshot}"],
                    timeout=DUMP_TIMEOUT,
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

    def verify(self, backup: Backup, identity: str = "") -> dict[str, Any]:
        """Restore ``backup`` into a scratch database and compare it with its manifest; mark it verified.

        ``identity`` is the private key of an encrypted one. Returns ``{"name", "verified_at", "tables", "rows",
        "stack_id"}``. Raises OpsError when anything differs.
        """
        with lock(self.directory / ".lock", "a backup"):
            manifest = backup.manifest()
            backup.require_intact(manifest)
            if not backup.encrypted:
                with backup.dump.open("rb") as stream:
                    proof = self.prover.prove(backup.name, manifest, stream)
            elif identity:
                with decrypted(backup.dump, identity) as stream:
                    proof = self.prover.prove(backup.name, manifest, stream)
            else:
                raise OpsError(
                    f"backup {backup.name} is encrypted (its files are those of the manifest): to restore it, give the private "
                    "key on standard input of `glitchtip-ops backup verify NAME --identity-stdin`"
                )
            write_object(backup.path(MARK), proof)
        return {name: value for name, value in proof.items() if name != "server_version"}

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
        for suffix in SUFFIXES:
            (self.directory / f"{name}{suffix}").unlink(missing_ok=True)

    def proven(self, backup: Backup) -> dict[str, Any]:
        """The proof of a backup that was just taken: the one that encryption began with, else by a restore now."""
        return backup.mark() if backup.verified else self.verify(backup)

    def newest_verified(self) -> Backup | None:
        """The newest backup whose restore was proven, or None."""
        return next((backup for backup in reversed(self.present()) if backup.verified), None)


def ensure(backups: Backups, *, dry_run: bool = False) -> dict[str, Any]:
    """See to it that this migration has a backup proven by a restore; ``{"changed", "backup", ...proof}``.

    ``dry_run`` only says whether something would be done. Raises OpsError when the proof fails.
    """
    present = backups.present()
    known = newest_verified_of(present, backups.migration_id, backups.stack_id)
    if known is not None:
        return {"changed": False, "backup": known.name, **proof_of(known.mark())}
    if dry_run:
        return {"changed": True, "backup": None}
    proof = backups.proven(backups.create())
    return {"changed": True, "backup": proof["name"], **proof_of(proof)}


def proof_of(mark: Mapping[str, Any]) -> dict[str, Any]:
    """``{"verified_at", "tables", "rows"}`` of a mark."""
    return {name: mark.get(name) for name in ("verified_at", "tables", "rows")}


def take(backups: Backups) -> dict[str, Any]:
    """The daily run: create, verify (before the encryption, where there is one), prune.

    Returns ``{"backup", "size", "verified_at", "tables", "rows", "removed", "note"}``.

    Raises OpsError when the backup cannot be taken or proven; then nothing is pruned.
    """
    backup = backups.create()
    proof = backups.proven(backup)
    pruned = backups.prune()
    return {"backup": backup.name, "size": backup.size, **proof_of(proof), **pruned}
