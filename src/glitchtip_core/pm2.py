"""The one way to call PM2: as its own user, with its PM2_HOME and its Node.js, never starting a daemon.

``pm2`` is a Node.js script that begins with ``#!/usr/bin/env node``. Under nvm neither is on root's PATH, nor on that
of a systemd unit, so the script is handed to a Node.js whose path is known, and the environment is always the same,
whoever calls: a playbook over SSH, a timer or an operator.

A command line that finds no daemon starts one, with ``PM2_NODE_OPTIONS`` as options of its Node.js: an option that
does not exist keeps such a daemon from coming up (and the command ends with code 0 all the same; PM2 7.0.4).
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import CoreError, StoppedError
from .foreign_files import first_bytes, is_program, open_socket
from .foreign_paths import ForeignError, real_path
from .pm2_list import Pm2Entry, read_entries
from .process import SYSTEM_PATH, Completed, account_of, run, user_name

LIST_TIMEOUT = 30.0
NO_DAEMON = {"PM2_NODE_OPTIONS": "--no-new-daemon-is-wanted"}
_SPAWNED = "Spawning PM2 daemon"
_DAEMON_TITLE = re.compile(rb"^PM2 v(?P<version>[^:]*): God Daemon \((?P<home>[^)\0]*)")
_SYSTEM_NODES = (Path("/usr/local/bin/node"), Path("/usr/bin/node"))


@dataclass(frozen=True)
class Access:
    """Whose PM2 is called and with what. ``home`` None: ``.pm2`` in the user's home; ``node`` None: it is found."""

    user: str
    binary: Path
    home: Path | None = None
    node: Path | None = None

    @staticmethod
    def of(user: str, home: str, binary: str, node: str) -> Access:
        """From settings, in which an empty ``home`` or ``node`` means that it is derived."""
        return Access(user, Path(binary), Path(home) if home else None, Path(node) if node else None)

    def pm2_home(self) -> Path:
        """The PM2_HOME. Raises CoreError when it is not given and there is no such user."""
        return self.home if self.home is not None else Path(account_of(self.user).pw_dir) / ".pm2"


@dataclass(frozen=True)
class Daemon:
    """A PM2 daemon: process id, user, PM2_HOME and version, as far as they can be read."""

    pid: int
    user: str
    home: str
    version: str


# --- the daemon -------------------------------------------------------------------------------------------


