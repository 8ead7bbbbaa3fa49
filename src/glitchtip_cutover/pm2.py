"""PM2, called as its own user, and only when its daemon answers (a call would otherwise start a new one).

Facts measured with PM2 7.0.4: a plain ``restart`` keeps the environment the process was first started with,
so a DSN in there outlives any edit of ``.env``; ``restart --update-env`` takes over the caller's whole
environment, PATH and HOME included; ``restart_time`` grows by one for each restart of a running process,
whether asked for or after a crash, and stays the same when a stopped one is started.
``restart a b c`` restarts one after the other, whatever ``PM2_CONCURRENT_ACTIONS`` says; ``restart /regex/
--parallel N`` restarts all that match at the same time. A service whose SDK cannot reach its tracker takes
seconds to stop, so the difference is that of one such stop and of eight.
A command line that finds no daemon starts one, with ``PM2_NODE_OPTIONS`` as options of its Node.js: an option
that does not exist keeps such a daemon from coming up (and the command ends with code 0 all the same).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .config import Pm2Settings
from .errors import CutoverError
from .files import write_new
from .manager import Process as Process
from .manager import Restart, file_watcher, node_options, raise_all
from .process import SYSTEM_PATH, Completed, run, user_home, user_id, user_name

_RESTART_TIMEOUT = 60.0
_LIST_TIMEOUT = 30.0
_AT_ONCE = 8
_NO_DAEMON = {"PM2_NODE_OPTIONS": "--no-new-daemon-is-wanted"}
_SPAWNED = "Spawning PM2 daemon"
_DAEMON_TITLE = re.compile(rb"^PM2 v[^:]*: God Daemon \((?P<home>[^)\0]*)")
_DROPPED = frozenset(
    {"NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE", "NODE_UNIQUE_ID", "SENTRY_EVENT_ID"}
)


def _scalar(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    return None


def parse_process(entry: Mapping[str, Any]) -> Process:
    """One entry of ``pm2 jlist``. The environment is what PM2 gives to the next process of that name."""
    details = entry.get("pm2_env")
    if not isinstance(details, dict) or not isinstance(entry.get("name"), str):
        raise CutoverError("PM2's process list has an entry without a name or settings")
    nested = details.get("env")
    merged: dict[str, Any] = {**(nested if isinstance(nested, dict) else {}), **details}
    environment = {
        key: text
        for key, value in merged.items()
        if key not in _DROPPED
        and "=" not in key
        and (text := _scalar(value)) is not None
        and "\x00" not in text
    }
    return Process(
        name=entry["name"],
        pm_id=int(entry.get("pm_id", details.get("pm_id", -1))),
        pid=int(entry.get("pid") or 0),
        status=str(details.get("status", "unknown")),
        started_at=float(details.get("pm_uptime") or 0) / 1000,
        restarts=int(details.get("restart_time") or 0),
        cwd=str(details.get("pm_cwd") or details.get("cwd") or "/"),
        interpreter=str(details.get("exec_interpreter") or "node"),
        node_options=node_options(details.get("node_args")),
        cron_job=bool(details.get("cron_restart")) and details.get("autorestart") is False,
        module=bool(details.get("pmx_module")),
        environment=environment,
        watches_files=_watching(details),
    )


def _watching(details: Mapping[str, Any]) -> str:
    """The setting by which a changed file restarts the process; empty where there is none.

    PM2 mixes the service's environment into these details: a text is a variable called ``watch`` and counts only
    where it says so.
    """
    watch = details.get("watch")
    if watch is True or (isinstance(watch, list | dict) and watch):
        return "watch"
    if isinstance(watch, str) and watch.lower() in ("true", "1"):
        return "watch"
    return file_watcher([str(details.get("pm_exec_path") or ""), *_words(details.get("node_args")), *_words(details.get("args"))])


def _words(value: object) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list) else str(value or "").split()


def parse_list(text: str) -> list[Process]:
    """The output of ``pm2 jlist``; PM2 may print notices before the JSON. Raises CutoverError otherwise."""
    for match in re.finditer(r"^\[(?=\s*(?:\{\"|\]))", text, re.MULTILINE):
        try:
            data, _ = json.JSONDecoder().raw_decode(text[match.start() :])
        except ValueError:
            continue
        return [parse_process(entry) for entry in data]
    raise CutoverError("PM2 did not print its process list as JSON")


class Pm2:
    """PM2 of one user."""

    def __init__(self, settings: Pm2Settings) -> None:
        self.settings = settings

    @property
    def running(self) -> bool:
        """Whether a daemon listens on its socket; a file left over from a power cut refuses connections.

        A daemon that is too busy to take the connection at once runs all the same.
        """
        return self._listener() is not None

    def _listener(self) -> int | None:
        """User id of the process that listens on the socket (-1: too busy to tell); None when none does."""
        address = self.settings.home / "rpc.sock"
        if len(os.fsencode(address)) > 107 or not address.is_socket():
            return None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(3)
            try:
                client.connect(str(address))
                credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            except (ConnectionRefusedError, FileNotFoundError):
                return None
            except OSError:
                return -1
        return int(struct.unpack("3i", credentials)[1])

    def processes(self) -> list[Process]:
        """PM2's list. Raises CutoverError when the daemon does not run or does not answer."""
        done = self._call(["jlist"], timeout=_LIST_TIMEOUT)
        if done.code != 0:
            raise CutoverError(f"pm2 jlist failed with exit code {done.code}")
        return parse_list(done.output)

    def restart(self, process: Process, variables: Mapping[str, str] | None = None) -> None:
        """Restart one process; with ``variables`` these are set in its PM2 environment.

        PATH and HOME of the process are passed along, so that nothing else of its environment changes.
        """
        extra = _extra(process, variables)
        arguments = ["restart", str(process.pm_id), *(["--update-env"] if extra else [])]
        done = self._call(arguments, timeout=_RESTART_TIMEOUT, extra=extra)
        if done.code != 0:
            raise CutoverError(f"pm2 restart of {process.name} failed with exit code {done.code}")

    def restart_together(self, restarts: Sequence[Restart]) -> None:
        """Restart many at the same time: one call for all that get the same variables (mostly: none).

        All instances of each service have to be among them, as PM2 is given names. Processes that cannot be
        named so (a name with a slash, instances with different variables) are restarted by id, each by a call
        of its own beside the others.
        """
        groups: dict[tuple[tuple[str, str], ...], list[Restart]] = {}
        for process, variables in restarts:
            extra = tuple(sorted(_extra(process, variables).items()))
            groups.setdefault(extra, []).append((process, variables))
        spread = {
            name
            for name in {process.name for process, _ in restarts}
            if "/" in name or sum(name in {one.name for one, _ in group} for group in groups.values()) > 1
        }
        work: list[list[Restart]] = []
        for group in groups.values():
            named = [item for item in group if item[0].name not in spread]
            work += [named] if len(named) > 1 else [[item] for item in named]
            work += [[item] for item in group if item[0].name in spread]
        if len(work) == 1 and len(work[0]) == 1:
            return self.restart(*work[0][0])
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            outcomes = list(pool.map(self._restart_group, work))
        return raise_all({name: text for failures in outcomes for name, text in failures.items()})

    def _restart_group(self, group: Sequence[Restart]) -> dict[str, str]:
        """Restart the processes of one group; what went wrong with which of them."""
        try:
            if len(group) == 1:
                self.restart(*group[0])
                return {}
            names = sorted({process.name for process, _ in group})
            pattern = (
                "/^(?:" + "|".join(re.sub(r"[^A-Za-z0-9_ -]", r"\\\g<0>", name) for name in names) + ")$/"
            )
            extra = _extra(*group[0])
            arguments = ["restart", pattern, "--parallel", str(len(group))]
            done = self._call(
                [*arguments, *(["--update-env"] if extra else [])], timeout=_RESTART_TIMEOUT, extra=extra
            )
            if done.code == 0:
                return {}
        except CutoverError as error:
            return {process.name: str(error) for process, _ in group}
        return self._restart_rest(group)

    def _restart_rest(self, group: Sequence[Restart]) -> dict[str, str]:
        """PM2 gives a common call up at its first failure: those that kept their process, one by one."""
        failures: dict[str, str] = {}
        try:
            now = {process.pm_id: process.pid for process in self.processes()}
        except CutoverError as error:
            return {process.name: str(error) for process, _ in group}
        for process, variables in group:
            if now.get(process.pm_id) == process.pid:
                try:
                    self.restart(process, variables)
                except CutoverError as error:
                    failures[process.name] = str(error)
        return failures

    def save(self) -> None:
        """Write the process list that ``pm2 resurrect`` reads at boot."""
        done = self._call(["save"], timeout=_RESTART_TIMEOUT)
        if done.code != 0:
            raise CutoverError(f"pm2 save failed with exit code {done.code}")

    def rewrite_dump(self, key: str, values: Mapping[str, str]) -> list[str]:
        """Set ``key`` in the saved list for the services of ``values`` that carry it; return those changed.

        For the time before PM2 is started at boot: it then resurrects every service with the right value.
        """
        changed: list[str] = []
        for name in ("dump.pm2", "dump.pm2.bak"):
            path = self.settings.home / name
            try:
                data = json.loads(path.read_bytes())
                info = path.stat()
            except FileNotFoundError:
                continue
            except (OSError, ValueError):
                if name == "dump.pm2":
                    raise CutoverError(f"PM2's saved list {path} cannot be read") from None
                continue
            touched = [str(entry.get("name")) for entry in data if _rewrite_entry(entry, key, values)]
            if touched:
                write_new(
                    path,
                    json.dumps(data, indent=2).encode(),
                    mode=info.st_mode & 0o7777,
                    owner=(info.st_uid, info.st_gid),
                )
                changed += touched
        return sorted(set(changed))

    def command(self) -> list[str | Path]:
        """How PM2 is started: through our ``node`` when the executable is a Node.js script."""
        try:
            with self.settings.binary.open("rb") as file:
                first = file.readline(200)
        except OSError as error:
            raise CutoverError(f"pm2 is not at {self.settings.binary}: {error.strerror}") from None
        if first.startswith(b"#!") and b"node" in first:
            return [self.settings.node, self.settings.binary]
        return [self.settings.binary]

    def base_environment(self) -> dict[str, str]:
        """What PM2's command line needs, and nothing that could leak into a service."""
        return {
            "PATH": f"{self.settings.node.parent}:{SYSTEM_PATH}",
            "HOME": user_home(self.settings.user),
            "PM2_HOME": str(self.settings.home),
        }

    def run_node(self, process: Process, arguments: Sequence[str], script: str, timeout: float) -> Completed:
        """Run ``node`` as PM2 would start that service; PM2 itself is not asked."""
        home = user_home(self.settings.user)
        return run(
            [self.settings.node, *process.node_options, *arguments],
            environment={"PATH": SYSTEM_PATH, "HOME": home, **process.environment},
            timeout=timeout,
            user=self.settings.user,
            cwd=process.cwd,
            stdin=script,
        )

    def _call(
        self, arguments: Sequence[str], *, timeout: float, extra: Mapping[str, str] | None = None
    ) -> Completed:
        """Run PM2's command line against the daemon that runs, and never start one.

        The guard against a daemon that vanishes in this very moment cannot go along with ``--update-env``, which
        would write it into the service's environment; then only the output tells.
        """
        self._check_daemon()
        done = run(
            [*self.command(), *arguments],
            environment={**self.base_environment(), **(extra or _NO_DAEMON)},
            timeout=timeout,
            user=self.settings.user,
        )
        if _SPAWNED in done.output:
            raise CutoverError(f"PM2 of user {self.settings.user} went away while it was asked")
        return done

    def _check_daemon(self) -> None:
        """Raise CutoverError unless a daemon of exactly this user answers."""
        user = self.settings.user
        listener = self._listener()
        if listener is None:
            message = f"PM2 of user {user} does not run: nothing answers on {self.settings.home}/rpc.sock"
            others = [
                f"{owner} (PM2_HOME {home})" for owner, home in daemons() if home != str(self.settings.home)
            ]
            if others:
                message += (
                    f"; PM2 runs here as user {', '.join(others)}: set the user and home of PM2 to that"
                )
            raise CutoverError(message)
        if listener >= 0 and listener != user_id(user):
            owner = user_name(listener)
            raise CutoverError(
                f"PM2 at {self.settings.home} runs as user {owner}, not as {user}: set the user of PM2 to {owner}"
            )


