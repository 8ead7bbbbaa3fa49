"""Ingest: ``/api/{project}/envelope/`` and ``/store/``. Answers before anything is stored; the worker stores.

One request with a wrong key blocks the whole project for 30 s, the right key included (newer 6.x: that key alone; the
6.2.6 image was not read). The envelope path drops an event id that it saw within the last 300 s in any project of the
instance; the store path of the 5.2 line does not look, that of the 6.2 line answers 422.
"""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
import random
import re
import time
import uuid
import zlib
from typing import Any

import brotli  # type: ignore[import-untyped,import-not-found,unused-ignore]

from . import db, logs, state
from .http import (
    HttpError,
    Request,
    Response,
    Row,
    answer,
    encode,
    error_page,
    fail,
    html,
    router,
    server_error,
)
from .validation import missing, unprocessable

BLOCK_SECONDS = 30
_AUTH_KEY = re.compile(r"(?:sentry|glitchtip)_key=([^,\s]+)")


class Denied(Exception):  # noqa: N818 - it is an answer, not a fault
    """The request may not send to this project; ``malformed`` when its key is no UUID."""

    def __init__(self, malformed: bool = False) -> None:
        super().__init__("malformed key" if malformed else "denied")
        self.malformed = malformed


class NoAuth(Exception):  # noqa: N818
    """No key at all."""


