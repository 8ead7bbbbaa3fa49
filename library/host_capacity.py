#!/usr/bin/python
"""What a host can really take: memory, disk, processors, ports and who it is."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_capacity
short_description: Measure what a host can really take
description:
  - Reads memory from C(/proc/meminfo) and from the memory control groups (version 1 and 2) of the calling
    process and of all its ancestors; the smallest value wins, because there the kernel starts to kill.
  - Reads free disk space, processors with their quota, listening TCP ports with their holders, the release
    and the identity of the host.
  - Changes nothing and needs nothing but the standard library of the system's Python.
options:
  paths:
    description: Paths whose file systems are measured; where a path is missing, its nearest parent.
    type: list
    elements: path
    default: []
  ports:
    description: TCP ports whose listeners are looked up.
    type: list
    elements: int
    default: []
  bind_address:
    description: Address on which the ports are wanted; decides which listeners stand in the way.
    type: str
    default: 127.0.0.1
  compose_project:
    description:
      - Compose project of our own. Its running containers are counted and weighed, and a port that one of
        them publishes is marked as our own.
      - The empty string switches this off.
    type: str
    default: ""
  docker:
    description: Command of the Docker client; one that is missing or gets no answer means no containers.
    type: str
    default: docker
attributes:
  check_mode:
    description: Runs the same, because it only reads.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
author:
  - The maintainers of this repository (@maintainers)
"""

EXAMPLES = r"""
- name: Measure the host
  host_capacity:
    paths: [/var/lib, /opt]
    ports: [8080]
    compose_project: glitchtip
  register: capacity
"""

RETURN = r"""
memory:
  description:
    - C(total_mib), C(available_mib) and C(swap_free_mib), the smaller of meminfo and control groups.
    - C(limited_by) is C(meminfo) or the directory of the control group that has the least to give.
  returned: always
  type: dict
  sample: {total_mib: 1946, available_mib: 912, swap_free_mib: 0, limited_by: /sys/fs/cgroup}
disks:
  description: For each path C(path), C(measured) (the nearest existing parent), C(total_mib), C(free_mib).
  returned: always
  type: list
  elements: dict
  sample: [{path: /var/lib, measured: /var/lib, total_mib: 30000, free_mib: 21000}]
cpus:
  description: Processors that may be used, C(count) by affinity and C(effective) with the quota.
  returned: always
  type: dict
  sample: {count: 2, effective: 1.0}
ports:
  description:
    - For each asked port C(port), C(free), C(own) (held by C(compose_project)), C(held_by) (in words) and
      C(listeners), each with C(address), C(conflicts), C(holders) (C(pid), C(process), C(user)) and
      C(containers) (C(name), C(project)).
  returned: always
  type: list
  elements: dict
compose:
  description: C(project), C(containers) (names of those that run) and C(memory_mib) that they use together.
  returned: always
  type: dict
  sample: {project: glitchtip, containers: [glitchtip-web-1], memory_mib: 120}
os:
  description: C(id), C(version_id), C(codename), C(name), C(kernel), C(architecture), C(python).
  returned: always
  type: dict
identity:
  description: C(hostname), C(machine_id).
  returned: always
  type: dict
"""

import ipaddress
import os
import platform
import pwd
import re
import shlex
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.glitchtip_core.cgroups import directories, processor_quota, read_text
from ansible.module_utils.glitchtip_core.memory import groups_of, read_group, read_meminfo
from ansible.module_utils.glitchtip_core.text import printable_module

MIB = 1024 * 1024
LISTEN = "0A"  # state of a listening socket in /proc/net/tcp


def measure_memory(root: Path = Path("/")) -> dict[str, Any]:
    """Return total, available and swap in MiB: the smallest of meminfo and each control group above us."""
    info = read_meminfo(root)
    total = info.get("MemTotal", 0)
    fallback = info.get("MemFree", 0) + info.get("Buffers", 0) + info.get("Cached", 0)
    available, limited_by = info.get("MemAvailable", fallback), "meminfo"
    for directory in groups_of(root):
        group = read_group(directory)
        limit, used = group.limit, group.without_inactive
        if limit is None:
            continue
        total = min(total, limit)
        if used is not None and max(limit - used, 0) < available:
            available = max(limit - used, 0)
            limited_by = "/" + str(directory.relative_to(root))
    return {
        "total_mib": total // MIB,
        "available_mib": available // MIB,
        "swap_free_mib": info.get("SwapFree", 0) // MIB,
        "limited_by": limited_by,
    }


