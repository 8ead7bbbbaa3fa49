"""Grouping, changing and merging issues, events, tags, hashes, comments."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest


def word():
    return "w" + uuid.uuid4().hex[:10]


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


@pytest.fixture
def paths(project):
    """The paths of the run's organization: all issues, and one in it."""
    return f"/api/0/organizations/{project.organization}/issues/"


def test_the_status_is_changed_and_the_change_is_answered(server, project, issue):
    for status in ("resolved", "ignored", "unresolved"):
        answer = server.call("PUT", f"/api/0/issues/{issue}/", {"status": status})
        assert (answer.status_code, answer.json()["status"]) == (200, status)
        assert project.issue(issue)["status"] == status


@pytest.mark.line("5.2")
def test_the_answer_of_a_change_is_partly_snake_case(server, issue):
    changed = server.call("PUT", f"/api/0/issues/{issue}/", {"status": "ignored"}).json()
    snake = {"share_id", "status_details", "subscription_details", "user_count", "matching_event_id"}
    assert snake | {"firstSeen", "lastSeen", "shortId", "numComments", "userReportCount"} <= changed.keys()


@pytest.mark.line("6.2", provenance="documented: GlitchTip 6.2 source, update_issue")
def test_the_answer_of_a_change_is_camel_case(server, project, issue):
    changed = server.call("PUT", f"/api/0/issues/{issue}/", {"status": "ignored"}).json()
    assert changed.keys() == project.issue(issue).keys()


def test_a_status_of_sentry_is_422(server, issue):
    for status in ("muted", "resolvedInNextRelease"):
        answer = server.call("PUT", f"/api/0/issues/{issue}/", {"status": status})
        assert answer.status_code == 422
        assert "'unresolved', 'resolved' or 'ignored'" in answer.text


@pytest.mark.line("5.2")
def test_a_change_of_nothing_is_500(server, issue):
    for body in ({}, {"status": None}):
        assert server.call("PUT", f"/api/0/issues/{issue}/", body).status_code == 500


@pytest.mark.line("6.2", provenance="documented: GlitchTip 6.2 source, update_issue_status")
def test_a_change_of_nothing_changes_nothing(server, project, issue):
    before = project.issue(issue)
    assert server.call("PUT", f"/api/0/issues/{issue}/", {}).status_code == 200
    assert project.issue(issue) == before


@pytest.mark.line("5.2")
def test_assignment_and_status_details_are_dropped_without_a_word(server, project, issue):
    body = {
        "status": "unresolved",
        "assignedTo": "me",
        "statusDetails": {"inNextRelease": True},
        "hasSeen": True,
    }
    assert server.call("PUT", f"/api/0/issues/{issue}/", body).status_code == 200
    shown = project.issue(issue)
    assert (shown["status"], shown["statusDetails"]) == ("unresolved", {})
    assert not {"assignedTo", "firstRelease", "lastRelease"} & shown.keys()


@pytest.mark.line(
    "6.2", provenance="documented: GlitchTip 6.2.6 OpenAPI document and source, resolve_assignee"
)
def test_an_issue_is_assigned_to_a_member_or_a_team_or_to_nobody(server, project, issue):
    path = f"/api/0/issues/{issue}/"
    for wanted, kind in ((server.email, "user"), ("team:crew", "team")):
        assert server.call("PUT", path, {"assignedTo": wanted}).json()["assignedTo"]["type"] == kind
        assert project.issue(issue)["assignedTo"]["type"] == kind
    assert server.call("PUT", path, {"assignedTo": ""}).json()["assignedTo"] is None
    assert server.call("PUT", path, {"assignedTo": "nobody@example.org"}).status_code == 404
    assert server.call("PUT", path, {"assignedTo": "team:nope"}).status_code == 404
    assert server.call("PUT", path, {"assignedTo": "user:x"}).status_code == 400


