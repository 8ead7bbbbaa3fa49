"""``glitchtip-ops queue``: events that wait for the worker, that it left unacknowledged, that it gave up."""

from .commands import register
from .state import QueueState, read_queue

__all__ = ["QueueState", "read_queue", "register"]
