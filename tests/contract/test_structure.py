"""Organizations, teams, members, projects, keys, and the scopes that they need."""

from __future__ import annotations

import uuid
from urllib.parse import urlsplit

import pytest


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
    answer = server.call("POST", path, {"slug": "has space"})
    assert answer.json()["detail"][0]["type"] == "string_pattern_mismatch"


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
    assert server.call("POST", f"{project.path}keys/", {"label": "x"}).status_code == 500


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
    assert answer.headers["Content-Type"].startswith("text/html")


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
    ("GET", "/api/0/projects/{org}/{project}/alerts/", "project:read", "project:admin"),
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


def test_me_and_root_need_no_scope(server, scoped):
    token = scoped("member:write")
    assert server.call("GET", "/api/0/users/me/", token=token).status_code == 200
    assert server.call("GET", "/api/0/", token=token).json()["user"]
