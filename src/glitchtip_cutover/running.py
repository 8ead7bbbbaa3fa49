"""What the kernel shows of a service's processes: environment, command line, directory, program, user, start time.

A manager's list says how a service was asked to be started; the processes say how it runs. They differ where a
daemon hands its own environment on (PM2's cluster mode, ``systemctl set-environment``), where a shell or npm sets
variables or options, and where an entry point of an image does.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from glitchtip_core.cgroups import kernel_text
from glitchtip_core.json_text import decode_json

from .errors import ProcessGoneError, UnprovenServiceError

PROC = Path("/proc")
_NODE = re.compile(r"node(js)?[-v0-9.]*")
_DELETED = " (deleted)"
# Programs in Node.js that start the service in a process of its own.
_LAUNCHERS = frozenset(
    {
        "npm", "npx", "pnpm", "pnpx", "yarn", "yarnpkg", "corepack", "bun", "pm2", "pm2-runtime", "pm2-docker", "dotenv",
        "dotenvx", "cross-env", "cross-env-shell", "env-cmd", "nodemon", "concurrently", "run-s", "run-p",
        "npm-run-all", "tsx", "ts-node-dev", "node-dev", "npm-cli.js", "npx-cli.js", "pnpm.cjs", "pnpm.js", "yarn.js",
        "yarn.cjs", "corepack.js",
    }
)  # fmt: skip
_OPTIONS_WITH_VALUE = frozenset(
    {
        "-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions", "--env-file",
        "--env-file-if-exists", "--title", "--input-type", "--inspect-port", "--icu-data-dir", "--openssl-config",
        "--redirect-warnings", "--diagnostic-dir", "--dns-result-order", "--unhandled-rejections", "--disable-warning",
        "--max-http-header-size", "--report-dir", "--report-directory", "--watch-path", "--trace-event-categories",
        "--heapsnapshot-signal", "--tls-cipher-list", "--experimental-default-type", "--es-module-specifier-resolution",
    }
)  # fmt: skip
# Options of the service that a short run beside it must not have: ports, files and signals are the service's.
_OWN_OPTIONS = re.compile(
    r"--(inspect|debug|watch|prof|cpu-prof|heap-prof|heapsnapshot|report|title|perf|trace-event|diagnostic-dir)"
)
_CODE_OPTIONS = ("-e", "--eval", "-p", "--print", "-pe")


@dataclass(frozen=True)
class Running:
    """One process. ``started_at`` is epoch seconds (0 where it is not known); ``environment`` holds secrets.

    ``environment`` is what the process was given, for a worker of PM2's cluster mode with the values that PM2 puts
    over it before the service's code is loaded. ``apart``: it has a file system or network of its own.
    """

    pid: int
    parent: int
    started_at: float
    argv: tuple[str, ...]
    executable: str
    cwd: str
    environment: Mapping[str, str] = field(repr=False)
    user_id: int = 0
    group_id: int = 0
    groups: tuple[int, ...] = ()
    apart: bool = False

    @property
    def is_node(self) -> bool:
        """Whether its program is Node.js."""
        return _NODE.fullmatch(PurePosixPath(self.executable.removesuffix(_DELETED)).name) is not None


@dataclass(frozen=True)
class Command:
    """A command line of Node.js in its parts; ``script`` is empty where it names none (``-e``, a title)."""

    options: tuple[str, ...]
    script: str
    arguments: tuple[str, ...]


def parse_command(words: Sequence[str]) -> Command:
    """Split ``node OPTIONS SCRIPT ARGUMENTS``."""
    options: list[str] = []
    index = 1
    while index < len(words):
        word = words[index]
        if word in _CODE_OPTIONS or word.split("=", 1)[0] in ("--eval", "--print"):
            return Command(tuple(options), "", ())
        if word == "--":
            index += 1
            break
        if not word.startswith("-") or word == "-":
            break
        options.append(word)
        if word in _OPTIONS_WITH_VALUE and index + 1 < len(words):
            index += 1
            options.append(words[index])
        index += 1
    script = words[index] if index < len(words) else ""
    return Command(tuple(options), script, tuple(words[index + 1 :]))


def shareable_options(options: Sequence[str]) -> tuple[str, ...]:
    """Options that a second process may have at the same time: without debuggers, profilers and watchers."""
    kept: list[str] = []
    skip = False
    for index, word in enumerate(options):
        if skip:
            skip = False
            continue
        if _OWN_OPTIONS.match(word):
            following = options[index + 1] if index + 1 < len(options) else "-"
            skip = word in _OPTIONS_WITH_VALUE and not following.startswith("-")
            continue
        kept.append(word)
    return tuple(kept)


def read_running(pid: int) -> Running | None:
    """The process of that id; None when there is none, or when it may not be read."""
    directory = PROC / str(pid)
    try:
        environment = _parse_environment((directory / "environ").read_bytes())
        argv = tuple(_text((directory / "cmdline").read_bytes()).rstrip("\0").split("\0"))
        executable = os.readlink(directory / "exe")
        cwd = os.readlink(directory / "cwd")
    except OSError:
        return None
    parent, started_at = _stat(directory)
    identity = _identity(directory)
    return Running(
        pid, parent, started_at, argv, executable, cwd, environment, *identity, apart=_is_apart(directory)
    )


def service_processes(
    name: str, pid: int, command: Sequence[str] = ()
) -> list[tuple[Running, tuple[str, ...]]]:
    """The processes that do a service's work, each with its command line.

    That is the process which the manager knows, or the Node.js that npm, a shell or another launcher runs below it. ``command``
    is the manager's own record of the command line, for processes that overwrite theirs with a title. Raises
    ProcessGoneError when the process is gone.
    """
    root = read_running(pid)
    if root is None:
        raise ProcessGoneError(f"{name}: its process {pid} is gone, or cannot be read")
    own = root.argv
    if command and root.is_node and not _is_intact(root.argv):
        # A script that is started by its own name (npm) runs on the Node.js of its first line.
        is_node = _NODE.fullmatch(PurePosixPath(command[0]).name) is not None
        own = tuple(command) if is_node else ("node", *command)
    return _workers(root, own, _parents()) or [(root, own)]


def _workers(
    running: Running, argv: tuple[str, ...], children: Mapping[int, list[int]]
) -> list[tuple[Running, tuple[str, ...]]]:
    below: list[tuple[Running, tuple[str, ...]]] = []
    if not running.is_node or _is_launcher(argv):
        for pid in children.get(running.pid, []):
            child = read_running(pid)
            if child is not None:
                below += _workers(child, child.argv, children)
    if below:
        return below
    return [(running, argv)] if running.is_node else []


def _is_intact(argv: Sequence[str]) -> bool:
    """Whether the kernel still shows the command line of the service: no title, and no container of PM2's."""
    script = parse_command(argv).script
    return (
        _NODE.fullmatch(PurePosixPath(argv[0]).name) is not None
        and bool(script)
        and not re.fullmatch(r"ProcessContainer\w*\.js", PurePosixPath(script).name)
    )


