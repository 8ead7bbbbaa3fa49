"""Each field of an event: equal, different, or not comparable with the reason; nothing secret is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from unit.ops_parity.support import compared, event, field

from glitchtip_ops.parity.content import FIELDS, NOT_COMPARED, compare_values, shown
from glitchtip_ops.parity.reporting import cell, lines, markdown

Change = Callable[[dict[str, Any]], None]


def _exception(found: dict[str, Any]) -> dict[str, Any]:
    return found["entries"][0]["data"]["values"][0]  # type: ignore[no-any-return]


def _frame(found: dict[str, Any]) -> dict[str, Any]:
    return _exception(found)["stacktrace"]["frames"][1]  # type: ignore[no-any-return]


def _crumbs(found: dict[str, Any]) -> list[dict[str, Any]]:
    return found["entries"][1]["data"]["values"]  # type: ignore[no-any-return]


def _tag(found: dict[str, Any], key: str, value: str) -> None:
    next(tag for tag in found["tags"] if tag["key"] == key)["value"] = value


#: One change to GlitchTip's copy a line, and the one field that must see it.
CHANGES: list[tuple[str, str, Change]] = [
    ("type", "exception_type", lambda e: _exception(e).update(type="RangeError")),
    ("value", "exception_value", lambda e: _exception(e).update(value="y is undefined")),
    ("value gone", "exception_value", lambda e: _exception(e).pop("value")),
    ("line", "in_app_frames", lambda e: _frame(e).update(lineNo=43)),
    ("function", "in_app_frames", lambda e: _frame(e).update(function="refund")),
    ("file", "in_app_frames", lambda e: _frame(e).update(filename="app/other.js")),
    ("frame gone", "in_app_frames", lambda e: _exception(e)["stacktrace"]["frames"].pop()),
    ("stack gone", "in_app_frames", lambda e: _exception(e).pop("stacktrace")),
    ("crumb gone", "breadcrumbs", lambda e: _crumbs(e).pop()),
    ("crumb text", "breadcrumbs", lambda e: _crumbs(e)[0].update(message="disconnect")),
    ("crumb data", "breadcrumbs", lambda e: _crumbs(e)[0].update(data={"n": 2})),
    ("crumb level", "breadcrumbs", lambda e: _crumbs(e)[0].update(level="error")),
    ("crumbs gone", "breadcrumbs", lambda e: e["entries"].pop()),
    ("user id", "user", lambda e: e["user"].update(id="8")),
    ("user mail", "user", lambda e: e["user"].update(email="bert@example.org")),
    ("user name", "user", lambda e: e["user"].update(username="bert")),
    ("user gone", "user", lambda e: e.update(user=None)),
    ("level", "level", lambda e: e.update(level="warning")),
    ("tag", "tags", lambda e: _tag(e, "component", "network")),
    ("tag gone", "tags", lambda e: e["tags"].pop(0)),
    ("tag more", "tags", lambda e: e["tags"].append({"key": "extra", "value": "1"})),
    ("extra", "extra", lambda e: e["context"].update(attempt=4)),
    ("nested extra", "extra", lambda e: e["context"]["nested"].update(host="db-2")),
    ("extra gone", "extra", lambda e: e.update(context=None)),
]


@pytest.mark.parametrize(
    ("name", "change"), [(name, change) for _, name, change in CHANGES], ids=[c[0] for c in CHANGES]
)
def test_every_altered_field_is_seen_and_no_other(name: str, change: Change) -> None:
    """The negative control of each comparison."""
    altered = event(1)
    change(altered)
    report = compared([event(1)], [altered])
    results = {item["field"]: item["result"] for item in report["issues"][0]["fields"]}
    assert [key for key, result in results.items() if result == "different"] == [name]
    assert report["judgement"]["content"] == report["verdict"] == "different"
    assert set(results) == set(FIELDS)


@pytest.mark.parametrize("name", ["release", "environment"])
def test_release_and_environment_are_fields_and_tags(name: str) -> None:
    """They are tags on both sides, and fields of their own: seen once."""
    altered = event(1)
    _tag(altered, name, "other")
    report = compared([event(1)], [altered])
    assert field(report, name)["result"] == "different"
    assert field(report, "tags")["result"] == "equal"


def test_a_message_event_is_compared_by_its_message() -> None:
    """Without an exception there is a message."""

    def said(text: str) -> dict[str, Any]:
        return event(1, entries=[{"type": "message", "data": {"formatted": text}}])

    assert field(compared([said("disk full")], [said("disk full")]), "message")["result"] == "equal"
    assert field(compared([said("disk full")], [said("disk fine")]), "message")["result"] == "different"


def test_a_fingerprint_is_compared_where_both_tell_it_and_named_where_not() -> None:
    """GlitchTip does not return it."""
    assert field(compared([event(1)], [event(1)]), "fingerprint")["result"] == "not_comparable"
    mine, other = event(1, fingerprint=["a"]), event(1, fingerprint=["b"])
    assert field(compared([mine], [other]), "fingerprint")["result"] == "different"


def test_a_difference_in_an_older_sample_is_seen() -> None:
    """Not only the newest event of an issue is compared."""
    events = [event(number, second=number) for number in range(10)]
    other = [event(number, second=number) for number in range(10)]
    other[0]["user"]["id"] = "8"
    assert compared(events, other, samples=3)["judgement"]["content"] == "different"
    assert compared(events, other, samples=1)["judgement"]["content"] == "equal"


# --- what Sentry hides or cuts ----------------------------------------------------------------------------


def test_what_sentry_filtered_cannot_be_compared() -> None:
    """Its scrubbing replaces values; GlitchTip's is neither right nor wrong."""
    mine = event(1)
    mine["context"]["nested"]["host"] = "[Filtered]"
    report = compared([mine], [event(1)])
    found = field(report, "extra")
    assert (found["result"], report["verdict"]) == ("not_comparable", "equal")
    assert "nested.host" in found["why"]


