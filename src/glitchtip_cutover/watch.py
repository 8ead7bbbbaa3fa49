"""The first hour after a switch: looks again and again, and takes the switch back when something is wrong.

It is a unit of its own (``ai-admin-cutover-watch.service``): it begins when a switch is confirmed, goes on after
a reboot, and ends by itself, by ``systemctl stop``, or when somebody rolls back by hand. What takes a switch back:
test events that are not read back, services that do not start or crash, containers of the new tracker that crash,
memory that runs out. It never holds the lock of the switch while it looks or waits.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glitchtip_core.pm2_list import as_mapping, as_whole

from .api import await_event
from .compose import Docker
from .config import Config
from .containment import contain, contain_host, contain_port
from .deadline import WATCH_UNIT, has_systemd, run_detached
from .errors import BusyError, CutoverError, IncompleteError, InterruptedRunError, RolledBackError, unexpected
from .files import fsync_directory, read_json, write_json
from .host import Host
from .journal import Journal, State, fold
from .manager import Process
from .memory import Memory, read_memory
from .process import run, search_path
from .proof import is_own
from .store import Store
from .targets import to_glitchtip
from .watch_drift import DriftCheck

Result = dict[str, Any]

_LOCK_WAIT = 60.0
_TWICE = 2
# So often in a row the state may be unreadable before the watch gives up, and systemd starts it again.
_BLIND = 5
_RESTARTS_AT_ONCE = 3


def watch_mark(config: Config) -> Path:
    """The file that says a watch is due: ``{"attempt", "began", "until", "begun"}`` (epoch seconds)."""
    return config.state_dir / "watch.json"


def start_watch(config: Config, facts: Mapping[str, Any], now: float | None = None) -> None:
    """Leave the mark and start the unit; nothing when no watch is configured or the mirror was entered.

    ``facts`` tells ``attempt``, ``stands`` and ``confirmed_at``. The unit starts at the next boot where systemd cannot be asked.
    """
    if not config.watch.seconds or facts.get("stands", "glitchtip") != "glitchtip":
        return
    now = float(facts.get("confirmed_at", time.time())) if now is None else now
    write_json(
        watch_mark(config),
        {"attempt": facts["attempt"], "began": now, "until": now + config.watch.seconds, "begun": False},
    )
    if has_systemd():
        with contextlib.suppress(CutoverError):
            run(
                ["systemctl", "start", "--no-block", WATCH_UNIT + ".service"],
                environment={"PATH": search_path(), "LC_ALL": "C.UTF-8"},
                timeout=30,
            )


def systemd_stops() -> bool:
    """Whether the machine is going down, so that the watch has to go on after it."""
    if not has_systemd():
        return False
    with contextlib.suppress(CutoverError):
        done = run(
            ["systemctl", "is-system-running"],
            environment={"PATH": search_path(), "LC_ALL": "C.UTF-8"},
            timeout=30,
        )
        return done.output.strip() == "stopping"
    return False


def roll_back_detached(config: Config, reason: str) -> tuple[int, str]:
    """The ordinary rollback as its own unit; its exit code and its sentence."""
    code, text = run_detached(config, "rollback", [f"--reason={reason}"])
    return code, text.decode(errors="replace")


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


class Watch:
    """One watch. What it asks and does is given, so that tests can put their own there."""

    def __init__(
        self,
        config: Config,
        host: Host,
        *,
        docker: Docker | None = None,
        memory: Callable[[], Memory] = read_memory,
        roll_back: Callable[[Config, str], tuple[int, str]] = roll_back_detached,
        going_down: Callable[[], bool] = systemd_stops,
    ) -> None:
        self.config = config
        host = self.host = contain_host(host)
        self.store = Store(config.state_dir, monotonic=host.monotonic, sleep=host.sleep)
        self.journal = Journal(config.state_dir / "journal.jsonl", host.clock, host.observer)
        self.docker = contain_port(docker or Docker(config.compose.docker), "Docker")
        self.sight = Sight()
        self.listed: list[Process] = []
        self.drift = DriftCheck(config, host, self._state, self._tell)
        self._memory = contain(memory, "reading the memory")
        self._roll_back = contain(roll_back, "the rollback")
        self._going_down = contain(going_down, "systemd")

    # ------------------------------------------------------------------ the run

    def run(self) -> Result:
        """Look until the time is over. Raises RolledBackError when a trigger took the switch back.

        IncompleteError: the mark of the watch is damaged, and it ends. Any other CutoverError: it could not go on;
        systemd starts it again. People are notified of both.
        """
        try:
            mark = self._mark()
        except CutoverError as error:
            reason = f"the watch after the switch cannot begin: {error}"
            self._alert(reason)
            if not isinstance(error.__cause__, ValueError | type(None)):
                raise CutoverError(reason) from error  # it cannot be read now: systemd starts the watch again
            with contextlib.suppress(Exception):
                self._forget()
            raise IncompleteError(reason) from error
        if mark is None:
            return {"changed": False, "state": "not watching", "reason": "no switch was confirmed lately"}
        try:
            return self._watch(mark)
        except (RolledBackError, BusyError):
            raise
        except InterruptedRunError:
            if self._going_down():
                return {
                    "changed": False,
                    "state": "paused",
                    "reason": "the machine goes down; it goes on after",
                }
            self._tell("watch_stopped", attempt=mark["attempt"])
            self._forget()
            return {"changed": True, "state": "stopped", "reason": "the watch was stopped by hand"}
        except Exception as error:
            reason = f"the watch after the switch could not go on: {unexpected(error)}"
            if not mark.get("alerted"):
                self._alert(reason)
                with contextlib.suppress(Exception):
                    write_json(watch_mark(self.config), {**mark, "begun": True, "alerted": True})
            raise CutoverError(reason) from error

    def _mark(self) -> dict[str, Any] | None:
        """What the mark says, None when there is none. Raises CutoverError when it is damaged."""
        mark = read_json(watch_mark(self.config))
        if mark is None:
            return None
        number = (int, float)
        if (
            not isinstance(mark, dict)
            or not isinstance(mark.get("attempt"), int)
            or not all(isinstance(mark.get(name), number) for name in ("began", "until"))
        ):
            raise CutoverError(f"{watch_mark(self.config)} is damaged")
        return mark

    def _alert(self, reason: str) -> None:
        """Notify people that the watch does not see what it should."""
        self.host.progress(reason)
        for problem in self.host.notify("incomplete", {"reason": reason, "problems": [reason]}):
            self.host.progress(problem)

    def _watch(self, mark: dict[str, Any]) -> Result:
        if not mark.get("begun"):
            self._tell(
                "watch_begin",
                attempt=mark["attempt"],
                seconds=self.config.watch.seconds,
                interval=self.config.watch.interval,
            )
            write_json(watch_mark(self.config), {**mark, "begun": True})
        looks = blind = 0
        while True:
            try:
                if not self._stands(mark):
                    self._forget()
                    return {"changed": True, "state": "over", "reason": "the switch it watched is not active any more"}
                left = min(float(mark["until"]) - self.host.clock(), self.config.watch.seconds)
                if left <= 0:
                    return self._passed(mark, looks)
            except (InterruptedRunError, BusyError):
                raise
            except Exception as error:
                blind += 1
                if blind >= _BLIND:
                    raise
                self.host.progress(f"the state cannot be read: {unexpected(error)}")
                self.host.sleep(self.config.watch.interval)
                continue
            blind = 0
            reason = self.look()
            looks += 1
            if reason is not None and self._stands(mark) and self._alarm(mark, reason):
                raise RolledBackError(f"{reason}; the switch was taken back", {"state": "rolled_back"})
            self.host.sleep(min(self.config.watch.interval, max(left, 0.1)))

    def _state(self) -> State:
        return fold(self.journal.records())

    def _stands(self, mark: Mapping[str, Any]) -> bool:
        state = self._state()
        return state.phase == "confirmed" and state.attempt == mark["attempt"]

    def _passed(self, mark: Mapping[str, Any], looks: int) -> Result:
        silent = self._silent(float(mark["began"]))
        facts = {"attempt": mark["attempt"], "looks": looks, "silent": silent, "drift": self.drift.open}
        self._tell("watch_passed", **facts)
        self._forget()
        problems = self.host.notify("watch_passed", facts)
        return {"changed": True, "state": "passed", **facts, "problems": list(problems)}

    def _alarm(self, mark: Mapping[str, Any], reason: str) -> bool:
        """Take the switch back; False when another run is under way and the next look has to decide."""
        self.host.progress(f"taking the switch back: {reason}")
        try:
            self._tell("watch_alarm", attempt=mark["attempt"], reason=reason)
        except BusyError:
            return False
        telling = threading.Thread(
            target=self.host.notify, args=("watch_alarm", {"reason": reason}), daemon=True
        )
        telling.start()
        try:
            code, text = self._roll_back(self.config, f"first-hour watch: {reason}")
        except BusyError:
            return False
        finally:
            telling.join(10.0)
        self.host.progress(f"the rollback ended with code {code}")
        if code in (0, 5):
            self._forget()
            return True
        if code == 75:
            return False
        raise CutoverError(f"{reason}; and the rollback ended with code {code}: {text[:300].strip()}")

    def _tell(self, event: str, **facts: Any) -> None:
        """One record, with the lock held for as long as that takes."""
        with self.store.lock(wait=_LOCK_WAIT):
            self.journal.append(event, **facts)

    def _forget(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            watch_mark(self.config).unlink()
            fsync_directory(self.config.state_dir)

    def _note(self, sentence: str) -> None:
        """Say something once in this watch."""
        if sentence not in self.sight.noted:
            self.sight.noted.add(sentence)
            self.host.progress(sentence)
            with contextlib.suppress(CutoverError):
                self._tell("watch_note", note=sentence)

    # ------------------------------------------------------------------ one look

    def look(self) -> str | None:
        """Look at everything once; the reason to take the switch back, None when there is none."""
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

    def _silent(self, began: float) -> list[str]:
        """Services that reported by themselves when they were switched, and not since the watch began."""
        heard: set[str] = set()
        try:
            applied = read_json(self.config.state_dir / "applied.json")
            rows = applied.get("services", []) if isinstance(applied, dict) else []
            talked = {row.get("name") for row in rows if row.get("proof") == "own_event"}
            if not talked:
                return []
            processes = self.host.manager.processes()
            for side in {self.config.side_for(str(name)) for name in talked if name in self.config.services}:
                if side is not None:
                    events = [event for event in self.host.tracker(side).recent_events() if event.created >= began]
                    heard |= {
                        process.name
                        for process in processes
                        if any(is_own(event, self.config.service_tag, process) for event in events)
                    }
        except InterruptedRunError:
            raise
        except Exception:
            return []
        return sorted(str(name) for name in talked - heard)


def run_watch(config: Config, host: Host) -> Result:
    """The command ``watch``."""
    return Watch(config, host).run()
