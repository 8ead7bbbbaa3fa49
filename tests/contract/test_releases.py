"""Releases, which need a scope of their own, and environments, which only events make."""

from __future__ import annotations

import re
import uuid

import pytest


def version():
    return f"shop@{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def releases(organization):
    """Where the releases of the organization are."""
    return f"/api/0/organizations/{organization}/releases/"


@pytest.fixture
def release(server, releases, project):
    """A release of the project."""
    made = server.post(releases, {"version": version(), "projects": [project.slug], "ref": "main"})
    yield made
    server.call("DELETE", f"{releases}{made['version']}/")


def test_a_release_has_these_fields_and_is_released_now(release, project):
    assert release == {
        "ref": "main",
        "dateReleased": release["dateReleased"],
        "version": release["version"],
        "dateCreated": release["dateCreated"],
        "shortVersion": release["version"],
        "projects": [{"name": project.name, "slug": project.slug}],
        "url": None,
        "data": {},
        "deployCount": 0,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", release["dateReleased"])


def test_the_same_version_again_is_500_also_for_another_project(server, releases, release, new_project):
    for slug in (release["projects"][0]["slug"], new_project().slug):
        answer = server.call("POST", releases, {"version": release["version"], "projects": [slug]})
        assert answer.status_code == 500
        assert answer.headers["Content-Type"].startswith("text/html")


def test_made_below_a_project_it_may_be_repeated_and_adds_the_project(server, release, new_project):
    other = new_project()
    path = f"/api/0/projects/{other.organization}/{other.slug}/releases/"
    for _ in range(2):
        found = server.post(path, {"version": release["version"], "ref": "ignored"})
        assert [item["slug"] for item in found["projects"]] == [
            release["projects"][0]["slug"],
            other.slug,
        ]
        assert (found["ref"], found["dateReleased"]) == ("main", release["dateReleased"])
    assert server.get(f"{path}{release['version']}/") == found


@pytest.mark.parametrize("projects", [[], ["no-such-project"]])
def test_a_release_needs_a_project_that_exists(server, releases, projects):
    answer = server.call("POST", releases, {"version": version(), "projects": projects})
    assert answer.status_code == 422
    assert answer.json() == {"detail": [{"projects": "Require at least one valid project"}]}


def test_projects_that_do_not_exist_are_left_out_beside_one_that_does(server, releases, project):
    body = {"version": version(), "projects": ["no-such-project", project.slug], "dateReleased": None}
    made = server.post(releases, body)
    assert [item["slug"] for item in made["projects"]] == [project.slug]
    assert made["dateReleased"] is None
    server.call("DELETE", f"{releases}{made['version']}/")


@pytest.mark.parametrize("left_out", ["version", "projects"])
def test_version_and_projects_are_required(server, releases, project, left_out):
    body = {"version": version(), "projects": [project.slug]}
    del body[left_out]
    answer = server.call("POST", releases, body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "payload", left_out]


def test_a_version_of_more_than_255_characters_is_500(server, releases, project):
    answer = server.call("POST", releases, {"version": "v" * 256, "projects": [project.slug]})
    assert answer.status_code == 500


def test_a_date_that_is_none_is_422(server, releases, project):
    body = {"version": version(), "projects": [project.slug], "dateReleased": "x"}
    answer = server.call("POST", releases, body)
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "datetime_from_date_parsing")


def test_a_change_forgets_what_is_not_sent(server, releases, release):
    path = f"{releases}{release['version']}/"
    dated = server.call("PUT", path, {"dateReleased": "2026-01-02T00:00:00Z"}).json()
    assert (dated["ref"], dated["dateReleased"]) == (None, "2026-01-02T00:00:00Z")
    named = server.call("PUT", path, {"ref": "abc"}).json()
    assert named["ref"] == "abc"
    assert named["dateReleased"] > release["dateCreated"]
    assert server.call("PUT", path, {"ref": "abc", "dateReleased": None}).json()["dateReleased"] is None
    assert server.get(path)["projects"] == release["projects"]


def test_a_version_is_addressed_quoted_or_not_but_never_with_a_slash(server, releases, project, release):
    quoted = release["version"].replace("@", "%40")
    assert server.get(f"{releases}{quoted}/") == release
    name = f"app/{uuid.uuid4().hex[:8]}"
    server.post(releases, {"version": name, "projects": [project.slug]})
    assert server.has_no_path(server.call("GET", f"{releases}{name.replace('/', '%2F')}/"), 200)
    assert name in [item["version"] for item in server.get(f"{releases}?limit=100")]


def test_a_release_that_is_not_there_is_404(server, releases, project):
    for method, body in (("GET", None), ("PUT", {"ref": "x"}), ("DELETE", None)):
        for path in (releases, f"{project.path}releases/"):
            answer = server.call(method, f"{path}no-such-release/", body)
            assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_a_release_is_deleted_once_also_below_a_project(server, releases, project):
    for path in (releases, f"{project.path}releases/"):
        made = server.post(releases, {"version": version(), "projects": [project.slug]})
        assert server.call("DELETE", f"{path}{made['version']}/").status_code == 204
        assert server.call("DELETE", f"{path}{made['version']}/").status_code == 404