def test_what_stands_beside_a_filtered_part_is_compared() -> None:
    """[email] hides the address only, not the words around it."""
    mine = event(1, context={"note": "mail to [email] failed"})
    alike = event(1, context={"note": "mail to anna@example.org failed"})
    other = event(1, context={"note": "call to anna failed"})
    assert field(compared([mine], [alike]), "extra")["result"] == "not_comparable"
    assert field(compared([mine], [other]), "extra")["result"] == "different"
    assert field(compared([mine], [event(1, context=None)]), "extra")["result"] == "different"


def test_glitchtip_that_filters_what_sentry_shows_is_different() -> None:
    """Only Sentry is known to scrub."""
    other = event(1, context={"attempt": "[Filtered]", "nested": {"host": "db-1"}})
    assert field(compared([event(1)], [other]), "extra")["result"] == "different"


@pytest.mark.parametrize(
    ("whole", "result"), [("a" * 300, "not_comparable"), ("a" * 60 + "b" * 240, "different")]
)
def test_a_cut_value_is_compared_as_far_as_it_goes(whole: str, result: str) -> None:
    """A beginning that agrees is no proof, one that does not is a difference."""
    assert compare_values("a" * 100 + "...", whole).result == result


def test_a_short_text_with_dots_is_not_taken_for_a_cut_one() -> None:
    """``a...`` against ``abc`` is a difference."""
    assert compare_values("Loading...", "Loading failed").result == "different"


def test_breadcrumbs_that_sentry_trimmed_are_not_glitchtips_fault() -> None:
    """The reverse is: Sentry has them and GlitchTip not."""
    mine, other = event(1), event(1)
    _crumbs(mine).pop(0)
    assert field(compared([mine], [other]), "breadcrumbs")["result"] == "not_comparable"
    assert field(compared([other], [mine]), "breadcrumbs")["result"] == "different"


def test_frames_that_sentry_marks_by_its_own_rules_are_named() -> None:
    """All frames are equal, only the mark differs."""
    mine = event(1)
    _exception(mine)["stacktrace"]["frames"][0]["inApp"] = True
    found = field(compared([mine], [event(1)]), "in_app_frames")
    assert found["result"] == "not_comparable"
    assert "rules" in found["why"]


