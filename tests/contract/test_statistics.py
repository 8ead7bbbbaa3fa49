"""Counts by hour: stats_v2 of an organization, issues-stats of issues.

The series of stats_v2 leaves out every hour in which only others had events, those of other organizations included. So a rule about
hours without events asks for a day long before any retention, and a rule about hours of today names the hours it is about.
"""

from __future__ import annotations

import datetime as dt
from urllib.parse import urlencode

import pytest

HOUR = dt.timedelta(hours=1)
#: No server keeps statistics of that time.
LONG_AGO = dt.datetime(2001, 2, 3, 4, 30, tzinfo=dt.UTC)


def now():
    return dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def counted(new_project):
    """A project with three events of two issues, another with one event, and one without any."""
    busy, other, quiet = new_project(), new_project(), new_project()
    events = busy.all_stored("one", "one", "two")
    other.sent_and_stored("three")
    busy.issues = sorted({event["groupID"] for event in events}, key=int)
    return busy, other, quiet


@pytest.fixture(scope="module")
def series(server, organization):
    """Ask for a series: from three hours ago until now, by the hour, unless said otherwise."""

    def ask(**parameters):
        usual = {"category": "error", "field": "sum(quantity)", "interval": "1h"}
        usual |= {"start": (now() - 3 * HOUR).isoformat(), "end": now().isoformat()}
        wanted = {name: value for name, value in (usual | parameters).items() if value is not None}
        return server.call("GET", f"/api/0/organizations/{organization}/stats_v2/?{urlencode(wanted)}")

    return ask


def counts(answer, field="sum(quantity)"):
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert len(body["groups"]) == 1
    values = body["groups"][0]["series"][field]
    return dict(zip(map(dt.datetime.fromisoformat, body["intervals"]), values, strict=True))


def total(found):
    return sum(value or 0 for value in found.values())


def test_events_are_counted_in_the_hour_in_which_they_came(series, counted):
    busy, other, _ = counted
    found = counts(series(project=busy.id))
    assert total(found) == 3
    assert all(moment.minute == moment.second == 0 for moment in found)
    assert total(counts(series(project=other.id))) == 1


def test_without_a_project_all_of_the_organization_are_counted(series, counted):
    assert total(counts(series())) >= 4
    assert len(counted) == 3


def test_an_hour_without_events_is_null_and_the_end_moves_to_the_next_full_hour(series, counted):
    begin = LONG_AGO
    found = counts(series(project=counted[0].id, start=begin.isoformat(), end=(begin + HOUR).isoformat()))
    first = begin.replace(minute=0, second=0, microsecond=0)
    assert found == {first + step * HOUR: None for step in range(3)}


def test_an_hour_in_which_only_other_projects_had_events_is_left_out(series, counted):
    period = {"start": (now() - 3 * HOUR).isoformat(), "end": now().isoformat()}
    whole, alone = counts(series(**period)), counts(series(project=counted[2].id, **period))
    busy = {moment for moment, value in whole.items() if value}
    assert busy
    assert alone.keys() == whole.keys() - busy
    assert set(alone.values()) <= {None}


def test_a_day_counts_its_first_hour_only(series, counted):
    period = {"start": LONG_AGO.isoformat(), "end": (LONG_AGO + 26 * HOUR).isoformat()}
    found = counts(series(project=counted[0].id, interval="1d", **period))
    first = LONG_AGO.replace(minute=0, second=0, microsecond=0)
    assert list(found) == [first, first + 24 * HOUR]
    # Two days that end with this hour have all three events in it, and none in the hours with which they begin.
    recent = counts(series(project=counted[0].id, interval="1d", start=(now() - 26 * HOUR).isoformat()))
    assert total(recent) == 0


def test_more_than_a_thousand_intervals_are_422(series):
    for days, interval, status in ((41, "1h", 200), (42, "1h", 422), (999, "1d", 200), (1, "1m", 422)):
        answer = series(start=(now() - dt.timedelta(days=days)).isoformat(), interval=interval)
        assert answer.status_code == status, (days, interval)
        if status == 422:
            assert answer.json() == {"detail": [{"end": "Too many intervals"}]}


