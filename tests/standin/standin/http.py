"""Requests, answers and the routing rules of the real server.

- A known path without its trailing slash answers 301 to the path with it.
- A known path with a wrong verb answers 405 as text, with ``Allow``.
- A GET on an unknown path that the single-page app claims answers 200 HTML; a POST there 403 HTML (CSRF).
- Every other unknown path answers 404 HTML. Any exception answers 500 HTML, never JSON.
- 6.2 line: every unknown path below ``/api/0/``, one without its slash too, is 404 JSON ``Not found`` for any verb and
  for everybody; an object that is missing says ``Not Found`` (source of a later 6.x, perhaps not yet in 6.2.6).
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from . import state

Row = dict[str, Any]
log = logging.getLogger("glitchtip.web")

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"

NOT_FOUND_PAGE = (
    "<!DOCTYPE html>\n<html>\n  <head>\n    <title>GlitchTip</title>\n  </head>\n  <body>\n"
    "    <h1>Page not found</h1>\n  </body>\n</html>\n"
)
FORBIDDEN_PAGE = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n  <meta http-equiv="content-type"'
    ' content="text/html; charset=utf-8">\n'
    '  <meta name="robots" content="NONE,NOARCHIVE">\n  <title>403 Forbidden</title>\n</head>\n<body>\n'
    "  <h1>Forbidden <span>(403)</span></h1>\n  <p>CSRF verification failed. Request"
    " aborted.</p>\n</body>\n</html>\n"
)
APP_PAGE = (
    '<!doctype html><html lang="en"><head><base href="/"/><title>GlitchTip</title></head>'
    "<body><app-root></app-root></body></html>\n"
)


def error_page(status: int, phrase: str) -> str:
    """The page that Django shows for 400 and 500."""
    return (
        f'\n<!doctype html>\n<html lang="en">\n<head>\n  <title>{phrase}'
        f" ({status})</title>\n</head>\n<body>\n"
        f"  <h1>{phrase} ({status})</h1><p></p>\n</body>\n</html>\n"
    )


@dataclass
class Response:
    """One answer. ``cookies`` are complete ``Set-Cookie`` values."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    cookies: list[str] = field(default_factory=list)


class HttpError(Exception):
    """Ends a request with this answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def encode(value: Any) -> bytes:
    """JSON as the server writes it: compact enough, UTF-8, times in milliseconds with ``Z``."""
    return json.dumps(value, default=_plain, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _plain(value: object) -> str:
    if isinstance(value, dt.datetime):
        return stamp(value) or ""
    return str(value)


def stamp(moment: dt.datetime | None) -> str | None:
    """``2026-11-21T02:00:42.551Z``."""
    if moment is None:
        return None
    moment = moment.astimezone(dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def answer(value: Any, status: int = 200, **headers: str) -> Response:
    """A JSON answer."""
    return Response(status, encode(value), headers=dict(headers))


def html(page: str, status: int = 200) -> Response:
    """An HTML answer."""
    return Response(status, page.encode(), HTML)


def no_content() -> Response:
    """204, with the JSON content type and no body, as the server does it."""
    return Response(204)


def fail(status: int, detail: Any) -> HttpError:
    """``{"detail": ...}`` with this status, to be raised."""
    return HttpError(answer({"detail": detail}, status))


def not_found() -> HttpError:
    """404 ``{"detail": "Not Found"}``, to be raised."""
    return fail(404, "Not Found")


def server_error() -> HttpError:
    """The 500 page, to be raised where the real server is known to break."""
    return HttpError(html(error_page(500, "Server Error"), 500))


@dataclass
class Request:
    """One request, with its body read. ``user`` and ``token`` are set by :mod:`standin.auth`."""

    method: str
    path: str
    query_string: str
    headers: Mapping[str, str]
    body: bytes
    scheme: str
    remote: str
    cookies: dict[str, str] = field(default_factory=dict)
    user: Row | None = None
    token: Row | None = None
    response_headers: dict[str, str] = field(default_factory=dict)
    response_cookies: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.query: list[tuple[str, str]] = parse_qsl(self.query_string, keep_blank_values=True)

    @property
    def host(self) -> str:
        """``name[:port]`` as the client asked for it."""
        return self.headers.get("host", "localhost")

    @property
    def base_url(self) -> str:
        """``http://host``."""
        return f"{self.scheme}://{self.host}"

    def parameter(self, name: str) -> str | None:
        """The last value of a query parameter."""
        return next((value for key, value in reversed(self.query) if key == name), None)

    def parameters(self, name: str) -> list[str]:
        """All values of a query parameter."""
        return [value for key, value in self.query if key == name]

    def json(self) -> Any:
        """The body as JSON; 400 when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise fail(400, "Cannot parse request body") from None


Handler = Callable[..., Response]
_CONVERTERS = {
    "str": r"[^/]+",
    "int": r"[0-9]+",
    "slug": r"[-a-zA-Z0-9_]+",
    "uuid": r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
}
_KINDS = dict.fromkeys(("org", "project", "team"), "slug")


def _compile(pattern: str) -> re.Pattern[str]:
    def group(match: re.Match[str]) -> str:
        name, _, kind = match.group(1).partition(":")
        return f"(?P<{name}>{_CONVERTERS[kind or _KINDS.get(name, 'str')]})"

    return re.compile(re.sub(r"\{([a-z_:]+)\}", group, pattern) + r"\Z")


@dataclass
class _Route:
    pattern: re.Pattern[str]
    handlers: dict[str, Handler] = field(default_factory=dict)


class Router:
    """Paths to handlers. ``{name}`` takes anything but a slash, ``{org}``, ``{project}`` and ``{team}`` only what
    a slug is made of, ``{name:int}`` digits, ``{name:uuid}`` a dashed UUID."""

    def __init__(self) -> None:
        self._routes: dict[str, _Route] = {}

    def route(self, pattern: str, *methods: str) -> Callable[[Handler], Handler]:
        """Register the decorated handler; it is called with the request and the path's parts as keywords."""

        def register(handler: Handler) -> Handler:
            entry = self._routes.setdefault(pattern, _Route(_compile(pattern)))
            entry.handlers.update(dict.fromkeys(methods, handler))
            return handler

        return register

    def find(self, path: str) -> tuple[dict[str, Handler], dict[str, str]] | None:
        """The handlers of a path and its parts, or None."""
        for entry in self._routes.values():
            match = entry.pattern.match(path)
            if match:
                return entry.handlers, match.groupdict()
        return None


