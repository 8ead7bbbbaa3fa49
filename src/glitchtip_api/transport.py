"""How requests leave and how answers come back: timeouts, retries, read-only mode, typed failures."""

from __future__ import annotations

import email.utils
import random
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .dsn import split_base_url
from .errors import GlitchTipError, NotJsonError, ReadOnlyError, UnreachableError, scrub

if TYPE_CHECKING:
    import requests
    import requests.auth
else:
    try:
        import requests
        import requests.auth
    except ImportError:  # a bare host has no requests yet; Transport says so in one sentence
        requests = None

READ_METHODS = frozenset({"GET", "HEAD"})
IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "PUT", "DELETE"})
RETRY_STATUS = frozenset({429, 502, 503, 504})
BACKOFF_SECONDS = 0.25
LONGEST_BACKOFF_SECONDS = 8.0
LONGEST_RETRY_AFTER_SECONDS = 30.0
_SECRET_FIELDS = frozenset({"password", "token", "url", "dsn", "code"})
_CODES = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found"}
_CODES |= {405: "method_not_allowed", 409: "conflict", 422: "invalid", 429: "throttled", 500: "server_error"}
_HINTS = {
    401: "the token is missing, wrong or revoked",
    403: "the token lacks a scope, or its user lacks the role",
    429: "the server asks to come back later",
}


@dataclass(frozen=True)
class Response:
    """An answer: HTTP status, parsed JSON (None when the body is empty) and headers with lower-case names."""

    status: int
    data: Any
    headers: Mapping[str, str]
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)


class Transport:
    """Sends requests to one server, each on a new connection.

    A new connection a request is the safe default: uWSGI as GlitchTip 5.2 starts it closes every connection
    without saying so, and a kept one fails for about two of five requests.

    Args:
        url: address of the server, http(s), may have a path.
        timeout: seconds to connect and seconds to wait for data.
        retries: how often an idempotent request is repeated at most, after 429, 502, 503, 504 or no answer.
            A GET that got 500 is repeated once: after PostgreSQL restarted each pooled connection gives one.
        read_only: refuse every method but GET and HEAD before a socket is opened.
        user_agent: value of that header.
        sleep, jitter: injected by tests; `jitter` returns a number between 0 and 1.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: tuple[float, float] = (5, 30),
        retries: int = 3,
        read_only: bool = False,
        user_agent: str = "glitchtip-api/1",
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        scheme, host, path = split_base_url(url)
        self.url = f"{scheme}://{host}{path}"
        self.timeout = timeout
        self.retries = max(0, retries)
        self.read_only = read_only
        self.user_agent = user_agent
        self.sleep = sleep
        self._jitter = jitter

    def __repr__(self) -> str:
        return f"Transport({self.url!r})"

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

        Args:
            path: below `url`, with the trailing slash that the API demands.
            json: body as data, or `body`: body as bytes.
            accept: statuses from 400 on that are answers here, not failures.

        Raises:
            ReadOnlyError: a write in read-only mode; nothing was sent.
            UnreachableError: no answer.
            NotJsonError: an answer in HTML or text.
            GlitchTipError: any other refusal.
        """
        method = method.upper()
        if self.read_only and method not in READ_METHODS:
            raise ReadOnlyError(method, path, code="read_only", detail="this client only reads")
        if requests is None:
            raise UnreachableError(
                method, path, code="no_requests", detail=f"{sys.executable} lacks the library 'requests'"
            )
        secrets = _secrets_in(json) + _secrets_in_headers(headers or {})
        attempt = 0
        while True:
            pause: float | None = None
            try:
                answer = self._exchange(method, path, json, params, body, headers)
                if answer.status_code < 400 or answer.status_code in accept:
                    return _read(method, path, answer, secrets)
                failure = _refusal(method, path, answer, secrets)
                pause = self._pause_after(method, answer, attempt)
            except requests.RequestException as error:
                failure = _no_answer(method, path, error, self.url)
                if method in IDEMPOTENT_METHODS and attempt < self.retries:
                    pause = self._backoff(attempt)
            if pause is None:
                raise failure from None
            attempt += 1
            self.sleep(pause)

    def _exchange(
        self,
        method: str,
        path: str,
        json: Any,
        params: Mapping[str, Any] | None,
        body: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> requests.Response:
        sent = {"Accept": "application/json", "User-Agent": self.user_agent, "Connection": "close"}
        return requests.request(
            method,
            self.url + path,
            json=json,
            data=body,
            params=params,
            headers={**sent, **(headers or {})},
            auth=_AsGiven(),
            timeout=self.timeout,
            allow_redirects=False,
        )

    def _backoff(self, attempt: int) -> float:
        ceiling = min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2**attempt)
        return float(ceiling * (0.5 + 0.5 * self._jitter()))

    def _pause_after(self, method: str, answer: requests.Response, attempt: int) -> float | None:
        """Seconds until this refused request may be repeated, or None when it may not."""
        if method not in IDEMPOTENT_METHODS or attempt >= self.retries:
            return None
        if answer.status_code == 500 and method in READ_METHODS and attempt == 0:
            return self._backoff(attempt)
        if answer.status_code not in RETRY_STATUS:
            return None
        asked = retry_after(answer.headers.get("Retry-After"))
        return max(self._backoff(attempt), min(asked, LONGEST_RETRY_AFTER_SECONDS))


