"""The queues of the 6.2 line between web, scheduler and worker, as django-vtasks 3.1.0 keeps them.

From the library's source, not measured. In Valkey, braces included:

- ``{vt}:q:ingest`` and ``{vt}:q:default``: what waits (``LLEN``). Real entries above 1 kB are compressed; these are not.
- ``{vt}:q:failed``: dead letters, newest first, capped at ``VTASKS_DLQ_CAP``. An entry is the task plus error fields.
- ``{vt}:processing:<host>-<pid>``: single tasks in hand. Ingest batches are in no list while they are in hand.
- ``{vt}:alive:<host>-<pid>``: renewed every five seconds, lives for 15.

Without Valkey the table ``db_queuedtask`` has the rows with a status; there nothing is lost, but what a killed worker
had in hand stays PROCESSING.
"""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any, Protocol

import redis

from . import db
from .queue import DUPLICATE_WINDOW, PUT_ONCE, Message, open_window
from .settings import Settings
from .wire import unwrap_vtask, wrap_vtask

PREFIX = "{vt}:"
INGEST, DEFAULT, FAILED = "ingest", "default", "failed"
ALIVE_SECONDS = 15

Taken = list[tuple[str, Message]]


def queue_of(message: Message) -> str:
    """The queue that a task belongs to."""
    return INGEST if message["task"] == "ingest" else DEFAULT


def me() -> str:
    """What this process is called in the keys: host name and process number."""
    return f"{socket.gethostname()}-{os.getpid()}"


class Tasks(Protocol):
    """What the worker needs of the queues."""

    def put(self, message: Message) -> None:
        """Append a task to its queue."""

    def put_once(self, message: Message, key: str) -> bool:
        """Append unless this key was used within the duplicate window; whether it was appended."""

    def take(self, queue: str, limit: int) -> Taken:
        """Up to ``limit`` tasks, oldest first, with a tag for :meth:`done`."""

    def done(self, taken: Taken) -> None:
        """These tasks ended, well or not."""

    def fail(self, taken: Taken, error: str) -> None:
        """Put tasks among the dead letters. Nobody tries them again."""

    def rescue(self) -> int:
        """Take over single tasks of workers of this host name; how many were queued again."""

    def alive(self) -> None:
        """Say that this worker lives."""


class ValkeyTasks:
    """:class:`Tasks` in Valkey."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._client: Any = client
        self._cap = settings.dead_letter_cap
        self._max_rescues = settings.max_rescues
        self._mine = f"{PREFIX}processing:{me()}"

    def put(self, message: Message) -> None:
        self._client.lpush(self._name(queue_of(message)), self._text(message))

    def put_once(self, message: Message, key: str) -> bool:
        keys = [self._name(queue_of(message)), f":1:{key}"]
        return bool(self._client.eval(PUT_ONCE, 2, *keys, self._text(message), DUPLICATE_WINDOW))

    def _name(self, queue: str) -> str:
        return f"{PREFIX}q:{queue}"

    def _text(self, message: Message) -> str:
        # The limit travels with the task: it is the one of the process that queued it.
        return wrap_vtask(message, queue_of(message), max_rescues=self._max_rescues, rescues=0)

    def take(self, queue: str, limit: int) -> Taken:
        if queue == INGEST:  # popped: a worker that is killed now loses them
            return [("", unwrap_vtask(text)) for text in self._client.rpop(self._name(queue), limit) or ()]
        taken: Taken = []
        while len(taken) < limit:
            text = self._client.lmove(self._name(queue), self._mine, "RIGHT", "LEFT")
            if text is None:
                break
            taken.append((text, unwrap_vtask(text)))
        return taken

    def done(self, taken: Taken) -> None:
        for tag, _ in taken:
            if tag:
                self._client.lrem(self._mine, 1, tag)

    def fail(self, taken: Taken, error: str) -> None:
        if taken:
            self._bury([tag or self._text(message) for tag, message in taken], error)

    def _bury(self, entries: list[str], error: str) -> None:
        pipe = self._client.pipeline()
        pipe.lpush(self._name(FAILED), *(dead_letter(entry, error) for entry in entries))
        pipe.ltrim(self._name(FAILED), 0, self._cap - 1)
        pipe.execute()

    def rescue(self) -> int:
        """Also what *this* worker has in hand (a fault of 3.1.0): such a task ends well and yet leaves an entry."""
        again = 0
        start = f"{PREFIX}processing:"
        for key in list(self._client.scan_iter(match=f"{start}{socket.gethostname()}-*")):
            owner = key.removeprefix(start)
            if owner != me() and self._client.exists(f"{PREFIX}alive:{owner}"):
                continue
            while (text := self._client.rpop(key)) is not None:
                task = json.loads(text)
                limit, rescues = int(task.get("max_rescues", 0)), int(task.get("rescues", 0)) + 1
                if rescues > limit:
                    self._bury([text], f"Exceeded max_rescues ({limit})")
                else:
                    self._client.lpush(self._name(task["queue"]), json.dumps({**task, "rescues": rescues}))
                    again += 1
        return again

    def alive(self) -> None:
        self._client.set(f"{PREFIX}alive:{me()}", "1", ex=ALIVE_SECONDS)


def dead_letter(entry: str, error: str) -> str:
    """The text of a dead letter: the entry of the task with what went wrong and when (seconds since 1970)."""
    return json.dumps({**json.loads(entry), "error_msg": error, "failed_at": time.time()})


class DatabaseTasks:
    """:class:`Tasks` in the table ``db_queuedtask``."""

    def put(self, message: Message) -> None:
        db.execute(
            "INSERT INTO db_queuedtask (body, queue) VALUES (%s, %s)",
            [json.dumps(message), queue_of(message)],
        )

    def put_once(self, message: Message, key: str) -> bool:
        with db.transaction():
            fresh = open_window(key)
            if fresh:
                self.put(message)
        return fresh

    def take(self, queue: str, limit: int) -> Taken:
        taken = db.rows(
            "UPDATE db_queuedtask SET taken_at = now(), status = 'PROCESSING', worker_id = %s WHERE id IN"
            " (SELECT id FROM db_queuedtask WHERE status = 'QUEUED' AND queue = %s"
            " ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING id, body",
            [me(), queue, limit],
        )
        found = sorted(taken, key=lambda row: int(row["id"]))
        return [(str(row["id"]), json.loads(row["body"])) for row in found]

    def done(self, taken: Taken) -> None:
        numbers = [int(tag) for tag, _ in taken]
        db.execute("DELETE FROM db_queuedtask WHERE id = ANY(%s) AND status = 'PROCESSING'", [numbers])

    def fail(self, taken: Taken, error: str) -> None:  # noqa: ARG002 - the real table has no place for it either
        numbers = [int(tag) for tag, _ in taken]
        db.execute("UPDATE db_queuedtask SET status = 'FAILED' WHERE id = ANY(%s)", [numbers])

    def rescue(self) -> int:
        """Nothing: a container's new worker has the same name, so its rows look like its own."""
        return 0

    def alive(self) -> None:
        """Nothing is kept of it here."""
