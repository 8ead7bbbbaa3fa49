"""A product in memory, whose services keep what they read at their start; time passes by waiting."""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from glitchtip_core.dsn import Dsn, parse_dsn
from glitchtip_cutover.api import Event
from glitchtip_cutover.config import Config, Side
from glitchtip_cutover.config_file import parse_config
from glitchtip_cutover.errors import CutoverError, ServiceError, UnprovenServiceError
from glitchtip_cutover.host import Host
from glitchtip_cutover.manager import Process
from glitchtip_cutover.proof import Proof
from glitchtip_cutover.running import Running
from glitchtip_cutover.transaction import Cutover

OLD = "http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@sentry.example.org:9000/7"
NEW = "http://bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb@127.0.0.1:8080/3"
MIRROR = "http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@127.0.0.1:19000/7"
# A service with its own .env, its own DSN and its own project.
OWN_OLD = "http://cccccccccccccccccccccccccccccccc@sentry.example.org:9000/7"
OWN_NEW = "http://dddddddddddddddddddddddddddddddd@127.0.0.1:8080/4"
OWN_MIRROR = "http://cccccccccccccccccccccccccccccccc@127.0.0.1:19000/7"
KEY = "SENTRY_DSN"
NO_PROBE = "its script does not load the instrument file"


class Crash(BaseException):
    """The power is cut: nothing of ours runs any more."""


