"""Login by session and API tokens."""

from __future__ import annotations

import pytest

from glitchtip_api import Client, GlitchTipError
from glitchtip_api.errors import InvalidError
from glitchtip_api.session import Session, login, token_fits
from glitchtip_api.transport import Transport
from glitchtip_api.validate import SCOPES, check_email, scope_bits

SET_CSRF = {"Set-Cookie": "csrftoken=first; Path=/; SameSite=Lax"}
LOGGED_IN = {"status": 200, "data": {"user": {"id": 3}}, "meta": {"is_authenticated": True}}


def logged_in(server) -> Session:
    server.then(200, {"status": 200}, headers=SET_CSRF)
    server.then(200, LOGGED_IN, headers={"Set-Cookie": "csrftoken=second; Path=/"})
    session = login(server.url, "admin@example.org", "canary-password")
    session._cookies["sessionid"] = "s1"
    return session


def token(number, label="ops", scopes=("org:read",)):
    return {"id": number, "label": label, "scopes": list(scopes), "token": f"value-{number}"}


def test_login_sends_the_csrf_cookie_as_header_and_its_own_address_as_referer(server):
    logged_in(server)
    post = server.asked[1]
    assert post.json == {"email": "admin@example.org", "password": "canary-password"}
    assert post.headers["x-csrftoken"] == "first"
    assert post.headers["cookie"] == "csrftoken=first"
    assert post.headers["referer"] == server.url + "/"


def test_the_csrf_token_that_login_renews_is_used_from_then_on(server):
    session = logged_in(server)
    server.then(201, token(1))
    session.tokens.create("ops", ["org:read"])
    assert server.asked[-1].headers["x-csrftoken"] == "second"


def test_scopes_are_sent_as_the_integer_that_both_lines_take(server):
    session = logged_in(server)
    server.then(201, token(1))
    session.tokens.create("ops", ["project:read", "org:read"])
    assert server.asked[-1].json == {"label": "ops", "scopes": 1 + 1024}


def test_all_scopes_are_65535_and_an_unknown_one_is_refused():
    assert scope_bits(SCOPES) == 65535
    with pytest.raises(InvalidError, match="org:integrations"):
        scope_bits(["org:read", "org:integrations"])


def refused_login(server):
    with pytest.raises(GlitchTipError) as failure:
        login(server.url, "admin@example.org", "canary-password")
    assert "canary" not in str(failure.value)
    return failure.value


LOGIN_FLOWS = [{"id": "login"}, {"id": "mfa_login_webauthn"}]


@pytest.mark.parametrize(
    ("status", "data", "code", "said"),
    [
        (
            400,
            {"errors": [{"message": "The email address and/or password are not correct.", "code": "x"}]},
            "login_refused",
            "answered 400: The email address and/or password are not correct.",
        ),
        (
            400,
            {"errors": [{"message": "Try again later.", "code": "too_many_login_attempts"}]},
            "too_many_logins",
            "answered 400: too many failed logins (wait five minutes)",
        ),
        (429, {"status": 429}, "too_many_logins", "answered 429: too many failed logins (wait five minutes)"),
        (
            401,
            {"data": {"flows": [*LOGIN_FLOWS, {"id": "mfa_authenticate", "is_pending": True}]}},
            "mfa_required",
            (
                "answered 401: this account asks for a second factor"
                " (use an automation account without one, or give a token that was made by hand)"
            ),
        ),
        (
            401,
            {"data": {"flows": [*LOGIN_FLOWS, {"id": "verify_email", "is_pending": True}]}},
            "login_refused",
            "answered 401: the login is not complete, the server waits for: verify_email",
        ),
        (
            401,
            {"data": {"flows": LOGIN_FLOWS}},
            "login_refused",
            "answered 401: the password is right, but the account is deactivated",
        ),
        (409, {"status": 409}, "login_refused", "answered 409: the login was refused"),
    ],
)
def test_each_refused_login_says_why(server, status, data, code, said):
    server.then(200, {}, headers=SET_CSRF).then(status, data)
    failure = refused_login(server)
    assert failure.code == code
    assert str(failure) == f"POST /_allauth/browser/v1/auth/login {said}"


def test_a_login_refused_as_foreign_names_the_setting(server):
    server.then(200, {}, headers=SET_CSRF).html(403)
    failure = refused_login(server)
    assert failure.code == "csrf"
    assert "CSRF_TRUSTED_ORIGINS" in str(failure)


