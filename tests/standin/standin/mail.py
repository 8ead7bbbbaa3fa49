"""E-mail is recorded, not sent: one JSON log line a message. A lost mail is silent on the real server,
too."""

from __future__ import annotations

import json
import logging

from . import state

log = logging.getLogger("glitchtip.mail")


def send(recipients: list[str], subject: str, **details: str) -> None:
    """Record a message; ``details`` is what its text would carry (a link, a key)."""
    record = {"mail": {"to": recipients, "subject": subject, **details}}
    record["mail"]["from"] = state.get().settings.default_from_email
    log.info("%s", json.dumps(record))
