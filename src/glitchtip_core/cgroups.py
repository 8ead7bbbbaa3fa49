"""Control groups of a process, of version 1 and 2: which it is in, where they are mounted, what their files say.

Sources: cgroups(7), proc(5), and the kernel's documents ``cgroup-v2`` and ``cgroup-v1/memory``.
"""

from __future__ import annotations

import re
from pathlib import Path

_DEFAULT = "sys/fs/cgroup"


def kernel_text(path: Path) -> str:
    """A file of the kernel's. Raises OSError.

    Only a line feed ends a line there, and only that is escaped in names that users choose (processes, control groups,
    directories). ``read_text`` and ``splitlines`` would also split at other characters of such a name.
    """
    return path.read_bytes().decode("utf-8", "replace")


def read_text(path: Path) -> str:
    """A small text file of the kernel's, or nothing where it cannot be read."""
    try:
        return kernel_text(path)
    except OSError:
        return ""


def read_number(path: Path) -> int | None:
    """The number in a file of one value; ``max``, an empty and a missing file are no number."""
    text = read_text(path).strip()
    return int(text) if re.fullmatch(r"-?[0-9]+", text) else None


def read_statistics(path: Path) -> dict[str, int]:
    """The numbers of a file of lines ``name number``."""
    rows = (line.split() for line in read_text(path).splitlines())
    return {words[0]: int(words[1]) for words in rows if len(words) == 2 and words[1].isdigit()}


def text_of(process: Path) -> str:
    """The list of control groups of the process in ``/proc/PID``. Raises OSError when it has ended."""
    return kernel_text(process / "cgroup")


def parse_own(text: str) -> dict[str, str]:
    """Controller -> path, of ``/proc/PID/cgroup``; version 2 has the empty controller."""
    paths = {}
    for line in text.split("\n"):
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                paths[controller] = parts[2]
    return paths


def parse_mounts(text: str) -> dict[str, tuple[str, str]]:
    """Controller -> (root inside the hierarchy, mount point), of ``/proc/PID/mountinfo``."""
    mounts: dict[str, tuple[str, str]] = {}
    for line in text.split("\n"):
        left, separator, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if not separator or len(fields) < 5 or len(kind) < 3:
            continue
        place = (_unescape(fields[3]), _unescape(fields[4]))
        if kind[0] == "cgroup2":
            mounts.setdefault("", place)
        elif kind[0] == "cgroup":
            for option in kind[2].split(","):
                mounts.setdefault(option, place)
    return mounts


def _unescape(text: str) -> str:
    """Undo the octal escapes (blank, tab, newline, backslash) of mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def directories(root: Path, controller: str, pid: str = "self") -> list[Path]:
    """The control group of a process and its ancestors as far as they can be seen, innermost first.

    ``root``: where ``proc`` and the mounts are, ``/`` on a real host. A container sees its own group mounted as the whole
    hierarchy: then the path in ``/proc/self/cgroup`` has the mount's root in front, or does not exist below the mount; both
    end at the mount point. Without a list of mounts they are looked for where systemd puts them.
    """
    own = parse_own(read_text(root / "proc" / pid / "cgroup"))
    listed = read_text(root / "proc" / "self" / "mountinfo")
    mounts = parse_mounts(listed) if listed else {name: ("/", f"{_DEFAULT}/{name}") for name in own}
    if controller not in own or controller not in mounts:
        return []
    inside, point = mounts[controller]
    top = root / point.lstrip("/")
    path = own[controller]
    inside = inside.rstrip("/")
    if inside and (path == inside or path.startswith(inside + "/")):
        path = path[len(inside) :]
    names = [name for name in path.split("/") if name]
    if ".." in names:
        names = []
    while names and not top.joinpath(*names).is_dir():
        names.pop()
    return [top.joinpath(*names[:depth]) for depth in range(len(names), -1, -1)]


def directory_of(root: Path, controller: str, pid: str) -> Path | None:
    """The control group of a process; None where it cannot be seen from here."""
    path = parse_own(read_text(root / "proc" / pid / "cgroup")).get(controller, "")
    found = directories(root, controller, pid)
    return found[0] if found and path.rpartition("/")[2] in ("", found[0].name) else None


def is_in_unit(text: str, unit: str) -> bool:
    """Whether ``/proc/PID/cgroup`` says that a process belongs to that unit of the system's own manager.

    A user's manager has units of any name, below ``user.slice``.
    """
    own = parse_own(text)
    for controller in ("", "name=systemd"):
        parts = own.get(controller, "").split("/")
        if parts[-2:] == ["system.slice", unit] and "user.slice" not in parts:
            return True
    return False


def processor_quota(directory: Path) -> float | None:
    """How many processors' time a control group may take; None where it has no limit."""
    quota, period = read_number(directory / "cpu.cfs_quota_us"), read_number(directory / "cpu.cfs_period_us")
    unified = read_text(directory / "cpu.max").split()
    if len(unified) == 2 and unified[0].isdigit():
        quota, period = int(unified[0]), int(unified[1])
    return quota / period if quota is not None and period and quota > 0 else None
