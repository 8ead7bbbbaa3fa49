"""E-mail is recorded, not sent: one JSON line a message. A lost mail is silent on the real server, too.

On the 6.2 line nothing is written while e-mail is off, and else the line comes whatever ``LOG_LEVEL`` says, as those of
``consolemail://`` do."""

from __future__ import annotations

import json
import logging

from . import state

log = logging.getLogger("glitchtip.mail")


def send(recipients: list[str], subject: str, **details: str) -> None:
    """Record a message; ``details`` is what its text would carry (a link, a key)."""
    record = {"mail": {"to": recipients, "subject": subject, **details}}
    record["mail"]["from"] = state.get().settings.default_from_email
    if state.get().settings.line == "5.2":
        log.info("%s", json.dumps(record))
    elif state.get().settings.email_enabled:
        print(json.dumps(record), flush=True)
