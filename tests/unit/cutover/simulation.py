"""A product in memory, whose services keep what they read at their start; time passes by waiting."""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from glitchtip_cutover.api import Event
from glitchtip_cutover.config import Config, Side, parse_config
from glitchtip_cutover.dsn import Dsn, parse_dsn
from glitchtip_cutover.errors import ServiceError
from glitchtip_cutover.host import Host
from glitchtip_cutover.pm2 import Process
from glitchtip_cutover.proof import Proof
from glitchtip_cutover.transaction import Cutover

OLD = "http://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@sentry.example.org:9000/7"
NEW = "http://bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb@127.0.0.1:8080/3"
KEY = "SENTRY_DSN"


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
        self, env_file: Path, clock: Clock, carried: Mapping[str, str], names: tuple[str, ...]
    ) -> None:
        self.env_file = env_file
        self.clock = clock
        self.running = True
        self.saved = dict(carried)
        self.restarted: list[str] = []
        self.loaded: dict[str, str] = {}
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
                node_options=(),
                cron_job=job,
                module=False,
                environment=environment,
            )
            if not job:
                self.loaded[name] = carried.get(name, self.env_dsn())

    def env_dsn(self) -> str:
        return re.findall(rf"^{KEY}=(.*)$", self.env_file.read_text(), re.MULTILINE)[-1]

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
        self.loaded[process.name] = environment.get(KEY, self.env_dsn())
        self.after_restart(process.name)

    def save(self) -> None:
        self.saved = {n: p.environment[KEY] for n, p in self.table.items() if KEY in p.environment}

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
                self.loaded[name] = environment.get(KEY, self.env_dsn())


class MemoryTracker:
    """A project that stores what the simulated services on its DSN capture."""

    def __init__(self, side: Side, world: Simulation, dsn: str) -> None:
        self.side = side
        self.world = world
        self.dsn = parse_dsn(dsn)
        self.label = f"project {side.organization}/{side.project}"

    def project_id(self) -> str:
        return self.dsn.project_id

    def public_keys(self) -> set[str]:
        return {self.dsn.key}

    def recent_events(self) -> list[Event]:
        for name, loaded in self.world.pm2.loaded.items():
            if name in self.world.emitting and loaded == self.dsn.value:
                self.world.store(self.dsn.value, name)
        return list(reversed(self.world.stored.get(self.dsn.value, [])))

    def event(self, event_id: str) -> Event | None:
        return next((e for e in self.world.stored.get(self.dsn.value, []) if e.event_id == event_id), None)


class MemoryProber:
    """Stands in for a process of the service that would start now."""

    def __init__(self, world: Simulation) -> None:
        self.world = world

    def probe(self, process: Process, expected: Dsn, _tracker: object) -> Proof:
        used = process.environment.get(KEY) or self.world.pm2.env_dsn()
        if used != expected.value:
            raise ServiceError(f"{process.name} would still report elsewhere")
        return Proof("probe", self.world.store(used, "probe"))


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

    def __init__(self, root: Path, **changes: Any) -> None:
        self.root = root
        self.clock = Clock()
        self.env_file = root / ".env"
        self.env_file.write_text(f"A=1\n{KEY}={OLD}\nB=2\n")
        (root / "new.dsn").write_text(NEW)
        (root / "node").write_text("")
        self.stored: dict[str, list[Event]] = {}
        self.emitting = {"canary", "api"}
        self.deadline = MemoryDeadline()
        self.pm2 = MemoryPm2(self.env_file, self.clock, {"carrier": OLD}, self.names)
        side = {"organization": "o", "project": "p", "token_file": str(root / "token")}
        settings: dict[str, Any] = {
            "migration_id": "m",
            "state_dir": str(root / "state"),
            "env_file": str(self.env_file),
            "app_dir": str(root),
            "pm2": {"node": str(root / "node")},
            "services": list(self.names),
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

    def store(self, dsn: str, name: str) -> str:
        event = Event(uuid.uuid4().hex, self.clock.now, {"service": name})
        self.stored.setdefault(dsn, []).append(event)
        return event.event_id

    def cutover(self, observer: Callable[[str, str], None] | None = None) -> Cutover:
        dsns = {"new": NEW, "old": OLD}
        host = Host(
            manager=self.pm2,  # type: ignore[arg-type]
            tracker=lambda side: MemoryTracker(side, self, dsns[side.name]),  # type: ignore[arg-type,return-value]
            deadline=self.deadline,  # type: ignore[arg-type]
            prober=MemoryProber(self),  # type: ignore[arg-type]
            clock=self.clock.time,
            monotonic=self.clock.time,
            sleep=self.clock.sleep,
            observer=observer,
            send_test_event=lambda dsn, _tags, _message, _now: self.store(dsn.value, "gate"),
        )
        return Cutover(self.config, host)

    def uses(self) -> dict[str, str]:
        """The DSN that each running process uses, and those of the file and of PM2's environments."""
        carried = {f"pm2 {n}": p.environment[KEY] for n, p in self.pm2.table.items() if KEY in p.environment}
        return {**self.pm2.loaded, **carried, "file": self.pm2.env_dsn()}