EXPIRED = (
    "answered 401: the session has ended on the server before the work was done"
    " (run it again, it logs in anew and goes on where it stopped)"
)


def test_a_session_that_ends_in_mid_way_is_one_clear_error_and_no_second_login(server):
    session = logged_in(server)
    server.then(200, [token(4, scopes=["org:admin"])]).then(201, token(6)).then(
        401, {"detail": "Unauthorized"}
    )
    with pytest.raises(GlitchTipError) as failure:
        session.ensure_token("ops", ["org:read"])
    assert failure.value.code == "session_expired"
    assert str(failure.value) == f"DELETE /api/0/api-tokens/4/ {EXPIRED}"
    assert len([line for line in server.lines if "auth/login" in line]) == 1


def test_the_run_after_an_ended_session_adopts_what_was_made_and_ends_the_work(server):
    session = logged_in(server)
    server.then(200, [token(6), token(4, scopes=["org:admin"])]).then(204)
    assert session.ensure_token("ops", ["org:read"]) == ("value-6", False, 1)


def test_a_write_whose_csrf_token_no_longer_fits_names_the_setting(server):
    session = logged_in(server)
    server.then(403, {"detail": "CSRF check Failed"})
    with pytest.raises(GlitchTipError, match="CSRF_TRUSTED_ORIGINS") as failure:
        session.tokens.create("ops", ["org:read"])
    assert failure.value.code == "csrf"


def test_another_refusal_in_a_session_keeps_the_words_of_the_server(server):
    session = logged_in(server)
    server.then(403, {"detail": "Permission denied"})
    with pytest.raises(GlitchTipError, match="answered 403: Permission denied") as failure:
        session.tokens.create("ops", ["org:read"])
    assert failure.value.code == "forbidden"


def test_a_token_is_found_behind_the_first_page_of_the_list(server):
    session = logged_in(server)
    link = "{'<" + server.url + '/api/0/api-tokens/?cursor=abc>; rel="next"; results="true"' + "'}"
    server.then(200, [token(number, "other") for number in range(200, 100, -1)], headers={"Link": link})
    server.then(200, [token(7)])
    assert session.ensure_token("ops", ["org:read"]) == ("value-7", False, 0)
    assert "cursor=abc" in server.lines[-1]


ACCEPTED = {"acceptInvite": True, "orgUser": {"id": "9", "pending": False, "organization": {"slug": "acme"}}}


def test_an_invitation_is_accepted_by_the_session(server):
    session = logged_in(server)
    server.then(200, ACCEPTED)
    assert session.accept_invite(9, "didflm-canary")["organization"] == {"slug": "acme"}
    assert server.lines[-1] == "POST /api/0/accept/9/didflm-canary/"
    assert server.asked[-1].json == {"acceptInvite": True}
    assert server.asked[-1].headers["x-csrftoken"] == "second"


@pytest.mark.parametrize(
    ("status", "data"),
    [(403, {"detail": "Invalid invite token"}), (404, {"detail": "Not Found"})],
)
def test_an_invitation_that_cannot_be_accepted_says_so_and_hides_its_link(server, status, data):
    session = logged_in(server)
    server.then(status, data)
    with pytest.raises(GlitchTipError) as failure:
        session.accept_invite(9, "didflm-canary")
    assert str(failure.value) == (
        f"POST /api/0/accept/9/***/ answered {status}: this invitation is unknown, withdrawn or older than"
        " 15 days (ask for a new one)"
    )
    assert failure.value.code == "bad_invite"


def test_other_failures_of_an_acceptance_hide_the_link_too(server):
    session = logged_in(server)
    server.html(500).then(422, {"detail": "didflm-canary is no link"})
    for status in (500, 422):
        with pytest.raises(GlitchTipError) as failure:
            session.accept_invite(9, "didflm-canary")
        assert failure.value.status == status
        assert "canary" not in str(failure.value) + str(failure.value.as_dict())
        assert failure.value.maybe_applied is (status == 500)


def test_leaving_the_session_logs_out_and_hides_trouble(server):
    with logged_in(server):
        server.then(401, {"status": 401})
    assert server.lines[-1] == "DELETE /_allauth/browser/v1/auth/session"
    with logged_in(server):
        server.html(500)