def _extra(process: Process, variables: Mapping[str, str] | None) -> dict[str, str]:
    """The caller's variables of a restart that sets ``variables``: PATH and HOME stay those of the process."""
    if not variables:
        return {}
    own = {name: process.environment[name] for name in ("PATH", "HOME") if name in process.environment}
    return {**own, **variables}


def daemons() -> list[tuple[str, str]]:
    """User and PM2_HOME of every PM2 daemon of this host, known by the titles that they give their processes.

    A title is cut to the length of the command line before it, so the home is taken from the environment.
    """
    found: set[tuple[str, str]] = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            title = _DAEMON_TITLE.match((directory / "cmdline").read_bytes())
            if title is None:
                continue
            owner = user_name(directory.stat().st_uid)
            home = title["home"]
            with contextlib.suppress(OSError):
                variables = (directory / "environ").read_bytes().split(b"\0")
                home = next((line[9:] for line in variables if line.startswith(b"PM2_HOME=")), home)
            found.add((owner, os.fsdecode(home)))
        except OSError:
            continue
    return sorted(found)


def _rewrite_entry(entry: Any, key: str, values: Mapping[str, str]) -> bool:
    """Set ``key`` wherever one entry of the saved list carries it; True when something changed."""
    if not isinstance(entry, dict) or entry.get("name") not in values:
        return False
    changed = False
    for place in (entry, entry.get("env"), entry.get("pm2_env")):
        if isinstance(place, dict) and key in place and place[key] != values[entry["name"]]:
            place[key] = values[entry["name"]]
            changed = True
    return changed
