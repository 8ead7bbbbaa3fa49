"""The configuration file: JSON, mode 600, written by the role and read by every command."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UsageError


@dataclass(frozen=True)
class Pm2Settings:
    """Whose PM2 it is: user, PM2_HOME, the ``pm2`` executable and the ``node`` that runs it."""

    user: str
    home: Path
    binary: Path
    node: Path


@dataclass(frozen=True)
class Side:
    """One tracker: where its API answers, and which project holds the product's events."""

    name: str
    api_url: str
    organization: str
    project: str
    token_file: Path
    project_id: str | None = None
    dsn_file: Path | None = None


@dataclass(frozen=True)
class Config:
    """Everything a command needs. Times are seconds; ``new`` and ``old`` are None when not (yet) known."""

    path: Path
    migration_id: str
    state_dir: Path
    env_file: Path
    env_key: str
    app_dir: Path
    instrument: str
    pm2: Pm2Settings
    services: tuple[str, ...]
    without_sdk: tuple[str, ...]
    canary: str
    strategy: str
    service_tag: str
    new: Side | None
    old: Side | None
    own_event_wait: float
    probe_wait: float
    restart_wait: float
    stable_seconds: float
    confirm_window: float
    run_max: float


class _Reader:
    """Typed access to one JSON object; every complaint names the place in the file."""

    def __init__(self, data: object, where: str, place: str = "") -> None:
        if not isinstance(data, dict):
            raise UsageError(f"{where}: {place or 'the document'} must be a JSON object")
        self.data: dict[str, Any] = data
        self.where = where
        self.place = place

    def _name(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def text(self, key: str, default: str | None = None) -> str:
        value = self.data.get(key, default)
        if not isinstance(value, str) or not value or "\x00" in value or "\n" in value:
            raise UsageError(f"{self.where}: {self._name(key)} must be a text that is not empty")
        return value

    def absolute(self, key: str, default: str | None = None) -> Path:
        path = Path(self.text(key, default))
        if not path.is_absolute():
            raise UsageError(f"{self.where}: {self._name(key)} must be an absolute path")
        return path

    def names(self, key: str, default: list[str] | None = None) -> tuple[str, ...]:
        value = self.data.get(key, default)
        if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
            raise UsageError(f"{self.where}: {self._name(key)} must be a list of names")
        if len(set(value)) != len(value):
            raise UsageError(f"{self.where}: {self._name(key)} names a service twice")
        return tuple(value)

    def seconds(self, key: str, default: float) -> float:
        value = self.data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 86400:
            raise UsageError(f"{self.where}: {self._name(key)} must be a number of seconds from 0 to 86400")
        return float(value)

    def part(self, key: str) -> _Reader:
        return _Reader(self.data.get(key), self.where, self._name(key))


def _settings(part: _Reader) -> dict[str, Any] | None:
    """What another file says of the tracker; an empty object when none is named, None when it is missing.

    The operator tools keep ``{"url", "organization", "project", "project_id"}`` there once the tracker is set
    up, so that this configuration is the same before and after.
    """
    if part.data.get("settings_file") in (None, ""):
        return {}
    path = part.absolute("settings_file")
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"the settings {path} cannot be read: {type(error).__name__}") from None
    if not isinstance(data, dict):
        raise UsageError(f"the settings {path} must be a JSON object")
    known = {
        "url": "api_url",
        "organization": "organization",
        "project": "project",
        "project_id": "project_id",
    }
    return {ours: data[theirs] for theirs, ours in known.items() if data.get(theirs)}


def _side(reader: _Reader, name: str) -> Side | None:
    if reader.data.get(name) in (None, {}):
        return None
    part = reader.part(name)
    settings = _settings(part)
    if settings is None:
        return None
    given = {key: value for key, value in part.data.items() if value not in (None, "")}
    part = _Reader({**settings, **given}, reader.where, name)
    api_url = part.text("api_url").rstrip("/")
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s?#]*)?", api_url):
        raise UsageError(
            f"{reader.where}: {name}.api_url must be an http or https address without credentials"
        )
    project_id = part.data.get("project_id")
    return Side(
        name=name,
        api_url=api_url,
        organization=part.text("organization"),
        project=part.text("project"),
        token_file=part.absolute("token_file"),
        project_id=None if project_id is None else str(project_id),
        dsn_file=part.absolute("dsn_file") if name == "new" else None,
    )


def parse_config(data: object, path: Path) -> Config:
    """Check the decoded document and return it typed. Raises UsageError with one sentence."""
    reader = _Reader(data, str(path))
    pm2 = reader.part("pm2")
    env_key = reader.text("env_key", "SENTRY_DSN")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", env_key):
        raise UsageError(f"{path}: env_key is not a variable name")
    strategy = reader.text("strategy", "canary_first")
    if strategy not in ("canary_first", "all_at_once"):
        raise UsageError(f"{path}: strategy must be canary_first or all_at_once")
    services = reader.names("services")
    without_sdk = reader.names("without_sdk", [])
    if not services:
        raise UsageError(f"{path}: services must name at least one PM2 service")
    if both := sorted(set(services) & set(without_sdk)):
        raise UsageError(f"{path}: {both[0]} stands both in services and in without_sdk")
    canary = reader.text("canary", services[0])
    if canary not in services:
        raise UsageError(f"{path}: the canary {canary} is not one of the services")
    return Config(
        path=path,
        migration_id=reader.text("migration_id"),
        state_dir=reader.absolute("state_dir"),
        env_file=reader.absolute("env_file"),
        env_key=env_key,
        app_dir=reader.absolute("app_dir"),
        instrument=reader.text("instrument", "src/instrument.js"),
        pm2=Pm2Settings(
            user=pm2.text("user", "root"),
            home=pm2.absolute("home", "/root/.pm2"),
            binary=pm2.absolute("binary", "/usr/local/bin/pm2"),
            node=pm2.absolute("node", "/usr/bin/node"),
        ),
        services=services,
        without_sdk=without_sdk,
        canary=canary,
        strategy=strategy,
        service_tag=reader.text("service_tag", "service"),
        new=_side(reader, "new"),
        old=_side(reader, "old"),
        own_event_wait=reader.seconds("own_event_wait", 20),
        probe_wait=reader.seconds("probe_wait", 30),
        restart_wait=reader.seconds("restart_wait", 30),
        stable_seconds=reader.seconds("stable_seconds", 3),
        confirm_window=reader.seconds("confirm_window", 600),
        run_max=reader.seconds("run_max", 900),
    )


def load_config(path: Path) -> Config:
    """Read and check the configuration file. Raises UsageError when it is missing, damaged or incomplete."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"there is no configuration file {path}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"the configuration file {path} cannot be read: {type(error).__name__}") from None
    return parse_config(data, path)
