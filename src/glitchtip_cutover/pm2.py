"""PM2, called as its own user, and only when its daemon answers (a call would otherwise start a new one).

Facts measured with PM2 7.0.4: a plain ``restart`` keeps the environment the process was first started with,
so a DSN in there outlives any edit of ``.env``; ``restart --update-env`` takes over the caller's whole
environment, PATH and HOME included; ``restart_time`` grows by one for each restart of a running process,
whether asked for or after a crash, and stays the same when a stopped one is started.
``restart a b c`` restarts one after the other, whatever ``PM2_CONCURRENT_ACTIONS`` says; ``restart /regex/
--parallel N`` restarts all that match at the same time. A service whose SDK cannot reach its tracker takes
seconds to stop, so the difference is that of one such stop and of eight.
How PM2 is called, and how its list is read, is in ``glitchtip_core``.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from glitchtip_core import pm2 as core
from glitchtip_core.foreign_files import is_file, open_directory, read, write_over
from glitchtip_core.foreign_paths import ForeignError, Found
from glitchtip_core.json_text import decode_json
from glitchtip_core.pm2_list import Pm2Entry, as_text
from glitchtip_core.process import SYSTEM_PATH, Completed, user_home

from .config import Pm2Settings
from .errors import CutoverError, StoppedError
from .launch import Launch, launch_if_running, launch_of_job, run_launch
from .manager import Process as Process
from .manager import Restart, file_watcher, raise_all
from .running import read_running

_RESTART_TIMEOUT = 60.0
_AT_ONCE = 8
#: No saved list is larger (bytes).
_LIST_BYTES = 64 * 1024 * 1024
_DROPPED = frozenset(
    {"NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE", "NODE_UNIQUE_ID", "SENTRY_EVENT_ID"}
)


def process_of(found: Pm2Entry) -> Process:
    """An entry of PM2's list as the switch sees it; the environment is what PM2 gives to the next process of that name."""
    return Process(
        name=found.name,
        pm_id=found.pm_id,
        pid=found.pid,
        status=found.status,
        started_at=found.started_at,
        restarts=found.restarts,
        cwd=found.cwd,
        interpreter=found.interpreter,
        cron_job=found.job,
        module=found.module,
        environment={name: text for name, text in found.environment.items() if name not in _DROPPED},
        watches_files=_watching(found),
        command=_command(found),
    )


def _command(found: Pm2Entry) -> tuple[str, ...]:
    """The command line of PM2's record; without an interpreter (``none``) the program itself is the script."""
    start = [] if found.interpreter == "none" else [found.interpreter, *_words(found.node_args)]
    return (*start, found.script, *_words(found.args))


def _watching(found: Pm2Entry) -> str:
    """The setting by which a changed file restarts the process; empty where there is none.

    PM2 mixes the service's environment into its settings: a text is a variable called ``watch`` and counts only
    where it says so.
    """
    watch = found.watch
    if watch is True or (isinstance(watch, list | dict) and watch):
        return "watch"
    if isinstance(watch, str) and watch.lower() in ("true", "1"):
        return "watch"
    return file_watcher([found.script, *_words(found.node_args), *_words(found.args)])


def _words(value: object) -> list[str]:
    return [as_text(word) for word in value] if isinstance(value, list) else as_text(value).split()


def access_of(settings: Pm2Settings) -> core.Access:
    """The configuration as the shared calls want it."""
    return core.Access(settings.user, settings.binary, settings.home, settings.node)


def check_node(settings: Pm2Settings) -> None:
    """Raise CutoverError when the Node.js that runs PM2 and the probes is not there."""
    node = core.find_node(access_of(settings))
    if not is_file(node):
        raise CutoverError(f"there is no Node.js at {node}")


