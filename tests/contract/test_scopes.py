"""Which scopes each call takes: the whole matrix, sixteen tokens of one scope each for every call.

The tokens are an owner's, so that no role stands in the way. Calls that change something name objects that
do not exist: a scope that will do gets 404 there, one that will not gets 403, and nothing is changed.
"""

from __future__ import annotations

import uuid

import pytest

LEVELS = ("read", "write", "admin")
SCOPES = [f"project:{level}" for level in LEVELS] + ["project:releases"]
SCOPES += [f"{kind}:{level}" for kind in ("team", "event", "org", "member") for level in LEVELS]

ORG = "/api/0/organizations/{org}/"
NO_ORG = "/api/0/organizations/no-such-organization/"
PROJECT = "/api/0/projects/{org}/{project}/"
NO_PROJECT = "/api/0/projects/{org}/no-such-project/"
NO_KEY = f"{PROJECT}keys/00000000-0000-4000-8000-000000000000/"
NO_ISSUE = "/api/0/issues/999999999/"
COMMENT = {"data": {"text": "x"}}
RELEASE = {"version": "no-such-release", "projects": ["no-such-project"]}

# what is asked, its body, the scopes that will do ("org:*" is read, write and admin)
MATRIX = [
    ("GET /api/0/organizations/", None, "org:*"),
    (f"GET {ORG}", None, "org:*"),
    (f"PUT {NO_ORG}", {"name": "x"}, "org:write org:admin"),
    (f"DELETE {NO_ORG}", None, "org:admin"),
    (f"GET {ORG}environments/", None, "org:*"),
    (f"GET {ORG}stats_v2/?category=error&field=sum(quantity)&start={{day}}&end={{day}}", None, "org:*"),
    (f"GET {ORG}teams/", None, "team:* org:*"),
    (f"POST {NO_ORG}teams/", {"slug": "x"}, "team:write team:admin org:write org:admin"),
    ("GET /api/0/teams/{org}/crew/", None, "team:*"),
    ("PUT /api/0/teams/{org}/no-such-team/", {"slug": "x"}, "team:write team:admin"),
    ("DELETE /api/0/teams/{org}/no-such-team/", None, "team:admin"),
    ("GET /api/0/teams/{org}/crew/members/", None, "member:*"),
    ("GET /api/0/teams/{org}/crew/projects/", None, "project:read"),
    (f"POST {ORG}members/me/teams/no-such-team/", None, "team:write team:admin"),
    (f"DELETE {ORG}members/me/teams/no-such-team/", None, "team:write team:admin"),
    (f"GET {ORG}members/", None, "member:*"),
    (f"GET {ORG}members/999999999/", None, "member:*"),
    (
        f"POST {NO_ORG}members/",
        {"email": "dev@example.org", "orgRole": "member"},
        "member:write member:admin",
    ),
    (f"PUT {ORG}members/999999999/", {"orgRole": "member"}, "member:write member:admin"),
    (f"DELETE {ORG}members/999999999/", None, "member:admin"),
    (f"POST {ORG}members/999999999/set_owner/", None, "member:admin"),
    ("GET /api/0/projects/", None, "project:read"),
    (f"GET {ORG}projects/", None, "project:read"),
    (f"GET {PROJECT}", None, "project:*"),
    ("POST /api/0/teams/{org}/no-such-team/projects/", {"name": "x"}, "project:write project:admin"),
    (f"PUT {NO_PROJECT}", {"name": "x"}, "project:write project:admin"),
    (f"DELETE {NO_PROJECT}", None, "project:admin"),
    (f"GET {PROJECT}teams/", None, "team:* org:*"),
    (f"POST {PROJECT}teams/no-such-team/", None, "project:admin"),
    (f"DELETE {PROJECT}teams/no-such-team/", None, "project:admin"),
    (f"GET {PROJECT}environments/", None, "project:*"),
    (
        f"PUT {PROJECT}environments/no-such-one/",
        {"name": "no-such-one", "isHidden": True},
        "project:write project:admin",
    ),
    (f"GET {PROJECT}keys/", None, "project:*"),
    (f"GET {NO_KEY}", None, "project:*"),
    (f"POST {NO_PROJECT}keys/", {"name": "x"}, "project:write project:admin"),
    (f"PUT {NO_KEY}", {"name": "x"}, "project:write project:admin"),
    (f"DELETE {NO_KEY}", None, "project:admin"),
    (f"POST {NO_PROJECT}alerts/", {"name": "x"}, "project:write project:admin"),
    (f"PUT {PROJECT}alerts/999999999/", {"name": "x"}, "project:write project:admin"),
    (f"DELETE {PROJECT}alerts/999999999/", None, "project:admin"),
    (f"GET {ORG}issues/", None, "event:*"),
    (f"GET {PROJECT}issues/", None, "event:*"),
    (f"GET {PROJECT}events/", None, "event:*"),
    (f"GET {NO_ISSUE}", None, "event:*"),
    (f"GET {NO_ISSUE}events/", None, "event:*"),
    (f"GET {NO_ISSUE}events/latest/", None, "event:*"),
    (f"GET {NO_ISSUE}tags/", None, "event:*"),
    (f"PUT {NO_ISSUE}", {"status": "resolved"}, "event:write event:admin"),
    (f"DELETE {NO_ISSUE}", None, "event:write event:admin"),
    (f"GET {NO_ISSUE}comments/", None, "event:read event:admin"),
    (f"POST {NO_ISSUE}comments/", COMMENT, "event:write event:admin"),
    (f"PUT {NO_ISSUE}comments/1/", COMMENT, "event:write event:admin"),
    (f"DELETE {NO_ISSUE}comments/1/", None, "event:admin"),
    (f"GET {ORG}releases/", None, "project:releases"),
    (f"GET {PROJECT}releases/", None, "project:releases"),
    (f"POST {NO_ORG}releases/", RELEASE, "project:releases"),
    (f"POST {NO_PROJECT}releases/", {"version": "x"}, "project:releases"),
    (f"GET {ORG}releases/no-such-release/", None, "project:releases"),
    (f"PUT {ORG}releases/no-such-release/", {"ref": "x"}, "project:releases"),
    (f"DELETE {ORG}releases/no-such-release/", None, "project:releases"),
    (f"GET {ORG}releases/no-such-release/files/", None, "project:releases"),
    (f"GET {PROJECT}releases/no-such-release/", None, "project:releases"),
    (f"PUT {PROJECT}releases/no-such-release/", {"ref": "x"}, "project:releases"),
    (f"DELETE {PROJECT}releases/no-such-release/", None, "project:releases"),
]
WITHOUT = [
    ("GET /api/0/", None),
    ("GET /api/0/users/", None),
    ("GET /api/0/users/me/", None),
    ("GET /api/0/users/me/notifications/", None),
    (f"GET {ORG}monitors/", None),
    (f"GET {ORG}status-pages/", None),
    (f"GET {ORG}issues-stats/?groups=1", None),
    (f"GET {ORG}chunk-upload/", None),
]


