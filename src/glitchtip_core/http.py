"""One HTTP request, complete within its time limit, or one error that says why not.

The limit is for the whole exchange, measured by the monotonic clock: looking up the name, connecting, TLS, sending,
and every byte of the answer. A peer that sends a byte a second is given up like one that sends nothing.

Redirects are not followed: a redirect is the answer, so that no token travels to another host. Neither ``~/.netrc`` nor
proxies of the environment are used. Certificates are verified. Compressed answers are not requested and not accepted,
so that the size limit is that of what is kept in memory.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast
from urllib.parse import urlsplit

from .errors import CoreError

#: Bytes of the status line and the headers together.
HEADER_LIMIT = 128 * 1024
_CHUNK = 64 * 1024
_PAGE_LIMIT = 1024


class Trouble(StrEnum):
    """Why there is no answer."""

    ADDRESS = "address"
    NAME = "name"
    CONNECT = "connect"
    AUTHORITIES = "authorities"
    CERTIFICATE = "certificate"
    TLS = "tls"
    REQUEST = "request"
    TIME = "time"
    BROKEN = "broken"
    NOT_HTTP = "not_http"
    TOO_LARGE = "too_large"
    COMPRESSED = "compressed"


#: What another attempt may change.
_PASSING = frozenset({Trouble.NAME, Trouble.CONNECT, Trouble.TLS, Trouble.BROKEN})


class HttpError(CoreError):
    """No answer. ``str`` is the sentence: ``what`` of the request, then ``reason``. Neither holds a part of the address or of a header.

    ``detail`` is OpenSSL's or the system's word for it, may be empty. ``passing``: another attempt may succeed.
    """

    def __init__(self, what: str, trouble: Trouble, reason: str, detail: str = "") -> None:
        self.trouble = trouble
        self.reason = f"{reason}: {detail}" if detail else reason
        self.detail = detail
        self.passing = trouble in _PASSING
        super().__init__(f"{what} {self.reason}")


@dataclass(frozen=True)
class Answer:
    """Status, headers with lower-case names (repeated ones joined by ``, ``), and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def is_json(self) -> bool:
        """Whether the answer calls itself JSON."""
        return "json" in self.headers.get("content-type", "")


@dataclass(frozen=True)
class _Address:
    """The parts of an http or https address."""

    secure: bool
    host: str
    port: int
    netloc: str
    target: str


class _Overdue(Exception):  # noqa: N818 - it becomes an HttpError
    """The time is over."""


class _Overlong(Exception):  # noqa: N818 - it becomes an HttpError
    """The headers do not end."""


class _Clock:
    """The time of one exchange."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left. Raises _Overdue when none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise _Overdue
        return left


class _Line:
    """What ``http.client`` sees of a socket: each wait on it is at most what is left of the time."""

    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self.sock = sock
        self.clock = clock
        self.allowance: float = HEADER_LIMIT

    def sendall(self, data: Any) -> None:
        """Send all of it."""
        rest = memoryview(data)
        while rest:
            self.sock.settimeout(self.clock.left())
            rest = rest[self.sock.send(rest) :]

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What comes in."""
        return io.BufferedReader(_Incoming(self))

    def close(self) -> None:
        """The socket is closed by who opened it, at the end of the exchange."""


class _Incoming(io.RawIOBase):
    """The bytes of a line."""

    def __init__(self, line: _Line) -> None:
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        line = self._line
        line.sock.settimeout(line.clock.left())
        count = line.sock.recv_into(buffer)
        line.allowance -= count
        if line.allowance < 0:
            raise _Overlong
        return count


