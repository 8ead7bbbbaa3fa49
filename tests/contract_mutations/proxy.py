"""A small HTTP proxy that can alter what passes, and leaves everything else as it is.

One connection of a client is one connection to the server. When the server closes it without a word, as the
uWSGI of the 5.2 line does, the client sees the same; a kept connection stays kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

#: How long after its own answer the proxy closes: as the stand-in's ``ClosingProtocol`` does.
CLOSE_AFTER_SECONDS = 0.004
LIMIT = 64 * 1024 * 1024


@dataclass
class Message:
    """A request or an answer: its first line, its headers in order, its body without any encoding of transfer."""

    start: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def header(self, name: str) -> str:
        """The first value of a header, or an empty text."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    def set(self, name: str, value: str | None) -> None:
        """Replace a header where it stood (last where it was missing); None removes it."""
        places = [place for place, (key, _) in enumerate(self.headers) if key.lower() == name.lower()]
        for place in reversed(places[0 if value is None else 1 :]):
            del self.headers[place]
        if value is not None and places:
            self.headers[places[0]] = (self.headers[places[0]][0], value)
        elif value is not None:
            self.headers.append((name, value))

    def encoded(self) -> bytes:
        """The bytes of it."""
        lines = [self.start, *(f"{name}: {value}" for name, value in self.headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


@dataclass
class Asked(Message):
    """A request. ``memory`` is one dictionary for the whole life of a proxy."""

    memory: dict[str, Any] = field(default_factory=dict)
    own: str = ""

    @property
    def method(self) -> str:
        return self.start.split(" ")[0]

    @property
    def target(self) -> str:
        """Path and query."""
        return self.start.split(" ")[1]

    @target.setter
    def target(self, value: str) -> None:
        self.start = f"{self.method} {value} HTTP/1.1"

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)

    @query.setter
    def query(self, pairs: list[tuple[str, str]]) -> None:
        self.target = self.path + (f"?{urlencode(pairs)}" if pairs else "")

    def json(self) -> Any:
        """The body as JSON; None when it is none."""
        return _json(self.body)

    def set_body(self, body: bytes) -> None:
        """Another body, with its length."""
        self.body = body
        self.set("Content-Length", str(len(body)))


@dataclass
class Answer(Message):
    """An answer; ``altered`` is set by everything that changes it."""

    altered: bool = False

    @property
    def status(self) -> int:
        return int(self.start.split(" ")[1])

    @status.setter
    def status(self, value: int) -> None:
        self.start = f"HTTP/1.1 {value} Altered"
        self.altered = True

    def json(self) -> Any:
        """The body as JSON; None when it is none."""
        is_json = self.header("Content-Type").startswith("application/json")
        return _json(self.body) if is_json else None

    def set_header(self, name: str, value: str | None) -> None:
        """Change a header; nothing when it is so already."""
        if self.header(name) != (value or ""):
            self.set(name, value)
            self.altered = True

    def set_json(self, value: Any) -> None:
        """Another JSON body; nothing when it is the same."""
        if self.json() != value or json.dumps(self.json()) != json.dumps(value):
            self.body = json.dumps(value).encode()
            self.set("Content-Length", str(len(self.body)))
            self.set("Content-Type", "application/json; charset=utf-8")
            self.altered = True

    @classmethod
    def of(cls, status: int, value: Any) -> Answer:
        """An answer that the server never gave."""
        body = json.dumps(value).encode()
        headers = [("Content-Type", "application/json; charset=utf-8"), ("Content-Length", str(len(body)))]
        return cls(f"HTTP/1.1 {status} Altered", headers, body, altered=True)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return None


class Stream:
    """A reader that can be waited for without taking anything."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._taken = b""

    async def has_more(self) -> bool:
        """Wait until there is something to read; False at the end."""
        if not self._taken:
            self._taken = await self._reader.read(1)
        return bool(self._taken)

    def _with_taken(self, rest: bytes) -> bytes:
        found, self._taken = self._taken + rest, b""
        return found

    async def until(self, mark: bytes) -> bytes:
        """Everything to the mark and the mark itself, which is longer than a byte."""
        return self._with_taken(await self._reader.readuntil(mark))

    async def exactly(self, size: int) -> bytes:
        """As many bytes."""
        if size == 0:
            return b""
        rest = await self._reader.readexactly(size - len(self._taken))
        return self._with_taken(rest)

    async def to_end(self) -> bytes:
        """Everything that is left."""
        return self._with_taken(await self._reader.read())


#: Before the server sees a request: change it (and return True), answer it (and return that), or neither.
OnRequest = Callable[[Asked], "Answer | bool | None"]
#: Before the client sees an answer: change it.
OnAnswer = Callable[[Asked, Answer], None]


@dataclass
class Proxy:
    """A proxy on a free port of the loopback, in front of the server on ``port``.

    ``altered`` counts requests and answers that were changed. ``keep`` makes every second
    connection take any number of requests, whatever the server does.
    """

    port: int
    on_request: OnRequest | None = None
    on_answer: OnAnswer | None = None
    keep: bool = False
    altered: int = 0
    memory: dict[str, Any] = field(default_factory=dict)
    url: str = ""
    connections: int = 0
    _listening: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; ``url`` is where, from then on."""
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=LIMIT)
        self.url = f"http://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening; connections that are open end with their requests."""
        if self._listening:
            self._listening.close()

    async def _serve(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        client = Stream(reader)
        self.connections += 1
        keep = self.keep and self.connections % 2 == 0
        server: tuple[Stream, asyncio.StreamWriter] | None = None
        try:
            while True:
                if server and keep:
                    server[1].close()
                    server = None
                if server is None:
                    opened = await asyncio.open_connection("127.0.0.1", self.port, limit=LIMIT)
                    server = Stream(opened[0]), opened[1]
                if not await self._first_has_more(client, server[0]):
                    break
                if not await self._pass_one(client, back, *server):
                    break
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass  # either side went away, or sent what is no HTTP: the connection ends, as it would have
        finally:
            for writer in (back, *(server[1:] if server else ())):
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    @staticmethod
    async def _first_has_more(client: Stream, server: Stream) -> bool:
        """Wait for the client's next request or for the server's end; whether the client was first."""
        waiting = [asyncio.ensure_future(stream.has_more()) for stream in (client, server)]
        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        return waiting[0] in done and waiting[0].result()

    async def _pass_one(
        self,
        client: Stream,
        back: asyncio.StreamWriter,
        server: Stream,
        forth: asyncio.StreamWriter,
    ) -> bool:
        """One request and its answer; whether the connection may serve another."""
        start, headers = await _read_head(client)
        asked = Asked(
            start, headers, await _read_body(client, headers, until_end=False), self.memory, self.url
        )
        changed = await asyncio.to_thread(self.on_request, asked) if self.on_request else None
        if isinstance(changed, Answer):
            self.altered += 1
            back.write(changed.encoded())
            await back.drain()
            await asyncio.sleep(CLOSE_AFTER_SECONDS)
            return False
        self.altered += bool(changed)
        forth.write(asked.encoded())
        await forth.drain()
        start, headers = await _read_head(server)
        answer = Answer(start, headers)
        if asked.method != "HEAD" and answer.status not in {204, 304}:
            length = answer.header("Content-Length") or answer.header("Transfer-Encoding")
            answer.body = await _read_body(server, headers, until_end=not length)
        if self.on_answer:
            self.on_answer(asked, answer)
            self.altered += answer.altered
        back.write(answer.encoded())
        await back.drain()
        return True


async def _read_head(stream: Stream) -> tuple[str, list[tuple[str, str]]]:
    head = (await stream.until(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.split("\r\n")
    pairs = [line.partition(":") for line in lines if line]
    return start, [(name, value.strip()) for name, _, value in pairs]


async def _read_body(stream: Stream, headers: list[tuple[str, str]], *, until_end: bool) -> bytes:
    """The body; one in chunks is joined, and its headers say its length from then on."""
    found = {name.lower(): value for name, value in headers}
    if "chunked" in found.get("transfer-encoding", "").lower():
        body = b""
        while size := int((await stream.until(b"\r\n")).split(b";")[0], 16):
            body += (await stream.exactly(size + 2))[:-2]
        await stream.until(b"\r\n")
        headers[:] = [(name, value) for name, value in headers if name.lower() != "transfer-encoding"]
        headers.append(("Content-Length", str(len(body))))
        return body
    if "content-length" in found:
        return await stream.exactly(int(found["content-length"]))
    return await stream.to_end() if until_end else b""
