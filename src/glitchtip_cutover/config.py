"""The configuration of one migration, as typed settings (``config_file`` reads it)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .errors import UsageError
from .window import Window

MANAGERS = ("pm2", "systemd", "compose")
STRATEGIES = ("one_by_one", "all_at_once")
MIRROR_LISTEN = "http://127.0.0.1:19000"


@dataclass(frozen=True)
class Pm2Settings:
    """Whose PM2 it is: user, PM2_HOME, the ``pm2`` executable and the ``node`` that runs it.

    ``home`` None: ``.pm2`` in the user's home directory. ``node`` None: it is found beside ``pm2``.
    """

    user: str
    home: Path | None
    binary: Path
    node: Path | None


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
class SystemdSettings:
    """For ``manager: systemd``: services are unit names; ``node`` runs the probes."""

    node: Path


@dataclass(frozen=True)
class ComposeSettings:
    """For ``manager: compose``: where the Compose file is, the project's name, ``docker``; ``node`` in images."""

    directory: Path
    project: str
    docker: Path
    node: str


@dataclass(frozen=True)
class MirrorSettings:
    """Where the local listener takes envelopes that go to both trackers: ``http://host:port``."""

    listen: str


@dataclass(frozen=True)
class VerdictSettings:
    """The soak's verdict that a switch needs, how many seconds old it may be, and of which stack ("": of any)."""

    file: Path
    max_age: float
    stack_id: str = ""


@dataclass(frozen=True)
class WatchSettings:
    """The first hour after a switch: ``seconds`` of it (0: none), seconds between looks, and its triggers.

    ``max_memory_percent`` is of what the host really has; ``missed_events`` is how many own events in a row may
    be missing; ``compose_project`` is the new tracker's, whose containers are looked at (empty: none are).
    """

    seconds: float
    interval: float
    max_memory_percent: float
    missed_events: int
    compose_project: str


@dataclass(frozen=True)
class Service:
    """One service: its ``.env``, and its own new DSN, project and instrument file where they are not the common ones."""

    name: str
    env_file: Path
    dsn_file: Path | None = None
    project: str | None = None
    project_id: str | None = None
    instrument: str | None = None


@dataclass(frozen=True)
class Config:
    """Everything a command needs. Times are seconds; ``new`` and ``old`` are None when not (yet) known.

    ``canary`` is empty when no service goes first. ``document`` is the decoded file, kept beside the snapshot so
    that the way back works without it.
    """

    path: Path
    migration_id: str
    state_dir: Path
    env_file: Path
    env_key: str
    app_dir: Path
    instrument: str
    manager: str
    pm2: Pm2Settings
    systemd: SystemdSettings
    compose: ComposeSettings
    services: tuple[str, ...]
    units: tuple[Service, ...]
    without_sdk: tuple[str, ...]
    accept_unproven: tuple[str, ...]
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
    window: Window | None
    verdict: VerdictSettings | None
    mirror: MirrorSettings
    notify_file: Path | None
    watch: WatchSettings
    deploy_files: tuple[Path, ...]
    document: Mapping[str, Any] = field(repr=False, compare=False)
    #: Id of the new tracker's stack, as its settings file says; "" where it is not known.
    stack_id: str = ""
    #: Id of the run of the migration, from there too.
    run_id: str = ""

    def service(self, name: str) -> Service:
        """The service of that name. Raises UsageError when there is none."""
        for unit in self.units:
            if unit.name == name:
                return unit
        raise UsageError(f"there is no service {name}; the services are {', '.join(self.services)}")

    def instrument_of(self, name: str) -> str:
        """The instrument file of the service of that name: its own, else the common one."""
        return self.service(name).instrument or self.instrument

    def side_for(self, name: str) -> Side | None:
        """The new tracker as the service of that name uses it: with its own project and DSN where it has them."""
        unit = self.service(name)
        if self.new is None or (unit.dsn_file is None and unit.project is None):
            return self.new
        return replace(
            self.new,
            dsn_file=unit.dsn_file or self.new.dsn_file,
            project=unit.project or self.new.project,
            project_id=unit.project_id if unit.project else self.new.project_id,
        )

    @property
    def env_files(self) -> tuple[Path, ...]:
        """Every ``.env`` that a service reads, each once; the common one first where it is used."""
        files = list(dict.fromkeys(unit.env_file for unit in self.units))
        return tuple(sorted(files, key=lambda path: path != self.env_file))

    def sharing(self, path: Path) -> tuple[str, ...]:
        """Names of the services that read the ``.env`` at ``path``."""
        return tuple(unit.name for unit in self.units if unit.env_file == path)
