"""Finding events by paging: everything is found, out of order and among others' events too."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from unit.ops_local_test.support import Clock, Tracker, refused

from glitchtip_ops.local_test.reading import Reader


@pytest.fixture
def tracker() -> Tracker:
    return Tracker(Clock(), delay=0)


def reader(tracker: Tracker) -> Reader:
    return Reader(tracker, "o", "p", clock=tracker.clock, sleep=tracker.clock.sleep)  # type: ignore[arg-type]


def sent(tracker: Tracker, number: int, **delays: float) -> list[str]:
    ids = [uuid.uuid4().hex for _ in range(number)]
    for position, event_id in enumerate(ids):
        tracker.delays[event_id] = delays.get(f"at{position}", delays.get("rest", 0.0))
        tracker.take(event_id, "burst", "node")
    return ids


def test_a_batch_that_is_stored_before_an_older_one(tracker: Tracker) -> None:
    """The older hundreds appear deep in the list, below pages that are known already, and are on time."""
    old = sent(tracker, 300, rest=4.0)
    new = sent(tracker, 300)
    found, on_time = reader(tracker).await_all(old + new, lambda: False, 20, 10)
    assert found.seen.keys() == set(old + new)
    assert max(found.seen.values()) < on_time
    assert tracker.requests.count("one") <= 5


def test_other_peoples_events_in_between_do_not_hide_ours(tracker: Tracker) -> None:
    """A busy project: 250 foreign events came after ours."""
    ours = sent(tracker, 30)
    sent(tracker, 250)
    found, on_time = reader(tracker).await_all(ours, lambda: False, 20, 10)
    assert found.seen.keys() == set(ours)
    assert max(found.seen.values()) < on_time


@pytest.mark.slow
def test_what_was_there_before_is_not_paged(tracker: Tracker) -> None:
    """Down to the newest event of before the test and no further, however often it is asked."""
    sent(tracker, 5000)
    ours = reader(tracker)
    ours.mark()
    tracker.requests.clear()
    missing = [uuid.uuid4().hex for _ in range(50)]
    found, _ = ours.await_all(missing, lambda: False, 4, 0)
    assert found.seen == {}
    assert tracker.requests.count("page") < 20


def test_patience_begins_when_the_sending_ended(tracker: Tracker) -> None:
    """A slow SDK takes nothing of the time that the tracker has."""
    ids = sent(tracker, 10, rest=30.0)
    going = iter([True] * 50 + [False] * 100)
    found, on_time = reader(tracker).await_all(ids, lambda: next(going), 20, 0)
    assert len(found.seen) == 10
    assert on_time > max(found.seen.values())


def test_the_last_look_asks_for_every_id(tracker: Tracker) -> None:
    """An event that no page shows is still found by its id."""
    ids = sent(tracker, 40)
    tracker.events.iterate = lambda *_: iter([])
    found, _ = reader(tracker).await_all(ids, lambda: False, 2, 0)
    assert found.seen.keys() == set(ids)


def test_the_level_is_the_events_own_where_the_server_tells_it(tracker: Tracker) -> None:
    """Else the issue's: missing raw events are 500 on the 5.2 line."""
    (event_id,) = sent(tracker, 1)
    assert reader(tracker).level(event_id, "1") == "error"

    def broken(*_: Any) -> Any:
        raise refused(500)

    tracker.get = broken  # type: ignore[method-assign]
    assert reader(tracker).level(event_id, "1") == "info"
