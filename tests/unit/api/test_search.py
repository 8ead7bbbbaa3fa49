"""The search of issues: what is sent, and what is refused before it is sent."""

from __future__ import annotations

import datetime as dt
import shlex

import pytest

from glitchtip_api.errors import InvalidError
from glitchtip_api.search import IssueSearch, check_query, check_sort, number

NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)


def words(**search):
    return shlex.split(IssueSearch(**search).search_text())


def test_filters_come_before_free_text_whatever_the_order_they_were_given_in():
    search = IssueSearch(text="lost connection", has=["component"], level="error", status="unresolved")
    assert search.search_text() == "is:unresolved level:error has:component lost connection"


@pytest.mark.parametrize(
    "value", ["z one", "it's", 'say "x" now', "a:b", "semi;colon", "back\\slash", "żółć"]
)
def test_the_server_gets_back_the_very_value_of_a_tag(value):
    assert words(tags={"zone": value}) == [f"zone:{value}"]


def test_quotes_in_free_text_are_balanced():
    assert words(text="can't \"open") == ["can't", '"open']


def test_free_text_does_not_begin_with_a_word_that_looks_like_a_tag():
    assert words(text="ValueError: lost") == ["lost", "ValueError:"]
    with pytest.raises(InvalidError, match="use title="):
        IssueSearch(text="http://shop.example").search_text()


def test_a_title_stands_alone_and_has_no_colon_percent_sign_or_backslash():
    assert words(title="ValueError: 50% of*lost\\") == ["*ValueError_ 50_ of*lost_*"]
    assert words(title="*lost*", level="error") == ["level:error", "*lost*"]


@pytest.mark.parametrize(
    ("search", "sentence"),
    [
        ({"status": "muted"}, "a status is one of unresolved, resolved, ignored"),
        ({"level": "critical"}, "a level is one of sample"),
        ({"tags": {"a:b": "c"}}, "cannot look for a tag named 'a:b'"),
        ({"tags": {"level": "error"}}, "cannot look for a tag named 'level'"),
        ({"tags": {"a": ""}}, "empty or begins or ends with a double quote"),
        ({"tags": {"a": '"b"'}}, "empty or begins or ends with a double quote"),
        ({"text": "a", "title": "b"}, "give one of them"),
        ({"text": "a", "query": "b"}, "give it, or text, or title"),
        ({"text": "lo*t"}, "use title= for a pattern"),
        ({"text": "a\x00b"}, "NUL"),
        ({"text": "6a12adab20ab4e44b23f2bfa6728111b"}, "use by_event_id"),
        ({"projects": ["shop-api"]}, "the id of a project is a number, not 'shop-api'"),
        ({"projects": "12"}, "projects is a list"),
        ({"projects": [-1]}, "the id of a project is a number"),
        ({"ids": ["SHOP-API-1"]}, "the id of an issue is a number"),
        ({"environments": [""]}, "environments holds an empty name"),
        ({"start": "-24h"}, "or like now-24h"),
        ({"end": "now-1w"}, "or like now-24h"),
        ({"start": NOON.replace(tzinfo=None)}, "start lacks its time zone"),
        ({"seen_since": NOON.replace(tzinfo=None)}, "seen_since lacks its time zone"),
        ({"sort": "freq"}, "use -count"),
        ({"sort": "--count"}, "use one of -last_seen"),
    ],
)
def test_what_the_server_breaks_on_or_misreads_is_refused_with_what_to_do(search, sentence):
    with pytest.raises(InvalidError, match=sentence):
        IssueSearch(**search).params()


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("age:-24h", "use start="),
        ("lastSeen:-24h", "use seen_since="),
        ("is:unresolved assigned:me", "cannot search for who is assigned"),
        ("!component:database", "cannot negate"),
        ('"oops', "stands alone"),
        ("can't", "stands alone"),
        ("back\\", "stands alone"),
        ("alpha level:error", "put filters first"),
        ("is:muted", "a status is one of"),
        ("level:critical", "a level is one of"),
        ("component:", "lacks its key or its value"),
        (":x", "lacks its key or its value"),
        ("component:data*", "compared whole"),
        ("count:>5", "compared whole"),
        ("6a12adab-20ab-4e44-b23f-2bfa6728111b", "use by_event_id"),
    ],
)
def test_search_text_that_the_server_misreads_without_a_word_is_refused(query, sentence):
    with pytest.raises(InvalidError, match=sentence):
        check_query(query)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "alpha beta",
        "is:unresolved level:error alpha",
        'zone:"z one" has:x',
        "release:shop@1.0.0",
        "user.id:7",
    ],
)
def test_good_search_text_is_taken_as_it_is(query):
    assert check_query(query) == query
    assert IssueSearch(query=query, status="resolved").search_text() == f"is:resolved {query}".strip()


def test_a_search_for_nothing_is_empty_and_any_filter_makes_it_not_so():
    assert IssueSearch().is_empty
    assert IssueSearch(text="  ", query=" ", tags={}, has=(), sort="-count").is_empty
    for search in (
        {"status": "ignored"},
        {"ids": [1]},
        {"projects": [1]},
        {"start": "now"},
        {"seen_since": NOON},
    ):
        assert not IssueSearch(**search).is_empty, search


def test_the_parameters_hold_what_was_asked_for_and_nothing_else():
    search = IssueSearch(environments=["qa"], projects=[3, "4"], ids=("5",), start=NOON, end="now - 1h")
    assert search.params() == {
        "environment": ["qa"],
        "project": ["3", "4"],
        "id": ["5"],
        "start": "2026-11-21T12:00:00+00:00",
        "end": "now - 1h",
        "sort": "-last_seen",
    }


def test_orders_that_lose_issues_between_pages_are_not_sent():
    for sort in ("count", "-count", "priority", "-priority"):
        assert IssueSearch(sort=sort).params() == {"sort": "-last_seen"}
        assert check_sort(sort) == sort


@pytest.mark.parametrize("value", [True, 0, "01", "1e3", " 1", "9" * 19])
def test_only_a_plain_number_is_an_id(value):
    with pytest.raises(InvalidError):
        number(value, "issue")
