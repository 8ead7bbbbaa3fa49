"""Who is at the other end of a connection to this host itself: checked before a token goes through it.

GlitchTip listens on 127.0.0.1. While its containers are stopped or booting, or the SSH tunnel is between two tries, any
user of the host can bind that port and would be sent the tokens of root's tools. So the *open connection* is looked up in
the kernel's table (``/proc/net/tcp``, ``tcp6``): which socket of this host took it, of which user and processes. Looking at
the port before connecting would leave a gap in which another one takes it.

Allowed is a socket that only these hold:

- processes of root, and of our own user: they can read the token where it is kept. Of Docker's own (``docker-proxy``,
  ``dockerd``) the container behind them must be the service ``web`` of a Compose project that publishes this port;
- the processes of the system's units ``glitchtip-tunnel.service`` (role tunnel) and ``glitchtip-mirror.service`` (the
  mirror of the parallel run), whatever their user: only root can put a process into such a cgroup.

Where no socket of this host has the connection, a rule of the kernel's NAT passed it on (Docker without its userland
proxy, whose daemon holds the port all the same). Only root sets such rules; the container that publishes the port must be
the expected one. A port at which nothing listens refuses the connection, and nothing is sent.

Not checked: connections over TLS, where the certificate says who answers, and other hosts. Without root's rights the
processes of others cannot be seen; then the user of the socket decides alone.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import CoreError
from .json_text import decode_json
from .process import run, search_path, user_name

#: The system's units that stand for GlitchTip: the tunnel to its server (role tunnel), and the mirror in front of it.
UNITS = ("glitchtip-tunnel.service", "glitchtip-mirror.service")
#: The service of the Compose project that publishes the port (role glitchtip).
WEB_SERVICE = "web"
_ENGINES = frozenset({"docker-proxy", "dockerd"})
_PROC = Path("/proc")
_LISTENING, _UNKNOWN_INODE = "0A", 0
_DOCKER_SECONDS = 15.0
_KEPT_SECONDS = 5.0
_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
End = tuple[Address, int]


class ListenerError(CoreError):
    """Somebody else answers at the address; the sentence names process and user. Nothing was sent."""


@dataclass(frozen=True)
class Entry:
    """A TCP socket of this host: its ends, its state as the kernel writes it, its user, its inode (0: nobody took it yet)."""

    local: End
    remote: End
    state: str
    uid: int
    inode: int


@dataclass(frozen=True)
class Holder:
    """A process that has a socket open."""

    pid: int
    uid: int
    program: str
    in_unit: bool

    def __str__(self) -> str:
        return f"process {self.pid} ({self.program}) of user {user_name(self.uid)} (uid {self.uid})"


# --- what the kernel says -----------------------------------------------------------------------------------


def _plain(address: Address) -> Address:
    """An IPv4 address that is written as IPv6, as IPv4."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def parse_end(text: str) -> End:
    """``0100007F:1F90`` as the kernel writes it: words of the address in the host's byte order, port in hexadecimal."""
    words, _, port = text.partition(":")
    raw = bytes.fromhex(words)
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return _plain(ipaddress.ip_address(raw)), int(port, 16)


def parse_table(text: str) -> Iterator[Entry]:
    """The sockets of ``/proc/net/tcp`` or ``tcp6``. Lines that are none are left out."""
    for line in text.splitlines()[1:]:
        words = line.split()
        with contextlib.suppress(ValueError, IndexError):
            yield Entry(parse_end(words[1]), parse_end(words[2]), words[3], int(words[7]), int(words[9]))


def _entries(proc: Path) -> list[Entry]:
    found: list[Entry] = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            found += parse_table((proc / "net" / name).read_text("ascii"))
    return found


def _end_of(name: Sequence[Any]) -> End:
    return _plain(ipaddress.ip_address(str(name[0]).partition("%")[0])), int(name[1])


def _program_of(process: Path) -> str:
    """Name of the executable, printable; of another user's process the one that it gave itself."""
    try:
        name = os.path.basename(os.readlink(process / "exe")).removesuffix(" (deleted)")
    except OSError:
        try:
            name = (process / "comm").read_text("utf-8", "replace").strip()
        except OSError:
            name = "?"
    return "".join(sign if sign.isprintable() else "?" for sign in name)[:40]


