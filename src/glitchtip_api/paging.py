"""Pages of a list: how to get from one to the next."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from .errors import GlitchTipError, NotJsonError

if TYPE_CHECKING:
    from .answers import Response

PAGE_SIZE = 100  # the largest page; larger values are cut to it without a word

# GlitchTip 5.2 wraps the whole value in {'...'}; the expression takes the well-formed header (Sentry) too.
_NEXT = re.compile(r'<([^>]+)>;\s*rel="next";\s*results="true"')


def next_cursor(link: str | None) -> str | None:
    """Return the cursor of the next page from a `Link` header, or None on the last page.

    Only the cursor is taken, never the host: links carry the server's public address, which the client that
    talks to a local port may not reach.
    """
    found = _NEXT.search(link or "")
    if not found:
        return None
    values = parse_qs(urlsplit(found.group(1)).query).get("cursor")
    return values[0] if values else None


def pages(
    read: Callable[[Mapping[str, Any]], Response], path: str, params: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the items of a list; `read` gets the parameters of a page and returns its answer.

    Raises GlitchTipError (code `paging`) when a cursor comes twice, NotJsonError when a page is no list.
    """
    wanted: dict[str, Any] = {"limit": PAGE_SIZE, **(params or {})}
    seen: set[str] = set()
    while True:
        answer = read(wanted)
        if not isinstance(answer.data, list):
            raise NotJsonError("GET", path, answer.status, "not_a_list", "the answer is no list")
        yield from answer.data
        cursor = next_cursor(answer.headers.get("link"))
        if cursor is None:
            return
        if cursor in seen:
            raise GlitchTipError("GET", path, answer.status, "paging", "the server repeats a cursor")
        seen.add(cursor)
        wanted = {**wanted, "cursor": cursor}