def test_frames_that_nobody_marked_are_all_compared() -> None:
    """Otherwise no frame would be."""
    mine, other = event(1), event(1)
    for each in (mine, other):
        _frame(each)["inApp"] = False
    assert field(compared([mine], [other]), "in_app_frames")["result"] == "equal"
    _frame(other)["lineNo"] = 1
    assert field(compared([mine], [other]), "in_app_frames")["result"] == "different"


def test_tags_that_a_tracker_makes_itself_are_left_out_and_named() -> None:
    """Sentry adds level, handled, os; GlitchTip user.id."""
    mine, other = event(1), event(1)
    mine["tags"] += [{"key": "level", "value": "error"}, {"key": "handled", "value": "yes"}]
    other["tags"] += [{"key": "user.id", "value": "7"}, {"key": "os.name", "value": "Linux"}]
    found = field(compared([mine], [other]), "tags")
    assert found["result"] == "equal"
    assert "left out: handled, os.name" in found["why"]


def test_a_level_that_nobody_tells_is_not_equal() -> None:
    """Unknown is not comparable."""
    assert field(compared([event(1)], [event(1, level=None)]), "level")["result"] == "not_comparable"


def test_sentrys_release_may_be_an_object() -> None:
    """``{"version": ...}`` in a whole event."""
    mine = event(1, release={"version": "shop@1.0.0", "dateCreated": "x"})
    assert field(compared([mine], [event(1)]), "release")["result"] == "equal"
    mine["release"]["version"] = "shop@2.0.0"
    assert field(compared([mine], [event(1)]), "release")["result"] == "different"


def test_numbers_and_texts_of_the_same_value_are_equal() -> None:
    """APIs turn one into the other; 1 and True are not the same."""
    assert compare_values({"a": 1, "b": 2.0}, {"a": "1", "b": 2}).result == "equal"
    assert compare_values({"a": 1}, {"a": True}).result == "different"
    assert compare_values([1, 2], [1, 2, 3]).result == "different"


def test_what_cannot_be_compared_is_always_in_the_report() -> None:
    """With a reason each."""
    report = compared([event(1)], [event(1)])
    assert {item["field"] for item in report["not_comparable"]} == {name for name, _ in NOT_COMPARED}
    assert all(item["why"] for item in report["not_comparable"])


# --- nothing secret is shown ------------------------------------------------------------------------------

CANARIES = (
    "carla.canary@example.org",
    "f" * 63 + "1",
    "sk_live_9a8b7c6d5e4f3a2b1c0d",
    "198.51.100.77",
    "+31 6 12345678",
    "hunter2canary",
)


def test_no_secret_and_no_person_is_in_any_output() -> None:
    """Values are shown only where they differ, scrubbed; equal ones never."""
    mine, other = event(1, title=f"mail to {CANARIES[0]} failed"), event(1)
    mine["user"] = {"id": CANARIES[1], "email": CANARIES[0], "username": "equalcanary"}
    other["user"] = {"id": "8", "email": "x@example.org", "username": "equalcanary"}
    _tag(mine, "component", CANARIES[2])
    mine["context"] = {"ip": CANARIES[3]}
    _crumbs(mine)[0]["message"] = f"call {CANARIES[4]}"
    _exception(mine)["value"] = f"login with password={CANARIES[5]} failed"
    report = compared([mine], [other])
    text = json.dumps(report) + "\n".join(lines(report)) + markdown(report)
    for canary in (*CANARIES, "equalcanary"):
        assert canary not in text, canary
    assert text.count("different") > 4


def test_texts_for_people_are_short_and_on_one_line() -> None:
    """And say when there is nothing."""
    assert shown(None) == "(none)"
    assert len(shown("x y " * 200)) == 120
    assert "\n" not in shown("a\nb")


def test_a_title_cannot_break_the_markdown() -> None:
    """No cell, no link, no markup of an event's own."""
    report = compared([event(1, title="a | b [x](http://192.0.2.9) `c` <img>\n# d")], [event(1)])
    found = markdown(report)
    assert "\n# d" not in found
    assert r"a \| b \[x\]" in found
    assert cell("a\nb|c") == r"a b\|c"
    assert all(line.count(" | ") == 4 for line in found.splitlines() if line.startswith("| a "))
