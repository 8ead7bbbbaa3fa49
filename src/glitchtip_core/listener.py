"""Who is at the other end of a connection to this host itself: checked before a token goes through it.

GlitchTip listens on 127.0.0.1. While its containers are stopped or booting, or the SSH tunnel is between two tries, any
user of the host can bind that port and would be sent the tokens of root's tools. So the *open connection* is looked up in
the kernel's table (``/proc/net/tcp``, ``tcp6``): which socket of this host took it, of which user and processes. Looking at
the port before connecting would leave a gap in which another one takes it.

Allowed is a socket that one of these made (the kernel keeps the user) and that only these hold:

- processes of root, and of our own user: they can read the token where it is kept. Of Docker's own (``docker-proxy``,
  ``dockerd``) the container behind them must be the service ``web`` of a Compose project that publishes this port;
- the processes of the system's units ``glitchtip-tunnel.service`` (role tunnel) and ``glitchtip-mirror.service`` (the
  mirror of the parallel run), whatever their user: only root can put a process into such a cgroup;
- the units and users that root names in :mod:`.allowed_listeners`' file, as for a reverse proxy or another tunnel;
- processes of any user, where root made the socket and a process of root still holds it: a server whose workers run
  without root's rights. PID 1 does not count, as systemd keeps the sockets that it opens for services of all users.

An allowed process may appear a moment later, so that a refusal says whether another try makes sense
(:attr:`ListenerError.passing`). What Docker says is asked within the seconds that the caller has left.

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import allowed_listeners
from .allowed_listeners import Allowed, SettingsError, read_allowed
from .cgroups import is_in_unit, kernel_text, text_of
from .errors import CoreError, StoppedError
from .json_text import decode_json
from .process import run, search_path, user_name

#: The service of the Compose project that publishes the port (role glitchtip).
WEB_SERVICE = "web"
_ENGINES = frozenset({"docker-proxy", "dockerd"})
_PROC = Path("/proc")
_LISTENING, _UNKNOWN_INODE = "0A", 0
#: Seconds for all questions to Docker about one connection, at most.
DOCKER_SECONDS = 15.0
_KEPT_SECONDS = 5.0
_INIT = 1
_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
End = tuple[Address, int]


class ListenerError(CoreError):
    """Somebody else answers at the address; the sentence names process and user. Nothing was sent.

    ``passing``: it is not known who answers, or nobody does yet, so that another try may find GlitchTip.
    """

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


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
    is_root: bool
    cgroups: str = field(repr=False)

    def is_allowed(self, allowed: Allowed) -> bool:
        """Whether it belongs to an allowed unit or user."""
        return self.uid in allowed.users or any(is_in_unit(self.cgroups, unit) for unit in allowed.units)

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


def parse_table(text: str, port: int) -> Iterator[Entry]:
    """The sockets of ``/proc/net/tcp`` or ``tcp6`` whose own end has that port. Lines that are none are left out.

    A busy host has tens of thousands of lines: only those that name the port are taken apart.
    """
    named = f":{port:04X}"
    for line in text.splitlines()[1:]:
        if named not in line:
            continue
        words = line.split()
        if len(words) < 2 or not words[1].endswith(named):
            continue
        with contextlib.suppress(ValueError, IndexError):
            yield Entry(parse_end(words[1]), parse_end(words[2]), words[3], int(words[7]), int(words[9]))


def _entries(proc: Path, port: int) -> list[Entry]:
    found: list[Entry] = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            found += parse_table((proc / "net" / name).read_text("ascii"), port)
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


def _users_of(process: Path) -> tuple[int, ...]:
    """The users of a process: real, effective, saved, for files. Raises OSError, ValueError."""
    for line in kernel_text(process / "status").split("\n"):
        if line.startswith("Uid:"):
            return tuple(int(word) for word in line.split()[1:5])
    raise ValueError


def _holder(process: Path) -> Holder:
    """Raises OSError, ValueError when the process has ended."""
    cgroups = text_of(process)
    users = _users_of(process)
    return Holder(int(process.name), users[1], _program_of(process), set(users) == {0}, cgroups)


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


def _users_of_units(proc: Path, allowed: Allowed) -> set[int]:
    """The users of the allowed units' processes; everybody may read that."""
    found: set[int] = set()
    for process in proc.iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                holder = _holder(process)
                if holder.is_allowed(allowed):
                    found.add(holder.uid)
    return found


# --- what Docker says ---------------------------------------------------------------------------------------


