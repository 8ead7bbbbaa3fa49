"""Backups of a directory: their names, files, marks and manifests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glitchtip_core.files import read_object

from ..process import OpsError
from .encryption import ENDING, Digest, digest_of

#: A backup's name; files begin with it and a dot.
NAME = re.compile(r"glitchtip-(\d{8}-\d{4})(?:-\d+)?")
#: What holds secrets: encrypted where there are recipients.
PRIVATE = (".dump", ".compose.yml", ".env")
PLAIN_CHECKSUM, CHECKSUMS = ".dump.sha256", ".age.sha256"
MANIFEST, MARK = ".manifest.json", ".verified.json"
SUFFIXES = (*PRIVATE, *(suffix + ENDING for suffix in PRIVATE), PLAIN_CHECKSUM, CHECKSUMS, MANIFEST, MARK)


@dataclass(frozen=True)
class Backup:
    """One backup of the directory; ``taken_at`` comes from the name, never from the file's time."""

    directory: Path
    name: str
    taken_at: datetime
    size: int
    verified_at: str | None
    encrypted: bool = False

    @property
    def verified(self) -> bool:
        """Whether a restore of it once equalled its manifest."""
        return self.verified_at is not None

    @property
    def dump(self) -> Path:
        """The file with the dump, plain or encrypted."""
        return self.path(".dump" + (ENDING if self.encrypted else ""))

    def path(self, suffix: str) -> Path:
        """Its file with ``suffix`` (``.dump``, ``.manifest.json``, ...)."""
        return self.directory / f"{self.name}{suffix}"

    def manifest(self) -> dict[str, Any]:
        """The manifest. Raises OpsError when it is missing or not whole."""
        data = read_object(self.path(MANIFEST))
        if data is None:
            raise OpsError(f"backup {self.name} has no manifest: what it should hold is not known")
        if not isinstance(data.get("tables"), dict) or not isinstance(data.get("dump"), dict):
            raise OpsError(f"the manifest of backup {self.name} is not whole")
        return data

    def to_json(self) -> dict[str, Any]:
        """``{"name", "taken_at", "size", "verified_at", "encrypted"}``."""
        return {
            "name": self.name,
            "taken_at": self.taken_at.isoformat(timespec="minutes"),
            "size": self.size,
            "verified_at": self.verified_at,
            "encrypted": self.encrypted,
        }

    def mark(self) -> dict[str, Any]:
        """What the last proof by a restore found; empty when there was none."""
        return read_object(self.path(MARK)) or {}

    def require_intact(self, manifest: dict[str, Any]) -> None:
        """Raises OpsError when the dump, or an encrypted copy, is not the one that the manifest names."""
        if self.encrypted:
            recorded = (manifest.get("encryption") or {}).get("files")
            expected = recorded if isinstance(recorded, dict) else {}
            wanted = {suffix + ENDING: expected.get(suffix + ENDING, {}).get("sha256") for suffix in PRIVATE}
        else:
            wanted = {".dump": manifest["dump"].get("sha256")}
        for suffix, sha256 in wanted.items():
            try:
                found: Digest | None = digest_of(self.path(suffix))
            except FileNotFoundError:
                found = None
            if found is None or found.sha256 != sha256:
                what = "" if suffix == ".dump" else f"{suffix}: "
                raise OpsError(f"backup {self.name} is damaged: {what}its checksum differs from the manifest")


def _dumps(directory: Path) -> Iterator[tuple[Path, str, bool]]:
    """(path, name of the backup, whether it is encrypted) of every dump; the encrypted one where both exist."""
    if not directory.is_dir():
        return
    for path in directory.glob("glitchtip-*.dump*"):
        name, _, suffix = path.name.partition(".")
        if f".{suffix}" == ".dump" + ENDING:
            yield path, name, True
        elif suffix == "dump" and not path.with_name(path.name + ENDING).exists():
            yield path, name, False


def list_backups(directory: Path) -> list[Backup]:
    """All backups in ``directory``, oldest first. Files of other names are ignored."""
    found: list[Backup] = []
    for path, name, encrypted in _dumps(directory):
        match = NAME.fullmatch(name)
        if match is None:
            continue
        try:
            taken_at = datetime.strptime(match[1], "%Y%m%d-%H%M").replace(tzinfo=UTC)
        except ValueError:
            continue
        mark = read_object(directory / f"{name}{MARK}") or {}
        verified_at = str(mark["verified_at"]) if "verified_at" in mark else None
        found.append(Backup(directory, name, taken_at, path.stat().st_size, verified_at, encrypted))
    return sorted(found, key=lambda backup: (backup.taken_at, len(backup.name), backup.name))


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
    return [backup for backup in backups if backup.verified and stack_id in ("", stack_of(backup))]


def stack_of(backup: Backup) -> str | None:
    """The stack that a backup was taken of; None where its manifest cannot tell."""
    try:
        return str(backup.manifest().get("stack_id") or "") or None
    except OpsError:
        return None
