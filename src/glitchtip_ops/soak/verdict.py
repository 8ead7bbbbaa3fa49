"""The verdict: every criterion with its value, its threshold and the reasons against it.

One pass over the samples, oldest first, in little memory: 48 h at 10 s are 17,000 of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from .criteria import Criterion, Reasons, number, percentile
from .criteria import judged as _judged
from .criteria import unjudged as _open
from .mirrored import Legs, Mirror, RealEvents, judge_parity
from .outcomes import Queue, WorkerLog
from .plan import GO, NO_GO, Plan, span_text, time_text
from .store import Sample

_GAP_INTERVALS = 3
#: Timers and clocks are that coarse (seconds).
SLACK = 1.0


class Coverage:
    """Samples over the whole time, without gaps."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.samples = plan, 0
        self.first: datetime | None = None
        self.last = datetime.fromisoformat(plan.started_at)
        self.gaps, self.longest, self.backwards = 0, 0.0, False

    def add(self, sample: Sample) -> None:
        """One sample."""
        at = datetime.fromisoformat(str(sample["at"]))
        gap = (at - self.last).total_seconds()
        self.backwards = self.backwards or (gap < 0 and self.samples > 0)
        self.longest = max(self.longest, gap)
        self.gaps += gap > _GAP_INTERVALS * self.plan.interval
        self.first = self.first or at
        self.last, self.samples = at, self.samples + 1

    @property
    def span(self) -> float:
        """Seconds from the first to the last."""
        return (self.last - self.first).total_seconds() if self.first else 0.0

    def lasting_reasons(self) -> list[str]:
        """Those that no later sample takes away."""
        limit = _GAP_INTERVALS * self.plan.interval
        reasons = ["the clock went backwards between two samples"] if self.backwards else []
        if self.gaps:
            reasons.append(
                f"{self.gaps} gap(s) in the samples, the longest {self.longest:.0f} s (allowed: {limit:.0f} s)"
            )
        return reasons

    def judge(self) -> list[Criterion]:
        """A line of the verdict."""
        plan, limit = self.plan, _GAP_INTERVALS * self.plan.interval
        reasons: list[str] = []
        if not self.samples:
            reasons.append("no sample was taken")
        elif self.span < plan.duration - SLACK:
            reasons.append(f"the samples span {self.span:.0f} s of the ordered {plan.duration:.0f} s")
        reasons += self.lasting_reasons()
        value = f"{span_text(self.span)}, {self.samples} samples, longest gap {span_text(self.longest)}"
        wanted = f"{span_text(plan.duration)}, no gap above {span_text(limit)}"
        return [_judged("coverage", "coverage", value, wanted, reasons)]


