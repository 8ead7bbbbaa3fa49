"""What every part of one process shares: its settings, its cache, its queue."""

from __future__ import annotations

from dataclasses import dataclass

from . import cache as caches
from . import db
from . import queue as queues
from .settings import Settings


@dataclass
class State:
    """Settings, cache and queue of this process."""

    settings: Settings
    cache: caches.Cache
    queue: queues.Queue


_state: State | None = None


def start(settings: Settings) -> State:
    """Open the database pool and choose where cache and queue live."""
    global _state
    db.open_pool(settings)
    client = caches.connect(settings)
    if client is None:
        _state = State(settings, caches.DatabaseCache(), queues.DatabaseQueue())
    else:
        _state = State(settings, caches.ValkeyCache(client), queues.ValkeyQueue(client, settings))
    return _state


def get() -> State:
    """The state of this process.

    Raises :class:`RuntimeError` before :func:`start`.
    """
    if _state is None:
        raise RuntimeError("state.start() was not called")
    return _state
