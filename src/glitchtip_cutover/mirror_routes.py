"""The mirror's settings, and its routes: whose envelopes go where."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from glitchtip_core.dsn import Dsn, parse_dsn
from glitchtip_core.files import read_secret

from .config import Config
from .errors import CutoverError, UsageError
from .snapshot import Before

_LISTEN = re.compile(r"http://(?P<host>[0-9.]+|\[[0-9A-Fa-f:]+\]):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class NginxSettings:
    """The part ``mirror`` of the configuration file; every field is optional there.

    Attributes:
        listen: where services report to: http, a loopback or private address, a port.
        directory: where ``nginx.conf`` is written (made by the role).
        log_dir: where both legs are logged (made by the role; its group may read).
        cache_dir: bodies above 128 KiB wait here.
        pid_file: nginx's.
        nginx: the program.
        unit: the systemd unit that runs it.
        user: whom it runs as; it never needs root.
        ca_file: authorities that certificates of trackers are checked against.
        concurrent: mirrored legs under way at the same time; more are not sent, and counted as failed.
        connections: connections of the worker, both sides of all legs together.
        connect_timeout: seconds until the new tracker must have taken a connection.
        answer_timeout: seconds that the new tracker may take to read or to answer.
    """

    listen: str = "http://127.0.0.1:19000"
    directory: str = "/etc/glitchtip-mirror"
    log_dir: str = "/var/log/glitchtip-mirror"
    cache_dir: str = "/var/cache/glitchtip-mirror"
    pid_file: str = "/var/cache/glitchtip-mirror/nginx.pid"
    nginx: str = "/usr/sbin/nginx"
    unit: str = "glitchtip-mirror.service"
    user: str = "glitchtip-mirror"
    ca_file: str = "/etc/ssl/certs/ca-certificates.crt"
    concurrent: int = 256
    connections: int = 2048
    connect_timeout: int = 1
    answer_timeout: int = 5

    @property
    def file(self) -> Path:
        """The configuration that nginx runs."""
        return Path(self.directory) / "nginx.conf"

    @property
    def netloc(self) -> str:
        """Host and port of the listener."""
        return self.listen.removeprefix("http://")


@dataclass(frozen=True)
class Route:
    """Services that share one DSN of the old tracker, and the DSN of the new one that gets their copy."""

    old: Dsn = field(repr=False)
    new: Dsn = field(repr=False)
    services: tuple[str, ...]

    def shown(self) -> dict[str, Any]:
        """Without the keys."""
        return {"services": list(self.services), "old": str(self.old), "new": str(self.new)}


def parse_settings(data: object, where: str) -> NginxSettings:
    """Check the part ``mirror`` of a configuration. Raises UsageError with one sentence."""
    if not isinstance(data, Mapping):
        raise UsageError(f"{where}: mirror must be a JSON object")
    known = {item.name: item for item in fields(NginxSettings)}
    if unknown := sorted(set(data) - set(known)):
        raise UsageError(f"{where}: mirror has no field {unknown[0]}; known are {', '.join(sorted(known))}")
    for name, value in data.items():
        kind = type(known[name].default)
        if type(value) is not kind or (isinstance(value, str) and not _plain(value)):
            raise UsageError(f"{where}: mirror.{name} must be {_KINDS[kind]}")
    settings = NginxSettings(**data)
    _check_listen(settings.listen, where)
    for name in ("directory", "log_dir", "cache_dir", "pid_file", "nginx", "ca_file"):
        if not getattr(settings, name).startswith("/"):
            raise UsageError(f"{where}: mirror.{name} must be an absolute path")
    for name, low, high in (
        ("concurrent", 1, 1000),
        ("connect_timeout", 1, 10),
        ("answer_timeout", 1, 30),
    ):
        if not low <= getattr(settings, name) <= high:
            raise UsageError(f"{where}: mirror.{name} must be a number from {low} to {high}")
    # Each mirrored leg holds two connections; the same again must be left to the primary legs.
    if settings.connections < 4 * settings.concurrent or settings.connections > 65535:
        raise UsageError(
            f"{where}: mirror.connections must be at least four times mirror.concurrent, at most 65535"
        )
    return settings


_KINDS: dict[type, str] = {str: "a text without blanks or quotes", int: "a whole number"}


def _plain(text: str) -> bool:
    """Whether a text may stand in nginx's configuration as it is."""
    return re.fullmatch(r"[A-Za-z0-9_./:\[\]@-]+", text) is not None


def _check_listen(listen: str, where: str) -> None:
    match = _LISTEN.fullmatch(listen)
    try:
        address = ipaddress.ip_address(match["host"].strip("[]")) if match else None
    except ValueError:
        address = None
    if match is None or address is None or not 0 < int(match["port"]) < 65536:
        raise UsageError(f"{where}: mirror.listen must be http://ADDRESS:PORT with an address, not a name")
    if address.is_unspecified or not (address.is_loopback or address.is_private):
        raise UsageError(
            f"{where}: mirror.listen must be a loopback or a private address: who reaches it can send events"
        )


def settings_of(config: Config) -> NginxSettings:
    """The mirror's settings of a configuration file that was loaded before."""
    part = config.document.get("mirror")
    return parse_settings({} if part is None else part, str(config.path))


