"""Any webhook that takes JSON. Who receives it may pass the texts on to a chat, so no text in it calls anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...text import printable_document, with_calls, without_mentions
from ..fields import address, line
from ..messages import Message
from ..transport import Transport, post

_FACTS = 50
_FACT = 2000


def post_document(url: str, document: Mapping[str, Any], timeout: float, calls: Sequence[str] = ()) -> None:
    """Send a document whose texts are printable and call nobody but ``calls`` (see Message). Raises NotSentError."""
    post(url, _harmless(printable_document(document), calls), timeout)


def _harmless(value: Any, calls: Sequence[str] = ()) -> Any:
    if isinstance(value, str):
        return with_calls(value, without_mentions, calls)
    if isinstance(value, dict):
        return {key: _harmless(item, calls) for key, item in value.items()}
    return [_harmless(item, calls) for item in value] if isinstance(value, list) else value


def _check(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {"url": address(line(entry, "url", where), f"{where}: url", plain_http=True)}


def _send(options: Mapping[str, Any], message: Message, text: str, _host: str, timeout: float) -> None:
    document = {
        "event": message.event,
        "title": message.title,
        "text": text,
        "facts": {name: value[:_FACT] for name, value in list(message.facts.items())[:_FACTS]},
        "time": message.moment.isoformat(timespec="seconds"),
    }
    post_document(options["url"], document, timeout, message.calls)


TRANSPORT = Transport(frozenset({"url"}), frozenset(), 20_000, without_mentions, _check, _send, brackets=True)
