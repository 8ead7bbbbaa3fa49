"""Counts by the hour, safe against what the server leaves out, adds and refuses."""

from __future__ import annotations

import datetime as dt
from urllib.parse import parse_qs, urlsplit

import pytest

from glitchtip_api import MissingError, NotJsonError
from glitchtip_api.errors import InvalidError

HOUR = dt.timedelta(hours=1)
TEN = dt.datetime(2026, 11, 21, 10, tzinfo=dt.UTC)


def series(counts):
    return {
        "intervals": [moment.isoformat() for moment in counts],
        "groups": [{"series": {"sum(quantity)": list(counts.values())}}],
    }


def asked(server, place=0):
    return {name: values[0] for name, values in parse_qs(urlsplit(server.asked[place].path).query).items()}


def test_every_hour_is_there_and_the_ones_that_the_server_leaves_out_are_zero(client, server):
    server.then(200, series({TEN: 4, TEN + 2 * HOUR: None, TEN + 4 * HOUR: 9}))
    start, end = TEN + dt.timedelta(minutes=25), TEN + dt.timedelta(hours=3, minutes=5)
    found = client.statistics.events_per_hour("acme", start, end, project="13")
    assert [(hour.start, hour.count) for hour in found] == [(TEN + n * HOUR, 4 * (n == 0)) for n in range(4)]
    assert asked(server) == {
        "category": "error",
        "field": "sum(quantity)",
        "interval": "1h",
        "start": TEN.isoformat(),
        "end": (TEN + 3 * HOUR).isoformat(),
        "project": "13",
    }


def test_the_hour_that_the_server_adds_at_the_end_is_not_counted(client, server):
    server.then(200, series({TEN: 1, TEN + HOUR: 5}))
    assert client.statistics.events_total("acme", TEN, TEN + HOUR) == 1


def test_intervals_in_another_zone_are_the_same_hours(client, server):
    zone = dt.timezone(dt.timedelta(hours=2))
    server.then(200, series({TEN.astimezone(zone): 3}))
    assert client.statistics.events_total("acme", TEN.astimezone(zone), TEN + HOUR) == 3


def test_a_long_time_is_asked_in_parts_and_no_hour_is_counted_twice(client, server):
    end = TEN + dt.timedelta(days=100)

    def answer(request):
        bounds = {name: values[0] for name, values in parse_qs(urlsplit(request.path).query).items()}
        first, last = (dt.datetime.fromisoformat(bounds[name]) for name in ("start", "end"))
        assert (last - first).days * 24 <= 1000
        hours = int((last - first) / HOUR) + 2  # the server adds one
        return reply(200, series({first + n * HOUR: 1 for n in range(hours)}))

    reply = type(server.then().replies.pop())
    server.answer = answer
    found = client.statistics.events_per_hour("acme", TEN, end)
    assert len(found) == 2400
    assert {hour.count for hour in found} == {1}
    assert len(server.asked) == 3


def test_bad_bounds_are_refused_before_anything_is_asked(client, server):
    for start, end, sentence in (
        (TEN, TEN, "end must come after start"),
        (TEN, TEN - HOUR, "end must come after start"),
        (TEN.replace(tzinfo=None), TEN, "start lacks its time zone"),
        (TEN, TEN.replace(tzinfo=None), "end lacks its time zone"),
    ):
        with pytest.raises(InvalidError, match=sentence):
            client.statistics.events_per_hour("acme", start, end)
    with pytest.raises(InvalidError, match="the id of a project is a number"):
        client.statistics.events_per_hour("acme", TEN, TEN + HOUR, "shop")
    assert server.asked == []


def test_a_missing_project_is_named(client, server):
    server.then(404, {"detail": "Not Found"}).then(404, {"detail": "Not Found"})
    with pytest.raises(MissingError, match="there is no project 9 in organization acme"):
        client.statistics.events_total("acme", TEN, TEN + HOUR, 9)
    with pytest.raises(MissingError, match="there is no project in organization acme"):
        client.statistics.events_total("acme", TEN, TEN + HOUR)


@pytest.mark.parametrize(
    "body", [{}, [], {"intervals": [], "groups": []}, series({TEN: 1}) | {"intervals": []}]
)
def test_an_answer_without_a_series_is_no_zero(client, server, body):
    server.then(200, body)
    with pytest.raises(NotJsonError, match="no series"):
        client.statistics.events_total("acme", TEN, TEN + HOUR)


def stats(number, hours):
    return {"id": str(number), "count": "2", "stats": {"24h": hours, "14d": None}}


def test_counts_of_issues_come_in_the_order_that_was_asked_for(client, server):
    server.then(200, [stats(2, []), stats(1, [[7200, 1], [3600, 2]])])
    found = client.statistics.issue_stats("acme", [1, "2", 3, 1])
    assert [item["id"] for item in found] == ["1", "2"]
    assert found[0]["stats"] == {"24h": [[3600, 2], [7200, 1]]}
    query = parse_qs(urlsplit(server.asked[0].path).query)
    assert query == {"groups": ["1", "2", "3"], "statsPeriod": ["24h"]}


def test_many_issues_are_asked_for_in_parts(client, server):
    def answer(request):
        groups = parse_qs(urlsplit(request.path).query)["groups"]
        assert len(groups) <= 200
        return reply(200, [stats(group, []) for group in groups])

    reply = type(server.then().replies.pop())
    server.answer = answer
    assert len(client.statistics.issue_stats("acme", range(1, 451))) == 450


def test_a_period_that_the_server_does_not_have_is_refused(client, server):
    with pytest.raises(InvalidError, match="24h, 14d"):
        client.statistics.issue_stats("acme", [1], "7d")
    assert client.statistics.issue_stats("acme", []) == []
    assert server.asked == []
