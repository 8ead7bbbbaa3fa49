"""Issues: reading, changing one, changing many behind guards, comments, addresses."""

from __future__ import annotations

import datetime as dt
import re
from urllib.parse import parse_qs, urlsplit

import pytest

from glitchtip_api import Client, GlitchTipError, MissingError, ReadOnlyError
from glitchtip_api.errors import InvalidError, UnsupportedError
from glitchtip_api.resources.issues import BULK_SIZE, NO_FILTER, permalink, priority
from glitchtip_api.search import IssueSearch

EVENT = "6a12adab20ab4e44b23f2bfa6728111b"
ALL = "/api/0/organizations/acme/issues/"


def issue(number, **more):
    return {
        "id": str(number),
        "status": "unresolved",
        "count": "1",
        "lastSeen": "2026-11-21T12:00:00.000Z",
        "project": {"slug": "shop"},
        "permalink": f"http://errors.example/shop/issues/{number}",
        **more,
    }


class Bench:
    """A server with issues: lists them by id and status, changes and deletes them by id."""

    def __init__(self, server):
        self.server, self.issues, self.deaf = server, {}, set()
        self.reply = type(server.then().replies.pop())
        server.answer = self.answer

    def add(self, *numbers, **more):
        self.issues |= {str(number): issue(number, **more) for number in numbers}

    @property
    def writes(self):
        return [line for line in self.server.lines if not line.startswith("GET")]

    def answer(self, asked):
        wanted = parse_qs(urlsplit(asked.path).query)
        ids = wanted.get("id", list(self.issues))
        found = [self.issues[number] for number in ids if number in self.issues]
        if asked.method == "GET":
            status = re.match(r"is:(\w+)", wanted.get("query", [""])[0])
            return self.reply(200, [one for one in found if status is None or one["status"] == status[1]])
        for one in found:
            if asked.method == "DELETE":
                del self.issues[one["id"]]
            elif one["id"] not in self.deaf:
                one["status"] = asked.json.get("status", one["status"])
        return self.reply(200, {"status": "resolved", "merge": None})


@pytest.fixture
def bench(server):
    return Bench(server)


def test_issues_are_listed_with_their_search(client, server):
    server.then(200, [issue(1)])
    found = client.issues.list("acme", "shop", search=IssueSearch(status="resolved", text="lost"))
    assert [one["id"] for one in found] == ["1"]
    path, _, query = server.asked[0].path.partition("?")
    assert path == "/api/0/projects/acme/shop/issues/"
    assert parse_qs(query) == {"limit": ["100"], "query": ["is:resolved lost"], "sort": ["-last_seen"]}


def test_parameters_of_the_server_win_over_the_search(client, server):
    server.then(200, [])
    client.issues.list(
        "acme", params={"query": "x y", "shortIdLookup": 1}, search=IssueSearch(status="resolved")
    )
    assert parse_qs(urlsplit(server.asked[0].path).query)["query"] == ["x y"]


def test_an_issue_that_moves_to_the_next_page_comes_once(client, server):
    link = f'<{server.url}{ALL}?cursor=abc>; rel="next"; results="true"; cursor="abc"'
    server.then(200, [issue(1), issue(2)], headers={"Link": link}).then(200, [issue(2), issue(3)])
    assert [one["id"] for one in client.issues.iterate("acme")] == ["1", "2", "3"]


def test_an_order_that_loses_issues_between_pages_is_refused_as_a_parameter(client, server):
    with pytest.raises(InvalidError, match="skip and repeat issues"):
        client.issues.list("acme", params={"sort": "-count"})
    assert server.asked == []


