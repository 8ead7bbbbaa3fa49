#!/usr/bin/python
"""What a PM2 daemon runs, asked as its own user and without ever starting a daemon."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pm2_info
short_description: List the processes of a running PM2 daemon
description:
  - Asks PM2 as its own user, with its own C(PM2_HOME) and its own Node.js, and only when its daemon answers
    on its socket. The client of PM2 would start a daemon otherwise.
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
    description: Node.js of this PM2; its directory comes first in the search path.
    type: path
    default: /usr/bin/node
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
others:
  description:
    - Other PM2 daemons on this host, with C(pid), C(user), C(home), C(version), C(services) (names, as far as
      they can be seen) and C(expected) (those of them that were expected here).
  returned: always
  type: list
  elements: dict
"""

import json
import os
import pwd
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

MIB = 1024 * 1024
DAEMON = re.compile(r"^PM2 v(?P<version>\S*?): God Daemon \((?P<home>.*)\)\s*$")
DSN = "SENTRY_DSN"


class Pm2Error(Exception):
    """PM2 that cannot be asked; its text is one sentence for the operator."""


def daemon_answers(home: Path) -> bool:
    """Tell whether somebody listens on the daemon's socket; a file left by a dead daemon does not count.

    Raises Pm2Error when the socket may not be opened.
    """
    path = home / "rpc.sock"
    if not path.exists():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(path))
        except PermissionError:
            raise Pm2Error(f"The socket {path} may not be opened: run this as root.") from None
        except OSError:
            return False
    return True


def parse_jlist(text: str) -> list[dict[str, Any]]:
    """Return the list that ``pm2 jlist`` printed, also behind the notices that PM2 puts before it.

    Raises Pm2Error when there is no list. The text itself, which holds environments, is never quoted.
    """
    decoder = json.JSONDecoder()
    for match in re.finditer(r"^\[", text, re.MULTILINE):
        try:
            document, _ = decoder.raw_decode(text[match.start() :])
        except ValueError:
            continue
        if isinstance(document, list) and all(isinstance(entry, dict) for entry in document):
            return document
    raise Pm2Error("PM2 answered without a list of processes.")


def describe(entry: dict[str, Any], now: float) -> dict[str, Any]:
    """Return what we tell of one process of ``pm2 jlist``; ``now`` is in seconds since the epoch."""
    environment = entry.get("pm2_env") or {}
    status = str(environment.get("status", "unknown"))
    started = environment.get("pm_uptime")
    return {
        "name": str(entry.get("name", "")),
        "pm_id": entry.get("pm_id"),
        "status": status,
        "pid": entry.get("pid") or 0,
        "restarts": environment.get("restart_time", 0),
        "started_at_ms": started,
        "uptime_seconds": max(int(now - started / 1000), 0) if started and status == "online" else 0,
        "memory_mib": int((entry.get("monit") or {}).get("memory") or 0) // MIB,
        "cron_restart": environment.get("cron_restart") or None,
        "autorestart": environment.get("autorestart", True) is not False,
        "cwd": environment.get("pm_cwd"),
        "script": environment.get("pm_exec_path"),
        "exec_mode": environment.get("exec_mode"),
        "is_module": bool(environment.get("pmx_module")),
        "user": environment.get("username"),
        "sentry_dsn_in_environment": bool(environment.get(DSN) or (environment.get("env") or {}).get(DSN)),
    }


def runs(process: dict[str, Any]) -> bool:
    """Tell whether a process is as it should be: online, or a job that waits for its hour."""
    waiting_job = process["cron_restart"] and not process["autorestart"] and process["status"] == "stopped"
    return process["status"] == "online" or bool(waiting_job)


def compare(processes: list[dict[str, Any]], expected: list[str]) -> tuple[list[str], list[dict[str, str]]]:
    """Return (expected names that are missing, expected processes that do not run)."""
    known = {process["name"] for process in processes}
    missing = [name for name in expected if name not in known]
    not_online = [
        {"name": process["name"], "status": process["status"]}
        for process in processes
        if process["name"] in expected and not runs(process)
    ]
    return missing, not_online


def read(path: Path) -> str:
    """Return a file of /proc as text, or nothing where it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def namespace(process: Path) -> str:
    """Return the process namespace; a daemon in a container has another one and is none of this host's."""
    try:
        return os.readlink(str(process / "ns" / "pid"))
    except OSError:
        return ""


