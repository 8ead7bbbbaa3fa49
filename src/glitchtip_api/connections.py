"""Connections to one server: kept for reads, fresh for writes, with an end to every wait.

GlitchTip 5.2 behind uWSGI, as its image starts it, answers HTTP/1.1 without ``Connection: close`` and then
closes: about two of five requests on a kept connection get no answer. granian keeps connections. Which of the
two it is shows only in use, so a read that a kept connection lost is sent again at once on a fresh one, and
from then on no connection to that server is kept. A write is never sent on a kept connection: whether a lost
one was carried out nobody could tell.
"""

from __future__ import annotations

import functools
import http.client
import io
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import requests
import requests.adapters
import requests.utils
import urllib3
import urllib3.connection
import urllib3.exceptions

from .errors import READ_METHODS, UnreachableError

MOST_KEPT = 16
_CHUNK_BYTES = 65536


@dataclass(frozen=True)
class Answer:
    """What came back: status, headers with lower-case names, the whole body, cookies that were set."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    cookies: Mapping[str, str] = field(repr=False)

    @property
    def is_json(self) -> bool:
        """True when the answer calls itself JSON."""
        return "json" in self.headers.get("content-type", "").partition(";")[0].lower()


#: Called with the socket of each new connection without TLS and the seconds that are left, before anything is sent: an
#: empty text, or why nothing is, and whether that may be different in a moment.
#: This package stands alone, so what uses it sets the check (`glitchtip_core.listener`).
guard: Callable[[socket.socket, float], tuple[str, bool]] | None = None


class Connections:
    """Sends single requests to one server. Safe to share between threads: each uses a connection of its own.

    ~/.netrc is never read. Proxies of the environment (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY) are used
    as other programs use them, but never for an address of this machine: a GlitchTip on 127.0.0.1 cannot be
    what a proxy elsewhere calls 127.0.0.1.

    Args:
        url: address of the server.
        timeout: seconds to connect and seconds to wait for data.
        deadline: seconds for one exchange at most, from connecting to the last byte of the answer, so that one that
            trickles comes to an end. Only the system's resolver has limits of its own (resolv.conf).
        largest: bytes of an answer, unpacked, before it is given up.
        verify: False trusts any certificate, True the usual authorities (or those of REQUESTS_CA_BUNDLE or
            CURL_CA_BUNDLE), a path the authorities in that PEM file.
        pooled: keep connections for reads, `MOST_KEPT` at most.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: tuple[float, float],
        deadline: float,
        largest: int,
        verify: bool | str,
        pooled: bool,
    ) -> None:
        self._url = url
        self._timeout = timeout
        self._deadline = deadline
        self._largest = largest
        self._verify = _authorities() if verify is True else verify
        self._proxies = proxies_for(url)
        self._lock = threading.Lock()
        self._idle: list[_Line] = []
        self._keeping = pooled
        self.opened = 0
        self.lost = 0
        if verify is False:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    @property
    def keeping(self) -> bool:
        """False when connections are not kept: not wanted, or this server closes them without a word."""
        return self._keeping

    def close(self) -> None:
        """Close what is kept. May be used again afterwards."""
        with self._lock:
            idle, self._idle = self._idle, []
        for line in idle:
            line.close()

    def exchange(
        self, method: str, path: str, *, seconds: float | None = None, **parts: Any
    ) -> Answer | UnreachableError:
        """Send one request (`json`, `body`, `params`, `headers`) and return its answer or why there is none.

        `seconds`: how long it may take, where that is less than the deadline.
        Never raises what `requests` raises: those exceptions hold the request with its token.
        """
        keep = self._keeping and method in READ_METHODS
        limit = self._deadline if seconds is None else max(0.0, min(seconds, self._deadline))
        end = time.monotonic() + limit
        try:
            prepared = self._prepare(method, path, keep, **parts)
        except (requests.RequestException, UnicodeError) as error:
            kind = type(error).__name__
            detail = f"the request could not be made ({kind})"
            return UnreachableError(method, path, None, "request", detail)
        with self._lock:
            line = self._idle.pop() if keep and self._idle else _Line()
        before = line.opened
        line.begin(end, limit)
        outcome = self._on(line, prepared, path)
        if isinstance(outcome, _LostError) and line.opened == before:
            with self._lock:
                self._keeping = keep = False
                self.lost += 1
            self.close()
            line.close()
            line, before = _Line(), 0
            line.begin(end, limit)
            prepared.headers["Connection"] = "close"
            outcome = self._on(line, prepared, path)
        with self._lock:
            self.opened += line.opened - before
            kept = keep and self._keeping and isinstance(outcome, Answer) and len(self._idle) < MOST_KEPT
            if kept:
                self._idle.append(line)
        if not kept:
            line.close()
        return outcome

    def _prepare(
        self,
        method: str,
        path: str,
        keep: bool,
        *,
        json: Any = None,
        body: bytes | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> requests.PreparedRequest:
        sent = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "Connection": "keep-alive" if keep else "close",
            **(headers or {}),
        }
        url = self._url + path
        return requests.Request(method, url, headers=sent, json=json, data=body, params=params).prepare()

    def _on(self, line: _Line, prepared: requests.PreparedRequest, path: str) -> Answer | UnreachableError:
        """One attempt on one connection."""
        method = str(prepared.method)
        try:
            timeout = (min(self._timeout[0], line.left()), self._timeout[1])
            answer = line.send(
                prepared, stream=True, timeout=timeout, verify=self._verify, proxies=self._proxies
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            if line.refused[0]:
                return self._stranger(method, path, line)
            return self._no_answer(method, path, error, line)
        try:
            body = self._read(answer)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            return self._broken_off(method, path, error, line)
        if body is None:
            detail = f"the answer is larger than {self._largest // 2**20} MiB"
            return UnreachableError(
                method, path, None, "too_large", detail, maybe_applied=method not in READ_METHODS
            )
        headers = {name.lower(): value for name, value in answer.headers.items()}
        cookies = {cookie.name: cookie.value or "" for cookie in answer.cookies}
        return Answer(answer.status_code, headers, body, cookies)

    def _read(self, answer: requests.Response) -> bytes | None:
        """The body, unpacked; None when it is too large."""
        announced = answer.headers.get("Content-Length", "")
        if announced.isascii() and announced.isdigit() and int(announced) > self._largest:
            return None
        chunks, size = [], 0
        for chunk in answer.raw.stream(_CHUNK_BYTES, decode_content=True):
            size += len(chunk)
            if size > self._largest:
                return None
            chunks.append(chunk)
        return b"".join(chunks)

    def _no_answer(self, method: str, path: str, error: Exception, line: _Line) -> UnreachableError:
        """Why a request got no answer. Nothing of `error` but known words goes into the failure."""
        url, writing = self._url, method not in READ_METHODS
        if line.overdue:
            return self._overdue(method, path, line.limit)
        if isinstance(error, requests.exceptions.SSLError):
            code, detail, hint = _tls_trouble(url, str(error))
            return UnreachableError(method, path, None, code, detail, hint)
        if isinstance(error, requests.exceptions.ProxyError):
            return UnreachableError(
                method,
                path,
                None,
                "proxy",
                f"the proxy of the environment did not pass the request on to {url}",
                "set HTTPS_PROXY or HTTP_PROXY right, or name the server in NO_PROXY",
            )
        if isinstance(error, requests.ConnectTimeout):
            detail = f"{url} did not take the connection in time"
            return UnreachableError(method, path, None, "connect_timeout", detail)
        if isinstance(error, requests.Timeout):
            detail = f"{url} took the request but did not answer in time"
            return UnreachableError(method, path, None, "timeout", detail, maybe_applied=writing)
        text = repr(error)
        if "TimeoutError(" in text:  # urllib3 calls a connection aborted that did not take the request in time
            detail = f"{url} did not take the request in time"
            return UnreachableError(method, path, None, "timeout", detail, maybe_applied=writing)
        if "NameResolutionError" in text:
            name = urlsplit(url).hostname
            return UnreachableError(method, path, None, "refused", f"nobody knows a host named {name}")
        if "NewConnectionError" in text:
            return UnreachableError(method, path, None, "refused", f"nobody answers at {url}")
        if isinstance(error, requests.ConnectionError | urllib3.exceptions.HTTPError):
            if "BadStatusLine" in text or "LineTooLong" in text:
                detail = f"{url} answered something that is not HTTP"
                hint = "is this the port of a web server?"
                return UnreachableError(method, path, None, "not_http", detail, hint, maybe_applied=writing)
            detail = f"{url} closed the connection without an answer"
            return _LostError(method, path, None, "broken", detail, maybe_applied=writing)
        detail = f"the request could not be made ({type(error).__name__})"
        return UnreachableError(method, path, None, "request", detail)

    def _stranger(self, method: str, path: str, line: _Line) -> UnreachableError:
        (detail, passing), line.refused = line.refused, ("", False)
        return UnreachableError(method, path, None, "not_known" if passing else "stranger", detail)

    def _broken_off(self, method: str, path: str, error: Exception, line: _Line) -> UnreachableError:
        """Why an answer that had begun did not come to its end."""
        writing = method not in READ_METHODS
        if line.overdue:
            return self._overdue(method, path, line.limit)
        if isinstance(error, urllib3.exceptions.ReadTimeoutError):
            code, detail = "timeout", f"{self._url} stopped in the middle of its answer"
        elif isinstance(error, urllib3.exceptions.DecodeError):
            code, detail = "broken", f"{self._url} sent an answer that cannot be unpacked"
        else:
            code, detail = "broken", f"{self._url} broke the answer off"
        return UnreachableError(method, path, None, code, detail, maybe_applied=writing)

    def _overdue(self, method: str, path: str, limit: float) -> UnreachableError:
        detail = f"{self._url} had not finished its answer after {limit:.3g} s"
        return UnreachableError(
            method, path, None, "timeout", detail, maybe_applied=method not in READ_METHODS
        )


class _LostError(UnreachableError):
    """The connection ended before the first byte of an answer."""


class _Line(requests.adapters.HTTPAdapter):
    """One connection, used by one thread at a time, that counts how often it was opened and knows when its exchange must end."""

    def __init__(self) -> None:
        self.limit = 0.0
        self.opened = 0
        self.overdue = False
        self._end = 0.0
        self.refused = ("", False)
        super().__init__(pool_connections=1, pool_maxsize=1)

    def begin(self, end: float, limit: float) -> None:
        """Give the next exchange until ``end`` (monotonic), which was ``limit`` seconds when it began."""
        self._end, self.limit, self.overdue = end, limit, False

    def left(self) -> float:
        """Seconds that are left. Raises TimeoutError when none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            self.overdue = True
            raise TimeoutError
        return left

    def wait(self, sock: Any, patience: float | None) -> None:
        """Give the socket's next step what is left, `patience` seconds at most. Raises TimeoutError when nothing is."""
        left = self.left()
        sock.settimeout(min(left, patience or left))

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        self._watch(manager)
        return manager

    def _watch(self, manager: Any) -> None:
        manager.pool_classes_by_scheme = {
            "http": self._pools(urllib3.HTTPConnectionPool, _PlainConnection),
            "https": self._pools(urllib3.HTTPSConnectionPool, _TlsConnection),
        }

    def _pools(self, pool: Any, connection: type) -> Callable[..., Any]:
        def make(*arguments: Any, **options: Any) -> Any:
            made = pool(*arguments, **options)
            made.ConnectionCls = functools.partial(connection, line=self)
            return made

        return make


def _send_in_time(connection: Any, send: Callable[[Any], None], data: Any) -> None:
    """Send in pieces, each within what is left: over TLS the limit of a socket is that of each record alone."""
    if connection.sock is None or not isinstance(data, bytes):
        send(data)
        return
    for start in range(0, len(data), _CHUNK_BYTES):
        connection.line.wait(connection.sock, connection.timeout)
        try:
            send(data[start : start + _CHUNK_BYTES])
        except TimeoutError:
            connection.line.left()  # marks the line when it was the deadline that ended the wait
            raise


class _PlainConnection(urllib3.connection.HTTPConnection):
    """A connection that tells its line when it is opened and gives up an exchange that takes too long."""

    def __init__(self, *arguments: Any, line: _Line, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.line = line
        # Typed as a class; urllib3 only calls it, as http.client does.
        self.response_class = functools.partial(_TimedAnswer, line)  # type: ignore[assignment]

    def connect(self) -> None:
        self.line.opened += 1
        super().connect()
        if guard is not None and self.sock is not None and self.proxy is None:
            self.line.refused = guard(self.sock, self.line.left())
            if self.line.refused[0]:
                self.close()
                raise ConnectionRefusedError

    def send(self, data: Any) -> None:
        _send_in_time(self, super().send, data)


class _TlsConnection(urllib3.connection.HTTPSConnection):
    """The same over TLS."""

    def __init__(self, *arguments: Any, line: _Line, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.line = line
        # As above.
        self.response_class = functools.partial(_TimedAnswer, line)  # type: ignore[assignment]

    def connect(self) -> None:
        self.line.opened += 1
        super().connect()

    def send(self, data: Any) -> None:
        _send_in_time(self, super().send, data)


class _TimedAnswer(http.client.HTTPResponse):
    """An answer whose bytes, headers included, must all have come before the deadline."""

    def __init__(self, line: _Line, sock: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_TimedBytes(line, sock, self.fp.detach()))


class _TimedBytes(io.RawIOBase):
    """What comes out of a socket. Raises TimeoutError when the line's deadline has passed."""

    def __init__(self, line: _Line, sock: Any, raw: Any) -> None:
        self._line = line
        self._sock = sock
        self._raw = raw
        self._patience = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Any:
        self._line.wait(self._sock, self._patience)
        try:
            return self._raw.readinto(buffer)
        except TimeoutError:
            self._line.left()  # marks the line when it was the deadline that ended the wait
            raise

    def close(self) -> None:
        self._raw.close()
        super().close()


def proxies_for(url: str) -> dict[str, str]:
    """The proxies that the environment names for an address; none for an address of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        here = ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost" or host.endswith(".localhost")
    return {} if here else requests.utils.get_environ_proxies(url)


def _authorities() -> bool | str:
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True


_UNTRUSTED = re.compile(r"certificate verify failed: ([^(\n]+)")


def _tls_trouble(url: str, text: str) -> tuple[str, str, str]:
    """Code, detail and hint for an SSLError with this text."""
    found = _UNTRUSTED.search(text)
    if found:
        reason = found[1].strip().rstrip(".")
        return (
            "untrusted",
            f"the certificate of {url} is not trusted: {reason}",
            "name the file of the authority that signed it (PEM) as ca_path, or renew the certificate",
        )
    return "tls", f"no TLS connection to {url}", "does the address start with http:// instead of https://?"