def _docker(end: float, *arguments: str) -> str:
    """What docker prints, before ``end`` (monotonic). Raises CoreError."""
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise CoreError("there was no time left to ask docker")
    own = {name: os.environ[name] for name in ("HOME", "DOCKER_HOST") if name in os.environ}
    done = run(
        ["docker", *arguments],
        environment={"PATH": search_path(), "LANG": "C.UTF-8", **own},
        timeout=seconds,
    )
    if done.code != 0:
        raise CoreError(f"docker {arguments[0]} failed: {done.complaint or 'no message'}")
    return done.output


def _publishes(container: Mapping[str, Any], port: int) -> bool:
    """Whether a container publishes that port of this host. Raises TypeError, AttributeError for another document."""
    ports = container.get("NetworkSettings", {}).get("Ports") or {}
    return any(str(each.get("HostPort")) == str(port) for bound in ports.values() for each in bound or [])


def require_container(port: int, seconds: float = DOCKER_SECONDS) -> None:
    """Raises ListenerError unless the running container that publishes ``port`` is the service ``web`` of a project.

    ``seconds``: for all questions to Docker together.
    """
    end = time.monotonic() + seconds
    try:
        ids = _docker(end, "ps", "--quiet", "--no-trunc", "--filter", f"publish={port}").split()
        found = decode_json(_docker(end, "inspect", "--type", "container", *ids)) if ids else []
        names = {
            str(each.get("Name", "?")).lstrip("/"): each.get("Config", {}).get("Labels") or {}
            for each in found
            if _publishes(each, port)
        }
    except StoppedError:
        raise
    except (CoreError, ValueError, TypeError, AttributeError) as error:
        reason = str(error) if isinstance(error, CoreError) else "its answer is not understood"
        unknown = f"it is not known which container publishes port {port}: {reason}"
        raise ListenerError(unknown, passing=True) from None
    if not names:
        raise ListenerError(f"no running container publishes port {port}", passing=True)
    for name, labels in names.items():
        if labels.get(_SERVICE) != WEB_SERVICE or not labels.get(_PROJECT):
            raise ListenerError(
                f"port {port} is published by the container {name}, which is not GlitchTip's web server"
            )


# --- the judgement ------------------------------------------------------------------------------------------


class _Checked:
    """What was found a moment ago: the users that may take connections of a listening socket, and what Docker said of a port.

    Good news is kept for some seconds; bad news as long as it took to come, so that an engine that hangs does not cost
    each connection its time, and one that just started is asked again at once.
    """

    def __init__(self) -> None:
        self._users: dict[int, tuple[float, frozenset[int]]] = {}
        self._ports: dict[int, tuple[float, ListenerError | None]] = {}

    def users(self, inode: int) -> frozenset[int] | None:
        """The users of a socket that was found to be good within the last seconds."""
        end, users = self._users.get(inode, (0.0, None))
        return users if time.monotonic() < end else None

    def keep(self, inode: int, users: frozenset[int]) -> None:
        """Keep them for some seconds."""
        now = time.monotonic()
        rest = {each: known for each, known in list(self._users.items()) if known[0] > now}
        self._users = {**rest, inode: (now + _KEPT_SECONDS, users)}

    def require_published(self, port: int, seconds: float) -> None:
        """As :func:`require_container`, which is asked only when nothing is known."""
        began = time.monotonic()
        end, trouble = self._ports.get(port, (0.0, None))
        kept = _KEPT_SECONDS
        if began >= end:
            trouble = None
            try:
                require_container(port, seconds)
            except ListenerError as error:
                trouble = error
                kept = min(time.monotonic() - began, _KEPT_SECONDS)
            self._ports = {**self._ports, port: (time.monotonic() + kept, trouble)}
        if trouble is not None:
            raise ListenerError(str(trouble), passing=trouble.passing)


_checked = _Checked()


def _own_users() -> set[int]:
    return {0, os.geteuid()}


def _named(uid: int) -> str:
    return f"user {user_name(uid)} (uid {uid})"


def _require_socket(entry: Entry, proc: Path, seconds: float) -> frozenset[int]:
    """The users that may take its connections. Raises ListenerError unless only expected processes hold the socket."""
    known = _checked.users(entry.inode)
    if known is not None:
        return known
    is_root = os.geteuid() == 0
    holders = _holders(entry.inode, proc) if is_root else []
    if is_root and not holders:
        raise ListenerError(
            f"a process that cannot be found, of uid {entry.uid}, listens there", passing=True
        )

    def users_with(allowed: Allowed) -> frozenset[int]:
        return _users_of_held(entry, holders, allowed) if is_root else _users_seen(entry, proc, allowed)

    try:
        users = users_with(Allowed())
    except ListenerError as error:
        try:
            users = users_with(read_allowed())
        except SettingsError as wrong:
            raise ListenerError(f"{error}, and {wrong}") from None
    if any(holder.program in _ENGINES for holder in holders):
        _checked.require_published(entry.local[1], seconds)
    if is_root:
        _checked.keep(entry.inode, users)
    return users


