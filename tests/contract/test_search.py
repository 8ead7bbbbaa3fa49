"""The search language of issues, the parameters of their lists, and their pages."""

from __future__ import annotations

import math
import re
import uuid
from collections import Counter
from datetime import datetime
from urllib.parse import parse_qs, quote, urlsplit

import pytest


@pytest.fixture(scope="module")
def lab(new_project):
    """A project with six issues: levels, components, environments and counts to search for."""
    project = new_project()
    rows = [
        ("alpha1 number 1", "error", "database", "production"),
        ("alpha1 number 2", "warning", "database", "staging"),
        ("alpha2 number 3", "error", "cache", "production"),
        ("alpha2 number 4", "info", "cache", "staging"),
        ("alpha3 number 5", "fatal", "z one", "production"),
        ("alpha3 number 6", "debug", "z one", "staging"),
    ]
    sent = {}
    for text, level, component, environment in rows:
        more = {"tags": {"component": component}, "environment": environment, "release": "shop@1.0.0"}
        sent[text] = project.send(text, level=level, server_name="web-1", user={"id": "7"}, **more)
    again = [project.send(text) for text in ("alpha2 number 3",) * 2 + ("alpha1 number 2",)]
    project.lab = {text: project.await_event(number) for text, number in sent.items()}
    for number in again:
        project.await_event(number)
    return project


def asked(query="", **parameters):
    pairs = [("query", query)] if query else []
    pairs += list(parameters.items())
    return "&".join(f"{key}={quote(str(value))}" for key, value in pairs)


def number_of(issue):
    return int(re.search(r"number (\d)", issue["title"])[1])


def titles(server, project, query="", **parameters):
    found = server.get(f"{project.path}issues/?{asked(query, **parameters)}")
    return sorted(number_of(issue) for issue in found)


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("level:warning", [2]),
        ("level:bogus", []),
        ("component:database", [1, 2]),
        ("component:database level:error", [1]),
        ('component:"z one"', [5, 6]),
        ("has:component", [1, 2, 3, 4, 5, 6]),
        ("has:nothing", []),
        ("environment:production", [1, 3, 5]),
        ("release:shop@1.0.0", [1, 2, 3, 4, 5, 6]),
        ("is:unresolved", [1, 2, 3, 4, 5, 6]),
        ("is:nonsense", []),
        ("alpha1", [1, 2]),
        ("number alpha1", [1, 2]),
        ("level:error alpha1", [1]),
        ("alpha1 level:error", []),
        ("*lpha2*", [3, 4]),
        ("!component:database", []),
        ("age:-24h", []),
        ("lastSeen:-24h", []),
        ("assigned:me", []),
        ("server_name:web-1 user.id:7", [1, 2, 3, 4, 5, 6]),
        ('"component:z one" level:fatal', [5]),
        ('component:"database"', [1, 2]),
        ("component:data*", []),
        ("component:>c", []),
        ("Component:database", []),
        ("component:", []),
        ("is:", []),
        ("component:database component:cache", []),
        ("http://shop.example", []),
        ("ALPHA3", [5, 6]),
        ("alph", []),
        ("checkout alpha3", [5, 6]),
        ("views.py", [1, 2, 3, 4, 5, 6]),
        ("app/views.py", []),
        ("alpha1 alpha2", []),
        ("!5", [5]),
        ("*alp*ber 5*", [5]),
        ("a_pha3*", [5, 6]),
        ("*", [1, 2, 3, 4, 5, 6]),
    ],
)
def test_the_search_language(server, lab, query, numbers):
    assert titles(server, lab, query) == numbers


def test_a_lone_quote_is_500(server, lab):
    for query in ('"oops', "can't", "back\\", 'level:error "'):
        assert server.call("GET", f"{lab.path}issues/?query={quote(query)}").status_code == 500


def test_environment_parameters_are_alternatives(server, lab):
    assert titles(server, lab, environment="staging") == [2, 4, 6]
    both = server.get(f"{lab.path}issues/?environment=staging&environment=production")
    assert len(both) == 6


def test_an_event_id_as_query_finds_its_issue_with_a_direct_hit(server, lab):
    event = lab.lab["alpha2 number 3"]
    answer = server.call("GET", f"{lab.path}issues/?query={event['eventID']}")
    assert answer.headers["X-Sentry-Direct-Hit"] == "1"
    assert [issue["id"] for issue in answer.json()] == [event["groupID"]]
    assert answer.json()[0]["matchingEventId"] == event["eventID"]
    dashed = uuid.UUID(event["eventID"])
    assert server.get(f"{lab.path}issues/?query={dashed}")[0]["id"] == event["groupID"]


def test_an_unknown_event_id_is_a_direct_hit_on_nothing(server, lab):
    answer = server.call("GET", f"{lab.path}issues/?query={uuid.uuid4().hex}")
    assert (answer.headers["X-Sentry-Direct-Hit"], answer.json()) == ("1", [])


def test_a_short_id_as_query_finds_nothing(server, lab):
    short = server.get(f"{lab.path}issues/")[0]["shortId"]
    assert server.get(f"{lab.path}issues/?query={short}&shortIdLookup=1") == []


