"""What waits, what a worker holds, what nobody holds any more: one reading of the queue.

GlitchTip 5.2 (kombu in Valkey, measured): list ``celery`` waits; hash ``unacked`` with sorted set
``unacked_index`` (when taken) is in the worker's hands. A worker that was killed leaves its part there, and no
worker touches it before an hour has passed. GlitchTip 6.x (django-vtasks 3.1.0, from the source): lists
``{vt}:q:ingest`` and ``{vt}:q:default`` wait, ``{vt}:q:failed`` holds dead letters up to a cap; event batches
in hand are in no list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ..docker_stack import Container, Stack
from ..process import OpsError
from .messages import Message, parse_celery
from .valkey import HEX, SERVICE, Valkey
from .vtasks import BATCH, CONCURRENCY, KEYS, parse_entries

#: A message that a living worker has held for longer (seconds) is lost to it: batches are stored every 2 s.
OVERDUE = 300.0
_DECODED = 200

_STATE = (
    HEX
    + """
local call = redis.call
local out = {kombu = call('EXISTS', '_kombu.binding.celery'), celery = call('LLEN', 'celery'),
  unacked = call('HLEN', 'unacked'), failed = call('LLEN', KEYS_FAILED), queues = {}, known = 0, held = {}}
local function oldest(key) local e = call('LINDEX', key, -1) return e and hex(e) or '' end
out.oldest_celery = oldest('celery')
for _, name in ipairs({'ingest', 'default'}) do
  local key = '{vt}:q:' .. name
  out.queues[name] = {call('LLEN', key), oldest(key)}
end
out.known = call('EXISTS', '{vt}:scheduler:vtasks_last_run:uptime-dispatch-checks',
  '{vt}:scheduler:vtasks_last_run:send-alert-notifications', '{vt}:q:ingest', '{vt}:q:default', KEYS_FAILED)
local limit = tonumber(ARGV[1])
out.stranded = call('ZCOUNT', 'unacked_index', '-inf', '(' .. ARGV[2])
local first = call('ZRANGE', 'unacked_index', 0, 0, 'WITHSCORES')
out.first = first[2] or ''
local late = call('ZRANGEBYSCORE', 'unacked_index', '(' .. ARGV[2], ARGV[1], 'LIMIT', 0, tonumber(ARGV[3]))
for _, tag in ipairs(late) do
  local body = call('HGET', 'unacked', tag)
  if body then out.held[#out.held + 1] = hex(body) end
end
out.used = tonumber(string.match(call('INFO', 'memory'), 'used_memory:(%d+)'))
out.held[#out.held + 1] = ''
return cjson.encode(out)
""".replace("KEYS_FAILED", f"'{KEYS['failed']}'")
)


@dataclass(frozen=True)
class QueueState:
    """One reading. Times in seconds, sizes in bytes, the rest are numbers of messages.

    ``line``: ``5.2``, ``6.x``, or None when neither has left a trace (an idle new server).
    ``oldest``: age of the oldest waiting event, None when nothing waits or its time cannot be read.
    ``stranded``: in the hands of a worker process that is gone. ``overdue``: held by the living worker for
    longer than OVERDUE, events only (other tasks may run long). ``loss_bound``: events that a kill of the worker can lose for good.
    ``left_behind``: waiting in the list of the 5.2 line, which a 6.x server never reads.
    """

    at: str
    line: str | None
    waiting: int
    queues: dict[str, int]
    oldest: float | None
    in_hand: int
    oldest_in_hand: float | None
    stranded: int
    overdue: int
    dead_letters: int
    left_behind: int
    memory_used: int
    memory_limit: int
    loss_bound: int | None

    @property
    def abandoned(self) -> int:
        """Messages that only ``glitchtip-ops queue recover`` brings back soon."""
        return self.stranded + self.overdue

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data."""
        return asdict(self)


def read_queue(stack: Stack, now: datetime, containers: Sequence[Container] | None = None) -> QueueState:
    """Read the queue. Raises OpsError when Valkey does not run or does not answer."""
    containers = stack.containers() if containers is None else containers
    server = next((each for each in containers if each.service == SERVICE and each.running), None)
    if server is None:
        raise OpsError(f"no running container of service {SERVICE} in the Compose project {stack.project}")
    workers = [worker for worker in stack.workers(containers) if worker.running]
    born = min((_epoch(worker.started_at) for worker in workers), default=now.timestamp())
    arguments = f"{now.timestamp() - OVERDUE:.3f}", f"{born:.3f}", str(_DECODED)
    found = Valkey(stack, server).evaluate(_STATE, *arguments)
    vtasks, kombu = bool(found["known"]), bool(found["kombu"])
    queues = {"celery": int(found["celery"])}
    times = [_received(parse_celery(bytes.fromhex(found["oldest_celery"])))]
    if vtasks:
        queues = {name: int(entry[0]) for name, entry in found["queues"].items()}
        entries = [bytes.fromhex(entry[1]) for entry in found["queues"].values() if entry[1]]
        times = [_received(message) for message in parse_entries(stack, workers, entries)]
    ages = [now.timestamp() - moment for moment in times if moment is not None]
    held = [parse_celery(bytes.fromhex(entry)) for entry in found["held"] if entry]
    overdue = sum(1 for message in held if message is not None and message.event_id and not message.delayed)
    taken = float(found["first"]) if found["first"] else None
    return QueueState(
        at=now.isoformat(timespec="seconds"),
        line="6.x" if vtasks else "5.2" if kombu else None,
        waiting=sum(queues.values()),
        queues=queues,
        oldest=round(max(max(ages), 0.0), 1) if ages else None,
        in_hand=int(found["unacked"]),
        oldest_in_hand=None if taken is None else round(max(now.timestamp() - taken, 0.0), 1),
        stranded=int(found["stranded"]),
        overdue=overdue,
        dead_letters=int(found["failed"]),
        left_behind=int(found["celery"]) if vtasks else 0,
        memory_used=int(found["used"] or 0),
        memory_limit=server.memory_limit,
        loss_bound=_loss_bound(stack, workers, "6.x" if vtasks else "5.2" if kombu else None),
    )


def _received(message: Message | None) -> float | None:
    return None if message is None else message.received


def _epoch(started_at: str) -> float:
    try:
        return datetime.fromisoformat(started_at).astimezone(UTC).timestamp()
    except ValueError:
        raise OpsError(f"docker inspect told a time that is none: {started_at[:40]!r}") from None


def _loss_bound(stack: Stack, workers: Sequence[Container], line: str | None) -> int | None:
    """Events that SIGKILL of the worker can lose for good.

    6.x (from the source): every place of its pool holds a batch, and one fetched batch waits for a place.
    """
    if line is None or not workers:
        return None
    if line == "6.x":
        value = stack.environment(workers[0], ["VTASKS_CONCURRENCY"]).get("VTASKS_CONCURRENCY", "")
        places = int(value) if value.isdigit() and int(value) > 0 else CONCURRENCY
        return (places + 1) * BATCH
    return None