def measure_cpus(root: Path = Path("/"), count: int | None = None) -> dict[str, Any]:
    """Return the processors of this process' affinity and what the control groups' quotas leave of them."""
    if count is None:
        count = len(os.sched_getaffinity(0))
    effective = float(count)
    for controller in ("cpu", ""):
        for directory in directories(root, controller):
            effective = min(effective, processor_quota(directory) or effective)
    return {"count": count, "effective": round(effective, 2)}


def nearest_existing(path: str) -> str:
    """Return the path itself or its nearest parent that exists."""
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return str(place)


def measure_disk(path: str) -> dict[str, Any]:
    """Return size and space free for ordinary users of the file system that holds, or would hold, a path."""
    measured = nearest_existing(path)
    state = os.statvfs(measured)
    return {
        "path": path,
        "measured": measured,
        "total_mib": state.f_blocks * state.f_frsize // MIB,
        "free_mib": state.f_bavail * state.f_frsize // MIB,
    }


def decode_address(text: str) -> tuple[str, int]:
    """Return address and port of a field of ``/proc/net/tcp[6]`` (words in the machine's byte order)."""
    host, _, port = text.partition(":")
    words = [int(host[start : start + 8], 16) for start in range(0, len(host), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return str(ipaddress.ip_address(packed)), int(port, 16)


def parse_listeners(text: str) -> list[dict[str, Any]]:
    """Return address, port and inode of each listening socket of ``/proc/net/tcp`` or ``tcp6``."""
    listeners = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == LISTEN:
            address, port = decode_address(fields[1])
            listeners.append({"address": address, "port": port, "inode": int(fields[9])})
    return listeners


def conflicts(listening: str, wanted: str) -> bool:
    """Tell whether a listener on one address keeps another from binding the wanted one.

    The IPv6 wildcard counts as taking IPv4 as well, which is Linux' default (``net.ipv6.bindv6only = 0``).
    """
    taken, asked = ipaddress.ip_address(listening), ipaddress.ip_address(wanted)
    mapped = getattr(taken, "ipv4_mapped", None)
    if mapped is not None:
        taken = mapped
    wildcard = ipaddress.ip_address("::")
    if wildcard in (taken, asked) or taken == asked:
        return True
    return taken.version == asked.version and (taken.is_unspecified or asked.is_unspecified)


def holders_of(inodes: set[int], root: Path = Path("/")) -> dict[int, list[dict[str, Any]]]:
    """Return inode -> processes (pid, name, user) that have one of these sockets open."""
    found: dict[int, list[dict[str, Any]]] = {}
    for process in sorted((root / "proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        seen: set[int] = set()
        try:
            descriptors = list((process / "fd").iterdir())
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                target = os.readlink(str(descriptor))
            except OSError:
                continue
            match = re.match(r"^socket:\[(\d+)\]$", target)
            if match and int(match.group(1)) in inodes - seen:
                seen.add(int(match.group(1)))
        for inode in seen:
            found.setdefault(inode, []).append(describe_process(process))
    return found


def describe_process(process: Path) -> dict[str, Any]:
    """Return pid, name and user of a process; its arguments are left out, they may hold secrets."""
    name = read_text(process / "comm").strip()
    arguments = [word for word in read_text(process / "cmdline").split("\0") if word]
    if arguments and len(name) == 15:  # the kernel cuts names at 15 characters
        full = os.path.basename(arguments[0].split(" ")[0])
        name = full if full.startswith(name) else name
    try:
        user = user_name(process.stat().st_uid)
    except OSError:
        user = "?"
    return {"pid": int(process.name), "process": name or "?", "user": user}


def user_name(uid: int) -> str:
    """Return the name of a user id, or the id itself where no user has it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def run_docker(command: list[str], *arguments: str) -> str:
    """Return what the Docker client prints, nothing where there is no client or no engine answers."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


CONTAINER_FORMAT = '{{.Names}}\t{{.Label "com.docker.compose.project"}}'


def parse_containers(text: str) -> list[dict[str, str]]:
    """Return name and Compose project of each line that ``docker ps`` printed in our format."""
    containers = []
    for line in text.splitlines():
        name, _, project = line.partition("\t")
        if name:
            containers.append({"name": name, "project": project.strip()})
    return containers


def measure_compose(docker: list[str], project: str, root: Path = Path("/")) -> dict[str, Any]:
    """Return the running containers of a Compose project and the memory that their control groups use."""
    names: list[str] = []
    used = 0
    if project:
        label = "label=com.docker.compose.project=" + project
        listed = run_docker(docker, "ps", "--filter", label, "--format", CONTAINER_FORMAT)
        names = sorted(container["name"] for container in parse_containers(listed))
    if names:
        for pid in run_docker(docker, "inspect", "--format", "{{.State.Pid}}", *names).split():
            groups = directories(root, "memory", pid) or directories(root, "", pid)
            used += (read_group(groups[0]).without_inactive or 0) if len(groups) > 1 else 0
    return {"project": project, "containers": names, "memory_mib": used // MIB}


def measure_ports(ports: list[int], wanted: str, project: str, docker: list[str]) -> list[dict[str, Any]]:
    """Return for each port whether it is free on the wanted address, and who holds it otherwise."""
    network = Path("/proc/self/net")
    listeners = [
        listener
        for name in ("tcp", "tcp6")
        for listener in parse_listeners(read_text(network / name))
        if listener["port"] in ports
    ]
    holders = holders_of({listener["inode"] for listener in listeners}) if listeners else {}
    results = []
    for port in ports:
        published = parse_containers(
            run_docker(docker, "ps", "--filter", f"publish={port}/tcp", "--format", CONTAINER_FORMAT)
        )
        entries = []
        for listener in listeners:
            if listener["port"] != port:
                continue
            processes = holders.get(listener["inode"], [])
            engine = any(process["process"] in ("docker-proxy", "dockerd") for process in processes)
            entries.append(
                {
                    "address": listener["address"],
                    "conflicts": conflicts(listener["address"], wanted),
                    "holders": processes,
                    "containers": published if engine else [],
                }
            )
        results.append(judge_port(port, entries, project))
    return results


def judge_port(port: int, listeners: list[dict[str, Any]], project: str) -> dict[str, Any]:
    """Return one port's verdict: ``free``, ``own`` (only our containers hold it), by whom and where."""
    blocking = [listener for listener in listeners if listener["conflicts"]]
    own = bool(blocking) and all(
        listener["containers"] and {container["project"] for container in listener["containers"]} == {project}
        for listener in blocking
    )
    return {
        "port": port,
        "free": not blocking,
        "own": own and bool(project),
        "held_by": ", ".join(sorted({describe_holder(listener) for listener in blocking})),
        "listeners": listeners,
    }


def describe_holder(listener: dict[str, Any]) -> str:
    """Return who holds a listener in words: containers where an engine does, processes otherwise."""
    if listener["containers"]:
        return ", ".join(
            "container {}{}".format(
                container["name"], f" (project {container['project']})" if container["project"] else ""
            )
            for container in listener["containers"]
        )
    if listener["holders"]:
        holder = listener["holders"][0]
        return f"{holder['process']} (pid {holder['pid']}, user {holder['user']})"
    return "a process that cannot be seen from here"


def parse_os_release(text: str) -> dict[str, str]:
    """Return id, version id, code name and full name of ``/etc/os-release``."""
    values = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            words = shlex.split(value)
            values[key.strip()] = words[0] if words else ""
    return {
        "id": values.get("ID", "linux"),
        "version_id": values.get("VERSION_ID", ""),
        "codename": values.get("VERSION_CODENAME", ""),
        "name": values.get("PRETTY_NAME", values.get("ID", "linux")),
    }


def describe_system(root: Path = Path("/")) -> dict[str, str]:
    """Return release, kernel, architecture and version of the Python that runs this."""
    release = parse_os_release(read_text(root / "etc" / "os-release") or read_text(root / "usr" / "lib" / "os-release"))
    return {
        **release,
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": "{}.{}.{}".format(*sys.version_info[:3]),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": []},
            "ports": {"type": "list", "elements": "int", "default": []},
            "bind_address": {"type": "str", "default": "127.0.0.1"},
            "compose_project": {"type": "str", "default": ""},
            "docker": {"type": "str", "default": "docker"},
        },
        supports_check_mode=True,
    )
    printable_module(module)
    options = module.params
    try:
        wanted = str(ipaddress.ip_address(options["bind_address"]))
    except ValueError:
        module.fail_json(msg=f"bind_address must be an IP address, not '{options['bind_address']}'.")
        return
    wrong = [port for port in options["ports"] if not 0 < port < 65536]
    if wrong:
        module.fail_json(msg=f"{wrong[0]} is not a TCP port (1 to 65535).")
        return
    docker = shlex.split(options["docker"]) or ["docker"]
    module.exit_json(
        changed=False,
        memory=measure_memory(),
        disks=[measure_disk(path) for path in options["paths"]],
        cpus=measure_cpus(),
        ports=measure_ports(options["ports"], wanted, options["compose_project"], docker),
        compose=measure_compose(docker, options["compose_project"]),
        os=describe_system(),
        identity={"hostname": socket.gethostname(), "machine_id": read_text(Path("/etc/machine-id")).strip()},
    )


if __name__ == "__main__":
    main()
