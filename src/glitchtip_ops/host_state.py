"""What the host really has beside memory: CPU, disk, PM2's processes."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from glitchtip_core.cgroups import read_text
from glitchtip_core.pm2 import Access, list_processes
from glitchtip_core.pm2_list import Pm2Entry, read_entries

from .process import OpsError


@dataclass(frozen=True)
class Cpu:
    """All cores together: ticks since boot (time stolen by the hypervisor counts as busy), load averages."""

    busy: int
    total: int
    cores: int
    load1: float
    load5: float

    def percent_since(self, busy: int, total: int) -> float | None:
        """Busy share since an earlier reading, 0 to 100; None when the host was started in between."""
        passed = self.total - total
        if passed <= 0 or self.busy < busy:
            return None
        return round(100.0 * (self.busy - busy) / passed, 1)


def read_cpu(proc: Path = Path("/proc")) -> Cpu:
    """Ticks of /proc/stat and the load. Raises OpsError when they cannot be read."""
    stat = read_text(proc / "stat").split("\n", 1)[0].split()
    load = read_text(proc / "loadavg").split()
    try:
        # user nice system idle iowait irq softirq steal; guest time is in user already (proc(5))
        ticks = [int(word) for word in stat[1:9]]
        idle = ticks[3] + ticks[4]
        averages = float(load[0]), float(load[1])
    except (ValueError, IndexError):
        raise OpsError("the CPU time of this host cannot be read from /proc/stat and /proc/loadavg") from None
    return Cpu(sum(ticks) - idle, sum(ticks), max(1, len(os.sched_getaffinity(0))), *averages)


@dataclass(frozen=True)
class Disk:
    """A file system in bytes; ``free`` is what an ordinary process may still take."""

    path: str
    total: int
    free: int

    @property
    def percent(self) -> float:
        """Used share as ``df`` counts it, 0 to 100, one decimal."""
        return round(100.0 * (self.total - self.free) / self.total, 1) if self.total else 100.0


def read_disk(path: Path) -> Disk:
    """The file system that holds ``path``, or its nearest existing parent."""
    there = next(candidate for candidate in (path, *path.parents) if candidate.exists())
    usage = shutil.disk_usage(there)
    return Disk(str(there), usage.total, usage.free)


@dataclass(frozen=True)
class Pm2Process:
    """One entry of PM2's list. ``job``: ``cron_restart`` with ``autorestart: false``, stopped in between.

    ``memory`` in bytes and ``cpu`` in percent of one core, as PM2 measured them last.
    """

    name: str
    status: str
    pid: int
    restarts: int
    job: bool
    memory: int = 0
    cpu: float = 0.0

    @property
    def well(self) -> bool:
        """Online, or a job between two runs."""
        if self.job and self.status in ("stopped", "online"):
            return True
        return self.status == "online" and self.pid > 0


def parse_pm2_list(text: str) -> list[Pm2Process]:
    """The output of ``pm2 jlist``; PM2 may print notices before it. Environments in it are dropped.

    Raises OpsError when there is no JSON list.
    """
    return [_pm2_process(entry) for entry in read_entries(text)]


def _pm2_process(entry: Pm2Entry) -> Pm2Process:
    return Pm2Process(
        memory=entry.memory,
        cpu=entry.cpu,
        name=entry.name,
        status=entry.status,
        pid=entry.pid,
        restarts=entry.restarts,
        job=entry.job,
    )


def read_pm2(user: str, home: str, binary: str, node: str) -> list[Pm2Process]:
    """PM2's processes, asked as its own user and only when its daemon answers (a call would start one).

    An empty ``home`` or ``node`` is derived. Raises OpsError when the daemon does not answer or the list cannot be read.
    """
    return [_pm2_process(entry) for entry in list_processes(Access.of(user, home, binary, node))]
