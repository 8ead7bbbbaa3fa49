"""Grouping, the search language, changing issues, events, tags, comments."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from urllib.parse import quote

import pytest


def word():
    return "w" + uuid.uuid4().hex[:10]


@pytest.fixture(scope="module")
def lab(new_project):
    """A project with six issues: levels, components and environments to search for."""
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
        sent[text] = project.send(
            text, level=level, tags={"component": component}, environment=environment, release="shop@1.0.0"
        )
    project.lab = {text: project.await_event(number) for text, number in sent.items()}
    return project


def titles(server, project, query="", **parameters):
    pairs = [("query", query)] if query else []
    pairs += list(parameters.items())
    text = "&".join(f"{key}={quote(str(value))}" for key, value in pairs)
    found = server.get(f"{project.path}issues/?{text}")
    return sorted(int(re.search(r"number (\d)", issue["title"])[1]) for issue in found)


def test_events_group_by_title_and_place(project):
    text = word()
    first, second, other = project.all_stored(text, text, word())
    assert first["groupID"] == second["groupID"] != other["groupID"]
    assert project.issue(first["groupID"])["count"] == "2"


def test_a_fingerprint_decides_the_group(project):
    mark = word()
    first, second = project.all_stored(word(), word(), fingerprint=[mark])
    assert first["groupID"] == second["groupID"]


def test_title_and_level_of_an_issue_stay_those_of_the_first_event(project):
    text = word()
    first, second = project.send(text, level="error"), project.send(text, level="fatal")
    project.await_event(second)
    first = project.await_event(first)
    issue = project.issue(first["groupID"])
    assert (issue["level"], issue["count"]) == ("error", "2")


def test_an_issue_has_its_documented_shape(project):
    event = project.sent_and_stored(word())
    issue = project.issue(event["groupID"])
    assert isinstance(issue["count"], str)
    assert issue["shortId"].startswith(project.slug.upper() + "-")
    assert issue["project"]["slug"] == project.slug
    assert (issue["type"], issue["status"], issue["userCount"]) == ("error", "unresolved", 0)
    assert issue["metadata"]["filename"] == "app/views.py"
    assert issue["firstSeen"].endswith("Z")


def test_a_message_event_is_of_type_default(project):
    event = project.event()
    del event["exception"]
    event["message"] = text = word()
    assert project.post(project.envelope(event)).status_code == 200
    found = project.await_event(event["event_id"])
    assert (found["type"], found["title"]) == ("default", text)
    assert found["entries"] == [{"type": "message", "data": {"formatted": text}}]


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
        ("assigned:me", []),
    ],
)
def test_the_search_language(server, lab, query, numbers):
    assert titles(server, lab, query) == numbers


def test_a_lone_quote_is_500(server, lab):
    for query in ('"oops', "can't"):
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
    for value in ("-24h", "xx"):
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


def test_a_missing_issue_is_404_and_a_short_id_the_app(server, project):
    assert server.call("GET", "/api/0/issues/999999999/").status_code == 404
    answer = server.call("GET", f"/api/0/issues/{project.slug.upper()}-1/")
    assert answer.headers["Content-Type"].startswith("text/html")


@pytest.fixture(scope="module")
def fresh_issues(project):
    """Ids of issues that nobody touched, made in one go."""
    return [event["groupID"] for event in project.all_stored(*(word() for _ in range(12)))]


@pytest.fixture
def issue(fresh_issues):
    """The id of a fresh issue."""
    return fresh_issues.pop()


def test_the_status_is_changed_and_the_answer_is_partly_snake_case(server, project, issue):
    for status in ("resolved", "ignored", "unresolved"):
        answer = server.call("PUT", f"/api/0/issues/{issue}/", {"status": status})
        assert (answer.status_code, answer.json()["status"]) == (200, status)
        assert "share_id" in answer.json()
        assert "firstSeen" in answer.json()
        assert project.issue(issue)["status"] == status


def test_a_status_of_sentry_is_422_and_an_empty_body_500(server, issue):
    path = f"/api/0/issues/{issue}/"
    for status in ("muted", "resolvedInNextRelease"):
        answer = server.call("PUT", path, {"status": status})
        assert answer.status_code == 422
    assert server.call("PUT", path, {}).status_code == 500


def test_the_organizations_path_of_an_issue_can_be_written_but_not_read(server, project, issue):
    path = f"/api/0/organizations/{project.organization}/issues/{issue}/"
    assert server.call("PUT", path, {"status": "ignored"}).status_code == 200
    assert server.call("GET", path).status_code == 405


def test_a_bulk_change_by_id_answers_200_even_when_nothing_matches(server, project, issue):
    path = f"/api/0/organizations/{project.organization}/issues/"
    answer = server.call("PUT", f"{path}?id={issue}", {"status": "resolved"})
    assert (answer.status_code, answer.json()) == (200, {"status": "resolved", "merge": None})
    assert project.issue(issue)["status"] == "resolved"
    assert server.call("PUT", f"{path}?id=999999999", {"status": "resolved"}).status_code == 200


def test_a_bulk_change_by_query_changes_what_the_query_finds(server, new_project):
    project = new_project()
    hit = project.sent_and_stored(word(), tags={"component": "c2"})["groupID"]
    miss = project.sent_and_stored(word(), tags={"component": "c3"})["groupID"]
    path = f"/api/0/organizations/{project.organization}/issues/?query=component:c2&project={project.id}"
    assert server.call("PUT", path, {"status": "ignored"}).status_code == 200
    assert [project.issue(number)["status"] for number in (hit, miss)] == ["ignored", "unresolved"]


def test_a_bulk_change_without_any_filter_changes_the_whole_organization(server, project):
    made = server.post("/api/0/organizations/", {"name": f"Bulk {word()}"})["slug"]
    server.post(f"/api/0/organizations/{made}/teams/", {"slug": "t"})
    found = server.post(f"/api/0/teams/{made}/t/projects/", {"name": "p"})
    key = uuid.UUID(server.get(f"/api/0/projects/{made}/p/keys/")[0]["id"]).hex
    from_this = replace(project, organization=made, slug=found["slug"], id=found["id"], key=key)
    issues = [event["groupID"] for event in from_this.all_stored(word(), word())]
    server.call("PUT", f"/api/0/organizations/{made}/issues/", {"status": "resolved"})
    assert [from_this.issue(number)["status"] for number in issues] == ["resolved", "resolved"]
    server.call("DELETE", f"/api/0/organizations/{made}/")


def test_a_new_event_opens_a_resolved_issue_and_leaves_an_ignored_one(server, project):
    texts = {"resolved": word(), "ignored": word()}
    numbers = [event["groupID"] for event in project.all_stored(*texts.values())]
    for number, status in zip(numbers, texts, strict=True):
        server.call("PUT", f"/api/0/issues/{number}/", {"status": status})
    project.all_stored(*texts.values())
    after = [(project.issue(number)["status"], project.issue(number)["count"]) for number in numbers]
    assert after == [("unresolved", "2"), ("ignored", "2")]


def test_a_deleted_issue_leaves_the_lists(server, project, issue):
    assert server.call("DELETE", f"/api/0/issues/{issue}/").status_code == 204
    assert server.get(f"/api/0/organizations/{project.organization}/issues/?id={issue}") == []


def test_a_bulk_delete_answers_200_with_a_status(server, project, issue):
    answer = server.call("DELETE", f"/api/0/organizations/{project.organization}/issues/?id={issue}")
    assert (answer.status_code, answer.json()) == (200, {"status": "resolved", "merge": None})


def test_a_merge_keeps_the_highest_id(server, project):
    ids = sorted((event["groupID"] for event in project.all_stored(word(), word())), key=int)
    path = f"/api/0/organizations/{project.organization}/issues/?id={ids[0]}&id={ids[1]}"
    answer = server.call("PUT", path, {"merge": 1})
    assert (answer.status_code, answer.json()) == (200, {"status": None, "merge": 1})
    listed = server.get(f"/api/0/organizations/{project.organization}/issues/?id={ids[0]}&id={ids[1]}")
    assert [item["id"] for item in listed] == [ids[1]]


def test_an_event_keeps_user_tags_breadcrumbs_extra_and_contexts(project):
    found = project.sent_and_stored(
        word(),
        level="warning",
        environment="staging",
        release="py@2.1.0",
        server_name="py-host",
        tags={"component": "payments"},
        user={"id": "42", "email": "jane@example.org", "username": "jane"},
        extra={"order": {"id": 1, "total": 9.5}},
        contexts={"cart": {"items": 3}, "os": {"name": "Debian"}},
        breadcrumbs={"values": [{"category": "auth", "message": "logged in", "data": {"k": "v"}}]},
    )
    tags = {tag["key"]: tag["value"] for tag in found["tags"]}
    assert tags == {
        "component": "payments",
        "environment": "staging",
        "release": "py@2.1.0",
        "server_name": "py-host",
        "user.id": "42",
        "user.email": "jane@example.org",
        "user.username": "jane",
        "os.name": "Debian",
    }
    assert found["context"] == {"order": {"id": 1, "total": 9.5}}
    assert found["contexts"]["cart"] == {"items": 3}
    assert found["user"]["id"] == "42"
    assert [entry["type"] for entry in found["entries"]] == ["exception", "breadcrumbs"]
    assert found["entries"][1]["data"]["values"][0]["message"] == "logged in"


def test_frames_are_shown_in_camel_case_with_their_lines(project):
    found = project.sent_and_stored(word())
    frame = found["entries"][0]["data"]["values"][0]["stacktrace"]["frames"][0]
    assert (frame["inApp"], frame["lineNo"]) == (True, 42)
    assert frame["context"] == [[42, "    raise ValueError()"]]


def test_the_culprit_of_an_event_is_its_transaction_or_its_frame(project):
    sent = {
        "checkout.pay": project.send(word(), transaction="checkout.pay"),
        "app.views in checkout": project.send(word()),
        "checkout(app.views)": project.send(word(), platform="node"),
    }
    for culprit, number in sent.items():
        assert project.await_event(number)["culprit"] == culprit


def test_latest_by_id_and_the_neighbours_of_an_event(server, project):
    text = word()
    first, second = project.all_stored(text, text)
    base = f"/api/0/issues/{first['groupID']}/events/"
    latest = server.get(f"{base}latest/")
    assert latest["eventID"] == second["eventID"]
    assert (latest["previousEventID"], latest["nextEventID"]) == (first["eventID"], None)
    assert server.get(f"{base}{first['eventID']}/")["nextEventID"] == second["eventID"]
    assert server.call("GET", f"{base}oldest/").status_code == 422


def test_the_list_of_an_issues_events_is_snake_case_and_newest_first(server, project):
    text = word()
    first, second = project.all_stored(text, text)
    listed = server.get(f"/api/0/issues/{first['groupID']}/events/")
    assert [event["event_id"] for event in listed] == [second["eventID"], first["eventID"]]
    assert {"group_id", "date_created", "project_id"} <= listed[0].keys()


def test_the_list_of_a_projects_events_is_camel_case_and_newest_first(server, project):
    event = project.sent_and_stored(word())
    listed = server.get(f"{project.path}events/?limit=1")
    assert [item["eventID"] for item in listed] == [event["eventID"]]
    assert {"groupID", "dateCreated", "projectID"} <= listed[0].keys()


def test_the_raw_form_has_level_environment_and_tags_as_an_object(server, project):
    event = project.sent_and_stored(word(), level="warning", environment="qa", tags={"a": "b"})
    base = f"/api/0/organizations/{project.organization}/issues/{event['groupID']}/events/"
    raw = server.get(f"{base}{event['eventID']}/json/")
    assert (raw["level"], raw["environment"], raw["tags"]["a"]) == ("warning", "qa", "b")
    assert server.call("GET", f"{base}{uuid.UUID(int=0).hex}/json/").status_code == 500


def test_tags_of_an_issue_are_counted_by_value(server, project):
    text = word()
    sent = [project.send(text, tags={"zone": zone}) for zone in ("eu", "eu", "us")]
    events = [project.await_event(number) for number in sent]
    found = server.get(f"/api/0/issues/{events[0]['groupID']}/tags/?key=zone")
    assert len(found) == 1
    assert (found[0]["key"], found[0]["uniqueValues"], found[0]["totalValues"]) == ("zone", 2, 3)
    assert {value["value"]: value["count"] for value in found[0]["topValues"]} == {"eu": 2, "us": 1}


def test_environments_appear_from_events(server, project):
    project.sent_and_stored(word(), environment="appeared")
    names = [item["name"] for item in server.get(f"{project.path}environments/")]
    assert "appeared" in names


def test_a_comment_is_kept_verbatim_and_listed_newest_first(server, issue):
    path = f"/api/0/issues/{issue}/comments/"
    texts = ["Looking at it **now**\nline 2 <b>x</b>", "", "y" * 20000]
    made = [server.post(path, {"data": {"text": text}}) for text in texts]
    assert [item["data"]["text"] for item in made] == texts
    assert made[0]["user"]["email"] == server.email
    assert [item["id"] for item in server.get(path)] == [item["id"] for item in reversed(made)]
    assert server.get(f"/api/0/issues/{issue}/")["numComments"] == 3


def test_a_comment_can_be_changed_and_deleted_once(server, issue):
    path = f"/api/0/issues/{issue}/comments/"
    made = server.post(path, {"data": {"text": "x"}})
    changed = server.call("PUT", f"{path}{made['id']}/", {"data": {"text": "edited"}})
    assert (changed.status_code, changed.json()["data"]) == (200, {"text": "edited"})
    assert server.call("DELETE", f"{path}{made['id']}/").status_code == 204
    answer = server.call("DELETE", f"{path}{made['id']}/")
    assert (answer.status_code, answer.json()) == (400, {"detail": "Comment does not exist"})


def test_a_comment_in_another_shape_is_refused(server, issue):
    path = f"/api/0/issues/{issue}/comments/"
    assert server.call("POST", path, {"text": "x"}).status_code == 422
    assert server.call("POST", path, {"data": {}}).status_code == 500
    answer = server.call("POST", "/api/0/issues/999999999/comments/", {"data": {"text": "x"}})
    assert (answer.status_code, answer.json()) == (400, {"detail": "Issue does not exist"})


def test_comments_are_written_with_event_write_but_not_read_with_it(server, scoped, issue):
    path = f"/api/0/issues/{issue}/comments/"
    token = scoped("event:write")
    assert server.call("POST", path, {"data": {"text": "x"}}, token=token).status_code == 201
    assert server.call("GET", path, token=token).status_code == 403
    assert server.call("GET", path, token=scoped("event:read")).status_code == 200
