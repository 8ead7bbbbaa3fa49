"""A peer that drips, floods, redirects or lies costs one limited time and one sentence; each rule with its control."""

from __future__ import annotations

import gzip
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import Peer, Script, answer, answering, make_certificate, running, silent

from glitchtip_core import http
from glitchtip_core.http import Answer, HttpError, Trouble, check_reachable, request

SECRET = "canary-of-a-token"
LIMIT = 0.5


def ask(peer: Peer | str, **more: Any) -> Answer:
    url = peer if isinstance(peer, str) else peer.url
    options: dict[str, Any] = {"what": "the tracker", "timeout": LIMIT, "limit": 100_000, **more}
    return request(f"{url}/{SECRET}", headers={"Authorization": f"Bearer {SECRET}"}, **options)


def trouble_of(peer: Peer | str, **more: Any) -> HttpError:
    """The error of a request, which must come within its time and hold no secret."""
    began = time.monotonic()
    with pytest.raises(HttpError) as caught:
        ask(peer, **more)
    assert time.monotonic() - began < more.get("timeout", LIMIT) + 1.5
    assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.detail} {caught.value.__context__!r}"
    assert str(caught.value).startswith("the tracker ")
    assert caught.value.__cause__ is None
    return caught.value


@pytest.fixture
def one_wait_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The protection off: as with a plain socket timeout, each wait may take long, as on a busy machine."""
    return lambda: monkeypatch.setattr(http._Clock, "left", lambda _self: LIMIT * 20)


# ------------------------------------------------------------------ time


def test_an_answer_is_status_headers_and_body() -> None:
    with running(
        answering(answer(b'{"a": 1}', "Content-Type: application/json", "X-A: 1", "x-a: 2"))
    ) as peer:
        got = ask(peer)
    assert (got.status, got.body, got.is_json, got.headers["x-a"]) == (200, b'{"a": 1}', True, "1, 2")
    head = peer.heads[0].decode()
    assert head.startswith(f"GET /{SECRET} HTTP/1.1\r\nHost: 127.0.0.1:{peer.port}\r\n")
    assert "Connection: close" in head


DRIPS = {
    "the status line": ((b"", answer(b"ok")), 0.04),
    "the headers": ((b"HTTP/1.1 200 OK\r\n", b"X: y\r\nContent-Length: 2\r\n\r\nok"), 0.05),
    "the body": ((b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n", b"x" * 30), 0.05),
    "a chunk": (
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"14\r\n" + b"x" * 20 + b"\r\n0\r\n\r\n"),
        0.05,
    ),
    "the trailers": (
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n",
            b"X-Trailer: some value\r\n\r\n",
        ),
        0.05,
    ),
    "interim answers": ((b"", b"HTTP/1.1 100 C\r\n\r\n" * 2 + answer(b"ok")), 0.02),
}


@pytest.mark.parametrize("name", DRIPS)
def test_a_peer_that_drips_is_given_up_in_time(name: str) -> None:
    parts, pause = DRIPS[name]
    with running(answering(*parts, pause=pause)) as peer:
        error = trouble_of(peer)
    assert (error.trouble, str(error)) == (Trouble.TIME, "the tracker did not answer in time")


@pytest.mark.slow
@pytest.mark.parametrize("name", DRIPS)
def test_control_with_a_limit_for_each_wait_alone_a_peer_that_drips_is_waited_for(
    name: str, one_wait_is_the_limit: Callable[[], None]
) -> None:
    one_wait_is_the_limit()
    parts, pause = DRIPS[name]
    began = time.monotonic()
    with running(answering(*parts, pause=pause)) as peer:
        assert ask(peer).status == 200
    assert time.monotonic() - began > LIMIT


def test_a_peer_that_never_answers_is_given_up_in_time() -> None:
    with running(silent) as peer:
        assert trouble_of(peer).trouble is Trouble.TIME


def test_a_peer_that_does_not_read_is_given_up_in_time() -> None:
    with running(lambda peer, _connection: bool(peer.over.wait()) or None) as peer:
        assert trouble_of(peer, method="POST", body=b"x" * 20_000_000).trouble is Trouble.TIME


def slow_reader(peer: Peer, connection: socket.socket) -> None:
    """Takes a little every now and then."""
    read = 0
    while read < 20_000_000 and not peer.over.wait(0.03):
        read += len(connection.recv(400_000))
    peer.send(connection, answer(b"ok"))


@pytest.mark.slow
def test_a_peer_that_reads_slowly_is_given_up_in_time(one_wait_is_the_limit: Callable[[], None]) -> None:
    with running(slow_reader) as peer:
        assert trouble_of(peer, method="POST", body=b"x" * 20_000_000).trouble is Trouble.TIME
        one_wait_is_the_limit()  # the control
        assert ask(peer, method="POST", body=b"x" * 20_000_000).status == 200


def dripping_handshake(peer: Peer, connection: socket.socket) -> None:
    """Begins a TLS record of 16 KiB, which takes minutes."""
    connection.recv(4096)
    peer.drip(connection, b"\x16\x03\x03\x40\x00" + b"\x02" * 2**14, 0.02)


def test_a_peer_that_drips_its_tls_handshake_is_given_up_in_time() -> None:
    """On a busy machine the time may be over before the peer's first byte: then the next try has more of it."""
    dripped = 0
    for limit in (LIMIT, LIMIT * 4, LIMIT * 16):
        with running(dripping_handshake) as peer:
            error = trouble_of(f"https://127.0.0.1:{peer.port}", timeout=limit)
        assert error.trouble is Trouble.TIME
        dripped = peer.sent
        if dripped > 5:
            break
    assert dripped > 5, "the control: it did drip"


