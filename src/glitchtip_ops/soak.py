"""``glitchtip-ops soak``: prove GlitchTip beside Sentry for a while, then say GO or NO_GO.

A soak is a plan (``plan.json``), samples (``soak.jsonl``, one line each, fsynced) and a verdict
(``verdict.json``) in ``<state_dir>/<migration_id>/``. The sampler runs under systemd, survives the operator's
session and goes on after a reboot; the verdict is a pure function of the plan and the samples.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from .cli import BAD_ANSWER, Outcome
from .docker_stack import Stack
from .files import append_line, read_json, write_json
from .host_state import read_memory, read_pm2
from .probe import Probe, send_probe
from .process import OpsError
from .settings import Settings, load_settings, settings_directory

GO, NO_GO = "GO", "NO_GO"
_GAP_INTERVALS = 3
_ERROR_MARKS = (" ERROR", "ERROR:", "ERROR/", "[ERROR", "CRITICAL", "Traceback (most recent call last)")


def utc_now() -> datetime:
    """The clock of this module; tests hand in their own."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Thresholds:
    """What a soak must keep to. Percentages are 0 to 100, times are seconds."""

    max_memory_percent: float = 80.0
    max_stack_percent: float = 95.0
    max_container_restarts: int = 0
    max_pm2_restarts: int = 0
    max_missed_probes: int = 0
    max_probe_seconds: float = 30.0
    max_worker_errors: int = 0


@dataclass(frozen=True)
class Plan:
    """A soak as it was ordered. ``duration`` and ``interval`` in seconds."""

    migration_id: str
    started_at: str
    duration: float
    interval: float
    services: tuple[str, ...]
    pm2_services: tuple[str, ...]
    thresholds: Thresholds

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Plan:
        """Back from ``to_json``. Raises OpsError when a field is missing or unknown."""
        try:
            values = dict(data)
            values["thresholds"] = Thresholds(**values["thresholds"])
            values["services"] = tuple(values["services"])
            values["pm2_services"] = tuple(values["pm2_services"])
            return Plan(**values)
        except (KeyError, TypeError) as error:
            raise OpsError(f"the plan of the soak is not one ({error})") from None


Sample = Mapping[str, Any]


def parse_duration(text: str) -> float:
    """Seconds of ``60``, ``60s``, ``15m``, ``48h`` or ``2d``. Raises OpsError for anything else, or zero."""
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:], 0)
    number = text[:-1] if unit else text
    if not number.isascii() or not number.isdigit() or int(number) == 0:
        raise OpsError(f"{text!r} is not a duration; write for example 60s, 15m, 48h or 2d")
    return float(int(number) * (unit or 1))


def _at(sample: Sample) -> datetime:
    return datetime.fromisoformat(str(sample["at"]))


# --- the verdict: pure functions over samples -------------------------------------------------------------


def _coverage(plan: Plan, samples: Sequence[Sample]) -> list[str]:
    if not samples:
        return ["no sample was taken"]
    times = [_at(sample) for sample in samples]
    reasons: list[str] = []
    if any(later < earlier for earlier, later in pairwise(times)):
        reasons.append("the clock went backwards between two samples")
    start = datetime.fromisoformat(plan.started_at)
    span = (times[-1] - times[0]).total_seconds()
    if span < plan.duration:
        reasons.append(f"the samples span {span:.0f} s of the ordered {plan.duration:.0f} s")
    limit = _GAP_INTERVALS * plan.interval
    gaps = [
        (later - earlier).total_seconds()
        for earlier, later in pairwise([start, *times])
        if (later - earlier).total_seconds() > limit
    ]
    if gaps:
        reasons.append(
            f"{len(gaps)} gap(s) in the samples, the longest {max(gaps):.0f} s (allowed: {limit:.0f} s)"
        )
    return reasons


def _uptime(plan: Plan, samples: Sequence[Sample]) -> list[str]:
    reasons: list[str] = []
    first: dict[str, Mapping[str, Any]] = {}
    crashes: dict[str, int] = {}
    for sample in samples:
        seen = {str(container["service"]): container for container in sample.get("containers", [])}
        for service in plan.services:
            container = seen.get(service)
            if container is None or not container["well"]:
                state = "absent" if container is None else f"{container['state']}/{container['health']}"
                reasons.append(f"container {service} was {state} at {sample['at']}")
                continue
            before = first.setdefault(service, container)
            restarts = int(container["restarts"]) - int(before["restarts"])
            replaced = container["id"] != before["id"] or container["started_at"] != before["started_at"]
            crashes[service] = max(crashes.get(service, 0), restarts if restarts > 0 else int(replaced))
            if container["oom_killed"]:
                reasons.append(f"container {service} was killed for lack of memory before {sample['at']}")
    allowed = plan.thresholds.max_container_restarts
    reasons += [
        f"container {service} restarted {count} time(s) (allowed: {allowed})"
        for service, count in sorted(crashes.items())
        if count > allowed
    ]
    return reasons