@pytest.mark.line(
    "6.2", provenance="documented: CHANGELOG 6.0.8 and GlitchTip 6.2 source, process_issue_events"
)
def test_an_issue_resolved_in_a_release_stays_resolved_for_that_release(server, project):
    text = word()
    number = project.sent_and_stored(text, release="shop@1.0.0")["groupID"]
    shown = project.issue(number)
    assert (shown["firstRelease"]["version"], shown["assignedTo"]) == ("shop@1.0.0", None)
    body = {"status": "resolved", "statusDetails": {"inRelease": "shop@1.0.0"}}
    assert server.call("PUT", f"/api/0/issues/{number}/", body).json()["status"] == "resolved"
    project.sent_and_stored(text, release="shop@1.0.0")
    assert project.issue(number)["status"] == "resolved"
    project.sent_and_stored(text, release="shop@2.0.0")
    after = project.issue(number)
    assert (after["status"], after["lastRelease"]["version"]) == ("unresolved", "shop@2.0.0")


@pytest.mark.line("6.2", provenance="documented: GlitchTip 6.2.6 OpenAPI document")
def test_the_commits_of_an_issue_are_a_list(server, issue):
    assert server.get(f"/api/0/issues/{issue}/commits/") == []
    assert server.call("GET", "/api/0/issues/999999999/commits/").status_code == 404


@pytest.mark.line("5.2")
def test_the_organizations_path_of_an_issue_can_be_written_but_not_read(server, paths, issue):
    assert server.call("PUT", f"{paths}{issue}/", {"status": "ignored"}).status_code == 200
    assert server.call("GET", f"{paths}{issue}/").status_code == 405


@pytest.mark.line("6.2", provenance="documented: GlitchTip 6.2.6 OpenAPI document")
def test_an_issue_is_also_under_the_path_of_its_organization(server, project, paths, issue):
    assert server.get(f"{paths}{issue}/") == project.issue(issue)
    for part in ("tags", "comments", "events", "commits"):
        assert isinstance(server.get(f"{paths}{issue}/{part}/"), list)
    assert server.get(f"{paths}{issue}/events/latest/")["groupID"] == issue
    assert server.call("DELETE", f"{paths}{issue}/").status_code == 204


def test_a_missing_issue_cannot_be_changed(server, paths):
    for path in ("/api/0/issues/999999999/", f"{paths}999999999/"):
        assert server.call("PUT", path, {"status": "resolved"}).status_code == 404
    assert server.call("DELETE", "/api/0/issues/999999999/").status_code == 404


def test_short_ids_count_in_base_32(server, new_project):
    project = new_project()
    project.all_stored(*(word() for _ in range(11)))
    listed = server.get(f"{project.path}issues/?limit=100")
    ends = sorted(issue["shortId"].rpartition("-")[2] for issue in listed)
    assert ends == ["1", "2", "3", "4", "5", "6", "7", "8", "9", "A", "B"]


def test_the_permalink_has_the_projects_slug_where_the_organizations_belongs(project, issue):
    assert project.issue(issue)["permalink"].endswith(f"/{project.slug}/issues/{issue}")


def test_the_title_is_cut_to_100_characters_and_the_message_is_not(project):
    found = project.sent_and_stored("x" * 300)
    assert (len(found["title"]), found["title"][-1]) == (100, "…")
    assert found["message"] == "ValueError: " + "x" * 99 + "…"


def test_the_title_of_a_message_keeps_its_lines(project):
    event = project.event()
    del event["exception"]
    event["message"] = text = f"{word()}\nsecond line"
    assert project.post(project.envelope(event)).status_code == 200
    found = project.await_event(event["event_id"])
    assert (found["title"], found["metadata"]) == (text, {"title": text})
    assert project.issue(found["groupID"])["metadata"] == {}


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


