"""Organizations, teams, members, projects, keys, and the scopes that they need."""

from __future__ import annotations

import uuid
from urllib.parse import urlsplit

import pytest
from contract.server import wait_until


def name():
    return f"Rule {uuid.uuid4().hex[:8]}"


@pytest.fixture
def scratch(server):
    """An organization of its own; its slug."""
    made = server.post("/api/0/organizations/", {"name": name()})
    yield made
    server.call("DELETE", f"/api/0/organizations/{made['slug']}/")


def test_the_slug_comes_from_the_name_and_stays_when_renamed(server, scratch):
    assert scratch["slug"] == scratch["name"].lower().replace(" ", "-")
    path = f"/api/0/organizations/{scratch['slug']}/"
    renamed = server.call("PUT", path, {"name": "Another Name"}).json()
    assert (renamed["name"], renamed["slug"]) == ("Another Name", scratch["slug"])


def test_a_second_organization_of_the_same_name_is_a_second_object(server, scratch):
    again = server.post("/api/0/organizations/", {"name": scratch["name"]})
    assert again["slug"].startswith(scratch["slug"] + "-")
    assert again["id"] != scratch["id"]
    server.call("DELETE", f"/api/0/organizations/{again['slug']}/")


def test_an_organization_name_has_at_most_200_characters(server):
    answer = server.call("POST", "/api/0/organizations/", {"name": "x" * 201})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["type"] == "string_too_long"


@pytest.mark.parametrize(("name", "slug"), [("", "-"), ("\u65e5\u672c\u8a9e", "-"), ("!!!", "-")])
def test_an_organization_whose_name_has_no_slug_gets_a_random_one(server, name, slug):
    made = server.post("/api/0/organizations/", {"name": name})
    server.call("DELETE", f"/api/0/organizations/{made['slug']}/")
    assert made["slug"].startswith(slug)
    assert len(made["slug"]) >= 3


def test_a_slug_in_the_body_of_an_organization_is_ignored(server, scratch):
    made = server.post(
        "/api/0/organizations/", {"name": f"{scratch['name']} \u00c4 b_c -- d", "slug": "mine"}
    )
    path = f"/api/0/organizations/{made['slug']}/"
    changed = server.call("PUT", path, {"name": "", "slug": "mine"})
    server.call("DELETE", path)
    assert made["slug"] == f"{scratch['slug']}-a-b_c-d"
    assert (changed.status_code, changed.json()["name"], changed.json()["slug"]) == (200, "", made["slug"])


def test_an_organization_is_changed_with_its_name_only(server, scratch):
    path = f"/api/0/organizations/{scratch['slug']}/"
    for body, kind in (
        ({}, "missing"),
        ({"name": None}, "string_type"),
        ({"name": "x" * 201}, "string_too_long"),
    ):
        answer = server.call("PUT", path, body)
        assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, kind), body


def test_a_missing_organization_is_404(server):
    answer = server.call("GET", "/api/0/organizations/nope-nope/")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_a_deleted_organization_is_404_and_out_of_the_list(server):
    made = server.post("/api/0/organizations/", {"name": name()})
    path = f"/api/0/organizations/{made['slug']}/"
    assert server.call("DELETE", path).status_code == 204
    assert server.call("GET", path).status_code == 404
    assert made["slug"] not in [item["slug"] for item in server.get("/api/0/organizations/")]


def test_the_creator_is_owner_and_member_of_the_team_he_makes(server, scratch):
    slug = scratch["slug"]
    me = server.get(f"/api/0/organizations/{slug}/members/")[0]
    assert (me["role"], me["isOwner"], me["pending"]) == ("owner", True, False)
    team = server.post(f"/api/0/organizations/{slug}/teams/", {"slug": "Ops_Team"})
    assert (team["slug"], team["isMember"], team["memberCount"]) == ("Ops_Team", True, 1)


def test_the_primary_owner_cannot_be_removed(server, scratch):
    slug = scratch["slug"]
    me = server.get(f"/api/0/organizations/{slug}/members/")[0]["id"]
    answer = server.call("DELETE", f"/api/0/organizations/{slug}/members/{me}/")
    assert answer.status_code == 400
    assert "Transfer ownership first" in answer.json()["detail"]


def test_joining_a_team_again_is_201(server, organization):
    path = f"/api/0/organizations/{organization}/members/me/teams/crew/"
    assert server.call("POST", path).status_code == 201
    assert server.call("POST", path).status_code == 201


