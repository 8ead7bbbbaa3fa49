"""Session login by allauth headless, and API tokens, which take the session only."""

from __future__ import annotations

import uuid

import pytest


def stranger():
    return f"nobody-{uuid.uuid4().hex[:10]}@example.org"


def test_nobody_is_401_with_the_flows_and_a_csrf_cookie(server):
    answer = server.call("GET", "/_allauth/browser/v1/auth/session", anonymous=True)
    assert answer.status_code == 401
    body = answer.json()
    assert body["meta"] == {"is_authenticated": False}
    assert {"id": "login"} in body["data"]["flows"]
    assert answer.cookies["csrftoken"]


def test_the_signup_flow_is_offered_only_while_registration_is_open(server):
    settings = server.get("/api/settings/", anonymous=True)
    config = server.get("/_allauth/browser/v1/config", anonymous=True)
    flows = server.call("GET", "/_allauth/browser/v1/auth/session", anonymous=True).json()["data"]["flows"]
    is_open = settings["enableUserRegistration"]
    assert config["data"]["account"]["is_open_for_signup"] == is_open
    assert ({"id": "signup"} in flows) == is_open


def test_login_without_csrf_is_403_html(server):
    answer = server.call(
        "POST", "/_allauth/browser/v1/auth/login", {"email": stranger(), "password": "x"}, anonymous=True
    )
    assert answer.status_code == 403
    assert answer.headers["Content-Type"].startswith("text/html")


def test_a_wrong_password_is_a_mismatch(server):
    answer = server.login(stranger(), "wrong")
    assert answer.status_code == 400
    error = answer.json()["errors"][0]
    assert (error["code"], error["param"]) == ("email_password_mismatch", "password")


def test_an_email_that_is_none_is_invalid(server):
    answer = server.login("nope", "wrong")
    assert answer.status_code == 400
    assert (answer.json()["errors"][0]["code"], answer.json()["errors"][0]["param"]) == ("invalid", "email")


def test_login_gives_a_session_and_a_new_csrf_cookie(server):
    before = server.csrf()
    body = {"email": server.email, "password": server.password}
    answer = server.write("POST", "/_allauth/browser/v1/auth/login", body, before)
    assert answer.status_code == 200
    assert answer.json()["data"]["user"]["email"] == server.email
    assert answer.json()["meta"] == {"is_authenticated": True}
    assert answer.cookies["sessionid"]
    assert answer.cookies["csrftoken"] != before["csrftoken"]


def test_a_second_login_in_the_same_session_is_409(server, cookies):
    body = {"email": server.email, "password": server.password}
    answer = server.write("POST", "/_allauth/browser/v1/auth/login", body, cookies)
    assert (answer.status_code, answer.json()) == (409, {"status": 409})


def test_logout_answers_401_and_ends_the_session(server):
    session = server.session()
    assert server.call("GET", "/api/0/users/me/", cookies=session).status_code == 200
    answer = server.write("DELETE", "/_allauth/browser/v1/auth/session", None, session)
    assert answer.status_code == 401
    assert server.call("GET", "/api/0/users/me/", cookies=session).status_code == 401


def test_a_session_reads_the_api_and_writes_with_csrf(server, cookies, organization):
    path = f"/api/0/organizations/{organization}/"
    name = server.get(path)["name"]
    assert server.write("PUT", path, {"name": name}, cookies).status_code == 200
    answer = server.call("PUT", path, {"name": name}, cookies=cookies)
    assert (answer.status_code, answer.json()) == (403, {"detail": "CSRF check Failed"})


def test_a_foreign_origin_is_refused(server, cookies, organization):
    path = f"/api/0/organizations/{organization}/"
    answer = server.write("PUT", path, {"name": "x"}, cookies, Origin="http://evil.example.org")
    assert answer.status_code == 403


def test_signup_while_registration_is_closed_is_403(server):
    if server.get("/api/settings/", anonymous=True)["enableUserRegistration"]:
        pytest.skip("registration is open on this server")
    body = {"email": stranger(), "password": "D3v-Passw0rd!x"}
    answer = server.write("POST", "/_allauth/browser/v1/auth/signup", body, server.csrf())
    assert (answer.status_code, answer.json()) == (403, {"status": 403})


@pytest.mark.destructive
def test_the_sixth_failure_for_an_email_is_throttled_but_not_other_accounts(server):
    email = stranger()
    codes = [server.login(email, "wrong").json()["errors"][0]["code"] for _ in range(6)]
    assert codes == ["email_password_mismatch"] * 5 + ["too_many_login_attempts"]
    assert server.login().status_code == 200


