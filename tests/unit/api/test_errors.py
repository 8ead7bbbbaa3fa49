"""What each bad answer is called, in full sentences, and that no sentence holds a secret."""

from __future__ import annotations

import datetime
import gzip
import json
import socket
import ssl
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from glitchtip_api import Client, GlitchTipError, UnreachableError
from glitchtip_api.connections import proxies_for
from glitchtip_api.errors import InvalidError, VersionError, scrub
from glitchtip_api.ingest import send_event
from glitchtip_api.scopes import ACCEPTED, accepted_scopes
from glitchtip_api.session import login
from glitchtip_api.validate import SCOPES
from glitchtip_api.version import ServerVersion

TOKEN = "c0ffee" * 10 + "beef"
PASSWORD = "canary-passw0rd"
KEY = "9193e83c80dc4292b568632c3b3c23c6"
HOOK = "https://hooks.example.org/services/canary-hook-path?token=canary-query"
ORGANIZATIONS = "/api/0/organizations/"


def failure_of(call, *arguments, **options):
    """The failure of a call."""
    with pytest.raises(GlitchTipError) as failure:
        call(*arguments, **options)
    return failure.value


def once(server, token=TOKEN, **options):
    """A client that asks once."""
    return Client(server.url, token, timeout=(1, 0.5), retries=0, per_second=None, **options)


# --- one sentence for each bad answer ---------------------------------------------------------------------


def answered(status, rest):
    return f"GET {ORGANIZATIONS} answered {status}: {rest}"


@pytest.mark.parametrize(
    ("reply", "code", "sentence"),
    [
        (
            {"raw": b"<!doctype html>", "content_type": "text/html; charset=utf-8"},
            "not_json",
            answered(
                200,
                "text/html where JSON was due "
                "(no such endpoint on this server, or the address is not a GlitchTip)",
            ),
        ),
        (
            {},
            "empty",
            answered(200, "an empty answer where JSON was due (look at what stands in front of it)"),
        ),
        (
            {"raw": b'{"half":'},
            "not_json",
            answered(
                200,
                "the answer calls itself JSON but cannot be read as JSON "
                "(it was cut or changed on its way: look at what stands in front of the server)",
            ),
        ),
        (
            {"raw": b"[" * 200_000},
            "not_json",
            answered(
                200,
                "the answer calls itself JSON but cannot be read as JSON "
                "(it was cut or changed on its way: look at what stands in front of the server)",
            ),
        ),
        (
            {"raw": b"\xff\xfe{}", "content_type": "application/json"},
            "not_json",
            answered(
                200,
                "the answer calls itself JSON but cannot be read as JSON "
                "(it was cut or changed on its way: look at what stands in front of the server)",
            ),
        ),
        (
            {"status": 401, "data": {"detail": "Unauthorized"}},
            "unauthorized",
            answered(401, "Unauthorized (the token is wrong, revoked or expired: make a new one)"),
        ),
        (
            {"status": 403, "data": {"detail": "Permission denied"}},
            "forbidden",
            answered(
                403,
                "Permission denied (the token needs one of org:read, org:write, org:admin; "
                "if it has that, its user lacks the role)",
            ),
        ),
        (
            {"status": 403, "data": {"detail": "CSRF check Failed"}},
            "unauthorized",
            answered(403, "CSRF check Failed (the token is wrong, revoked or expired: make a new one)"),
        ),
        (
            {"status": 403, "raw": b"<html>", "content_type": "text/html"},
            "no_endpoint",
            (
                f"GET {ORGANIZATIONS} answered 403 "
                "(no such endpoint on this server, or something in front of it refuses)"
            ),
        ),
        (
            {"status": 404, "raw": b"<html>", "content_type": "text/html"},
            "no_endpoint",
            (
                f"GET {ORGANIZATIONS} answered 404 "
                "(no such endpoint on this server, or the address is not a GlitchTip)"
            ),
        ),
        (
            {"status": 405, "raw": b"Method not allowed", "content_type": "text/html; charset=utf-8"},
            "method_not_allowed",
            answered(405, "Method not allowed"),
        ),
        (
            {"status": 429, "data": {"message": "Please retry later"}, "headers": {"Retry-After": "600"}},
            "throttled",
            answered(429, "Please retry later (the server asks to come back later)"),
        ),
        (
            {"status": 500, "raw": b"<h1>Server Error (500)</h1>", "content_type": "text/html"},
            "server_error",
            f"GET {ORGANIZATIONS} answered 500 (the server failed: its log says why)",
        ),
        (
            {"status": 503, "raw": b"", "content_type": "text/plain"},
            "unavailable",
            f"GET {ORGANIZATIONS} answered 503 (the server is starting, stopping or overloaded)",
        ),
        (
            {"status": 302, "headers": {"Location": "/oauth2/start?rd=canary-state"}},
            "login_page",
            answered(
                302,
                "redirected to /oauth2/start (something in front of the server wants a login of its own: "
                "give an address that goes around it)",
            ),
        ),
        (
            {"status": 302, "headers": {"Location": "https://id.example.org/login?next=canary-state"}},
            "login_page",
            answered(
                302,
                "redirected to https://id.example.org/login (something in front of the server wants a login "
                "of its own: give an address that goes around it)",
            ),
        ),
        (
            {"status": 308, "headers": {"Location": "https://errors.example.org/api/0/organizations/"}},
            "redirect",
            answered(
                308,
                "redirected to https://errors.example.org/api/0/organizations/ "
                "(give the address with https://)",
            ),
        ),
        (
            {"status": 304},
            "redirect",
            answered(
                304,
                "redirected to nowhere "
                "(give the address that answers itself, with the right scheme and path)",
            ),
        ),
    ],
)
def test_a_bad_answer_is_one_clear_sentence(server, reply, code, sentence):
    server.then(**{"status": 200, **reply})
    failure = failure_of(once(server).get, ORGANIZATIONS)
    assert (failure.code, str(failure)) == (code, sentence)
    assert "canary" not in repr(failure.as_dict())


