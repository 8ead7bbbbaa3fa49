"""The stand-in's queue of the 5.2 line has kombu's layout: what tools read there, and what a new worker restores."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from glitchtip_ops.queue.messages import parse_celery, parse_vtask

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "standin"))
from standin.queue import ValkeyQueue
from standin.wire import unwrap_vtask, wrap_kombu, wrap_vtask

SERVER = shutil.which("valkey-server") or shutil.which("redis-server")
EVENT = "0123456789abcdef" * 2
INGEST = {
    "task": "ingest",
    "project": 1,
    "id": EVENT,
    "received": "2026-01-10T06:00:00+00:00",
    "event": {"a": []},
}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    if SERVER is None:
        pytest.skip("neither valkey-server nor redis-server is installed")
    socket = tmp_path / "v.sock"
    argv = [SERVER, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as server:
        while not socket.exists():
            time.sleep(0.02)
        yield redis.Redis(unix_socket_path=str(socket), decode_responses=True)
        server.kill()


def queue(client: Any) -> ValkeyQueue:
    return ValkeyQueue(client)


def test_the_tools_find_event_and_time_in_a_message() -> None:
    found = parse_celery(wrap_kombu(INGEST).encode())
    assert found is not None
    assert (found.event_id, found.task) == (EVENT, "apps.event_ingest.tasks.ingest_event")
    assert found.received == 1768024800.0
    other = parse_celery(wrap_kombu({"task": "dispatch_checks", "eta": 5.0}).encode())
    assert other is not None
    assert (other.event_id, other.delayed) == ("", True)


def test_the_tools_find_event_queue_and_error_in_a_task_of_the_new_line() -> None:
    text = wrap_vtask(INGEST, "ingest", error_msg="connection failed")
    found = parse_vtask(json.loads(text))
    assert found is not None
    assert (found.event_id, found.queue, found.failed, found.rescued) == (EVENT, "ingest", True, False)
    assert unwrap_vtask(text) == INGEST


def test_what_a_dead_worker_held_comes_back_only_when_it_is_older_than_an_hour(client: Any) -> None:
    queue(client).put(INGEST)
    ((_, taken),) = queue(client).take(5)
    assert taken == INGEST
    assert (client.llen("celery"), client.hlen("unacked"), client.zcard("unacked_index")) == (0, 1, 1)
    (held,) = client.hvals("unacked")
    assert parse_celery(held.encode()).event_id == EVENT  # type: ignore[union-attr]
    assert queue(client).restore() == 0
    (tag,) = client.hkeys("unacked")
    client.zadd("unacked_index", {tag: 0})
    assert queue(client).restore() == 1
    assert (client.llen("celery"), client.hlen("unacked"), client.zcard("unacked_index")) == (1, 0, 0)
    assert client.exists("_kombu.binding.celery")
    ((again, message),) = queue(client).take(5)
    assert message == INGEST
    assert parse_celery(client.hget("unacked", again).encode()).redelivered  # type: ignore[union-attr]
    queue(client).done([again])
    assert client.hlen("unacked") == 0


def test_what_is_given_back_is_taken_next(client: Any) -> None:
    first, second = {**INGEST, "id": "1" * 32}, {**INGEST, "id": "2" * 32}
    for message in (first, second):
        queue(client).put(message)
    taken = queue(client).take(1)
    queue(client).give_back(taken)
    assert parse_celery(client.lindex("celery", -1).encode()).redelivered  # type: ignore[union-attr]
    assert [message for _, message in queue(client).take(2)] == [first, second]
