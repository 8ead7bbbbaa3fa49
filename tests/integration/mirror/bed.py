"""A real nginx with the product's own configuration, between scripted trackers that count what they got."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.client
import ipaddress
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from glitchtip_core.dsn import parse_dsn
from glitchtip_cutover.mirror import SystemdNginx
from glitchtip_cutover.mirror_routes import Names, NginxSettings, mirror_dsn, routes
from glitchtip_cutover.mirror_text import render, revision_of

NGINX = "/usr/sbin/nginx"
KEY = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
OTHER_KEY = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
NEW_KEY = "0123456789abcdef0123456789abcdef"
OTHER_NEW_KEY = "fedcba9876543210fedcba9876543210"


_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on now, and that was not given before: who asked for it may not listen yet."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


@dataclass
class Got:
    """One request as a tracker saw it; ``sha256`` and ``size`` are the body's."""

    method: str
    path: str
    headers: dict[str, str]
    sha256: str
    size: int
    body: bytes = field(repr=False)


class Tracker:
    """Takes envelopes. ``delay`` waits before the answer, ``status`` and ``headers`` are the answer."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.got: list[Got] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.delay = 0.0
        self.keep_bodies = False
        self.released = threading.Event()
        self._tls = tls
        self.host = host
        self.port = free_port()
        self._server: ThreadingHTTPServer | None = None
        self.start()

    def start(self) -> None:
        """Listen (again) on the same port."""
        tracker = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                tracker.got.append(
                    Got(
                        self.command,
                        self.path,
                        {name.lower(): value for name, value in self.headers.items()},
                        hashlib.sha256(body).hexdigest(),
                        len(body),
                        body if tracker.keep_bodies else b"",
                    )
                )
                if tracker.delay:
                    tracker.released.wait(tracker.delay)
                answer = b'{"id":"1"}'
                with contextlib.suppress(OSError):
                    self.send_response(tracker.status)
                    for name, value in tracker.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 1024
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """A handshake that nginx refuses is what some tests want."""

            def get_request(self) -> tuple[Any, Any]:
                connection, address = super().get_request()
                if tracker._tls is not None:
                    connection.settimeout(5)
                    connection = tracker._tls.wrap_socket(connection, server_side=True)
                return connection, address

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def dsn(self, key: str, project: str, prefix: str = "") -> str:
        """The DSN of a key and a project here."""
        scheme = "https" if self._tls is not None else "http"
        return f"{scheme}://{key}@{self.host}:{self.port}{prefix}/{project}"

    def close(self) -> None:
        """Let all that wait go, and stop."""
        self.released.set()
        self.stop()


@dataclass
class Answer:
    """What a client got, and after how many seconds."""

    status: int
    headers: dict[str, str]
    seconds: float


class Bed:
    """nginx in a directory of its own, as an unprivileged user, with trackers and clients around it."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="mirror-"))
        self.user = "www-data" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        for name in ("conf", "log", "cache"):
            (self.root / name).mkdir()
        if os.geteuid() == 0:
            for path in (self.root, *self.root.iterdir()):
                shutil.chown(path, self.user)
        self.port = free_port()
        self.trackers: list[Tracker] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.settings = self.make_settings()

    def make_settings(self, **changes: Any) -> NginxSettings:
        """Settings of this bed, some of them changed."""
        self.settings = NginxSettings(
            **{
                "listen": f"http://127.0.0.1:{self.port}",
                "directory": str(self.root / "conf"),
                "log_dir": str(self.root / "log"),
                "cache_dir": str(self.root / "cache"),
                "pid_file": str(self.root / "nginx.pid"),
                "nginx": NGINX,
                "user": self.user,
                **changes,
            }
        )
        return self.settings

    def __enter__(self) -> Bed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tracker in self.trackers:
            tracker.close()
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)
            if self.process.stderr is not None:
                self.process.stderr.close()
        shutil.rmtree(self.root)

    def tracker(self, **how: Any) -> Tracker:
        """A tracker that is closed with the bed."""
        made = Tracker(**how)
        self.trackers.append(made)
        return made

    def write(
        self, pairs: Iterable[tuple[str, str, str]], names: Names | None = None, **protections: Any
    ) -> str:
        """Render (service, old DSN, new DSN) into nginx's file; the revision."""
        found = routes([(name, parse_dsn(old), parse_dsn(new)) for name, old, new in pairs], self.settings)
        text = render(found, self.settings, names or Names(hosts={"localhost": "127.0.0.1"}), **protections)
        self.settings.file.write_text(text)
        return revision_of(text)

    def start(
        self, pairs: Iterable[tuple[str, str, str]], names: Names | None = None, **protections: Any
    ) -> None:
        """Run nginx with the routes, until it answers."""
        revision = self.write(pairs, names, **protections)
        self.take()
        self.wait_for(revision)

    def take(self) -> None:
        """Start nginx with its file, or let it reload."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGHUP)
            return
        as_root = os.geteuid() == 0
        self.process = subprocess.Popen(
            [NGINX, "-e", "stderr", "-c", str(self.settings.file)],
            stderr=subprocess.PIPE,
            user=self.user if as_root else None,
            group=pwd.getpwnam(self.user).pw_gid if as_root else None,
            extra_groups=[] if as_root else None,
        )

    def wait_for(self, revision: str) -> None:
        """Until nginx answers with that revision."""
        running = SystemdNginx(self.settings)
        deadline = time.monotonic() + 10
        while running.revision() != revision:
            assert self.process is not None
            if self.process.poll() is not None and self.process.stderr is not None:
                raise AssertionError(f"nginx ended: {self.process.stderr.read().decode()}")
            assert time.monotonic() < deadline, "nginx does not answer with the new configuration"
            time.sleep(0.02)

    def dsn(self, old: str) -> str:
        """The DSN of a service while the mirror stands."""
        return mirror_dsn(parse_dsn(old), self.settings.listen)

    def lines(self) -> list[dict[str, Any]]:
        """What both legs have logged."""
        log = self.root / "log" / "mirror.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def settled(self, wanted: int, seconds: float = 15.0) -> list[dict[str, Any]]:
        """The log, once it has so many lines."""
        deadline = time.monotonic() + seconds
        while len(self.lines()) < wanted and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.lines()

    def rss(self) -> int:
        """Bytes of memory of nginx's processes together (PSS)."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        total = 0
        for pid in (str(self.process.pid), *children):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total