def test_a_path_without_its_slash_is_said(server):
    server.then(301, headers={"Location": ORGANIZATIONS})
    failure = failure_of(once(server).post, ORGANIZATIONS.rstrip("/"), {"name": "x"})
    assert failure.hint == "the path lacks its slash at the end"


def test_without_a_token_the_hint_is_to_give_one(server):
    server.then(401, {"detail": "Unauthorized"})
    assert failure_of(once(server, None).get, ORGANIZATIONS).hint == "this needs a token, or a login"


def test_an_organization_that_is_unknown_or_not_ones_own_is_named(server):
    server.then(404, {"detail": "Not Found"})
    failure = failure_of(once(server).post, "/api/0/organizations/acme/teams/", {"slug": "x"})
    assert failure.code == "not_found"
    assert str(failure) == (
        "POST /api/0/organizations/acme/teams/ answered 404: Not Found "
        "(it is not there, or the token's user is not a member of organization 'acme')"
    )


@pytest.mark.parametrize(
    ("method", "path", "hint"),
    [
        ("POST", "/api/0/projects/o/p/keys/", "one of project:write, project:admin;"),
        ("DELETE", "/api/0/projects/o/p/", "needs project:admin;"),
        ("GET", "/api/0/projects/o/p/alerts/", "needs project:read;"),
        ("GET", "/api/0/organizations/o/releases/1.0%2Fx/", "needs project:releases;"),
        ("GET", "/api/0/issues/7/comments/", "one of event:read, event:admin;"),
        ("GET", "/api/0/organizations/o/monitors/", "the token lacks a scope, or its user lacks the role"),
    ],
)
def test_a_missing_scope_is_named(server, method, path, hint):
    server.then(403, {"detail": "Permission denied"})
    assert hint in failure_of(once(server).request, method, path).hint


