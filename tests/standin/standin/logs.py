"""Log items of SDKs: stored on the 6.2 line while ``GLITCHTIP_ENABLE_LOGS`` is on (its default), ignored on the 5.2 line.

From the 6.x source, not measured. Only the storing is imitated, no call that lists them.
"""

from __future__ import annotations

import json
from typing import Any

from . import db
from .queue import Message


def entries(payload: bytes) -> list[Any]:
    """The entries of a ``log`` item's payload; none of one that cannot be read."""
    try:
        found = json.loads(payload)
    except ValueError:
        return []
    items = found.get("items") if isinstance(found, dict) else None
    return items if isinstance(items, list) else []


def store(messages: list[Message]) -> None:
    """Store the entries of these messages; those of a project that is gone are left out."""
    for message in messages:
        for entry in message["log"]:
            db.execute(
                "INSERT INTO logs_logevent (project_id, data) SELECT id, %s FROM projects_project WHERE id = %s",
                [json.dumps(entry).replace("\\u0000", ""), message["project"]],
            )