class _AsGiven:
    """Keeps requests from putting a ~/.netrc entry over our own Authorization header."""

    def __call__(self, prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        return prepared


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


def _secrets_in(data: Any) -> list[str]:
    """Values in a request's body that must not appear in a message, should the server repeat them."""
    found: list[str] = []
    if isinstance(data, Mapping):
        for name, value in data.items():
            if name in _SECRET_FIELDS and isinstance(value, str):
                found.append(value)
            else:
                found += _secrets_in(value)
    elif isinstance(data, list):
        for value in data:
            found += _secrets_in(value)
    return found


def _secrets_in_headers(headers: Mapping[str, str]) -> list[str]:
    """The values of a request's headers that prove who asks: Bearer token, DSN key, cookies, CSRF token."""
    found: list[str] = []
    for name, value in headers.items():
        if name.lower() == "authorization":
            found.append(value.removeprefix("Bearer "))
        elif name.lower() in ("x-sentry-auth", "x-csrftoken", "cookie"):
            found += [part.rpartition("=")[2] for part in re.split(r"[;,]\s*", value)]
    return found


def _is_json(answer: requests.Response) -> bool:
    return "json" in answer.headers.get("Content-Type", "").partition(";")[0].lower()


def _read(method: str, path: str, answer: requests.Response, secrets: list[str]) -> Response:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    cookies = {cookie.name: cookie.value or "" for cookie in answer.cookies}
    if 300 <= answer.status_code < 400:
        raise GlitchTipError(
            method,
            path,
            answer.status_code,
            "redirect",
            scrub(f"redirected to {headers.get('location', 'nowhere')}", secrets),
            "give the address that answers itself, with the right scheme and path",
        )
    if not answer.content:
        return Response(answer.status_code, None, headers, cookies)
    if _is_json(answer):
        try:
            return Response(answer.status_code, answer.json(), headers, cookies)
        except ValueError:
            detail = "the answer calls itself JSON but cannot be read as JSON"
    else:
        kind = headers.get("content-type", "no content type").partition(";")[0]
        detail = f"{kind} where JSON was due"
    raise NotJsonError(
        method,
        path,
        answer.status_code,
        "not_json",
        detail,
        "no such endpoint on this server, or the address is not a GlitchTip",
        maybe_applied=method not in READ_METHODS,
    )


def _refusal(method: str, path: str, answer: requests.Response, secrets: list[str]) -> GlitchTipError:
    status = answer.status_code
    if _is_json(answer):
        try:
            detail = _detail_of(answer.json())
        except ValueError:
            detail = "unreadable JSON"
    else:
        detail = "" if "html" in answer.headers.get("Content-Type", "") else answer.text.strip()
    code = _CODES.get(status, "server_error" if status >= 500 else "refused")
    return GlitchTipError(
        method,
        path,
        status,
        "no_endpoint" if status == 404 and not _is_json(answer) else code,
        scrub(detail, secrets),
        _HINTS.get(status, ""),
        maybe_applied=method not in READ_METHODS and status >= 500,
    )


def _detail_of(data: Any) -> str:
    """One line from the error bodies of django-ninja (`detail`) and allauth (`errors`)."""
    if not isinstance(data, Mapping):
        return ""
    detail = data.get("detail", data.get("message", data.get("errors", "")))
    if isinstance(detail, str):
        return detail
    if not isinstance(detail, list):
        return ""
    lines = []
    for item in detail:
        if not isinstance(item, Mapping):
            lines.append(str(item))
            continue
        where = ".".join(str(part) for part in item.get("loc", [])[2:]) or str(item.get("param", ""))
        what = item.get("msg") or item.get("message") or "; ".join(f"{k}: {v}" for k, v in item.items())
        lines.append(f"{where}: {what}" if where else str(what))
    return "; ".join(lines)


def _no_answer(method: str, path: str, error: requests.RequestException, url: str) -> UnreachableError:
    writing = method not in READ_METHODS
    if isinstance(error, requests.exceptions.SSLError):
        code, detail, applied = "tls", f"no trusted TLS connection to {url}", False
    elif isinstance(error, requests.ConnectTimeout):
        code, detail, applied = "connect_timeout", f"{url} did not take the connection in time", False
    elif isinstance(error, requests.Timeout):
        code, detail, applied = "timeout", f"{url} took the request but did not answer in time", writing
    elif isinstance(error, requests.exceptions.ChunkedEncodingError):
        code, detail, applied = "broken", f"{url} broke the answer off", writing
    elif isinstance(error, requests.ConnectionError):
        refused = "NewConnectionError" in repr(error) or "NameResolutionError" in repr(error)
        code, applied = ("refused", False) if refused else ("broken", writing)
        detail = f"nobody answers at {url}" if refused else f"{url} closed the connection without an answer"
    else:
        code, detail, applied = "request", f"the request could not be made ({type(error).__name__})", False
    return UnreachableError(method, path, None, code, detail, maybe_applied=applied)
