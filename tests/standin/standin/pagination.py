"""Cursor paging as the real server does it.

``limit`` defaults to 50 and is clamped to 100 without a word; 0 means the default, -1 an empty page.
``X-Hits`` is capped at 1000; when everything fits on one page it is what the page holds. The
value of ``Link`` is wrapped in ``{'`` and ``'}``, which breaks parsers. A cursor is base64 of
``o=<offset>&r=1&p=<position>``; the position is the sort value of the page's last item. Items with equal
positions are skipped by the offset, which is cut to 100: pages by a value that more than 100 items share come
again and again, and those by ``count`` skip and repeat items, because nothing orders what is equal.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode

from . import db
from .http import Request, Response, Row, answer
from .validation import integer_parameter, unprocessable

DEFAULT_LIMIT = 50
MAX_LIMIT = 100
MAX_HITS = 1000
MAX_OFFSET = 100


@dataclass(frozen=True)
class Cursor:
    """Where a page begins."""

    position: str | None = None
    offset: int = 0
    reverse: bool = False

    def encode(self) -> str:
        """The text that goes into the URL."""
        tokens = {}
        if self.offset:
            tokens["o"] = str(self.offset)
        if self.reverse:
            tokens["r"] = "1"
        if self.position is not None:
            tokens["p"] = self.position
        return base64.b64encode(urlencode(tokens).encode()).decode()


def decode(text: str) -> Cursor:
    """The opposite of :meth:`Cursor.encode`; 422 for garbage."""
    try:
        tokens = parse_qs(base64.b64decode(text, validate=True).decode("ascii"), keep_blank_values=True)
        if not set(tokens) <= {"o", "r", "p"} or not tokens:
            raise ValueError(text)
        return Cursor(
            tokens["p"][0] if "p" in tokens else None,
            max(0, min(int(tokens.get("o", ["0"])[0]), MAX_OFFSET)),
            "r" in tokens,
        )
    except (ValueError, binascii.Error):
        raise unprocessable(
            [
                {
                    "type": "value_error",
                    "loc": ["query", "cursor"],
                    "msg": "Value error, Invalid cursor.",
                    "ctx": {"error": "Invalid cursor."},
                }
            ]
        ) from None


def _text(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(sep=" ", timespec="microseconds")
    return str(float(value) if isinstance(value, Decimal) else value)


def _url(request: Request, cursor: Cursor | None) -> str:
    path = f"{request.base_url}{request.path}"
    if cursor is None:
        kept = [part for part in request.query_string.split("&") if part and not part.startswith("cursor=")]
        return f"{path}?{'&'.join(kept)}" if kept else path
    pairs = [pair for pair in parse_qsl(request.query_string, keep_blank_values=True) if pair[0] != "cursor"]
    return f"{path}?{urlencode(sorted([*pairs, ('cursor', cursor.encode())]))}"


def _link(request: Request, previous: Cursor | None, following: Cursor | None) -> str:
    parts = []
    for name, cursor in (("previous", previous), ("next", following)):
        part = f'<{_url(request, cursor)}>; rel="{name}"; results="{"true" if cursor else "false"}"'
        parts.append(f'{part}; cursor="{cursor.encode()}"' if cursor else part)
    link = ", ".join(parts)
    return f"{{'{link}'}}"


def _boundary(
    positions: Sequence[str], beyond: str, page: Cursor | None, size: int
) -> tuple[str | None, int]:
    """Position and offset from which the next page starts (items with equal positions are skipped by
    offset)."""
    for offset, position in enumerate(reversed(positions)):
        if position != beyond:
            return position, offset
    if page is None:
        return None, size
    return page.position, page.offset + size


def paginate(
    request: Request,
    sql: str,
    params: Sequence[Any],
    order: str,
    render: Callable[[list[Row]], list[Any]],
    *,
    descending: bool = False,
    cast: str = "timestamptz",
    collate: bool = False,
) -> Response:
    """Answer one page of ``sql`` (a SELECT without ORDER BY whose rows have a column ``order``).

    ``cast`` is the PostgreSQL type of that column; ``render`` makes the JSON of a page's rows.
    """
    limit = integer_parameter(request, "limit") or DEFAULT_LIMIT
    size = max(0, min(limit, MAX_LIMIT))
    raw = request.parameter("cursor")
    cursor = decode(raw) if raw else None
    backwards = bool(cursor and cursor.reverse)
    falling = descending != backwards
    column = f'page."{order}" COLLATE "C"' if collate else f'page."{order}"'
    arguments = list(params)
    condition = ""
    if cursor and cursor.position is not None:
        condition = f"WHERE {column} {'<' if falling else '>'} %s::{cast}"
        arguments.append(cursor.position)
    offset = cursor.offset if cursor else 0
    found = db.rows(
        f"SELECT * FROM ({sql}) page {condition} ORDER BY {column} {'DESC' if falling else 'ASC'}"
        f" OFFSET {offset} LIMIT {size + 1}",
        arguments,
    )
    page, beyond = found[:size], found[size:]
    hits = len(page)
    if beyond or cursor:
        counted = f"SELECT count(*) AS n FROM (SELECT FROM ({sql}) page LIMIT {MAX_HITS}) hits"
        hits = int(db.must(counted, params)["n"])
    more = following = None
    if beyond:
        position, skip = _boundary([_text(row[order]) for row in page], _text(beyond[0][order]), cursor, size)
        more = Cursor(position, skip, backwards)
    if backwards:
        page.reverse()
        previous, following = more, Cursor(_text(page[-1][order])) if page else None
    else:
        following = more
        previous = Cursor(_text(page[0][order]), 0, True) if cursor and page else None
    response = answer(render(page))
    response.headers.update(
        {"Link": _link(request, previous, following), "X-Max-Hits": str(MAX_HITS), "X-Hits": str(hits)}
    )
    return response