@pytest.mark.parametrize(
    "address",
    ["admin", "admin@localhost", "a@corp.local", "a@b.test", "a@b.INVALID", "a@x.localhost", "a b@c.org"],
)
def test_addresses_that_break_the_server_are_refused_before_login(server, address):
    with pytest.raises(InvalidError):
        login(server.url, address, "p")
    assert server.asked == []


@pytest.mark.parametrize("address", ["a@example.org", "a@corp.internal", "a@corp.lan", "a@x.example"])
def test_addresses_that_the_server_can_serve_pass(address):
    assert check_email(address) == address


def test_a_token_is_adopted_by_its_label_when_its_scopes_fit(server):
    session = logged_in(server)
    server.then(200, [token(9), token(7), token(5, "other")])
    assert session.ensure_token("ops", ["org:read"]) == ("value-9", False, 0)
    assert [line for line in server.lines if "api-tokens" in line] == ["GET /api/0/api-tokens/?limit=100"]


def test_a_token_with_other_scopes_is_revoked_only_after_its_successor_exists(server):
    session = logged_in(server)
    server.then(200, [token(4, scopes=["org:admin"]), token(5, "other")]).then(201, token(6)).then(204)
    assert session.ensure_token("ops", ["org:read"]) == ("value-6", True, 1)
    assert server.lines[-2:] == ["POST /api/0/api-tokens/", "DELETE /api/0/api-tokens/4/"]


def test_what_a_cut_off_run_left_behind_is_revoked_by_the_next(server):
    session = logged_in(server)
    server.then(200, [token(6), token(4, scopes=["org:admin"])]).then(204)
    ensured = session.ensure_token("ops", ["org:read"])
    assert ensured == ("value-6", False, 1)
    assert ensured.changed is True
    assert server.lines[-1] == "DELETE /api/0/api-tokens/4/"


def test_a_token_whose_creation_was_not_answered_is_looked_for(server):
    session = logged_in(server)
    server.then(200, []).then(drop=True).then(200, [token(8)])
    assert session.ensure_token("ops", ["org:read"]) == ("value-8", True, 0)
    assert server.lines.count("POST /api/0/api-tokens/") == 1


def test_scopes_of_a_newer_server_do_not_disturb(server):
    session = logged_in(server)
    server.then(200, [token(3, "other", ["alerts:read"]), token(2)])
    assert session.ensure_token("ops", ["org:read"]).token == "value-2"


def test_every_token_of_a_label_is_revoked_and_no_other(server):
    session = logged_in(server)
    server.then(200, [token(1), token(2, "other"), token(3)]).then(204).then(404, {"detail": "Not Found"})
    assert session.remove_token("ops") == 1
    assert [line for line in server.lines if line.startswith("DELETE")] == [
        "DELETE /api/0/api-tokens/1/",
        "DELETE /api/0/api-tokens/3/",
    ]


@pytest.mark.parametrize(
    ("status", "root", "fits"),
    [
        (200, {"user": {"id": "3"}, "auth": {"label": "ops", "scopes": ["org:read"]}}, True),
        (200, {"user": {"id": "3"}, "auth": {"label": "ops", "scopes": ["org:read", "org:admin"]}}, False),
        (200, {"user": {"id": "3"}, "auth": {"label": "other", "scopes": ["org:read"]}}, False),
        (200, {"user": None, "auth": None}, False),
        (401, {"detail": "Unauthorized"}, False),
    ],
)
def test_a_token_fits_when_user_label_and_scopes_do(server, status, root, fits):
    server.then(status, root)
    assert token_fits(Client(server.url, "t", read_only=True), "ops", ["org:read"]) is fits


def test_a_read_only_session_cannot_log_in(server):
    server.then(200, {}, headers=SET_CSRF)
    with pytest.raises(GlitchTipError, match="only reads"):
        Session(Transport(server.url, read_only=True)).log_in("admin@example.org", "p")
    assert server.lines == ["GET /_allauth/browser/v1/config"]


@pytest.mark.parametrize("shown", ["...1a2b3c4d", "********1a2b3c4d", "", None])
def test_a_masked_token_of_the_list_is_never_returned(server, shown):
    session = logged_in(server)
    server.then(200, [{**token(9), "token": shown}]).then(201, token(10))
    assert session.ensure_token("ops", ["org:read"]) == ("value-10", True, 0)
    assert not [line for line in server.lines if line.startswith("DELETE")]