def test_a_second_team_with_the_slug_is_500_html(server, organization):
    answer = server.call("POST", f"/api/0/organizations/{organization}/teams/", {"slug": "crew"})
    assert answer.status_code == 500
    assert answer.headers["Content-Type"].startswith("text/html")


def test_a_team_has_no_name_and_its_slug_a_pattern(server, organization):
    path = f"/api/0/organizations/{organization}/teams/"
    assert server.call("POST", path, {"name": "Frontend"}).status_code == 422
    for slug in ("has space", "", "\u00fcmlaut"):
        answer = server.call("POST", path, {"slug": slug})
        assert answer.json()["detail"][0]["type"] == "string_pattern_mismatch", slug
    answer = server.call("POST", path, {"slug": "x" * 51})
    assert answer.json()["detail"][0]["type"] == "string_too_long"


def test_the_case_of_a_team_is_kept_and_makes_another_team(server, organization):
    made = server.post(f"/api/0/organizations/{organization}/teams/", {"slug": "CREW", "name": "ignored"})
    server.call("DELETE", f"/api/0/teams/{organization}/CREW/")
    assert made["slug"] == "CREW"
    assert "name" not in made


def test_a_team_is_renamed_but_not_onto_another(server, organization):
    slug = uuid.uuid4().hex[:8]
    server.post(f"/api/0/organizations/{organization}/teams/", {"slug": slug})
    path = f"/api/0/teams/{organization}/{slug}/"
    assert server.call("PUT", path, {"slug": "crew"}).status_code == 500
    assert server.call("PUT", path, {"slug": f"{slug}-new"}).json()["slug"] == f"{slug}-new"
    assert server.call("DELETE", f"/api/0/teams/{organization}/{slug}-new/").status_code == 204


def test_a_team_of_a_missing_organization_is_404(server):
    assert server.call("POST", "/api/0/organizations/nope-nope/teams/", {"slug": "x"}).status_code == 404


def test_a_team_is_deleted_once(server, organization):
    slug = uuid.uuid4().hex[:8]
    server.post(f"/api/0/organizations/{organization}/teams/", {"slug": slug})
    path = f"/api/0/teams/{organization}/{slug}/"
    assert server.call("DELETE", path).status_code == 204
    assert server.call("DELETE", path).status_code == 404


def test_invitations_want_org_role_and_no_reserved_domain(server, organization):
    path = f"/api/0/organizations/{organization}/members/"
    answer = server.call("POST", path, {"email": "dev@example.org", "role": "member"})
    assert answer.json()["detail"][0]["loc"] == ["body", "payload", "orgRole"]
    assert server.call("POST", path, {"email": "dev@corp.local", "orgRole": "member"}).status_code == 422


def test_a_project_has_one_key_without_a_name_and_no_alert(server, new_project):
    project = new_project()
    keys = server.get(f"{project.path}keys/")
    assert [key["name"] for key in keys] == [""]
    assert server.get(f"{project.path}alerts/") == []


def test_a_second_project_of_the_same_name_gets_a_number(new_project):
    first = new_project()
    second = new_project(first.name)
    assert second.slug == f"{first.slug}-2"


def test_a_slug_in_the_body_is_ignored_and_platform_is_free_text(server, organization):
    body = {"name": name(), "slug": "custom", "platform": "cobol-9000"}
    made = server.post(f"/api/0/teams/{organization}/crew/projects/", body)
    assert (made["slug"] != "custom", made["platform"]) == (True, "cobol-9000")


@pytest.mark.parametrize(
    ("names", "slugs"),
    [
        (["new", "New", "new"], ["new-1", "new-1-2", "new-1-3"]),
        (["\u65e5\u672c\u8a9e", "", "!!!"], ["-2", "-3", "-4"]),
        (["x" * 64, "x" * 60], ["x" * 50, "x" * 48 + "-2"]),
        (["\u00c4 \u00d6", "a_b", "--c--d"], ["a-o", "a_b", "c-d"]),
    ],
)
def test_the_slug_of_a_project_comes_from_its_name(server, scratch, names, slugs):
    server.post(f"/api/0/organizations/{scratch['slug']}/teams/", {"slug": "crew"})
    path = f"/api/0/teams/{scratch['slug']}/crew/projects/"
    assert [server.post(path, {"name": one})["slug"] for one in names] == slugs


