"""Bring back what a killed worker of the 5.2 line left in Valkey's ``unacked``: nothing lost, nothing twice.

kombu restores an entry of ``unacked`` only when a worker starts and the entry is older than its visibility
timeout of an hour, which has no setting from outside. So: stop the worker, set the entries' time to 0, start it.
GlitchTip adds an event to its issue's count before it stores the event, and does so again for one delivered
twice (from the source of 5.2; the row itself is kept once). So what is stored already is taken out first, and what was counted
and not stored is taken out of the counts.

Every step may be repeated, and a restored entry is either in ``unacked`` or in ``celery``: killed at any point,
nothing is lost, and the next run continues.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..docker_stack import Container, Stack
from ..process import OpsError
from ..worker_stop import see_stopped, stopped_worker
from .append_log import BEFORE, find_lost, put_back
from .counts import LOG, await_writes, recount
from .messages import Message, parse_celery
from .valkey import HEX, Valkey, open_valkey

_CHUNK = 25
#: Seconds for the events to be stored: a start of the worker, then at least _RATE events a second.
_PATIENCE, _RATE = 120.0, 10.0

_TAGS = "local t = redis.call('HKEYS', 'unacked') t[#t + 1] = '' return cjson.encode(t)"
_READ = (
    HEX
    + """
