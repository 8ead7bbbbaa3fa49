"""The task queue between web, scheduler and worker. Valkey, else PostgreSQL.

In Valkey the names are Celery's on the 5.2 line, because operators look at them: list ``celery`` (waiting;
``LLEN``), hash ``unacked`` (in hand; ``HLEN``, 0 when idle) and sorted set ``unacked_index`` (when taken).
A message leaves ``unacked`` only after it was stored. What a killed worker left there comes back when a
worker *starts* and the message is older than the visibility timeout of one hour (5.2 line), at once on the
6.2 line.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import Any, Protocol

import redis

from . import db
from .settings import Settings

VISIBILITY_TIMEOUT = 3600
#: Life of an entry of the duplicate filter in seconds.
DUPLICATE_WINDOW = 3600

Message = dict[str, Any]

_TAKE = """
local taken = {}
for n = 1, tonumber(ARGV[1]) do
  local body = redis.call('RPOP', KEYS[1])
  if not body then break end
  local tag = ARGV[3] .. ':' .. n
  redis.call('HSET', KEYS[2], tag, body)
  redis.call('ZADD', KEYS[3], ARGV[2], tag)
  taken[#taken + 1] = tag
  taken[#taken + 1] = body
end
return taken
"""
_PUT_ONCE = """
if redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[2]) then
  redis.call('LPUSH', KEYS[1], ARGV[1])
  return 1
end
return 0
"""
_RESTORE = """
local back = 0
for _, tag in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[1])) do
  local body = redis.call('HGET', KEYS[2], tag)
  if body then redis.call('RPUSH', KEYS[1], body) back = back + 1 end
  redis.call('HDEL', KEYS[2], tag)
  redis.call('ZREM', KEYS[3], tag)
end
return back
"""


def pack(message: Message) -> str:
    """A message as the 5.2 line puts it into Valkey: the task's arguments as JSON in base64, inside Celery's envelope.

    That makes a waiting event several times as large as what was sent, there and here.
    """
    identity = str(uuid.uuid4())
    task = str(message.get("task", ""))
    headers = {
        **dict.fromkeys(["eta", "expires", "group", "group_index", "shadow", "parent_id", "stamps"]),
        "lang": "py",
        "task": task,
        "id": identity,
        "root_id": identity,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": f"({json.dumps(message)[:1024]},)",
        "kwargsrepr": "{}",
        "origin": "gen@standin",
    }
    properties = {
        "correlation_id": identity,
        "reply_to": str(uuid.uuid4()),
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "celery"},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    body = base64.b64encode(json.dumps([[message], {}, {}]).encode()).decode()
    envelope = {"body": body, "content-encoding": "utf-8", "content-type": "application/json"}
    return json.dumps({**envelope, "headers": headers, "properties": properties})


def unpack(text: str) -> Message:
    """The message of :func:`pack`."""
    found: Message = json.loads(base64.b64decode(json.loads(text)["body"]))[0][0]
    return found


class Queue(Protocol):
    """At-least-once delivery of JSON messages, oldest first."""

    def put(self, message: Message) -> None:
        """Append a message."""

    def put_once(self, message: Message, key: str) -> bool:
        """Append unless a message with this key was put within the duplicate window; whether it was
        appended."""

    def take(self, limit: int) -> list[tuple[str, Message]]:
        """Up to ``limit`` messages with the tag to acknowledge each; they stay in hand until :meth:`done`."""

    def done(self, tags: list[str]) -> None:
        """Acknowledge: these messages are stored."""

    def give_back(self, taken: list[tuple[str, Message]]) -> None:
        """Put messages in hand back to the front of the queue."""

    def restore(self) -> int:
        """At the start of a worker: take over what a dead worker left in hand; how many messages came
        back."""


class ValkeyQueue:
    """:class:`Queue` in Valkey or Redis."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client: Any = client
        name = "celery" if settings.celery else "vtasks"
        prefix = "" if settings.celery else "vtasks:"
        self._keys = [name, f"{prefix}unacked", f"{prefix}unacked_index"]
        self._patience = VISIBILITY_TIMEOUT if settings.celery else 0
        self._pack = pack if settings.celery else json.dumps
        self._unpack = unpack if settings.celery else json.loads

    def put(self, message: Message) -> None:
        self._client.lpush(self._keys[0], self._pack(message))

    def put_once(self, message: Message, key: str) -> bool:
        arguments = [self._pack(message), DUPLICATE_WINDOW]
        return bool(self._client.eval(_PUT_ONCE, 2, self._keys[0], f":1:{key}", *arguments))

    def take(self, limit: int) -> list[tuple[str, Message]]:
        flat = self._client.eval(_TAKE, 3, *self._keys, limit, time.time(), uuid.uuid4().hex)
        return [(flat[n], self._unpack(flat[n + 1])) for n in range(0, len(flat), 2)]

    def done(self, tags: list[str]) -> None:
        if tags:
            pipe = self._client.pipeline()
            pipe.hdel(self._keys[1], *tags)
            pipe.zrem(self._keys[2], *tags)
            pipe.execute()

    def give_back(self, taken: list[tuple[str, Message]]) -> None:
        if taken:
            pipe = self._client.pipeline()
            pipe.rpush(self._keys[0], *(self._pack(message) for _, message in reversed(taken)))
            pipe.hdel(self._keys[1], *(tag for tag, _ in taken))
            pipe.zrem(self._keys[2], *(tag for tag, _ in taken))
            pipe.execute()

    def restore(self) -> int:
        return int(self._client.eval(_RESTORE, 3, *self._keys, time.time() - self._patience))


class DatabaseQueue:
    """:class:`Queue` in the table ``db_queuedtask``."""

    def put(self, message: Message) -> None:
        db.execute("INSERT INTO db_queuedtask (body) VALUES (%s)", [json.dumps(message)])

    def put_once(self, message: Message, key: str) -> bool:
        with db.transaction():
            fresh = db.execute(
                "INSERT INTO django_cache VALUES (%s, '1', now() + make_interval(secs => %s))"
                " ON CONFLICT (cache_key) DO UPDATE SET expires = excluded.expires"
                " WHERE django_cache.expires <= now()",
                [key, DUPLICATE_WINDOW],
            )
            if fresh:
                self.put(message)
        return bool(fresh)

    def take(self, limit: int) -> list[tuple[str, Message]]:
        taken = db.rows(
            "UPDATE db_queuedtask SET taken_at = now() WHERE id IN (SELECT id FROM db_queuedtask"
            " WHERE taken_at IS NULL ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING id, body",
            [limit],
        )
        return [
            (str(row["id"]), json.loads(row["body"])) for row in sorted(taken, key=lambda row: int(row["id"]))
        ]

    def done(self, tags: list[str]) -> None:
        db.execute("DELETE FROM db_queuedtask WHERE id = ANY(%s)", [[int(tag) for tag in tags]])

    def give_back(self, taken: list[tuple[str, Message]]) -> None:
        db.execute(
            "UPDATE db_queuedtask SET taken_at = NULL WHERE id = ANY(%s)", [[int(tag) for tag, _ in taken]]
        )

    def restore(self) -> int:
        return db.execute("UPDATE db_queuedtask SET taken_at = NULL WHERE taken_at IS NOT NULL")