def test_project_and_id_filter_by_number(server, lab):
    path = f"/api/0/organizations/{lab.organization}/issues/"
    assert len(server.get(f"{path}?project={lab.id}")) == 6
    assert server.get(f"{path}?project=-1") == []
    assert server.call("GET", f"{path}?project={lab.slug}").status_code == 422
    ids = [event["groupID"] for event in lab.lab.values()][:2]
    assert {issue["id"] for issue in server.get(f"{path}?id={ids[0]}&id={ids[1]}")} == set(ids)


def test_start_and_end_look_at_first_seen(server, lab):
    assert len(titles(server, lab, start="now-1h")) == 6
    assert titles(server, lab, end="now-1h") == []
    assert len(titles(server, lab, start="2020-01-01")) == 6
    assert len(titles(server, lab, start="now - 1h")) == 6
    for value in ("-24h", "xx", "now-1w", ""):
        assert server.call("GET", f"{lab.path}issues/?start={value}").status_code == 422


def test_unknown_parameters_are_ignored(server, lab):
    assert len(server.get(f"{lab.path}issues/?statsPeriod=1h&per_page=2&foo=bar")) == 6


def test_only_the_servers_own_sort_names_work(server, lab):
    newest = server.get(f"{lab.path}issues/?sort=-first_seen")
    assert newest[0]["title"].endswith("number 6")
    assert server.get(f"{lab.path}issues/?sort=first_seen")[0]["title"].endswith("number 1")
    assert server.call("GET", f"{lab.path}issues/?sort=date").status_code == 422


def test_issues_of_a_missing_project_are_an_empty_list_and_of_a_missing_organization_404(server, project):
    assert server.get(f"/api/0/projects/{project.organization}/nope/issues/") == []
    assert server.call("GET", "/api/0/organizations/nope-nope/issues/").status_code == 404


def listed(server, lab, sort):
    return server.get(f"{lab.path}issues/?sort={quote(sort)}")


def test_the_newest_last_seen_comes_first_by_itself(server, lab):
    found = server.get(f"{lab.path}issues/")
    assert found == listed(server, lab, "-last_seen") == listed(server, lab, "last_seen")[::-1]
    times = [issue["lastSeen"] for issue in found]
    assert times == sorted(times, reverse=True)
    assert number_of(found[0]) in {2, 3}


def test_issues_are_sorted_by_their_count(server, lab):
    for sort, counts in (("-count", [3, 2, 1, 1, 1, 1]), ("count", [1, 1, 1, 1, 2, 3])):
        assert [int(issue["count"]) for issue in listed(server, lab, sort)] == counts


def test_priority_is_the_logarithm_of_the_count_and_the_time_of_the_last_event(server, lab):
    def priority(issue):
        seen = datetime.fromisoformat(issue["lastSeen"]).timestamp()
        return math.log10(int(issue["count"])) + seen / 300_000

    falling = listed(server, lab, "-priority")
    values = [priority(issue) for issue in falling]
    assert values == sorted(values, reverse=True)
    assert [number_of(issue) for issue in falling[:2]] == [3, 2]
    assert listed(server, lab, "priority") == falling[::-1]


def pages(server, path):
    """The ids on each page, and what X-Hits said."""
    found, hits, cursor = [], [], ""
    while True:
        answer = server.call("GET", f"{path}{cursor}")
        found.append([issue["id"] for issue in answer.json()])
        hits.append(answer.headers["X-Hits"])
        link = re.search(r'<([^>]+)>; rel="next"; results="true"', answer.headers["Link"])
        if link is None:
            return found, hits
        cursor = "&cursor=" + quote(parse_qs(urlsplit(link[1]).query)["cursor"][0])


@pytest.mark.parametrize("sort", ["-last_seen", "last_seen", "-first_seen", "first_seen"])
def test_pages_by_time_hold_each_issue_once(server, lab, sort):
    found, hits = pages(server, f"{lab.path}issues/?limit=2&sort={sort}")
    assert [len(page) for page in found] == [2, 2, 2]
    assert max(Counter(number for page in found for number in page).values()) == 1
    assert hits == ["6", "6", "6"]


def test_a_page_of_no_size_holds_the_usual_number_and_one_below_none(server, lab):
    assert len(server.get(f"{lab.path}issues/?limit=0")) == 6
    assert server.get(f"{lab.path}issues/?limit=-1") == []
    assert server.call("GET", f"{lab.path}issues/?limit=abc").status_code == 422
    assert server.call("GET", f"{lab.path}issues/?cursor=zzz").status_code == 422


def test_an_empty_sort_is_422(server, lab):
    assert server.call("GET", f"{lab.path}issues/?sort=").status_code == 422


def test_a_bulk_change_takes_the_filters_of_a_list(server, lab):
    path = f"/api/0/organizations/{lab.organization}/issues/?project={lab.id}&environment=staging"
    assert server.call("PUT", f"{path}&query=level%3Adebug", {"status": "ignored"}).status_code == 200
    assert titles(server, lab, "is:ignored") == [6]
    assert server.call("PUT", f"{path}&end=now-1h", {"status": "resolved"}).status_code == 200
    assert titles(server, lab, "is:resolved") == []
    assert server.call("PUT", path, {"status": "unresolved"}).status_code == 200
    assert titles(server, lab, "is:ignored") == []
