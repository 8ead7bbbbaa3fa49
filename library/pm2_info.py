#!/usr/bin/python
"""What a PM2 daemon runs, asked as its own user and without ever starting a daemon."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pm2_info
short_description: List the processes of a running PM2 daemon
description:
  - Asks PM2 as its own user, with its own C(PM2_HOME) and its own Node.js, and only when its daemon answers
    on its socket. The client of PM2 would start a daemon otherwise. The switch, the parallel run and the monitoring
    ask in the very same way.
  - Values of the processes' environment are never returned, only whether C(SENTRY_DSN) is among them (PM2
    then keeps handing out the value of the first start, whatever the application's C(.env) says).
  - Compares the processes with the services that are expected, and finds daemons of other users that run
    one of them.
options:
  user:
    description: The user whose PM2 is asked.
    type: str
    default: root
  home:
    description: C(PM2_HOME); the default is C(.pm2) in the user's home directory.
    type: path
  binary:
    description: The client of PM2.
    type: path
    default: /usr/local/bin/pm2
  node:
    description:
      - Node.js of this PM2. Not given, it is found in the prefix that C(binary) is in (nvm, npm), else by what the daemon
        was started with.
    type: path
  expected:
    description:
      - Names of services and modules that must be there.
      - A job (C(cron_restart) set, C(autorestart) off) may be C(stopped), everything else must be C(online).
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait for an answer.
    type: int
    default: 30
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
- name: List the services of the product
  pm2_info:
    user: root
    expected: [ai-admin-api, ai-admin-worker-v2]
  register: pm2
"""

RETURN = r"""
installed:
  description: Whether the client is there.
  returned: always
  type: bool
daemon_running:
  description: Whether the daemon answers on its socket.
  returned: always
  type: bool
daemon:
  description: C(pid), C(user), C(version) of the daemon, as far as they can be seen.
  returned: always
  type: dict
home:
  description: The C(PM2_HOME) that was asked.
  returned: always
  type: str
node:
  description: The Node.js that was used, given or found; empty when there is none.
  returned: always
  type: str
node_version:
  description: What it says as its version, asked as the user of PM2; empty when it cannot be run.
  returned: always
  type: str
processes:
  description:
    - For each process C(name), C(pm_id), C(status), C(pid), C(restarts), C(started_at_ms) (since the epoch),
      C(uptime_seconds), C(memory_mib), C(cron_restart), C(autorestart), C(cwd), C(script), C(exec_mode),
      C(is_module), C(user) and C(sentry_dsn_in_environment).
  returned: always
  type: list
  elements: dict
missing:
  description: Expected names that PM2 does not know.
  returned: always
  type: list
  elements: str
not_online:
  description: Expected processes that do not run, with C(name) and C(status).
  returned: always
  type: list
  elements: dict
crash_loops:
  description:
    - Expected processes that are listed as online and restart again and again, with C(name), C(restarts), C(uptime_seconds) and C(holders),
      processes outside PM2 that run in the same directory and hold a listening port (C(pid), C(program), C(ports)).
    - Processes that were started within the last half minute are watched until they have run that long. The number of restarts since they
      were added to PM2 does not count, as each deploy raises it, but two restarts during the watch do.
  returned: always
  type: list
  elements: dict
others:
  description:
    - Other PM2 daemons on this host, with C(pid), C(user), C(home), C(version), C(services) (names, as far as
      they can be seen) and C(expected) (those of them that were expected here).
  returned: always
  type: list
  elements: dict
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.glitchtip_core import pm2
from ansible.module_utils.glitchtip_core.errors import CoreError
from ansible.module_utils.glitchtip_core.pm2_list import Pm2Entry
from ansible.module_utils.glitchtip_core.process import SYSTEM_PATH, account_of, run
from ansible.module_utils.glitchtip_core.text import printable_module

MIB = 1024 * 1024
# A process that was started lately and restarted before may be in a crash loop: it is watched until it has run so many seconds.
STEADY = 30
# Seconds of the watch, in which one that never runs that long restarts twice, and between two looks.
WATCH = 66.0
LOOK = 3.0
# One restart during the watch may be a deploy.
LOOP_RESTARTS = 2
DSN = "SENTRY_DSN"
LISTEN = "0A"  # state of a listening socket in /proc/net/tcp


def describe(entry: Pm2Entry, now: float) -> dict[str, Any]:
    """Return what is reported of one process; ``now`` is in seconds since the epoch."""
    uptime = max(int(now - entry.started_at), 0) if entry.started_at and entry.status == "online" else 0
    return {
        "name": entry.name,
        "pm_id": entry.pm_id,
        "status": entry.status,
        "pid": entry.pid,
        "restarts": entry.restarts,
        "started_at_ms": round(entry.started_at * 1000) or None,
        "uptime_seconds": uptime,
        "memory_mib": entry.memory // MIB,
        "cron_restart": entry.cron or None,
        "autorestart": entry.autorestart,
        "cwd": entry.cwd,
        "script": entry.script or None,
        "exec_mode": entry.exec_mode or None,
        "is_module": entry.module,
        "user": entry.username or None,
        "sentry_dsn_in_environment": bool(entry.environment.get(DSN)),
        "healthy": entry.healthy,
    }


def compare(processes: list[dict[str, Any]], expected: list[str]) -> tuple[list[str], list[dict[str, str]]]:
    """Return (expected names that are missing, expected processes that do not run)."""
    known = {process["name"] for process in processes}
    missing = [name for name in expected if name not in known]
    not_online = [
        {"name": process["name"], "status": process["status"]}
        for process in processes
        if process["name"] in expected and not process["healthy"]
    ]
    return missing, not_online


def suspects(processes: list[dict[str, Any]], expected: list[str]) -> list[dict[str, Any]]:
    """Return expected processes that are online and may be so only between two crashes. Jobs end by themselves."""
    return [
        process
        for process in processes
        if process["name"] in expected
        and process["status"] in ("online", "launching")
        and process["restarts"] > 0
        and process["uptime_seconds"] < STEADY
        and not process["cron_restart"]
    ]


def looping(first: list[dict[str, Any]], last: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those of ``first`` that restarted twice until ``last``."""
    now = {process["pm_id"]: process for process in last}
    keys = ("name", "pm_id", "restarts", "uptime_seconds", "cwd")
    found = []
    for before in first:
        process = now.get(before["pm_id"], before)
        if process["restarts"] - before["restarts"] >= LOOP_RESTARTS:
            found.append({key: process[key] for key in keys})
    return found


