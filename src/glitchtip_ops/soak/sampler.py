"""One sample: the stack, the host, PM2, the event pipeline, the mirror. A reading that fails is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from glitchtip_api import Client, GlitchTipError
from glitchtip_api.search import IssueSearch
from glitchtip_core.memory import read_memory

from ..docker_stack import Container, Stack, read_oom_kills
from ..host_state import read_cpu, read_disk, read_pm2
from ..parity.matching import is_probe
from ..probe import Probe
from ..process import OpsError
from ..queue.state import read_queue
from ..queue.valkey import SERVICE
from ..settings import Settings
from .config import SoakConfig
from .plan import Plan
from .store import Sample

#: Words of a line that may tell of an error: shown to people, never judged. GlitchTip 5.2 logs errors without any.
_ERROR_MARKS = (" ERROR", "ERROR:", "ERROR/", "[ERROR", "CRITICAL", "Traceback (most recent call last)")
_REAL_LEVELS = ("warning", "error", "fatal")
#: Issues looked at for events of the product itself, and how many of those are enough.
_ISSUES_READ, _ENOUGH = 50, 5
#: nginx writes a leg's line when the leg has ended; what is younger may still be under way or in its buffer.
_MIRROR_LAG = timedelta(seconds=10)

RealIssues = Callable[[Plan], dict[str, Any]]
Counts = Callable[[datetime, datetime, Path | None], Mapping[str, Any] | None]


def count_error_lines(lines: Iterable[str]) -> int:
    """How many lines of a Python service's log look like an error: evidence for people, no verdict."""
    return sum(any(mark in f" {line}" for mark in _ERROR_MARKS) for line in lines)


def read_mirror(since: datetime, until: datetime, log_dir: Path | None) -> Mapping[str, Any] | None:
    """Counts of both legs of the mirror in [since, until); None where there is no mirror. Raises OpsError."""
    from ..mirror import read_counts  # the sampler starts every minute; only this mode needs it

    return read_counts(since, until, log_dir)


def real_issues(settings: Settings, plan: Plan) -> dict[str, Any]:
    """Issues with events of the product itself since the soak began: ``{"issues", "more", "last_seen"}``.

    Own test events carry a tag that tells them (parity leaves them out by the same). At most five are
    counted (``more``: there may be others); no title is kept, it may hold data of customers.
    Raises OpsError when the API does not answer.
    """
    search = IssueSearch(
        projects=[settings.project_id], seen_since=datetime.fromisoformat(plan.started_at), sort="-last_seen"
    )
    found: list[str] = []
    wanted = max(_ENOUGH, plan.thresholds.min_real_issues)
    try:
        with Client(settings.url, settings.token, retries=1) as client:
            seen = client.issues.iterate(settings.organization, search=search)
            for issue in islice(seen, max(_ISSUES_READ, wanted)):
                if issue.get("level") not in _REAL_LEVELS:
                    continue
                event = client.issues.latest_event(issue["id"])
                if event is not None and not is_probe(_tags(event)):
                    found.append(str(issue.get("lastSeen", "")))
                if len(found) >= wanted:
                    break
    except GlitchTipError as error:
        raise OpsError(str(error)) from None
    return {
        "issues": len(found),
        "more": len(found) >= wanted,
        "last_seen": max(found, default=None),
    }


def _tags(event: Mapping[str, Any]) -> dict[str, str]:
    listed = event.get("tags") or []
    return {str(tag.get("key")): str(tag.get("value")) for tag in listed if isinstance(tag, dict)}