def test_the_table_of_scopes_knows_real_scopes_and_no_call_twice():
    calls = [(method, path) for method, path, _ in ACCEPTED]
    assert len(set(calls)) == len(calls)
    assert {scope for *_, scopes in ACCEPTED for scope in scopes.split()} <= set(SCOPES)
    assert accepted_scopes("HEAD", "/api/0/projects/") == ("project:read",)


# --- answers that do not come to their end ----------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
def test_an_answer_that_is_cut_off_is_never_taken_for_whole(server, chunked):
    server.then(200, [{"id": "1"}], cut=7, chunked=chunked)
    failure = failure_of(once(server).get, ORGANIZATIONS)
    assert isinstance(failure, UnreachableError)
    assert (failure.code, str(failure)) == (
        "broken",
        f"GET {ORGANIZATIONS}: {server.url} broke the answer off",
    )


def test_a_cut_answer_is_asked_for_again(client, server, pauses):
    server.then(200, [1], cut=7).then(200, [1, 2])
    assert client.get(ORGANIZATIONS) == [1, 2]
    assert pauses == [0.25]


def test_an_answer_in_chunks_or_packed_is_read(client, server):
    server.then(200, [1, 2, 3], chunked=True, pieces=3)
    assert client.get(ORGANIZATIONS) == [1, 2, 3]
    server.then(200, raw=gzip.compress(b'{"packed": true}'), headers={"Content-Encoding": "gzip"})
    assert client.get(ORGANIZATIONS) == {"packed": True}


def test_an_answer_that_cannot_be_unpacked_is_broken(server):
    server.then(200, raw=b"no gzip", headers={"Content-Encoding": "gzip"})
    failure = failure_of(once(server).get, ORGANIZATIONS)
    assert (failure.code, failure.detail) == (
        "broken",
        f"{server.url} sent an answer that cannot be unpacked",
    )


def test_a_write_whose_answer_is_cut_off_may_have_been_applied(server):
    server.then(201, {"id": "1"}, cut=9)
    failure = failure_of(once(server).post, ORGANIZATIONS, {"name": "x"})
    assert (failure.code, failure.maybe_applied, len(server.asked)) == ("broken", True, 1)


def test_an_answer_that_stops_in_the_middle_times_out(server):
    server.then(200, [1] * 50, pieces=2, pause=1.0)
    failure = failure_of(once(server).get, ORGANIZATIONS)
    assert (failure.code, failure.detail) == ("timeout", f"{server.url} stopped in the middle of its answer")


def test_an_answer_that_trickles_ends_at_the_deadline(server):
    """Each byte comes well within the wait for data; only the deadline ends it."""
    server.then(200, [1] * 100, pieces=200, pause=0.05)
    began = time.monotonic()
    failure = failure_of(once(server, deadline=0.3).get, ORGANIZATIONS)
    assert time.monotonic() - began < 1.5
    assert (failure.code, failure.detail) == (
        "timeout",
        f"{server.url} had not finished its answer after 0.3 s",
    )


