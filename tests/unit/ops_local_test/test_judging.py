"""Phase 1's judgement: whatever a stored event lacks is found, field by field."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from unit.ops_local_test.support import RAISED, by_name, stored
from unit.ops_support import container

from glitchtip_ops.docker_stack import parse_container
from glitchtip_ops.local_test.expectations import EXPECTATIONS, Expectation
from glitchtip_ops.local_test.judging import (
    Field,
    Grouped,
    across_sdks,
    burst_problems,
    judge_burst,
    judge_containers,
    judge_event,
    judge_grouping,
    percentile,
    refusals,
)

every = pytest.mark.parametrize("expected", EXPECTATIONS, ids=lambda item: item.scenario)


def wrong(expected: Expectation, event: dict[str, Any], level: Any = None) -> list[str]:
    """Names of the fields that are not as expected."""
    fields = judge_event(expected, "node", event, level or expected.level, RAISED if expected.stack else None)
    return [field.name for field in fields if not field.ok]


@every
def test_a_whole_event_has_no_problem(expected: Expectation) -> None:
    """What was kept completely is not complained about, also beside the SDK's own breadcrumbs and extra."""
    assert wrong(expected, stored(expected)) == []


@every
def test_each_field_has_a_judgement_of_its_own(expected: Expectation) -> None:
    """Level, title, environment, release and both own tags are asked of every scenario, and the stack of errors."""
    names = [field.name for field in judge_event(expected, "node", stored(expected), expected.level, RAISED)]
    assert len(names) == len(set(names))
    assert {"title", "level", "environment", "release", "tag local_test", "tag local_test_sdk"} <= set(names)
    stack = {f"stack {part}" for part in ("file", "function", "line", "source line")}
    assert (stack <= set(names)) is expected.stack


@every
def test_every_single_tag_that_changed_is_noticed(expected: Expectation) -> None:
    """Another value and no value: exactly that field is named."""
    for position, tag in enumerate(stored(expected)["tags"]):
        field = tag["key"] if tag["key"] in ("environment", "release") else f"tag {tag['key']}"
        changed, dropped = stored(expected), stored(expected)
        changed["tags"][position]["value"] += "x"
        del dropped["tags"][position]
        assert wrong(expected, changed) == wrong(expected, dropped) == [field]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all innermost values."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    inner = [leaf for key, item in entries for leaf in leaves(item, (*path, key))]
    yield from inner or [path]


