"""The configuration file: JSON, mode 600, written by the role and read by every command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from glitchtip_core.json_text import decode_json

from .config import (
    MANAGERS,
    MIRROR_LISTEN,
    STRATEGIES,
    ComposeSettings,
    Config,
    MirrorSettings,
    Pm2Settings,
    Service,
    Side,
    SystemdSettings,
    VerdictSettings,
    WatchSettings,
)
from .errors import UsageError
from .window import Window, parse_window

_SERVICE_KEYS = frozenset({"name", "env_file", "dsn_file", "project", "project_id", "instrument"})


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

    def absolute_or_none(self, key: str) -> Path | None:
        return None if self.data.get(key, "") == "" else self.absolute(key)

    def names(self, key: str, default: list[str] | None = None) -> tuple[str, ...]:
        value = self.data.get(key, default)
        if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
            raise UsageError(f"{self.where}: {self._name(key)} must be a list of names")
        if len(set(value)) != len(value):
            raise UsageError(f"{self.where}: {self._name(key)} names a service twice")
        return tuple(value)

    def seconds(self, key: str, default: float, low: float = 0, high: float = 86400) -> float:
        return self.number(key, default, low, high, "a number of seconds")

    def number(self, key: str, default: float, low: float, high: float, kind: str = "a number") -> float:
        value = self.data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise UsageError(f"{self.where}: {self._name(key)} must be {kind} from {low:g} to {high:g}")
        return float(value)

    def optional(self, key: str) -> bool:
        """Whether something is given for ``key``."""
        return self.data.get(key) not in (None, "", {})

    def refuse(self, key: str, sentence: str) -> UsageError:
        """The complaint about ``key``, naming its place."""
        return UsageError(f"{self.where}: {self._name(key)} {sentence}")

    def part(self, key: str, default: dict[str, Any] | None = None) -> _Reader:
        return _Reader(self.data.get(key, default), self.where, self._name(key))


def _settings(part: _Reader) -> dict[str, Any] | None:
    """What another file says of the tracker; an empty object when none is named, None when it is missing.

    The operator tools keep ``{"url", "organization", "project", "project_id"}`` there once the tracker is set
    up, so that this configuration is the same before and after.
    """
    if part.data.get("settings_file") in (None, ""):
        return {}
    path = part.absolute("settings_file")
    try:
        data = decode_json(path.read_bytes())
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


def _id(reader: _Reader, name: str) -> str:
    """``stack_id`` or ``run_id`` from the settings file of ``new``; "" where that has none or cannot be read."""
    part = reader.part("new", {}) if isinstance(reader.data.get("new"), dict) else None
    if part is None or not isinstance(part.data.get("settings_file"), str):
        return ""
    try:
        data = decode_json(Path(part.data["settings_file"]).read_bytes())
    except (OSError, ValueError):
        return ""
    return str(data.get(name) or "") if isinstance(data, dict) else ""


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


def _units(reader: _Reader, env_file: Path) -> tuple[Service, ...]:
    """The services, given as names or as objects with what is their own."""
    given = reader.data.get("services")
    if not isinstance(given, list):
        raise reader.refuse("services", "must be a list of names")
    units: list[Service] = []
    for number, item in enumerate(given):
        if isinstance(item, str) and item:
            units.append(Service(item, env_file))
            continue
        if not isinstance(item, dict):
            raise reader.refuse("services", "must be a list of names")
        part = _Reader(item, reader.where, f"services[{number}]")
        if unknown := sorted(set(item) - _SERVICE_KEYS):
            raise part.refuse(unknown[0], "is no setting of a service")
        own = part.absolute("env_file") if part.optional("env_file") else env_file
        unit = Service(
            name=part.text("name"),
            env_file=own,
            dsn_file=part.absolute("dsn_file") if part.optional("dsn_file") else None,
            project=part.text("project") if part.optional("project") else None,
            project_id=str(item["project_id"]) if part.optional("project_id") else None,
            instrument=part.text("instrument") if part.optional("instrument") else None,
        )
        if own == env_file and (unit.dsn_file or unit.project):
            raise part.refuse("dsn_file", "needs an env_file that is the service's own")
        if unit.project and not unit.dsn_file:
            raise part.refuse("project", "needs the dsn_file of that project")
        if unit.project_id and not unit.project:
            raise part.refuse("project_id", "needs the project that it belongs to")
        units.append(unit)
    names = [unit.name for unit in units]
    if len(set(names)) != len(names):
        raise reader.refuse("services", "names a service twice")
    for unit in units:
        for other in units:
            if unit.env_file == other.env_file and (unit.dsn_file, unit.project) != (
                other.dsn_file,
                other.project,
            ):
                raise reader.refuse(
                    "services", f"gives {unit.name} and {other.name} one env_file but two new DSNs"
                )
    return tuple(units)


def _mirror(reader: _Reader) -> MirrorSettings:
    part = reader.part("mirror", {})
    listen = part.text("listen", MIRROR_LISTEN).rstrip("/")
    if not re.fullmatch(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", listen):
        raise part.refuse("listen", "must be like http://127.0.0.1:19000")
    return MirrorSettings(listen)


def _verdict(reader: _Reader) -> VerdictSettings | None:
    if not reader.optional("verdict"):
        return None
    part = reader.part("verdict")
    if not part.optional("file"):
        return None
    return VerdictSettings(
        part.absolute("file"), part.seconds("max_age", 259200, 60, 2592000), _id(reader, "stack_id")
    )


def _watch(reader: _Reader) -> WatchSettings:
    part = reader.part("watch", {})
    seconds = part.seconds("seconds", 3600)
    interval = part.seconds("interval", 30, 1, 3600)
    if 0 < seconds < interval:
        raise part.refuse("interval", f"is longer than the whole watch of {seconds:g} s")
    missed = part.number("missed_events", 3, 1, 1000)
    if missed != int(missed):
        raise part.refuse("missed_events", "must be a whole number")
    return WatchSettings(
        seconds=seconds,
        interval=interval,
        max_memory_percent=part.number("max_memory_percent", 90, 1, 100),
        missed_events=int(missed),
        compose_project=""
        if part.data.get("compose_project") == ""
        else part.text("compose_project", "glitchtip"),
    )


def _deploy_files(reader: _Reader) -> tuple[Path, ...]:
    """Files and directories, beside those of the product, from which a deploy gives services their variables."""
    value = reader.data.get("deploy_files", [])
    if not isinstance(value, list) or not all(isinstance(path, str) and path.startswith("/") for path in value):
        raise reader.refuse("deploy_files", "must be a list of absolute paths")
    return tuple(Path(path) for path in value)


def _window(reader: _Reader) -> Window | None:
    text = reader.data.get("window")
    if text is None:
        return None
    if not isinstance(text, str):
        raise reader.refuse("window", "must be a text")
    try:
        return parse_window(text)
    except ValueError as error:
        raise reader.refuse("window", str(error)) from None


def parse_config(data: object, path: Path, *, lenient: bool = False) -> Config:
    """Check the decoded document and return it typed. Raises UsageError with one sentence.

    ``lenient`` is for the way back without a whole host: a tracker whose settings cannot be read counts as not
    configured, and what only a switch needs (window, verdict) is left out.
    """
    reader = _Reader(data, str(path))
    env_key = reader.text("env_key", "SENTRY_DSN")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", env_key):
        raise UsageError(f"{path}: env_key is not a variable name")
    manager = reader.text("manager", "pm2")
    if manager not in MANAGERS:
        raise UsageError(f"{path}: manager must be pm2, systemd or compose")
    pm2 = reader.part("pm2", None if manager == "pm2" else {})
    systemd = reader.part("systemd", {})
    compose = reader.part("compose", {})
    strategy = reader.text("strategy", "one_by_one")
    if strategy not in STRATEGIES:
        raise UsageError(
            f"{path}: strategy must be one_by_one or all_at_once (a canary goes first with either of them)"
        )
    env_file = reader.absolute("env_file")
    app_dir = reader.absolute("app_dir")
    units = _units(reader, env_file)
    services = tuple(unit.name for unit in units)
    without_sdk = reader.names("without_sdk", [])
    if not services:
        raise UsageError(f"{path}: services must name at least one service")
    if both := sorted(set(services) & set(without_sdk)):
        raise UsageError(f"{path}: {both[0]} stands both in services and in without_sdk")
    accept_unproven = reader.names("accept_unproven", [])
    if unknown := sorted(set(accept_unproven) - set(services)):
        raise UsageError(f"{path}: accept_unproven names {unknown[0]}, which is not one of the services")
    canary = "" if reader.data.get("canary") == "" else reader.text("canary", services[0])
    if canary and canary not in services:
        raise UsageError(f"{path}: the canary {canary} is not one of the services")
    config = Config(
        path=path,
        migration_id=reader.text("migration_id"),
        state_dir=reader.absolute("state_dir"),
        env_file=env_file,
        env_key=env_key,
        app_dir=app_dir,
        instrument=reader.text("instrument", "src/instrument.js"),
        manager=manager,
        pm2=Pm2Settings(
            user=pm2.text("user", "root"),
            home=pm2.absolute_or_none("home"),
            binary=pm2.absolute("binary", "/usr/local/bin/pm2"),
            node=pm2.absolute_or_none("node"),
        ),
        systemd=SystemdSettings(node=systemd.absolute("node", "/usr/bin/node")),
        compose=ComposeSettings(
            directory=compose.absolute("directory", str(app_dir)),
            project=compose.text("project", app_dir.name or "app"),
            docker=compose.absolute("docker", "/usr/bin/docker"),
            node=compose.text("node", "node"),
        ),
        services=services,
        units=units,
        without_sdk=without_sdk,
        accept_unproven=accept_unproven,
        canary=canary,
        strategy=strategy,
        service_tag=reader.text("service_tag", "service"),
        new=_tracker_side(reader, "new", lenient),
        old=_tracker_side(reader, "old", lenient),
        own_event_wait=reader.seconds("own_event_wait", 20),
        probe_wait=reader.seconds("probe_wait", 30),
        restart_wait=reader.seconds("restart_wait", 30),
        stable_seconds=reader.seconds("stable_seconds", 3),
        confirm_window=reader.seconds("confirm_window", 600),
        run_max=reader.seconds("run_max", 900, 1),
        window=None if lenient else _window(reader),
        verdict=None if lenient else _verdict(reader),
        mirror=_mirror(reader),
        notify_file=reader.absolute("notify_file") if reader.optional("notify_file") else None,
        watch=_watch(reader),
        deploy_files=_deploy_files(reader),
        document=reader.data,
        stack_id=_id(reader, "stack_id"),
        run_id=_id(reader, "run_id"),
    )
    needed = config.restart_wait + config.stable_seconds + config.own_event_wait + config.probe_wait
    if config.run_max < needed and not lenient:
        raise UsageError(
            f"{path}: run_max of {config.run_max:g} s is shorter than what one service may take "
            f"(restart_wait, stable_seconds, own_event_wait and probe_wait: {needed:g} s)"
        )
    return config


def _tracker_side(reader: _Reader, name: str, lenient: bool) -> Side | None:
    try:
        return _side(reader, name)
    except UsageError:
        if lenient:
            return None
        raise


def load_config(path: Path, *, lenient: bool = False) -> Config:
    """Read and check the configuration file. Raises UsageError when it is missing, damaged or incomplete.

    ``lenient``: as in ``parse_config``.
    """
    try:
        data = decode_json(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"there is no configuration file {path}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"the configuration file {path} cannot be read: {type(error).__name__}") from None
    return parse_config(data, path, lenient=lenient)