def _uid_of(process: Path) -> int:
    """The user that a process acts as. Raises OSError, ValueError."""
    for line in (process / "status").read_text("utf-8", "replace").splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[2])
    raise ValueError


def is_in_unit(cgroups: str, unit: str) -> bool:
    """Whether ``/proc/PID/cgroup`` says that a process belongs to that unit of the system's own manager.

    A user's manager has units of any name, below ``user.slice``.
    """
    for line in cgroups.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        parts = path.split("/")
        ours = controllers in ("", "name=systemd") and parts[-2:] == ["system.slice", unit]
        if ours and "user.slice" not in parts:
            return True
    return False


def _holder(process: Path) -> Holder:
    """Raises OSError, ValueError when the process has ended."""
    cgroups = (process / "cgroup").read_text("utf-8", "replace")
    in_unit = any(is_in_unit(cgroups, unit) for unit in UNITS)
    return Holder(int(process.name), _uid_of(process), _program_of(process), in_unit)


def _has_open(process: Path, wanted: str) -> bool:
    with contextlib.suppress(OSError), os.scandir(process / "fd") as descriptors:
        for each in descriptors:
            with contextlib.suppress(OSError):
                if os.readlink(each.path) == wanted:
                    return True
    return False


def _holders(inode: int, proc: Path) -> list[Holder]:
    """The processes that have the socket open, as far as we may see them."""
    found: list[Holder] = []
    for process in proc.iterdir():
        if process.name.isdigit() and _has_open(process, f"socket:[{inode}]"):
            with contextlib.suppress(OSError, ValueError):
                found.append(_holder(process))
    return found


def _users_of_units(proc: Path) -> set[int]:
    """The users of our units' processes; everybody may read that."""
    found: set[int] = set()
    for process in proc.iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                holder = _holder(process)
                if holder.in_unit:
                    found.add(holder.uid)
    return found


# --- what Docker says ---------------------------------------------------------------------------------------


def _docker(*arguments: str) -> str:
    own = {name: os.environ[name] for name in ("HOME", "DOCKER_HOST") if name in os.environ}
    done = run(
        ["docker", *arguments],
        environment={"PATH": search_path(), "LANG": "C.UTF-8", **own},
        timeout=_DOCKER_SECONDS,
    )
    if done.code != 0:
        raise CoreError(f"docker {arguments[0]} failed: {done.complaint or 'no message'}")
    return done.output


def _publishes(container: Mapping[str, Any], port: int) -> bool:
    """Whether a container publishes that port of this host. Raises TypeError, AttributeError for another document."""
    ports = container.get("NetworkSettings", {}).get("Ports") or {}
    return any(str(each.get("HostPort")) == str(port) for bound in ports.values() for each in bound or [])


def require_container(port: int) -> None:
    """Raises ListenerError unless the running container that publishes ``port`` is the service ``web`` of a project."""
    try:
        ids = _docker("ps", "--quiet", "--no-trunc", "--filter", f"publish={port}").split()
        found = decode_json(_docker("inspect", "--type", "container", *ids)) if ids else []
        names = {
            str(each.get("Name", "?")).lstrip("/"): each.get("Config", {}).get("Labels") or {}
            for each in found
            if _publishes(each, port)
        }
    except (CoreError, ValueError, TypeError, AttributeError) as error:
        reason = str(error) if isinstance(error, CoreError) else "its answer is not understood"
        raise ListenerError(f"it is not known which container publishes port {port}: {reason}") from None
    if not names:
        raise ListenerError(f"no running container publishes port {port}")
    for name, labels in names.items():
        if labels.get(_SERVICE) != WEB_SERVICE or not labels.get(_PROJECT):
            raise ListenerError(
                f"port {port} is published by the container {name}, which is not GlitchTip's web server"
            )


# --- the judgement ------------------------------------------------------------------------------------------