class Throttled(Exception):  # noqa: N818
    """The project or its organization drops events now; ``seconds`` is Retry-After."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"retry after {seconds} s")
        self.seconds = seconds


def _key(request: Request) -> uuid.UUID:
    text = request.parameter("sentry_key") or request.parameter("glitchtip_key")
    for name in ("x-sentry-auth", "authorization"):
        header = request.headers.get(name, "")
        match = _AUTH_KEY.search(header) if header.lower().startswith("sentry") else None
        if match:
            text = text or match[1]
    if not text:
        raise NoAuth
    try:
        return uuid.UUID(text)
    except ValueError:
        raise Denied(malformed=True) from None


def _authorize(request: Request, project: int) -> Row:
    """The project that the key belongs to.

    Raises :class:`NoAuth`, :class:`Denied` or :class:`Throttled`.
    """
    key = _key(request)
    cache = state.get().cache
    block = f"EVENT_BLOCK:{project}"
    if cache.get(block):
        raise Denied
    row = db.one(
        "SELECT p.id, p.event_throttle_rate, o.event_throttle_rate AS organization_rate,"
        " o.is_accepting_events"
        " FROM projects_project p JOIN projects_projectkey k ON k.project_id = p.id"
        " JOIN organizations_ext_organization o ON o.id = p.organization_id"
        " WHERE p.id = %s AND k.public_key = %s AND NOT p.is_deleted AND NOT o.is_deleted",
        [project, key],
    )
    if row is None or not row["is_accepting_events"]:
        cache.set(block, "1", BLOCK_SECONDS)
        raise Denied
    for rate in (row["event_throttle_rate"], row["organization_rate"]):
        _throttle(project, rate)
    return row


def _throttle(project: int, rate: int) -> None:
    """100 refuses everything (Retry-After 600, then what is left of it); 50 was seen to refuse 80 % with 162.

    Between the measured points the refused share and the wait grow evenly with the rate.
    """
    if rate <= 0:
        return
    if rate >= 100:
        cache, name = state.get().cache, f"THROTTLE:{project}"
        if cache.add(name, "1", 600):
            raise Throttled(600)
        raise Throttled(max(1, cache.ttl(name)))
    if random.random() < min(1.0, rate * 0.016):
        raise Throttled(max(1, int(600 * (rate / 100) ** 1.889)))


def _unpack(request: Request) -> bytes:
    """The body without its compression; when it unpacks to more than is allowed 400 HTML, on the 6.2 line 413.

    Broken gzip data count as an empty body (measured), on the 6.2 line as a broken header (source); an unknown encoding
    is passed on as it is (measured).
    """
    six = state.get().settings.line == "6.2"
    encoding = request.headers.get("content-encoding", "").strip().lower()
    limit = state.get().settings.max_unzipped_payload
    try:
        if encoding == "gzip":
            body = _inflate(request.body, 16 + zlib.MAX_WBITS, limit)
        elif encoding == "deflate":
            try:
                body = _inflate(request.body, zlib.MAX_WBITS, limit)
            except zlib.error:
                body = _inflate(request.body, -zlib.MAX_WBITS, limit)
        elif encoding == "br":
            body = brotli.Decompressor().process(request.body)
        elif encoding == "zstd" and six:
            body = _unzstd(request.body, limit)
        else:
            return request.body
    except (zlib.error, gzip.BadGzipFile, brotli.error):
        return b"\x00" if six else b""
    if len(body) > limit:
        raise _too_large()
    return body


def _inflate(body: bytes, window: int, limit: int) -> bytes:
    return zlib.decompressobj(window).decompress(body, limit + 1)


def _unzstd(body: bytes, limit: int) -> bytes:
    """At most one byte more than ``limit``. Raises zlib.error for what is no zstd frame."""
    import zstandard  # type: ignore[import-not-found,unused-ignore] # few envelopes come so

    try:
        with zstandard.ZstdDecompressor().stream_reader(body) as reader:
            return bytes(reader.read(limit + 1))
    except zstandard.ZstdError as error:
        raise zlib.error(str(error)) from error


def _too_large() -> HttpError:
    if state.get().settings.line == "6.2":
        return fail(413, "Payload too large")
    return HttpError(html(error_page(400, "Bad Request"), 400))


def new_event_id() -> str:
    """A fresh event id as 32 hex digits: uuid4 on the 5.2 line, uuid7 on the 6.2 line."""
    if state.get().settings.line == "5.2":
        return uuid.uuid4().hex
    random_part = int.from_bytes(os.urandom(10), "big")
    value = (int(time.time() * 1000) & 0xFFFFFFFFFFFF) << 80 | random_part
    value = value & ~(0xF << 76) | 7 << 76
    return uuid.UUID(int=value & ~(0x3 << 62) | 2 << 62).hex


def event_fits(event: Any) -> bool:
    """Whether an event payload can be stored; the envelope path drops the others without a word."""
    if not isinstance(event, dict):
        return False
    if not isinstance(event.get("level", ""), str | None):
        return False
    exception = event.get("exception")
    if isinstance(exception, dict):
        exception = exception.get("values", [])
    if not isinstance(exception, list | None):
        return False
    return all(isinstance(event.get(name), dict | None) for name in ("contexts", "extra", "user", "request"))


def _hex(value: Any) -> str | None:
    try:
        return uuid.UUID(str(value)).hex
    except ValueError:
        return None


def _message(project: int, event_id: str, event: dict[str, Any]) -> dict[str, Any]:
    received = dt.datetime.now(dt.UTC).isoformat()
    return {"task": "ingest", "project": project, "id": event_id, "received": received, "event": event}


def items(body: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """The items of an envelope (without its header line): header and payload each.

    Reading stops at the first header that is no JSON object; what came before counts.
    """
    result = []
    position = 0
    while position < len(body):
        end = body.find(b"\n", position)
        end = len(body) if end < 0 else end
        line = body[position:end].strip()
        position = end + 1
        if not line:
            continue
        try:
            header = json.loads(line)
        except ValueError:
            break
        if not isinstance(header, dict):
            break
        length = header.get("length")
        if isinstance(length, int) and length >= 0:
            payload = body[position : position + length]
            position += length + 1
        else:
            end = body.find(b"\n", position)
            end = len(body) if end < 0 else end
            payload = body[position:end]
            position = end + 1
        result.append((header, payload))
    return result


@router.route("/api/{project:int}/envelope/", "POST", "GET", "PUT", "DELETE", "PATCH", "OPTIONS")
def envelope(request: Request, project: str) -> Response:
    """Events of an envelope go to the queue, on the 6.2 line logs too; sessions, client reports, attachments ... are
    ignored."""
    if request.method == "OPTIONS":
        return html("")
    if request.method != "POST":
        return _plain({"detail": "Method not allowed"}, 405)
    settings = state.get().settings
    if settings.event_freeze:
        raise server_error()
    body = _unpack(request)
    try:
        owner = _authorize(request, int(project))
    except (Denied, NoAuth) as error:
        malformed = isinstance(error, Denied) and error.malformed
        return _plain({"detail": "Invalid DSN" if malformed else "Denied"}, 403)
    except Throttled as error:
        response = html("Too Many Requests", 429)
        response.headers["Retry-After"] = str(error.seconds)
        return response
    first, _, rest = body.partition(b"\n")
    if not first.strip():
        return _plain({"detail": "Empty request body"}, 400)
    try:
        header = json.loads(first)
    except ValueError:
        header = None
    if not isinstance(header, dict):
        return _plain({"detail": "Invalid envelope header"}, 400)
    envelope_id = _hex(header["event_id"]) if header.get("event_id") else None
    if not settings.granian_wsgi:  # that server answers and throws the envelope away
        for item, payload in items(rest):
            if item.get("type") == "event":
                _enqueue(owner["id"], envelope_id, payload)
            elif item.get("type") in {"log", "otel_log"} and settings.enable_logs:
                state.get().queue.put(
                    {"task": "ingest", "project": owner["id"], "log": logs.entries(payload)}
                )
    return _plain({"id": envelope_id} if envelope_id else {}, 200)


def _enqueue(project: int, envelope_id: str | None, payload: bytes) -> None:
    try:
        event = json.loads(payload)
    except ValueError:
        return
    if not event_fits(event):
        return
    event_id = _hex(event.get("event_id")) or envelope_id or new_event_id()
    state.get().queue.put_once(_message(project, event_id, event), _seen(event_id))


def _seen(event_id: str) -> str:
    """The duplicate filter's key: the id alone, so that it holds across projects (source of both lines)."""
    return f"uuid{event_id}"