def undecided(first: list[dict[str, Any]], last: list[dict[str, Any]]) -> bool:
    """Tell whether one of ``first`` neither runs steadily at ``last``, nor restarted twice, nor is gone."""
    looped = {process["pm_id"] for process in looping(first, last)}
    watched = {process["pm_id"] for process in first} - looped
    return any(process["pm_id"] in watched and process["uptime_seconds"] < STEADY for process in last)


def watch_for_crash_loops(
    processes: list[dict[str, Any]],
    expected: list[str],
    look: Callable[[], list[dict[str, Any]]],
    sleep: Callable[[float], None] = time.sleep,
) -> list[dict[str, Any]]:
    """Return the crash loops among ``processes``; ``look`` lists them again. Without suspects nothing is waited for."""
    first = suspects(processes, expected)
    last, waited = processes, 0.0
    while undecided(first, last) and waited < WATCH:
        sleep(LOOK)
        waited += LOOK
        last = look()
    return looping(first, last)


def listening_ports(proc: Path) -> dict[str, int]:
    """Return the inode of each listening TCP socket with its port."""
    ports: dict[str, int] = {}
    for name in ("tcp", "tcp6"):
        for line in read(proc / "net" / name).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == LISTEN:
                ports[fields[9]] = int(fields[1].rpartition(":")[2], 16)
    return ports


def held_ports(process: Path, ports: dict[str, int]) -> list[int]:
    """Return the listening ports that a process (its directory in /proc) holds."""
    held = set()
    with contextlib.suppress(OSError):
        for entry in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                inode = os.readlink(entry).removeprefix("socket:[").removesuffix("]")
                if inode in ports:
                    held.add(ports[inode])
    return sorted(held)


def parent_of(process: Path) -> int:
    """Return the id of a process's parent, 0 where it is not known."""
    found = re.search(r"^PPid:\s+(\d+)$", read(process / "status"), re.MULTILINE)
    return int(found.group(1)) if found else 0


def find_holders(directory: str, daemons: list[int], proc: Path = Path("/proc")) -> list[dict[str, Any]]:
    """Return processes that run in ``directory`` and hold a listening port, and are not below one of PM2's ``daemons``."""
    if directory in ("", "/"):  # where every other daemon runs, too
        return []
    parents = {int(path.name): parent_of(path) for path in proc.glob("[0-9]*")}
    ports = listening_ports(proc)
    found = []
    for pid in sorted(parents):
        above = pid
        for _ in range(len(parents)):
            if above in daemons or above not in parents:
                break
            above = parents[above]
        path = proc / str(pid)
        with contextlib.suppress(OSError):
            if above in daemons or not same_place(os.readlink(path / "cwd"), Path(directory)):
                continue
            held = held_ports(path, ports)
            if held:
                found.append({"pid": pid, "program": read(path / "comm").strip(), "ports": held})
    return found


