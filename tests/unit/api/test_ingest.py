"""Sending an event and reading it back."""

from __future__ import annotations

import json

import pytest

from glitchtip_api import GlitchTipError, ReadOnlyError
from glitchtip_api.errors import InvalidError
from glitchtip_api.ingest import await_event, envelope, send_event

KEY = "9193e83c80dc4292b568632c3b3c23c6"
EVENT_ID = "6a12adab20ab4e44b23f2bfa6728111b"


class Clock:
    """A clock that moves only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def dsn(server) -> str:
    return server.url.replace("http://", f"http://{KEY}@") + "/7"


def test_the_item_says_its_length_in_bytes():
    header, item, payload, end = envelope({"event_id": EVENT_ID, "message": "zażółć\nline"}).split(b"\n")
    assert json.loads(header) == {"event_id": EVENT_ID}
    assert json.loads(item) == {"type": "event", "length": len(payload)}
    assert end == b""


def test_an_event_is_sent_with_the_key_in_a_header_and_its_id_returned(server):
    server.then(200, {"id": EVENT_ID})
    event = {"event_id": EVENT_ID.upper(), "message": "probe", "tags": {"service": "x"}}
    assert send_event(dsn(server), event, now=lambda: 12.5) == EVENT_ID
    asked = server.asked[0]
    assert asked.path == "/api/7/envelope/"
    assert f"sentry_key={KEY}" in asked.headers["x-sentry-auth"]
    sent = json.loads(asked.body.split(b"\n")[2])
    assert sent["tags"] == {"service": "x"}
    assert (sent["event_id"], sent["timestamp"], sent["platform"]) == (EVENT_ID, 12.5, "other")


def test_an_event_without_id_gets_one(server):
    server.then(200, {}).then(200, {})
    first, second = send_event(dsn(server), {"message": "a"}), send_event(dsn(server), {"message": "a"})
    assert first != second
    assert len(first) == 32


@pytest.mark.parametrize("event_id", ["short", "x" * 32, "../../etc"])
def test_a_bad_event_id_is_refused_before_sending(server, event_id):
    with pytest.raises(InvalidError):
        send_event(dsn(server), {"event_id": event_id})
    assert server.asked == []


def test_in_read_only_mode_nothing_is_sent(server):
    with pytest.raises(ReadOnlyError):
        send_event(dsn(server), {"message": "a"}, read_only=True)
    assert server.asked == []


@pytest.mark.parametrize("trouble", [{"drop": True}, {"status": 503}, {"status": 500}, {"status": 429}])
def test_an_event_is_sent_once_whatever_becomes_of_it(server, trouble):
    server.then(**{"status": 200, **trouble})
    with pytest.raises(GlitchTipError):
        send_event(dsn(server), {"message": "a"})
    assert len(server.asked) == 1


def test_events_never_share_a_connection(server):
    for _ in range(3):
        server.then(200, {})
        send_event(dsn(server), {"message": "a"})
    assert [request.connection for request in server.asked] == [1, 2, 3]


def test_a_refused_dsn_says_how_long_to_wait_and_does_not_show_the_key(server):
    server.then(403, {"detail": f"Denied {KEY}"})
    with pytest.raises(GlitchTipError, match="wait 31 s") as failure:
        send_event(dsn(server), {"message": "a"})
    assert failure.value.code == "dsn_refused"
    assert KEY not in str(failure.value)
    assert len(server.asked) == 1


def test_a_throttled_project_is_not_pressed(server):
    server.then(429, raw=b"Too Many Requests", content_type="text/plain", headers={"Retry-After": "600"})
    with pytest.raises(GlitchTipError, match="429"):
        send_event(dsn(server), {"message": "a"})
    assert len(server.asked) == 1


def test_an_event_is_awaited_until_it_is_stored(client, server, clock):
    server.then(404, {"detail": "Not Found"}).then(404, {"detail": "Not Found"}).then(
        200, {"eventID": EVENT_ID}
    )
    event = await_event(client, "o", "p", EVENT_ID, 30, clock=clock, sleep=clock.sleep)
    assert event == {"eventID": EVENT_ID}
    assert clock.now == 1.0
    assert server.lines[0] == f"GET /api/0/projects/o/p/events/{EVENT_ID}/"


def test_an_event_that_never_comes_is_a_failure_that_names_the_worker(client, server, clock):
    for _ in range(10):
        server.then(404, {"detail": "Not Found"})
    with pytest.raises(GlitchTipError, match="the worker is not processing") as failure:
        await_event(client, "o", "p", EVENT_ID, 2, clock=clock, sleep=clock.sleep)
    assert failure.value.code == "not_stored"
    assert len(server.asked) == 5


def test_a_token_that_may_not_read_ends_the_waiting_at_once(client, server, clock):
    server.then(403, {"detail": "Permission denied"})
    with pytest.raises(GlitchTipError, match="Permission denied"):
        await_event(client, "o", "p", EVENT_ID, 30, clock=clock, sleep=clock.sleep)
    assert clock.now == 0


def test_trouble_on_the_way_does_not_end_the_waiting(client, server, clock):
    server.html(500).html(500).then(200, {"eventID": EVENT_ID})
    assert await_event(client, "o", "p", EVENT_ID, 30, clock=clock, sleep=clock.sleep)


def test_trouble_until_the_end_is_named(client, server, clock):
    server.answer = lambda _asked: type(server.then().replies[-1])(500, {"detail": "down"})
    with pytest.raises(GlitchTipError, match="500: down"):
        await_event(client, "o", "p", EVENT_ID, 1, clock=clock, sleep=clock.sleep)
