"""Peers that behave badly, on real sockets: what a test says is what goes over the wire."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

#: Gets the connection and the head of the request; the connection is closed when it returns.
Script = Callable[["Peer", socket.socket], None]


class Peer:
    """Listens on 127.0.0.1 and plays ``script`` to everybody who comes. ``heads`` are the heads of the requests."""

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        self.heads: list[bytes] = []
        self.sent = 0
        self.over = threading.Event()
        self._script = script
        self._context = context
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://{'127.0.0.1' if context is None else 'localhost'}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), plain:
            connection = (
                plain if self._context is None else self._context.wrap_socket(plain, server_side=True)
            )
            with connection:
                self._script(self, connection)

    def read_request(self, connection: socket.socket) -> bytes:
        """Read a request with its body; the head is kept."""
        head = b""
        while b"\r\n\r\n" not in head:
            part = connection.recv(65536)
            if not part:
                return head
            head += part
        head, _, body = head.partition(b"\r\n\r\n")
        self.heads.append(head)
        announced = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        length = int(announced[0].partition(b":")[2]) if announced else 0
        while len(body) < length:
            part = connection.recv(65536)
            if not part:
                break
            body += part
        return body

    def send(self, connection: socket.socket, data: bytes) -> None:
        """Send all of it and count it."""
        connection.sendall(data)
        self.sent += len(data)

    def drip(self, connection: socket.socket, data: bytes, pause: float) -> None:
        """Send a byte every ``pause`` seconds."""
        for number in range(len(data)):
            if self.over.wait(pause):
                return
            self.send(connection, data[number : number + 1])


def answering(*parts: bytes, pause: float = 0.0) -> Script:
    """A script that reads the request and sends the parts, each byte of the last one ``pause`` seconds after the other."""

    def script(peer: Peer, connection: socket.socket) -> None:
        peer.read_request(connection)
        for part in parts[:-1] if pause else parts:
            peer.send(connection, part)
        if pause:
            peer.drip(connection, parts[-1], pause)

    return script


def silent(peer: Peer, connection: socket.socket) -> None:
    """Read the request and never answer."""
    peer.read_request(connection)
    peer.over.wait()


def answer(body: bytes, *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    """An answer with this body."""
    lines = [f"HTTP/1.1 {status}", *headers, *([f"Content-Length: {len(body)}"] if length else [])]
    return "\r\n".join([*lines, "", ""]).encode() + body


@contextlib.contextmanager
def running(script: Script, context: ssl.SSLContext | None = None) -> Iterator[Peer]:
    """A peer for the time of a block."""
    with Peer(script, context) as peer:
        yield peer


def make_certificate(place: Path) -> tuple[Path, ssl.SSLContext]:
    """The certificate of "localhost" that nobody trusts, and a server's context with it."""
    key, cert = place / "key.pem", place / "cert.pem"
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    )
    subprocess.run(command.split(), check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context
