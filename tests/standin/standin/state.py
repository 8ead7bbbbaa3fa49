"""What every part of one process shares: its settings, its cache, its queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import cache as caches
from . import db, vtasks_queue
from . import queue as queues
from .settings import Settings


@dataclass
class State:
    """Settings, cache and queue of this process; ``client`` is the one of Valkey, None without it."""

    settings: Settings
    cache: caches.Cache
    queue: queues.Queue
    client: Any | None = None


_state: State | None = None


def start(settings: Settings) -> State:
    """Open the database pool and choose where cache and queue live."""
    global _state
    db.open_pool(settings)
    client = caches.connect(settings)
    queue: queues.Queue
    if client is None:
        queue = queues.DatabaseQueue() if settings.celery else vtasks_queue.DatabaseTasks()
        _state = State(settings, caches.DatabaseCache(), queue)
    else:
        queue = queues.ValkeyQueue(client) if settings.celery else vtasks_queue.ValkeyTasks(client, settings)
        _state = State(settings, caches.ValkeyCache(client), queue, client)
    return _state


def get() -> State:
    """The state of this process.

    Raises :class:`RuntimeError` before :func:`start`.
    """
    if _state is None:
        raise RuntimeError("state.start() was not called")
    return _state