@pytest.fixture
def trickling_headers():
    """A server that sends one header line after another for ever."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            try:
                for number in range(80):
                    connection.sendall(b"X-%d: y\r\n" % number)
                    time.sleep(0.05)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    thread.join(10)


def test_headers_that_trickle_end_at_the_deadline_too(trickling_headers):
    began = time.monotonic()
    client = Client(trickling_headers, timeout=(1, 1), retries=0, deadline=0.3)
    assert failure_of(client.get, ORGANIZATIONS).code == "timeout"
    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize("chunked", [False, True])
def test_an_answer_that_is_too_large_is_given_up(server, chunked):
    server.then(200, ["x" * 3_000_000], chunked=chunked, pieces=20)
    failure = failure_of(once(server, largest=2 * 2**20).get, ORGANIZATIONS)
    assert str(failure) == f"GET {ORGANIZATIONS}: the answer is larger than 2 MiB"
    assert failure.code == "too_large"


def test_an_answer_that_is_small_only_while_packed_is_given_up(server):
    packed = gzip.compress(json.dumps(["x" * 3_000_000]).encode())
    assert len(packed) < 10_000
    server.then(200, raw=packed, headers={"Content-Encoding": "gzip"})
    assert failure_of(once(server, largest=2 * 2**20).get, ORGANIZATIONS).code == "too_large"


def test_a_server_that_speaks_no_http_is_said(server):
    server.then(wire=b"SSH-2.0-OpenSSH_9.6\r\n")
    failure = failure_of(once(server).get, ORGANIZATIONS)
    assert str(failure) == (
        f"GET {ORGANIZATIONS}: {server.url} answered something that is not HTTP "
        "(is this the port of a web server?)"
    )


def test_an_unknown_host_is_named():
    failure = failure_of(Client("http://no-such-host.invalid", retries=0).get, ORGANIZATIONS)
    assert (failure.code, failure.detail) == ("refused", "nobody knows a host named no-such-host.invalid")


def test_a_delete_that_was_lost_and_then_finds_nothing_is_done(client, server):
    server.then(drop=True).then(404, {"detail": "Not Found"})
    assert client.remove("/api/0/teams/o/t/") is True


def test_a_put_that_was_lost_once_may_have_been_applied_whatever_comes_after(client, server):
    server.then(drop=True).then(403, {"detail": "Permission denied"})
    assert failure_of(client.put, "/api/0/teams/o/t/", {"slug": "x"}).maybe_applied is True


# --- certificates -----------------------------------------------------------------------------------------


def make_certificate(folder, name, *, days=2):
    """A self-signed certificate for `name`: (path of the certificate, path of its key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    today = datetime.datetime.now(datetime.UTC)
    if name.replace(".", "").isdigit():
        import ipaddress

        alternative = x509.IPAddress(ipaddress.ip_address(name))
    else:
        alternative = x509.DNSName(name)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=10))
        .not_valid_after(today + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / f"{name}{days}.pem", folder / f"{name}{days}.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return pem, secret


@pytest.fixture
def tls_server(tmp_path):
    """tls_server(name, days=2) -> (address, PEM file) of a server with a certificate of its own."""
    running = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_):
            pass

    def start(name="127.0.0.1", days=2):
        pem, secret = make_certificate(tmp_path, name, days=days)
        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        http.daemon_threads = True
        http.handle_error = lambda *_: None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem, secret)
        http.socket = context.wrap_socket(http.socket, server_side=True)
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        running.append(http)
        return f"https://127.0.0.1:{http.server_address[1]}", str(pem)

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


HINT = "name the file of the authority that signed it (PEM) as ca_path, or renew the certificate"


def test_a_certificate_of_an_unknown_authority_is_one_clear_sentence(tls_server):
    url, _ = tls_server()
    failure = failure_of(Client(url, TOKEN, retries=3).get, ORGANIZATIONS)
    assert failure.code == "untrusted"
    assert str(failure) == (
        f"GET {ORGANIZATIONS}: the certificate of {url} is not trusted: self-signed certificate ({HINT})"
    )


def test_an_expired_certificate_and_one_of_another_name_are_told_apart(tls_server):
    url, pem = tls_server(days=-1)
    assert failure_of(Client(url, ca_path=pem).get, "/").detail.endswith("certificate has expired")
    url, pem = tls_server("errors.example.org")
    assert "IP address mismatch" in failure_of(Client(url, ca_path=pem).get, "/").detail


def test_with_its_authority_the_server_is_trusted_for_reads_writes_and_events(tls_server):
    url, pem = tls_server()
    with Client(url, TOKEN, ca_path=pem) as client:
        assert client.get(ORGANIZATIONS) == {}
        assert client.get(ORGANIZATIONS) == {}
        assert client.transport.connections.opened == 1
        assert client.post(ORGANIZATIONS, {}) == {}
    assert send_event(f"{url.replace('://', f'://{KEY}@')}/7", {"message": "x"}, ca_path=pem)