def test_the_integer_bit_field_becomes_scope_names(server, cookies):
    made = server.make_token(cookies, 0b1 | 1 << 10, "bits")
    assert made["scopes"] == ["project:read", "org:read"]
    assert len(made["token"]) == 64
    assert server.write("DELETE", f"/api/0/api-tokens/{made['id']}/", None, cookies).status_code == 204


@pytest.mark.six("source: 6.x, apps/api_tokens (e2c7088); a live 6.2.6 is sent a list by the pulumi provider")
def test_scopes_may_be_a_list_of_names(server, cookies):
    made = server.make_token(cookies, ["org:read", "project:read"], "names")
    assert made["scopes"] == ["project:read", "org:read"]
    server.write("DELETE", f"/api/0/api-tokens/{made['id']}/", None, cookies)


@pytest.mark.line("5.2")
def test_an_unknown_scope_is_422(server, cookies):
    for scope in ("foo:bar", "org:integrations"):
        answer = server.write("POST", "/api/0/api-tokens/", {"label": "x", "scopes": [scope]}, cookies)
        assert (answer.status_code, answer.json()) == (422, {"detail": [{"scopes": "Invalid scope"}]})


def test_tokens_without_scopes_field_are_422(server, cookies):
    answer = server.write("POST", "/api/0/api-tokens/", {"label": "x"}, cookies)
    assert answer.json()["detail"][0]["loc"] == ["body", "payload", "scopes"]
    assert answer.status_code == 422


@pytest.mark.line(
    "6.2", provenance="source: 6.x, apps/api_tokens/schema.py (e2c7088: masked; 6.2.6 itself: full)"
)
def test_the_list_shows_tokens_newest_first_full_or_masked_by_their_last_eight(server, cookies):
    label = uuid.uuid4().hex[:8]
    made = [server.make_token(cookies, 0, label) for _ in range(2)]
    listed = [token for token in server.get("/api/0/api-tokens/", cookies=cookies) if token["label"] == label]
    assert [token["id"] for token in listed] == [token["id"] for token in reversed(made)]
    for shown, token in zip(listed, reversed(made), strict=True):
        value = shown["token"]
        assert value == token["token"] or (value.endswith(token["token"][-8:]) and len(value) < 16)
        server.write("DELETE", f"/api/0/api-tokens/{token['id']}/", None, cookies)


@pytest.mark.line("6.2", provenance="source: 6.x, glitchtip/settings.py (e25037d, edc1831)")
def test_cookies_are_secure_exactly_when_the_address_of_the_server_is_https(server, project):
    """The address that DSNs carry, not the one that was asked; ``*_COOKIE_SECURE`` may say otherwise."""
    dsn = server.get(f"{project.path}keys/")[0]["dsn"]["public"]
    answer = server.login()
    assert {cookie.secure for cookie in answer.cookies} == {dsn.startswith("https://")}
    server.write("DELETE", "/_allauth/browser/v1/auth/session", None, dict(answer.cookies))


@pytest.mark.line("5.2")
def test_the_list_shows_full_tokens_newest_first_and_labels_may_repeat(server, cookies):
    label = uuid.uuid4().hex[:8]
    made = [server.make_token(cookies, 0, label) for _ in range(2)]
    listed = [token for token in server.get("/api/0/api-tokens/", cookies=cookies) if token["label"] == label]
    assert [token["token"] for token in listed] == [token["token"] for token in reversed(made)]
    for token in made:
        server.write("DELETE", f"/api/0/api-tokens/{token['id']}/", None, cookies)


def test_a_bearer_token_cannot_list_or_make_tokens(server):
    assert server.call("GET", "/api/0/api-tokens/").status_code == 401
    answer = server.call("POST", "/api/0/api-tokens/", {"label": "x", "scopes": 1})
    assert (answer.status_code, answer.json()) == (403, {"detail": "CSRF check Failed"})


def test_a_deleted_token_is_dead_and_deleting_again_is_404(server, cookies):
    made = server.make_token(cookies, 65535, "short life")
    path = f"/api/0/api-tokens/{made['id']}/"
    assert server.call("GET", "/api/0/users/me/", token=made["token"]).status_code == 200
    assert server.write("DELETE", path, None, cookies).status_code == 204
    assert server.call("GET", "/api/0/users/me/", token=made["token"]).status_code == 401
    assert server.write("DELETE", path, None, cookies).status_code == 404


def test_one_token_can_be_neither_read_nor_changed(server, cookies):
    made = server.make_token(cookies, 0, "fixed")
    path = f"/api/0/api-tokens/{made['id']}/"
    assert server.call("GET", path, cookies=cookies).status_code == 405
    assert server.write("PUT", path, {"label": "z", "scopes": 1}, cookies).status_code == 405
    server.write("DELETE", path, None, cookies)
