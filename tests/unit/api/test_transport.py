"""How the client asks: timeouts, retries, read-only mode, typed failures, no secrets."""

from __future__ import annotations

import time

import pytest

from glitchtip_api import Client, GlitchTipError, NotJsonError, ReadOnlyError, UnreachableError
from glitchtip_api.errors import InvalidError, scrub
from glitchtip_api.session import login
from glitchtip_api.transport import LONGEST_RETRY_AFTER_SECONDS, retry_after


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_idempotent_requests_are_repeated_after_a_passing_trouble(client, server, pauses, method, status):
    server.then(status, {"detail": "busy"}).then(200, {"ok": True})
    assert client.request(method, "/api/0/").data == {"ok": True}
    assert len(server.asked) == 2
    assert pauses == [0.25]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_post_is_never_repeated(client, server, status):
    server.then(status, {"detail": "busy"})
    with pytest.raises(GlitchTipError) as failure:
        client.post("/api/0/organizations/", {"name": "x"})
    assert len(server.asked) == 1
    assert failure.value.maybe_applied is (status >= 500)


def test_a_post_whose_connection_broke_may_have_been_applied(client, server):
    server.then(drop=True)
    with pytest.raises(UnreachableError) as failure:
        client.post("/api/0/organizations/", {"name": "x"})
    assert (failure.value.code, failure.value.maybe_applied, len(server.asked)) == ("broken", True, 1)


def test_a_get_is_repeated_once_after_500_and_not_twice(client, server):
    server.html(500).html(500).then(200, {})
    with pytest.raises(GlitchTipError) as failure:
        client.get("/api/0/")
    assert (failure.value.status, len(server.asked)) == (500, 2)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_write_is_not_repeated_after_500(client, server, method):
    server.html(500)
    with pytest.raises(GlitchTipError):
        client.request(method, "/api/0/x/")
    assert len(server.asked) == 1


def test_retries_end_and_pauses_grow(client, server, pauses):
    for _ in range(4):
        server.then(503, {"detail": "starting"})
    with pytest.raises(GlitchTipError, match="503: starting"):
        client.get("/api/0/")
    assert len(server.asked) == 4
    assert pauses == [0.25, 0.5, 1.0]


def test_jitter_shortens_a_pause_by_up_to_half(server):
    pauses: list[float] = []
    server.then(503, {}).then(200, {})
    Client(server.url, sleep=pauses.append, jitter=lambda: 0.0).get("/api/0/")
    assert pauses == [0.125]


@pytest.mark.parametrize(
    ("asked", "slept"), [("3", 3.0), ("600", LONGEST_RETRY_AFTER_SECONDS), ("soon", 0.25)]
)
def test_retry_after_is_obeyed_up_to_a_limit(client, server, pauses, asked, slept):
    server.then(429, {}, headers={"Retry-After": asked}).then(200, {})
    client.get("/api/0/")
    assert pauses == [slept]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, 0), ("nan", 0), ("inf", 0), ("-5", 0), ("Thu, 01 Jan 1970 00:01:40 GMT", 40), ("7", 7)],
)
def test_retry_after_understands_seconds_and_dates(value, seconds):
    assert retry_after(value, now=lambda: 60.0) == seconds


def test_reads_share_a_connection(client, server):
    for _ in range(5):
        server.then(200, {})
        client.get("/api/0/")
    assert [request.connection for request in server.asked] == [1] * 5


