"""Plans and samples of a soak as tests need them: a whole clean run, to be spoilt by each test."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from glitchtip_ops.soak import Plan

START = datetime(2026, 1, 10, 6, 0, tzinfo=UTC)
SERVICES = ("postgres", "valkey", "web", "worker")
PM2 = ("ai-admin-api", "ai-admin-batch-processor")
MIB = 2**20


def make_plan(**changes: Any) -> Plan:
    """A soak of a minute, every ten seconds."""
    values: dict[str, Any] = {
        "migration_id": "m1",
        "started_at": START.isoformat(),
        "duration": 60.0,
        "interval": 10.0,
        "services": SERVICES,
        "pm2_services": PM2,
    }
    return Plan(**{**values, **changes})


def make_sample(seconds: float, **changes: Any) -> dict[str, Any]:
    """A sample of a host that is well, ``seconds`` after the start."""
    values = {
        "at": (START + timedelta(seconds=seconds)).isoformat(timespec="milliseconds"),
        "containers": [
            {
                "service": service,
                "id": service,
                "state": "running",
                "health": "healthy",
                "well": True,
                "restarts": 0,
                "oom_killed": False,
                "started_at": "2026-01-09T00:00:00Z",
                "memory": 75 * MIB,
                "limit": 100 * MIB,
                "cpu": 3.5,
            }
            for service in SERVICES
        ],
        "memory": {
            "system_percent": 61.0,
            "system_source": "cgroup",
            "system_used": 610 * MIB,
            "system_total": 1000 * MIB,
            "stack_used": 300 * MIB,
            "stack_limit": 400 * MIB,
        },
        "cpu": {"busy": 100, "total": 1000, "cores": 2, "load1": 0.5, "load5": 0.4, "percent": 10.0},
        "disk": [{"path": "/", "percent": 41.5, "free": 17 * 2**30}],
        "pm2": [
            {
                "name": PM2[0],
                "status": "online",
                "pid": 5,
                "restarts": 7,
                "job": False,
                "well": True,
                "memory": MIB,
            },
            {
                "name": PM2[1],
                "status": "stopped",
                "pid": 0,
                "restarts": 1,
                "job": True,
                "well": True,
                "memory": 0,
            },
        ],
        "worker_errors": 0,
        "queue": 0,
        "probe": {"event_id": "e" * 32, "captured": True, "seconds": 1.5, "error": None},
        "errors": [],
    }
    return {**values, **changes}


def make_run(duration: float = 60, interval: float = 10) -> list[dict[str, Any]]:
    """A whole clean run."""
    return [make_sample(at) for at in range(0, int(duration) + 1, int(interval))]


def with_mirror(samples: list[dict[str, Any]], **glitchtip: int) -> list[dict[str, Any]]:
    """The same in mode mirror: 100 envelopes a sample on each leg, and real events seen."""
    for sample in samples:
        legs = {leg: {"sent": 100, "ok": 100, "failed": 0} for leg in ("sentry", "glitchtip")}
        legs["glitchtip"].update(glitchtip)
        sample["mirror"] = {**legs, "until": sample["at"], "seconds": {}}
        sample["real"] = {"issues": 5, "more": True, "last_seen": sample["at"]}
    return samples


def long_run(duration: float, interval: float, pm2: tuple[str, ...] = PM2) -> Iterator[dict[str, Any]]:
    """A run with curves that look like a host's: for plots and for figures of speed."""
    for number in range(int(duration // interval) + 1):
        seconds = number * interval
        wave = math.sin(seconds / 7000) + 0.3 * math.sin(seconds / 911)
        sample = with_mirror([make_sample(seconds)])[0]
        sample["memory"].update(
            system_percent=round(62 + 5 * wave, 1), stack_used=int((305 + 12 * wave) * MIB)
        )
        for place, container in enumerate(sample["containers"]):
            container["memory"] = int((40 + 35 * place + 6 * wave) * MIB)
            container["cpu"] = round(2 + place + 1.5 * wave, 2)
        sample["cpu"].update(percent=round(18 + 9 * wave, 1), load5=round(0.5 + 0.2 * wave, 2))
        sample["disk"] = [
            {"path": "/", "percent": round(41 + number * interval / 86400, 1), "free": 17 * 2**30},
            {"path": "/var/lib/docker", "percent": round(55 + 0.5 * wave, 1), "free": 9 * 2**30},
        ]
        sample["pm2"] = [
            {
                "name": name,
                "status": "online",
                "pid": 100 + place,
                "restarts": 3,
                "job": False,
                "well": True,
                "memory": int((60 + 9 * place + 4 * wave) * MIB),
                "cpu": 1.0,
            }
            for place, name in enumerate(pm2)
        ]
        sample["queue"] = max(0, int(6 * wave))
        sample["probe"]["seconds"] = round(1.6 + 0.5 * wave + (4 if number % 97 == 96 else 0), 2)
        taken = int(40 + 25 * wave)
        for leg in ("sentry", "glitchtip"):
            sample["mirror"][leg] = {"sent": taken, "ok": taken, "failed": 0}
        yield sample
