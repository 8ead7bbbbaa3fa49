"""A GlitchTip whose database holds no user. ENABLE_USER_REGISTRATION is false on it, and yet sign-up is open."""

from __future__ import annotations

import uuid

import pytest

SIGNUP = "/_allauth/browser/v1/auth/signup"
PASSWORD = f"pass-{uuid.uuid4().hex}"


def settings(server):
    return server.get("/api/settings/", anonymous=True)


def flows(server):
    answer = server.call("GET", "/_allauth/browser/v1/auth/session", anonymous=True)
    assert answer.status_code == 401
    return {flow["id"] for flow in answer.json()["data"]["flows"]}


def sign_up(server):
    email = f"first-{uuid.uuid4().hex[:8]}@example.org"
    return server.write("POST", SIGNUP, {"email": email, "password": PASSWORD}, server.csrf())


def test_both_kinds_of_registration_are_reported_open_while_there_is_no_user(server):
    found = settings(server)
    assert (found["enableUserRegistration"], found["enableSocialAppsUserRegistration"]) == (True, True)


def test_creating_organizations_is_reported_as_it_is_set(server):
    assert settings(server)["enableOrganizationCreation"] is False


def test_the_signup_flow_is_offered(server):
    assert {"login", "signup"} <= flows(server)
    config = server.get("/_allauth/browser/v1/config", anonymous=True)
    assert config["data"]["account"]["is_open_for_signup"] is True


def test_the_api_names_nobody(server):
    found = server.get("/api/0/", anonymous=True)
    assert (found["user"], found["auth"]) == (None, None)


@pytest.mark.parametrize("path", ["organizations", "projects", "users/me"])
def test_the_management_api_is_401(server, path):
    answer = server.call("GET", f"/api/0/{path}/", anonymous=True)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Unauthorized"})


def test_a_login_is_a_mismatch_like_any_other(server):
    answer = server.login("nobody@example.org", "wrong")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["code"] == "email_password_mismatch"


def test_an_event_for_a_project_that_does_not_exist_is_refused(server):
    body = b'{"event_id":"' + uuid.uuid4().hex.encode() + b'"}\n{"type":"event","length":2}\n{}\n'
    answer = server.call("POST", f"/api/1/envelope/?sentry_key={uuid.uuid4().hex}", data=body, anonymous=True)
    assert answer.status_code == 403


@pytest.mark.destructive
def test_a_stranger_can_sign_up_and_that_closes_registration(server):
    answer = sign_up(server)
    assert answer.status_code == 200
    assert answer.json()["meta"] == {"is_authenticated": True}
    session = dict(answer.cookies)
    found = settings(server)
    assert (found["enableUserRegistration"], found["enableSocialAppsUserRegistration"]) == (False, False)
    assert "signup" not in flows(server)
    assert sign_up(server).status_code == 403
    # The first organization is free for anybody, the second is not.
    first = server.write("POST", "/api/0/organizations/", {"name": "First"}, session)
    assert first.status_code == 201
    assert server.write("POST", "/api/0/organizations/", {"name": "Second"}, session).status_code == 403
    assert (
        server.write("DELETE", f"/api/0/organizations/{first.json()['slug']}/", None, session).status_code
        == 204
    )