def test_without_checking_any_certificate_does_and_nobody_is_warned_at_length(tls_server, recwarn):
    url, _ = tls_server("errors.example.org")
    assert Client(url, TOKEN, validate_certs=False).get(ORGANIZATIONS) == {}
    assert [str(warning.message) for warning in recwarn] == []


def test_the_authorities_of_the_environment_count_but_not_before_ca_path(tls_server, monkeypatch, tmp_path):
    url, pem = tls_server()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", pem)
    assert Client(url).get(ORGANIZATIONS) == {}
    other, _ = make_certificate(tmp_path, "other.example.org")
    assert failure_of(Client(url, ca_path=str(other)).get, ORGANIZATIONS).code == "untrusted"


def test_a_file_that_holds_no_certificate_is_refused_at_once(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("nothing")
    for path, why in ((text, "holds no certificate in PEM form"), (tmp_path / "none", "No such file")):
        with pytest.raises(InvalidError, match=why):
            Client("https://errors.example.org", ca_path=str(path))


def test_https_to_a_server_without_it_is_said(server):
    failure = failure_of(Client(server.url.replace("http://", "https://"), retries=0).get, ORGANIZATIONS)
    assert (failure.code, failure.hint) == ("tls", "does the address start with http:// instead of https://?")


@pytest.mark.parametrize("module", ["glitchtip_organization", "glitchtip_info", "glitchtip_token"])
def test_modules_trust_what_their_options_say(tls_server, run_module, module):
    url, pem = tls_server()
    options = {
        "glitchtip_organization": {"token": TOKEN, "name": "Acme"},
        "glitchtip_info": {"kind": "instance"},
        "glitchtip_token": {"email": "a@example.org", "password": PASSWORD, "label": "x", "scopes": []},
    }[module]
    refused = run_module(module, url=url, **options)
    assert (refused["failed"], refused["failure"]["code"]) == (True, "untrusted")
    for trusting in ({"ca_path": pem}, {"validate_certs": False}):
        result = run_module(module, url=url, **options, **trusting)
        assert result.get("failure", {}).get("code") not in ("untrusted", "tls")


@pytest.mark.parametrize(
    ("version", "failed", "warnings"),
    [
        ("4.2.0", True, None),
        ("6.2.6", False, []),
        ("7.0.0", False, ["the server is GlitchTip 7.0.0; this was tested up to 6.2"]),
    ],
)
def test_a_module_looks_at_the_version_before_anything(server, run_module, version, failed, warnings):
    server.then(200, {"version": version}).then(200, [{"name": "Acme", "slug": "acme", "id": "1"}])
    result = run_module("glitchtip_organization", url=server.url, token=TOKEN, name="Acme")
    assert (result["failed"], result.get("warnings")) == (failed, warnings)
    assert server.lines[0] == "GET /api/settings/"
    assert len(server.lines) == (1 if failed else 2)


# --- proxies of the environment ---------------------------------------------------------------------------


@pytest.fixture
def proxy(server, monkeypatch):
    """The scripted server is the proxy that the environment names."""
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url.replace("://", "://user:canary-proxy@"))
    return server


def test_a_server_elsewhere_is_asked_through_the_proxy_of_the_environment(proxy):
    proxy.then(200, {"ok": True})
    assert Client("http://errors.example.org", TOKEN).get(ORGANIZATIONS) == {"ok": True}
    assert proxy.lines == [f"GET http://errors.example.org{ORGANIZATIONS}"]


@pytest.mark.usefixtures("proxy")
def test_no_proxy_goes_around_it(monkeypatch):
    monkeypatch.setenv("no_proxy", "example.org")
    assert proxies_for("http://errors.example.org").get("http") is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "[::1]", "web.localhost"])
@pytest.mark.usefixtures("proxy")
def test_an_address_of_this_machine_is_never_asked_through_a_proxy(host):
    assert proxies_for(f"http://{host}:8080") == {}
    assert proxies_for("http://errors.example.org") != {}