def request(
    url: str,
    *,
    what: str,
    timeout: float,
    limit: int,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    ca_file: str | None = None,
    check: Callable[[socket.socket, float], None] | None = None,
) -> Answer:
    """Send one request over a connection of its own and return its answer, whatever its status.

    Args:
        url: http or https, ASCII, without user name and password.
        what: the subject of the error's sentence; it must not hold a secret.
        timeout: seconds for everything together.
        limit: bytes of the body; 0 does not read it.
        ca_file: PEM file of the authorities to trust; without it the system's are.
        check: called with a connection without TLS and the seconds that are left, before anything is sent; what it raises
            ends the request.

    Raises HttpError.
    """
    with _told(what):
        clock = _Clock(timeout)
        address = _split(url)
        with contextlib.closing(
            _connected(address.host, address.port, address.secure, clock, ca_file)
        ) as sock:
            if check is not None and not address.secure:
                check(sock, clock.left())
            return _exchange(address, _Line(sock, clock), method, {**(headers or {})}, body, limit)


def short_text(url: str, *, timeout: float) -> str:
    """The text of a page of one line, as programs show their state; empty when it cannot be had."""
    try:
        answer = request(url, what="the page", timeout=timeout, limit=_PAGE_LIMIT)
    except HttpError:
        return ""
    return answer.body.decode("ascii", "replace").strip() if answer.status == 200 else ""


def check_reachable(
    host: str, port: int, *, what: str, timeout: float, secure: bool, ca_file: str | None = None
) -> None:
    """Connect, with TLS when ``secure``, and close. ``timeout``: seconds for everything. Raises HttpError."""
    with _told(what):
        _connected(host, port, secure, _Clock(timeout), ca_file).close()


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn everything that can go wrong into one HttpError."""
    try:
        yield
    except _Failed as error:
        raise HttpError(what, error.trouble, error.reason, error.detail) from None
    except (_Overdue, TimeoutError):
        raise HttpError(what, Trouble.TIME, "did not answer in time") from None
    except _Overlong:
        raise HttpError(what, Trouble.TOO_LARGE, "sent headers that are too long") from None
    except http.client.RemoteDisconnected:
        raise HttpError(what, Trouble.BROKEN, "closed the connection without an answer") from None
    except (http.client.BadStatusLine, http.client.UnknownProtocol):
        raise HttpError(what, Trouble.NOT_HTTP, "does not speak HTTP") from None
    except http.client.LineTooLong:
        raise HttpError(what, Trouble.TOO_LARGE, "sent headers that are too long") from None
    except ssl.SSLError:
        raise HttpError(what, Trouble.BROKEN, "broke its encrypted answer off") from None
    except OSError as error:
        raise HttpError(what, Trouble.BROKEN, "broke its answer off", error.strerror or "") from None
    except (http.client.HTTPException, ValueError) as error:
        raise HttpError(what, Trouble.BROKEN, "sent a damaged answer", type(error).__name__) from None


class _Failed(Exception):  # noqa: N818 - it becomes an HttpError
    """What went wrong, still without its subject."""

    def __init__(self, trouble: Trouble, reason: str, detail: str = "") -> None:
        super().__init__()
        self.trouble = trouble
        self.reason = reason
        self.detail = detail


def _split(url: str) -> _Address:
    wrong = _Failed(
        Trouble.ADDRESS, "has an address that does not begin with http:// or https://, or is damaged"
    )
    if not re.fullmatch(r"[!-~]+", url):
        raise wrong
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
        raise wrong
    secure = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Address(secure, host, port or (443 if secure else 80), parts.netloc, target)


def _connected(host: str, port: int, secure: bool, clock: _Clock, ca_file: str | None) -> socket.socket:
    """A connection to the first of the name's addresses that takes one, each with its share of the time."""
    context: ssl.SSLContext | None = None
    if secure:
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except (OSError, ValueError) as error:
            detail = getattr(error, "strerror", None) or type(error).__name__
            raise _Failed(
                Trouble.AUTHORITIES, "cannot be asked, as its authorities cannot be read", detail
            ) from None
    trouble: OSError | None = None
    addresses = _addresses(host, port, clock)
    for number, (family, address) in enumerate(addresses):
        share = clock.left() / (len(addresses) - number)
        try:
            sock = _dialled(family, address, share)
        except OSError as error:
            trouble = error
            continue
        return sock if context is None else _encrypted(sock, context, host, clock)
    if isinstance(trouble, TimeoutError):
        raise _Overdue
    detail = (trouble.strerror if trouble else None) or type(trouble).__name__
    raise _Failed(Trouble.CONNECT, "cannot be reached", detail)


