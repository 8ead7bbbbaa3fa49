"""The web process: Starlette requests over uvicorn, with the connection behaviour of the server that is
imitated.

5.2 line (uWSGI ``--http-socket``): every connection is closed after its answer, which says ``HTTP/1.1`` and
no ``Connection: close``; a client that reuses connections loses requests. ``UWSGI_ADD_HEADER=Connection:
close`` cures it. With granian (6.2 line, or ``USE_GRANIAN=true``) connections stay open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from . import http, state
from .settings import Settings

# Each of these registers its routes.
from . import alerts, comments, environments, events, ingest, issues  # isort: skip # noqa: F401
from . import issues_six, keys, members, monitors, organizations, projects  # isort: skip # noqa: F401
from . import releases, root, sessions, statistics, status_pages, teams  # isort: skip # noqa: F401
from . import tokens, users  # isort: skip # noqa: F401

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: How long after its answer a connection is closed. A client that sends its next request within this time
#: sees the
#: connection end without an answer.
CLOSE_AFTER_SECONDS = 0.004

log = logging.getLogger("glitchtip.web")
access = logging.getLogger("glitchtip.access")


class ClosingProtocol(H11Protocol):
    """HTTP/1.1 that serves one request a connection and then closes it without having said so."""

    _answered = False

    def data_received(self, data: bytes) -> None:
        """Bytes after the first request are read and thrown away."""
        if not self._answered:
            super().data_received(data)

    def on_response_complete(self) -> None:
        """Close instead of waiting for the next request."""
        self._answered = True
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.loop.call_later(CLOSE_AFTER_SECONDS, self.transport.close)


class Application:
    """The ASGI application: reads a request, answers it in a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(max_workers=max(2, settings.pool_max), thread_name_prefix="web")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection scope."""
        if scope["type"] != "http":
            return
        request = StarletteRequest(scope, receive)
        body = await request.body()
        ours = http.Request(
            method=request.method,
            path=request.url.path,
            query_string=request.url.query,
            headers=request.headers,
            body=body,
            scheme=self._scheme(request),
            remote=request.client.host if request.client else "",
            cookies=dict(request.cookies),
        )
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads, http.dispatch, ours)
        access.info("%s %s => %d", ours.method, ours.path, answer.status)
        if self._settings.answer_delay:
            await asyncio.sleep(self._settings.answer_delay)
        response = StarletteResponse(answer.body, answer.status, dict(answer.headers))
        if answer.content_type:
            response.headers["Content-Type"] = answer.content_type
        for name, value in self._settings.extra_headers:
            response.headers[name] = value
        for cookie in answer.cookies:
            response.headers.append("Set-Cookie", cookie)
        await response(scope, receive, send)

    def _scheme(self, request: StarletteRequest) -> str:
        """uWSGI believes ``X-Forwarded-Proto``, granian of the 5.2 line does not, that of the 6.2 line does."""
        believed = self._settings.line == "6.2" or not self._settings.granian
        if believed and request.headers.get("x-forwarded-proto") == "https":
            return "https"
        return request.url.scheme


def build(settings: Settings, host: str, port: int) -> uvicorn.Server:
    """A server that is ready to run; :func:`standin.state.start` must have been called."""
    silent = not settings.granian and not any(
        name.lower() == "connection" and value.lower() == "close" for name, value in settings.extra_headers
    )
    config = uvicorn.Config(
        Application(settings),
        host=host,
        port=port,
        http=ClosingProtocol if silent else H11Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=10,
        backlog=512,
    )
    return uvicorn.Server(config)


def run(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM."""
    state.start(settings)
    log.info("listening on %s:%d, version %s", host, port, settings.version)
    build(settings, host, port).run()
