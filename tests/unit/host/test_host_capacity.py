"""The host is measured as it really is: the smallest of meminfo and every control group above us."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import host_capacity as hc
import pytest

from glitchtip_core.cgroups import parse_mounts
from glitchtip_core.memory import UNLIMITED_V1

MIB = 1024 * 1024
MEMINFO = "MemTotal: 8192000 kB\nMemFree: 100 kB\nMemAvailable: 4096000 kB\nSwapFree: 1024 kB\nHugePages: 0\n"
MOUNTS_V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
MOUNTS_V1 = (
    "31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n"
    "35 31 0:32 {inside} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "36 31 0:33 {inside} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)


def tree(root: Path, **files: str) -> Path:
    """Write files given as path with ``__`` for the slash."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def group_v2(limit="max", used=0, inactive=0):
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{used}\n",
        "memory.stat": f"anon 1\ninactive_file {inactive}\n",
    }


def group_v1(limit=UNLIMITED_V1, used=0, inactive=0, hierarchical=None):
    own = f"hierarchical_memory_limit {hierarchical}\n" if hierarchical else ""
    return {
        "memory.limit_in_bytes": f"{limit}\n",
        "memory.usage_in_bytes": f"{used}\n",
        "memory.stat": f"cache 1\n{own}inactive_file 7\ntotal_inactive_file {inactive}\n",
    }


@pytest.fixture
def host(tmp_path):
    def make(mounts, own, groups, meminfo=MEMINFO):
        files = {"proc/meminfo": meminfo, "proc/self/cgroup": own, "proc/self/mountinfo": mounts}
        for directory, content in groups.items():
            files.update({f"sys/fs/cgroup{directory}/{name}": text for name, text in content.items()})
        return tree(tmp_path, **files)

    return make


def test_without_limits_meminfo_counts(host):
    root = host(MOUNTS_V2, "0::/user.slice\n", {"/user.slice": group_v2()})
    assert hc.measure_memory(root) == {
        "total_mib": 8000,
        "available_mib": 4000,
        "swap_free_mib": 1,
        "limited_by": "meminfo",
    }


def test_version_2_a_limit_of_an_ancestor_counts(host):
    groups = {
        "/box": group_v2(limit=1900 * MIB, used=1500 * MIB, inactive=300 * MIB),
        "/box/user.slice": group_v2(used=20 * MIB),
    }
    measured = hc.measure_memory(host(MOUNTS_V2, "0::/box/user.slice/session-1.scope\n", groups))
    assert measured["total_mib"] == 1900
    assert measured["available_mib"] == 1900 - (1500 - 300)
    assert measured["limited_by"] == "/sys/fs/cgroup/box"


def test_version_2_in_a_namespace_of_its_own_the_mount_itself_is_the_limit(host):
    groups = {"": group_v2(limit=512 * MIB, used=100 * MIB)}
    assert hc.measure_memory(host(MOUNTS_V2, "0::/\n", groups))["available_mib"] == 412


def test_version_2_a_path_outside_the_namespace_ends_at_the_mount(host):
    groups = {"": group_v2(limit=512 * MIB, used=100 * MIB)}
    assert hc.measure_memory(host(MOUNTS_V2, "0::/../../elsewhere\n", groups))["available_mib"] == 412


def test_version_1_the_tightest_of_all_ancestors_wins(host):
    groups = {
        "/memory": group_v1(used=7000 * MIB),
        "/memory/docker": group_v1(limit=3000 * MIB, used=2900 * MIB),
        "/memory/docker/abc": group_v1(limit=1900 * MIB, used=1000 * MIB, inactive=600 * MIB),
    }
    root = host(MOUNTS_V1.format(inside="/"), "4:memory:/docker/abc\n0::/\n", groups)
    measured = hc.measure_memory(root)
    assert measured["total_mib"] == 1900
    assert measured["available_mib"] == 100
    assert measured["limited_by"] == "/sys/fs/cgroup/memory/docker"


def test_version_1_a_container_sees_its_group_as_the_mount(host):
    groups = {"/memory": group_v1(limit=1900 * MIB, used=900 * MIB)}
    root = host(MOUNTS_V1.format(inside="/docker/abc"), "4:memory:/docker/abc\n", groups)
    assert hc.measure_memory(root)["available_mib"] == 1000
    # another group that only begins with the same letters is not inside the mount
    tree(root, **{"proc/self/cgroup": "4:memory:/docker/abcdef\n"})
    assert hc.measure_memory(root)["available_mib"] == 1000