@router.route("/api/{project:int}/store/", "POST", "OPTIONS")
def store(request: Request, project: str) -> Response:
    """The older endpoint: one event as the body. The same id again is counted again; 422 on the 6.2 line."""
    if request.method == "OPTIONS":
        return html("")
    try:
        owner = _authorize(request, int(project))
    except NoAuth:
        if state.get().settings.line == "6.2":
            raise fail(401, "Unauthorized") from None
        raise server_error() from None
    except Denied as error:
        if error.malformed:
            raise unprocessable([{"message": "dsn key badly formed hexadecimal UUID string"}]) from None
        raise fail(401, "Invalid DSN") from None
    except Throttled as error:
        return answer({"message": "Please retry later"}, 429, **{"Retry-After": str(error.seconds)})
    try:
        event = json.loads(_unpack(request))
    except ValueError:
        raise fail(400, "Cannot parse request body") from None
    if not isinstance(event, dict) or "event_id" not in event:
        raise unprocessable([missing("body", "payload", "event_id")])
    event_id = _hex(event["event_id"])
    if event_id is None or not event_fits(event):
        where = "event_id" if event_id is None else "exception"
        raise unprocessable(
            [{"type": "value_error", "loc": ["body", "payload", where], "msg": "Input should be valid"}]
        )
    message = _message(owner["id"], event_id, event)
    if state.get().settings.line == "5.2":
        state.get().queue.put(message)
    elif not state.get().queue.put_once(message, _seen(event_id)):
        raise unprocessable([{"message": "Duplicate event id"}])
    return answer({"event_id": event_id, "task_id": None})


def _plain(value: dict[str, Any], status: int) -> Response:
    return Response(status, encode(value), "application/json")
