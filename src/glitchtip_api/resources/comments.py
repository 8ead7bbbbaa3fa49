"""Writing a comment once: the server does not notice duplicates, and a list of them has no natural key."""

from __future__ import annotations

import datetime as dt
import email.utils
from collections.abc import Callable
from typing import Any

from ..answers import Response
from ..late_answers import Wanted, create_once
from ..paging import PAGE_SIZE
from .base import Objects, Requests

_SLACK_SECONDS = 2.0  # a Date header has whole seconds


def write_comment_once(
    client: Requests, path: str, text: str, create: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Create a comment; after a lost answer adopt the one of this text that is not older than the request.

    Its age is read against the server's own clock (the Date header of the list), so clocks need not agree.
    """
    began = client.transport.clock()

    def find() -> Objects:
        answer = client.request("GET", path, params={"limit": PAGE_SIZE})
        oldest = _now_of(answer) - dt.timedelta(seconds=client.transport.clock() - began + _SLACK_SECONDS)
        return [
            comment
            for comment in answer.data or []
            if (comment.get("data") or {}).get("text") == text
            and dt.datetime.fromisoformat(str(comment["dateCreated"])) >= oldest
        ]

    wanted = Wanted(
        "the comment",
        find,
        lambda one, other: one.get("user") == other.get("user"),
        lambda _: True,  # a comment has no events
        lambda twin: client.remove(f"{path}{int(twin['id'])}/"),
    )
    return create_once(client.transport, create, wanted).thing


def _now_of(answer: Response) -> dt.datetime:
    said = answer.headers.get("date")
    try:
        now = email.utils.parsedate_to_datetime(said) if said else dt.datetime.now(dt.UTC)
    except ValueError:
        now = dt.datetime.now(dt.UTC)
    return now if now.tzinfo else now.replace(tzinfo=dt.UTC)