local out = {''}
for _, tag in ipairs(ARGV) do
  local body = redis.call('HGET', 'unacked', tag)
  out[#out + 1] = body and hex(body) or ''
end
return cjson.encode(out)
"""
)
_DROP = """
local n = 0
for _, tag in ipairs(ARGV) do
  n = n + redis.call('HDEL', 'unacked', tag)
  redis.call('ZREM', 'unacked_index', tag)
end
return cjson.encode(n)
"""
# The mutex lives five minutes: held by the killed worker, it would keep the next one from restoring anything.
# A time without a message would be reported as left for ever.
_AGE = """
local n = 0
for _, tag in ipairs(redis.call('ZRANGE', 'unacked_index', 0, -1)) do
  if redis.call('HEXISTS', 'unacked', tag) == 0 then redis.call('ZREM', 'unacked_index', tag) end
end
for _, tag in ipairs(redis.call('HKEYS', 'unacked')) do
  redis.call('ZADD', 'unacked_index', 0, tag)
  n = n + 1
end
redis.call('DEL', 'unacked_mutex')
return cjson.encode(n)
"""
_LEFT = "return cjson.encode(redis.call('ZCOUNT', 'unacked_index', 0, 0))"
_TAIL = (
    HEX
    + """
local out = {''}
for _, body in ipairs(redis.call('LRANGE', 'celery', ARGV[1], ARGV[2])) do out[#out + 1] = hex(body) end
return cjson.encode(out)
"""
)
_REMOVE = """
local wanted, n = {}, 0
for place = 2, #ARGV do wanted[ARGV[place]] = true end
for _, body in ipairs(redis.call('LRANGE', 'celery', -tonumber(ARGV[1]), -1)) do
  if wanted[redis.sha1hex(body)] then n = n + redis.call('LREM', 'celery', -1, body) end
end
return cjson.encode(n)
"""


@dataclass
class Recovery:
    """What a recovery did. Numbers of messages but for ``seconds`` and the ids in ``missing``.

    ``recounted``: events taken out of issues' counts because they had been counted and not stored.
    ``lost_by_worker``: of ``recovered_events`` those that were in no list any more.
    """

    line: str = "5.2"
    changed: bool = False
    left: int = 0
    already_stored: int = 0
    recovered_events: int = 0
    lost_by_worker: int = 0
    recounted: int = 0
    recovered_tasks: int = 0
    stored: int = 0
    missing: list[str] = field(default_factory=list)
    worker_ended_by_itself: bool = True
    seconds: float = 0.0
    note: str = ""

    @property
    def complete(self) -> bool:
        """Whether every event that was left is stored now."""
        return not self.missing

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {**asdict(self), "complete": self.complete}


def stored_ids(stack: Stack, postgres: Container, ids: Iterable[str]) -> set[str]:
    """Those of ``ids`` (32 hexadecimal digits) that are in the database. Raises OpsError."""
    wanted = sorted(set(ids))
    found: set[str] = set()
    for place in range(0, len(wanted), 500):
        listed = ",".join(wanted[place : place + 500])
        sql = "SET statement_timeout = '50s';\n"
        sql += f"SELECT id FROM issue_events_issueevent WHERE id = ANY('{{{listed}}}'::uuid[]);"
        argv = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        text = stack.database_run(postgres, argv, timeout=60.0, text=sql)
        found |= {line.strip().replace("-", "") for line in text.splitlines() if line.strip()}
    return found


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for place in range(0, len(values), _CHUNK):
        yield values[place : place + _CHUNK]


def _read_unacked(valkey: Valkey) -> dict[str, Message]:
    """Everything in ``unacked`` by its tag; an entry that cannot be read counts as a task without an event."""
    messages: dict[str, Message] = {}
    for tags in _chunks([tag for tag in valkey.evaluate(_TAGS) if tag]):
        bodies = valkey.evaluate(_READ, *tags)[1:]
        for tag, body in zip(tags, bodies, strict=True):
            if body:
                messages[tag] = parse_celery(bytes.fromhex(body)) or Message()
    return messages


def _read_returned(valkey: Valkey) -> list[tuple[str, Message]]:
    """``(sha1, message)`` of what a worker gave back when it stopped: the end of ``celery`` that is taken next."""
    found: list[tuple[str, Message]] = []
    while True:
        first, last = -len(found) - _CHUNK, -len(found) - 1
        bodies = [bytes.fromhex(body) for body in valkey.evaluate(_TAIL, str(first), str(last))[1:]]
        for body in reversed(bodies):
            message = parse_celery(body)
            if message is None or not message.redelivered:
                return found
            found.append((hashlib.sha1(body).hexdigest(), message))  # noqa: S324
        if len(bodies) < _CHUNK:
            return found


def recover_unacked(
    stack: Stack,
    state_dir: Path,
    *,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
    keep_counts: bool = False,
) -> Recovery:
    """Stop the worker, take out what is stored, age the rest, start the worker, wait until it is stored.

    To be called by who holds ``worker_stop.exclusive``. ``keep_counts``: do not write to GlitchTip's tables. What
    cannot be found out about lost messages or counts is a note: the messages at hand are brought back all the same.
    Raises OpsError when Valkey, PostgreSQL or the engine fails, or somebody else starts a worker meanwhile; the
    worker is started again all the same.
    """
    began = monotonic()
    result = Recovery(changed=True)
    valkey, postgres = open_valkey(stack), stack.container("postgres")
    if not postgres.well:
        raise OpsError(f"container {postgres.name} is not healthy; nothing was stopped")
    stored_ids(stack, postgres, ["0" * 32])  # both answer before anything is stopped
    valkey.call("PING")
    with stopped_worker(stack, state_dir, "a recovery of the queue") as result.worker_ended_by_itself:
        if not result.worker_ended_by_itself:
            await_writes(stack, postgres, sleep)
        messages = _read_unacked(valkey)
        returned = _read_returned(valkey)
        ids = {each.event_id for each in messages.values() if each.event_id}
        ids |= {each.event_id for _, each in returned if each.event_id}
        stored = stored_ids(stack, postgres, ids) if ids else set()
        twice = [tag for tag, each in messages.items() if each.event_id in stored]
        for tags in _chunks(twice):
            result.already_stored += int(valkey.evaluate(_DROP, *tags))
        again = [digest for digest, each in returned if each.event_id in stored]
        if again:
            result.already_stored += int(valkey.evaluate(_REMOVE, str(len(returned)), *again))
        result.left = len(messages)
        notes: list[str] = []
        gone: dict[str, bytes] = {}
        try:
            gone = find_lost(
                stack, valkey, messages.values(), lambda some: stored_ids(stack, postgres, some)
            )
        except OpsError as error:
            notes.append(f"what is in no list any more could not be looked for: {error}")
        see_stopped(stack)
        result.lost_by_worker = len(gone)
        ids |= set(gone)
        wanted = sorted(ids - stored)
        moments = [each.received for each in messages.values() if each.event_id and each.received is not None]
        if moments and not keep_counts:
            worker = stack.workers(stack.containers())[0]
            try:
                result.recounted, note = recount(
                    stack, postgres, worker, min(moments) - BEFORE, len(wanted), state_dir / LOG
                )
                notes += [note] if note else []
            except OpsError as error:
                notes.append(f"issues' counts were not compared, and may count some events twice: {error}")
        result.note = "; ".join(notes)
        result.recovered_events = len(wanted)
        result.recovered_tasks = sum(1 for each in messages.values() if not each.event_id)
        see_stopped(stack)
        for body in gone.values():  # after the counts: interrupted here, the next run finds the rest again
            put_back(stack, valkey, body)
        valkey.evaluate(_AGE)
    result.missing = await_stored(
        stack, postgres, wanted, sleep, monotonic, lambda: int(valkey.evaluate(_LEFT))
    )
    result.stored = len(wanted) - len(result.missing)
    result.seconds = round(monotonic() - began, 1)
    return result


def await_stored(
    stack: Stack,
    postgres: Container,
    wanted: Sequence[str],
    sleep: Callable[[float], None],
    monotonic: Callable[[], float],
    left: Callable[[], int] = lambda: 0,
) -> list[str]:
    """Wait until nothing is ``left`` to restore and the events ``wanted`` are stored; those that are not."""
    end = monotonic() + _PATIENCE + len(wanted) / _RATE
    missing = list(wanted)
    while True:
        waiting = left()
        if missing:
            found = stored_ids(stack, postgres, missing)
            missing = [each for each in missing if each not in found]
        if (not missing and not waiting) or monotonic() >= end:
            return missing
        sleep(1)