def put(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = change(value[path[-1]])


@pytest.mark.parametrize(
    "expected", [item for item in EXPECTATIONS if item.extra], ids=lambda item: item.scenario
)
def test_every_leaf_of_the_nested_extra_is_held_to_its_value(expected: Expectation) -> None:
    """However deep: another value, a text instead of a number, nothing; and what was flattened or grew."""
    paths = list(leaves(dict(expected.extra)))
    assert paths
    for path in paths:
        for change in (lambda old: f"{old}x", lambda old: [old], lambda _: None):
            event = stored(expected)
            put(event["context"], path, change)
            assert wrong(expected, event) == [f"extra {path[0]}"], path
        if len(path) > 1:
            event = stored(expected)
            put(event["context"], path[:-1], lambda _: "[Object]")
            assert wrong(expected, event) == [f"extra {path[0]}"]
    event = stored(expected)
    event["context"] = None
    assert wrong(expected, event) == [f"extra {key}" for key in expected.extra]


def test_numbers_keep_their_value_and_their_kind() -> None:
    """JSON has one kind of number, but a truth is none."""
    assert Field("x", 12, 12.0).ok
    assert not Field("x", 1, True).ok
    assert not Field("x", {"a": 1}, {"a": 1, "b": 2}).ok
    assert not Field("x", [1, 2], [2, 1]).ok
    assert not Field("x", {"a": 1}, [1]).ok


@pytest.mark.parametrize("key", ["id", "email", "username"])
def test_each_part_of_the_user_is_asked(key: str) -> None:
    """Changed or gone; a number for an id is the same id."""
    expected = by_name("sdk-user")
    changed, dropped = stored(expected), stored(expected)
    changed["user"][key] += "x"
    del dropped["user"][key]
    assert wrong(expected, changed) == wrong(expected, dropped) == [f"user {key}"]
    number = stored(expected)
    number["user"]["id"] = 4711
    assert wrong(expected, number) == []


@pytest.mark.parametrize("position", [0, 1, 2])
def test_each_part_of_each_breadcrumb_is_asked(position: int) -> None:
    """Category and level are named; without its message it is gone, and the order with it."""
    expected = by_name("sdk-breadcrumbs")
    text = expected.breadcrumbs[position].message
    for part in ("category", "level"):
        event = stored(expected)
        event["entries"][0]["data"]["values"][1 + position][part] = "other"
        assert wrong(expected, event) == [f"breadcrumb {text!r} {part}"]
    event = stored(expected)
    del event["entries"][0]["data"]["values"][1 + position]
    assert wrong(expected, event)[-1] == "order of the breadcrumbs"


def test_breadcrumbs_in_another_order_are_noticed() -> None:
    """The same three, the wrong way round; or one of them twice."""
    expected = by_name("sdk-breadcrumbs")
    event = stored(expected)
    event["entries"][0]["data"]["values"].reverse()
    assert wrong(expected, event) == ["order of the breadcrumbs"]
    event = stored(expected)
    values = event["entries"][0]["data"]["values"]
    values.append(copy.deepcopy(values[-1]))
    assert wrong(expected, event) == ["order of the breadcrumbs"]


def inner_frame(event: dict[str, Any]) -> dict[str, Any]:
    frame: dict[str, Any] = event["entries"][1]["data"]["values"][0]["stacktrace"]["frames"][-1]
    return frame


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"filename": "/tmp/other.cjs"}, ["stack file"]),
        ({"filename": None}, ["stack file", "stack frames with file and line"]),
        ({"function": "caller"}, ["stack function"]),
        ({"lineNo": 31}, ["stack line", "stack source line"]),
        ({"lineNo": None}, ["stack line", "stack source line", "stack frames with file and line"]),
        ({"context": []}, ["stack source line"]),
        ({"context": None}, ["stack source line"]),
        ({"context": [[30, "something else"]]}, ["stack source line"]),
    ],
)
def test_the_line_that_raised_is_asked_part_by_part(change: dict[str, Any], named: list[str]) -> None:
    """File, function, line and its source, each by itself."""
    expected = by_name("sdk-basic-error")
    event = stored(expected)
    inner_frame(event).update(change)
    assert wrong(expected, event) == named


def test_a_stack_that_lost_frames_or_is_gone() -> None:
    """A frame without a file, only the innermost left, no exception at all, a sender that said nothing."""
    expected = by_name("sdk-basic-error")
    event = stored(expected)
    event["entries"][1]["data"]["values"][0]["stacktrace"]["frames"][0]["filename"] = None
    assert wrong(expected, event) == ["stack frames with file and line"]
    event = stored(expected)
    del event["entries"][1]["data"]["values"][0]["stacktrace"]["frames"][0]
    assert wrong(expected, event) == ["stack frames with file and line"]
    event = stored(expected)
    event["entries"] = []
    assert len([name for name in wrong(expected, event) if name.startswith("stack")]) == 5
    assert [field.ok for field in judge_event(expected, "node", stored(expected), "error", None)].count(
        False
    ) == 4


@every
def test_a_wrong_level_or_title_is_named(expected: Expectation) -> None:
    """A warning that became an error is a loss."""
    other = "error" if expected.level == "warning" else "warning"
    assert wrong(expected, stored(expected), other) == ["level"]
    event = stored(expected)
    event["title"] = None
    assert wrong(expected, event) == ["title"]


def test_an_event_of_the_other_sdk_is_not_taken_for_this_one() -> None:
    """Its own tag says who sent it."""
    expected = by_name("sdk-basic-error")
    assert wrong(expected, stored(expected, "python")) == ["tag local_test_sdk"]


def groups(**changes: Any) -> Grouped:
    first = {item.scenario: str(number) for number, item in enumerate(EXPECTATIONS)}
    return Grouped(
        "node", {**first, **changes.get("first", {})}, changes.get("again", "0"), "sdk-basic-error"
    )


