"""Health, addresses, verbs, errors, paging."""

from __future__ import annotations

import re
import uuid
from urllib.parse import parse_qs, urlsplit

import pytest

SOURCE = "source: 6.x, glitchtip/api/api.py"
NEWER = f"{SOURCE} (eu-startup-stack, 743634e; perhaps newer than 6.2.6)"
NEXT = re.compile(r'<([^>]+)>; rel="next"; results="true"')


def test_settings_are_open_and_tell_the_version(server):
    settings = server.get("/api/settings/", anonymous=True)
    assert isinstance(settings["version"], str)
    assert {"enableUserRegistration", "enableOrganizationCreation", "socialApps"} <= settings.keys()


@pytest.mark.line("6.2", provenance=f"{SOURCE} (743634e)")
def test_settings_list_the_features_that_are_switched_on(server):
    features = server.get("/api/settings/", anonymous=True)["enabledFeatures"]
    assert set(features) <= {"logs", "uptime", "mcp", "email"}


def test_health_is_plain_text_and_needs_its_slash(server):
    answer = server.call("GET", "/_health/", anonymous=True)
    assert (answer.status_code, answer.text) == (200, "ok")
    assert server.call("GET", "/_health", anonymous=True).status_code == 301


@pytest.mark.line("6.2", provenance="document: CHANGELOG 6.0.9")
def test_internal_health_is_there_with_and_without_slash(server):
    for path in ("/api/0/internal/health", "/api/0/internal/health/"):
        assert server.call("GET", path, anonymous=True).status_code == 200, path


@pytest.mark.line("5.2")
def test_internal_health_has_no_slash(server):
    assert server.get("/api/0/internal/health", anonymous=True) == {"healthy": {}, "problems": []}
    assert server.call("GET", "/api/0/internal/health/", anonymous=True).status_code == 404


@pytest.mark.line("6.2", provenance=NEWER)
def test_an_unknown_path_of_the_api_is_json_404_for_any_verb_and_for_everybody(server, project):
    paths = (f"{project.path}rules/", "/api/0/issues/1/notes/", "/api/0/nope/", "/api/0/organizations")
    for path in paths:  # the last one is known, with a slash
        for method in ("GET", "POST", "DELETE"):
            for anonymous in (False, True):
                answer = server.call(method, path, {} if method == "POST" else None, anonymous=anonymous)
                assert (answer.status_code, answer.json()) == (404, {"detail": "Not found"}), (method, path)


@pytest.mark.line("6.2", provenance=NEWER)
def test_a_missing_object_is_told_from_an_unknown_path_by_its_capital(server):
    answer = server.call("GET", "/api/0/organizations/no-such-organization/")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


@pytest.mark.line("5.2")
def test_a_known_path_without_slash_is_301_for_get_and_post(server):
    for method in ("GET", "POST"):
        answer = server.call(method, "/api/0/organizations", {"name": "x"} if method == "POST" else None)
        assert answer.status_code == 301
        assert answer.headers["Location"].endswith("/api/0/organizations/")


def test_a_wrong_verb_is_405_text(server):
    answer = server.call("PATCH", "/api/0/organizations/", {"name": "x"})
    assert (answer.status_code, answer.text) == (405, "Method not allowed")
    assert set(answer.headers["Allow"].split(", ")) >= {"GET", "POST"}


@pytest.mark.line("5.2")
def test_an_unknown_path_of_sentry_answers_200_html(server, project):
    for path in (f"{project.path}rules/", "/api/0/issues/1/notes/", f"{project.path}stats/"):
        answer = server.call("GET", path)
        assert answer.status_code == 200, path
        assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.line("5.2")
def test_a_post_there_is_403_html(server):
    answer = server.call("POST", "/api/0/issues/1/notes/", {"text": "x"})
    assert answer.status_code == 403
    assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.line("5.2")
def test_an_unknown_path_that_the_app_does_not_claim_is_404_html(server, organization):
    for path in ("/api/0/nope/", f"/api/0/organizations/{organization}/combined-rules/"):
        answer = server.call("GET", path)
        assert answer.status_code == 404, path
        assert answer.headers["Content-Type"].startswith("text/html")


def test_broken_json_is_400(server):
    answer = server.call(
        "POST", "/api/0/organizations/", data="{bad", headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()) == (400, {"detail": "Cannot parse request body"})


def test_a_missing_field_is_422_with_its_place(server):
    answer = server.call("POST", "/api/0/organizations/", {})
    assert answer.status_code == 422
    expected = {"type": "missing", "loc": ["body", "payload", "name"], "msg": "Field required"}
    assert answer.json() == {"detail": [expected]}