def _users_seen(entry: Entry, proc: Path, allowed: Allowed) -> frozenset[int]:
    """Without root's rights: whoever made the socket decides. Raises ListenerError."""
    users = _own_users() | allowed.users
    if entry.uid not in users:
        users |= _users_of_units(proc, allowed)
    if entry.uid not in users:
        raise ListenerError(f"a process of {_named(entry.uid)} listens there")
    return frozenset(users)


def _users_of_held(entry: Entry, holders: Sequence[Holder], allowed: Allowed) -> frozenset[int]:
    """With root's rights: who made it and who holds it decide. Raises ListenerError."""
    users = _own_users() | {holder.uid for holder in holders if holder.is_allowed(allowed)}
    is_roots = entry.uid == 0 and any(holder.is_root and holder.pid != _INIT for holder in holders)
    for holder in holders:
        if holder.uid not in users and not is_roots:
            raise ListenerError(f"{holder} listens there")
    if entry.uid not in users | allowed.users:
        raise ListenerError(f"a socket of {_named(entry.uid)}, held by {holders[0]}, listens there")
    return frozenset(users | {holder.uid for holder in holders})


def _could_take(peer: End, entries: Sequence[Entry]) -> list[Entry]:
    """The listening sockets that may have taken a connection to ``peer``.

    Another family's do so only where none of its own listens: an IPv6 wildcard beside an IPv4 socket of the same port is
    one for IPv6 alone (ipv6(7), IPV6_V6ONLY), or the kernel would not let both listen. No IPv4 socket takes IPv6.
    """
    listening = [
        each
        for each in entries
        if each.state == _LISTENING and (each.local[0] == peer[0] or each.local[0].is_unspecified)
    ]
    same = [each for each in listening if each.local[0].version == peer[0].version]
    return same or [each for each in listening if peer[0].version == 4]


def _judge(own: End, peer: End, proc: Path, seconds: float) -> None:
    """Raises ListenerError, whose sentence is about what answers."""
    taken: Entry | None = None
    entries: list[Entry] = []
    for _ in range(2):  # the kernel's table may leave an entry out while it is read
        entries = _entries(proc, peer[1])
        taken = next((each for each in entries if (each.local, each.remote) == (peer, own)), None)
        if taken is not None:
            break
    if taken is None:
        _checked.require_published(peer[1], seconds)
        return
    listening = _could_take(peer, entries)
    if not listening and taken.inode == _UNKNOWN_INODE:
        raise ListenerError("what took the connection is gone", passing=True)
    users: frozenset[int] = frozenset()
    for entry in listening or [taken]:
        users |= _require_socket(entry, proc, seconds)
    if taken.inode != _UNKNOWN_INODE and taken.uid not in users:
        raise ListenerError(f"a process of {_named(taken.uid)} took the connection")


def require_expected(sock: socket.socket, seconds: float = DOCKER_SECONDS, proc: Path = _PROC) -> None:
    """Raises ListenerError when ``sock`` is connected to this host itself and somebody unexpected has the other end.

    Call it on a new connection, before anything is sent. Connections to other hosts pass, and so does everything on
    a system other than Linux, where the product does not run. ``seconds``: what it may take, most of it Docker's.
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
        _judge(own, peer, proc, min(seconds, DOCKER_SECONDS))
    except OSError as error:
        reason = f"{error.filename or 'the table of sockets'} cannot be read: {error.strerror}"
        raise ListenerError(_sentence(peer, reason, True), passing=True) from None
    except ListenerError as error:
        raise ListenerError(_sentence(peer, str(error), error.passing), passing=error.passing) from None


def stranger(sock: socket.socket, seconds: float = DOCKER_SECONDS) -> tuple[str, bool]:
    """Why nothing may be sent on ``sock``, and whether that may pass, as :func:`require_expected` says it; empty: it may."""
    try:
        require_expected(sock, seconds)
    except ListenerError as error:
        return str(error), error.passing
    return "", False


def _sentence(peer: End, reason: str, passing: bool) -> str:
    host = f"[{peer[0]}]" if peer[0].version == 6 else str(peer[0])
    what = "see why GlitchTip's containers or its tunnel do not run"
    if not passing:
        what = f"End what listens there, or {what}. A reverse proxy or tunnel of your own: name its unit or user in {allowed_listeners.SETTINGS}"
    else:
        what = f"S{what[1:]}"
    return f"{host}:{peer[1]} is not served by GlitchTip: {reason}. Nothing was sent, no token left this process. {what}"