def parse_daemon(command: str) -> tuple[str, str] | None:
    """Return (version, home) of the command line of a PM2 daemon, None for any other process."""
    match = DAEMON.match(command.split("\0")[0])
    return (match.group("version"), match.group("home")) if match else None


def find_daemons(proc: Path = Path("/proc")) -> list[dict[str, Any]]:
    """Return the PM2 daemons of this process namespace and the names of the services below them."""
    here = namespace(proc / "self")
    daemons: dict[int, dict[str, Any]] = {}
    children: list[tuple[int, str]] = []
    for process in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        found = parse_daemon(read(process / "cmdline"))
        if found and namespace(process) == here:
            try:
                owner = user_name(process.stat().st_uid)
            except OSError:
                continue
            pid = int(process.name)
            daemons[pid] = {"pid": pid, "user": owner, "version": found[0], "home": found[1], "services": []}
            continue
        parent = re.search(r"^PPid:\s+(\d+)$", read(process / "status"), re.MULTILINE)
        if parent:
            children.append((int(parent.group(1)), process.name))
    for parent_pid, name in children:
        if parent_pid in daemons:
            service = service_name(read(proc / name / "environ"))
            services = daemons[parent_pid]["services"]
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
            except (ValueError, AttributeError):
                return ""
    return ""


def user_name(uid: int) -> str:
    """Return the name of a user id, or the id itself where no user has it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


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


def ask(account: pwd.struct_passwd, home: Path, binary: Path, node: Path, timeout: int) -> str:
    """Return what ``pm2 jlist`` prints when the user asks with its own environment; raises Pm2Error."""
    environment = {
        "HOME": account.pw_dir,
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "PM2_HOME": str(home),
        "PATH": f"{node.parent}:{binary.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "PM2_DISCRETE_MODE": "true",
    }
    options: dict[str, Any] = {}
    if os.geteuid() == 0:
        options = {
            "user": account.pw_uid,
            "group": account.pw_gid,
            "extra_groups": os.getgrouplist(account.pw_name, account.pw_gid),
        }
    elif os.geteuid() != account.pw_uid:
        raise Pm2Error(f"PM2 of {account.pw_name} can be asked only by root or by that user.")
    try:
        done = subprocess.run(
            [str(binary), "jlist"],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            **options,
        )
    except subprocess.TimeoutExpired:
        raise Pm2Error(f"PM2 of {account.pw_name} gave no answer within {timeout} seconds.") from None
    except OSError as error:
        raise Pm2Error(f"{binary} cannot be started: {error.strerror}.") from None
    if done.returncode != 0:
        raise Pm2Error(f"'pm2 jlist' of {account.pw_name} ended with exit code {done.returncode}.")
    return str(done.stdout)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "user": {"type": "str", "default": "root"},
            "home": {"type": "path"},
            "binary": {"type": "path", "default": "/usr/local/bin/pm2"},
            "node": {"type": "path", "default": "/usr/bin/node"},
            "expected": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        account = pwd.getpwnam(options["user"])
    except KeyError:
        module.fail_json(msg=f"The user '{options['user']}' of PM2 does not exist on this host.")
        return
    home = Path(options["home"] or os.path.join(account.pw_dir, ".pm2"))
    binary, node = Path(options["binary"]), Path(options["node"])
    installed = os.access(str(binary), os.X_OK)
    processes: list[dict[str, Any]] = []
    try:
        running = daemon_answers(home)
        if running and not installed:
            raise Pm2Error(f"A PM2 daemon runs under {home}, but its client {binary} is not there.")
        if running:
            now = time.time()
            listed = parse_jlist(ask(account, home, binary, node, options["timeout"]))
            processes = [describe(entry, now) for entry in listed]
    except Pm2Error as error:
        module.fail_json(msg=str(error))
        return
    missing, not_online = compare(processes, options["expected"])
    own, others = split_daemons(find_daemons(), home, account.pw_name, options["expected"])
    module.exit_json(
        changed=False,
        installed=installed,
        daemon_running=running,
        daemon=own,
        home=str(home),
        processes=processes,
        missing=missing,
        not_online=not_online,
        others=others,
    )


if __name__ == "__main__":
    main()
