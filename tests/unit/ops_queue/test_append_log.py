"""What is in no list any more is found in Valkey's append-only file, and nothing that is still somewhere else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from unit.ops_queue import PlayedStack, event_id, kombu
from unit.ops_support import container

from glitchtip_ops.docker_stack import Stack, parse_container
from glitchtip_ops.process import OpsError
from glitchtip_ops.queue import append_log
from glitchtip_ops.queue.commands import recover
from glitchtip_ops.queue.valkey import open_valkey

pytestmark = pytest.mark.slow


@pytest.fixture
def with_file(stack: PlayedStack, monkeypatch: pytest.MonkeyPatch) -> PlayedStack:
    def read(_stack: Any, _container: Any, directory: str) -> Iterator[bytes]:
        for path in sorted(Path(directory).glob("*.incr.aof")):
            yield from path.read_bytes().splitlines(keepends=True)

    defaults = dict(append_log.find_lost.__kwdefaults__, read=read)
    monkeypatch.setattr(append_log.find_lost, "__kwdefaults__", defaults)
    return stack


def hand_out(stack: PlayedStack, numbers: range, recorded: int) -> None:
    """Events arrive a tenth of a second apart, the worker takes them all and records the first ones."""
    for number in numbers:
        stack.valkey("LPUSH", "celery", kombu(number, received=1000.0 + number / 10))
    for place, _ in enumerate(numbers):
        body = stack.valkey("RPOP", "celery")
        if place < recorded:
            stack.valkey("HSET", "unacked", f"tag-{place}", json.dumps([json.loads(body), "", "celery"]))
            stack.valkey("ZADD", "unacked_index", "1000", f"tag-{place}")


def test_a_message_on_its_way_to_the_killed_worker_is_found(with_file: PlayedStack, settings: Any) -> None:
    hand_out(with_file, range(30), recorded=29)
    for number in range(30, 40):
        with_file.valkey("LPUSH", "celery", kombu(number, received=1000.0 + number / 10))
    with_file.entries["worker"]["State"]["StartedAt"] = datetime.now(UTC).isoformat()
    outcome = recover(settings, with_file)
    assert outcome.document["lost_by_worker"] == 1
    assert set(with_file.rows) == {event_id(number) for number in range(40)}
    assert set(with_file.counts.values()) == {1}


def test_a_batch_that_was_being_stored_is_found_and_its_counts_are_put_right(
    with_file: PlayedStack, settings: Any
) -> None:
    hand_out(with_file, range(100), recorded=0)  # acknowledged when it began
    hand_out(with_file, range(100, 140), recorded=40)
    for number in range(30):
        with_file.rows[event_id(number)] = with_file.counts[event_id(number)] = 1
    with_file.excess = {3: 70}
    outcome = recover(settings, with_file)
    assert (outcome.document["lost_by_worker"], outcome.document["recounted"]) == (70, 70)
    assert set(with_file.rows) == {event_id(number) for number in range(140)}
    assert set(with_file.counts.values()) == {1}


def test_more_than_a_worker_can_hold_are_left_alone(with_file: PlayedStack, settings: Any) -> None:
    hand_out(with_file, range(append_log.MOST + 1), recorded=0)
    hand_out(with_file, range(300, 320), recorded=20)
    outcome = recover(settings, with_file)
    assert outcome.document["lost_by_worker"] == 0
    assert len(with_file.rows) == 20


def test_older_events_that_were_deleted_do_not_come_back(with_file: PlayedStack, settings: Any) -> None:
    hand_out(with_file, range(2), recorded=0)
    hand_out(with_file, range(700, 720), recorded=20)
    outcome = recover(settings, with_file)
    assert outcome.document["lost_by_worker"] == 0
    assert len(with_file.rows) == 20


@pytest.mark.parametrize("end", ["LPUSH", "RPUSH"])
def test_what_the_stopping_worker_gave_back_is_not_put_back_a_second_time(
    with_file: PlayedStack, settings: Any, end: str
) -> None:
    hand_out(with_file, range(30), recorded=10)
    for number in range(10, 30):  # written anew, as kombu does
        with_file.valkey(end, "celery", kombu(number, received=1000.0 + number / 10, redelivered=True))
    outcome = recover(settings, with_file)
    assert outcome.document["lost_by_worker"] == 0
    assert set(with_file.rows) == {event_id(number) for number in range(30)}
    assert set(with_file.counts.values()) == {1}, "an event was counted twice"


def test_everything_that_waits_is_compared_however_long_the_queue_is(
    with_file: PlayedStack, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(append_log, "_CHUNK", 5)
    hand_out(with_file, range(10), recorded=10)
    for number in range(10, 60):
        with_file.valkey("LPUSH", "celery", kombu(number, received=1001.0))
    with_file.valkey("LPUSH", "celery", *[kombu(60, received=1001.0)] * 12)  # one body several times
    outcome = recover(settings, with_file)
    assert outcome.document["lost_by_worker"] == 0
    assert {with_file.counts[event_id(number)] for number in range(60)} == {1}


@pytest.mark.parametrize("bound", ["_MOST_WAITING", "_MOST_CANDIDATES"])
def test_beyond_a_bound_nothing_is_put_back_and_the_rest_is_recovered(
    with_file: PlayedStack, settings: Any, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(append_log, "_CHUNK", 5)
    monkeypatch.setattr(append_log, bound, 5)
    hand_out(with_file, range(30), recorded=20)
    for number in range(30, 45):
        with_file.valkey("LPUSH", "celery", kombu(number, received=1000.0 + number / 10))
    outcome = recover(settings, with_file)
    assert (outcome.code, outcome.document["lost_by_worker"]) == (0, 0)
    assert "could not be looked for: more than 5" in outcome.document["note"]
    assert {event_id(number) for number in range(20)} <= set(with_file.rows)
    assert set(with_file.counts.values()) == {1}


def test_two_kills_far_apart_are_two_spans_of_time() -> None:
    spans = append_log._windows([10_000.0, 1000.0, 1030.0, 10_001.0])
    assert [(round(first), round(last)) for first, last in spans] == [(940, 1033), (9940, 10_004)]


def test_a_file_that_is_not_there_is_no_empty_file(tmp_path: Path) -> None:
    fake = tmp_path / "docker"
    fake.write_text("#!/bin/sh\necho some line\nexit 1\n", encoding="ascii")
    fake.chmod(0o755)
    with pytest.raises(OpsError, match="cannot be read"):
        list(append_log._read_file(Stack("p", str(fake)), parse_container(container("valkey")), "/data"))


def test_a_reader_that_has_seen_enough_ends_the_program(tmp_path: Path) -> None:
    fake = tmp_path / "docker"
    fake.write_text("#!/bin/sh\necho some line\nexec sleep 60\n", encoding="ascii")
    fake.chmod(0o755)
    lines = append_log._read_file(Stack("p", str(fake)), parse_container(container("valkey")), "/data")
    assert next(lines) == b"some line\n"
    began = time.monotonic()
    lines.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 30


def test_a_message_that_valkey_refuses_is_reported(stack: PlayedStack) -> None:
    stack.valkey("SET", "celery", "no list")
    with pytest.raises(OpsError, match=r"refused a message: .*WRONGTYPE"):
        append_log.put_back(stack, open_valkey(stack), b"{}")


def test_only_pushes_to_the_queue_are_read_from_the_file() -> None:
    def command(*words: bytes) -> list[bytes]:
        lines = [b"*%d\r\n" % len(words)]
        for word in words:
            lines += [b"$%d\r\n" % len(word), word + b"\r\n"]
        return lines

    lines = [
        *command(b"SET", b"lpush", b"celery"),
        *command(b"LPUSH", b"other", b"{}"),
        *command(b"LPUSH", b"celery", b'{"a": 1}'),
        *command(b"RPOP", b"celery"),
        *command(b"lpush", b"celery", b'{"b": 2}'),
        *command(b"HSET", b"celery", b"x", b"y"),
        *command(b"LPUSH", b"celery", b"{}")[:-1],
    ]
    assert list(append_log.pushed_messages(lines)) == [b'{"a": 1}', b'{"b": 2}']