def _memory(plan: Plan, samples: Sequence[Sample]) -> list[str]:
    reasons: list[str] = []
    measured = [sample["memory"] for sample in samples if sample.get("memory")]
    if not measured:
        return ["memory was never measured"]
    peak = max(measured, key=lambda memory: float(memory["system_percent"]))
    if float(peak["system_percent"]) >= plan.thresholds.max_memory_percent:
        reasons.append(
            f"system memory reached {peak['system_percent']} % ({peak['system_source']}; "
            f"allowed: below {plan.thresholds.max_memory_percent:g} %)"
        )
    limited = [memory for memory in measured if memory["stack_limit"] > 0]
    if limited:
        worst = max(100.0 * memory["stack_used"] / memory["stack_limit"] for memory in limited)
        if worst >= plan.thresholds.max_stack_percent:
            reasons.append(
                f"the stack used {worst:.1f} % of its memory limits "
                f"(allowed: below {plan.thresholds.max_stack_percent:g} %)"
            )
    return reasons


def _pm2(plan: Plan, samples: Sequence[Sample]) -> list[str]:
    if not plan.pm2_services:
        return []
    reasons: list[str] = []
    first: dict[str, int] = {}
    most: dict[str, int] = {}
    for sample in samples:
        seen = {str(process["name"]): process for process in sample.get("pm2", [])}
        for name in plan.pm2_services:
            process = seen.get(name)
            if process is None or not process["well"]:
                reasons.append(
                    f"PM2 service {name} was {process['status'] if process else 'absent'} at {sample['at']}"
                )
                continue
            if process["job"]:
                continue
            restarts = int(process["restarts"]) - first.setdefault(name, int(process["restarts"]))
            most[name] = max(most.get(name, 0), restarts)
    allowed = plan.thresholds.max_pm2_restarts
    reasons += [
        f"PM2 service {name} restarted {count} time(s) (allowed: {allowed})"
        for name, count in sorted(most.items())
        if count > allowed
    ]
    return reasons


def _probes(plan: Plan, samples: Sequence[Sample]) -> list[str]:
    probes = [sample.get("probe") or {"captured": False} for sample in samples]
    reasons: list[str] = []
    missed = [probe for probe in probes if not probe.get("captured")]
    if len(missed) > plan.thresholds.max_missed_probes:
        why = next((str(probe["error"]) for probe in missed if probe.get("error")), "not read back")
        reasons.append(f"{len(missed)} of {len(probes)} test events were not captured ({why})")
    slowest = max((float(probe["seconds"]) for probe in probes if probe.get("captured")), default=0.0)
    if slowest > plan.thresholds.max_probe_seconds:
        reasons.append(
            f"the slowest test event took {slowest:.1f} s (allowed: {plan.thresholds.max_probe_seconds:g} s)"
        )
    return reasons


def _worker_log(plan: Plan, samples: Sequence[Sample]) -> list[str]:
    count = sum(int(sample.get("worker_errors") or 0) for sample in samples)
    if count > plan.thresholds.max_worker_errors:
        allowed = plan.thresholds.max_worker_errors
        return [f"the worker logged {count} error line(s) (allowed: {allowed})"]
    return []


def _blind_spots(samples: Sequence[Sample]) -> list[str]:
    failed = [str(error) for sample in samples for error in sample.get("errors", [])]
    return [f"{len(failed)} reading(s) failed, the first: {failed[0]}"] if failed else []


CRITERIA: tuple[tuple[str, Callable[[Plan, Sequence[Sample]], list[str]]], ...] = (
    ("coverage", _coverage),
    ("continuous uptime, zero crashes", _uptime),
    ("memory", _memory),
    ("PM2 services online", _pm2),
    ("every test event captured", _probes),
    ("worker log free of errors", _worker_log),
    ("every reading taken", lambda _plan, samples: _blind_spots(samples)),
)