class _Checked:
    """What was found to be good a moment ago: inodes of listening sockets, and ports that Docker was asked about."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, int], float] = {}

    def has(self, kind: str, number: int) -> bool:
        """Whether it was found to be good within the last seconds."""
        return time.monotonic() < self._until.get((kind, number), 0.0)

    def add(self, kind: str, number: int) -> None:
        """Keep it for some seconds."""
        self._until = {each: end for each, end in self._until.items() if end > time.monotonic()}
        self._until[kind, number] = time.monotonic() + _KEPT_SECONDS


_checked = _Checked()


def _own_users() -> set[int]:
    return {0, os.geteuid()}


def _require_socket(entry: Entry, proc: Path) -> None:
    """Raises ListenerError unless only expected processes hold the socket. The sentence is about the process alone."""
    if _checked.has("inode", entry.inode):
        return
    if os.geteuid() != 0:
        if entry.uid not in _own_users() | _users_of_units(proc):
            raise ListenerError(f"a process of user {user_name(entry.uid)} (uid {entry.uid}) listens there")
        return
    holders = _holders(entry.inode, proc)
    if not holders:
        raise ListenerError(f"a process that cannot be found, of uid {entry.uid}, listens there")
    for holder in holders:
        if not holder.in_unit and holder.uid not in _own_users():
            raise ListenerError(f"{holder} listens there")
    if any(holder.program in _ENGINES for holder in holders):
        _require_published(entry.local[1])
    _checked.add("inode", entry.inode)


def _require_published(port: int) -> None:
    if not _checked.has("port", port):
        require_container(port)
        _checked.add("port", port)


def _judge(own: End, peer: End, proc: Path) -> None:
    """Raises ListenerError, whose sentence is about what answers."""
    taken: Entry | None = None
    entries: list[Entry] = []
    for _ in range(2):  # the kernel's table may leave an entry out while it is read
        entries = _entries(proc)
        taken = next((each for each in entries if (each.local, each.remote) == (peer, own)), None)
        if taken is not None:
            break
    if taken is None:
        _require_published(peer[1])
        return
    listening = [
        each
        for each in entries
        if each.state == _LISTENING
        and each.local[1] == peer[1]
        and (each.local[0] == peer[0] or each.local[0].is_unspecified)
    ]
    if not listening and taken.inode == _UNKNOWN_INODE:
        raise ListenerError("what took the connection is gone")
    for entry in listening or [taken]:
        _require_socket(entry, proc)
    if taken.inode != _UNKNOWN_INODE and taken.uid not in _own_users() | {each.uid for each in listening}:
        raise ListenerError(f"a process of user {user_name(taken.uid)} (uid {taken.uid}) took the connection")


def require_expected(sock: socket.socket, proc: Path = _PROC) -> None:
    """Raises ListenerError when ``sock`` is connected to this host itself and somebody unexpected has the other end.

    Call it on a new connection, before anything is sent. Connections to other hosts pass, and so does everything on
    a system other than Linux, where the product does not run.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sys.platform != "linux":
        return
    try:
        own, peer = _end_of(sock.getsockname()), _end_of(sock.getpeername())
    except OSError:
        return  # it is closed already: sending will say so
    if not peer[0].is_loopback and peer[0] != own[0]:
        return
    try:
        _judge(own, peer, proc)
    except OSError as error:
        reason = f"{error.filename or 'the table of sockets'} cannot be read: {error.strerror}"
        raise ListenerError(_sentence(peer, reason)) from None
    except ListenerError as error:
        raise ListenerError(_sentence(peer, str(error))) from None


def stranger(sock: socket.socket) -> str:
    """Why nothing may be sent on ``sock``, as :func:`require_expected` says it; empty when it may."""
    try:
        require_expected(sock)
    except ListenerError as error:
        return str(error)
    return ""


def _sentence(peer: End, reason: str) -> str:
    host = f"[{peer[0]}]" if peer[0].version == 6 else str(peer[0])
    return (
        f"{host}:{peer[1]} is not served by GlitchTip: {reason}. Nothing was sent, no token left this process. "
        "End what listens there, or see why GlitchTip's containers or its tunnel do not run"
    )