def test_a_proxy_that_is_not_there_is_named_as_the_trouble(monkeypatch, closed_url):
    monkeypatch.setenv("http_proxy", closed_url.replace("://", "://user:canary-proxy@"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    failure = failure_of(Client("http://errors.example.org", retries=0).post, ORGANIZATIONS, {})
    assert failure.code == "proxy"
    assert failure.maybe_applied is False
    assert str(failure) == (
        f"POST {ORGANIZATIONS}: the proxy of the environment did not pass the request on to "
        "http://errors.example.org "
        "(set HTTPS_PROXY or HTTP_PROXY right, or name the server in NO_PROXY)"
    )


# --- versions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "numbers", "line"),
    [
        ("5.2.1", (5, 2, 1), "5.2"),
        ("5.0", (5, 0, 0), "5.2"),
        ("v6.0.3", (6, 0, 3), "6.x"),
        ("6.2.6", (6, 2, 6), "6.x"),
        ("7.0.0-rc1", (7, 0, 0), "6.x"),
        ("0.0.0-unknown", None, "5.2"),
        ("", None, "5.2"),
        ("0", None, "5.2"),
        ("main", None, "5.2"),
    ],
)
def test_the_version_of_a_server_is_read_from_what_it_says(text, numbers, line):
    version = ServerVersion.parse(text)
    assert (version.numbers, version.line) == (numbers, line)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("4.2.0", "4.2.0: upstream calls it broken: it accepts events and throws them away (upgrade it)"),
        ("4.1.3", "4.1.3: this needs 5.0 or newer (upgrade it)"),
        ("3.4.5", "3.4.5: this needs 5.0 or newer (upgrade it (from 3.x by way of 4.x))"),
    ],
)
def test_a_server_that_is_too_old_is_refused_in_one_sentence(client, server, text, sentence):
    server.then(200, {"version": text})
    with pytest.raises(VersionError) as failure:
        client.require()
    assert failure.value.code == "too_old"
    assert str(failure.value) == f"GET /api/settings/: the server is GlitchTip {sentence}"


def test_a_broken_version_is_refused_whatever_the_minimum(client, server):
    server.then(200, {"version": "4.2.0"})
    with pytest.raises(VersionError, match="throws them away"):
        client.require("4.0")


@pytest.mark.parametrize("text", ["", "0.0.0-unknown", "5.0.0", "5.2.1", "6.2.6", "6.9"])
def test_a_version_that_is_unknown_or_supported_passes_without_a_word(client, server, text):
    server.then(200, {"version": text})
    assert client.require() is None


def test_a_version_newer_than_tested_is_a_warning(client, server):
    server.then(200, {"version": "7.0.0"})
    assert client.require() == "the server is GlitchTip 7.0.0; this was tested up to 6.2"


def test_a_feature_may_ask_for_more(client, server):
    server.then(200, {"version": "6.0.6"})
    with pytest.raises(VersionError, match=r"6\.0\.6: this needs 6\.0\.7 or newer"):
        client.require("6.0.7")
    assert client.server.at_least("6.0")
    with pytest.raises(InvalidError, match="no version"):
        client.require("newest")


def test_the_version_is_read_once_and_only_when_it_is_wanted(client, server):
    server.then(200, []).then(200, {"version": "6.2.6"})
    client.get(ORGANIZATIONS)
    assert [client.line, client.version(), client.require(), client.server.line] == [
        "6.x",
        "6.2.6",
        None,
        "6.x",
    ]
    assert server.lines == [f"GET {ORGANIZATIONS}", "GET /api/settings/"]


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        ({"raw": b"<!doctype html>", "content_type": "text/html"}, "5.2"),
        ({"status": 404, "raw": b"<html>", "content_type": "text/html"}, "5.2"),
        ({"status": 401, "data": {"detail": "Unauthorized"}}, "6.x"),
        ({"status": 403, "data": {"detail": "Permission denied"}}, "6.x"),
        ({"status": 404, "data": {"detail": "Not Found"}}, "6.x"),
        ({"data": []}, "6.x"),
    ],
)
def test_the_line_of_a_server_that_tells_no_version_is_found_out_once(client, server, reply, line):
    server.then(200, {"version": "0.0.0-unknown"}).then(**reply)
    assert [client.line, client.line] == [line, line]
    assert server.lines == ["GET /api/settings/", "GET /api/0/issues/1/commits/"]