def test_version_1_a_limit_above_what_is_visible_shows_in_the_statistics(host):
    groups = {"/memory": group_v1(used=100 * MIB, hierarchical=400 * MIB)}
    root = host(MOUNTS_V1.format(inside="/docker/abc"), "4:memory:/docker/abc\n", groups)
    assert hc.measure_memory(root)["total_mib"] == 400


def test_more_used_than_allowed_is_nothing_left(host):
    root = host(MOUNTS_V2, "0::/\n", {"": group_v2(limit=100 * MIB, used=150 * MIB)})
    assert hc.measure_memory(root)["available_mib"] == 0


def test_a_generous_group_does_not_add_memory(host):
    root = host(MOUNTS_V2, "0::/\n", {"": group_v2(limit=64000 * MIB)})
    assert hc.measure_memory(root)["total_mib"] == 8000
    assert hc.measure_memory(root)["available_mib"] == 4000


@pytest.mark.parametrize(
    ("mounts", "own", "groups", "effective"),
    [
        (MOUNTS_V2, "0::/a\n", {"/a": {"cpu.max": "max 100000\n"}}, 4.0),
        (MOUNTS_V2, "0::/a\n", {"/a": {"cpu.max": "150000 100000\n"}}, 1.5),
        (
            MOUNTS_V1.format(inside="/"),
            "5:cpu,cpuacct:/a/b\n",
            {
                "/cpu,cpuacct/a": {"cpu.cfs_quota_us": "100000\n", "cpu.cfs_period_us": "100000\n"},
                "/cpu,cpuacct/a/b": {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"},
            },
            1.0,
        ),
    ],
)
def test_a_quota_takes_processors_away(host, mounts, own, groups, effective):
    assert hc.measure_cpus(host(mounts, own, groups), count=4) == {"count": 4, "effective": effective}


def test_mount_points_with_blanks_are_read():
    line = r"30 23 0:26 / /odd\040place rw - cgroup2 cgroup2 rw"
    assert parse_mounts(line) == {"": ("/", "/odd place")}


def test_this_machine_can_be_measured():
    memory = hc.measure_memory()
    assert 0 < memory["available_mib"] <= memory["total_mib"]
    assert 0 < hc.measure_cpus()["effective"] <= (os.cpu_count() or 1)


def test_disk_of_a_path_that_is_not_there_yet_is_that_of_its_parent(tmp_path):
    disk = hc.measure_disk(str(tmp_path / "not" / "yet"))
    assert disk["measured"] == str(tmp_path)
    assert 0 < disk["free_mib"] <= disk["total_mib"]


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("0100007F:1F90", "127.0.0.1", 8080),
        ("00000000:0016", "0.0.0.0", 22),
        ("00000000000000000000000000000000:1F90", "::", 8080),
        ("00000000000000000000000001000000:1F90", "::1", 8080),
    ],
)
@pytest.mark.skipif(sys.byteorder != "little", reason="the samples come from a little-endian machine")
def test_addresses_are_decoded(text, address, port):
    assert hc.decode_address(text) == (address, port)


@pytest.mark.parametrize(
    ("listening", "wanted", "answer"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "127.0.0.1", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("192.0.2.1", "127.0.0.1", False),
        ("::1", "127.0.0.1", False),
        ("192.0.2.1", "0.0.0.0", True),
        ("::1", "0.0.0.0", False),
    ],
)
def test_only_listeners_that_stand_in_the_way_conflict(listening, wanted, answer):
    assert hc.conflicts(listening, wanted) is answer


def test_the_holder_of_a_port_is_found(run_host_module):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        bound_only = run_host_module("host_capacity", ports=[port])["ports"][0]
        server.listen()
        held = run_host_module("host_capacity", ports=[port])["ports"][0]
    assert bound_only["free"] is True
    assert held["free"] is False
    assert held["own"] is False
    assert os.getpid() in [holder["pid"] for holder in held["listeners"][0]["holders"]]
    assert f"(pid {os.getpid()}, user " in held["held_by"]
    assert run_host_module("host_capacity", ports=[port])["ports"][0]["free"] is True


def listener(process="docker-proxy", containers=(), conflicts=True):
    return {
        "address": "127.0.0.1",
        "conflicts": conflicts,
        "holders": [{"pid": 7, "process": process, "user": "root"}] if process else [],
        "containers": [{"name": name, "project": project} for name, project in containers],
    }


