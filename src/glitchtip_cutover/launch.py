"""How a service's Node.js process was started, and a second process started in just that way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from glitchtip_core.foreign_files import is_file
from glitchtip_core.process import Completed, Identity, run

from .errors import ProcessGoneError, UnprovenServiceError
from .running import Running, parse_command, shareable_options, single_node_process

if TYPE_CHECKING:
    from .manager import Process

# Sockets, channels and notifications of the service itself.
_OWN_VARIABLES = re.compile(
    r"NODE_CHANNEL_(FD|SERIALIZATION_MODE)|NODE_UNIQUE_ID|SENTRY_EVENT_ID|NOTIFY_SOCKET|WATCHDOG_(PID|USEC)"
    r"|LISTEN_(FDS|PID|FDNAMES)|JOURNAL_STREAM|INVOCATION_ID|SYSTEMD_EXEC_PID|MAINPID"
)


@dataclass(frozen=True)
class Launch:
    """A command line of Node.js with all that decides what it does. ``environment`` holds secrets.

    ``pid`` is the process that it was read from, 0 for a job that rests. ``identity`` is None where the manager
    names the user.
    """

    executable: str
    options: tuple[str, ...]
    script: str
    arguments: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str] = field(repr=False)
    identity: Identity | None = None
    pid: int = 0
    apart: bool = False

    def argv(self, option: str) -> list[str]:
        """The command line with one more option; that loads last of all that is loaded before the script."""
        return [self.executable, *self.options, option, self.script, *self.arguments]


def launch_of_process(process: Process) -> Launch:
    """How the running process of a service was started, as the kernel shows it.

    Raises ProcessGoneError when it is gone, UnprovenServiceError where that cannot be determined.
    """
    running, command = single_node_process(process.name, process.pid, process.command)
    return Launch(
        executable=_executable(process.name, running),
        options=shareable_options(command.options),
        script=command.script,
        arguments=command.arguments,
        # Where it was started: its code may have gone elsewhere since.
        cwd=process.cwd if running.pid == process.pid else running.cwd,
        environment=_shareable(running.environment),
        identity=Identity(running.user_id, running.group_id, running.groups),
        pid=running.pid,
        apart=running.apart,
    )


def launch_if_running(process: Process) -> Launch | None:
    """How the process was started; None for a job that rests, or whose run has ended since it was listed.

    Raises as ``launch_of_process``.
    """
    if not process.online:
        return None
    try:
        return launch_of_process(process)
    except ProcessGoneError:
        if process.cron_job:
            return None
        raise


def launch_of_job(process: Process, node: str, environment: Mapping[str, str]) -> Launch:
    """How the next run of a job that rests will be started, as its manager records it."""
    command = parse_command(process.command)
    if not command.script or not re.search(r"(^|/)node(js)?[-v0-9.]*$", process.command[0]):
        raise UnprovenServiceError(
            f"{process.name}: its manager starts {process.command[0] if process.command else 'nothing'} "
            "and not node, so no probe can stand in for a job that rests"
        )
    return Launch(
        node, shareable_options(command.options), command.script, command.arguments, process.cwd, environment
    )


def run_launch(launch: Launch, option: str, timeout: float, *, user: str | None = None) -> Completed:
    """Run it on this host with one more option, as its user and, where it has its own, with its files and network."""
    argv = launch.argv(option)
    if not launch.apart:
        return run(
            argv,
            environment=launch.environment,
            timeout=timeout,
            user=user if launch.identity is None else None,
            identity=launch.identity,
            cwd=launch.cwd,
        )
    enter = ["/usr/bin/nsenter", f"--target={launch.pid}", "--mount", "--net", "--root", "--"]
    if launch.identity is not None:
        groups = ",".join(str(group) for group in launch.identity.groups)
        enter += ["/usr/bin/setpriv", f"--reuid={launch.identity.user}", f"--regid={launch.identity.group}"]
        enter += [f"--groups={groups}" if groups else "--clear-groups", "--"]
    return run(
        [*enter, "/usr/bin/env", f"--chdir={launch.cwd}", *argv],
        environment=launch.environment,
        timeout=timeout,
    )


def _executable(name: str, running: Running) -> str:
    path = running.executable
    if path.endswith(" (deleted)"):
        path = path.removesuffix(" (deleted)")
        if not is_file(Path(path)):
            raise UnprovenServiceError(
                f"{name}: the Node.js of its process {running.pid} was removed from {path}; restart the service with "
                "the Node.js that is there now"
            )
    return path


def _shareable(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in environment.items() if not _OWN_VARIABLES.fullmatch(key)}
    if "NODE_OPTIONS" in kept:
        kept["NODE_OPTIONS"] = " ".join(shareable_options(kept["NODE_OPTIONS"].split()))
    return kept