def test_no_token_a_wrong_token_and_other_schemes_are_401(server):
    path = "/api/0/organizations/"
    assert server.call("GET", path, anonymous=True).status_code == 401
    for value in ("Bearer deadbeef", f"Token {server.token}", "Basic YTpi"):
        answer = server.call("GET", path, headers={"Authorization": value})
        assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"}), value


def test_the_bearer_scheme_is_not_case_sensitive(server):
    assert server.call("GET", "/api/0/", headers={"Authorization": f"bearer {server.token}"}).json()["user"]


def test_the_root_is_open_and_shows_a_token_its_scopes(server):
    assert server.get("/api/0/", anonymous=True) == {"version": "0", "user": None, "auth": None}
    shown = server.get("/api/0/")
    assert shown["user"]["email"] == server.email
    assert shown["auth"]["token"] == server.token
    assert len(shown["auth"]["scopes"]) == 16


def test_a_revoked_token_is_401_like_a_wrong_one(server):
    made = server.make_token(server.cookies, ["org:read"], "revoked")
    path = "/api/0/organizations/"
    assert server.call("GET", path, token=made["token"]).status_code == 200
    server.write("DELETE", f"/api/0/api-tokens/{made['id']}/", None, server.cookies)
    answer = server.call("GET", path, token=made["token"])
    assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"})


def test_a_missing_scope_is_403_before_anything_is_looked_for(server, scoped):
    for method, path in (("GET", "/api/0/organizations/none/"), ("GET", "/api/0/projects/none/none/keys/")):
        answer = server.call(method, path, token=scoped("event:read"))
        assert (answer.status_code, answer.json()) == (403, {"detail": "Permission denied"}), path


def test_an_unknown_organization_is_404_with_its_issues_and_for_every_write(server):
    for method, path in (("GET", ""), ("GET", "issues/"), ("DELETE", "")):
        answer = server.call(method, f"/api/0/organizations/none/{path}")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"}), (method, path)
    answer = server.call("POST", "/api/0/organizations/none/teams/", {"slug": "x"})
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_me_is_the_owner_of_the_token(server):
    assert server.get("/api/0/users/me/")["email"] == server.email


@pytest.fixture(scope="module")
def many_teams(server):
    """An organization with seven teams."""
    slug = server.post("/api/0/organizations/", {"name": f"Paging {uuid.uuid4().hex[:8]}"})["slug"]
    for number in range(7):
        server.post(f"/api/0/organizations/{slug}/teams/", {"slug": f"team-{number}"})
    yield f"/api/0/organizations/{slug}/teams/"
    server.call("DELETE", f"/api/0/organizations/{slug}/")


def test_following_the_cursor_gives_every_item_once(server, many_teams):
    seen, path = [], f"{many_teams}?limit=3"
    for _ in range(4):
        answer = server.call("GET", path)
        seen += [team["slug"] for team in answer.json()]
        link = NEXT.search(answer.headers["Link"])
        if link is None:
            break
        parts = urlsplit(link[1])
        path = f"{parts.path}?{parts.query}"
    assert sorted(seen) == [f"team-{number}" for number in range(7)]


def test_hits_are_the_total_and_capped(server, many_teams):
    answer = server.call("GET", f"{many_teams}?limit=3")
    assert (answer.headers["X-Hits"], answer.headers["X-Max-Hits"]) == ("7", "1000")


@pytest.mark.six("source: 6.x, paginator (0277194); seen on a live 6.2.6 by the pulumi provider's author")
def test_the_link_header_is_wrapped_in_braces_and_quotes(server, many_teams):
    link = server.call("GET", f"{many_teams}?limit=3").headers["Link"]
    assert link.startswith("{'<")
    assert link.endswith("'}")


def test_the_next_link_carries_the_cursor_twice(server, many_teams):
    link = server.call("GET", f"{many_teams}?limit=3").headers["Link"]
    url = NEXT.search(link)[1]
    assert f'cursor="{parse_qs(urlsplit(url).query)["cursor"][0]}"' in link


def test_limit_zero_is_the_default_and_a_large_one_is_clamped(server, many_teams):
    assert len(server.get(f"{many_teams}?limit=0")) == 7
    assert len(server.get(f"{many_teams}?limit=1000")) == 7


def test_limit_minus_one_is_an_empty_page(server, many_teams):
    assert server.get(f"{many_teams}?limit=-1") == []


def test_a_limit_or_cursor_that_makes_no_sense_is_422(server, many_teams):
    assert server.call("GET", f"{many_teams}?limit=abc").status_code == 422
    assert server.call("GET", f"{many_teams}?cursor=zzz").status_code == 422