def test_a_project_may_be_made_with_its_throttle_rate(server, organization):
    body = {"name": name(), "eventThrottleRate": 33}
    made = server.post(f"/api/0/teams/{organization}/crew/projects/", body)
    assert made["eventThrottleRate"] == 33


def test_a_project_name_has_at_most_64_characters(server, organization):
    answer = server.call("POST", f"/api/0/teams/{organization}/crew/projects/", {"name": "n" * 65})
    assert answer.status_code == 422


def test_a_project_in_a_missing_team_is_404(server, organization):
    assert (
        server.call("POST", f"/api/0/teams/{organization}/nope/projects/", {"name": "x"}).status_code == 404
    )


def test_changing_a_project_needs_its_name_and_can_move_its_url(server, new_project):
    project = new_project()
    assert server.call("PUT", project.path, {"platform": "node"}).status_code == 422
    moved = server.call("PUT", project.path, {"name": project.name, "slug": f"{project.slug}-moved"}).json()
    assert moved["slug"] == f"{project.slug}-moved"
    assert moved["platform"] == "python"
    assert server.call("GET", project.path).status_code == 404


def test_any_text_is_a_slug_that_a_change_gives_but_not_any_finds_the_project_again(server, new_project):
    for slug, found in (("UPPER", True), ("-x-", True), ("new", True), ("has space", False), ("a.b", False)):
        project = new_project()
        answer = server.call("PUT", project.path, {"name": project.name, "slug": slug})
        assert (answer.status_code, answer.json()["slug"]) == (200, slug)
        where = project.path.replace(project.slug, slug)
        again = server.call("GET", where)
        assert (not server.has_no_path(again, again.status_code)) is found, slug
        server.call("DELETE", where)


def test_an_empty_slug_is_made_from_the_name_again(server, new_project):
    project = new_project()
    for slug in ("", None):
        changed = server.call("PUT", project.path, {"name": project.name, "slug": slug}).json()
        assert changed["slug"] == project.slug


def test_a_slug_that_another_project_has_is_500(server, new_project):
    project, other = new_project(), new_project()
    assert server.call("PUT", project.path, {"name": project.name, "slug": other.slug}).status_code == 500
    assert server.get(project.path)["slug"] == project.slug


def test_a_deleted_project_keeps_its_slug_until_the_worker_removed_it(new_project, server):
    project = new_project()
    server.call("DELETE", project.path)
    made = new_project(project.name).slug
    assert made == f"{project.slug}-2" or made == project.slug  # the latter: the worker was faster
    assert made == project.slug or wait_until(lambda: _free(server, new_project, project.slug))


def _free(server, new_project, slug):
    trial = new_project()
    answer = server.call("PUT", trial.path, {"name": trial.name, "slug": slug})
    server.call("DELETE", trial.path if answer.status_code == 500 else trial.path.replace(trial.slug, slug))
    return answer.status_code == 200


def test_what_does_not_fit_a_column_of_a_project_is_500(server, new_project):
    project = new_project()
    for more in (
        {"slug": "x" * 51},
        {"platform": "p" * 65},
        {"eventThrottleRate": -1},
        {"eventThrottleRate": 32768},
        {"eventThrottleRate": None},
    ):
        answer = server.call("PUT", project.path, {"name": project.name, **more})
        assert answer.status_code == 500, more
    changed = server.call(
        "PUT", project.path, {"name": "", "platform": None, "eventThrottleRate": 250}
    ).json()
    assert (changed["name"], changed["platform"], changed["eventThrottleRate"]) == ("", None, 250)


def test_a_project_is_changed_by_put_only(server, project):
    assert server.call("PATCH", project.path, {"name": project.name}).status_code == 405


def test_a_project_is_given_to_teams_and_taken_from_them(server, organization, new_project):
    project, slug = new_project(), uuid.uuid4().hex[:8]
    server.post(f"/api/0/organizations/{organization}/teams/", {"slug": slug})
    path = f"{project.path}teams/{slug}/"
    for _ in range(2):
        given = server.call("POST", path)
        assert (given.status_code, {team["slug"] for team in given.json()["teams"]}) == (201, {"crew", slug})
    assert {team["slug"] for team in server.get(f"{project.path}teams/")} == {"crew", slug}
    taken = server.call("DELETE", path)
    assert (taken.status_code, [team["slug"] for team in taken.json()["teams"]]) == (200, ["crew"])
    assert server.call("DELETE", path).status_code == 404
    assert server.call("POST", f"{project.path}teams/nope/").status_code == 404


