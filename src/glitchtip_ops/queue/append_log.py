"""Accepted events that a killed worker took with it (5.2): in no list, but still in Valkey's append-only file.

Two kinds, both measured. A batch that was being stored: the worker acknowledges a batch when it begins to process it,
not when it is stored (71, 53 and 5 of 500 events). A message that Valkey had handed out with ``BRPOP`` and the worker had
not yet recorded in ``unacked`` (one event in four of eight kills). Both were taken around what lies in ``unacked``: only
events that arrived up to a minute before it, and not after it, are looked for.
"""

from __future__ import annotations

import hashlib
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator

from ..docker_stack import Container, Stack
from ..process import OpsError
from .messages import Message, parse_celery
from .valkey import Valkey

#: How far the order of arrival and the order in the list may differ (seconds).
_JITTER = 3.0
#: How long before the oldest unacknowledged event a batch arrived that was being stored (seconds).
BEFORE = 60.0
#: Two batches of 100, and a few on their way. More have another cause (the database was away): those are left alone.
MOST = 250
_CHUNK = 100
_MOST_READ = 5000
_DIGESTS = """
local out = {''}
for _, body in ipairs(redis.call('LRANGE', 'celery', ARGV[1], ARGV[2])) do out[#out + 1] = redis.sha1hex(body) end
return cjson.encode(out)
"""
#: Seconds for reading the whole file once.
_READ_TIMEOUT = 300.0
_FILES = 'cat "$1"/*.incr.aof'


def pushed_messages(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Every value that an append-only file pushes to list ``celery``; ``lines`` end with CR LF."""
    wanted = [b"lpush", None, b"celery", None]  # None: the length of what follows
    place = 0
    for line in lines:
        word = line.rstrip(b"\r\n")
        if place == len(wanted):
            yield word
            place = 0
        elif wanted[place] is None:
            place = place + 1 if word.startswith(b"$") else 0
        elif word.lower() == wanted[place]:
            place += 1
        else:
            place = int(word.lower() == wanted[0])


def _read_file(stack: Stack, container: Container, directory: str) -> Iterator[bytes]:
    """The lines of the append-only file, streamed: it may have hundreds of megabytes."""
    argv = [stack.docker, "exec", container.id, "sh", "-c", _FILES, "sh", directory]
    late = threading.Event()
    try:
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None  # noqa: S101

            def end() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(_READ_TIMEOUT, end)
            timer.daemon = True
            timer.start()
            try:
                yield from process.stdout
            finally:
                timer.cancel()
        if late.is_set():
            raise OpsError(
                f"Valkey's append-only file in {directory} could not be read within {_READ_TIMEOUT:.0f} s:"
                " see whether the disk is overloaded, then run it again"
            )
    except OSError as error:
        raise OpsError(f"{stack.docker} cannot be run: {error.strerror}") from None


def _waiting(valkey: Valkey) -> set[str]:
    """SHA-1 of what is taken next from ``celery``, up to a bound."""
    found: set[str] = set()
    while len(found) < _MOST_READ:
        chunk = valkey.evaluate(_DIGESTS, str(-len(found) - _CHUNK), str(-len(found) - 1))[1:]
        found |= set(chunk)
        if len(chunk) < _CHUNK:
            break
    return found


def _setting(valkey: Valkey, name: str) -> str:
    return valkey.call("CONFIG", "GET", name).strip().partition("\n")[2].strip()


def find_lost(
    stack: Stack,
    valkey: Valkey,
    held: Iterable[Message],
    stored: Callable[[set[str]], set[str]],
    *,
    read: Callable[[Stack, Container, str], Iterator[bytes]] = _read_file,
) -> dict[str, bytes]:
    """``{event id: message}`` of what the killed worker took with it; empty where it cannot be told.

    ``held`` is what lies in ``unacked``; ``stored`` answers which of some ids are in the database. The worker must be
    stopped: what is pushed while this reads waits in the list. Raises OpsError when Valkey does not answer.
    """
    known = list(held)
    moments = [each.received for each in known if each.event_id and each.received is not None]
    if not moments or _setting(valkey, "appendonly") != "yes":
        return {}
    directory = (
        f"{_setting(valkey, 'dir').rstrip('/')}/{_setting(valkey, 'appenddirname') or 'appendonlydir'}"
    )
    first, last = min(moments) - BEFORE, max(moments) + _JITTER
    ids = {each.event_id for each in known}
    candidates: dict[str, bytes] = {}
    for body in pushed_messages(read(stack, valkey.container, directory)):
        message = parse_celery(body)
        if message is None or not message.event_id or message.received is None or message.event_id in ids:
            continue
        if first <= message.received <= last:
            candidates[message.event_id] = body
    waiting = _waiting(valkey)
    candidates = {
        each: body
        for each, body in candidates.items()
        if hashlib.sha1(body).hexdigest() not in waiting  # noqa: S324
    }
    gone = set(candidates) - stored(set(candidates)) if candidates else set()
    return {each: candidates[each] for each in sorted(gone)} if len(gone) <= MOST else {}


def put_back(stack: Stack, valkey: Valkey, body: bytes) -> None:
    """Have the worker take ``body`` next. Raises OpsError when Valkey does not answer."""
    tool = valkey.tool()
    stack.execute(valkey.container, [tool, "-x", "RPUSH", "celery"], stdin=body.decode())
