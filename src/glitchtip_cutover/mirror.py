"""The mirror: an nginx of its own on this host, which passes envelopes to the old tracker and copies them to the new.

While the mirror stands, a service's DSN is the old one with the address replaced by the listener's
(:func:`mirror_dsn`): same key, same project. The primary leg therefore reaches the old tracker unchanged and its
answer reaches the SDK; the mirrored leg goes to the new tracker under that one's key and project.

What holds it together, each measured by ``tests/integration/mirror`` and ``tests/bench/mirror.py``:

- ``keepalive_timeout 0``: nginx ends a request only when its mirrored leg has ended, so on a connection that is
  kept, a slow new tracker would delay every following envelope;
- short timeouts and at most ``concurrent`` mirrored legs at a time: a new tracker that hangs costs a bounded
  number of connections, never the primary leg;
- addresses in variables plus ``resolver``: a literal host is resolved only when nginx starts; nginx's resolver does
  not read /etc/hosts, so an address from there is written into the configuration;
- ``proxy_ignore_client_abort``: a copy goes on when the product's process ends right after its answer;
- requests are never written to nginx's error log (its lines hold the whole request line, with the key); both legs
  are counted in one log of JSON lines without a key.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import pwd
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

from glitchtip_core.dsn import Dsn, parse_dsn, shown
from glitchtip_core.files import fsync_directory, read_secret, write_new
from glitchtip_core.foreign_files import read_text
from glitchtip_core.http import HttpError, Trouble, check_reachable, short_text
from glitchtip_core.process import SYSTEM_PATH, run
from glitchtip_core.transaction.store import Store

from .config import Config
from .envfile import MAX_BYTES, EnvFile
from .errors import CutoverError, UsageError
from .host import Host
from .snapshot import Before, Snapshot

Result = dict[str, Any]

HEALTH = "/_mirror/health"
LOG_NAME = "mirror.jsonl"
_RELOAD_WAIT = 10.0
_REACH_WAIT = 10.0
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


# ---------------------------------------------------------------------------------------------- settings


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


# ------------------------------------------------------------------------------------------------ routes


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
        if _origin(found.old) != _origin(old) or found.old.prefix != old.prefix:
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


# --------------------------------------------------------------------------------------------- rendering


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
        if len(words) < 2 or not _is_address(words[0]):
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


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _origin(dsn: Dsn, names: Names | None = None) -> str:
    """Scheme, host and port; a name that /etc/hosts knows is replaced by its address."""
    host = dsn.host if names is None else names.hosts.get(dsn.host.lower(), dsn.host)
    return f"{dsn.scheme}://{host}" + (f":{dsn.port}" if dsn.port is not None else "")


def _keys(dsn: Dsn) -> list[str]:
    """The key as SDKs may send it: as it stands in the DSN, and without dashes."""
    written = dsn.value.partition("://")[2].partition("@")[0].partition(":")[0]
    return sorted({dsn.key, written})


def _map(source: str, variable: str, rows: Mapping[str, str], default: str) -> str:
    lines = [f"        {json.dumps(key)} {json.dumps(value)};" for key, value in rows.items()]
    return "\n".join(
        [f"    map {source} {variable} {{", f"        default {json.dumps(default)};", *lines, "    }"]
    )


def render(
    found: tuple[Route, ...],
    settings: NginxSettings,
    names: Names,
    *,
    keepalive: int = 0,
    verify_tls: bool = True,
) -> str:
    """The whole configuration of nginx. Raises CutoverError when a name could not be resolved by nginx.

    ``keepalive`` (seconds) and ``verify_tls`` are protections that only tests switch off.
    """
    if not found:
        raise CutoverError("no service has a DSN, so there is nothing to mirror")
    named = {dsn.host for route in found for dsn in (route.old, route.new) if not _is_address(dsn.host)}
    named -= {host for host in named if host.lower() in names.hosts}
    if named and not names.servers:
        raise CutoverError(
            f"nginx could not resolve {min(named)}: /etc/resolv.conf names no name server that it can use"
        )
    resolver = f"resolver {' '.join(names.servers)}{'' if names.ipv6 else ' ipv6=off'};" if named else ""

    def rows(value: Callable[[Route], str]) -> dict[str, str]:
        return {f"{key}/{route.old.project_id}": value(route) for route in found for key in _keys(route.old)}

    first = found[0].old
    maps = "\n".join(
        [
            _map("$identity", "$sentry_origin", rows(lambda r: _origin(r.old, names)), _origin(first, names)),
            _map("$identity", "$sentry_host", rows(lambda r: r.old.netloc), first.netloc),
            _map("$identity", "$sentry_name", rows(lambda r: r.old.host.strip("[]")), first.host.strip("[]")),
            _map(
                "$identity",
                "$glitchtip",
                rows(lambda r: f"{_origin(r.new, names)}{r.new.prefix}/api/{r.new.project_id}"),
                "",
            ),
            _map("$identity", "$glitchtip_key", rows(lambda r: r.new.key), ""),
            _map("$identity", "$glitchtip_host", rows(lambda r: r.new.netloc), ""),
            _map("$identity", "$glitchtip_name", rows(lambda r: r.new.host.strip("[]")), ""),
            _map("$identity", "$glitchtip_project", rows(lambda r: r.new.project_id), ""),
        ]
    )
    longest = max(len(key) for route in found for key in _keys(route.old))
    body = _TEMPLATE.format(
        maps=maps,
        resolver=resolver,
        bucket=128 if longest < 80 else 512,
        netloc=settings.netloc,
        health=HEALTH,
        log=f"{settings.log_dir}/{LOG_NAME}",
        cache=settings.cache_dir,
        pid=settings.pid_file,
        ca=settings.ca_file,
        verify="on" if verify_tls else "off",
        concurrent=settings.concurrent,
        connections=settings.connections,
        files=settings.connections + 256,
        connect=settings.connect_timeout,
        answer=settings.answer_timeout,
        keepalive=keepalive,
    )
    return body.replace("@REVISION@", _revision(body))


def _revision(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def revision_of(text: str) -> str:
    """The revision that a rendered configuration names in its first line, and that its health page answers."""
    match = re.match(r"# Revision ([0-9a-f]{16})\.", text)
    if match is None:
        raise CutoverError("the configuration of the mirror was not written by this program")
    return match[1]


_TEMPLATE = """\
# Revision @REVISION@. Written by ai-admin-cutover mirror-config from the snapshot and the new DSN; do not edit.
# Holds DSN keys. What each part is for: docs/parallel_run.md.
daemon off;
pid {pid};
error_log stderr notice;
worker_processes 1;
worker_rlimit_nofile {files};
worker_shutdown_timeout 30s;

