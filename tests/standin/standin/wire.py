"""How tasks lie in Valkey: kombu's envelope on the 5.2 line, a task of django-vtasks on the 6.2 line.

The 5.2 layout was read from a running GlitchTip 5.2 with kombu 5.5.4; the 6.2 layout is from the source of
django-vtasks 3.1.0. Operators' tools find event id, time of arrival, task and queue in these places. The stand-in's
own message travels beside them as ``standin``.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import Any

Message = dict[str, Any]

#: Names of the real tasks that tools tell apart; others keep the stand-in's own.
_TASKS = {"ingest": "apps.event_ingest.tasks.ingest_event"}


def _arguments(message: Message, event_id: Any, received: Any) -> list[Any]:
    if message.get("task") != "ingest":
        return [{"standin": message}]
    payload = {"event_id": event_id, "type": 0}
    return [{"project_id": message["project"], "received": received, "payload": payload, "standin": message}]


def wrap_kombu(message: Message) -> str:
    """A message as the 5.2 line queues it."""
    event_id = {"__type__": "uuid", "__value__": {"hex": message.get("id")}}
    received = {"__type__": "datetime", "__value__": message.get("received")}
    body = [_arguments(message, event_id, received), {}, {"callbacks": None, "errbacks": None, "chain": None}]
    number, eta = str(uuid.uuid4()), message.get("eta")
    headers = {
        **dict.fromkeys(["expires", "group", "group_index", "shadow", "parent_id", "stamps"]),
        "lang": "py",
        "task": _TASKS.get(message["task"], message["task"]),
        "id": number,
        "root_id": number,
        "eta": eta,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": f"({json.dumps(message)[:1024]},)",
        "kwargsrepr": "{}",
        "origin": "gen@standin",
    }
    properties = {
        "correlation_id": number,
        "reply_to": str(uuid.uuid4()),
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "celery"},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    return json.dumps(
        {
            "body": base64.b64encode(json.dumps(body).encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": properties,
        }
    )


def unwrap_kombu(text: str | bytes) -> Message:
    """The stand-in's message of such an entry."""
    body = json.loads(base64.b64decode(json.loads(text)["body"]))
    message: Message = body[0][0]["standin"]
    return message


def release(text: str | bytes) -> str:
    """An entry of ``unacked`` as it is put back to ``celery``."""
    entry = json.loads(text)[0]
    entry["headers"]["redelivered"] = True
    entry["properties"]["delivery_info"]["redelivered"] = True
    return json.dumps(entry)


def wrap_vtask(message: Message, queue: str, **fields: Any) -> str:
    """A message as the 6.2 line queues it; ``fields`` are ``error_msg``, ``failed_at``, ``max_rescues`` and the like."""
    task: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "func": _TASKS.get(message["task"], message["task"]),
        "args": _arguments(message, message.get("id"), message.get("received")),
        "kwargs": {},
        "queue": queue,
        "ts": time.time(),
    }
    return json.dumps({**task, **fields})


def unwrap_vtask(text: str | bytes) -> Message:
    """The stand-in's message of such an entry."""
    message: Message = json.loads(text)["args"][0]["standin"]
    return message
