"""What the report shows, read from the files of a soak in one pass and little memory."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from glitchtip_core.files import read_object

from ..soak.plan import Plan
from ..soak.running import read_parity
from ..soak.store import Sample, SoakFiles
from ..soak.verdict import judge

_MIB = 2**20
#: Lines of a plot; a host with more services shows the first ones.
MOST_LINES = 12
MOST_EVENTS = 100
_GAP_INTERVALS = 3


class Series:
    """Numbers over time: ``plot`` -> ``line`` -> a value a sample (NaN where there is none)."""

    def __init__(self) -> None:
        self.times = array("d")
        self.plots: dict[str, dict[str, array[float]]] = {}
        self.left_out: set[str] = set()

    def add(self, at: float, values: Iterable[tuple[str, str, float | None]]) -> None:
        """The values ``(plot, line, value)`` of the moment ``at`` (epoch seconds)."""
        self.times.append(at)
        count = len(self.times)
        for plot, line, value in values:
            lines = self.plots.setdefault(plot, {})
            numbers = lines.get(line)
            if numbers is None:
                if len(lines) >= MOST_LINES:
                    self.left_out.add(plot)
                    continue
                numbers = lines[line] = array("d")
            numbers.extend([math.nan] * (count - 1 - len(numbers)))
            if len(numbers) < count:
                numbers.append(math.nan if value is None else float(value))

    def line(self, plot: str, line: str) -> Sequence[float]:
        """One line, as long as ``times``."""
        numbers = self.plots[plot][line]
        return [*numbers, *[math.nan] * (len(self.times) - len(numbers))]


@dataclass(frozen=True)
class Event:
    """Something of note: when, a word for its kind, one sentence."""

    at: str
    kind: str
    text: str


@dataclass
class Events:
    """Things of note in their order; ``count`` also counts those that were not kept."""

    kept: list[Event] = field(default_factory=list)
    count: int = 0

    def add(self, at: str, kind: str, text: str) -> None:
        """One more."""
        self.count += 1
        if len(self.kept) < MOST_EVENTS:
            self.kept.append(Event(at, kind, text))


@dataclass(frozen=True)
class Report:
    """All that a report shows. ``gaps`` are pairs of epoch seconds without samples in between."""

    plan: Plan
    verdict: Mapping[str, Any]
    series: Series
    events: Events
    gaps: Sequence[tuple[float, float]]
    parity: Mapping[str, Any] | None
    made_at: datetime


class _Watcher:
    """Sees the samples in their order and keeps what is worth telling or drawing."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.series, self.events = Series(), Events()
        self.gaps: list[tuple[float, float]] = []
        self.last = datetime.fromisoformat(plan.started_at).timestamp()
        self.state: dict[tuple[str, str], str] = {}
        self.lives: dict[str, tuple[str, str, int]] = {}
        self.restarts: dict[str, int] = {}
        self.processes: dict[str, tuple[int, int]] = {}
        self.pm2_restarts: dict[str, int] = {}
        self.missed = 0

    def add(self, sample: Sample) -> None:
        """One sample."""
        at = str(sample["at"])
        moment = datetime.fromisoformat(at).timestamp()
        if moment - self.last > _GAP_INTERVALS * self.plan.interval:
            self.gaps.append((self.last, moment))
            self.events.add(at, "gap", f"no samples for {moment - self.last:.0f} s before this one")
        if moment < self.last and len(self.series.times):
            self.events.add(at, "clock", f"the clock went back by {self.last - moment:.0f} s")
        self.last = moment
        self._containers(at, sample)
        self._pm2(at, sample)
        self._probe(at, sample)
        failed = {str(error).split(":", 1)[0]: str(error) for error in sample.get("errors") or []}
        known = {name for kind, name in self.state if kind == "reading"}
        for name in sorted(known | set(failed)):
            self._turn(at, "reading", name, "failed" if name in failed else "well", failed.get(name, ""))
        errors = int(sample.get("worker_errors") or 0)
        if errors:
            self.events.add(at, "worker log", f"{errors} line(s) in the worker's log look like errors (not judged)")
        self._queue(at, sample)
        self.series.add(moment, self._values(sample))

    def _queue(self, at: str, sample: Sample) -> None:
        state = sample.get("queue_state") or {}
        for name, text in (
            ("abandoned", "left unacknowledged by a worker that is gone"),
            ("dead_letters", "dead letters"),
        ):
            count = int(state.get(name) or 0)
            self._turn(at, "queue", text, f"at {count}" if count else "well")

    def _turn(self, at: str, kind: str, name: str, state: str, why: str = "") -> None:
        """Tell when something turns from well to not well, or back."""
        before = self.state.get((kind, name), "well")
        self.state[kind, name] = state
        if state != before:
            text = f"{name} is well again" if state == "well" else f"{name} is {state}"
            self.events.add(at, kind, f"{text}{f' ({why})' if why else ''}")

    def _containers(self, at: str, sample: Sample) -> None:
        found = {str(each["service"]): each for each in sample.get("containers") or []}
        for service in self.plan.services:
            container = found.get(service)
            if container is None:
                self._turn(at, "container", service, "absent")
                continue
            state = "well" if container["well"] else f"{container['state']}/{container['health']}"
            self._turn(at, "container", service, state)
            life = str(container["id"]), str(container["started_at"]), int(container["restarts"])
            before = self.lives.get(service, life)
            self.lives[service] = life
            counted = life[2] - before[2] if life[0] == before[0] else 0
            times = counted if counted > 0 else int(life[:2] != before[:2])
            self.restarts[service] = self.restarts.get(service, 0) + times
            if times:
                oom = ", killed for lack of memory" if container["oom_killed"] else ""
                self.events.add(at, "restart", f"container {service} restarted {times} time(s){oom}")

    def _pm2(self, at: str, sample: Sample) -> None:
        found = {str(each["name"]): each for each in sample.get("pm2") or []}
        for name in self.plan.pm2_services:
            process = found.get(name)
            if process is None:
                self._turn(at, "PM2", name, "absent")
                continue
            self._turn(at, "PM2", name, "well" if process["well"] else str(process["status"]))
            if process["job"]:
                continue
            now = int(process["restarts"]), int(process["pid"])
            before = self.processes.get(name, now)
            self.processes[name] = now
            counted = now[0] - before[0]
            times = counted if counted > 0 else int(0 not in (before[1], now[1]) and before[1] != now[1])
            self.pm2_restarts[name] = self.pm2_restarts.get(name, 0) + times
            if times:
                self.events.add(at, "restart", f"PM2 service {name} restarted {times} time(s)")

    def _probe(self, at: str, sample: Sample) -> None:
        probe = sample.get("probe") or {}
        if probe.get("captured"):
            if self.missed:
                self.events.add(
                    at, "probe", f"test events arrive again after {self.missed} that were not captured"
                )
            self.missed = 0
            return
        if not self.missed:
            why = str(probe.get("error") or "not read back")
            self.events.add(at, "probe", f"a test event was not captured ({why})")
        self.missed += 1

    def _values(self, sample: Sample) -> Iterator[tuple[str, str, float | None]]:
        memory, cpu, probe = sample.get("memory"), sample.get("cpu"), sample.get("probe") or {}
        if memory:
            yield "memory", "host", memory["system_percent"]
            limit = memory["stack_limit"]
            yield "memory", "stack, of its limits", 100 * memory["stack_used"] / limit if limit else None
        for container in sample.get("containers") or []:
            used, service = container.get("memory"), str(container["service"])
            yield "containers", service, None if used is None else used / _MIB
            yield "container_cpu", service, container.get("cpu")
        if cpu:
            yield "cpu", "host", cpu["percent"]
            yield "load", "load per core (5 minutes)", cpu["load5"] / max(1, cpu["cores"])
        for process in sample.get("pm2") or []:
            name = str(process["name"])
            yield "pm2_memory", name, process.get("memory", 0) / _MIB if process["pid"] else None
        for name, times in self.pm2_restarts.items():
            yield "pm2_restarts", name, times
        for service, times in self.restarts.items():
            yield "restarts", service, times
        for disk in sample.get("disk") or []:
            yield "disk", str(disk["path"]), disk["percent"]
        yield "probe", "read back after", probe["seconds"] if probe.get("captured") else None
        yield "missed", "not captured", None if probe.get("captured") else 1.0
        mirror = sample.get("mirror") or {}
        for leg, name in (("sentry", "Sentry"), ("glitchtip", "GlitchTip")):
            counts = mirror.get(leg)
            if counts:
                yield "mirror", f"{name} took", counts.get("ok")
                yield "mirror", f"{name} failed", counts.get("failed")
        if sample.get("queue") is not None:
            yield "queue", "waiting", sample["queue"]


def read_report(soak_files: SoakFiles, plan: Plan, now: datetime) -> Report:
    """Everything for a report made at ``now``; the verdict is the one that stands, else that so far."""
    watcher, parity = _Watcher(plan), read_parity(soak_files)

    def watched() -> Iterator[Sample]:
        for sample in soak_files.read_samples():
            watcher.add(sample)
            yield sample

    fresh = judge(plan, watched(), now=now, parity=parity)
    kept = read_object(soak_files.verdict)
    verdict = {**(kept or fresh), "final": kept is not None}
    return Report(plan, verdict, watcher.series, watcher.events, watcher.gaps, parity, now)