@pytest.mark.parametrize(
    ("changes", "bad"),
    [
        ({}, []),
        ({"again": "99"}, ["the same error twice"]),
        ({"again": None}, ["the same error twice"]),
        (
            {"first": {"sdk-basic-error": None}, "again": None},
            ["the same error twice", "scenarios with an issue"],
        ),
        ({"first": {"sdk-user": "0"}}, ["scenarios that share an issue"]),
        ({"first": {"sdk-user": None}}, ["scenarios with an issue"]),
    ],
)
def test_grouping(changes: dict[str, Any], bad: list[str]) -> None:
    """One error twice is one issue, different errors are different ones; a missing half proves nothing."""
    named = [field.name for field in judge_grouping(groups(**changes)) if not field.ok]
    assert len(named) == len(bad)
    assert all(part in name for part, name in zip(bad, named, strict=True))


def test_the_same_error_of_two_sdks_is_reported() -> None:
    """One issue or one each; of one SDK alone there is nothing to tell."""
    other = groups(first={"sdk-user": "50"})
    told = across_sdks([groups(), other])
    assert (told["sdk-user"], told["sdk-extra"]) == ("one each", "one issue")
    assert across_sdks([groups()]) == {}


def test_a_burst_is_sorted_into_stored_late_lost_and_refused() -> None:
    """By id; what is stored although its answer was lost is stored; the four add up."""
    at = dict.fromkeys("abcdef", 10.0)
    status = {"a": 200, "b": None, "c": 200, "d": 200, "e": 429}
    seen = {"a": 12.0, "b": 13.0, "c": 31.0}
    burst = judge_burst(at, status, {"a": 14.0, "c": 15.0}, seen, {"a": "1", "b": "1", "c": "2"}, 30.0)
    assert (burst.sent, burst.accepted) == (6, 3)
    assert (burst.stored, burst.late, burst.lost, burst.refused) == (2, 1, 1, 2)
    assert (burst.latency_p50, burst.latency_p95, burst.drained_seconds) == (3.0, 21.0, 21.0)
    assert (burst.issues, burst.sending_seconds) == (2, 5.0)
    assert burst.answers == "1 got no answer, 1 got 429, 1 did not leave the SDK"
    assert burst.as_dict()["accepted_per_second"] == 0.6
    problems = burst_problems(burst, 20, {"node": burst})
    assert [problem.partition(": ")[2].split()[0] for problem in problems] == ["1", "1", "2", "equal"]
    assert "UWSGI_ADD_HEADER" in problems[2]
    whole = judge_burst({"a": 1.0}, {"a": 200}, {"a": 2.0}, {"a": 3.0}, {"a": "1"}, 30.0)
    assert burst_problems(whole, 20, {"node": whole}) == []


def test_a_burst_of_which_nothing_is_known() -> None:
    """No division by nothing."""
    burst = judge_burst({}, {}, {}, {}, {}, 0.0)
    assert (burst.sent, burst.latency_p50, burst.as_dict()["accepted_per_second"]) == (0, None, None)


def test_percentiles_by_nearest_rank() -> None:
    """Of a hundred the 95th; of one that one; of none nothing."""
    assert percentile(list(range(1, 101)), 95) == 95
    assert (percentile([7.123], 50), percentile([], 50)) == (7.12, None)
    assert refusals([200, None, None, 429, 204]) == "2 got no answer, 1 got 429"


def test_containers_that_restarted_left_or_fell_ill() -> None:
    """A restart shows by count, by start time and by another id."""
    web = parse_container(container("web"))
    assert judge_containers([web], [web]) == []
    restarted = "container glitchtip-web-1 was restarted during the test"
    for change in ({"restarts": 1}, {"started_at": "2026-01-11T00:00:00Z"}, {"id": "f" * 64}):
        assert judge_containers([web], [replace(web, **change)]) == [restarted]
    assert judge_containers([web], [replace(web, health="unhealthy")]) == [
        "container glitchtip-web-1 is not well (running, unhealthy)"
    ]
    other = replace(web, name="glitchtip-worker-1")
    assert judge_containers([web, other], [web]) == ["container glitchtip-worker-1 is gone"]
    assert judge_containers([], []) == ["the stack has no containers"]
