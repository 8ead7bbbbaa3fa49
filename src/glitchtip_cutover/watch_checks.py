"""What the watch of the first hour checks: services, containers of the new tracker, memory, and test events.

Each check returns a reason to take the switch back, or None. It remembers what earlier checks saw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from glitchtip_core.memory import Memory
from glitchtip_core.pm2_list import as_mapping, as_whole

from .api import await_event
from .config import Config
from .engine import Docker
from .errors import CutoverError, InterruptedRunError, unexpected
from .host import Host
from .manager import Process
from .targets import to_glitchtip
from .watch_drift import DriftCheck

_TWICE = 2
_RESTARTS_AT_ONCE = 3
# Without these a check has not seen what it is about.
_ESSENTIAL = frozenset({"look_at_services", "look_at_events"})


@dataclass
class Sight:
    """What the looks before saw; lost with the process, so that a restarted watch starts to count anew."""

    missed: int = 0
    full: int = 0
    service_restarts: dict[tuple[str, int], int] = field(default_factory=dict)
    restarting: dict[str, int] = field(default_factory=dict)
    unhealthy: dict[str, int] = field(default_factory=dict)
    container_restarts: dict[str, int] = field(default_factory=dict)
    container_ill: dict[str, int] = field(default_factory=dict)
    noted: set[str] = field(default_factory=set)


class Checks:
    """All checks of one watch. ``note`` says a sentence once, ``alert`` notifies people.

    ``is_complete``: the last check saw the services, and sent its test events.
    """

    def __init__(
        self,
        config: Config,
        host: Host,
        docker: Docker,
        drift: DriftCheck,
        memory: Callable[[], Memory],
        *,
        note: Callable[[str], None],
        alert: Callable[[str], None],
    ) -> None:
        self.config = config
        self.host = host
        self.docker = docker
        self.drift = drift
        self.sight = Sight()
        self.listed: list[Process] = []
        self.is_complete = False
        self._memory = memory
        self._say = note
        self._alert = alert

    def _note(self, sentence: str) -> None:
        """Say something once in this watch."""
        if sentence not in self.sight.noted:
            self.sight.noted.add(sentence)
            self._say(sentence)

    def look(self) -> str | None:
        """Look at everything once; the reason to take the switch back, None when there is none."""
        self.is_complete = True
        for seen in (
            self.look_at_services,
            self.look_at_containers,
            self.look_at_memory,
            self.look_at_events,
            self.look_at_drift,
        ):
            try:
                reason = seen()
            except InterruptedRunError:
                raise
            except Exception as error:  # one that fails does not hide what the others see
                self.is_complete = self.is_complete and seen.__name__ not in _ESSENTIAL
                self._unseen(seen.__name__, error)
                continue
            if reason is not None:
                return reason
        return None

    def _unseen(self, name: str, error: Exception) -> None:
        """Report once in this watch that one kind of check does not work."""
        if name not in self.sight.noted:
            self.sight.noted.add(name)
            sentence = f"the watch after the switch works without one of its checks ({name}): {unexpected(error)}"
            self._note(sentence)
            self._alert(sentence)

    def look_at_services(self) -> str | None:
        """Errored; not online in two looks in a row; restarted by itself in two looks in a row, or often."""
        self.listed = []
        try:
            listed = self.listed = self.host.manager.processes()
        except InterruptedRunError:
            raise
        except CutoverError as error:
            self.is_complete = False
            self._note(f"the services cannot be looked at: {error}")
            return None
        by_name = {name: [item for item in listed if item.name == name] for name in self.config.services}
        for name, instances in by_name.items():
            if any(process.status == "errored" for process in instances):
                return f"the service {name} does not start: it is errored"
            if instances and all(process.healthy for process in instances):
                self.sight.unhealthy.pop(name, None)
            else:
                self.sight.unhealthy[name] = self.sight.unhealthy.get(name, 0) + 1
                if self.sight.unhealthy[name] >= _TWICE:
                    states = ", ".join(sorted({process.status for process in instances})) or "gone"
                    return f"the service {name} does not run: it is {states}"
            grown = 0
            for process in instances:
                key = (name, process.pm_id)
                known = self.sight.service_restarts.get(key, process.restarts)
                grown = max(grown, 0 if process.cron_job else process.restarts - known)
                self.sight.service_restarts[key] = process.restarts
            self.sight.restarting[name] = self.sight.restarting.get(name, 0) + 1 if grown > 0 else 0
            if grown >= _RESTARTS_AT_ONCE or self.sight.restarting[name] >= _TWICE:
                return f"the service {name} restarts again and again"
        return None

    def look_at_containers(self) -> str | None:
        """A container of the new tracker was restarted, or was down or unhealthy in two looks in a row."""
        project = self.config.watch.compose_project
        if not project or not self.docker.binary.exists():
            self._note("no containers are watched: the new tracker's do not run on this host")
            return None
        try:
            containers = self.docker.containers(project)
        except InterruptedRunError:
            raise
        except CutoverError:
            containers = []
            if self.sight.container_restarts:
                ill = self.sight.container_ill["Docker"] = self.sight.container_ill.get("Docker", 0) + 1
                return "Docker, which runs the new tracker, does not answer" if ill >= _TWICE else None
        self.sight.container_ill.pop("Docker", None)
        if not containers and not self.sight.container_restarts:
            self._note(f"no containers are watched: there are none of the Compose project {project} here")
            return None
        there = {str(item.get("Name", "")).lstrip("/"): item for item in containers}
        for name in sorted({*there, *self.sight.container_restarts}):
            reason = self._look_at_container(name, there.get(name))
            if reason is not None:
                return reason
        return None

    def _look_at_container(self, name: str, item: Mapping[str, Any] | None) -> str | None:
        state = as_mapping((item or {}).get("State"))
        if state.get("Status") == "exited" and state.get("ExitCode") == 0:
            policy = as_mapping(as_mapping((item or {}).get("HostConfig")).get("RestartPolicy"))
            if policy.get("Name") in (None, "", "no"):
                return None
        restarts = as_whole((item or {}).get("RestartCount"))
        known = self.sight.container_restarts.get(name, restarts)
        self.sight.container_restarts[name] = restarts
        if item is not None and restarts > known:
            return f"the container {name} of the new tracker crashed and was restarted"
        health = as_mapping(state.get("Health")).get("Status")
        if state.get("Status") == "running" and health != "unhealthy":
            self.sight.container_ill.pop(name, None)
            return None
        self.sight.container_ill[name] = self.sight.container_ill.get(name, 0) + 1
        if self.sight.container_ill[name] < _TWICE:
            return None
        what = "unhealthy" if health == "unhealthy" else str(state.get("Status") or "gone")
        return f"the container {name} of the new tracker is {what}"

    def look_at_memory(self) -> str | None:
        """Above the limit in two looks in a row."""
        try:
            memory = self._memory()
        except InterruptedRunError:
            raise
        except CutoverError as error:
            self._note(str(error))
            return None
        limit = self.config.watch.max_memory_percent
        self.sight.full = self.sight.full + 1 if memory.percent > limit else 0
        if self.sight.full < _TWICE:
            return None
        return (
            f"memory is used to {memory.percent:g} % of {memory.total // 1024**2} MiB ({memory.source}), "
            f"more than {limit:g} %"
        )

    def look_at_events(self) -> str | None:
        """A test event sent with each new DSN has to be read back; missed several times in a row it is an alarm."""
        try:
            for dsn, sides in to_glitchtip(self.config).distinct():
                event_id = self.host.send_test_event(
                    dsn,
                    {self.config.service_tag: "ai-admin-cutover"},
                    "ai-admin-cutover first-hour watch",
                    self.host.clock(),
                )
                stored = await_event(
                    self.host.tracker(sides[0]),
                    event_id,
                    self.config.probe_wait,
                    monotonic=self.host.monotonic,
                    sleep=self.host.sleep,
                )
                if stored is None:
                    raise CutoverError(f"{dsn.netloc} accepted a test event and did not store it")
        except InterruptedRunError:
            raise
        except CutoverError as error:
            self.sight.missed += 1
            self.host.progress(f"a test event is missing ({self.sight.missed}): {error}")
            if self.sight.missed < self.config.watch.missed_events:
                return None
            return f"{self.sight.missed} test events in a row were not read back: {error}"
        self.sight.missed = 0
        return None

    def look_at_drift(self) -> None:
        """Report, once, what names another tracker than the active one."""
        self.drift.run(self.listed)