@dataclass(frozen=True)
class Names:
    """How this host finds addresses: name servers for nginx, and names that /etc/hosts answers."""

    servers: tuple[str, ...] = ()
    hosts: Mapping[str, str] = field(default_factory=dict)
    ipv6: bool = False


def read_names(
    resolv: Path = Path("/etc/resolv.conf"),
    hosts: Path = Path("/etc/hosts"),
    routes_file: Path = Path("/proc/net/route"),
) -> Names:
    """What this host's files say; a link-local name server (``fe80::1%eth0``) is none that nginx can use."""
    servers: list[str] = []
    for line in _lines(resolv):
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                address = ipaddress.ip_address(words[1])
            except ValueError:
                continue
            if not (address.version == 6 and address.is_link_local):
                servers.append(f"[{address}]" if address.version == 6 else str(address))
    listed: dict[str, str] = {}
    for line in _lines(hosts):
        words = line.partition("#")[0].split()
        if len(words) < 2 or not is_address(words[0]):
            continue
        six = ":" in words[0]
        for name in words[1:]:
            # The IPv4 address of a name wins, as the order of the file says nothing.
            if name.lower() not in listed or not six:
                listed[name.lower()] = f"[{words[0]}]" if six else words[0]
    has_ipv4 = any(line.split()[1:2] == ["00000000"] for line in _lines(routes_file))
    return Names(tuple(dict.fromkeys(servers)), listed, ipv6=not has_ipv4)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def is_address(host: str) -> bool:
    """Whether a host of a DSN is an address and no name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def origin(dsn: Dsn, names: Names | None = None) -> str:
    """Scheme, host and port; a name that /etc/hosts knows is replaced by its address."""
    host = dsn.host if names is None else names.hosts.get(dsn.host.lower(), dsn.host)
    return f"{dsn.scheme}://{host}" + (f":{dsn.port}" if dsn.port is not None else "")


def keys(dsn: Dsn) -> list[str]:
    """The key as SDKs may send it: as it stands in the DSN, and without dashes."""
    written = dsn.value.partition("://")[2].partition("@")[0].partition(":")[0]
    return sorted({dsn.key, written})


def mirror_dsn(old: Dsn, listen: str) -> str:
    """The DSN of a service while the mirror stands: ``old`` at the listener; key, prefix and project stay."""
    head, _, tail = old.value.partition("://")[2].partition("@")
    key = head.partition(":")[0]
    path = tail.partition("/")[2]
    return f"http://{key}@{listen.removeprefix('http://')}/{path}"


def routes(pairs: Iterable[tuple[str, Dsn, Dsn]], settings: NginxSettings) -> tuple[Route, ...]:
    """Group (service, old DSN, new DSN) by the old DSN.

    Raises CutoverError where the mirror could not tell two services apart, or would send events in a circle.
    """
    grouped: dict[tuple[str, str], Route] = {}
    for service, old, new in pairs:
        if settings.netloc in (old.netloc, new.netloc):
            raise CutoverError(
                f"the DSN of {service} already points at the mirror ({settings.netloc}); a snapshot of before is needed"
            )
        if (old.key, old.netloc, old.project_id) == (new.key, new.netloc, new.project_id):
            raise CutoverError(
                f"the old and the new DSN of {service} are the same ({old}); nothing to mirror"
            )
        found = grouped.get((old.key, old.project_id))
        if found is None:
            grouped[old.key, old.project_id] = Route(old, new, (service,))
            continue
        first = found.services[0]
        if origin(found.old) != origin(old) or found.old.prefix != old.prefix:
            raise CutoverError(
                f"{first} and {service} use one key at two addresses ({found.old.netloc}, {old.netloc}); "
                "the mirror cannot tell them apart, so give one of them a key of its own at the old tracker"
            )
        if found.new.value != new.value:
            raise CutoverError(
                f"{first} and {service} share one DSN of the old tracker but have two new DSNs; the mirror cannot "
                "tell them apart, so give one of them a key of its own at the old tracker or the same new DSN"
            )
        grouped[old.key, old.project_id] = Route(found.old, found.new, (*found.services, service))
    return tuple(grouped.values())


def routes_of(config: Config, before: Before, settings: NginxSettings) -> tuple[Route, ...]:
    """The routes of a configuration: old DSNs from the snapshot, new ones from their files.

    The DSN in each ``.env`` has a route too, also where every service is given another one: scripts and jobs
    read it.
    """
    pairs = []
    for service in config.services:
        old = parse_dsn(before.effective(service), f"the recorded DSN of {service}")
        pairs.append((service, old, _new_dsn(config, service)))
    known = {(old.key, old.project_id) for _, old, _ in pairs}
    for path in config.env_files:
        old = parse_dsn(before.value(path), f"the recorded DSN of {path}")
        if (old.key, old.project_id) not in known:
            pairs.append((str(path), old, _new_dsn(config, config.sharing(path)[0])))
    return routes(pairs, settings)


def _new_dsn(config: Config, service: str) -> Dsn:
    side = config.side_for(service)
    if side is None or side.dsn_file is None:
        raise CutoverError("the new tracker is not set up yet (phase 2), so there is nothing to mirror to")
    return parse_dsn(read_secret(side.dsn_file, "the new DSN"), f"the new DSN in {side.dsn_file}")