def test_without_pooling_each_read_has_its_own_connection(server):
    server.then(200, {}).then(200, {})
    with Client(server.url, pooled=False) as client:
        client.get("/api/0/")
        client.get("/api/0/")
    assert [request.connection for request in server.asked] == [1, 2]
    assert [request.headers["connection"] for request in server.asked] == ["close", "close"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_write_never_goes_over_a_kept_connection(client, server, method):
    for _ in range(4):
        server.then(200, {})
    client.get("/api/0/")
    client.request(method, "/api/0/x/")
    client.request(method, "/api/0/x/")
    client.get("/api/0/")
    assert [request.connection for request in server.asked] == [1, 2, 3, 1]
    assert [request.headers["connection"] for request in server.asked[1:3]] == ["close", "close"]


def test_a_read_that_a_kept_connection_lost_is_sent_again_at_once(client, server, pauses):
    server.then(200, {}).then(drop=True).then(200, {"ok": True}).then(200, {}).then(200, {})
    client.get("/api/0/")
    assert client.get("/api/0/") == {"ok": True}
    assert pauses == []
    assert client.transport.connections.lost == 1


def test_after_such_a_loss_no_connection_to_the_server_is_kept(client, server):
    server.then(200, {}).then(drop=True).then(200, {}).then(200, {}).then(200, {})
    for _ in range(4):
        client.get("/api/0/")
    assert [request.connection for request in server.asked] == [1, 1, 2, 3, 4]
    assert client.transport.connections.keeping is False


def test_the_replay_leaves_all_retries_for_real_trouble(client, server, pauses):
    server.then(200, {}).then(drop=True)
    for _ in range(3):
        server.then(503, {})
    server.then(200, {"ok": True})
    client.get("/api/0/")
    assert client.get("/api/0/") == {"ok": True}
    assert pauses == [0.25, 0.5, 1.0]


def test_a_connection_that_was_closed_meanwhile_is_noticed_before_it_is_used(client, server):
    server.then(200, {}, hang_up=True).then(200, {})
    client.get("/api/0/")
    time.sleep(0.1)
    client.get("/api/0/")
    assert [request.connection for request in server.asked] == [1, 2]
    assert client.transport.connections.lost == 0


def test_a_fresh_connection_that_is_dropped_is_an_ordinary_retry(client, server, pauses):
    server.then(drop=True).then(200, {})
    client.get("/api/0/")
    assert pauses == [0.25]


def test_close_ends_the_kept_connections(client, server):
    server.then(200, {}).then(200, {})
    client.get("/api/0/")
    client.close()
    client.get("/api/0/")
    assert [request.connection for request in server.asked] == [1, 2]


def test_a_server_that_closes_silently_is_asked_again(client, server):
    server.then(drop=True).then(200, {"ok": True})
    assert client.get("/api/0/") == {"ok": True}


def test_a_silent_server_ends_in_a_timeout(server, pauses):
    server.then(200, {}, delay=0.5)
    hasty = Client(server.url, timeout=(1, 0.1), retries=0, sleep=pauses.append)
    with pytest.raises(UnreachableError) as failure:
        hasty.get("/api/0/")
    assert (failure.value.code, failure.value.maybe_applied) == ("timeout", False)


def test_a_timed_out_post_may_have_been_applied(server):
    server.then(200, {}, delay=0.5)
    with pytest.raises(UnreachableError) as failure:
        Client(server.url, timeout=(1, 0.1)).post("/api/0/x/", {})
    assert failure.value.maybe_applied is True


def test_nobody_listening_is_said_in_one_sentence(closed_url):
    with pytest.raises(UnreachableError, match="nobody answers at http://127") as failure:
        Client(closed_url, retries=0).get("/api/0/")
    assert failure.value.code == "refused"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_read_only_refuses_writes_before_a_socket_is_opened(server, method):
    with pytest.raises(ReadOnlyError):
        Client(server.url, "t", read_only=True).request(method, "/api/0/x/")
    assert server.asked == []


def test_in_read_only_mode_nobody_logs_in(server):
    server.then(200, {}, headers={"Set-Cookie": "csrftoken=x; Path=/"})
    with pytest.raises(ReadOnlyError):
        login(server.url, "admin@example.org", "canary-password", read_only=True)
    assert [line for line in server.lines if not line.startswith("GET")] == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_read_only_lets_reads_through(server, method):
    server.then(200, {})
    Client(server.url, "t", read_only=True).request(method, "/api/0/")
    assert server.lines == [f"{method} /api/0/"]


def test_html_where_json_was_due_is_a_typed_failure(client, server):
    server.html(200)
    with pytest.raises(NotJsonError, match="text/html where JSON was due"):
        client.get("/api/0/projects/o/p/rules/")


def test_broken_json_is_a_typed_failure(client, server):
    server.then(200, raw=b'{"half":')
    with pytest.raises(NotJsonError, match="cannot be read as JSON"):
        client.get("/api/0/")


def test_a_missing_object_is_none_but_a_missing_endpoint_is_a_failure(client, server):
    server.then(404, {"detail": "Not Found"}).html(404)
    assert client.get_or_none("/api/0/organizations/none/") is None
    with pytest.raises(GlitchTipError) as failure:
        client.get_or_none("/api/0/nope/")
    assert failure.value.code == "no_endpoint"


def test_a_redirect_is_not_followed(client, server):
    server.then(301, headers={"Location": "/api/0/organizations/"})
    with pytest.raises(GlitchTipError) as failure:
        client.post("/api/0/organizations", {"name": "x"})
    assert (failure.value.code, len(server.asked)) == ("redirect", 1)


def test_netrc_does_not_replace_the_token(client, server, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.then(200, {})
    client.get("/api/0/")
    assert server.asked[0].headers["authorization"] == "Bearer canary-token-0001"


def test_validation_errors_name_the_field(client, server):
    detail = [{"type": "missing", "loc": ["body", "payload", "name"], "msg": "Field required"}]
    server.then(422, {"detail": detail})
    with pytest.raises(GlitchTipError, match="name: Field required"):
        client.post("/api/0/organizations/", {})


def test_a_failure_never_shows_token_password_or_webhook(client, server):
    secrets = ["canary-token-0001", "canary-password", "https://hooks.example.org/canary-hook"]
    server.then(422, {"detail": f"bad: {' '.join(secrets)} http://user:pw@h.example.org Bearer abcdef"})
    body = {"password": secrets[1], "alertRecipients": [{"url": secrets[2]}]}
    with pytest.raises(GlitchTipError) as failure:
        client.post("/api/0/x/", body)
    shown = f"{failure.value} {failure.value!r} {failure.value.as_dict()} {failure.value.__cause__}"
    for secret in [*secrets, "canary", "user:pw", "abcdef"]:
        assert secret not in shown
    assert "bad:" in shown


def test_representations_hide_the_token(client):
    assert "canary" not in f"{client!r} {client.transport!r}"


def test_the_id_of_a_dsn_key_is_not_in_a_message():
    failure = GlitchTipError("DELETE", "/api/0/projects/o/p/keys/9193e83c-80dc-4292-b568-632c3b3c23c6/", 500)
    assert "9193e83c" not in f"{failure!r} {failure.as_dict()}"


def test_scrub_leaves_short_words_alone():
    assert scrub("a cat sat", ["a", "at", ""]) == "a cat sat"


@pytest.mark.parametrize(
    "url", ["", "errors.example.org", "ftp://h.example.org", "http://u:p@h.example.org", "http://h:x"]
)
def test_an_address_that_is_none_is_refused_without_showing_it(url):
    with pytest.raises(InvalidError) as failure:
        Client(url)
    assert "u:p" not in str(failure.value)


def test_a_path_in_the_address_is_kept(server):
    server.then(200, {})
    Client(f"{server.url}/gt/").get("/api/0/")
    assert server.lines == ["GET /gt/api/0/"]


def test_without_the_library_the_failure_says_which_python(server, monkeypatch):
    monkeypatch.setattr("glitchtip_api.transport.connections", None)
    with pytest.raises(UnreachableError, match="lacks the library 'requests'") as failure:
        Client(server.url).get("/api/0/")
    assert failure.value.code == "no_requests"
