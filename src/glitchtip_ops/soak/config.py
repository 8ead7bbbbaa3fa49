"""``soak.json`` of role parallel_run: what is watched, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from glitchtip_core.files import read_object

from ..process import OpsError


@dataclass(frozen=True)
class SoakConfig:
    """Where PM2 is, which containers and PM2 services must be up, the mode, the thresholds as given.

    ``thresholds`` are checked when a soak is ordered (``check_thresholds``); a running one keeps its own.
    ``pm2_home``, ``pm2_node``: "" means that they are derived from the user and from where ``pm2`` is.
    ``services``: ``worker`` is left out where one process is web server and worker (6.x). ``worker_service``: whose log
    is shown; "" means the one that processes events.
    ``mirror_log_dir``: where the mirror's access logs are ("" leaves it to the mirror's own default).
    ``valid_for``: seconds for which a verdict is worth something, told in the verdict.
    """

    services: tuple[str, ...] = ("postgres", "valkey", "web", "worker")
    worker_service: str = ""
    compose_project: str = "glitchtip"
    pm2_user: str = "root"
    pm2_home: str = ""
    pm2_binary: str = "/usr/local/bin/pm2"
    pm2_node: str = ""
    pm2_services: tuple[str, ...] = ()
    probe_timeout: float = 30.0
    mode: str = "probe"
    mirror_log_dir: str = ""
    require_parity: bool = False
    valid_for: float = 7 * 86400.0
    thresholds: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def read(path: Path) -> SoakConfig:
        """The file at ``path``; defaults when there is none. Raises OpsError for an unknown key."""
        data = read_object(path) or {}
        known = {each.name for each in fields(SoakConfig)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise OpsError(f"{path} has unknown keys: {', '.join(unknown)}")
        values = dict(data)
        for name in ("services", "pm2_services"):
            if name in values:
                values[name] = tuple(values[name])
        return SoakConfig(**values)