def expanded(scopes):
    """``org:*`` as its three scopes."""
    found = set()
    for scope in scopes.split():
        kind, _, level = scope.partition(":")
        found |= {f"{kind}:{each}" for each in LEVELS} if level == "*" else {scope}
    return found


@pytest.fixture(scope="module")
def ask(server, organization, project):
    """Send a call of the table with a token; its answer."""

    def send(call, body, token):
        method, path = call.split(" ", 1)
        where = path.format(org=organization, project=project.slug, day="2026-01-02T00:00:00Z")
        return server.call(method, where, body, token=token)

    return send


@pytest.mark.parametrize(("call", "body", "scopes"), MATRIX, ids=[row[0] for row in MATRIX])
def test_a_call_takes_these_scopes_and_no_other(ask, scoped, call, body, scopes):
    taken = {}
    for scope in SCOPES:
        answer = ask(call, body, scoped(scope))
        assert answer.status_code < 405, (call, scope, answer.status_code)
        taken[scope] = answer.status_code != 403
        if not taken[scope]:
            assert answer.json() == {"detail": "Permission denied"}
    assert {scope for scope, will_do in taken.items() if will_do} == expanded(scopes)


@pytest.mark.line("5.2")
def test_rules_are_listed_with_project_read_only(ask, scoped):
    call = f"GET {PROJECT}alerts/"
    taken = {scope for scope in SCOPES if ask(call, None, scoped(scope)).status_code != 403}
    assert taken == {"project:read"}


@pytest.mark.line("6.2", provenance="document: CHANGELOG 6.0.7; source apps/alerts/api.py (4e04823)")
def test_rules_are_listed_with_project_read_write_or_admin(ask, scoped):
    call = f"GET {PROJECT}alerts/"
    taken = {scope for scope in SCOPES if ask(call, None, scoped(scope)).status_code != 403}
    assert taken == {"project:read", "project:write", "project:admin"}


@pytest.mark.parametrize(("call", "body"), WITHOUT, ids=[row[0] for row in WITHOUT])
def test_a_call_that_needs_a_token_but_no_scope(ask, scoped, call, body):
    assert ask(call, body, scoped()).status_code == 200


def test_making_an_organization_needs_org_write_or_org_admin(server, scoped):
    for scope in SCOPES:
        body = {"name": f"Scope {uuid.uuid4().hex[:8]}"}
        answer = server.call("POST", "/api/0/organizations/", body, token=scoped(scope))
        if scope in {"org:write", "org:admin"}:
            assert answer.status_code == 201
            server.call("DELETE", f"/api/0/organizations/{answer.json()['slug']}/")
        else:
            assert (answer.status_code, answer.json()) == (403, {"detail": "Permission denied"})