@pytest.mark.slow
def test_a_resolver_that_hangs_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def slow(*arguments: Any, **more: Any) -> Any:
        time.sleep(LIMIT * 2)
        return real(*arguments, **more)

    with running(answering(answer(b"ok"))) as peer:
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        url = f"http://localhost:{peer.port}"
        assert trouble_of(url).trouble is Trouble.TIME
        assert ask(url, timeout=LIMIT * 6).status == 200, "the control: with more time it answers"


def test_an_address_that_takes_no_connection_leaves_time_for_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running(answering(answer(b"ok"))) as peer, socket.socket() as full:
        full.bind(("127.0.0.1", 0))  # bound, so that nobody else listens there
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", place)
            for place in (full.getsockname(), ("127.0.0.1", peer.port))
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert ask("http://two.example.org").status == 200
        dials: list[float] = []
        real = http._dialled

        def stuck(family: Any, address: Any, timeout: float) -> socket.socket:
            dials.append(timeout)
            if address[1] != peer.port:
                time.sleep(timeout)
                raise TimeoutError
            return real(family, address, timeout)

        monkeypatch.setattr(http, "_dialled", stuck)
        assert ask("http://two.example.org", timeout=1.0).status == 200
        assert dials[0] <= 0.5


# ------------------------------------------------------------------ size


def flood(peer: Peer, connection: socket.socket) -> None:
    """A body that does not end."""
    peer.read_request(connection)
    peer.send(connection, answer(b"", length=False))
    while not peer.over.is_set():
        peer.send(connection, b"x" * 65536)


def chunked_flood(peer: Peer, connection: socket.socket) -> None:
    peer.read_request(connection)
    peer.send(connection, answer(b"", "Transfer-Encoding: chunked", length=False))
    while not peer.over.is_set():
        peer.send(connection, b"8000\r\n" + b"x" * 0x8000 + b"\r\n")


@pytest.mark.parametrize("script", [flood, chunked_flood])
def test_an_endless_body_is_given_up_at_its_limit(script: Script) -> None:
    with running(script) as peer:
        error = trouble_of(peer, timeout=20)
        assert error.trouble is Trouble.TOO_LARGE
        assert peer.sent < 20_000_000


@pytest.mark.parametrize(
    ("size", "headers", "length"), [(100_001, (), True), (100_001, (), False), (2**40, (), True)]
)
def test_a_body_above_the_limit_is_refused_and_one_of_the_limit_is_not(
    size: int, headers: tuple[str, ...], length: bool
) -> None:
    head = answer(b"", *headers, *([f"Content-Length: {size}"] if length else []), length=False)
    with running(answering(head + b"x" * min(size, 100_001))) as peer:
        assert trouble_of(peer).trouble is Trouble.TOO_LARGE
    with running(answering(answer(b"x" * 100_000, length=length))) as peer:
        assert len(ask(peer).body) == 100_000


