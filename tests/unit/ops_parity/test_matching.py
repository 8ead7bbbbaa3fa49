"""Every event is found on the other side or named as missing; the grouping is compared; memory is bounded."""

from __future__ import annotations

import tracemalloc
import uuid
from typing import Any

import pytest
from unit.ops_parity.support import START, WINDOW, compared, event

from glitchtip_ops.parity.matching import index_of, normal_title, spread
from glitchtip_ops.parity.window import PADDING, Window, iso


def test_equal_sides_are_equal_in_every_part() -> None:
    """The positive control: the same events on both sides."""
    events = [event(number, issue=str(number % 3), second=number) for number in range(9)]
    report = compared(events, events)
    assert report["verdict"] == "equal"
    assert report["judgement"] == {"events": "equal", "grouping": "equal", "content": "equal"}
    assert (report["ratio"], report["both"], report["missing_in_glitchtip"]) == (1.0, 9, 0)
    assert report["grouping"]["one_to_one"] == 3
    assert (report["sentry"]["events"], report["sentry"]["issues"]) == (9, 3)


@pytest.mark.parametrize(("lost_by", "side"), [("glitchtip", 1), ("sentry", 0)])
def test_an_event_that_one_side_lost_is_named(lost_by: str, side: int) -> None:
    """One of many missing makes the verdict different, with its id."""
    events = [event(number, second=number) for number in range(50)]
    sides = [list(events), list(events)]
    gone = sides[side].pop(20)
    report = compared(*sides)
    assert report["verdict"] == "different"
    assert report["judgement"]["events"] == "different"
    assert report[f"missing_in_{lost_by}"] == 1
    assert report[f"missing_in_{lost_by}_ids"] == [gone["id"]]


@pytest.mark.slow
def test_a_ratio_is_never_rounded_up_to_all() -> None:
    """One lost of 10,001 is not 100 %."""
    events = [event(number) for number in range(10001)]
    report = compared(events, events[1:], top=1, samples=1)
    assert report["ratio"] == 0.9999
    assert report["verdict"] == "different"


def test_many_missing_ids_are_counted_whole_and_named_up_to_twenty() -> None:
    """The count is whole, the list is short."""
    events = [event(number, second=number) for number in range(60)]
    report = compared(events, events[:10])
    assert report["missing_in_glitchtip"] == 50
    assert len(report["missing_in_glitchtip_ids"]) == 20


def test_an_event_stored_twice_is_counted_as_duplicated() -> None:
    """The same id in two issues, or at two times: the tracker stored it twice."""
    events = [event(number, second=number) for number in range(3)]
    twice = event(1, issue="2", second=1)
    report = compared(events, [*events, twice])
    assert report["glitchtip"]["duplicated"] == 1
    assert report["verdict"] == "different"


def test_an_event_that_only_moved_to_another_page_is_not_duplicated() -> None:
    """Lists move while they are read: the very same entry twice is one event."""
    events = [event(number, second=number) for number in range(3)]
    report = compared(events, [*events, events[1]])
    assert (report["verdict"], report["glitchtip"]["events"]) == ("equal", 3)


def test_an_issue_that_glitchtip_splits_is_found() -> None:
    """1:n."""
    events = [event(number, issue="1", second=number) for number in range(4)]
    other = [event(number, issue=str(number % 2), second=number) for number in range(4)]
    report = compared(events, other)
    assert report["judgement"] == {"events": "equal", "grouping": "different", "content": "equal"}
    assert (report["grouping"]["split"], report["grouping"]["merged"]) == (1, 0)
    assert report["issues"][0]["grouping"] == "1:n"


def test_issues_that_glitchtip_merges_are_found() -> None:
    """n:1."""
    mine = [event(number, issue=str(number % 2), second=number) for number in range(4)]
    other = [event(number, issue="9", second=number) for number in range(4)]
    report = compared(mine, other)
    assert report["verdict"] == "different"
    assert (report["grouping"]["split"], report["grouping"]["merged"]) == (0, 1)
    assert {row["grouping"] for row in report["issues"]} == {"n:1"}
    assert report["grouping"]["merged_issues"][0]["glitchtip"] == ["9"]


@pytest.mark.parametrize("tag", ["probe", "cutover_probe", "local_test"])
def test_test_events_are_left_out_and_counted(tag: str) -> None:
    """A probe that only one tracker got makes no difference."""
    real = [event(1)]
    probe = event(2, tags=[{"key": tag, "value": "soak"}])
    report = compared(real, [*real, probe])
    assert report["verdict"] == "equal"
    assert report["glitchtip"]["probes_left_out"] == 1
    other = event(2, tags=[{"key": "component", "value": "soak"}])
    assert compared(real, [*real, other])["verdict"] == "different"


def test_transactions_are_no_events_of_issues() -> None:
    """Sentry's list may name them; GlitchTip keeps them elsewhere."""
    trace = event(5, **{"event.type": "transaction"})
    assert compared([event(1), trace], [event(1)])["verdict"] == "equal"


