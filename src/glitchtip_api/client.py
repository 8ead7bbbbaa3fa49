"""The client: one server, one token, and the resources on top."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self, Unpack

from .answers import UNKNOWN_ENDPOINT, Response
from .errors import GlitchTipError, InvalidError, NotJsonError
from .paging import pages
from .resources import (
    Alerts,
    Environments,
    Events,
    Issues,
    Keys,
    Members,
    Monitors,
    Organizations,
    Projects,
    Releases,
    Statistics,
    StatusPages,
    Teams,
)
from .transport import Options, Transport
from .version import OLDEST, Line, ServerVersion

_ONLY_ON_6 = "/api/0/issues/1/commits/"


class Client:
    """The API of one server under one token. May be shared between threads.

    Args:
        url: address of the server, e.g. ``http://127.0.0.1:8080``.
        token: API token (64 hex digits on GlitchTip); without one only open endpoints answer.
        options: how it is asked, see `Transport`: timeouts, retries, limits, certificates. By default at most
            10 requests a second and 2 at a time, which never presses a small server.

    Every method raises GlitchTipError or one of its subclasses; none ever shows the token. Raises InvalidError
    for an address, a token or a file of authorities that is none.
    """

    def __init__(self, url: str, token: str | None = None, **options: Unpack[Options]) -> None:
        if token and not (token.isascii() and token.isprintable() and " " not in token):
            raise InvalidError(
                code="bad_token",
                detail="the token holds a space, a line break or a letter that no token has",
            )
        self.transport = Transport(url, **options)
        self._version: ServerVersion | None = None
        self._line: Line | None = None
        self._version_lock = threading.Lock()
        self._headers: dict[str, str] = {"Authorization": f"Bearer {token}"} if token else {}
        self.organizations = Organizations(self)
        self.teams = Teams(self)
        self.projects = Projects(self)
        self.keys = Keys(self)
        self.alerts = Alerts(self)
        self.issues = Issues(self)
        self.events = Events(self)
        self.members = Members(self)
        self.monitors = Monitors(self)
        self.status_pages = StatusPages(self)
        self.releases = Releases(self)
        self.environments = Environments(self)
        self.statistics = Statistics(self)

    @property
    def url(self) -> str:
        """Address of the server, without a slash at the end."""
        return self.transport.url

    @property
    def read_only(self) -> bool:
        """True when this client refuses to write."""
        return self.transport.read_only

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget the token and close the connections that were kept."""
        self._headers = {}
        self.transport.close()

    def request(
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None
    ) -> Response:
        """Send one request; see `Transport.send` for what is repeated and what is raised."""
        return self.transport.send(method, path, json=json, params=params, headers=self._headers)

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """GET: parsed JSON."""
        return self.request("GET", path, params=params).data

    def post(self, path: str, json: Any = None) -> Any:
        """POST: parsed JSON, None when the answer is empty. Never repeated."""
        return self.request("POST", path, json=json).data

    def put(self, path: str, json: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """PUT: parsed JSON, None when the answer is empty."""
        return self.request("PUT", path, json=json, params=params).data

    def delete(self, path: str) -> Any:
        """DELETE: parsed JSON, None when the answer is empty."""
        return self.request("DELETE", path).data

    def get_or_none(self, path: str) -> Any | None:
        """GET: parsed JSON, or None when the server says that the object is not there (404 ``Not Found``).

        A path that the server does not serve is a failure (code `no_endpoint`): 404 in HTML, and on 6.x 404
        ``Not found`` in JSON, also for a feature that is switched off.
        """
        try:
            return self.get(path)
        except GlitchTipError as error:
            if error.code == "not_found":
                return None
            raise

    def remove(self, path: str) -> bool:
        """DELETE: True when it was there, False when the server says that it is not; see `get_or_none`."""
        try:
            self.delete(path)
        except GlitchTipError as error:
            if error.code == "not_found":
                return False
            raise
        return True

    def paginate(self, path: str, params: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, page after page (100 a page).

        Raises GlitchTipError (code `paging`) when a cursor comes twice, NotJsonError when a page is no list.
        """
        yield from pages(lambda wanted: self.request("GET", path, params=wanted), path, params)

    def settings(self) -> dict[str, Any]:
        """GET /api/settings/: open, needs the database (500 while PostgreSQL is down); holds `version`."""
        return _mapping(self.get("/api/settings/"), "/api/settings/")

    def root(self) -> dict[str, Any]:
        """GET /api/0/: ``{"version", "user", "auth"}``; with a token its user, and in `auth` its scopes."""
        return _mapping(self.get("/api/0/"), "/api/0/")

    def version(self) -> str:
        """Version of the server software, e.g. ``6.2.6``; empty when it keeps that to itself."""
        return self.server.text

    @property
    def server(self) -> ServerVersion:
        """The server's version, read at the first use and then kept."""
        with self._version_lock:
            if self._version is None:
                self._version = ServerVersion.parse(str(self.settings().get("version") or ""))
            return self._version

    @property
    def line(self) -> Line:
        """``5.2`` or ``6.x``, for what differs between them; found out once.

        A server that does not tell its version is asked for what only 6.x has: the commits of an issue are
        JSON there, be it a refusal, while 5.2 answers with the page of its single-page application.
        """
        if self.server.numbers is not None:
            return self.server.line
        with self._version_lock:
            if self._line is None:
                self._line = "6.x" if self._answers_json(_ONLY_ON_6) else "5.2"
            return self._line

    def _answers_json(self, path: str) -> bool:
        try:
            self.get(path)
        except NotJsonError:
            return False
        except GlitchTipError as error:
            if error.status is None or error.status >= 500:
                raise
            return error.code != "no_endpoint" or error.detail == UNKNOWN_ENDPOINT
        return True

    def require(self, minimum: str = OLDEST) -> str | None:
        """Refuse a server older than `minimum`; see `ServerVersion.require` for what it returns and raises."""
        return self.server.require(minimum)


def _mapping(data: Any, path: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise NotJsonError("GET", path, 200, "not_an_object", "the answer is no object")
    return data