def test_a_body_that_ends_too_early_is_no_answer() -> None:
    with running(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nxxxxx")) as peer:
        assert trouble_of(peer).trouble is Trouble.BROKEN


@pytest.mark.slow
def test_a_compressed_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    assert len(bomb) < 100_000 < len(gzip.decompress(bomb)), "the control: packed it is below the limit"
    with running(answering(answer(bomb, "Content-Encoding: gzip"))) as peer:
        assert trouble_of(peer, timeout=5).trouble is Trouble.COMPRESSED
        assert b"Accept-Encoding: identity" in peer.heads[0]
    with running(answering(answer(b"plain", "Content-Encoding: identity"))) as peer:
        assert ask(peer).body == b"plain"


LONG_LINE = f"X-Long: {'x' * 70_000}"
MANY = [f"X-{number}: {'x' * 60_000}" for number in range(50)]


@pytest.mark.parametrize("headers", [[LONG_LINE], MANY, [f"X-{number}: x" for number in range(200)]])
def test_headers_without_end_are_given_up(headers: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with running(answering(answer(b"ok", *headers))) as peer:
        assert trouble_of(peer, timeout=5).trouble in (Trouble.TOO_LARGE, Trouble.BROKEN)
    if headers is MANY:  # the control: without our limit all of them are read
        monkeypatch.setattr(http, "HEADER_LIMIT", float("inf"))
        with running(answering(answer(b"ok", *headers))) as peer:
            assert ask(peer, timeout=5).status == 200


def test_a_body_that_nobody_wants_is_not_read() -> None:
    with running(flood) as peer:
        assert ask(peer, limit=0) == Answer(200, {}, b"")


# ------------------------------------------------------------------ elsewhere


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
def test_a_redirect_is_the_answer_and_the_token_does_not_travel(status: str) -> None:
    with running(answering(answer(b"{}"))) as other:
        location = f"Location: http://127.0.0.1:{other.port}/elsewhere"
        with running(answering(answer(b"", location, status=status))) as peer:
            assert ask(peer).status == int(status[:3])
            assert other.heads == []
            # The control: who follows it takes the token along.
            if status[:3] in ("301", "302", "303", "307"):
                headers = {"Authorization": f"Bearer {SECRET}"}
                urllib.request.urlopen(urllib.request.Request(peer.url, headers=headers), timeout=5).close()
                assert SECRET.encode() in other.heads[0]


def test_proxies_and_netrc_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with running(answering(answer(b"{}"))) as proxy, running(answering(answer(b"{}"))) as peer:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("no_proxy", "")
        request(peer.url, what="the tracker", timeout=5, limit=10)
        assert proxy.heads == []
        assert b"uthorization" not in peer.heads[0]
        urllib.request.build_opener().open(peer.url, timeout=5).close()  # the control
        assert len(proxy.heads) == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ssl.SSLContext]]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.slow
def test_a_certificate_that_nobody_trusts_is_refused_before_anything_is_sent(
    certificate: tuple[Path, ssl.SSLContext],
) -> None:
    with running(answering(answer(b"{}")), certificate[1]) as peer:
        error = trouble_of(peer, timeout=5)
        assert (error.trouble, error.detail) == (Trouble.CERTIFICATE, "self-signed certificate")
        assert peer.heads == []
        assert ask(peer, timeout=5, ca_file=str(certificate[0])).status == 200, "the control"
        named = f"https://127.0.0.2:{peer.port}"
        with pytest.raises(HttpError, match=r"certificate|reached"):
            ask(named, timeout=5, ca_file=str(certificate[0]))
        check_reachable("localhost", peer.port, what="x", timeout=5, secure=True, ca_file=str(certificate[0]))
        with pytest.raises(HttpError, match="x has a certificate that cannot be trusted"):
            check_reachable("localhost", peer.port, what="x", timeout=5, secure=True)
        error = trouble_of(peer, timeout=5, ca_file="/nonexistent/authorities.pem")
        assert (error.trouble, error.detail) == (Trouble.AUTHORITIES, "No such file or directory")


# ------------------------------------------------------------------ sentences


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        (lambda *_: None, Trouble.BROKEN),
        (answering(b""), Trouble.BROKEN),
        (answering(b"SSH-2.0-OpenSSH\r\n"), Trouble.NOT_HTTP),
        (answering(b"\x1b[31mgarbage\r\n\r\n"), Trouble.NOT_HTTP),
        (answering(b"HTTP/9.9 200 OK\r\n\r\n"), Trouble.NOT_HTTP),
        (answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), Trouble.BROKEN),
        (answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), Trouble.BROKEN),
    ],
)
def test_what_is_no_answer_is_one_sentence(script: Script, trouble: Trouble) -> None:
    with running(script) as peer:
        assert trouble_of(peer).trouble is trouble


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://h/{SECRET}", f"http://user:{SECRET}@h/", f"http://{SECRET}@h/", "http://", f"http://h:99999/{SECRET}",
        f"http://h/{SECRET} x", f"http://h/{SECRET}\r\nX: y", f"http://h/{SECRET}\x00", f"http://[::1/{SECRET}",
        f"//h/{SECRET}", f"http://h/{SECRET}ü",
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(HttpError) as caught:
        request(url, what="the tracker", timeout=1, limit=1)
    assert caught.value.trouble is Trouble.ADDRESS
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("value", [f"{SECRET}\r\nX-Other: y", f"{SECRET}\n", f"{SECRET}Щ"])
def test_a_header_that_would_become_two_is_refused_without_showing_it(value: str) -> None:
    with running(answering(answer(b"ok"))) as peer:
        with pytest.raises(HttpError) as caught:
            request(peer.url, what="the tracker", timeout=1, limit=1, headers={"Authorization": value})
        assert caught.value.trouble is Trouble.REQUEST
        assert SECRET not in str(caught.value)
        assert peer.heads == []


def test_nobody_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        error = trouble_of(f"http://127.0.0.1:{probe.getsockname()[1]}")
    assert str(error) == "the tracker cannot be reached: Connection refused"
    assert error.passing

    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = trouble_of("http://nowhere.example.org")
    assert str(error) == "the tracker has a name that cannot be resolved: Name or service not known"