def test_a_write_with_a_wrong_token_or_none_is_taken_for_a_session_and_lacks_csrf(server, organization):
    for options in ({"token": "deadbeef"}, {"anonymous": True}):
        for method, path, body in (
            ("POST", "/api/0/organizations/", {"name": "x"}),
            ("PUT", f"/api/0/organizations/{organization}/", {"name": "x"}),
            ("DELETE", f"/api/0/organizations/{organization}/", None),
        ):
            answer = server.call(method, path, body, **options)
            assert (answer.status_code, answer.json()) == (403, {"detail": "CSRF check Failed"}), method


def test_a_write_of_nobody_with_a_csrf_token_is_401(server):
    answer = server.write("POST", "/api/0/organizations/", {"name": "x"}, server.csrf())
    assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"})


def test_the_root_knows_tokens_and_no_sessions(server, cookies, scoped):
    nobody = {"version": "0", "user": None, "auth": None}
    assert server.get("/api/0/", cookies=cookies) == nobody
    shown = server.get("/api/0/", token=scoped("event:read", "org:read"))
    assert set(shown["auth"]["scopes"]) == {"event:read", "org:read"}
    assert shown["auth"]["label"] == "scoped"


def test_the_users_are_the_user_alone_and_any_number_is_oneself(server):
    me = server.get("/api/0/users/me/")
    assert [user["id"] for user in server.get("/api/0/users/")] == [me["id"]]
    assert server.get("/api/0/users/999999999/") == me
    assert me["isSuperuser"] in {True, False}
    assert server.get("/api/0/users/999999999/notifications/").keys() == {"subscribeByDefault"}


def test_another_user_can_be_neither_changed_nor_deleted(server):
    path = "/api/0/users/999999999/"
    assert server.call("PUT", path, {"name": "x", "options": {}}).status_code == 404
    assert server.call("DELETE", path).status_code == 404


def test_a_user_is_me_or_a_number(server):
    answer = server.call("GET", "/api/0/users/somebody/")
    assert answer.status_code == 422
    assert [error["type"] for error in answer.json()["detail"]] == ["literal_error", "int_parsing"]


def test_changing_oneself_needs_the_options(server):
    answer = server.call("PUT", "/api/0/users/me/", {"name": ""})
    assert answer.json()["detail"][0]["loc"] == ["body", "payload", "options"]


@pytest.mark.parametrize(("bits", "names"), [(0, 0), (1 << 16, 0), (1 << 40, 0), (-1, 16)])
def test_bits_that_stand_for_no_scope_are_taken_and_minus_one_is_all(server, cookies, bits, names):
    made = server.make_token(cookies, bits, "bits")
    assert len(made["scopes"]) == names
    server.write("DELETE", f"/api/0/api-tokens/{made['id']}/", None, cookies)


def test_a_label_has_at_most_255_characters_and_may_be_left_out(server, cookies):
    answer = server.write("POST", "/api/0/api-tokens/", {"label": "x" * 256, "scopes": 0}, cookies)
    assert answer.json()["detail"][0]["type"] == "string_too_long"
    for body in ({"scopes": 0}, {"label": None, "scopes": 0}):
        made = server.write("POST", "/api/0/api-tokens/", body, cookies).json()
        assert made["label"] == ""
        server.write("DELETE", f"/api/0/api-tokens/{made['id']}/", None, cookies)


@pytest.mark.parametrize(("scopes", "error"), [("org:read", "int_parsing"), (None, "int_type")])
def test_scopes_are_a_number_or_names_in_a_list(server, cookies, scopes, error):
    answer = server.write("POST", "/api/0/api-tokens/", {"label": "x", "scopes": scopes}, cookies)
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, error)


def test_a_session_that_was_ended_elsewhere_is_401_for_tokens(server):
    session = server.session()
    server.write("DELETE", "/_allauth/browser/v1/auth/session", None, session)
    for method, path, body in (
        ("GET", "/api/0/api-tokens/", None),
        ("POST", "/api/0/api-tokens/", {"label": "x", "scopes": 0}),
        ("DELETE", "/api/0/api-tokens/999999999/", None),
    ):
        answer = server.write(method, path, body, session)
        assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"}), method


def test_a_session_without_its_csrf_token_writes_no_token(server, cookies):
    answer = server.write(
        "POST", "/api/0/api-tokens/", {"label": "x", "scopes": 0}, {**cookies, "csrftoken": ""}
    )
    assert (answer.status_code, answer.json()) == (403, {"detail": "CSRF check Failed"})