def test_a_project_may_be_without_a_team_and_stays_in_the_list(server, organization, new_project):
    project = new_project()
    assert server.call("DELETE", f"{project.path}teams/crew/").json()["isMember"] is False
    listed = server.get(f"/api/0/organizations/{organization}/projects/?limit=100&query=!team:crew")
    assert project.slug in [item["slug"] for item in listed]
    listed = server.get(f"/api/0/organizations/{organization}/projects/?limit=100&query=team:crew")
    assert project.slug not in [item["slug"] for item in listed]


def test_a_deleted_project_is_404_at_once(server, new_project):
    project = new_project()
    assert server.call("DELETE", project.path).status_code == 204
    assert server.call("GET", project.path).status_code == 404
    assert server.call("DELETE", project.path).status_code == 404


def test_lists_of_projects_differ_in_what_they_embed(server, organization, project):
    by_organization = server.get(f"/api/0/organizations/{organization}/projects/?limit=100")
    found = next(item for item in by_organization if item["slug"] == project.slug)
    assert [team["slug"] for team in found["teams"]] == ["crew"]
    everywhere = server.get("/api/0/projects/?limit=100")
    assert all("organization" in item for item in everywhere)
    one = server.get(project.path)
    assert one["organization"]["slug"] == organization


def test_a_dsn_has_the_public_host_the_hex_key_and_the_project_id(server, project):
    key = server.get(f"{project.path}keys/")[0]
    dsn = urlsplit(key["dsn"]["public"])
    assert dsn.username == uuid.UUID(key["id"]).hex
    assert dsn.path.rsplit("/", 1)[1] == project.id
    assert key["dsn"]["secret"] == key["dsn"]["public"]
    assert key["projectID"] == int(project.id)


def test_keys_may_share_a_name_but_need_one(server, new_project):
    project = new_project()
    made = [server.post(f"{project.path}keys/", {"name": "second"}) for _ in range(2)]
    assert made[0]["id"] != made[1]["id"]
    for body in ({"label": "x"}, {"name": None}, {"name": "x" * 65}):
        assert server.call("POST", f"{project.path}keys/", body).status_code == 500, body


def test_keys_of_a_missing_project_are_an_empty_list_but_cannot_be_made(server, organization):
    path = f"/api/0/projects/{organization}/nope/keys/"
    assert server.get(path) == []
    assert server.call("POST", path, {"name": "x"}).status_code == 404
    assert server.call("GET", f"{path}{uuid.uuid4()}/").status_code == 404


def test_keys_are_listed_newest_first_and_status_filters_nothing(server, new_project):
    project = new_project()
    ids = [server.post(f"{project.path}keys/", {"name": name()})["id"] for _ in range(2)]
    listed = server.get(f"{project.path}keys/?status=inactive")
    assert [key["id"] for key in listed][:2] == ids[::-1]
    assert "isActive" not in listed[0]


def test_a_rate_limit_is_stored_when_a_key_is_made(server, new_project):
    project = new_project()
    limit = {"window": 60, "count": 1}
    key = server.post(f"{project.path}keys/", {"name": "limited", "rateLimit": limit})
    assert key["rateLimit"] == limit
    path = f"{project.path}keys/{key['id']}/"
    assert server.call("PUT", path, {"rateLimit": {"window": 1, "count": 9}}).json()["rateLimit"] == limit
    for number, status in ((0, 201), (32767, 201), (-1, 500), (32768, 500)):
        body = {"name": "x", "rateLimit": {"window": number, "count": number}}
        answer = server.call("POST", f"{project.path}keys/", body)
        assert answer.status_code == status, number
        if number == 0:
            assert answer.json()["rateLimit"] is None
    answer = server.call("POST", f"{project.path}keys/", {"name": "x", "rateLimit": {"window": 1}})
    assert answer.json()["detail"][0]["loc"] == ["body", "payload", "rateLimit", "count"]


def test_a_rate_limit_is_not_enforced(server, new_project):
    project = new_project()
    limit = {"window": 3600, "count": 1}
    made = server.post(f"{project.path}keys/", {"name": "limited", "rateLimit": limit})
    project.key = uuid.UUID(made["public"]).hex
    project.all_stored("first", "second", "third")


def test_changing_a_key_answers_200_and_changes_nothing(server, new_project):
    project = new_project()
    key = server.post(f"{project.path}keys/", {"name": "kept"})
    path = f"{project.path}keys/{key['id']}/"
    assert server.call("PUT", path, {"name": "renamed", "isActive": False}).status_code == 200
    assert server.get(path) == key


