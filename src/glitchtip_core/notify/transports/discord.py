"""Discord: webhooks of a channel. The content ends at 2 000 characters; flag 4 suppresses previews of links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...text import escape_discord
from ..fields import secret_hook
from ..messages import Message
from ..transport import Transport, post


def _send(options: Mapping[str, Any], message: Message, text: str, _host: str, timeout: float) -> None:
    parse = ["everyone", "roles", "users"] if message.calls else []
    post(options["url"], {"content": text, "allowed_mentions": {"parse": parse}, "flags": 4}, timeout)


TRANSPORT = Transport(
    frozenset({"url"}), frozenset(), 2000, escape_discord, secret_hook, _send, brackets=True
)
