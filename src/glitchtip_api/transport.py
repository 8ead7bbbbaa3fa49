"""How requests leave and how answers come back: pace, retries, read-only mode, typed failures."""

from __future__ import annotations

import email.utils
import random
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import urlsplit

from . import answers
from .answers import Asked, Response
from .dsn import split_base_url
from .errors import READ_METHODS, GlitchTipError, InvalidError, ReadOnlyError, UnreachableError
from .limits import (
    CONCURRENT,
    OPEN_AFTER,
    OPEN_SECONDS,
    PER_SECOND,
    CircuitBreaker,
    CircuitOpen,
    Limiter,
    Verdict,
)

if TYPE_CHECKING:
    from . import connections as connections
else:
    try:
        from . import connections
    except ImportError:  # a bare host has no requests yet; Transport says so in one sentence
        connections = None

IDEMPOTENT_METHODS = READ_METHODS | {"PUT", "DELETE"}
RETRY_STATUS = frozenset({429, 502, 503, 504})
BACKOFF_SECONDS = 0.25
LONGEST_BACKOFF_SECONDS = 8.0
LONGEST_RETRY_AFTER_SECONDS = 30.0
DEADLINE_SECONDS = 120.0
LARGEST_BYTES = 64 * 2**20
USER_AGENT = "glitchtip-api/1"
_NO_ANSWER = frozenset({"refused", "connect_timeout", "timeout", "broken", "not_http", "proxy", "not_known"})
_SECRET_FIELDS = frozenset(
    {"password", "token", "url", "dsn", "code", "secret", "api_key", "apikey", "key", "endpointid"}
)


class Options(TypedDict, total=False):
    """How a server is asked: the options of `Transport`, which `Client` and others pass on."""

    timeout: tuple[float, float]
    deadline: float
    retries: int
    read_only: bool
    pooled: bool
    per_second: int | None
    per_minute: int | None
    concurrent: int | None
    open_after: int | None
    open_seconds: float
    validate_certs: bool
    ca_path: str | None
    largest: int
    user_agent: str
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    jitter: Callable[[], float]


class Transport:
    """Sends requests to one server. May be shared between threads.

    Args:
        url: address of the server, http(s), may have a path.
        timeout: seconds to connect and seconds to wait for data.
        deadline: seconds for a call, its repetitions and the waits between them included.
        retries: how often an idempotent request is repeated at most, after 429, 502, 503, 504 or no answer.
            A GET that got 500 is repeated once: after PostgreSQL restarted each pooled connection gives one.
        read_only: refuse every method but GET and HEAD before a socket is opened.
        pooled: keep connections for reads; see `connections`. Writes always have a connection of their own.
        per_second, per_minute, concurrent: requests at most, in any such time and at once; None for no limit.
        open_after, open_seconds: a server that failed so many calls in a row is left alone for so long
            (code `circuit_open`), then tried with one request; None never does so.
        validate_certs: False takes any certificate.
        ca_path: PEM file of the authorities to trust; without it the usual ones are.
        largest: bytes of an answer, unpacked, before it is given up.
        user_agent: value of that header.
        clock, sleep, jitter: injected by tests; `jitter` returns a number between 0 and 1.

    Raises InvalidError for an address or a `ca_path` that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: tuple[float, float] = (5, 30),
        deadline: float = DEADLINE_SECONDS,
        retries: int = 3,
        read_only: bool = False,
        pooled: bool = True,
        per_second: int | None = PER_SECOND,
        per_minute: int | None = None,
        concurrent: int | None = CONCURRENT,
        open_after: int | None = OPEN_AFTER,
        open_seconds: float = OPEN_SECONDS,
        validate_certs: bool = True,
        ca_path: str | None = None,
        largest: int = LARGEST_BYTES,
        user_agent: str = USER_AGENT,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        scheme, host, path = split_base_url(url)
        self.url = f"{scheme}://{host}{path}"
        self.retries = max(0, retries)
        self.read_only = read_only
        self.user_agent = user_agent
        self.clock = clock
        self.sleep = sleep
        self._jitter = jitter
        self._deadline = deadline
        self._limiter = Limiter(per_second, per_minute, concurrent, clock=clock, sleep=sleep)
        self._breaker = CircuitBreaker(open_after, open_seconds, clock=clock)
        verify = _checked_authorities(ca_path) if validate_certs and ca_path else validate_certs
        self.connections: connections.Connections | None = None
        if connections is not None:
            self.connections = connections.Connections(
                self.url, timeout=timeout, deadline=deadline, largest=largest, verify=verify, pooled=pooled
            )

    def __repr__(self) -> str:
        return f"Transport({self.url!r})"

    def close(self) -> None:
        """Close the connections that are kept."""
        if self.connections is not None:
            self.connections.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        accept: frozenset[int] = frozenset(),
    ) -> Response:
        """Send one request and return the answer.

        A DELETE that is repeated because nobody knows what became of it, and then finds nothing, is done: its
        answer is 204.

        Args:
            path: below `url`, with the trailing slash that the API demands.
            json: body as data, or `body`: body as bytes.
            accept: statuses from 400 on that are answers here, not failures.

        Raises:
            ReadOnlyError: a write in read-only mode; nothing was sent.
            UnreachableError: no answer, or the server is left alone for a while.
            NotJsonError: an answer in HTML or text, or an empty one to a GET.
            GlitchTipError: any other refusal.
        """
        method = method.upper()
        if self.read_only and method not in READ_METHODS:
            raise ReadOnlyError(method, path, code="read_only", detail="this client only reads")
        if self.connections is None:
            raise UnreachableError(
                method, path, code="no_requests", detail=f"{sys.executable} lacks the library 'requests'"
            )
        sent = {"User-Agent": self.user_agent, **(headers or {})}
        secrets = (*_secrets_in(json), *_secrets_in_headers(sent))
        asked = Asked(self.url, method, path, sent.get("Authorization", "").startswith("Bearer "), secrets)
        probe: bool | None = None
        verdict = Verdict.UNKNOWN
        end = self.clock() + self._deadline
        try:
            attempt, applied = 0, False
            while True:
                with self._limiter.slot():
                    if probe is None:
                        probe = self._enter(method, path)
                    self._limiter.pace()
                    came = self.connections.exchange(
                        method,
                        path,
                        seconds=end - self.clock(),
                        json=json,
                        body=body,
                        params=params,
                        headers=sent,
                    )
                outcome = self._judge(asked, came, accept, applied)
                verdict = _verdict(asked, outcome)
                if isinstance(outcome, Response):
                    return outcome
                outcome.maybe_applied = applied = applied or outcome.maybe_applied
                pause = None if probe else self._pause_after(method, came, attempt)
                if pause is None or self.clock() + pause >= end:
                    raise outcome
                attempt += 1
                self.sleep(pause)
        finally:
            if probe is not None:
                self._breaker.leave(probe, verdict)

    def _enter(self, method: str, path: str) -> bool:
        """Pass the circuit breaker: True for a probe. Raises UnreachableError while it is open."""
        try:
            return self._breaker.enter()
        except CircuitOpen as state:
            seconds = state.seconds
        when = f"for {seconds:.0f} s" if seconds else "until the request that is trying it has an answer"
        raise UnreachableError(
            method,
            path,
            None,
            "circuit_open",
            f"{self.url} failed {self._breaker.open_after} times in a row and is not asked {when}",
            "nothing was sent; see why the server is down",
        )

    def _judge(
        self,
        asked: Asked,
        came: connections.Answer | UnreachableError,
        accept: frozenset[int],
        applied: bool,
    ) -> Response | GlitchTipError:
        if isinstance(came, UnreachableError):
            return came
        if came.status < 400 or came.status in accept:
            return answers.read(asked, came)
        refusal = answers.refusal(asked, came)
        if asked.method == "DELETE" and applied and refusal.code == "not_found":
            return Response(204, None, came.headers, came.cookies)
        return refusal

    def _backoff(self, attempt: int) -> float:
        ceiling = min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2**attempt)
        return float(ceiling * (0.5 + 0.5 * self._jitter()))

    def _pause_after(
        self, method: str, came: connections.Answer | UnreachableError, attempt: int
    ) -> float | None:
        """Seconds until this failed request may be repeated, or None when it may not."""
        if method not in IDEMPOTENT_METHODS or attempt >= self.retries:
            return None
        if isinstance(came, UnreachableError):
            return self._backoff(attempt) if came.code in _NO_ANSWER else None
        if came.status == 500 and method in READ_METHODS and attempt == 0:
            return self._backoff(attempt)
        if came.status not in RETRY_STATUS:
            return None
        asked = retry_after(came.headers.get("retry-after"))
        return max(self._backoff(attempt), min(asked, LONGEST_RETRY_AFTER_SECONDS))


def _verdict(asked: Asked, outcome: Response | GlitchTipError) -> Verdict:
    """What a call says of the server. A write's 500 says nothing: a name that is taken is one, too."""
    if isinstance(outcome, Response):
        return Verdict.UP
    if outcome.status is None:
        return Verdict.DOWN if outcome.code in _NO_ANSWER else Verdict.UNKNOWN
    if outcome.status in (502, 503, 504):
        return Verdict.DOWN
    if outcome.status >= 500:
        return Verdict.UNKNOWN if asked.writing else Verdict.DOWN
    return Verdict.UP