def test_count_and_priority_are_sorted_here(client, server):
    rows = [
        issue(1, count="5", lastSeen="2026-11-21T12:00:00.000Z"),
        issue(2, count="50", lastSeen="2026-11-11T12:00:00.000Z"),
        issue(3, count="7", lastSeen="2026-11-21T11:00:00.000Z"),
    ]
    for sort, ids in (("-count", "231"), ("count", "132"), ("-priority", "312")):
        server.then(200, rows)
        found = client.issues.list("acme", limit=3, search=IssueSearch(sort=sort))
        assert "".join(one["id"] for one in found) == ids
        assert "sort=-last_seen" in server.asked[-1].path
    assert priority(rows[0]) == pytest.approx(0.69897 + 1795262400 / 300000)


def test_what_was_seen_before_ends_the_reading(client, server):
    link = f'<{server.url}{ALL}?cursor=abc>; rel="next"; results="true"; cursor="abc"'
    rows = [issue(1), issue(2, lastSeen="2026-11-20T12:00:00.000Z")]
    server.then(200, rows, headers={"Link": link})
    since = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
    assert [one["id"] for one in client.issues.iterate("acme", search=IssueSearch(seen_since=since))] == ["1"]
    assert len(server.asked) == 1


def test_the_issue_of_an_event_is_found_by_the_events_id(client, server):
    direct = {"X-Sentry-Direct-Hit": "1"}
    server.then(200, [issue(1)], headers=direct).then(200, [], headers=direct).then(200, [issue(1)])
    assert client.issues.by_event_id("acme", EVENT.upper())["id"] == "1"
    assert f"query={EVENT}" in server.asked[0].path
    assert client.issues.by_event_id("acme", EVENT) is None
    with pytest.raises(UnsupportedError):
        client.issues.by_event_id("acme", EVENT)


def test_both_styles_of_keys_are_read_as_one(client, server):
    request = {"type": "request", "data": {"query_string": [], "inferred_content_type": None, "url": "u"}}
    server.then(200, [{"event_id": EVENT, "group_id": "1", "date_created": "d", "entries": [request]}])
    assert client.issues.events(1) == [
        {
            "eventID": EVENT,
            "groupID": "1",
            "dateCreated": "d",
            "entries": [{"type": "request", "data": {"query": [], "inferredContentType": None, "url": "u"}}],
        }
    ]
    server.then(200, {"id": "1", "share_id": None, "status_details": {}, "firstSeen": "f"})
    changed = client.issues.update(1, status="resolved")
    assert changed == {"id": "1", "shareId": None, "statusDetails": {}, "firstSeen": "f"}


def test_a_raw_event_that_is_not_there_is_none_only_after_a_second_look(client, server):
    server.html(500).html(500).then(404, {"detail": "Not Found"})
    assert client.issues.event_json("acme", 1, EVENT) is None
    assert server.lines[-1] == f"GET /api/0/issues/1/events/{EVENT}/"
    server.then(404, {"detail": "Not Found"})
    assert client.issues.event_json("acme", 1, EVENT) is None
    server.html(500).html(500).then(200, {"eventID": EVENT})
    with pytest.raises(GlitchTipError, match="500"):
        client.issues.event_json("acme", 1, EVENT)


def test_tags_come_in_the_order_of_their_keys(client, server):
    server.then(200, [{"key": "zone"}, {"key": "component"}])
    assert [tag["key"] for tag in client.issues.tags(1)] == ["component", "zone"]
    server.then(200, [])
    client.issues.tags(1, key="zone")
    assert server.asked[-1].path == "/api/0/issues/1/tags/?key=zone"


def test_hashes_are_removed_by_name_only(client, server):
    server.then(202)
    client.issues.remove_hashes("acme", 1, [EVENT])
    assert server.lines == [f"DELETE {ALL}1/hashes/?id={EVENT}"]
    with pytest.raises(InvalidError):
        client.issues.remove_hashes("acme", 1, [])


def test_a_comment_on_what_is_not_there_is_a_missing_error(client, server):
    server.then(400, {"detail": "Issue does not exist"}).then(400, {"detail": "Comment does not exist"})
    with pytest.raises(MissingError, match="Issue does not exist"):
        client.issues.add_comment(1, "x")
    with pytest.raises(MissingError, match="Comment does not exist"):
        client.issues.edit_comment(1, 2, "x")


