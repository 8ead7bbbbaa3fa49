"""Telegram: a bot's sendMessage. The text ends at 4 096 characters, counted as UTF-16."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...errors import CoreError
from ...text import escape_telegram
from ..fields import address, line
from ..messages import Message
from ..transport import Transport, post

API = "https://api.telegram.org"


def _check(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    token = line(entry, "token", where)
    if re.fullmatch(r"[0-9]+:[A-Za-z0-9_-]+", token) is None:
        raise CoreError(f"{where}: token is not a bot token (digits, a colon, letters)")
    chat = str(entry["chat_id"])
    if isinstance(entry["chat_id"], bool) or re.fullmatch(r"-?[0-9]+|@[A-Za-z0-9_]+", chat) is None:
        raise CoreError(f"{where}: chat_id must be a number or @channel")
    api = address(line(entry, "api_url", where, API), f"{where}: api_url", plain_http=False)
    return {"token": token, "chat_id": chat, "api_url": api.rstrip("/")}


def _send(options: Mapping[str, Any], _message: Message, text: str, _host: str, timeout: float) -> None:
    document = {
        "chat_id": options["chat_id"],
        "text": text,
        "parse_mode": "HTML",
        "link_preview_options": {"is_disabled": True},
    }
    post(f"{options['api_url']}/bot{options['token']}/sendMessage", document, timeout)


TRANSPORT = Transport(
    frozenset({"token", "chat_id"}), frozenset({"api_url"}), 4096, escape_telegram, _check, _send
)
