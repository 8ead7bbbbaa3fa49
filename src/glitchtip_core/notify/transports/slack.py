"""Slack: incoming webhooks. Slack cuts texts at 40 000 characters and recommends 4 000."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...text import escape_slack
from ..fields import secret_hook
from ..messages import Message
from ..transport import Transport, post


def _send(options: Mapping[str, Any], _message: Message, text: str, _host: str, timeout: float) -> None:
    document = {"text": text, "mrkdwn": False, "unfurl_links": False, "unfurl_media": False}
    post(options["url"], document, timeout)


TRANSPORT = Transport(frozenset({"url"}), frozenset(), 4000, escape_slack, secret_hook, _send, brackets=True)