class Pm2:
    """PM2 of one user. ``env_key``: the variable that the services' environments are read for.

    ``configured``: the processes whose entries in PM2's list are read strictly; None: all are needed.
    """

    def __init__(
        self, settings: Pm2Settings, env_key: str = "", configured: Collection[str] | None = None
    ) -> None:
        self.settings = settings
        self.env_key = env_key
        self.configured = configured

    @property
    def running(self) -> bool:
        """Whether a daemon listens on its socket; a file left over from a power cut refuses connections.

        A daemon that is too busy to take the connection at once runs all the same; that of a user who does not
        exist does not.
        """
        try:
            return core.listener(self.access.pm2_home()) is not None
        except StoppedError:
            raise
        except CutoverError:
            return False

    def processes(self) -> list[Process]:
        """PM2's list. Raises CutoverError when the daemon does not run or does not answer."""
        listed = core.list_processes(self.access, configured=self.configured)
        return [self._with_inherited(process_of(entry)) for entry in listed]

    def _with_inherited(self, process: Process) -> Process:
        """With the value of ``env_key`` that PM2's list does not show: a worker of the cluster mode also has the
        environment of PM2's daemon."""
        if not self.env_key or not process.online or self.env_key in process.environment:
            return process
        running = read_running(process.pid)
        value = running.environment.get(self.env_key) if running else None
        if value is None:
            return process
        return dataclasses.replace(process, environment={**process.environment, self.env_key: value})

    def restart(self, process: Process, variables: Mapping[str, str] | None = None) -> None:
        """Restart one process; with ``variables`` these are set in its PM2 environment.

        PATH and HOME of the process are passed along, so that nothing else of its environment changes.
        """
        extra = _extra(process, variables)
        arguments = ["restart", str(process.pm_id), *(["--update-env"] if extra else [])]
        done = self._call(arguments, timeout=_RESTART_TIMEOUT, extra=extra)
        if done.code != 0:
            raise CutoverError(core.failure(f"restart of {process.name}", done))

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
            raise CutoverError(core.failure("save", done))

    def recorded(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def rewrite_dump(self, key: str, values: Mapping[str, str]) -> list[str]:
        """Set ``key`` in the saved list for the services of ``values`` that carry it; return those changed.

        For the time before PM2 is started at boot: it then resurrects every service with the right value.
        """
        changed: list[str] = []
        try:
            home = open_directory(self.home)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CutoverError(f"PM2's home {self.home} cannot be read: {error.strerror}") from None
        with home:
            for name in ("dump.pm2", "dump.pm2.bak"):
                changed += _rewrite_list(home, name, key, values)
        return sorted(set(changed))

    @property
    def access(self) -> core.Access:
        """Whose PM2 it is, for the shared calls."""
        return access_of(self.settings)

    @property
    def home(self) -> Path:
        """The PM2_HOME, the given one or that of the user. Raises CutoverError when there is no such user."""
        return self.access.pm2_home()

    @property
    def node(self) -> Path:
        """The Node.js of this PM2, the given one or the one that is found. Raises CutoverError without one."""
        return core.find_node(self.access)

    def launch(self, process: Process) -> Launch:
        """As the kernel shows it, or for a job that rests as PM2 would start it; PM2 itself is not asked."""
        if running := launch_if_running(process):
            return running
        home = user_home(self.settings.user)
        environment = {"PATH": SYSTEM_PATH, "HOME": home, **process.environment}
        return launch_of_job(process, str(self.node), environment)

    def run_launch(self, process: Process, launch: Launch, option: str, timeout: float) -> Completed:
        """Run it as the process's own user, or as PM2's."""
        return run_launch(launch, option, timeout, user=process.user or self.settings.user)

    def _call(
        self, arguments: Sequence[str], *, timeout: float, extra: Mapping[str, str] | None = None
    ) -> Completed:
        """Run PM2's command line against the daemon that runs, and never start one."""
        return core.call(self.access, arguments, timeout=timeout, extra=extra)


def _extra(process: Process, variables: Mapping[str, str] | None) -> dict[str, str]:
    """The caller's variables of a restart that sets ``variables``: PATH and HOME stay those of the process."""
    if not variables:
        return {}
    own = {name: process.environment[name] for name in ("PATH", "HOME") if name in process.environment}
    return {**own, **variables}


def _rewrite_list(home: Found, name: str, key: str, values: Mapping[str, str]) -> list[str]:
    """Set ``key`` in one saved list in the open PM2_HOME; the services changed.

    Raises CutoverError when ``dump.pm2`` is there and cannot be read, or when a list cannot be written.
    """
    try:
        seen = read(home, _LIST_BYTES, name)
        data, why = decode_json(seen.data), "it is no list"
    except FileNotFoundError:
        return []
    except (OSError, ValueError, ForeignError) as error:
        data, why = None, str(error) if isinstance(error, ForeignError) else type(error).__name__
    if not isinstance(data, list):
        if name == "dump.pm2":
            raise CutoverError(f"PM2's saved list {home.asked / name} cannot be read: {why}")
        return []
    touched = [as_text(entry["name"]) for entry in data if _rewrite_entry(entry, key, values)]
    if touched:
        text = json.dumps(data, indent=2).encode()
        write_over(home, text, mode=seen.mode, owner=seen.owner, seen=seen, replaces=seen, name=name)
    return touched


def _rewrite_entry(entry: Any, key: str, values: Mapping[str, str]) -> bool:
    """Set ``key`` wherever one entry of the saved list carries it; True when something changed."""
    name = as_text(entry.get("name")) if isinstance(entry, dict) else ""
    if name not in values:
        return False
    changed = False
    for place in (entry, entry.get("env"), entry.get("pm2_env")):
        if isinstance(place, dict) and key in place and place[key] != values[name]:
            place[key] = values[name]
            changed = True
    return changed