@pytest.fixture(scope="module")
def merged(server, new_project):
    """A project, and the ids of two issues of it after their merge: the one that is gone and the survivor."""
    project = new_project()
    texts = [word(), word()]
    stored = project.all_stored(*texts, texts[0], tags={"part": "m"})
    gone, survivor = sorted({event["groupID"] for event in stored}, key=int)
    bulk = f"/api/0/organizations/{project.organization}/issues/?id={gone}&id={survivor}"
    answer = server.call("PUT", bulk, {"merge": 1})
    assert (answer.status_code, answer.json()["status"], answer.json()["merge"]) == (200, None, 1)
    return project, gone, survivor


def test_a_merge_keeps_the_highest_id(server, merged):
    project, gone, survivor = merged
    listed = server.get(f"/api/0/organizations/{project.organization}/issues/?id={gone}&id={survivor}")
    assert [item["id"] for item in listed] == [survivor]


def test_a_merged_issue_can_still_be_read_and_changed_and_stays_in_the_projects_list(server, merged):
    project, gone, survivor = merged
    assert project.issue(gone)["id"] == gone
    listed = server.get(f"{project.path}issues/?id={gone}&id={survivor}")
    assert {item["id"] for item in listed} == {gone, survivor}
    bulk = f"/api/0/organizations/{project.organization}/issues/?id={gone}"
    assert server.call("PUT", bulk, {"status": "ignored"}).status_code == 200
    assert project.issue(gone)["status"] == "ignored"


def test_events_and_hashes_of_merged_issues_move_and_tags_do_not(server, merged):
    project, gone, survivor = merged
    counts = [len(server.get(f"/api/0/issues/{number}/events/")) for number in (gone, survivor)]
    assert counts == [0, 3]
    assert server.call("GET", f"/api/0/issues/{gone}/events/latest/").status_code == 404
    base = f"/api/0/organizations/{project.organization}/issues/"
    hashes = [[item["id"] for item in server.get(f"{base}{number}/hashes/")] for number in (gone, survivor)]
    assert (hashes[0], len(hashes[1])) == ([], 2)
    assert hashes[1] == sorted(hashes[1])
    tags = [
        server.get(f"/api/0/issues/{number}/tags/?key=part")[0]["totalValues"] for number in (gone, survivor)
    ]
    assert sorted(tags) == [1, 2]


@pytest.mark.line("5.2")
def test_a_merge_does_not_sum_the_counts(merged):
    project, gone, survivor = merged
    counts = [project.issue(number)["count"] for number in (gone, survivor)]
    assert sorted(counts) == ["1", "2"]


@pytest.mark.line("6.2", provenance="documented: GlitchTip 6.2 source, update_issues")
def test_a_merge_adds_the_moved_events_to_the_count(merged):
    project, _, survivor = merged
    assert project.issue(survivor)["count"] == "3"


def test_a_removed_hash_makes_a_new_issue_of_later_events(server, project, scoped):
    text = word()
    number = project.sent_and_stored(text)["groupID"]
    path = f"/api/0/organizations/{project.organization}/issues/{number}/hashes/"
    found = server.get(path)
    assert found[0]["latestEvent"]["groupID"] == number
    assert server.call("GET", path, token=scoped("event:write")).status_code == 403
    assert server.call("DELETE", path).status_code == 422
    assert server.call("DELETE", f"{path}?id={found[0]['id']}").status_code == 202
    assert server.get(path) == []
    assert project.sent_and_stored(text)["groupID"] != number


def test_a_bulk_change_does_not_understand_event_ids(server, project, paths):
    event = project.sent_and_stored(word())
    assert server.call("PUT", f"{paths}?query={event['eventID']}", {"status": "ignored"}).status_code == 200
    assert project.issue(event["groupID"])["status"] == "unresolved"


def test_a_bulk_change_is_checked_like_a_single_one(server, paths, issue):
    assert server.call("PUT", f"{paths}?id={issue}", {"status": "nope"}).status_code == 422
    assert server.call("PUT", f"{paths}?id=x", {"status": "resolved"}).status_code == 422
    assert server.call("PUT", f"{paths}?query=%22", {"status": "resolved"}).status_code == 500