def _dialled(family: socket.AddressFamily, address: Any, timeout: float) -> socket.socket:
    """A connection to one address. Raises OSError."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _encrypted(sock: socket.socket, context: ssl.SSLContext, host: str, clock: _Clock) -> socket.socket:
    """The same connection over TLS. The handshake as a whole has the socket's time limit (CPython, ``_ssl.c``)."""
    try:
        sock.settimeout(clock.left())
        return context.wrap_socket(sock, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        sock.close()
        reason = "has a certificate that cannot be trusted"
        raise _Failed(Trouble.CERTIFICATE, reason, error.verify_message.rstrip(".")) from None
    except TimeoutError:
        sock.close()
        raise
    except (OSError, ValueError) as error:
        sock.close()
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise _Failed(Trouble.TLS, "makes no TLS connection", str(reason)) from None
    except BaseException:
        sock.close()
        raise


def _addresses(host: str, port: int, clock: _Clock) -> list[tuple[socket.AddressFamily, Any]]:
    """The addresses of a name. The system's resolver cannot be interrupted, so it works in a thread that is left behind."""
    found: list[tuple[socket.AddressFamily, Any]] = []
    trouble: list[Exception] = []

    def look_up() -> None:
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.extend((family, address) for family, _, _, _, address in entries)
        except (OSError, ValueError) as error:
            trouble.append(error)

    if _is_number(host):
        look_up()
    else:
        thread = threading.Thread(target=look_up, daemon=True)
        thread.start()
        thread.join(clock.left())
        clock.left()
    if not found:
        detail = getattr(trouble[0], "strerror", None) if trouble else ""
        raise _Failed(Trouble.NAME, "has a name that cannot be resolved", str(detail or ""))
    return found


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _exchange(
    address: _Address, line: _Line, method: str, headers: dict[str, str], body: bytes | None, limit: int
) -> Answer:
    """Send the request on a connection and read its answer."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=line.clock.left())
    connection.sock = cast(socket.socket, line)  # so that http.client opens none
    sent = {"Accept-Encoding": "identity", "Connection": "close", **headers}
    if body is not None:
        sent["Content-Length"] = str(len(body))
    try:
        connection.putrequest(method, address.target, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": address.netloc, **sent}.items():
            connection.putheader(name, value)
    except (ValueError, http.client.HTTPException):
        raise _Failed(
            Trouble.REQUEST, "cannot be asked, as the request holds characters that HTTP forbids"
        ) from None
    connection.endheaders(body)
    response = connection.getresponse()
    line.allowance = float("inf")
    names = {name.lower() for name in response.headers}
    received = {name: ", ".join(response.headers.get_all(name, [])) for name in names}
    return Answer(response.status, received, _body(response, received, limit))


def _body(response: http.client.HTTPResponse, headers: Mapping[str, str], limit: int) -> bytes:
    if limit == 0:
        return b""
    if headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise _Failed(Trouble.COMPRESSED, "sent a compressed answer, which was not requested")
    overlong = _Failed(Trouble.TOO_LARGE, f"sent an answer of more than {limit} bytes")
    if response.length is not None and response.length > limit:
        raise overlong
    parts: list[bytes] = []
    size = 0
    while part := response.read(min(_CHUNK, limit + 1 - size)):
        parts.append(part)
        size += len(part)
        if size > limit:
            raise overlong
    if response.length:
        raise _Failed(Trouble.BROKEN, "broke its answer off")
    return b"".join(parts)