class Clock:
    """Wall and monotonic time, moved by sleeping."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 0.001)


class MemoryPm2:
    """PM2: ``loaded`` is the DSN that each running process really uses."""

    def __init__(
        self,
        env_file: Path,
        clock: Clock,
        carried: Mapping[str, str],
        names: tuple[str, ...],
        own: Mapping[str, Path] | None = None,
    ) -> None:
        self.env_file = env_file
        self.own = dict(own or {})
        self.clock = clock
        self.running = True
        self.saved = dict(carried)
        self.restarted: list[str] = []
        self.together: list[list[str]] = []
        self.loaded: dict[str, str] = {}
        # What a daemon or a script below it puts into a service's environment, unknown to the manager's list.
        self.smuggled: dict[str, str] = {}
        self.table: dict[str, Process] = {}
        self.after_restart: Callable[[str], None] = lambda _name: None
        for number, name in enumerate(names):
            environment = {KEY: carried[name]} if name in carried else {}
            job = name == "job"
            self.table[name] = Process(
                name=name,
                pm_id=number,
                pid=0 if job else 100 + number,
                status="stopped" if job else "online",
                started_at=clock.now - 1000,
                restarts=0,
                cwd="/opt/app",
                interpreter="node",
                cron_job=job,
                module=False,
                environment=environment,
            )
            if not job:
                self.loaded[name] = carried.get(name, self.env_dsn(name))

    def env_dsn(self, name: str = "") -> str:
        file = self.own.get(name, self.env_file)
        if file.is_fifo():  # a service would wait for it, and be given up by its manager
            return ""
        return next(iter(reversed(re.findall(rf"^{KEY}=(.*)$", file.read_text(), re.MULTILINE))), "")

    def processes(self) -> list[Process]:
        self.clock.sleep(0.1)
        return list(self.table.values())

    def restart(self, process: Process, variables: Mapping[str, str] | None = None) -> None:
        self.restarted.append(process.name)
        current = self.table[process.name]
        environment = {**current.environment, **(variables or {})}
        self.table[process.name] = dataclasses.replace(
            current,
            pid=max(entry.pid for entry in self.table.values()) + 1000,
            status="online",
            started_at=self.clock.now,
            restarts=current.restarts + (1 if current.pid else 0),
            environment=environment,
        )
        given = {**environment, **({KEY: self.smuggled[process.name]} if process.name in self.smuggled else {})}
        self.loaded[process.name] = given.get(KEY, self.env_dsn(process.name))
        self.after_restart(process.name)

    def restart_together(self, restarts: Sequence[tuple[Process, Mapping[str, str] | None]]) -> None:
        self.together.append([process.name for process, _ in restarts])
        failures = []
        for process, variables in restarts:
            try:
                self.restart(process, variables)
            except CutoverError as error:
                failures.append(f"{process.name}: {error}")
        if failures:
            raise CutoverError("; ".join(failures))

    def save(self) -> None:
        self.saved = {n: p.environment[KEY] for n, p in self.table.items() if KEY in p.environment}

    def recorded(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def rewrite_dump(self, key: str, values: Mapping[str, str]) -> list[str]:
        assert key == KEY
        changed = [name for name in self.saved if self.saved[name] != values.get(name, self.saved[name])]
        self.saved.update({name: values[name] for name in changed})
        return changed

    def boot(self) -> None:
        """The machine starts again: PM2 resurrects what was saved."""
        self.running = True
        for name, process in self.table.items():
            environment = {KEY: self.saved[name]} if name in self.saved else {}
            self.table[name] = dataclasses.replace(
                process,
                environment=environment,
                pid=process.pid and process.pid + 1,
                started_at=self.clock.now,
            )
            if process.pid:
                self.loaded[name] = environment.get(KEY, self.env_dsn(name))


class MemoryTracker:
    """A project that stores what the simulated services on its DSN capture."""

    def __init__(self, side: Side, world: Simulation, dsn: str) -> None:
        self.side = side
        self.world = world
        self.dsn = parse_dsn(dsn)
        self.label = f"project {side.organization}/{side.project}"

    def within(self, _left: Callable[[], float]) -> MemoryTracker:
        return self

    def _answer(self) -> None:
        if self.side.name in self.world.unreachable:
            self.world.clock.sleep(5)
            raise CutoverError(f"the API of the {self.side.name} tracker does not answer")

    def project_id(self) -> str:
        self._answer()
        return self.dsn.project_id

    def public_keys(self) -> set[str]:
        return {self.dsn.key}

    def recent_events(self) -> list[Event]:
        self._answer()
        for name, loaded in self.world.pm2.loaded.items():
            if name in self.world.emitting and self.dsn.project_id in self.world.receivers(loaded):
                self.world.store(loaded, name)
        return list(reversed(self.world.stored.get(self.dsn.project_id, [])))

    def events_since(self, since: float, _pages: int) -> tuple[list[Event], float]:
        return [event for event in self.recent_events() if event.created >= since], since

    def event(self, event_id: str) -> Event | None:
        self._answer()
        return next(
            (e for e in self.world.stored.get(self.dsn.project_id, []) if e.event_id == event_id), None
        )


class MemoryProber:
    """Stands in for a process of the service that would start now."""

    def __init__(self, world: Simulation) -> None:
        self.world = world

    def rehearse(self, process: Process) -> None:
        if process.name in self.world.no_probe and not self.world.late_doubt:
            raise UnprovenServiceError(f"{process.name}: a probe proves nothing: {NO_PROBE}")

    def probe(self, process: Process, expected: Dsn, _tracker: object, limit: float | None = None) -> Proof:
        self.world.clock.sleep(1)
        if process.name in self.world.no_probe:
            raise UnprovenServiceError(f"{process.name}: a probe proves nothing: {NO_PROBE}")
        used = process.environment.get(KEY) or self.world.pm2.env_dsn(process.name)
        if used != expected.value:
            raise ServiceError(f"{process.name} would still report elsewhere")
        if self.world.offline:
            self.world.clock.sleep(10 if limit is None else min(10, limit))
            raise ServiceError(f"{expected.netloc} did not accept the probe's event of {process.name}")
        return Proof("probe", self.world.store(used, process.name, probe=True))

    def uses(self, process: Process, expected: Dsn) -> int | None:
        used = process.environment.get(KEY) or self.world.pm2.env_dsn(process.name)
        if used != expected.value:
            raise ServiceError(f"{process.name} would still report elsewhere")
        return None if self.world.offline else 200


class MemoryDeadline:
    """Remembers which attempt would be taken back."""

    def __init__(self) -> None:
        self.armed: tuple[int, float] | None = None

    def arm(self, attempt: int, seconds: float) -> None:
        self.armed = (attempt, seconds)

    def disarm(self) -> None:
        self.armed = None


class Simulation:
    """Everything around a Cutover; ``cutover()`` makes a fresh one on the same disk, like a new process."""

    names = ("canary", "api", "silent", "carrier", "job")
    #: The one that was made last: its processes are those of the machine.
    current: ClassVar[Simulation | None] = None

    def __init__(self, root: Path, *, own: bool = False, **changes: Any) -> None:
        """``own``: the service ``silent`` has its own .env and its own project."""
        Simulation.current = self
        self.root = root
        # Services that no probe can prove; ``late_doubt``: that shows only after the switch.
        self.no_probe: set[str] = set()
        self.late_doubt = False
        self.clock = Clock()
        self.own_file = root / "own.env"
        self.unreachable: set[str] = set()
        self.offline = False
        self.lost: set[str] = set()
        self.told: list[tuple[str, Mapping[str, Any]]] = []
        self.notify_problems: list[str] = []
        self.watches: list[Mapping[str, Any]] = []
        if own:
            self.own_file.write_text(f"{KEY}={OWN_OLD}\n")
            (root / "own.dsn").write_text(OWN_NEW)
        self.env_file = root / ".env"
        self.env_file.write_text(f"A=1\n{KEY}={OLD}\nB=2\n")
        (root / "new.dsn").write_text(NEW)
        (root / "node").write_text("")
        self.stored: dict[str, list[Event]] = {}
        self.emitting = {"canary", "api"}
        self.server_names: dict[str, str] = {}
        self.deadline = MemoryDeadline()
        self.pm2 = MemoryPm2(
            self.env_file, self.clock, {"carrier": OLD}, self.names, {"silent": self.own_file} if own else {}
        )
        side = {"organization": "o", "project": "p", "token_file": str(root / "token")}
        settings: dict[str, Any] = {
            "migration_id": "m",
            "state_dir": str(root / "state"),
            "env_file": str(self.env_file),
            "app_dir": str(root),
            "pm2": {"node": str(root / "node")},
            "services": [
                {
                    "name": name,
                    "env_file": str(self.own_file),
                    "dsn_file": str(root / "own.dsn"),
                    "project": "own",
                    "project_id": "4",
                }
                if own and name == "silent"
                else name
                for name in self.names
            ],
            "canary": "canary",
            "new": {
                **side,
                "api_url": "http://127.0.0.1:8080",
                "project_id": "3",
                "dsn_file": str(root / "new.dsn"),
            },
            "old": {**side, "api_url": "http://sentry.example.org:9000"},
            **changes,
        }
        self.config: Config = parse_config(settings, root / "config.json")

    def receivers(self, dsn: str) -> list[str]:
        """Ids of the projects that get an event sent with ``dsn``: two of them behind the mirror."""
        parsed = parse_dsn(dsn)
        if parsed.netloc != "127.0.0.1:19000":
            return [parsed.project_id]
        return [parsed.project_id, "4" if dsn == OWN_MIRROR else "3"]

    def store(self, dsn: str, name: str, *, probe: bool = False, server: str = "") -> str:
        """An event that a service, or its namesake on another ``server``, sends with ``dsn``."""
        tags = {"service": name, **({"cutover_probe": "service"} if probe else {})}
        if server or name in self.server_names:
            tags["server_name"] = server or self.server_names[name]
        event = Event(uuid.uuid4().hex, self.clock.now, tags)
        for project in self.receivers(dsn):
            if project not in self.lost:
                self.stored.setdefault(project, []).append(event)
        return event.event_id

    def tracker(self, side: Side) -> MemoryTracker:
        if side.name == "old":
            return MemoryTracker(side, self, OLD)
        return MemoryTracker(side, self, OWN_NEW if side.project == "own" else NEW)

    def notify(self, event: str, facts: Mapping[str, Any]) -> list[str]:
        self.told.append((event, facts))
        return self.notify_problems

    def cutover(self, observer: Callable[[str, str], None] | None = None) -> Cutover:
        return Cutover(self.config, self.host(observer))

    def host(self, observer: Callable[[str, str], None] | None = None) -> Host:
        """The ports as they are, uncontained."""
        return Host(
            manager=self.pm2,  # type: ignore[arg-type]
            tracker=self.tracker,  # type: ignore[arg-type,return-value]
            deadline=self.deadline,  # type: ignore[arg-type]
            prober=MemoryProber(self),  # type: ignore[arg-type]
            clock=self.clock.time,
            monotonic=self.clock.time,
            sleep=self.clock.sleep,
            observer=observer,
            send_test_event=lambda dsn, _tags, _message, _now: self.store(dsn.value, "gate"),
            notify=self.notify,
            start_watch=self.watches.append,
        )

    def uses(self) -> dict[str, str]:
        """The DSN that each running process uses, and those of the files and of PM2's environments."""
        carried = {f"pm2 {n}": p.environment[KEY] for n, p in self.pm2.table.items() if KEY in p.environment}
        files = {f"file of {name}": self.pm2.env_dsn(name) for name in self.pm2.own}
        return {**self.pm2.loaded, **carried, **files, "file": self.pm2.env_dsn()}


#: Further processes of the simulated machine, by their ids.
PROCESSES: dict[int, Running] = {}


def read_running(pid: int) -> Running | None:
    """The process of that id as the kernel of the simulated machine would show it."""
    if pid in PROCESSES:
        return PROCESSES[pid]
    world = Simulation.current
    for process in world.pm2.table.values() if world else ():
        if process.pid == pid and pid:
            environment = dict(process.environment)
            if process.name in world.pm2.smuggled:
                environment[KEY] = world.pm2.smuggled[process.name]
            argv = ("node", f"{process.name}.js")
            return Running(pid, 1, process.started_at, argv, "/usr/bin/node", process.cwd, environment)
    return None


def children() -> dict[int, list[int]]:
    """Ids of the children of every process of ``PROCESSES``."""
    found: dict[int, list[int]] = {}
    for pid, running in PROCESSES.items():
        found.setdefault(running.parent, []).append(pid)
    return found