def listener(home: Path) -> tuple[int, int] | None:
    """(process id, user id) of what listens on the socket below ``home``; None when nothing does.

    A socket file that a dead daemon left refuses connections. A daemon that is too busy to take the connection at
    once gives (-1, -1). Raises CoreError when we may not connect.
    """
    address = home / "rpc.sock"
    try:
        with open_socket(address) as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(3)
            client.connect(path)
            credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except PermissionError:
        raise CoreError(f"the socket {address} may not be opened: run this as root or as the user of PM2") from None
    except (ConnectionRefusedError, FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return -1, -1
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid


def check_daemon(access: Access) -> int:
    """Process id of the daemon (-1: too busy to tell). Raises CoreError unless one of exactly this user answers."""
    home, user = access.pm2_home(), access.user
    account = account_of(user)
    found = listener(home)
    if found is None:
        message = f"PM2 of user {user} does not run: nothing answers on {home}/rpc.sock"
        others = [f"{each.user} (PM2_HOME {each.home})" for each in find_daemons() if each.home != str(home)]
        if others:
            message += f"; PM2 runs here as user {', '.join(others)}: set the user and home of PM2 to that"
        raise CoreError(message)
    pid, uid = found
    if uid >= 0 and uid != account.pw_uid:
        owner = user_name(uid)
        raise CoreError(f"PM2 at {home} runs as user {owner}, not as {user}: set the user of PM2 to {owner}")
    return pid


def find_daemons(proc: Path = Path("/proc")) -> list[Daemon]:
    """Every PM2 daemon of this process namespace, known by the title that it gives its process, by process id.

    A title is cut to the length of the command line before it, so the home is taken from the environment.
    """
    here = _namespace(proc / "self")
    found: list[Daemon] = []
    for directory in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            title = _DAEMON_TITLE.match((directory / "cmdline").read_bytes())
            if title is None or _namespace(directory) != here:
                continue
            owner, home = user_name(directory.stat().st_uid), title["home"]
            with contextlib.suppress(OSError):
                variables = (directory / "environ").read_bytes().split(b"\0")
                home = next((line[9:] for line in variables if line.startswith(b"PM2_HOME=")), home)
            version = title["version"].decode("ascii", "replace")
            found.append(Daemon(int(directory.name), owner, os.fsdecode(home), version))
        except OSError:
            continue
    return found


def _namespace(process: Path) -> str:
    """The process namespace: a daemon in a container has another one."""
    try:
        return os.readlink(process / "ns" / "pid")
    except OSError:
        return ""


# --- programs ---------------------------------------------------------------------------------------------


def first_line(path: Path) -> bytes:
    """The first 200 bytes of a regular file, up to the end of the line; it may lie in another user's directory.

    Raises OSError when it cannot be opened, ForeignError when it is no regular file.
    """
    return first_bytes(path, 200).split(b"\n", 1)[0]


def find_node(access: Access, proc: Path = Path("/proc")) -> Path:
    """The Node.js of this PM2: the given one, else the first of these that exists.

    ``bin/node`` above the place that ``pm2`` is or links to (the prefix of npm: nvm's version, ``/usr/local``, ``/usr``);
    ``node`` beside ``pm2``; the program that the user's running daemon was started with; Node.js of the system.

    Raises CoreError when there is none.
    """
    if access.node is not None:
        return access.node
    real = real_path(access.binary)
    above = (parent / "bin" / "node" for parent in real.parents if parent != Path("/"))
    for candidate in (*above, access.binary.parent / "node"):
        if is_program(candidate):
            return candidate
    for known in (_daemon_program(access, proc), *_SYSTEM_NODES):
        if known is not None and is_program(known):
            return known
    raise CoreError(
        f"there is no Node.js beside {access.binary}, in /usr/local/bin or in /usr/bin: "
        f"give the path of the node that PM2 of user {access.user} runs with"
    )


def _daemon_program(access: Access, proc: Path) -> Path | None:
    """What the user's running daemon was started with; None when none runs or it cannot be read."""
    try:
        found = listener(access.pm2_home())
        if found is None or found[0] <= 0 or found[1] != account_of(access.user).pw_uid:
            return None
        return Path(os.readlink(proc / str(found[0]) / "exe"))
    except StoppedError:
        raise
    except (OSError, CoreError):
        return None


def command(access: Access) -> list[str | Path]:
    """How PM2 is started: handed to its Node.js when it is a Node.js script, else (a shell script) by itself.

    Raises CoreError when it cannot be read, or there is no Node.js for it.
    """
    try:
        begin = first_line(access.binary)
    except ForeignError as error:
        raise CoreError(f"pm2 is not at {access.binary}: {error}") from None
    except OSError as error:
        raise CoreError(f"pm2 is not at {access.binary}: {error.strerror}") from None
    if begin.startswith(b"#!") and b"node" in begin:
        return [find_node(access), access.binary]
    return [access.binary]


def environment(access: Access) -> dict[str, str]:
    """What PM2's command line needs, and nothing that could get into a service."""
    places = [str(access.binary.parent)]
    try:
        places.insert(0, str(find_node(access).parent))
    except StoppedError:
        raise
    except CoreError:
        pass  # PM2 is a program of its own, or the one that calls it says what is missing
    return {
        "PATH": ":".join(dict.fromkeys([*places, *SYSTEM_PATH.split(":")])),
        "HOME": account_of(access.user).pw_dir,
        "PM2_HOME": str(access.pm2_home()),
    }


def call(
    access: Access, arguments: Sequence[str], *, timeout: float, extra: Mapping[str, str] | None = None
) -> Completed:
    """Run PM2's command line against the daemon that runs, and never start one.

    ``extra`` variables are for ``--update-env``, which writes them into the service's environment; the guard against a
    daemon that vanishes in this very moment cannot go along with them, so then only the output tells.

    Raises CoreError when no daemon of this user answers or PM2 cannot be run; an exit code other than 0 is no error.
    """
    check_daemon(access)
    done = run(
        [*command(access), *arguments],
        environment={**environment(access), **(extra or NO_DAEMON)},
        timeout=timeout,
        user=access.user,
    )
    if _SPAWNED in done.output:
        raise CoreError(f"PM2 of user {access.user} went away while it was asked")
    return done


def list_processes(
    access: Access, *, timeout: float = LIST_TIMEOUT, configured: Collection[str] | None = None
) -> list[Pm2Entry]:
    """PM2's processes; ``configured`` as in ``read_entries``.

    Raises CoreError when they cannot be listed, with the reason that PM2 gives.
    """
    done = call(access, ["jlist"], timeout=timeout)
    if done.code != 0:
        raise CoreError(failure("jlist", done))
    return read_entries(done.output, configured)


def failure(action: str, done: Completed) -> str:
    """The sentence about a PM2 command that ended with another exit code than 0."""
    reason = f": {done.complaint}" if done.complaint else ""
    return f"pm2 {action} failed with exit code {done.code}{reason}"