events {{
    worker_connections {connections};
}}

http {{
    # An error of a request is logged with its whole request line, which holds the key. The access log tells the same.
    error_log /dev/null crit;
    access_log off;
    server_tokens off;
    default_type application/octet-stream;
    client_body_temp_path {cache}/body;
    proxy_temp_path {cache}/proxy;
    fastcgi_temp_path {cache}/fastcgi;
    uwsgi_temp_path {cache}/uwsgi;
    scgi_temp_path {cache}/scgi;
    map_hash_bucket_size {bucket};
    variables_hash_max_size 2048;

    log_format sentry escape=json
        '{{"at":$msec,"leg":"sentry","id":"$request_id","project":"$project","uri":"$uri","status":"$status",'
        '"upstream_status":"$upstream_status","upstream_time":"$upstream_response_time",'
        '"request_time":"$request_time","bytes":"$request_length"}}';
    log_format other escape=json
        '{{"at":$msec,"leg":"sentry_only","id":"$request_id","project":"$project","uri":"$uri","status":"$status",'
        '"upstream_status":"$upstream_status","upstream_time":"$upstream_response_time",'
        '"request_time":"$request_time","bytes":"$request_length"}}';
    log_format glitchtip escape=json
        '{{"at":$msec,"leg":"glitchtip","id":"$request_id","project":"$glitchtip_project","status":"$status",'
        '"upstream_status":"$upstream_status","upstream_time":"$upstream_response_time",'
        '"request_time":"$request_time","bytes":"$request_length"}}';

    # The key: in the query, or in one of the two headers.
    map $http_authorization $key_of_authorization {{
        default "";
        "~*^sentry.*sentry_key=([0-9a-z_-]+)" $1;
    }}
    map $http_x_sentry_auth $key_of_header {{
        default $key_of_authorization;
        "~*sentry_key=([0-9a-z_-]+)" $1;
    }}
    map $arg_sentry_key $key {{
        default $arg_sentry_key;
        "" $key_of_header;
    }}
    map $arg_sentry_client $client {{
        default "&sentry_client=$arg_sentry_client";
        "" "";
    }}
    map "$key/$project" $identity {{
        default "$key/$project";
    }}
{maps}

    limit_conn_zone $server_port zone=mirrored:1m;

    server {{
        listen {netloc} backlog=1024;
        server_name _;
        # A request ends with its mirrored leg: on a connection that is kept, a slow copy would delay the next one.
        keepalive_timeout {keepalive};
        client_max_body_size 20m;
        client_body_buffer_size 128k;
        client_header_timeout 10s;
        client_body_timeout 30s;
        underscores_in_headers on;
        {resolver}
        resolver_timeout 5s;

        proxy_http_version 1.1;
        proxy_redirect off;
        proxy_buffer_size 16k;
        proxy_buffers 4 16k;
        proxy_ignore_client_abort on;
        proxy_ignore_headers X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate X-Accel-Buffering X-Accel-Charset;
        proxy_ssl_server_name on;
        proxy_ssl_verify {verify};
        proxy_ssl_verify_depth 5;
        proxy_ssl_trusted_certificate {ca};
        proxy_ssl_protocols TLSv1.2 TLSv1.3;

        location = {health} {{
            default_type text/plain;
            return 200 "@REVISION@\\n";
        }}

        # Events, sessions, traces: to the old tracker unchanged, its answer to the SDK; a copy to the new one.
        location ~ ^[A-Za-z0-9._~/-]*/api/(?<project>[0-9]+)/(?<endpoint>envelope|store|security)/?$ {{
            access_log {log} sentry;
            mirror /_mirror/glitchtip;
            mirror_request_body on;
            proxy_connect_timeout 10s;
            proxy_send_timeout 30s;
            proxy_read_timeout 30s;
            proxy_next_upstream_timeout 20s;
            proxy_ssl_name $sentry_name;
            proxy_set_header Host $sentry_host;
            proxy_pass $sentry_origin;
        }}

        # What the new tracker has no endpoint for (minidumps, attachments, OTLP): to the old tracker only.
        location ~ ^[A-Za-z0-9._~/-]*/api/(?<project>[0-9]+)/ {{
            access_log {log} other;
            proxy_connect_timeout 10s;
            proxy_send_timeout 30s;
            proxy_read_timeout 30s;
            proxy_next_upstream_timeout 20s;
            proxy_ssl_name $sentry_name;
            proxy_set_header Host $sentry_host;
            proxy_pass $sentry_origin;
        }}

        location / {{
            return 404;
        }}

        location = /_mirror/glitchtip {{
            internal;
            log_subrequest on;
            access_log {log} glitchtip;
            # 204: nobody's key. It is counted and not sent: a wrong key would block a project for 30 s.
            if ($glitchtip = "") {{
                return 204;
            }}
            if ($request_method != POST) {{
                return 204;
            }}
            # 503: too many copies under way. What waits for a tracker that hangs is bounded.
            limit_conn mirrored {concurrent};
            limit_conn_status 503;
            proxy_connect_timeout {connect}s;
            proxy_send_timeout {answer}s;
            proxy_read_timeout {answer}s;
            proxy_next_upstream off;
            proxy_ssl_name $glitchtip_name;
            proxy_set_header Host $glitchtip_host;
            proxy_set_header X-Sentry-Auth "";
            proxy_set_header Authorization "";
            proxy_set_header Cookie "";
            proxy_pass $glitchtip/$endpoint/?sentry_version=7&sentry_key=$glitchtip_key$client;
        }}
    }}
}}
"""


# ------------------------------------------------------------------------------------------ what is touched


class Server(Protocol):
    """The nginx that runs the configuration."""

    def check(self, path: Path) -> str:
        """What nginx finds wrong with a configuration; empty when nothing."""

    def take(self) -> None:
        """Start with the configuration, or take it on without losing a request. Raises CutoverError."""

    def revision(self) -> str:
        """The revision of the configuration that answers now; empty when nothing answers."""


class SystemdNginx:
    """nginx under its own systemd unit, as its own user."""

    def __init__(self, settings: NginxSettings) -> None:
        self.settings = settings

    def check(self, path: Path) -> str:
        """``nginx -t`` as the user it runs as, so that no file of another owner is left behind."""
        done = run(
            [self.settings.nginx, "-t", "-q", "-c", path],
            environment={"PATH": SYSTEM_PATH},
            timeout=30,
            user=self.settings.user,
        )
        if done.code == 0:
            return ""
        told = [line for line in done.errors.splitlines() if "[emerg]" in line] or done.errors.splitlines()
        return told[-1].partition("[emerg] ")[2] or told[-1] if told else f"exit code {done.code}"

    def take(self) -> None:
        """``systemctl reload-or-restart``: workers of before end their requests."""
        done = run(
            ["systemctl", "reload-or-restart", self.settings.unit],
            environment={"PATH": SYSTEM_PATH},
            timeout=60,
        )
        if done.code != 0:
            raise CutoverError(
                f"{self.settings.unit} does not start; look at journalctl -u {self.settings.unit}"
            )

    def revision(self) -> str:
        """The answer of the health page."""
        return short_text(self.settings.listen + HEALTH, timeout=2)


def reach(dsn: Dsn, settings: NginxSettings) -> None:
    """Connect to a tracker as nginx will, certificate included. Raises CutoverError with the reason."""
    host = dsn.host.strip("[]")
    port = dsn.port or (443 if dsn.scheme == "https" else 80)
    try:
        check_reachable(
            host,
            port,
            what=f"the old tracker {dsn.netloc}",
            timeout=_REACH_WAIT,
            secure=dsn.scheme == "https",
            ca_file=settings.ca_file,
        )
    except HttpError as error:
        if error.trouble is Trouble.CERTIFICATE:
            raise CutoverError(
                f"the certificate of {dsn.netloc} is not valid ({error.detail}), so the mirror would reach "
                f"nobody there; add its authority to {settings.ca_file}"
            ) from None
        if error.trouble is Trouble.AUTHORITIES:
            raise CutoverError(
                f"the certificate authorities in {settings.ca_file} cannot be read ({error.detail}); "
                "install ca-certificates"
            ) from None
        raise CutoverError(f"{error}, so nothing is put in front of it") from None


def _group_of(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_gid
    except KeyError:
        raise CutoverError(
            f"there is no user {user} on this host for the mirror; run the parallel run's role"
        ) from None


# ------------------------------------------------------------------------------------------------ commands


def configure(
    config: Config,
    host: Host,
    *,
    server: Server | None = None,
    names: Names | None = None,
    reaching: Callable[[Dsn, NginxSettings], None] = reach,
) -> Result:
    """Write the mirror's configuration and make nginx run it; a repeat changes nothing.

    The file is checked by nginx before it gets its name; when nginx does not take it on, the file of before is
    back. Nothing of a service is touched: that is ``apply --to mirror``. Returns ``{"changed", "listen",
    "revision", "path", "routes": [{"services", "old", "new"}]}`` without a key. Raises CutoverError.
    """
    settings = settings_of(config)
    server = server or SystemdNginx(settings)
    store = Store(config.state_dir, monotonic=host.monotonic, sleep=host.sleep)
    with store.lock():
        found = routes_of(config, Snapshot(config.state_dir).before(), settings)
        text = render(found, settings, names if names is not None else read_names())
        result: Result = {
            "changed": False,
            "listen": settings.listen,
            "revision": revision_of(text),
            "path": str(settings.file),
            "routes": [route.shown() for route in found],
        }
        path = settings.file
        if not path.parent.is_dir():
            raise CutoverError(f"there is no directory {path.parent}; run the parallel run's role first")
        old = path.read_bytes() if path.exists() else None
        if old == text.encode() and server.revision() == result["revision"]:
            return result
        for tracker in {_origin(route.old): route.old for route in found}.values():
            reaching(tracker, settings)
        owner = (os.geteuid(), _group_of(settings.user))
        _checked(path, text, owner, server, list(found))
        _take_on(host, server, path, old, owner, result["revision"])
    host.progress(f"the mirror listens on {settings.netloc}: {len(found)} DSN(s)")
    return {**result, "changed": True}


def _checked(path: Path, text: str, owner: tuple[int, int], server: Server, found: list[Route]) -> None:
    """Write ``text`` under another name, let nginx check it, and give it its name."""
    candidate = path.with_name(path.name + ".new")
    write_new(candidate, text.encode(), mode=0o640, owner=owner)
    try:
        if problem := server.check(candidate):
            for key in {key for route in found for dsn in (route.old, route.new) for key in _keys(dsn)}:
                problem = problem.replace(key, "***")
            raise CutoverError(
                f"nginx refuses the configuration of the mirror, nothing was changed: {problem}"
            )
        candidate.rename(path)
        fsync_directory(path.parent)
    finally:
        candidate.unlink(missing_ok=True)


def _take_on(
    host: Host, server: Server, path: Path, old: bytes | None, owner: tuple[int, int], revision: str
) -> None:
    """Make nginx run the file, see that it answers with its revision; else the file of before is back."""
    try:
        server.take()
        _wait_for(host, server, revision)
    except CutoverError as error:
        if old is None:
            path.unlink(missing_ok=True)
            fsync_directory(path.parent)
            raise CutoverError(f"{error}; the configuration was taken away again") from None
        write_new(path, old, mode=0o640, owner=owner)
        try:
            server.take()
            _wait_for(host, server, revision_of(old.decode()))
        except CutoverError:
            raise CutoverError(f"{error}; the file of before is back, but nginx does not answer") from None
        raise CutoverError(f"{error}; the configuration of before is back and answers") from None


def _wait_for(host: Host, server: Server, revision: str) -> None:
    deadline = host.monotonic() + _RELOAD_WAIT
    while server.revision() != revision:
        if host.monotonic() >= deadline:
            raise CutoverError(f"nginx did not take the new configuration within {_RELOAD_WAIT:g} s")
        host.sleep(0.1)


def problem(config: Config, *, server: Server | None = None, names: Names | None = None) -> str:
    """Why services must not be switched to the mirror now, one sentence; empty when it stands with today's DSNs."""
    settings = settings_of(config)
    server = server or SystemdNginx(settings)
    advice = "run ai-admin-cutover mirror-config first"
    try:
        running = revision_of(settings.file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return f"the mirror is not configured on this host; {advice}"
    except CutoverError as error:
        return str(error)
    found = routes_of(config, Snapshot(config.state_dir).before(), settings)
    if running != revision_of(render(found, settings, names if names is not None else read_names())):
        return f"the mirror was configured for other DSNs or settings than today's; {advice}"
    if server.revision() != running:
        return f"nothing answers as the mirror at {settings.listen}; look at systemctl status {settings.unit}"
    return ""


def still_mirrored(config: Config, host: Host, settings: NginxSettings) -> list[str]:
    """Who reports to the mirror: env files and services whose DSN is at its listener."""
    found = []
    for path in config.env_files:
        try:
            there = shown(EnvFile(path, config.env_key).value()) == settings.netloc
        except CutoverError:
            # A file that the editor refuses may still be read by a service.
            there = settings.netloc in (read_text(path, MAX_BYTES) or "")
        if there:
            found.append(str(path))
    if host.manager.running:
        found += [
            process.name
            for process in host.manager.processes()
            if shown(process.environment.get(config.env_key)) == settings.netloc
        ]
    return sorted(set(found))


def remove(config: Config, host: Host) -> Result:
    """Take the mirror's configuration away; refuses while anything still reports to the mirror.

    The role then stops nginx and removes its unit. Returns ``{"changed", "path"}``. Raises CutoverError.
    """
    settings = settings_of(config)
    store = Store(config.state_dir, monotonic=host.monotonic, sleep=host.sleep)
    with store.lock():
        if users := still_mirrored(config, host, settings):
            raise CutoverError(
                f"{', '.join(users)} still report(s) to the mirror; leave it first with ai-admin-cutover apply "
                "or ai-admin-cutover rollback"
            )
        if not settings.file.exists():
            return {"changed": False, "path": str(settings.file)}
        settings.file.unlink()
        fsync_directory(settings.file.parent)
    return {"changed": True, "path": str(settings.file)}