def test_a_key_is_addressed_with_dashes_only(server, project):
    key = server.get(f"{project.path}keys/")[0]
    assert server.get(f"{project.path}keys/{key['id']}/")["id"] == key["id"]
    answer = server.call("GET", f"{project.path}keys/{uuid.UUID(key['id']).hex}/")
    assert server.has_no_path(answer, answer.status_code)


def test_a_deleted_key_is_gone(server, new_project):
    project = new_project()
    key = server.post(f"{project.path}keys/", {"name": "x"})
    path = f"{project.path}keys/{key['id']}/"
    assert server.call("DELETE", path).status_code == 204
    assert server.call("DELETE", path).status_code == 404


SCOPES = [
    ("GET", "/api/0/organizations/", "org:read", "project:read"),
    ("GET", "/api/0/organizations/{org}/", "org:read", "team:read"),
    ("GET", "/api/0/organizations/{org}/teams/", "team:read", "project:read"),
    ("GET", "/api/0/organizations/{org}/teams/", "org:read", "event:read"),
    ("GET", "/api/0/organizations/{org}/members/", "member:read", "org:admin"),
    ("GET", "/api/0/organizations/{org}/projects/", "project:read", "project:admin"),
    ("GET", "/api/0/projects/", "project:read", "project:write"),
    ("GET", "/api/0/projects/{org}/{project}/", "project:admin", "org:read"),
    ("GET", "/api/0/projects/{org}/{project}/keys/", "project:write", "event:read"),
    ("GET", "/api/0/projects/{org}/{project}/alerts/", "project:read", "event:admin"),
    ("GET", "/api/0/organizations/{org}/issues/", "event:read", "project:read"),
    ("GET", "/api/0/projects/{org}/{project}/events/", "event:read", "org:read"),
    ("GET", "/api/0/organizations/{org}/environments/", "org:read", "project:read"),
]


@pytest.mark.parametrize(("method", "path", "enough", "not_enough"), SCOPES)
def test_a_call_takes_the_scopes_of_the_table_and_no_other(
    server, scoped, organization, project, method, path, enough, not_enough
):
    where = path.format(org=organization, project=project.slug)
    assert server.call(method, where, token=scoped(enough)).status_code == 200
    answer = server.call(method, where, token=scoped(not_enough))
    assert (answer.status_code, answer.json()) == (403, {"detail": "Permission denied"})


WRITES = [
    ("POST", "/api/0/organizations/{org}/teams/", {"slug": "crew"}, "team:write", "team:read"),
    ("POST", "/api/0/organizations/{org}/teams/", {"slug": "crew"}, "org:admin", "project:admin"),
    ("PUT", "/api/0/organizations/nope-nope/", {"name": "x"}, "org:write", "org:read"),
    ("POST", "/api/0/teams/{org}/nope/projects/", {"name": "x"}, "project:write", "project:read"),
    ("PUT", "/api/0/projects/{org}/nope/", {"name": "x"}, "project:write", "project:read"),
    ("POST", "/api/0/projects/{org}/{project}/keys/", {}, "project:admin", "project:read"),
    ("DELETE", "/api/0/projects/{org}/{project}/keys/{uuid}/", None, "project:admin", "project:write"),
    ("DELETE", "/api/0/projects/{org}/nope/", None, "project:admin", "project:write"),
    ("DELETE", "/api/0/organizations/nope-nope/", None, "org:admin", "org:write"),
    ("POST", "/api/0/projects/{org}/{project}/teams/nope/", None, "project:admin", "project:write"),
]


@pytest.mark.parametrize(("method", "path", "body", "enough", "not_enough"), WRITES)
def test_a_write_takes_the_scopes_of_the_table_and_no_less(
    server, scoped, organization, project, method, path, body, enough, not_enough
):
    where = path.format(org=organization, project=project.slug, uuid=uuid.uuid4())
    assert server.call(method, where, body, token=scoped(enough)).status_code in {404, 500}
    answer = server.call(method, where, body, token=scoped(not_enough))
    assert (answer.status_code, answer.json()) == (403, {"detail": "Permission denied"})


def test_me_and_root_need_no_scope(server, scoped):
    token = scoped("member:write")
    assert server.call("GET", "/api/0/users/me/", token=token).status_code == 200
    assert server.call("GET", "/api/0/", token=token).json()["user"]