def _is_launcher(argv: Sequence[str]) -> bool:
    """Whether this command line only starts others; npm shows ``npm start`` as its title."""
    if "--run" in argv[1:2]:  # node --run: a script of package.json
        return True
    script = parse_command(argv).script or (argv[0].split(" ", 1)[0] if argv else "")
    return PurePosixPath(script).name in _LAUNCHERS or "/node_modules/" in script


def single_node_process(name: str, pid: int, command: Sequence[str] = ()) -> tuple[Running, Command]:
    """The one Node.js process of a service. Raises UnprovenServiceError when there is none, or more than one."""
    found = service_processes(name, pid, command)
    if not found[0][0].is_node:
        program = PurePosixPath(found[0][0].executable).name
        raise UnprovenServiceError(
            f"{name}: its process {pid} ({program}) runs no Node.js, so no probe can stand in for it"
        )
    if len(found) > 1:
        pids = ", ".join(str(running.pid) for running, _ in found)
        raise UnprovenServiceError(
            f"{name}: {len(found)} Node.js processes ({pids}) run below process {pid}, "
            "so no single probe can stand in for it"
        )
    running, argv = found[0]
    parsed = parse_command(argv)
    if not _is_intact(argv):
        raise UnprovenServiceError(
            f"{name}: the command line of its process {running.pid} does not show the script that it runs "
            "(it may set process.title), so no probe can run the same"
        )
    return running, parsed


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _parse_environment(data: bytes) -> dict[str, str]:
    """Variables of ``environ``; PM2's cluster mode puts those of ``pm2_env`` over the daemon's."""
    variables = dict(line.split("=", 1) for line in _text(data).split("\0") if "=" in line)
    with contextlib.suppress(ValueError, RecursionError):
        over = decode_json(variables.pop("pm2_env", "{}"))
        for key, value in over.items() if isinstance(over, dict) else ():
            if isinstance(value, bool):
                variables[key] = "true" if value else "false"
            elif isinstance(value, str | int | float):
                variables[key] = str(value)
    return variables


def _stat(directory: Path) -> tuple[int, float]:
    """Parent's id, and when the process was started."""
    try:
        fields = (directory / "stat").read_text(errors="replace").rpartition(")")[2].split()
        ago = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return int(fields[1]), time.time() - ago
    except (OSError, ValueError, IndexError):
        return 0, 0.0


def _identity(directory: Path) -> tuple[int, int, tuple[int, ...]]:
    """Effective user, group and further groups."""
    found = {"Uid": [0, os.geteuid()], "Gid": [0, os.getegid()], "Groups": []}
    with contextlib.suppress(OSError, ValueError):
        for line in kernel_text(directory / "status").split("\n"):
            key, _, values = line.partition(":")
            if key in found:
                found[key] = [int(value) for value in values.split()]
    return found["Uid"][1], found["Gid"][1], tuple(found["Groups"])


def _is_apart(directory: Path) -> bool:
    """Whether the process sees other files or another network than we do."""
    for kind in ("mnt", "net"):
        with contextlib.suppress(OSError):
            if os.readlink(directory / "ns" / kind) != os.readlink(PROC / "self" / "ns" / kind):
                return True
    return False


def _parents() -> dict[int, list[int]]:
    """Ids of the children of every process."""
    found: dict[int, list[int]] = {}
    for directory in PROC.glob("[0-9]*"):
        parent, _ = _stat(directory)
        if parent:
            found.setdefault(parent, []).append(int(directory.name))
    return {parent: sorted(pids) for parent, pids in found.items()}
