"""Memory that the host really has: meminfo, and the limit of every cgroup above us (a container's, mostly)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import CutoverError


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


def _numbers(text: str) -> dict[str, int]:
    """``name value`` lines (memory.stat) or ``Name: value kB`` lines (meminfo)."""
    rows = (line.replace(":", " ").split() for line in text.splitlines())
    return {words[0]: int(words[1]) for words in rows if len(words) >= 2 and words[1].isdigit()}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _cgroups(proc: Path, sys_fs: Path) -> list[tuple[Path, bool]]:
    """Our memory cgroup's directory and its ancestors', with a flag for version 2; not our own unit's."""
    found: list[tuple[Path, bool]] = []
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        second = controllers == ""
        if not second and "memory" not in controllers.split(","):
            continue
        base = sys_fs if second else sys_fs / "memory"
        parts = [part for part in path.split("/") if part not in ("", "..")]
        if parts and parts[-1].endswith(".service"):
            parts.pop()
        found += [(base.joinpath(*parts[:count]), second) for count in range(len(parts), -1, -1)]
    return found


def read_memory(proc: Path = Path("/proc"), sys_fs: Path = Path("/sys/fs/cgroup")) -> Memory:
    """The fuller of the host and every limited cgroup above us. Page cache counts as free in both.

    Raises CutoverError when meminfo cannot be read.
    """
    info = _numbers(_read(proc / "meminfo"))
    if "MemTotal" not in info or "MemAvailable" not in info:
        raise CutoverError("the memory of this host cannot be read from /proc/meminfo")
    total = info["MemTotal"] * 1024
    fullest = Memory(total, total - info["MemAvailable"] * 1024, "meminfo")
    for directory, second in _cgroups(proc, sys_fs):
        limit = _read(directory / ("memory.max" if second else "memory.limit_in_bytes")).strip()
        usage = _read(directory / ("memory.current" if second else "memory.usage_in_bytes")).strip()
        if not (limit.isdigit() and usage.isdigit() and 0 < int(limit) < total):
            continue
        stat = _numbers(_read(directory / "memory.stat"))
        prefix = "" if second else "total_"
        cache = sum(stat.get(f"{prefix}{kind}_file", 0) for kind in ("inactive", "active"))
        bound = Memory(int(limit), max(0, int(usage) - cache - stat.get("slab_reclaimable", 0)), "cgroup")
        if bound.percent > fullest.percent:
            fullest = bound
    return fullest
