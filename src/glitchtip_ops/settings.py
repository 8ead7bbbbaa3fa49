"""Settings of the operator tools, written by role ``ops``: a JSON document and two files with secrets."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .process import OpsError

DEFAULT_DIRECTORY = Path("/etc/glitchtip-ops")
_TEXTS = ("migration_id", "url", "public_url", "organization", "project", "project_id")
_PATHS = ("compose_dir", "backup_dir", "state_dir")
#: Settings that an earlier version did not write.
_LATER_PATHS = ("evidence_dir", "cutover_dir", "cutover_config_dir")


@dataclass(frozen=True)
class Settings:
    """Where GlitchTip is (``url``: on this host), what is read there, where the tools keep their files."""

    migration_id: str
    url: str
    public_url: str
    organization: str
    project: str
    project_id: str
    compose_dir: Path
    backup_dir: Path
    state_dir: Path
    token: str = field(repr=False)
    dsn: str = field(repr=False)
    #: Id of the stack, made at its deployment; "" where phase 2 of this version has not run yet.
    stack_id: str = ""
    #: Id of the run of the migration; "" likewise.
    run_id: str = ""
    #: Evidence of the phases; state and settings of the switch. None: where an earlier version kept them.
    evidence_dir: Path | None = None
    cutover_dir: Path | None = None
    cutover_config_dir: Path | None = None


def settings_directory() -> Path:
    """``GLITCHTIP_OPS_CONFIG_DIR`` where it is set, else /etc/glitchtip-ops."""
    return Path(os.environ.get("GLITCHTIP_OPS_CONFIG_DIR") or DEFAULT_DIRECTORY)


def load_settings(directory: Path | None = None) -> Settings:
    """Read settings.json, token and dsn.

    Raises:
        OpsError: a file is missing, not readable by this user, not JSON, or lacks a key.
    """
    directory = directory or settings_directory()
    path = directory / "settings.json"
    try:
        document = json.loads(_read(path))
    except ValueError as error:
        raise OpsError(
            f"{path} is not JSON ({error}); run playbooks/phase2_deploy.yml to write it again."
        ) from None
    if not isinstance(document, dict):
        raise OpsError(
            f"{path} must hold one JSON object; run playbooks/phase2_deploy.yml to write it again."
        )
    missing = [
        key for key in (*_TEXTS, *_PATHS) if not isinstance(document.get(key), str) or not document[key]
    ]
    if missing:
        raise OpsError(
            f"{path} lacks {', '.join(missing)}; run playbooks/phase2_deploy.yml to write it again."
        )
    values: dict[str, Any] = {key: document[key] for key in _TEXTS}
    values.update({key: Path(document[key]) for key in _PATHS})
    values.update({key: Path(document[key]) for key in _LATER_PATHS if document.get(key)})
    values.update({key: str(document.get(key) or "") for key in ("stack_id", "run_id")})
    return Settings(**values, token=_read(directory / "token").strip(), dsn=_read(directory / "dsn").strip())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise OpsError(f"{path} is missing; playbooks/phase2_deploy.yml writes it.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OpsError(f"{path} cannot be read: {error}; run this as root or as glitchtip-ops.") from None