def test_a_port_that_our_own_stack_publishes_is_ours():
    verdict = hc.judge_port(8080, [listener(containers=[("glitchtip-web-1", "glitchtip")])], "glitchtip")
    assert (verdict["free"], verdict["own"]) == (False, True)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (listener(containers=[("other-web-1", "other")]), "container other-web-1 (project other)"),
        (listener(containers=[("lonely", "")]), "container lonely"),
        (listener(process="python3"), "python3 (pid 7, user root)"),
        (listener(process=None), "a process that cannot be seen from here"),
    ],
)
def test_a_port_of_somebody_else_is_not_ours_and_says_whose(entry, words):
    verdict = hc.judge_port(8080, [entry], "glitchtip")
    assert (verdict["free"], verdict["own"], verdict["held_by"]) == (False, False, words)


def test_no_container_is_ours_without_a_project_of_our_own():
    assert hc.judge_port(8080, [listener(containers=[("lonely", "")])], "")["own"] is False


def test_a_listener_elsewhere_leaves_the_port_free():
    assert hc.judge_port(8080, [listener(process="python3", conflicts=False)], "glitchtip")["free"] is True


def test_arguments_of_the_holder_are_not_told(tmp_path):
    files = {"77/comm": "python3\n", "77/cmdline": "python3\0--password\0hunter2\0"}
    told = hc.describe_process(tree(tmp_path, **files) / "77")
    assert told == {"pid": 77, "process": "python3", "user": hc.user_name(os.getuid())}


def test_a_name_that_the_kernel_cut_is_completed(tmp_path):
    files = {"78/comm": "a-very-long-pro\n", "78/cmdline": "/usr/bin/a-very-long-program\0-x\0"}
    assert hc.describe_process(tree(tmp_path, **files) / "78")["process"] == "a-very-long-program"


def fake_docker(tmp_path, body):
    script = tmp_path / "docker"
    script.write_text("#!/bin/sh\n" + body)
    script.chmod(0o755)
    return str(script)


def test_containers_of_our_project_are_counted_and_weighed(tmp_path, host):
    root = host(MOUNTS_V2, "0::/\n", {"/docker/c1": group_v2(used=120 * MIB, inactive=20 * MIB)})
    tree(root, **{"proc/4711/cgroup": "0::/docker/c1\n"})
    docker = fake_docker(
        tmp_path, 'case "$1" in ps) printf "glitchtip-web-1\\tglitchtip\\n";; inspect) echo 4711;; esac\n'
    )
    measured = hc.measure_compose([docker], "glitchtip", root)
    assert measured == {"project": "glitchtip", "containers": ["glitchtip-web-1"], "memory_mib": 100}


def test_a_container_without_a_group_of_its_own_does_not_count_as_the_whole_machine(tmp_path, host):
    root = host(MOUNTS_V2, "0::/\n", {"": group_v2(used=3000 * MIB)})
    tree(root, **{"proc/4711/cgroup": "0::/\n"})
    docker = fake_docker(tmp_path, 'case "$1" in ps) printf "a\\tglitchtip\\n";; inspect) echo 4711;; esac\n')
    assert hc.measure_compose([docker], "glitchtip", root)["memory_mib"] == 0


@pytest.mark.parametrize("body", ["exit 1\n", None])
def test_no_engine_means_no_containers(tmp_path, run_host_module, body):
    docker = fake_docker(tmp_path, body) if body else str(tmp_path / "missing")
    assert run_host_module("host_capacity", compose_project="glitchtip", docker=docker)["compose"] == {
        "project": "glitchtip",
        "containers": [],
        "memory_mib": 0,
    }


def test_the_release_is_read_with_its_quotes():
    text = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_ID="13"\nID=debian\n# x\n'
    assert hc.parse_os_release(text) == {
        "id": "debian",
        "version_id": "13",
        "codename": "",
        "name": "Debian GNU/Linux 13 (trixie)",
    }


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ports": [70000]}, "70000 is not a TCP port (1 to 65535)."),
        ({"bind_address": "here"}, "bind_address must be an IP address, not 'here'."),
    ],
)
def test_bad_options_get_a_sentence(run_host_module, options, sentence):
    result = run_host_module("host_capacity", **options)
    assert (result["failed"], result["msg"]) == (True, sentence)
