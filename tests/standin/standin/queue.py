"""The task queue of the 5.2 line between web, scheduler and worker. Valkey, else PostgreSQL.

In Valkey the names are Celery's, because operators look at them: list ``celery`` (waiting; ``LLEN``), hash ``unacked``
(in hand; ``HLEN``, 0 when idle) and sorted set ``unacked_index`` (when taken). A message leaves ``unacked`` only after
it was stored. What a killed worker left there comes back when a worker *starts* and the message is older than the
visibility timeout of one hour. The 6.2 line's queues are in :mod:`standin.vtasks_queue`.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, Protocol

import redis

from . import db
from .wire import release, unwrap_kombu, wrap_kombu

VISIBILITY_TIMEOUT = 3600
#: Life of an entry of the duplicate filter in seconds: Django's default, no TIMEOUT is set (source of both lines).
DUPLICATE_WINDOW = 300

Message = dict[str, Any]

_TAKE = """
local taken = {}
for n = 1, tonumber(ARGV[1]) do
  local body = redis.call('RPOP', KEYS[1])
  if not body then break end
  local tag = ARGV[3] .. ':' .. n
  redis.call('HSET', KEYS[2], tag, '[' .. body .. ', "", "celery"]')
  redis.call('ZADD', KEYS[3], ARGV[2], tag)
  taken[#taken + 1] = tag
  taken[#taken + 1] = body
end
return taken
"""
PUT_ONCE = """
if redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[2]) then
  redis.call('LPUSH', KEYS[1], ARGV[1])
  return 1
end
return 0
"""
_RESTORE_ONE = """
if redis.call('HDEL', KEYS[2], ARGV[1]) == 1 then redis.call('RPUSH', KEYS[1], ARGV[2]) end
return redis.call('ZREM', KEYS[3], ARGV[1])
"""


class Queue(Protocol):
    """Where tasks are put, on both lines."""

    def put(self, message: Message) -> None:
        """Append a message."""

    def put_once(self, message: Message, key: str) -> bool:
        """Append unless a message with this key was put within the duplicate window; whether it was
        appended."""


class HeldQueue(Queue, Protocol):
    """At-least-once delivery of JSON messages, oldest first."""

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
    """:class:`HeldQueue` in Valkey or Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self._keys = ["celery", "unacked", "unacked_index"]

    def put(self, message: Message) -> None:
        self._client.lpush(self._keys[0], wrap_kombu(message))

    def put_once(self, message: Message, key: str) -> bool:
        arguments = [wrap_kombu(message), DUPLICATE_WINDOW]
        return bool(self._client.eval(PUT_ONCE, 2, self._keys[0], f":1:{key}", *arguments))

    def take(self, limit: int) -> list[tuple[str, Message]]:
        flat = self._client.eval(_TAKE, 3, *self._keys, limit, time.time(), uuid.uuid4().hex)
        return [(flat[n], unwrap_kombu(flat[n + 1])) for n in range(0, len(flat), 2)]

    def done(self, tags: list[str]) -> None:
        if tags:
            pipe = self._client.pipeline()
            pipe.hdel(self._keys[1], *tags)
            pipe.zrem(self._keys[2], *tags)
            pipe.execute()

    def give_back(self, taken: list[tuple[str, Message]]) -> None:
        if taken:
            pipe = self._client.pipeline()
            again = (release(f"[{wrap_kombu(message)}]") for _, message in reversed(taken))
            pipe.rpush(self._keys[0], *again)
            pipe.hdel(self._keys[1], *(tag for tag, _ in taken))
            pipe.zrem(self._keys[2], *(tag for tag, _ in taken))
            pipe.execute()

    def restore(self) -> int:
        # The real one leaves this key, and never removes it, wherever a Celery worker has run.
        self._client.sadd("_kombu.binding.celery", "celery\x06\x16\x06\x16celery")
        back = 0
        for tag in self._client.zrangebyscore(self._keys[2], "-inf", time.time() - VISIBILITY_TIMEOUT):
            body = self._client.hget(self._keys[1], tag)
            self._client.eval(_RESTORE_ONE, 3, *self._keys, tag, release(body) if body else "")
            back += bool(body)
        return back


def open_window(key: str) -> bool:
    """Whether this key was not used within the duplicate window; it is from now on (PostgreSQL, in the caller's transaction)."""
    return bool(
        db.execute(
            "INSERT INTO django_cache VALUES (%s, '1', now() + make_interval(secs => %s))"
            " ON CONFLICT (cache_key) DO UPDATE SET expires = excluded.expires"
            " WHERE django_cache.expires <= now()",
            [key, DUPLICATE_WINDOW],
        )
    )


class DatabaseQueue:
    """:class:`HeldQueue` in the table ``db_queuedtask``."""

    def put(self, message: Message) -> None:
        db.execute("INSERT INTO db_queuedtask (body) VALUES (%s)", [json.dumps(message)])

    def put_once(self, message: Message, key: str) -> bool:
        with db.transaction():
            fresh = open_window(key)
            if fresh:
                self.put(message)
        return fresh

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