def test_category_field_start_and_end_are_required_and_the_interval_is_not(series):
    for name in ("category", "field", "start", "end"):
        answer = series(**{name: None})
        assert answer.status_code == 422
        assert answer.json()["detail"][0] == {
            "type": "missing",
            "loc": ["query", name],
            "msg": "Field required",
        }
    period = {"start": LONG_AGO.isoformat(), "end": (LONG_AGO + 5 * HOUR).isoformat()}
    assert counts(series(interval=None, **period)).keys() == counts(series(**period)).keys()


def test_other_words_and_relative_times_are_422(series):
    for wrong in (
        {"interval": "2h"},
        {"category": "x"},
        {"field": "y"},
        {"start": "now-1h"},
        {"project": "slug"},
    ):
        assert series(**wrong).status_code == 422, wrong


def test_an_unknown_project_or_organization_is_404(server, series):
    assert series(project=999999999).status_code == 404
    assert series(project=-1).status_code == 404
    asked = "category=error&field=sum(quantity)&start=2026-01-01&end=2026-01-02"
    assert server.call("GET", f"/api/0/organizations/nope-nope/stats_v2/?{asked}").status_code == 404


def test_no_transaction_was_counted(series, counted):
    found = counts(
        series(project=counted[0].id, category="transaction", field="sum(times_seen)"), "sum(times_seen)"
    )
    assert set(found.values()) <= {None}


def test_grouping_is_ignored(series):
    period = {"start": LONG_AGO.isoformat(), "end": (LONG_AGO + 5 * HOUR).isoformat()}
    assert counts(series(groupBy="project", **period)).keys() == counts(series(**period)).keys()


def test_the_series_needs_a_scope_of_the_organization_and_the_counts_of_issues_none(
    server, organization, scoped
):
    asked = "category=error&field=sum(quantity)&start=2026-01-01&end=2026-01-02"
    path = f"/api/0/organizations/{organization}/stats_v2/?{asked}"
    assert server.call("GET", path, token=scoped("event:read")).status_code == 403
    assert server.call("GET", path, token=scoped("org:read")).status_code != 403
    path = f"/api/0/organizations/{organization}/issues-stats/?groups=1"
    assert server.call("GET", path, token=scoped("project:read")).status_code == 200


def stats(server, project, *groups, **parameters):
    asked = urlencode([*(("groups", group) for group in groups), *parameters.items()])
    return server.call("GET", f"/api/0/organizations/{project.organization}/issues-stats/?{asked}")


def test_issues_are_counted_by_hour_and_hours_without_events_are_left_out(server, counted):
    busy = counted[0]
    found = {item["id"]: item for item in stats(server, busy, *busy.issues).json()}
    assert sorted(found, key=int) == busy.issues
    for number in busy.issues:
        item, issue = found[number], busy.issue(number)
        assert (item["count"], item["userCount"]) == (issue["count"], int(issue["count"]))
        assert item["isUnhandled"] is False
        assert dt.datetime.fromisoformat(item["firstSeen"]).isoformat()[:22] == issue["firstSeen"][:22]
        assert item["stats"]["14d"] is None
        hours = item["stats"]["24h"]
        assert sum(count for _, count in hours) == int(issue["count"])
        assert all(at % 3600 == 0 and count for at, count in hours)


def test_fourteen_days_are_counted_by_day(server, counted):
    busy = counted[0]
    item = stats(server, busy, busy.issues[0], statsPeriod="14d").json()[0]
    assert item["stats"]["24h"] is None
    assert sum(count for _, count in item["stats"]["14d"]) == int(item["count"])
    assert all(at % 86400 == 0 for at, _ in item["stats"]["14d"])


def test_unknown_issues_have_no_counts_and_no_issue_at_all_is_422(server, counted):
    busy = counted[0]
    assert stats(server, busy, 999999999).json() == []
    assert stats(server, busy).status_code == 422
    assert stats(server, busy, "x").status_code == 422
    assert stats(server, busy, 1, statsPeriod="7d").status_code == 422