class _Containers:
    """Continuous uptime, and zero crashes."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.down, self.killed = Reasons(), Reasons()
        self.seen, self.well = 0, 0
        self.before: dict[str, Mapping[str, Any]] = {}
        self.restarts: dict[str, int] = {}
        self.oom: set[tuple[str, str]] = set()
        self.oom_kills = 0

    def add(self, sample: Sample) -> None:
        found = {str(container["service"]): container for container in sample.get("containers") or []}
        for service in self.plan.services:
            self.seen += 1
            container = found.get(service)
            if container is None or not container["well"]:
                state = "absent" if container is None else f"{container['state']}/{container['health']}"
                self.down.add(f"container {service} was {state} at {time_text(str(sample['at']))}")
            else:
                self.well += 1
            if container is None:
                continue
            self.restarts[service] = self.restarts.get(service, 0) + self._restarted(service, container)
            earlier = self.before.get(service)
            self.before[service] = container
            if self._is_new_kill(container, earlier):
                self.oom.add((str(container["id"]), str(container["started_at"])))
                self.killed.add(f"container {service} was killed for lack of memory before {time_text(str(sample['at']))}")
            self._count_oom_kills(service, container, earlier, str(sample["at"]))

    @staticmethod
    def _is_new_kill(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> bool:
        """Whether the container's own process was killed since the sample ``before``.

        The engine's flag stays set once it was (measured), over a restart by hand too; so one that was set before the
        soak does not count, and later only with a restart by the engine.
        """
        if not now["oom_killed"] or before is None:
            return False
        if now["id"] != before["id"] or not before["oom_killed"]:
            return True
        return int(now["restarts"]) > int(before["restarts"])

    def _count_oom_kills(
        self, service: str, now: Mapping[str, Any], before: Mapping[str, Any] | None, at: str
    ) -> None:
        """Processes of a container that lived on; the counter begins at 0 with every start."""
        if now.get("oom_kills") is None or before is None:
            return
        same = (now["id"], now["started_at"]) == (before["id"], before["started_at"])
        grown = int(now["oom_kills"]) - (int(before.get("oom_kills") or 0) if same else 0)
        if grown > 0:
            self.oom_kills += grown
            self.killed.add(f"{grown} process(es) of container {service} were killed for lack of memory before {time_text(at)}")

    def _restarted(self, service: str, now: Mapping[str, Any]) -> int:
        """Restarts between two samples; a counter that did not move may hide one by hand or a replacement."""
        before = self.before.get(service)
        if before is None:
            return 0
        if now["id"] != before["id"]:
            return 1
        counted = int(now["restarts"]) - int(before["restarts"])
        return counted if counted > 0 else int(now["started_at"] != before["started_at"])

    def judge(self) -> list[Criterion]:
        allowed = self.plan.thresholds.max_container_restarts
        crashed = [
            f"container {service} restarted {count} time(s) (allowed: {allowed})"
            for service, count in sorted(self.restarts.items())
            if count > allowed
        ]
        if not self.plan.services:
            note = "no container is named: the stack is on another host"
            return [
                _open("uptime", "continuous uptime", "running and healthy in all", note),
                _open("crashes", "zero crashes", f"at most {allowed} restarts, none out of memory", note),
            ]
        worst = max(self.restarts.values(), default=0)
        uptime = f"{self.well} of {self.seen} looks"
        value = f"{worst} restarts at most, {max(len(self.oom), self.oom_kills)} out of memory"
        return [
            _judged("uptime", "continuous uptime", uptime, "running and healthy in all", self.down.listed()),
            _judged(
                "crashes",
                "zero crashes",
                value,
                f"at most {allowed} restarts, none out of memory",
                crashed + self.killed.listed(),
            ),
        ]


class _Memory:
    def __init__(self, plan: Plan) -> None:
        self.limits, self.stacked = plan.thresholds, bool(plan.services)
        self.system: tuple[float, str, str] | None = None
        self.stack: float | None = None
        self.measured = False

    def add(self, sample: Sample) -> None:
        memory = sample.get("memory")
        if not memory:
            return
        self.measured = True
        at = time_text(str(sample["at"]))
        system = (float(memory["system_percent"]), str(memory["system_source"]), at)
        self.system = max(self.system, system) if self.system else system
        if memory["stack_limit"] > 0:
            used = 100.0 * memory["stack_used"] / memory["stack_limit"]
            self.stack = used if self.stack is None else max(self.stack, used)

    def judge(self) -> list[Criterion]:
        top, stack_top = self.limits.max_memory_percent, self.limits.max_stack_percent
        below, stack_below = f"below {top:g} %", f"below {stack_top:g} %"
        if self.system is None:
            reasons = ["memory was never measured"]
            system = _judged("memory", "memory of the host", "-", below, reasons)
        else:
            percent, source, at = self.system
            reasons = []
            if percent >= top:
                reasons.append(f"system memory reached {percent} % ({source}, {at}; allowed: {below})")
            system = _judged("memory", "memory of the host", f"{percent} % at most ({source})", below, reasons)
        name = "memory of the stack"
        if self.stack is None:
            note = "a container has no memory limit" if self.measured else "never measured"
            note = note if self.stacked else "no container is named: the stack is on another host"
            return [system, _open("stack_memory", name, stack_below, note)]
        reasons = []
        if self.stack >= stack_top:
            reasons.append(f"the stack used {self.stack:.1f} % of its memory limits (allowed: {stack_below})")
        value = f"{self.stack:.1f} % of its limits at most"
        return [system, _judged("stack_memory", name, value, stack_below, reasons)]


class _Cpu:
    def __init__(self, plan: Plan) -> None:
        self.limit = plan.thresholds.max_load_per_core
        self.loads: list[float] = []
        self.busiest: float | None = None

    def add(self, sample: Sample) -> None:
        cpu = sample.get("cpu")
        if cpu:
            self.loads.append(float(cpu["load5"]) / max(1, int(cpu["cores"])))
            if cpu["percent"] is not None:
                self.busiest = max(self.busiest or 0.0, float(cpu["percent"]))

    def judge(self) -> list[Criterion]:
        threshold = f"95 % of the samples at most {self.limit:g}"
        if not self.loads:
            return [_judged("cpu", "load per core", "-", threshold, ["the load was never measured"])]
        load = percentile(sorted(self.loads), 95)
        reasons = []
        if load > self.limit:
            reasons.append(f"the load per core was above {self.limit:g} (95th percentile: {load:.2f})")
        busy = "" if self.busiest is None else f", CPU at most {self.busiest:g} % busy"
        return [_judged("cpu", "load per core", f"{load:.2f}{busy}", threshold, reasons)]


class _Disk:
    def __init__(self, plan: Plan) -> None:
        self.limit = plan.thresholds.max_disk_percent
        self.fullest: tuple[float, str, int] | None = None

    def add(self, sample: Sample) -> None:
        for disk in sample.get("disk") or []:
            entry = (float(disk["percent"]), str(disk["path"]), int(disk["free"]))
            self.fullest = max(self.fullest, entry) if self.fullest else entry

    def judge(self) -> list[Criterion]:
        threshold = f"below {self.limit:g} %"
        if self.fullest is None:
            return [_judged("disk", "disk", "-", threshold, ["the disk was never measured"])]
        percent, path, free = self.fullest
        reasons = []
        if percent >= self.limit:
            reasons.append(f"the file system of {path} was {percent} % full (allowed: {threshold})")
        value = f"{path} {percent} % full at most, {free / 2**30:.1f} GiB free"
        return [_judged("disk", "disk", value, threshold, reasons)]


class _Pm2:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.down = Reasons()
        self.seen, self.well = 0, 0
        self.before: dict[str, tuple[int, int]] = {}
        self.restarts: dict[str, int] = {}

    def add(self, sample: Sample) -> None:
        found = {str(process["name"]): process for process in sample.get("pm2") or []}
        for name in self.plan.pm2_services:
            self.seen += 1
            process = found.get(name)
            if process is None or not process["well"]:
                status = process["status"] if process else "absent"
                self.down.add(f"PM2 service {name} was {status} at {time_text(str(sample['at']))}")
            else:
                self.well += 1
            if process is None or process["job"]:
                continue
            now = int(process["restarts"]), int(process["pid"])
            restarts, pid = self.before.get(name, now)
            counted = now[0] - restarts
            # a PM2 daemon that died and came back counts from 0 again: the process is another one then
            changed = counted if counted > 0 else int(0 not in (pid, now[1]) and pid != now[1])
            self.restarts[name] = self.restarts.get(name, 0) + changed
            self.before[name] = now

    def judge(self) -> list[Criterion]:
        allowed = self.plan.thresholds.max_pm2_restarts
        names = "PM2 services online", "PM2 restarts"
        if not self.plan.pm2_services:
            note = "no PM2 service is named"
            return [
                _open("pm2_online", names[0], "online in all", note),
                _open("pm2_restarts", names[1], f"at most {allowed}", note),
            ]
        reasons = [
            f"PM2 service {name} restarted {count} time(s) (allowed: {allowed})"
            for name, count in sorted(self.restarts.items())
            if count > allowed
        ]
        looks = f"{self.well} of {self.seen} looks"
        worst = f"{max(self.restarts.values(), default=0)} at most"
        return [
            _judged("pm2_online", names[0], looks, "online in all", self.down.listed()),
            _judged("pm2_restarts", names[1], worst, f"at most {allowed}", reasons),
        ]


class _Probes:
    def __init__(self, plan: Plan) -> None:
        self.limits = plan.thresholds
        self.count, self.missed, self.why = 0, 0, ""
        self.seconds: list[float] = []

    def add(self, sample: Sample) -> None:
        probe = sample.get("probe") or {}
        self.count += 1
        if probe.get("captured"):
            self.seconds.append(float(probe["seconds"]))
        else:
            self.missed += 1
            self.why = self.why or str(probe.get("error") or "not read back")

    def judge(self) -> list[Criterion]:
        limits = self.limits
        reasons = []
        if self.missed > limits.max_missed_probes:
            reasons.append(f"{self.missed} of {self.count} test events were not captured ({self.why})")
        captured = f"{self.count - self.missed} of {self.count}"
        allowed = f"at most {limits.max_missed_probes} missed"
        result = [_judged("probes", "every test event captured", captured, allowed, reasons)]
        ordered = sorted(self.seconds)
        for id_, name, percent, limit in (
            ("probe_p95", "test events read back, 95 %", 95.0, limits.max_probe_p95_seconds),
            ("probe_max", "test events read back, slowest", 100.0, limits.max_probe_seconds),
        ):
            threshold = f"within {limit:g} s"
            if not ordered:
                result.append(_judged(id_, name, "-", threshold, ["no test event was ever read back"]))
                continue
            seconds = percentile(ordered, percent)
            which = "the slowest test event" if percent == 100 else "one in twenty test events"
            slow = [f"{which} took {seconds:.1f} s (allowed: {limit:g} s)"] if seconds > limit else []
            result.append(_judged(id_, name, f"{number(seconds, 2)} s", threshold, slow))
        return result


class _Readings:
    def __init__(self, plan: Plan) -> None:
        self.allowed = plan.thresholds.max_failed_readings
        self.count, self.first = 0, ""

    def add(self, sample: Sample) -> None:
        errors = sample.get("errors") or []
        self.count += len(errors)
        self.first = self.first or next((f"{error} ({time_text(str(sample['at']))})" for error in errors), "")

    def judge(self) -> list[Criterion]:
        reasons = []
        if self.count > self.allowed:
            reasons.append(f"{self.count} reading(s) failed, the first: {self.first}")
        return [
            _judged("readings", "every reading taken", f"{self.count} failed", f"at most {self.allowed}", reasons)
        ]


_PARTS = (
    _Containers,
    _Memory,
    _Cpu,
    _Disk,
    _Pm2,
    _Probes,
    Queue,
    WorkerLog,
    Mirror,
    RealEvents,
    _Readings,
)


class _Figures:
    """Counts and extremes for the status."""

    def __init__(self) -> None:
        self.samples = 0
        self.first = self.last = ""
        self.seconds: list[float] = []
        self.system: float | None = None
        self.stack: float | None = None
        self.legs = Legs()

    def add(self, sample: Sample) -> None:
        self.samples += 1
        self.legs.add(sample)
        self.first, self.last = self.first or str(sample["at"]), str(sample["at"])
        probe, memory = sample.get("probe") or {}, sample.get("memory")
        if probe.get("captured"):
            self.seconds.append(float(probe["seconds"]))
        if memory:
            self.system = max(self.system or 0.0, float(memory["system_percent"]))
            self.stack = max(self.stack or 0.0, round(memory["stack_used"] / 2**20, 1))

    def told(self) -> dict[str, Any]:
        """Latencies in seconds, memory in percent and MiB; ``mirror``: both legs, None where none was counted."""
        ordered = sorted(self.seconds)
        span = 0.0
        if self.samples:
            times = datetime.fromisoformat(self.first), datetime.fromisoformat(self.last)
            span = (times[1] - times[0]).total_seconds()
        return {
            "samples": self.samples,
            "span_seconds": round(span),
            "probes_captured": len(ordered),
            "probe_seconds_median": percentile(ordered, 50) if ordered else None,
            "probe_seconds_p95": percentile(ordered, 95) if ordered else None,
            "probe_seconds_max": ordered[-1] if ordered else None,
            "system_memory_percent_max": self.system,
            "stack_memory_mib_max": self.stack,
            "mirror": self.legs.sums if self.legs.measured else None,
        }


def figures(samples: Iterable[Sample]) -> dict[str, Any]:
    """Counts and extremes over the samples: probe latencies in seconds, memory in percent and MiB."""
    found = _Figures()
    for sample in samples:
        found.add(sample)
    return found.told()


class Parts:
    """All criteria that samples decide, fed with one sample after the other, oldest first."""

    def __init__(self, plan: Plan) -> None:
        self.coverage = Coverage(plan)
        self._all = [self.coverage, *(part(plan) for part in _PARTS)]

    def add(self, sample: Sample) -> None:
        """One sample."""
        for part in self._all:
            part.add(sample)

    def criteria(self) -> list[Criterion]:
        """Lines of the verdict over the samples so far."""
        return [criterion for part in self._all for criterion in part.judge()]


def judge(
    plan: Plan, samples: Iterable[Sample], *, now: datetime, parity: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The verdict over ``samples`` (oldest first), made at ``now``.

    Returns ``{"verdict", "migration_id", "name", "mode", "judged_at", "valid_for", "reasons", "criteria": [
    {"id", "name", "value", "threshold", "met", "reasons", "note"}], "figures", "plan"}``. ``verdict`` is GO
    only when no criterion has a reason against it; five reasons of each are kept.
    """
    parts, found = Parts(plan), _Figures()
    for sample in samples:
        if str(sample.get("stack_id") or "") != plan.stack_id:
            continue  # left by another stack; what it leaves uncovered is a gap
        found.add(sample)
        parts.add(sample)
    criteria = parts.criteria()
    criteria.insert(len(criteria) - 1, judge_parity(plan, parity))
    reasons = [reason for criterion in criteria for reason in criterion.reasons]
    return {
        "verdict": NO_GO if reasons else GO,
        "migration_id": plan.migration_id,
        "stack_id": plan.stack_id,
        "run_id": plan.run_id,
        "name": plan.name,
        "mode": plan.mode,
        "judged_at": now.isoformat(timespec="seconds"),
        "valid_for": plan.valid_for,
        "reasons": reasons,
        "criteria": [asdict(criterion) for criterion in criteria],
        "figures": found.told(),
        "plan": plan.to_json(),
    }