def retry_after(value: str | None, now: Callable[[], float] = time.time) -> float:
    """Seconds that a `Retry-After` header asks for: a number or an HTTP date; 0 when absent or unreadable."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = float(email.utils.parsedate_to_datetime(value).timestamp()) - now()
        except ValueError:
            return 0.0
    return seconds if 0 < seconds < float("inf") else 0.0


def _checked_authorities(path: str) -> str:
    """The path of a PEM file. Raises InvalidError when it holds no certificate."""
    try:
        text = Path(path).read_text("ascii", "replace")
    except OSError as error:
        raise InvalidError(code="bad_ca", detail=f"ca_path {path}: {error.strerror}") from None
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise InvalidError(code="bad_ca", detail=f"ca_path {path} holds no certificate in PEM form")
    return path


def _secrets_in(data: Any) -> list[str]:
    """Values in a request's body that must not appear in a message, should the server repeat them."""
    found: list[str] = []
    if isinstance(data, Mapping):
        for name, value in data.items():
            if str(name).lower() in _SECRET_FIELDS and isinstance(value, str):
                found += [value, *_secret_parts(value)]
            else:
                found += _secrets_in(value)
    elif isinstance(data, list):
        for value in data:
            found += _secrets_in(value)
    return found


def _secret_parts(value: str) -> list[str]:
    """Path and query of an address, which a server may repeat without the rest."""
    if "://" not in value:
        return []
    try:
        parts = urlsplit(value)
    except ValueError:
        return []
    return [part for part in (parts.path, parts.path.lstrip("/"), parts.query) if len(part) >= 8]


def _secrets_in_headers(headers: Mapping[str, str]) -> list[str]:
    """The values of a request's headers that prove who asks: Bearer token, DSN key, cookies, CSRF token."""
    found: list[str] = []
    for name, value in headers.items():
        if name.lower() == "authorization":
            found.append(value.removeprefix("Bearer "))
        elif name.lower() in ("x-sentry-auth", "x-csrftoken", "cookie"):
            found += [part.rpartition("=")[2] for part in re.split(r"[;,]\s*", value)]
    return found