class Sampler:
    """Takes one sample. What it asks is handed in, so that tests answer for it."""

    def __init__(
        self,
        config: SoakConfig,
        stack: Stack,
        probe: Callable[[], Probe],
        *,
        real: RealIssues | None = None,
        mirror: Counts = read_mirror,
    ) -> None:
        self.config = config
        self.stack = stack
        self.probe = probe
        self.real = real
        self.mirror = mirror

    def take(self, plan: Plan, now: datetime, before: Sample | None) -> dict[str, Any]:
        """A sample of this moment; ``before`` is the one before it (counts are of the time in between).

        A reading that fails is named under ``errors``; the rest goes on.
        """
        errors: list[str] = []

        def reading(name: str, read: Callable[[], Any], missing: Any) -> Any:
            try:
                return read()
            except OpsError as error:
                errors.append(f"{name}: {error}")
                return missing

        since = datetime.fromisoformat(str(before["at"])) if before else datetime.fromisoformat(plan.started_at)
        stacked = bool(plan.services)  # the product's own host may have no stack, and no engine
        containers = reading("containers", self.stack.containers, []) if stacked else []
        queue = reading("queue", lambda: self._queue(containers, now), None) if stacked else None
        usage = reading("use of the containers", lambda: self.stack.usage(containers), {})
        sample: dict[str, Any] = {
            "at": now.isoformat(timespec="milliseconds"),
            "containers": [_container(each, usage.get(each.name)) for each in containers],
            "memory": reading("memory", lambda: _memory(containers, usage), None),
            "cpu": reading("CPU", lambda: _cpu(before), None),
            "disk": reading("disk", lambda: _disks(self.stack if stacked else None), []),
            "pm2": reading("PM2", lambda: self._pm2(plan), []),
            "worker_errors": reading("worker log", lambda: self._worker_errors(since, now), None)
            if stacked
            else None,
            "queue": None if queue is None else queue["waiting"],
            "queue_state": queue,
            "probe": asdict(self.probe()),
        }
        if plan.mode == "mirror":
            sample["mirror"] = reading("mirror", lambda: self._mirror(plan, now, before), None)
            if sample["mirror"] is None:  # what happened meanwhile is counted by the next sample
                sample["mirror_until"] = _counted_until(plan, before)
        if plan.mode != "probe" and self.real is not None:
            real = self.real
            sample["real"] = reading("real events", lambda: real(plan), None)
        sample["errors"] = errors
        return sample

    def _pm2(self, plan: Plan) -> list[dict[str, Any]]:
        if not plan.pm2_services:
            return []
        config = self.config
        found = read_pm2(config.pm2_user, config.pm2_home, config.pm2_binary, config.pm2_node)
        return [{**asdict(process), "well": process.well} for process in found]

    def _worker_errors(self, since: datetime, until: datetime) -> int:
        bounds = since.isoformat(timespec="milliseconds"), until.isoformat(timespec="milliseconds")
        service = self.config.worker_service
        services = self.stack.services([service] if service else ["worker"], self.stack.containers())
        worker = self.stack.container(services[0] if services else "web")
        return count_error_lines(self.stack.log_lines(worker, *bounds))

    def _queue(self, containers: Sequence[Container], now: datetime) -> dict[str, Any] | None:
        """What waits and what was left; None where no Valkey is named or running (its absence is noted)."""
        if not any(each.service == SERVICE and each.running for each in containers):
            return None
        state = read_queue(self.stack, now, containers)
        return {**state.to_json(), "abandoned": state.abandoned}

    def _mirror(self, plan: Plan, now: datetime, before: Sample | None) -> dict[str, Any]:
        """Counts since the last sample that had them, up to some seconds ago."""
        since, until = datetime.fromisoformat(_counted_until(plan, before)), now - _MIRROR_LAG
        if until <= since:
            return {"until": since.isoformat(timespec="milliseconds"), "sentry": None, "glitchtip": None}
        log_dir = Path(self.config.mirror_log_dir) if self.config.mirror_log_dir else None
        counts = self.mirror(since, until, log_dir)
        if counts is None:
            raise OpsError("no mirror is set up on this host, though the soak was ordered in mode mirror")
        return {**counts, "until": until.isoformat(timespec="milliseconds")}


def _counted_until(plan: Plan, before: Sample | None) -> str:
    """Up to when the mirror's legs are in the samples so far."""
    last = before or {}
    return str((last.get("mirror") or {}).get("until") or last.get("mirror_until") or plan.started_at)


def _disks(stack: Stack | None) -> list[dict[str, Any]]:
    """/ and the engine's directory; once where both are one file system."""
    disks = [read_disk(Path("/"))]
    if stack is not None:
        docker = read_disk(stack.root_directory())
        if docker.path != "/" and os.stat(docker.path).st_dev != os.stat("/").st_dev:
            disks.append(docker)
    return [{"path": disk.path, "percent": disk.percent, "free": disk.free} for disk in disks]


def _container(container: Container, usage: Any) -> dict[str, Any]:
    return {
        "service": container.service,
        "id": container.id[:12],
        "state": container.state,
        "health": container.health,
        "well": container.well,
        "restarts": container.restarts,
        "oom_killed": container.oom_killed,
        "oom_kills": read_oom_kills(container),
        "started_at": container.started_at,
        "memory": None if usage is None else usage.memory,
        "limit": container.memory_limit,
        "cpu": None if usage is None else usage.cpu,
    }


def _memory(containers: Sequence[Container], usage: Mapping[str, Any]) -> dict[str, Any]:
    system = read_memory()
    limits = [container.memory_limit for container in containers]
    return {
        "system_percent": system.percent,
        "system_source": system.source,
        "system_used": system.used,
        "system_total": system.total,
        "stack_used": sum(each.memory for each in usage.values()),
        "stack_limit": 0 if 0 in limits else sum(limits),
    }


def _cpu(before: Sample | None) -> dict[str, Any]:
    """``percent``: of all cores, since the sample before (None for the first, and after a reboot)."""
    cpu = read_cpu()
    earlier = (before or {}).get("cpu")
    percent = cpu.percent_since(earlier["busy"], earlier["total"]) if earlier else None
    return {**asdict(cpu), "percent": percent}