class Client:
    """Sends envelopes as an SDK does; with ``keep`` on one connection as long as the server lets it."""

    def __init__(self, port: int, *, keep: bool = False, timeout: float = 30.0) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self.keep = keep

    def post(
        self,
        body: bytes,
        path: str = f"/api/7/envelope/?sentry_version=7&sentry_key={KEY}",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, timed from before its first byte until the answer is whole."""
        started = time.perf_counter()
        self.connection.request("POST", path, body, dict(headers or {}))
        response = self.connection.getresponse()
        response.read()
        took = time.perf_counter() - started
        if not self.keep:
            self.connection.close()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, took)


def quantile(values: list[float], part: float) -> float:
    """The value below which ``part`` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


# ----------------------------------------------------------------------------------------- certificates


class Authority:
    """A certificate authority of this test, which nobody else trusts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        self.file = directory / "ca.pem"
        certificate = self._sign(self._name, self._key.public_key(), [], authority=True)
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.file.chmod(0o644)

    def _sign(self, name: x509.Name, key: Any, names: list[str], *, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            general: list[x509.GeneralName] = []
            for one in names:
                try:
                    general.append(x509.IPAddress(ipaddress.ip_address(one)))
                except ValueError:
                    general.append(x509.DNSName(one))
            builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def context(self, *names: str) -> ssl.SSLContext:
        """A server's side of TLS with a certificate for these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        certificate = self._sign(subject, key.public_key(), list(names), authority=False)
        file = self.directory / f"{hashlib.sha256(repr(names).encode()).hexdigest()[:12]}.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context
