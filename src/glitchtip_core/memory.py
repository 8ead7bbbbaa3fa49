"""Memory that the host really has: meminfo, and the limit of every control group above us (a container's, mostly)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .cgroups import directories, directory_of, read_number, read_statistics, read_text
from .errors import CoreError

#: Version 1 writes "no limit" as 2^63 rounded down to a page.
UNLIMITED_V1 = 1 << 62


@dataclass(frozen=True)
class Memory:
    """Bytes; ``source`` names the tighter bound: ``meminfo`` or ``cgroup``."""

    total: int
    used: int
    source: str

    @property
    def percent(self) -> float:
        """Used share, 0 to 100, one decimal."""
        return round(100.0 * self.used / self.total, 1) if self.total else 100.0


@dataclass(frozen=True)
class GroupMemory:
    """What a control group says of its memory, in bytes; None where there is no limit or no figure."""

    limit: int | None
    usage: int | None
    inactive: int = 0
    active: int = 0
    reclaimable: int = 0

    @property
    def without_inactive(self) -> int | None:
        """Used, without the file pages that the kernel gives back first."""
        return None if self.usage is None else max(self.usage - self.inactive, 0)

    @property
    def without_cache(self) -> int | None:
        """Used, without all page cache and what else the kernel can give back."""
        return None if self.usage is None else max(self.usage - self.inactive - self.active - self.reclaimable, 0)


def parse_meminfo(text: str) -> dict[str, int]:
    """The fields of ``/proc/meminfo`` in bytes (the file counts in KiB)."""
    fields = {}
    for line in text.splitlines():
        match = re.match(r"^(\S+):\s+(\d+)(\s+kB)?$", line)
        if match:
            fields[match[1]] = int(match[2]) * (1024 if match[3] else 1)
    return fields


def read_meminfo(root: Path = Path("/")) -> dict[str, int]:
    """The fields of this host's; empty where it cannot be read."""
    return parse_meminfo(read_text(root / "proc" / "meminfo"))


def read_group(directory: Path) -> GroupMemory:
    """What the control group in ``directory`` says, of either version."""
    statistics = read_statistics(directory / "memory.stat")
    usage = read_number(directory / "memory.current")
    if usage is not None or (directory / "memory.max").exists():
        return _group(read_number(directory / "memory.max"), usage, statistics, "")
    usage = read_number(directory / "memory.usage_in_bytes")
    limits = [
        read_number(directory / "memory.limit_in_bytes"),
        statistics.get("hierarchical_memory_limit"),
    ]
    known = [value for value in limits if value is not None and 0 <= value < UNLIMITED_V1]
    return _group(min(known) if known else None, usage, statistics, "total_")


def _group(limit: int | None, usage: int | None, statistics: Mapping[str, int], prefix: str) -> GroupMemory:
    return GroupMemory(
        limit,
        usage,
        inactive=statistics.get(f"{prefix}inactive_file", 0),
        active=statistics.get(f"{prefix}active_file", 0),
        reclaimable=statistics.get("slab_reclaimable", 0),
    )


def groups_of(root: Path, *, own_service: bool = True) -> list[Path]:
    """The control groups that may limit our memory, of either version, innermost first.

    ``own_service``: with that of the systemd service that we are, whose limit is none of the host's.
    """
    found: list[Path] = []
    for controller in ("memory", ""):
        listed = directories(root, controller)
        ours = bool(listed) and listed[0].name.endswith(".service")
        found += listed[1:] if ours and not own_service else listed
    return found


def read_memory(root: Path = Path("/")) -> Memory:
    """The fuller of the host and every limited control group above us, without that of our own service.

    Page cache counts as free in both: it is given up under pressure. Raises CoreError when meminfo cannot be read.
    """
    info = read_meminfo(root)
    if "MemTotal" not in info or "MemAvailable" not in info:
        raise CoreError("the memory of this host cannot be read from /proc/meminfo")
    total = info["MemTotal"]
    fullest = Memory(total, total - info["MemAvailable"], "meminfo")
    for directory in groups_of(root, own_service=False):
        group = read_group(directory)
        used = group.without_cache
        if group.limit is None or used is None or not 0 < group.limit < total:
            continue
        bound = Memory(group.limit, used, "cgroup")
        if bound.percent > fullest.percent:
            fullest = bound
    return fullest


def read_oom_kills(pid: int, root: Path = Path("/")) -> int | None:
    """Processes of the control group of ``pid`` that the kernel killed for lack of memory; None: not known.

    It counts from the start of the group, and children (a PostgreSQL backend) whose death the group survived.
    """
    for controller, name in (("memory", "memory.oom_control"), ("", "memory.events")):
        directory = directory_of(root, controller, str(pid))
        kills = None if directory is None else read_statistics(directory / name).get("oom_kill")
        if kills is not None:
            return kills
    return None