def test_a_line_that_cannot_be_found_out_now_is_asked_for_again(server):
    server.then(200, {"version": ""}).then(503).then(200, raw=b"<html>", content_type="text/html")
    client = once(server)
    assert failure_of(lambda: client.line).status == 503
    assert client.line == "5.2"


# --- no secret in any failure -----------------------------------------------------------------------------

# what is known by its form, and what only whoever sent it can know
ALWAYS = (TOKEN, KEY, "services", "canary-query")
WHEN_SENT = (*ALWAYS, "canary", PASSWORD)
ECHO = f"bad {TOKEN} {HOOK} http://{KEY}@h.example.org/1 Bearer {TOKEN} "
ECHO_SENT = f"{ECHO} {PASSWORD} /services/canary-hook-path canary-api-key"
BODY = {
    "name": "x",
    "password": PASSWORD,
    "alertRecipients": [{"url": HOOK, "apiKey": "canary-api-key"}],
}
BAD_ANSWERS = {
    "echo of a body": {"status": 422, "data": {"detail": ECHO_SENT}},
    "echo in JSON": {"status": 422, "data": {"detail": ECHO}},
    "echo in a list": {"status": 422, "data": {"detail": [{"loc": ["body", "x", "url"], "msg": ECHO}]}},
    "echo in text": {"status": 400, "raw": ECHO.encode(), "content_type": "text/plain"},
    "echo in a header": {"status": 302, "headers": {"Location": f"/login/{TOKEN}?next={TOKEN}"}},
    "echo of a kind": {"raw": b"x", "content_type": f"text/{TOKEN}"},
    "echo in broken JSON": {"raw": f'{{"x": "{TOKEN}'.encode()},
    "echo of a form": {"status": 400, "data": {"errors": [{"message": f"bad {PASSWORD}", "param": "x"}]}},
    "unauthorized": {"status": 401, "data": {"detail": ECHO}},
    "forbidden": {"status": 403, "data": {"detail": ECHO}},
    "missing": {"status": 404, "data": {"detail": ECHO}},
    "error": {"status": 500, "raw": ECHO.encode(), "content_type": "text/plain"},
    "dropped": {"drop": True},
    "cut": {"data": {"x": ECHO}, "cut": 5},
    "slow": {"delay": 3.0},
    "no HTTP": {"wire": TOKEN.encode() + b"\r\n\r\n"},
    "no status": {"wire": b"HTTP/1.1 " + TOKEN.encode() + b"\r\n\r\n"},
    "no header": {"wire": b"HTTP/1.1 200 OK\r\n" + TOKEN.encode() * 2000 + b": x\r\n\r\n"},
    "bad gzip": {"raw": TOKEN.encode(), "headers": {"Content-Encoding": "gzip"}},
}


def everything_shown(failure):
    """All that a log, a traceback or a report can show of a failure."""
    shown = [
        str(failure),
        repr(failure),
        json.dumps(failure.as_dict()),
        repr(failure.args),
        repr(vars(failure)),
    ]
    shown += traceback.format_exception(failure)
    seen = failure
    while seen is not None:  # also what is suppressed: other tools print it
        shown.append(f"{seen!r} {seen.args!r} {vars(seen)!r}")
        seen = seen.__cause__ or seen.__context__
    return "\n".join(shown)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("answer", list(BAD_ANSWERS))
