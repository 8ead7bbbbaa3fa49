"""The configuration of the mirror's nginx as text; what holds it together is said in ``mirror``."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping

from .errors import CutoverError
from .mirror_routes import Names, NginxSettings, Route, is_address, keys, origin

HEALTH = "/_mirror/health"
LOG_NAME = "mirror.jsonl"


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
    named = {dsn.host for route in found for dsn in (route.old, route.new) if not is_address(dsn.host)}
    named -= {host for host in named if host.lower() in names.hosts}
    if named and not names.servers:
        raise CutoverError(
            f"nginx could not resolve {min(named)}: /etc/resolv.conf names no name server that it can use"
        )
    resolver = f"resolver {' '.join(names.servers)}{'' if names.ipv6 else ' ipv6=off'};" if named else ""

    def rows(value: Callable[[Route], str]) -> dict[str, str]:
        return {f"{key}/{route.old.project_id}": value(route) for route in found for key in keys(route.old)}

    first = found[0].old
    maps = "\n".join(
        [
            _map("$identity", "$sentry_origin", rows(lambda r: origin(r.old, names)), origin(first, names)),
            _map("$identity", "$sentry_host", rows(lambda r: r.old.netloc), first.netloc),
            _map("$identity", "$sentry_name", rows(lambda r: r.old.host.strip("[]")), first.host.strip("[]")),
            _map(
                "$identity",
                "$glitchtip",
                rows(lambda r: f"{origin(r.new, names)}{r.new.prefix}/api/{r.new.project_id}"),
                "",
            ),
            _map("$identity", "$glitchtip_key", rows(lambda r: r.new.key), ""),
            _map("$identity", "$glitchtip_host", rows(lambda r: r.new.netloc), ""),
            _map("$identity", "$glitchtip_name", rows(lambda r: r.new.host.strip("[]")), ""),
            _map("$identity", "$glitchtip_project", rows(lambda r: r.new.project_id), ""),
        ]
    )
    longest = max(len(key) for route in found for key in keys(route.old))
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