router = Router()

_APP_PATH = re.compile(r"/(?:projects|issues|settings|releases|performance)|^/(?:organizations|profile)|^/\Z")


#: Gone with ``GLITCHTIP_ENABLE_UPTIME=false`` (source of the 6.2 line).
_UPTIME_PATH = re.compile(r"/(?:monitors|heartbeat_check|status-pages)/")


def unknown_path(request: Request) -> Response:
    """What the server says on a path that it does not have."""
    if state.get().settings.line == "6.2" and request.path.startswith("/api/0/"):
        return answer({"detail": "Not found"}, 404)
    if not request.path.endswith("/") and router.find(request.path + "/"):
        query = f"?{request.query_string}" if request.query_string else ""
        response = html("", 301)
        response.headers["Location"] = f"{request.path}/{query}"
        return response
    if _APP_PATH.search(request.path):
        return html(APP_PAGE) if request.method in {"GET", "HEAD"} else html(FORBIDDEN_PAGE, 403)
    return html(NOT_FOUND_PAGE, 404)


def dispatch(request: Request) -> Response:
    """Answer one request. Never raises."""
    try:
        response = _dispatch(request)
    except HttpError as error:
        response = error.response
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        response = server_error().response
    response.headers = {**request.response_headers, **response.headers}
    response.cookies = request.response_cookies + response.cookies
    response.headers.setdefault("Vary", "Accept-Language, origin")
    if request.headers.get("origin"):
        response.headers.setdefault("Access-Control-Allow-Origin", "*")
    return response


def _dispatch(request: Request) -> Response:
    found = router.find(request.path)
    if found is None or (_UPTIME_PATH.search(request.path) and not state.get().settings.enable_uptime):
        return unknown_path(request)
    handlers, parts = found
    if request.method == "OPTIONS" and request.headers.get("origin"):
        return _preflight()
    handler = handlers.get(request.method)
    if handler is None:
        response = html("Method not allowed", 405)
        response.headers["Allow"] = ", ".join(handlers)
        return response
    return handler(request, **parts)


def _preflight() -> Response:
    response = html("")
    response.headers.update(
        {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "DELETE, GET, OPTIONS, PATCH, POST, PUT",
            "Access-Control-Allow-Headers": "accept, authorization, content-type, user-agent, x-csrftoken,"
            " x-requested-with, x-sentry-auth",
            "Access-Control-Max-Age": "86400",
        }
    )
    return response