def test_what_belongs_to_a_missing_issue_is_an_empty_list(server, paths):
    for part in ("events", "comments", "user-reports"):
        assert server.get(f"/api/0/issues/999999999/{part}/") == []
    assert server.get(f"{paths}999999999/hashes/") == []
    assert server.call("GET", "/api/0/issues/999999999/tags/").status_code == 404
    assert server.call("GET", "/api/0/issues/999999999/events/latest/").status_code == 404


def test_a_breadcrumb_of_a_level_that_is_none_is_info(project):
    levels = ["log", "critical", "warning", "debug", None]
    crumbs = [{"message": str(level), "level": level} for level in levels]
    found = project.sent_and_stored(word(), breadcrumbs={"values": crumbs})
    values = found["entries"][1]["data"]["values"]
    assert [value["level"] for value in values] == ["info", "info", "warning", "debug", "info"]


def test_the_user_reports_of_an_issue_are_a_list(server, issue):
    assert server.get(f"/api/0/issues/{issue}/user-reports/") == []


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
    assert raw["event_id"] == event["eventID"]
    assert not {"release", "message", "entries"} & raw.keys()


@pytest.mark.line("5.2")
def test_the_raw_form_of_a_missing_event_is_500(server, paths, issue):
    assert server.call("GET", f"{paths}{issue}/events/{uuid.UUID(int=0).hex}/json/").status_code == 500


@pytest.mark.line("6.2", provenance="documented: GlitchTip 6.2 source, get_event_json")
def test_the_raw_form_of_a_missing_event_is_404(server, paths, issue):
    assert server.call("GET", f"{paths}{issue}/events/{uuid.UUID(int=0).hex}/json/").status_code == 404


def test_the_request_of_an_event_is_camel_case_in_its_detail_and_snake_case_in_the_list(server, project):
    sent = {
        "url": "http://shop.example/pay",
        "method": "GET",
        "query_string": [["b", "1"]],
        "headers": {"Content-Type": "text/plain"},
    }
    event = project.sent_and_stored(word(), request=sent)
    listed = server.get(f"/api/0/issues/{event['groupID']}/events/")[0]
    shown, snake = (
        next(e["data"] for e in found["entries"] if e["type"] == "request") for found in (event, listed)
    )
    assert (shown["query"], shown["inferredContentType"]) == ([["b", "1"]], "text/plain")
    assert (snake["query_string"], snake["inferred_content_type"]) == ([["b", "1"]], "text/plain")


def test_a_message_keeps_its_parameters(project):
    event = project.event()
    del event["exception"]
    event["logentry"] = {"message": f"hello %s {word()}", "params": ["there"]}
    assert project.post(project.envelope(event)).status_code == 200
    found = project.await_event(event["event_id"])
    text = event["logentry"]["message"].replace("%s", "there")
    data = {"message": event["logentry"]["message"], "params": ["there"], "formatted": text}
    assert found["entries"] == [{"type": "message", "data": data}]
    assert found["title"] == text


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
    for data in ({"text": None}, {"text": 7}, {"text": "x", "more": "y"}):
        assert server.call("POST", path, {"data": data}).status_code == 422
    answer = server.call("PUT", f"{path}999999999/", {"data": {"text": "x"}})
    assert (answer.status_code, answer.json()) == (400, {"detail": "Comment does not exist"})
    answer = server.call("POST", "/api/0/issues/999999999/comments/", {"data": {"text": "x"}})
    assert (answer.status_code, answer.json()) == (400, {"detail": "Issue does not exist"})


def test_comments_are_written_with_event_write_but_not_read_with_it(server, scoped, issue):
    path = f"/api/0/issues/{issue}/comments/"
    token = scoped("event:write")
    assert server.call("POST", path, {"data": {"text": "x"}}, token=token).status_code == 201
    assert server.call("GET", path, token=token).status_code == 403
    assert server.call("GET", path, token=scoped("event:read")).status_code == 200
