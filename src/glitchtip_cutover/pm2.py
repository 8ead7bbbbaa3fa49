"""PM2, called as its own user, and only when its daemon answers (a call would otherwise start a new one).

Facts measured with PM2 7.0.4: a plain ``restart`` keeps the environment the process was first started with,
so a DSN in there outlives any edit of ``.env``; ``restart --update-env`` takes over the caller's whole
environment, PATH and HOME included; ``restart_time`` grows by one for each restart of a running process,
whether asked for or after a crash, and stays the same when a stopped one is started.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config import Pm2Settings
from .errors import CutoverError
from .files import write_new
from .process import SYSTEM_PATH, Completed, run, user_home

_RESTART_TIMEOUT = 60.0
_LIST_TIMEOUT = 30.0
_DROPPED = frozenset(
    {"NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE", "NODE_UNIQUE_ID", "SENTRY_EVENT_ID"}
)
_NODE_OPTIONS_WITH_VALUE = frozenset(
    {"-r", "--require", "--import", "--loader", "--env-file", "--env-file-if-exists"}
)


@dataclass(frozen=True)
class Process:
    """One entry of PM2's list. ``started_at`` is epoch seconds; ``environment`` may hold secrets."""

    name: str
    pm_id: int
    pid: int
    status: str
    started_at: float
    restarts: int
    cwd: str
    interpreter: str
    node_options: tuple[str, ...]
    cron_job: bool
    module: bool
    environment: Mapping[str, str] = field(repr=False)

    @property
    def online(self) -> bool:
        """Whether PM2 calls it online and it has a process id."""
        return self.status == "online" and self.pid > 0

    @property
    def idle_job(self) -> bool:
        """A job of ``cron_restart`` with ``autorestart: false`` that waits for its next run."""
        return self.cron_job and self.status == "stopped"

    @property
    def healthy(self) -> bool:
        """Online, or a cron job between two runs."""
        return self.online or self.idle_job


def _scalar(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    return None


def _node_options(arguments: object) -> tuple[str, ...]:
    """Those of the interpreter's options that load code or variables, in their order."""
    words = [str(word) for word in arguments] if isinstance(arguments, list) else str(arguments or "").split()
    kept: list[str] = []
    for index, word in enumerate(words):
        if word in _NODE_OPTIONS_WITH_VALUE and index + 1 < len(words):
            kept += [word, words[index + 1]]
        elif word.split("=", 1)[0] in _NODE_OPTIONS_WITH_VALUE and "=" in word:
            kept.append(word)
    return tuple(kept)


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
        node_options=_node_options(details.get("node_args")),
        cron_job=bool(details.get("cron_restart")) and details.get("autorestart") is False,
        module=bool(details.get("pmx_module")),
        environment=environment,
    )


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
        address = self.settings.home / "rpc.sock"
        if len(os.fsencode(address)) > 107 or not address.is_socket():
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(3)
            try:
                client.connect(str(address))
            except (ConnectionRefusedError, FileNotFoundError):
                return False
            except OSError:
                return True
        return True

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
        if not variables:
            done = self._call(["restart", str(process.pm_id)], timeout=_RESTART_TIMEOUT)
        else:
            own = {
                name: process.environment[name] for name in ("PATH", "HOME") if name in process.environment
            }
            done = self._call(
                ["restart", str(process.pm_id), "--update-env"],
                timeout=_RESTART_TIMEOUT,
                extra={**own, **variables},
            )
        if done.code != 0:
            raise CutoverError(f"pm2 restart of {process.name} failed with exit code {done.code}")

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

    def _call(
        self, arguments: Sequence[str], *, timeout: float, extra: Mapping[str, str] | None = None
    ) -> Completed:
        if not self.running:
            raise CutoverError(
                f"PM2 of user {self.settings.user} does not run: "
                f"nothing answers on {self.settings.home}/rpc.sock"
            )
        return run(
            [*self.command(), *arguments],
            environment={**self.base_environment(), **(extra or {})},
            timeout=timeout,
            user=self.settings.user,
        )


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