def test_a_comment_is_removed_once(client, server):
    server.then(204).then(400, {"detail": "Comment does not exist"}).then(400, {"detail": "other"})
    assert client.issues.remove_comment(1, 2) is True
    assert client.issues.remove_comment(1, 2) is False
    with pytest.raises(GlitchTipError, match="other"):
        client.issues.remove_comment(1, 2)


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (lambda issues: issues.assign(1, "jane@example.org"), "assignedTo"),
        (lambda issues: issues.resolve(1, in_release="shop@1"), "firstRelease"),
        (lambda issues: issues.resolve(1, in_next_release=True), "firstRelease"),
        (lambda issues: issues.commits(1), "firstRelease"),
    ],
)
def test_what_only_6_knows_is_refused_on_5_and_nothing_is_written(client, server, call, key):
    server.then(200, issue(1))
    with pytest.raises(UnsupportedError) as failure:
        call(client.issues)
    assert failure.value.code == "unsupported"
    assert server.lines == ["GET /api/0/issues/1/"]
    server.then(200, issue(1, **{key: None})).then(200, {})
    call(client.issues)
    assert len(server.lines) == 3


def test_an_issue_is_assigned_and_resolved_in_a_release(client, server):
    server.then(200, issue(1, assignedTo=None)).then(200, issue(1))
    client.issues.assign(1, None)
    assert server.asked[-1].json == {"assignedTo": ""}
    server.then(200, issue(1, firstRelease=None)).then(200, issue(1))
    client.issues.resolve(1, in_release="shop@1")
    assert server.asked[-1].json == {"status": "resolved", "statusDetails": {"inRelease": "shop@1"}}
    server.then(200, issue(1))
    client.issues.resolve(1)
    assert server.asked[-1].json == {"status": "resolved"}
    with pytest.raises(InvalidError, match="not in both"):
        client.issues.resolve(1, in_release="shop@1", in_next_release=True)


@pytest.mark.parametrize("search", [None, IssueSearch(), IssueSearch(text=" ", query=" ")])
def test_a_bulk_change_without_a_filter_is_refused_with_the_reason(client, server, search):
    for call in (
        lambda: client.issues.bulk_update("acme", status="resolved", search=search),
        lambda: client.issues.bulk_delete("acme", search=search),
    ):
        with pytest.raises(InvalidError) as failure:
            call()
        assert str(failure.value) == NO_FILTER
        assert failure.value.code == "no_filter"
    assert server.asked == []


def test_a_bulk_change_of_no_ids_changes_nothing(client, server):
    assert client.issues.bulk_update("acme", status="resolved", ids=[]).ids == ()
    assert client.issues.bulk_delete("acme", ids=[]).ids == ()
    assert server.asked == []


def test_a_bulk_change_names_the_very_issues_that_it_found(client, bench):
    bench.add(9, 10, 2)
    bench.add(4, status="resolved")
    done = client.issues.bulk_update("acme", status="resolved", search=IssueSearch(ids=[2, 4, 9, 10]))
    assert (done.ids, done.matched, done.dry_run) == (("2", "9", "10"), 4, False)
    assert bench.writes == [f"PUT {ALL}?id=2&id=9&id=10"]
    assert "sort=first_seen" in bench.server.asked[0].path
    again = client.issues.bulk_update("acme", status="resolved", search=IssueSearch(ids=[2, 4, 9, 10]))
    assert (again.ids, len(bench.writes)) == ((), 1)


def test_a_bulk_change_goes_in_parts_that_6_does_at_once(client, bench):
    bench.add(*range(1, 102))
    done = client.issues.bulk_update("acme", status="ignored", search=IssueSearch(status="unresolved"))
    assert len(done.ids) == 101
    assert [line.count("id=") for line in bench.writes] == [BULK_SIZE, BULK_SIZE, 101 - 2 * BULK_SIZE]
    assert {one["status"] for one in bench.issues.values()} == {"ignored"}