def test_no_failure_of_the_api_shows_a_secret(server, method, answer):
    server.then(**BAD_ANSWERS[answer])
    path = f"/api/0/projects/o/p/keys/{KEY}/"
    sent = BODY if method == "POST" else None
    failure = failure_of(once(server).request, method, path, json=sent)
    shown = everything_shown(failure)
    if method == "POST" or answer != "echo of a body":
        assert [canary for canary in (WHEN_SENT if sent else ALWAYS) if canary in shown] == []
    assert failure.__context__ is None
    assert failure.__cause__ is None


@pytest.mark.parametrize("answer", list(BAD_ANSWERS))
def test_no_failure_of_a_login_shows_a_secret(server, answer):
    server.then(200, {}, headers={"Set-Cookie": "csrftoken=canary-csrf; Path=/"})
    server.then(**BAD_ANSWERS[answer])
    failure = failure_of(
        login, server.url, "admin@example.org", PASSWORD, timeout=(1, 0.5), retries=0, per_second=None
    )
    shown = everything_shown(failure)
    known = () if answer == "echo of a body" else ALWAYS
    assert [canary for canary in ("canary-csrf", PASSWORD, *known) if canary in shown] == []


@pytest.mark.parametrize("answer", list(BAD_ANSWERS))
def test_no_failure_of_an_event_shows_its_dsn(server, answer):
    server.then(**BAD_ANSWERS[answer])
    dsn = f"{server.url.replace('://', f'://{KEY}@')}/7"
    failure = failure_of(send_event, dsn, {"message": "x"}, timeout=(1, 0.5), retries=0)
    assert KEY not in everything_shown(failure)


@pytest.mark.parametrize(
    "token", [f"{TOKEN}\n", f" {TOKEN}", "canary\r\nX-Other: 1", "canary-żółć", "canary\x00"]
)
def test_a_token_that_cannot_be_one_is_refused_without_showing_it(token):
    failure = failure_of(Client, "http://127.0.0.1:1", token)
    assert (failure.code, str(failure)) == (
        "bad_token",
        "the token holds a space, a line break or a letter that no token has",
    )
    assert [canary for canary in (TOKEN, "canary") if canary in everything_shown(failure)] == []


def test_parts_of_paths_that_let_somebody_in_are_hidden():
    for path in (
        f"/api/0/projects/o/p/keys/{KEY}/",
        f"/api/0/accept/7/{'canary-invitation'}/",
        "/api/0/organizations/o/heartbeat_check/9193e83c-80dc-4292-b568-632c3b3c23c6/",
    ):
        shown = everything_shown(GlitchTipError("POST", path, 500))
        assert "canary" not in shown
        assert "9193e83c" not in shown
    assert scrub(f"/api/0/accept/7/{TOKEN}/") == "/api/0/accept/7/***/"
    event_id = "6a12adab20ab4e44b23f2bfa6728111b"
    assert scrub(f"event {event_id}") == f"event {event_id}"


@pytest.mark.parametrize("answer", ["echo in JSON", "echo in a header", "cut", "dropped", "forbidden"])
@pytest.mark.slow
def test_what_a_failed_task_prints_shows_no_secret(server, run_module, answer):
    bad = type(server.then().replies.pop())(**BAD_ANSWERS[answer])
    good = type(bad)(200, {"version": "6.2.6"})
    server.answer = lambda asked: good if asked.path == "/api/settings/" else bad
    result = run_module(
        "glitchtip_organization", url=server.url, token=TOKEN, name="Acme", timeout=1, _check=False
    )
    assert result["failed"] is True
    assert [canary for canary in ALWAYS if canary in json.dumps(result)] == []


def test_what_only_a_session_may_do_says_so_to_a_token(client, server):
    server.then(403, {"detail": "CSRF check Failed"})
    with pytest.raises(GlitchTipError, match="it takes a login with e-mail and password") as refused:
        client.post("/api/0/api-tokens/", {"label": "x", "scopes": 0})
    assert refused.value.code == "forbidden"
