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
from .valkey import HEX, Valkey

#: How far the order of arrival and the order in the list may differ (seconds).
_JITTER = 3.0
#: How long before the oldest unacknowledged event a batch arrived that was being stored (seconds).
BEFORE = 60.0
#: Two batches of 100, and a few on their way. More have another cause (the database was away): those are left alone.
MOST = 250
_CHUNK = 100
_SHA1 = 40
#: Bounds of what is compared; beyond them nothing is put back, because something might be put back twice.
_MOST_WAITING, _MOST_CANDIDATES = 100_000, 20_000
#: A message that a worker gave back was written anew (``redelivered``), so that its SHA-1 is not that of the file.
_WAITING = (
    HEX
    + """
local out = {''}
for _, body in ipairs(redis.call('LRANGE', 'celery', ARGV[1], ARGV[2])) do
  out[#out + 1] = string.find(body, '"redelivered": *true') and hex(body) or redis.sha1hex(body)
end
return cjson.encode(out)
"""
)
#: Seconds for reading the whole file once. The worker is stopped meanwhile, so that events pile up.
_READ_TIMEOUT = 60.0
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
            assert process.stdout is not None  # noqa: S101 - for the type checker: stdout is a pipe

            def end() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(_READ_TIMEOUT, end)
            timer.daemon = True
            timer.start()
            try:
                yield from process.stdout
            except GeneratorExit:  # the reader has seen enough
                process.kill()
                raise
            finally:
                timer.cancel()
        if process.returncode and not late.is_set():
            raise OpsError(f"there is no append-only file of Valkey in {directory}, or it cannot be read")
        if late.is_set():
            raise OpsError(
                f"Valkey's append-only file in {directory} could not be read within {_READ_TIMEOUT:.0f} s:"
                " see whether the disk is overloaded, then run it again"
            )
    except OSError as error:
        raise OpsError(f"{stack.docker} cannot be run: {error.strerror}") from None


def _waiting(valkey: Valkey) -> tuple[set[str], set[str]]:
    """What waits in ``celery``: the SHA-1 of each message, the event ids of those that a worker gave back.

    Raises OpsError when more wait than can be compared.
    """
    digests: set[str] = set()
    ids: set[str] = set()
    for first in range(0, _MOST_WAITING, _CHUNK):
        chunk = valkey.evaluate(_WAITING, str(-first - _CHUNK), str(-first - 1))[1:]
        for each in chunk:
            if len(each) == _SHA1:
                digests.add(each)
            elif (message := parse_celery(bytes.fromhex(each))) is not None:
                ids.add(message.event_id)
        if len(chunk) < _CHUNK:
            return digests, ids
    raise OpsError(f"more than {_MOST_WAITING} messages wait")


def _setting(valkey: Valkey, name: str) -> str:
    return valkey.call("CONFIG", "GET", name).strip().partition("\n")[2].strip()


def _windows(moments: Iterable[float]) -> list[tuple[float, float]]:
    """When what is looked for arrived, as few spans of time as possible (epoch seconds).

    Two workers that were killed hours apart must not make it look at everything in between.
    """
    spans: list[tuple[float, float]] = []
    for moment in sorted(moments):
        if spans and moment - BEFORE <= spans[-1][1]:
            spans[-1] = spans[-1][0], moment + _JITTER
        else:
            spans.append((moment - BEFORE, moment + _JITTER))
    return spans


def find_lost(
    stack: Stack,
    valkey: Valkey,
    held: Iterable[Message],
    stored: Callable[[set[str]], set[str]],
    *,
    read: Callable[[Stack, Container, str], Iterator[bytes]] = _read_file,
) -> dict[str, bytes]:
    """``{event id: message}`` of what the killed worker took with it; empty where Valkey keeps no file.

    ``held`` is what lies in ``unacked``; ``stored`` answers which of some ids are in the database. The worker must be
    stopped: what is pushed while this reads waits in the list. The file is read twice, so that never more than MOST
    messages are in memory. Raises OpsError when Valkey does not answer, or it cannot be told which they are.
    """
    known = list(held)
    moments = [each.received for each in known if each.event_id and each.received is not None]
    if not moments or _setting(valkey, "appendonly") != "yes":
        return {}
    directory = (
        f"{_setting(valkey, 'dir').rstrip('/')}/{_setting(valkey, 'appenddirname') or 'appendonlydir'}"
    )
    windows = _windows(moments)
    ids = {each.event_id for each in known}

    def arrived() -> Iterator[tuple[str, bytes]]:
        for body in pushed_messages(read(stack, valkey.container, directory)):
            message = parse_celery(body)
            if message is None or not message.event_id or message.received is None:
                continue
            if message.event_id not in ids and any(a <= message.received <= b for a, b in windows):
                yield message.event_id, body

    candidates: dict[str, str] = {}
    for number, body in arrived():
        candidates[number] = hashlib.sha1(body).hexdigest()  # noqa: S324 - compared with sha1hex of Valkey; no secret
        if len(candidates) > _MOST_CANDIDATES:
            raise OpsError(f"more than {_MOST_CANDIDATES} events arrived in the minute before it")
    digests, returned = _waiting(valkey)
    wanted = {each for each, digest in candidates.items() if digest not in digests and each not in returned}
    gone = wanted - stored(wanted) if wanted else set()
    if not gone or len(gone) > MOST:
        return {}
    bodies = {number: body for number, body in arrived() if number in gone}
    return dict(sorted(bodies.items()))


def put_back(stack: Stack, valkey: Valkey, body: bytes) -> None:
    """Have the worker take ``body`` next. Raises OpsError when Valkey does not answer, or refuses it."""
    tool = valkey.tool()
    answer = stack.execute(valkey.container, [tool, "--raw", "-x", "RPUSH", "celery"], stdin=body.decode())
    if not answer.strip().isdigit():
        raise OpsError(f"{valkey.container.name} refused a message: {answer.strip()[:200] or 'no answer'}")
