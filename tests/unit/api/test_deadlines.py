"""A call of the client ends in its time, whatever the server drips and however often it is repeated."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import Peer, answer, answering, make_certificate, running

from glitchtip_api import Client, GlitchTipError, connections
from glitchtip_api.errors import UnreachableError

PATH = "/api/0/organizations/"
JSON = "Content-Type: application/json"


def overdue(client: Client, deadline: float, body: Any = None) -> UnreachableError:
    began = time.monotonic()
    with pytest.raises(UnreachableError) as caught:
        client.get(PATH) if body is None else client.post(PATH, body)
    assert time.monotonic() - began < deadline + 1.5
    assert caught.value.code == "timeout"
    assert "had not finished its answer after" in caught.value.detail
    return caught.value


@pytest.fixture
def only_each_wait_is_limited(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The control: without a deadline of the whole."""
    return lambda: monkeypatch.setattr(connections._Line, "left", lambda _self: 60.0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ssl.SSLContext]]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def slow_reader(peer: Peer, connection: socket.socket) -> None:
    """Takes a little every now and then, and answers in the end."""
    read = 0
    while read < 12_000_000 and not peer.over.wait(0.02):
        read += len(connection.recv(200_000))
    peer.send(connection, answer(b"{}", JSON, status="201 Created"))


@pytest.mark.slow
@pytest.mark.parametrize("secure", [False, True])
def test_a_server_that_reads_slowly_ends_at_the_deadline(
    secure: bool, certificate: tuple[Path, ssl.SSLContext], only_each_wait_is_limited: Any
) -> None:
    body = {"text": "x" * 12_000_000}
    with running(slow_reader, certificate[1] if secure else None) as peer:
        client = Client(peer.url, timeout=(5, 5), retries=0, deadline=0.4, ca_path=str(certificate[0]))
        assert overdue(client, 0.4, body).maybe_applied is True
        only_each_wait_is_limited()
        assert client.post(PATH, body) == {}


def test_a_server_that_stops_reading_ends_at_the_limit_of_a_wait() -> None:
    with running(lambda peer, _connection: bool(peer.over.wait()) or None) as peer:
        client = Client(peer.url, timeout=(5, 0.3), retries=0, deadline=60)
        with pytest.raises(UnreachableError) as caught:
            client.post(PATH, {"text": "x" * 12_000_000})
    assert caught.value.code == "timeout"
    assert caught.value.detail.endswith("did not take the request in time")


@pytest.mark.slow
def test_repetitions_share_the_deadline(only_each_wait_is_limited: Any) -> None:
    """Each try alone would be within it."""
    busy = answer(b"{}", JSON, "Retry-After: 0", status="503 Busy")
    with running(answering(busy[:-1], busy[-1:] * 1, pause=0.5)) as peer:
        client = Client(peer.url, timeout=(5, 5), retries=5, deadline=1.2, jitter=lambda: 0.0)
        began = time.monotonic()
        with pytest.raises(GlitchTipError):
            client.get(PATH)
        assert time.monotonic() - began < 2.2
        assert len(peer.heads) <= 3
        del peer.heads[:]
        only_each_wait_is_limited()
        longer = Client(peer.url, timeout=(5, 5), retries=3, deadline=60, jitter=lambda: 0.0)
        with pytest.raises(GlitchTipError):
            longer.get(PATH)
        assert len(peer.heads) == 4


def test_no_repetition_begins_that_would_come_after_the_deadline() -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        now[0] += seconds
        slept.append(seconds)

    with running(answering(answer(b"{}", JSON, "Retry-After: 25", status="503 Busy"))) as peer:
        for deadline, tries in ((60.0, 3), (1000.0, 4), (20.0, 1)):
            now[0] = 0.0
            del peer.heads[:], slept[:]
            client = Client(peer.url, deadline=deadline, retries=3, clock=lambda: now[0], sleep=sleep, per_second=None)
            with pytest.raises(GlitchTipError, match="503"):
                client.get(PATH)
            assert len(peer.heads) == tries
            assert sum(slept) < deadline
