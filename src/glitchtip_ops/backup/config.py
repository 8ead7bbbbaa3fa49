"""Settings of the backups, ``backup.json`` of role backups."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from glitchtip_core.files import read_object

from ..process import OpsError
from .encryption import require_recipient


@dataclass(frozen=True)
class BackupConfig:
    """``backup.json`` of role backups. Times in days; with ``age_recipients`` every new set is encrypted to them."""

    compose_project: str = "glitchtip"
    postgres_service: str = "postgres"
    keep_days: int = 30
    keep_verified: int = 3
    age_recipients: list[str] = field(default_factory=list)

    @staticmethod
    def read(path: Path) -> BackupConfig:
        """The file at ``path``; defaults when there is none. Raises OpsError for unknown or bad values."""
        data = read_object(path) or {}
        unknown = sorted(set(data) - {each.name for each in fields(BackupConfig)})
        if unknown:
            raise OpsError(f"{path} has unknown keys: {', '.join(unknown)}")
        config = BackupConfig(**data)
        if config.keep_days < 1 or config.keep_verified < 1:
            raise OpsError("retention must keep at least one day and one verified backup")
        if not isinstance(config.age_recipients, list):
            raise OpsError(f"age_recipients in {path} must be a list of age's public keys")
        for recipient in config.age_recipients:
            require_recipient(recipient)
        return config
