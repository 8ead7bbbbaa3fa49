"""What a transport is, what goes wrong with one, and what those over HTTP share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..http import HttpError, request
from ..text import printable_lines, with_calls
from .messages import Message

_CLIENT = "ai-admin-cutover"
_RETRY_AFTER = 0.5


class NotSentError(Exception):
    """Why a target was not reached, without any of its secrets; ``again`` when a second try makes sense.

    ``wait``: seconds that the target asks to wait before it.
    """

    def __init__(self, reason: str, *, again: bool = False, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.again = again
        self.wait = wait


@dataclass(frozen=True)
class Transport:
    """One medium.

    Attributes:
        needed, optional: fields of a target in the file of notifications, beside kind, name and events.
        limit: UTF-16 units of an escaped text that the medium takes.
        escape: makes a plain text show as it is.
        check: (entry, where) -> options; raises CoreError with a sentence that begins with ``where``.
        brackets: whether the medium writes mentions as ``<...>``.
        send: (options, message, escaped text, this host's name, seconds); raises NotSentError.
    """

    needed: frozenset[str]
    optional: frozenset[str]
    limit: int
    escape: Callable[[str], str]
    check: Callable[[Mapping[str, Any], str], dict[str, Any]]
    send: Callable[[Mapping[str, Any], Message, str, str, float], None]
    brackets: bool = False


def clipped(text: str, transport: Transport, calls: Sequence[str] = ()) -> str:
    """``text``, printable, escaped for a medium and cut to its limit, never within an escape. ``calls``: see Message."""
    limit = transport.limit
    text = printable_lines(text)

    def escape(part: str) -> str:
        return with_calls(part, transport.escape, calls, brackets=transport.brackets)

    def size(part: str) -> int:
        return len(escape(part).encode("utf-16-le")) // 2

    if size(text) <= limit:
        return escape(text)
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(text[:middle] + " …") <= limit else (low, middle - 1)
    return escape(text[:low] + " …")


def post(url: str, document: Mapping[str, Any], timeout: float) -> None:
    """Send one JSON document. Raises NotSentError."""
    try:
        answer = request(
            url,
            what="the target",
            timeout=timeout,
            limit=0,
            method="POST",
            headers={"Content-Type": "application/json", "User-Agent": _CLIENT},
            body=json.dumps(document).encode(),
        )
    except HttpError as error:
        raise NotSentError(error.reason, again=error.passing) from None
    if not 200 <= answer.status < 300:
        wait = answer.headers.get("retry-after", "")
        raise NotSentError(
            f"answered {answer.status}",
            again=answer.status == 429 or answer.status >= 500,
            wait=float(wait) if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", wait) else 0.0,
        )


def try_twice(
    attempt: Callable[[float], None],
    deadline: float,
    *,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Make an attempt with the seconds that are left, and one more where that may help and fits the time. Raises NotSentError."""

    def once() -> None:
        left = deadline - monotonic()
        if left <= 0:
            raise NotSentError("did not answer in time")
        attempt(left)

    try:
        once()
    except NotSentError as error:
        wait = max(error.wait, _RETRY_AFTER)
        if not error.again or monotonic() + wait >= deadline:
            raise
        sleep(wait)
        once()