def judge(plan: Plan, samples: Sequence[Sample]) -> dict[str, Any]:
    """The verdict over ``samples`` (oldest first): ``{"verdict", "reasons", "criteria", "figures", "plan"}``.

    ``verdict`` is GO only when no criterion has a reason against it; at most five reasons of each are kept.
    """
    criteria: list[dict[str, Any]] = []
    for name, criterion in CRITERIA:
        reasons = criterion(plan, samples)
        extra = [f"... and {len(reasons) - 5} more"] if len(reasons) > 5 else []
        criteria.append({"name": name, "met": not reasons, "reasons": reasons[:5] + extra})
    reasons = [reason for criterion in criteria for reason in criterion["reasons"]]
    return {
        "verdict": NO_GO if reasons else GO,
        "migration_id": plan.migration_id,
        "reasons": reasons,
        "criteria": criteria,
        "figures": figures(samples),
        "plan": plan.to_json(),
    }


def figures(samples: Sequence[Sample]) -> dict[str, Any]:
    """Counts and extremes over the samples: probe latencies in seconds, memory in percent and MiB."""
    latencies = sorted(
        float(sample["probe"]["seconds"]) for sample in samples if (sample.get("probe") or {}).get("captured")
    )
    memories = [sample["memory"] for sample in samples if sample.get("memory")]
    return {
        "samples": len(samples),
        "span_seconds": round((_at(samples[-1]) - _at(samples[0])).total_seconds()) if samples else 0,
        "probes_captured": len(latencies),
        "probe_seconds_median": latencies[len(latencies) // 2] if latencies else None,
        "probe_seconds_max": latencies[-1] if latencies else None,
        "system_memory_percent_max": max((float(m["system_percent"]) for m in memories), default=None),
        "stack_memory_mib_max": max((round(m["stack_used"] / 2**20, 1) for m in memories), default=None),
    }


# --- files ------------------------------------------------------------------------------------------------


class SoakFiles:
    """Where one migration's soak is kept."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.plan = directory / "plan.json"
        self.samples = directory / "soak.jsonl"
        self.verdict = directory / "verdict.json"

    def read_plan(self) -> Plan | None:
        """The plan, or None when no soak was ordered."""
        data = read_json(self.plan)
        return None if data is None else Plan.from_json(data)

    def read_samples(self) -> list[dict[str, Any]]:
        """All whole lines; a line that a power cut tore off is left out (its gap is seen by the verdict)."""
        try:
            text = self.samples.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        result: list[dict[str, Any]] = []
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and "at" in entry:
                result.append(entry)
        return result

    def set_aside(self, now: datetime) -> None:
        """Rename what is there, so that a new soak can begin; nothing is deleted."""
        stamp = now.strftime("%Y%m%d-%H%M%S")
        for path in (self.verdict, self.samples, self.plan):
            if path.exists():
                path.rename(path.with_name(f"{path.stem}.{stamp}{path.suffix}"))

    def status(self) -> dict[str, Any]:
        """``{"state": absent|running|finished, "verdict": GO|NO_GO|None, "reasons", "figures", "plan"}``."""
        plan, verdict = self.read_plan(), read_json(self.verdict)
        if plan is None:
            return {"state": "absent", "verdict": None, "reasons": [], "figures": {}, "plan": None}
        if verdict is None:
            return {
                "state": "running",
                "verdict": None,
                "reasons": [],
                "figures": figures(self.read_samples()),
                "plan": plan.to_json(),
            }
        return {
            "state": "finished",
            "verdict": verdict["verdict"],
            "reasons": verdict["reasons"],
            "figures": verdict["figures"],
            "plan": plan.to_json(),
        }


# --- taking samples ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SoakConfig:
    """``soak.json`` of role parallel_run: where PM2 is, and which containers and PM2 services must be up."""

    services: tuple[str, ...] = ("postgres", "valkey", "web", "worker")
    worker_service: str = "worker"
    compose_project: str = "glitchtip"
    pm2_user: str = "root"
    pm2_home: str = "/root/.pm2"
    pm2_binary: str = "/usr/local/bin/pm2"
    pm2_services: tuple[str, ...] = ()
    probe_timeout: float = 30.0
    thresholds: Thresholds = field(default_factory=Thresholds)

    @staticmethod
    def read(path: Path) -> SoakConfig:
        """The file at ``path``; defaults when there is none. Raises OpsError for an unknown key."""
        data = read_json(path) or {}
        known = {each.name for each in fields(SoakConfig)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise OpsError(f"{path} has unknown keys: {', '.join(unknown)}")
        values = dict(data)
        for name in ("services", "pm2_services"):
            if name in values:
                values[name] = tuple(values[name])
        try:
            values["thresholds"] = Thresholds(**values.get("thresholds", {}))
        except TypeError as error:
            raise OpsError(f"{path} has a threshold that does not exist: {error}") from None
        return SoakConfig(**values)


def count_error_lines(lines: Iterable[str]) -> int:
    """How many lines of a Python service's log report an error."""
    return sum(any(mark in f" {line}" for mark in _ERROR_MARKS) for line in lines)


class Sampler:
    """Takes one sample of the stack, the host, PM2 and the event pipeline."""

    def __init__(self, config: SoakConfig, stack: Stack, probe: Callable[[], Probe]) -> None:
        self.config = config
        self.stack = stack
        self.probe = probe

    def take(self, now: datetime, since: datetime) -> dict[str, Any]:
        """A sample of this moment. A reading that fails is named under ``errors``; the rest goes on."""
        errors: list[str] = []

        def reading(name: str, read: Callable[[], Any], missing: Any) -> Any:
            try:
                return read()
            except OpsError as error:
                errors.append(f"{name}: {error}")
                return missing

        containers = reading("containers", self.stack.containers, [])
        sample = {
            "at": now.isoformat(timespec="seconds"),
            "containers": [
                {
                    "service": c.service,
                    "id": c.id[:12],
                    "state": c.state,
                    "health": c.health,
                    "well": c.well,
                    "restarts": c.restarts,
                    "oom_killed": c.oom_killed,
                    "started_at": c.started_at,
                }
                for c in containers
            ],
            "memory": reading("memory", lambda: self._memory(containers), None),
            "pm2": reading("PM2", self._pm2, []),
            "worker_errors": reading("worker log", lambda: self._worker_errors(since), 0),
            "probe": asdict(self.probe()),
        }
        sample["errors"] = errors
        return sample

    def _memory(self, containers: Sequence[Any]) -> dict[str, Any]:
        system = read_memory()
        used = self.stack.memory_used(containers)
        per_service = {c.service: {"used": used.get(c.name, 0), "limit": c.memory_limit} for c in containers}
        unlimited = any(entry["limit"] == 0 for entry in per_service.values())
        return {
            "system_percent": system.percent,
            "system_source": system.source,
            "system_used": system.used,
            "system_total": system.total,
            "stack_used": sum(entry["used"] for entry in per_service.values()),
            "stack_limit": 0 if unlimited else sum(entry["limit"] for entry in per_service.values()),
            "containers": per_service,
        }

    def _pm2(self) -> list[dict[str, Any]]:
        if not self.config.pm2_services:
            return []
        found = read_pm2(self.config.pm2_user, Path(self.config.pm2_home), self.config.pm2_binary)
        return [{**asdict(process), "well": process.well} for process in found]

    def _worker_errors(self, since: datetime) -> int:
        worker = self.stack.container(self.config.worker_service)
        return count_error_lines(self.stack.log_lines(worker, since.isoformat(timespec="seconds")))


def run_soak(
    plan: Plan,
    soak_files: SoakFiles,
    sampler: Sampler,
    *,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Take samples until the plan's duration is covered, then write and return the verdict.

    Goes on where an earlier run stopped (reboot, crash): samples stay due at whole intervals after the start.
    """
    start = datetime.fromisoformat(plan.started_at)
    samples = soak_files.read_samples()
    while True:
        now = clock()
        since = _at(samples[-1]) if samples else start
        sample = sampler.take(now, since)
        append_line(soak_files.samples, json.dumps(sample, sort_keys=True))
        samples.append(sample)
        if (_at(samples[-1]) - _at(samples[0])).total_seconds() >= plan.duration:
            break
        passed = (clock() - start).total_seconds()
        due = start + timedelta(seconds=plan.interval * (math.floor(passed / plan.interval) + 1))
        last = _at(samples[0]) + timedelta(seconds=plan.duration)
        sleep(max(0.5, (min(due, max(last, now)) - clock()).total_seconds()))
    verdict = judge(plan, samples)
    write_json(soak_files.verdict, verdict)
    return verdict


# --- commands ---------------------------------------------------------------------------------------------


def _files(settings: Settings) -> SoakFiles:
    return SoakFiles(Path(settings.state_dir) / settings.migration_id)


def _sampler(settings: Settings, config: SoakConfig) -> Sampler:
    def probe() -> Probe:
        return send_probe(settings, "soak", timeout=config.probe_timeout)

    return Sampler(config, Stack(config.compose_project), probe)


def start(
    settings: Settings,
    config: SoakConfig,
    duration: float,
    interval: float,
    *,
    restart: bool,
    dry_run: bool = False,
    clock: Callable[[], datetime] = utc_now,
) -> dict[str, Any]:
    """Write the plan of a soak; ``{"changed", **status}``. One that exists is kept unless ``restart``.

    Raises OpsError when a running soak was ordered with another duration or interval.
    """
    if interval > duration:
        raise OpsError("the interval between samples is longer than the soak")
    soak_files = _files(settings)
    existing = soak_files.read_plan()
    if existing is not None and not restart:
        if (existing.duration, existing.interval) != (duration, interval):
            raise OpsError(
                f"a soak of {existing.duration:.0f} s every {existing.interval:.0f} s exists already for "
                f"migration {settings.migration_id}; begin anew with --restart, or give its figures"
            )
        return {"changed": False, **soak_files.status()}
    if dry_run:
        return {"changed": True, **soak_files.status()}
    now = clock()
    soak_files.set_aside(now)
    plan = Plan(
        migration_id=settings.migration_id,
        started_at=now.isoformat(timespec="seconds"),
        duration=duration,
        interval=interval,
        services=config.services,
        pm2_services=config.pm2_services,
        thresholds=config.thresholds,
    )
    write_json(soak_files.plan, plan.to_json())
    return {"changed": True, **soak_files.status()}


def _ordered(soak_files: SoakFiles) -> Plan:
    plan = soak_files.read_plan()
    if plan is None:
        raise OpsError("no soak was ordered on this host; begin with: glitchtip-ops soak start")
    return plan


def _command(arguments: argparse.Namespace, settings: Settings) -> tuple[int, dict[str, Any]]:
    config = SoakConfig.read(settings_directory() / "soak.json")
    soak_files = _files(settings)
    if arguments.action == "start":
        duration, interval = parse_duration(arguments.duration), parse_duration(arguments.interval)
        dry_run, restart = arguments.dry_run, arguments.restart
        return 0, start(settings, config, duration, interval, restart=restart, dry_run=dry_run)
    if arguments.action == "status":
        return 0, soak_files.status()
    plan = _ordered(soak_files)
    if arguments.action == "run":
        if not soak_files.verdict.exists():
            run_soak(plan, soak_files, _sampler(settings, config))
        return 0, soak_files.status()
    samples = soak_files.read_samples()
    final = read_json(soak_files.verdict)
    if arguments.action == "sample":
        since = _at(samples[-1]) if samples else datetime.fromisoformat(plan.started_at)
        sample = _sampler(settings, config).take(utc_now(), since)
        if final is None:
            append_line(soak_files.samples, json.dumps(sample, sort_keys=True))
        return (0 if not sample["errors"] and sample["probe"]["captured"] else BAD_ANSWER), sample
    verdict = final or judge(plan, samples)
    return (0 if verdict["verdict"] == GO else BAD_ANSWER), verdict


def describe(result: Mapping[str, Any]) -> str:
    """A status, verdict or sample for people, some lines."""
    if "probe" in result:
        probe = result["probe"]
        text = (
            f"captured after {probe['seconds']} s" if probe["captured"] else f"not captured: {probe['error']}"
        )
        return "\n".join([f"{result['at']} test event {text}", *(f"- {error}" for error in result["errors"])])
    found = result["figures"]
    lines = [f"soak {result.get('state', 'judged')}, verdict {result['verdict'] or 'still open'}"]
    if found.get("samples"):
        system, stack = found["system_memory_percent_max"], found["stack_memory_mib_max"]
        lines += [
            f"{found['samples']} samples over {found['span_seconds']} s",
            f"{found['probes_captured']} test events captured, slowest {found['probe_seconds_max']} s",
            f"memory at most {system} %, of the stack {stack} MiB",
        ]
    return "\n".join([*lines, *(f"- {reason}" for reason in result["reasons"])])


def register(subparsers: Any) -> None:
    """Add ``soak`` with its actions."""
    parser = subparsers.add_parser("soak", help="prove GlitchTip beside Sentry for a while, then GO or NO_GO")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    begin = actions.add_parser("start", help="order a run (the sampler itself is glitchtip-soak.service)")
    begin.add_argument("--duration", default="48h", help="60s, 15m, 48h, 2d (default: 48h)")
    begin.add_argument("--interval", default="15m", help="time between two samples (default: 15m)")
    begin.add_argument(
        "--restart", action="store_true", help="begin anew; the files of the run before are renamed"
    )
    begin.add_argument("--dry-run", action="store_true", help="only say whether a run would be ordered")
    actions.add_parser("run", help="take samples until the ordered time is covered, then write the verdict")
    actions.add_parser("sample", help="take one sample now; kept as long as there is no verdict")
    actions.add_parser("status", help="how the run stands")
    actions.add_parser("verdict", help="the verdict, or that over the samples so far; exit code 3 for NO_GO")
    parser.set_defaults(handler=_handle)


def _handle(arguments: argparse.Namespace) -> Outcome:
    code, result = _command(arguments, load_settings())
    return Outcome(result, describe(result).splitlines(), code)
