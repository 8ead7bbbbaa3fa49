"""What keeps the product's services alive: one shape for PM2, systemd and Docker Compose.

A manager tells what runs, restarts it, and keeps variables of its own for it. ``Process.environment`` holds the
DSN only where the manager itself gives it to the service (PM2's stored environment, a unit's ``Environment=``, a
value in the Compose file): such a value wins over ``.env`` and has to be set anew. A value that the manager reads
from the service's ``.env`` at each start is none of it.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol

from glitchtip_core.process import Completed

from .errors import CutoverError
from .launch import Launch

if TYPE_CHECKING:
    from .config import Config

# A process to restart, and the variables to set for it (None: only the restart).
Restart = tuple["Process", Mapping[str, str] | None]


@dataclass(frozen=True)
class Process:
    """One instance of a service. ``started_at`` is epoch seconds; ``environment`` may hold secrets.

    ``pm_id`` tells the instances of one manager apart. ``counter_resets``: a restart that was asked for sets
    ``restarts`` to 0 (systemd, Docker); PM2 adds one instead. ``user`` is empty where the manager's settings
    name it; ``container`` and its ``hostname`` are set under Docker Compose. ``watches_files`` names the setting
    by which a changed file restarts it, empty where there is none. ``command`` is the command line as the manager
    records it, the program first.
    """

    name: str
    pm_id: int
    pid: int
    status: str
    started_at: float
    restarts: int
    cwd: str
    interpreter: str
    cron_job: bool
    module: bool
    environment: Mapping[str, str] = field(repr=False)
    counter_resets: bool = False
    user: str = ""
    container: str = ""
    hostname: str = ""
    watches_files: str = ""
    command: tuple[str, ...] = ()

    @property
    def server_name(self) -> str:
        """What its SDK, unless told otherwise in code, puts into the tag ``server_name`` of its events."""
        return self.environment.get("SENTRY_NAME") or self.hostname or socket.gethostname()

    @property
    def online(self) -> bool:
        """Whether its manager calls it online and it has a process id."""
        return self.status == "online" and self.pid > 0

    @property
    def idle_job(self) -> bool:
        """A job (PM2's ``cron_restart`` with ``autorestart: false``, a timer's unit) that waits for its next run."""
        return self.cron_job and self.status == "stopped"

    @property
    def healthy(self) -> bool:
        """Online, or a job between two runs."""
        return self.online or self.idle_job

    @property
    def restarts_after(self) -> int:
        """What the counter may be at most after one restart that was asked for."""
        return 0 if self.counter_resets else self.restarts + 1


class Manager(Protocol):
    """What the switch asks of a process manager. Every method raises CutoverError with one sentence."""

    @property
    def running(self) -> bool:
        """Whether it can be asked; False while the machine boots and no service was started yet."""

    def processes(self) -> list[Process]:
        """All instances that it knows, read anew."""

    def restart(self, process: Process, variables: Mapping[str, str] | None = None) -> None:
        """Restart one instance; ``variables`` are set for it from now on, or taken away again where the
        service would get the same values without them."""

    def restart_together(self, restarts: Sequence[Restart]) -> None:
        """Restart many as quickly as the manager can. All instances of a service have to be among them.

        Every service is tried; the error's details hold, as ``failed``, a sentence for each that could not be.
        """

    def save(self) -> None:
        """Make what runs now survive a boot, where that is a step of its own."""

    def recorded(self) -> dict[str, Any]:
        """What a way back has to know of the manager although it may be another one then: kept in the snapshot."""

    def rewrite_dump(self, key: str, values: Mapping[str, str]) -> list[str]:
        """Without asking the manager: set ``key`` to ``values[service]`` in what it will start services with
        at boot, wherever it stands there; return the services changed."""

    def launch(self, process: Process) -> Launch:
        """How the Node.js process of that service was started, or will be where it is a job that rests.

        Raises UnprovenServiceError where no second process could be started in the same way.
        """

    def run_launch(self, process: Process, launch: Launch, option: str, timeout: float) -> Completed:
        """Run that command line with one more option of Node.js, as the service's user, in its environment.

        The option must end the process before the script is loaded. Nothing else is started or restarted by it.
        """


def manager_label(config: Config) -> str:
    """How messages call the manager."""
    if config.manager == "systemd":
        return "systemd"
    if config.manager == "compose":
        return f"the Compose project {config.compose.project}"
    return f"PM2 of user {config.pm2.user}"


def manager_for(config: Config) -> Manager:
    """The manager that the configuration names."""
    from .compose import Compose
    from .pm2 import Pm2
    from .systemd import Systemd

    if config.manager == "systemd":
        return Systemd(config)
    if config.manager == "compose":
        return Compose(config)
    return Pm2(config.pm2, config.env_key, {*config.services, *config.without_sdk})


def file_watcher(words: Sequence[str]) -> str:
    """The option or program of a command line that restarts a service when a file changes; empty where none does."""
    for word in words:
        option = word.split("=", 1)[0]
        if option in ("--watch", "--watch-path"):
            return option
        program = PurePath(word).name.removesuffix(".js")
        if program in ("nodemon", "node-dev", "ts-node-dev"):
            return program
    return ""


def raise_all(failures: Mapping[str, str]) -> None:
    """Raise one CutoverError for failures by service; its details hold them as ``failed``."""
    if failures:
        raise CutoverError("; ".join(failures.values()), {"failed": dict(failures)})
