"""The stand-in's 6.2 worker as a process of its own: killed and stopped with events in hand, and Valkey failing under its scheduler."""

from __future__ import annotations

import datetime as dt
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from contract.server import ALL_SCOPES, ORGANIZATIONS, Project, Server, wait_until
from local import HERE, Local, Unavailable, running
from standin.wire import wrap_vtask

EVENTS = 30
FAILED, INGEST = "{vt}:q:failed", "{vt}:q:ingest"
MARK = "{vt}:scheduler:vtasks_last_run:uptime-dispatch-checks"


@pytest.fixture(scope="module")
def standin() -> Iterator[Local]:
    try:
        with running("6.2", worker=False) as found:
            yield found
    except Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def project(standin: Local) -> Project:
    server = Server(standin.url, standin.email, standin.password, "6.2")
    server.token = server.make_token(server.session(), ALL_SCOPES)["token"]
    server.post(ORGANIZATIONS, {"name": "Acme"})
    server.post(f"{ORGANIZATIONS}acme/teams/", {"slug": "crew"})
    made = server.post("/api/0/teams/acme/crew/projects/", {"name": "Shop"})
    key = server.get(f"/api/0/projects/acme/{made['slug']}/keys/")[0]["public"].replace("-", "")
    return Project(server, "acme", made["slug"], made["id"], "Shop", key)


@pytest.fixture
def valkey(standin: Local) -> redis.Redis:
    return redis.Redis.from_url(standin.environment["VALKEY_URL"], decode_responses=True)


@contextmanager
def worker(standin: Local) -> Iterator[subprocess.Popen[bytes]]:
    with standin.log.open("ab") as log:
        argv = [sys.executable, "-m", "standin", "worker"]
        process = subprocess.Popen(argv, cwd=HERE, env=standin.environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def sent_and_taken(project: Project, valkey: redis.Redis) -> list[str]:
    """Events that a running worker has popped and not stored yet."""
    ids = [project.send(f"in hand {number}") for number in range(EVENTS)]
    assert wait_until(lambda: valkey.llen(INGEST) == 0, 5)
    return ids


def stored(project: Project, ids: list[str]) -> int:
    return sum(1 for event_id in ids if project.find(event_id))


def test_a_kill_loses_the_batch_in_hand_and_a_stop_stores_it(
    standin: Local, project: Project, valkey: redis.Redis
) -> None:
    with worker(standin) as process:
        assert wait_until(lambda: valkey.keys("{vt}:alive:*"), 20)
        killed = sent_and_taken(project, valkey)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with worker(standin) as process:
        stopped = sent_and_taken(project, valkey)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    with worker(standin):
        later = project.send("after both")
        assert wait_until(lambda: project.find(later), 30)
    assert stored(project, stopped) == EVENTS
    # The oldest may have been stored with an earlier batch; what was in hand is in no list.
    assert stored(project, killed) < EVENTS
    assert valkey.llen(FAILED) == 0


def test_one_error_of_valkey_ends_the_scheduler_while_events_go_on(
    standin: Local, project: Project, valkey: redis.Redis
) -> None:
    with worker(standin):
        before = valkey.get(MARK)
        assert wait_until(lambda: valkey.get(MARK) not in {None, before}, 30)
        valkey.config_set("maxmemory", "1")
        time.sleep(3)
        valkey.config_set("maxmemory", "0")
        time.sleep(2)
        last = valkey.get(MARK)
        event_id = project.send("the worker lives")
        assert wait_until(lambda: project.find(event_id), 30)
        time.sleep(3)
        assert valkey.get(MARK) == last


def test_a_batch_that_the_database_refuses_is_a_dead_letter_and_comes_back_when_moved(
    standin: Local, project: Project, valkey: redis.Redis
) -> None:
    valkey.lpush(
        INGEST,
        wrap_vtask({"task": "ingest", "project": project.id, "id": "x", "event": {}, "received": "?"}, "ingest"),
    )
    with worker(standin):
        assert wait_until(lambda: valkey.llen(FAILED) == 1, 20)
        entry = json.loads(valkey.lpop(FAILED) or "{}")
        assert entry["error_msg"].startswith("ValueError")
        good = project.event("moved back")
        message = {"task": "ingest", "project": int(project.id), "id": good["event_id"], "event": good}
        received = dt.datetime.now(dt.UTC).isoformat()
        valkey.lpush(FAILED, wrap_vtask({**message, "received": received}, "ingest", error_msg="OSError: down"))
        valkey.lmove(FAILED, INGEST, "RIGHT", "LEFT")
        assert wait_until(lambda: project.find(good["event_id"]), 30)
    assert valkey.llen(FAILED) == 0
