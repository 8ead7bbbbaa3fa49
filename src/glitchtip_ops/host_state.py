"""What the host really has: memory (meminfo and the cgroup limit, the smaller), CPU, disk, PM2's processes."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from glitchtip_core.pm2 import Access, list_processes
from glitchtip_core.pm2_list import Pm2Entry, read_entries

from .process import OpsError


@dataclass(frozen=True)
class Memory:
    """Memory of the host in bytes; ``source`` names the tighter bound: ``meminfo`` or ``cgroup``."""

    total: int
    used: int
    source: str

    @property
    def percent(self) -> float:
        """Used share, 0 to 100, one decimal."""
        return round(100.0 * self.used / self.total, 1) if self.total else 100.0


def _numbers(text: str) -> dict[str, int]:
    """``name value`` lines (memory.stat) or ``Name: value kB`` lines (meminfo), as numbers."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        words = line.replace(":", " ").split()
        if len(words) >= 2 and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None


def _cgroup_directories(proc: Path, sys_fs: Path) -> list[tuple[Path, bool]]:
    """Our memory cgroup's directory and its ancestors', with a flag for version 2; not our own service's."""
    text = _read(proc / "self" / "cgroup") or ""
    result: list[tuple[Path, bool]] = []
    for line in text.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        second = controllers == ""
        if not second and "memory" not in controllers.split(","):
            continue
        base = sys_fs if second else sys_fs / "memory"
        parts = [part for part in path.split("/") if part not in ("", "..")]
        if parts and parts[-1].endswith(".service"):
            parts.pop()
        result += [(base.joinpath(*parts[:count]), second) for count in range(len(parts), -1, -1)]
    return result


def read_memory(proc: Path = Path("/proc"), sys_fs: Path = Path("/sys/fs/cgroup")) -> Memory:
    """The tightest of the host's meminfo and every cgroup limit above us (a container's limit, mostly).

    Page cache counts as free in both: it is given up under pressure. Raises OpsError without a meminfo.
    """
    info = _numbers(_read(proc / "meminfo") or "")
    if "MemTotal" not in info or "MemAvailable" not in info:
        raise OpsError("the memory of this host cannot be read from /proc/meminfo")
    total = info["MemTotal"] * 1024
    tightest = Memory(total, total - info["MemAvailable"] * 1024, "meminfo")
    for directory, second in _cgroup_directories(proc, sys_fs):
        limit = _read(directory / ("memory.max" if second else "memory.limit_in_bytes"))
        usage = _read(directory / ("memory.current" if second else "memory.usage_in_bytes"))
        if limit is None or usage is None or not limit.strip().isdigit() or not usage.strip().isdigit():
            continue
        if not 0 < int(limit) < total:
            continue
        stat = _numbers(_read(directory / "memory.stat") or "")
        prefix = "" if second else "total_"
        cache = sum(stat.get(f"{prefix}{kind}_file", 0) for kind in ("inactive", "active"))
        cache += stat.get("slab_reclaimable", 0)
        bound = Memory(int(limit), max(0, int(usage) - cache), "cgroup")
        if bound.percent > tightest.percent:
            tightest = bound
    return tightest


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
    stat = (_read(proc / "stat") or "").split("\n", 1)[0].split()
    load = (_read(proc / "loadavg") or "").split()
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