def test_an_event_at_the_edge_is_found_beyond_it() -> None:
    """A second's difference between the clocks of the trackers makes no event missing."""
    mine, other = event(1, second=3599), event(1, second=3600)
    again = event(2, second=100)
    report = compared([mine, again], [other, again])
    assert (report["verdict"], report["both"]) == ("equal", 2)
    only_padding = event(3, second=-PADDING + 1)
    assert compared([again], [again, only_padding])["verdict"] == "equal"


def test_nothing_on_both_sides_is_empty_and_not_equal() -> None:
    """No event proves nothing."""
    report = compared([], [])
    assert (report["verdict"], report["ratio"]) == ("empty", None)


@pytest.mark.parametrize(("mine", "other"), [([event(1)], []), ([], [event(1)])])
def test_events_on_one_side_only_are_different(mine: Any, other: Any) -> None:
    """One side empty, the other not: never empty, never equal."""
    report = compared(mine, other)
    assert (report["verdict"], report["matched_by"]) == ("different", "event_ids")


def test_other_ids_are_matched_by_title() -> None:
    """Where the ids differ, titles without their numbers match, and events of one issue may differ."""
    mine = [event(number, title=f"Order {number} failed", second=number) for number in range(4)]
    other = [event(100 + number, title=f"Order {900 + number} failed", second=number) for number in range(4)]
    report = compared(mine, other)
    assert (report["verdict"], report["matched_by"]) == ("equal", "titles")
    assert report["notes"]
    other.pop()
    less = compared(mine, other)
    assert (less["verdict"], less["missing_in_glitchtip"], less["ratio"]) == ("different", 1, 0.75)


def test_by_title_what_belongs_to_one_event_proves_nothing_but_its_type_does() -> None:
    """Two different events of an issue have different users; never another exception type."""
    other = event(100, user={"id": "8"})
    report = compared([event(1)], [other])
    found = {item["field"]: item["result"] for item in report["issues"][0]["fields"]}
    assert (found["user"], found["exception_type"]) == ("not_comparable", "equal")
    other["entries"][0]["data"]["values"][0]["type"] = "RangeError"
    assert compared([event(1)], [other])["judgement"]["content"] == "different"


def test_the_cap_shortens_the_window_of_both_sides_and_says_so() -> None:
    """What was not read is not missing."""
    events = [event(number, second=number) for number in range(300)]
    report = compared(events, events[100:], max_events=100)
    assert report["window"]["cut"] is True
    assert report["window"]["since"] == iso(START + 201)
    assert report["missing_in_glitchtip"] == 0
    assert any("--max-events" in note for note in report["notes"])
    assert compared(events, events, max_events=1000)["window"]["cut"] is False


def test_unreadable_entries_are_counted_and_told() -> None:
    """An entry without an issue is neither equal nor lost without a word."""
    odd = event(2, groupID=None)
    report = compared([event(1), odd], [event(1)])
    assert report["sentry"]["unreadable"] == 1
    assert any("no readable id" in note for note in report["notes"])


@pytest.mark.slow
def test_thirty_thousand_events_take_little_memory() -> None:
    """Pages are forgotten: 16 bytes and a place remain of an event."""

    def stream() -> Any:
        for number in range(30_000):
            found = {"id": uuid.UUID(int=number).hex, "groupID": str(number % 500), "title": "x" * 50}
            yield {**found, "dateCreated": iso(START + 3599 - number // 10), "entries": ["e" * 5000]}

    tracemalloc.start()
    try:
        index = index_of(stream(), WINDOW, 30_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(index.events) == 30_000
    assert peak < 14 * 2**20, f"{peak / 2**20:.1f} MiB"


def test_titles_lose_their_numbers_and_ids() -> None:
    """What varies from event to event is no part of the name."""
    one = normal_title("Order 17 of 4fd2a1b0-0000-4000-8000-0123456789ab at 0xdeadbeef")
    assert one == normal_title("order 9 of 00000000-1111-4222-8333-abcdefabcdef at 0x1")
    assert normal_title("a" * 99 + "…") == normal_title("a" * 300)
    assert normal_title("Database lost") != normal_title("Database found")


def test_samples_are_spread_from_the_newest_to_the_oldest() -> None:
    """First and last are always among them."""
    items = [(str(number), str(number)) for number in range(100)]
    assert [a for a, _ in spread(items, 3)] == ["0", "50", "99"]
    assert [a for a, _ in spread(items, 1)] == ["0"]
    assert list(spread(items[:2], 3)) == items[:2]


def test_only_the_top_issues_are_read_whole() -> None:
    """And what is not shown is counted."""
    events = [event(number, issue=str(number), second=number) for number in range(30)]
    report = compared(events, events, top=5)
    assert len(report["issues"]) == 5
    assert report["issues_not_shown"] == 25


def test_the_window_holds_whole_seconds() -> None:
    """From its beginning to before its end."""
    window = Window(10, 20)
    assert [window.holds(second) for second in (9, 10, 19, 20)] == [False, True, True, False]
