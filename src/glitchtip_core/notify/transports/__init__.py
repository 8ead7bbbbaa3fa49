"""The media, by the names that the file of notifications has for them."""

from __future__ import annotations

from collections.abc import Mapping

from ..transport import Transport
from . import discord, email, slack, telegram, webhook

TRANSPORTS: Mapping[str, Transport] = {
    "slack": slack.TRANSPORT,
    "discord": discord.TRANSPORT,
    "telegram": telegram.TRANSPORT,
    "email": email.TRANSPORT,
    "webhook": webhook.TRANSPORT,
}