def test_more_issues_than_expected_are_left_alone(client, bench):
    bench.add(1, 2, 3)
    for call in (
        lambda: client.issues.bulk_update("acme", status="ignored", ids=[1, 2, 3], expect=2),
        lambda: client.issues.bulk_delete("acme", ids=[1, 2, 3], expect=2),
    ):
        with pytest.raises(
            InvalidError, match="3 issues would be touched, 2 at most were expected"
        ) as failure:
            call()
        assert failure.value.code == "too_many"
    assert bench.writes == []
    assert len(client.issues.bulk_update("acme", status="ignored", ids=[1, 2, 3], expect=3).ids) == 3


def test_a_dry_run_says_what_it_would_touch_and_writes_nothing(client, bench):
    bench.add(1, 2)
    update = client.issues.bulk_update("acme", status="ignored", ids=[1, 2, 7], dry_run=True)
    delete = client.issues.bulk_delete("acme", ids=[1], dry_run=True)
    assert (update.ids, update.matched, update.dry_run, delete.ids) == (("1", "2"), 2, True, ("1",))
    assert client.issues.merge("acme", [1, 2], dry_run=True) == "2"
    assert bench.writes == []


def test_a_bulk_change_that_did_not_happen_is_a_failure(client, bench):
    bench.add(1, 2)
    bench.deaf.add("2")
    with pytest.raises(GlitchTipError, match="still not ignored: 2") as failure:
        client.issues.bulk_update("acme", status="ignored", ids=[1, 2])
    assert failure.value.code == "not_applied"


def test_a_bulk_delete_names_the_issues(client, bench):
    bench.add(1, 2, 3)
    assert client.issues.bulk_delete("acme", search=IssueSearch(ids=[1, 3])).ids == ("1", "3")
    assert list(bench.issues) == ["2"]


def test_a_bulk_change_takes_ids_or_a_search_and_a_known_status(client, server):
    with pytest.raises(InvalidError, match="not both"):
        client.issues.bulk_update("acme", status="resolved", ids=[1], search=IssueSearch(ids=[2]))
    with pytest.raises(InvalidError, match="a status is one of"):
        client.issues.bulk_update("acme", status="muted", ids=[1])
    assert server.asked == []


def test_a_merge_keeps_the_highest_id(client, bench):
    bench.add(9, 10)
    assert client.issues.merge("acme", ["10", 9, 9]) == "10"
    assert bench.writes == [f"PUT {ALL}?id=9&id=10"]
    assert bench.server.asked[-1].json == {"merge": 1}


def test_a_merge_that_would_lose_issues_is_refused(client, bench):
    bench.add(1, 2)
    bench.add(3, project={"slug": "other"})
    with pytest.raises(MissingError, match="not among the issues of acme: 8"):
        client.issues.merge("acme", [1, 8])
    with pytest.raises(InvalidError, match="several projects: other, shop"):
        client.issues.merge("acme", [1, 3])
    with pytest.raises(InvalidError, match="2 to 40 issues, not 1"):
        client.issues.merge("acme", [1, "1"])
    assert bench.writes == []


def test_a_client_that_only_reads_changes_nothing(server, bench):
    bench.add(1)
    reading = Client(server.url, "canary-token-0001", read_only=True)
    for call in (
        lambda: reading.issues.bulk_update("acme", status="resolved", ids=[1]),
        lambda: reading.issues.bulk_delete("acme", ids=[1]),
        lambda: reading.issues.delete(1),
    ):
        with pytest.raises(ReadOnlyError):
            call()
    assert bench.writes == []


def test_the_address_of_an_issue_has_the_organizations_slug():
    assert permalink(issue(7), "acme") == "http://errors.example/acme/issues/7"
    assert permalink(issue(7), "acme", "https://e.example/gt/") == "https://e.example/gt/acme/issues/7"
    with pytest.raises(InvalidError, match="give domain"):
        permalink(issue(7, permalink="Not implemented"), "acme")
