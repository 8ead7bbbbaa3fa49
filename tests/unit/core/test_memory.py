"""Memory is what the host really has: meminfo, or the tighter limit of a control group above us, of either version."""

from __future__ import annotations

from pathlib import Path

import pytest

from glitchtip_core.errors import CoreError
from glitchtip_core.memory import Memory, read_memory, read_oom_kills

MIB = 2**20
MEMINFO = "MemTotal: 4096000 kB\nMemFree: 100 kB\nMemAvailable: 3072000 kB\nBuffers: 5 kB\n"


def host(root: Path, cgroup: str, files: dict[str, str]) -> Memory:
    proc, sys_fs = root / "proc", root / "sys/fs/cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(MEMINFO)
    (proc / "self" / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = sys_fs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_memory(root)


def test_without_limits_meminfo_counts(tmp_path: Path) -> None:
    memory = host(tmp_path, "0::/\n", {"memory.max": "max\n", "memory.current": "1\n"})
    assert (memory.source, memory.percent, memory.total) == ("meminfo", 25.0, 4096000 * 1024)


def test_the_limit_of_a_container_counts_when_it_is_tighter_v2(tmp_path: Path) -> None:
    files = {
        "memory.max": str(1000 * MIB),
        "memory.current": str(900 * MIB),
        "memory.stat": f"inactive_file {100 * MIB}\nactive_file {150 * MIB}\nslab_reclaimable {50 * MIB}\n",
    }
    memory = host(tmp_path, "0::/\n", files)
    assert (memory.source, memory.percent, memory.total) == ("cgroup", 60.0, 1000 * MIB)


def test_the_limit_of_an_ancestor_counts_v1(tmp_path: Path) -> None:
    path = "memory/docker/abc"
    files = {
        f"{path}/memory.limit_in_bytes": str(2000 * MIB),
        f"{path}/memory.usage_in_bytes": str(1500 * MIB),
        f"{path}/memory.stat": f"inactive_file 1\ntotal_inactive_file {300 * MIB}\n",
        f"{path}/system.slice/glitchtip-soak.service/memory.limit_in_bytes": str(10 * MIB),
        f"{path}/system.slice/glitchtip-soak.service/memory.usage_in_bytes": str(10 * MIB),
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "memory/memory.usage_in_bytes": "5",
    }
    cgroup = (
        "11:cpu:/docker/abc\n4:memory:/docker/abc/system.slice/glitchtip-soak.service\n1:name=systemd:/x\n"
    )
    memory = host(tmp_path, cgroup, files)
    assert (memory.source, memory.percent) == ("cgroup", 60.0)


def test_a_limit_with_room_does_not_hide_a_full_host(tmp_path: Path) -> None:
    memory = host(tmp_path, "0::/\n", {"memory.max": str(1000 * MIB), "memory.current": str(10 * MIB)})
    assert memory.source == "meminfo"


def test_an_unreadable_meminfo_is_said(tmp_path: Path) -> None:
    with pytest.raises(CoreError, match="cannot be read from /proc/meminfo"):
        read_memory(tmp_path)


def test_memory_is_that_of_the_tightest_limit(tmp_path: Path) -> None:
    proc, sys_fs = tmp_path / "proc", tmp_path / "sys/fs/cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n")
    (proc / "self" / "cgroup").write_text("0::/system.slice/ai-admin-cutover-watch.service\n")
    assert read_memory(tmp_path) == Memory(8 * 1024**3, 4 * 1024**3, "meminfo")
    sys_fs.mkdir(parents=True)
    (sys_fs / "memory.max").write_text("2147483648\n")
    (sys_fs / "memory.current").write_text("2040109466\n")
    (sys_fs / "memory.stat").write_text("inactive_file 100000000\nactive_file 0\n")
    memory = read_memory(tmp_path)
    assert (memory.total, memory.source, memory.percent) == (2147483648, "cgroup", 90.3)


def _cgroup(root: Path, lines: str, files: dict[str, str]) -> None:
    (root / "proc/7").mkdir(parents=True)
    (root / "proc/7/cgroup").write_text(lines)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("lines", "files", "kills"),
    [
        ("0::/docker/c1\n", {"docker/c1/memory.events": "low 0\noom 9\noom_kill 3\n"}, 3),
        (
            "4:cpu:/c1\n3:memory:/c1\n0::/c1\n",
            {"memory/c1/memory.oom_control": "under_oom 0\noom_kill 2\n"},
            2,
        ),
        ("0::/c1\n3:memory:/c1\n", {"memory/c1/memory.oom_control": "oom_kill 2\n"}, 2),
        ("0::/gone\n", {}, None),
        ("0::/docker/gone\n", {"docker/memory.events": "oom_kill 5\n"}, None),
        ("0::/c1\n", {"c1/memory.events": "low 0\n"}, None),
        ("nonsense\n", {}, None),
    ],
)
def test_out_of_memory_kills_are_read_from_the_cgroup(
    tmp_path: Path, lines: str, files: dict[str, str], kills: int | None
) -> None:
    _cgroup(tmp_path, lines, files)
    assert read_oom_kills(7, tmp_path) == kills
    assert read_oom_kills(0, tmp_path) is None