def test_releases_are_listed_newest_first_and_a_missing_place_is_empty(server, releases, project, release):
    again = server.post(releases, {"version": version(), "projects": [project.slug]})
    for path in (releases, f"{project.path}releases/"):
        newest = [item["version"] for item in server.get(path)][:2]
        assert newest == [again["version"], release["version"]]
    server.call("DELETE", f"{releases}{again['version']}/")
    assert server.get("/api/0/organizations/no-such-organization/releases/") == []
    assert server.get(f"/api/0/projects/{project.organization}/no-such-project/releases/") == []


@pytest.mark.line("5.2")
def test_deploys_and_commits_of_a_release_are_pages_of_the_app_and_its_files_a_list(
    server, releases, release
):
    for name in ("deploys", "commits"):
        answer = server.call("GET", f"{releases}{release['version']}/{name}/")
        assert (answer.status_code, answer.headers["Content-Type"][:9]) == (200, "text/html")
    assert server.call("POST", f"{releases}{release['version']}/deploys/", {}).status_code == 403
    assert server.get(f"{releases}{release['version']}/files/") == []


def test_a_release_cannot_be_patched(server, releases, release):
    assert server.call("PATCH", f"{releases}{release['version']}/", {}).status_code == 405


def test_an_event_makes_its_release_without_a_date_and_adds_its_project(server, releases, new_project):
    name, places = version(), [new_project(), new_project()]
    for place in places:
        place.sent_and_stored(release=name)
    found = server.get(f"{releases}{name}/")
    assert sorted(item["slug"] for item in found["projects"]) == sorted(place.slug for place in places)
    assert (found["dateReleased"], found["ref"]) == (None, None)


def test_environments_come_from_events_newest_first_and_once_for_each_project(
    server, organization, new_project
):
    names = [f"env-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    first, second = new_project(), new_project()
    for place, name in ((first, names[0]), (first, names[1]), (second, names[1])):
        place.sent_and_stored(environment=name)
    own = server.get(f"{first.path}environments/")
    assert [item["name"] for item in own] == list(reversed(names))
    assert all(item.keys() == {"name", "id", "isHidden"} and item["isHidden"] is False for item in own)
    everywhere = server.get(f"/api/0/organizations/{organization}/environments/?limit=100")
    listed = [item for item in everywhere if item["name"] in names]
    assert [item["name"] for item in listed] == [names[1], names[1], names[0]]
    assert listed[0] == listed[1]
    assert listed[0].keys() == {"id", "name"}


def test_an_environment_is_hidden_and_shown_in_a_project(server, organization, new_project):
    place, name = new_project(), f"env-{uuid.uuid4().hex[:8]}"
    place.sent_and_stored(environment=name)
    path = f"{place.path}environments/{name}/"
    everywhere = f"/api/0/organizations/{organization}/environments/?limit=100&visibility="

    def seen(visibility):
        return name in [item["name"] for item in server.get(everywhere + visibility)]

    hidden = server.call("PUT", path, {"name": "ignored", "isHidden": True}).json()
    assert (hidden["name"], hidden["isHidden"]) == (name, True)
    assert server.get(f"{place.path}environments/") == []
    assert server.get(f"{place.path}environments/?visibility=hidden") == [hidden]
    assert server.get(f"{place.path}environments/?visibility=all") == [hidden]
    assert [seen(each) for each in ("visible", "hidden", "all")] == [False, True, True]
    server.call("PUT", path, {"name": name, "isHidden": False})
    assert [seen(each) for each in ("visible", "hidden", "all")] == [True, False, True]


def test_an_environment_can_only_be_hidden(server, project):
    path = f"{project.path}environments/no-such-one/"
    assert server.call("PUT", path, {"name": "no-such-one", "isHidden": True}).status_code == 404
    assert server.call("GET", path).status_code == 405
    for body, where in (({"name": "x"}, "isHidden"), ({"isHidden": True}, "name")):
        answer = server.call("PUT", path, body)
        assert answer.json()["detail"][0]["loc"] == ["body", "payload", where]


def test_an_environment_with_a_slash_cannot_be_reached(server, project):
    answer = server.call("PUT", f"{project.path}environments/a%2Fb/", {"name": "a/b", "isHidden": True})
    assert server.has_no_path(answer, 403)


def test_a_visibility_is_one_of_three_words(server, organization, project):
    for path in (f"/api/0/organizations/{organization}/", project.path):
        answer = server.call("GET", f"{path}environments/?visibility=some")
        assert answer.status_code == 422
        error = answer.json()["detail"][0]
        assert (error["type"], error["msg"]) == (
            "literal_error",
            "Input should be 'all', 'hidden' or 'visible'",
        )


def test_environments_of_a_missing_place_are_an_empty_list(server, organization):
    assert server.get("/api/0/organizations/no-such-organization/environments/") == []
    assert server.get(f"/api/0/projects/{organization}/no-such-project/environments/") == []