def read(path: Path) -> str:
    """Return a file of /proc as text, or nothing where it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def find_daemons(proc: Path = Path("/proc")) -> list[dict[str, Any]]:
    """Return the PM2 daemons of this process namespace and the names of the services below them."""
    daemons: dict[int, dict[str, Any]] = {
        daemon.pid: {
            "pid": daemon.pid,
            "user": daemon.user,
            "version": daemon.version,
            "home": daemon.home,
            "services": [],
        }
        for daemon in pm2.find_daemons(proc)
    }
    for process in proc.glob("[0-9]*") if daemons else ():
        parent = parent_of(process)
        if parent not in daemons:
            continue
        services = daemons[parent]["services"]
        service = service_name(read(process / "environ"))
        if service and service not in services:
            services.append(service)
    for daemon in daemons.values():
        daemon["services"].sort()
    return list(daemons.values())


def service_name(environment: str) -> str:
    """Return the name that PM2 gave a child, from its environment (``name``; in cluster mode ``pm2_env``)."""
    for line in environment.split("\0"):
        key, _, value = line.partition("=")
        if key == "name":
            return value
        if key == "pm2_env":
            try:
                return str(json.loads(value).get("name", ""))
            except (ValueError, AttributeError, RecursionError):
                return ""
    return ""


def split_daemons(
    daemons: list[dict[str, Any]], home: Path, user: str, expected: list[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return (the daemon of this home, the others with the expected services that they run)."""
    own: dict[str, Any] = {}
    others = []
    for daemon in daemons:
        if same_place(daemon["home"], home):
            own = {key: daemon[key] for key in ("pid", "user", "version")}
            if daemon["user"] == user:
                continue
        others.append({**daemon, "expected": [name for name in daemon["services"] if name in expected]})
    return own, others


def same_place(one: str, other: Path) -> bool:
    """Tell whether two paths name the same directory."""
    return os.path.realpath(one) == os.path.realpath(str(other))


def node_of(access: pm2.Access) -> tuple[str, str]:
    """Return the path and the version of this PM2's Node.js; empty where there is none, or it does not run."""
    try:
        node = pm2.find_node(access)
    except CoreError:
        return "", ""
    try:
        home = account_of(access.user).pw_dir
        done = run(
            [node, "--version"], environment={"PATH": SYSTEM_PATH, "HOME": home}, timeout=20, user=access.user
        )
    except CoreError:
        return str(node), ""
    return str(node), done.output.strip() if done.code == 0 else ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "user": {"type": "str", "default": "root"},
            "home": {"type": "path"},
            "binary": {"type": "path", "default": "/usr/local/bin/pm2"},
            "node": {"type": "path"},
            "expected": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    printable_module(module)
    options = module.params
    access = pm2.Access.of(options["user"], options["home"] or "", options["binary"], options["node"] or "")
    processes: list[dict[str, Any]] = []
    loops: list[dict[str, Any]] = []
    node = node_version = ""
    try:
        home, uid = access.pm2_home(), account_of(access.user).pw_uid
        if os.geteuid() not in (0, uid):
            raise CoreError(f"PM2 of {access.user} can be asked only by root or by that user")
        node, node_version = node_of(access)
        running = pm2.listener(home) is not None

        def look() -> list[dict[str, Any]]:
            now = time.time()
            return [
                describe(entry, now)
                for entry in pm2.list_processes(access, timeout=float(options["timeout"]))
            ]

        if running:
            processes = look()
            loops = watch_for_crash_loops(processes, options["expected"], look)
    except CoreError as error:
        module.fail_json(msg=f"{error}.", node=node, node_version=node_version)
        return
    missing, not_online = compare(processes, options["expected"])
    daemons = find_daemons()
    for loop in loops:
        loop["holders"] = find_holders(loop["cwd"], [daemon["pid"] for daemon in daemons])
    own, others = split_daemons(daemons, home, access.user, options["expected"])
    module.exit_json(
        changed=False,
        installed=os.access(options["binary"], os.X_OK),
        daemon_running=running,
        daemon=own,
        home=str(home),
        node=node,
        node_version=node_version,
        processes=processes,
        missing=missing,
        not_online=not_online,
        crash_loops=loops,
        others=others,
    )


if __name__ == "__main__":
    main()
