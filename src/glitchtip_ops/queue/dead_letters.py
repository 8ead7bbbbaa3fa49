"""Bring back what the 6.x worker gave up: from ``{vt}:q:failed`` to the queue that each entry names.

From the source of django-vtasks 3.1.0, not run against a GlitchTip 6.x: the worker puts every event of a batch
that met an error (a database that restarts, a pool without a free connection) there and does not try again. The
list has a cap; the newest push out the oldest. An entry is the task itself plus error fields, which a worker
ignores. ``Exceeded max_rescues`` marks a task found in a worker's hands, which may have ended well: those are
left alone (no event is among them: batches of events are in no such list).

One entry moves with one ``LMOVE``: killed at any point, it is in exactly one of the two lists.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from ..docker_stack import Stack
from ..process import OpsError
from .messages import Message
from .recovery import Recovery, await_stored, stored_ids
from .valkey import HEX, open_valkey
from .vtasks import KEYS, parse_entries

_CHUNK = 25
_LENGTH = f"return cjson.encode(redis.call('LLEN', '{KEYS['failed']}'))"
_OLDEST = (
    HEX
    + f"""
local out = {{''}}
for _, body in ipairs(redis.call('LRANGE', '{KEYS["failed"]}', -tonumber(ARGV[1]), -1)) do
  out[#out + 1] = hex(body)
end
return cjson.encode(out)
"""
)
# ARGV: pairs of the entry's SHA-1 and where it goes, oldest first. A kept one goes to the other end of its own list.
_MOVE = f"""
local failed, moved = '{KEYS["failed"]}', 0
for place = 1, #ARGV, 2 do
  local body = redis.call('LINDEX', failed, -1)
  if not body or redis.sha1hex(body) ~= ARGV[place] then break end
  local target = ARGV[place + 1]
  redis.call('LMOVE', failed, target, 'RIGHT', 'LEFT')
  if target ~= failed then moved = moved + 1 end
end
return cjson.encode(moved)
"""


def is_recoverable(message: Message | None, stored: set[str]) -> bool:
    """Whether a dead letter is to run again: it can be read, is no false one, and its event is not stored."""
    return (
        message is not None
        and message.failed
        and not message.rescued
        and message.queue in ("ingest", "default")
        and message.event_id not in stored
    )


def recover_dead_letters(
    stack: Stack,
    *,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Recovery:
    """Move every recoverable dead letter back and wait until its event is stored.

    To be called by who holds ``worker_stop.exclusive``. Raises OpsError when the database or a worker does not
    run: every entry would come straight back.
    """
    began = monotonic()
    result = Recovery(line="6.x", changed=True, note="from the 6.x source, not run against a GlitchTip 6.x")
    containers = stack.containers()
    valkey, postgres = open_valkey(stack), stack.container("postgres")
    workers = [worker for worker in stack.workers(containers) if worker.running]
    if not postgres.well or not workers:
        raise OpsError("PostgreSQL or the worker does not run well; start them first, then recover")
    wanted: set[str] = set()
    result.left = total = int(valkey.evaluate(_LENGTH))
    seen = 0
    while seen < total:
        entries = [
            bytes.fromhex(each) for each in valkey.evaluate(_OLDEST, str(min(_CHUNK, total - seen)))[1:]
        ]
        if not entries:
            break
        entries.reverse()  # oldest first
        messages = parse_entries(stack, workers, entries, whole=True)
        ids = {message.event_id for message in messages if message is not None and message.event_id}
        stored = stored_ids(stack, postgres, ids) if ids else set()
        moves: list[str] = []
        for entry, message in zip(entries, messages, strict=True):
            target = KEYS["failed"]
            if message is not None and is_recoverable(message, stored):
                target = KEYS[message.queue]
                if message.event_id:
                    wanted.add(message.event_id)
                else:
                    result.recovered_tasks += 1
            elif message is not None and message.event_id in stored:
                result.already_stored += 1
            moves += [hashlib.sha1(entry).hexdigest(), target]  # noqa: S324 - compared with sha1hex of Valkey
        valkey.evaluate(_MOVE, *moves)
        seen += len(entries)
    result.recovered_events = len(wanted)
    result.missing = await_stored(stack, postgres, sorted(wanted), sleep, monotonic)
    result.stored = result.recovered_events - len(result.missing)
    result.seconds = round(monotonic() - began, 1)
    return result
