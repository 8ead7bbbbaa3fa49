"""Entries of the queue: kombu's envelope of the 5.2 line, django-vtasks' tasks of the 6.x line.

Only what tells one entry from another is kept; the payload (data of customers) is never printed or stored.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

#: Sentinel of a compressed entry on the 6.x line (from the source of django-vtasks 3.1.0).
COMPRESSED = b"zstd:"
#: django-vtasks 3.1.0 writes this into a task that a worker left behind, and, by its sweep, into living ones.
_RESCUED = "Exceeded max_rescues"


@dataclass(frozen=True)
class Message:
    """One entry. ``event_id`` (32 hexadecimal digits) is set for events only, ``received`` in epoch seconds.

    ``queue``, ``rescued`` (a dead letter that may belong to a task which ended well) and ``failed`` are of
    the 6.x line; ``redelivered`` and ``delayed`` (held by the worker until its time) of the 5.2 line.
    """

    task: str = ""
    event_id: str = ""
    received: float | None = None
    redelivered: bool = False
    delayed: bool = False
    queue: str = ""
    failed: bool = False
    rescued: bool = False


def parse_celery(data: bytes) -> Message | None:
    """An entry of list ``celery``, or of hash ``unacked``, where it is the first of three; None for others.

    The layout was read from kombu 5.5.4 and checked against a running GlitchTip 5.2.
    """
    document = _json(data)
    if isinstance(document, list):
        document = document[0] if document else None
    if not isinstance(document, dict):
        return None
    headers = document.get("headers")
    headers = headers if isinstance(headers, dict) else {}
    try:
        body = json.loads(base64.b64decode(str(document.get("body") or "")))
    except ValueError:
        body = None
    arguments = body[0] if isinstance(body, list) and body and isinstance(body[0], list) else []
    event_id, received = _event(arguments)
    task = str(headers.get("task") or "")
    return Message(
        task=task,
        event_id="" if "transaction" in task else event_id,
        received=received,
        redelivered=headers.get("redelivered") is True,
        delayed=headers.get("eta") is not None,
    )


def parse_vtask(document: Any) -> Message | None:
    """A task of django-vtasks 3.1.0, decompressed and parsed (from the source, not run); None for others."""
    if not isinstance(document, dict) or not isinstance(document.get("func"), str):
        return None
    arguments = document.get("args")
    event_id, received = _event(arguments if isinstance(arguments, list) else [])
    error = str(document.get("error_msg") or "")
    if received is None:
        received = _seconds(document.get("ts"))
    return Message(
        task=document["func"],
        event_id=event_id,
        received=received,
        queue=str(document.get("queue") or "default"),
        failed="error_msg" in document,
        rescued=error.startswith(_RESCUED),
    )


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _event(arguments: list[Any]) -> tuple[str, float | None]:
    """Id and time of arrival when the first argument is an issue event; ``("", None)`` for other tasks."""
    first = arguments[0] if arguments else None
    if not isinstance(first, Mapping):
        return "", None
    payload = first.get("payload")
    if not isinstance(payload, Mapping) or payload.get("type") == "transaction":
        return "", _seconds(first.get("received"))
    event_id = str(_plain(payload.get("event_id")) or "").replace("-", "").lower()
    return event_id if len(event_id) == 32 else "", _seconds(first.get("received"))


def _plain(value: Any) -> Any:
    """kombu writes times as ``{"__type__", "__value__"}``, an identifier's value once more as ``{"hex"}`` (5.2)."""
    value = value.get("__value__") if isinstance(value, Mapping) else value
    return value.get("hex") if isinstance(value, Mapping) else value


def _seconds(value: Any) -> float | None:
    value = _plain(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
