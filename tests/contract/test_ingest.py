"""What may be sent, how it is answered, and what is stored of it."""

from __future__ import annotations

import gzip
import json
import time
import uuid
import zlib

import brotli
import pytest
import requests
from contract.server import VISIBLE_SECONDS

INGEST = "source: 6.x, apps/event_ingest"


def test_an_event_is_visible_by_its_id_within_seconds(project):
    event_id = project.send("read back")
    found = project.await_event(event_id)
    assert found["eventID"] == event_id
    assert found["title"] == "ValueError: read back"
    assert found["projectID"] == int(project.id)


def test_an_event_that_was_not_sent_is_404(project):
    assert project.find(uuid.uuid4().hex) is None


@pytest.mark.parametrize(
    "form",
    [
        ("header", "X-Sentry-Auth", "Sentry sentry_version=7, sentry_key={key}"),
        ("header", "Authorization", "Sentry sentry_version=7, sentry_key={key}"),
        ("query", "sentry_key", "{key}"),
        ("query", "glitchtip_key", "{key}"),
    ],
    ids=lambda form: form[1],
)
def test_the_key_may_come_in_four_forms(server, project, form):
    kind, name, value = form
    value = value.format(key=project.key)
    event = project.event("auth form")
    path = f"/api/{project.id}/envelope/"
    headers = {name: value} if kind == "header" else {}
    if kind == "query":
        path += f"?{name}={value}"
    answer = server.call("POST", path, data=project.envelope(event), headers=headers, anonymous=True)
    assert (answer.status_code, answer.json()) == (200, {"id": event["event_id"]})


def test_a_dsn_inside_the_envelope_is_not_enough(server, project):
    event = project.event()
    header = {"event_id": event["event_id"], "dsn": f"http://{project.key}@127.0.0.1/{project.id}"}
    body = project.envelope(event, header=header)
    answer = server.call("POST", f"/api/{project.id}/envelope/", data=body, anonymous=True)
    assert (answer.status_code, answer.json()) == (403, {"detail": "Denied"})


def test_a_malformed_key_is_403_and_blocks_nobody(project):
    answer = project.post(project.envelope(project.event()), key="abc")
    assert (answer.status_code, answer.json()) == (403, {"detail": "Invalid DSN"})
    project.send("still open")


@pytest.mark.line("5.2")
def test_store_without_auth_is_500_and_with_a_malformed_key_422(server, project):
    body = json.dumps(project.event())
    assert server.call("POST", f"/api/{project.id}/store/", data=body, anonymous=True).status_code == 500
    answer = project.post(body, kind="store", key="abc")
    assert answer.status_code == 422


@pytest.mark.line("6.2", provenance=f"{INGEST} (776658b), views")
def test_store_without_auth_is_401_and_with_a_malformed_key_422(server, project):
    body = json.dumps(project.event())
    assert server.call("POST", f"/api/{project.id}/store/", data=body, anonymous=True).status_code == 401
    assert project.post(body, kind="store", key="abc").status_code == 422


def test_a_project_id_that_is_no_number_is_404_html(server):
    answer = server.call("POST", "/api/abc/envelope/", data=b"{}", anonymous=True)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/html")


@pytest.mark.line("5.2")
@pytest.mark.long
def test_one_wrong_key_blocks_the_project_for_30_seconds_the_right_key_included(new_project):
    project = new_project()
    wrong = project.post(project.envelope(project.event()), key=uuid.uuid4().hex)
    assert (wrong.status_code, wrong.json()) == (403, {"detail": "Denied"})
    event = project.event()
    assert project.post(project.envelope(event)).status_code == 403
    assert project.post(json.dumps(event), kind="store").status_code == 401
    time.sleep(31)
    project.send("open again")


@pytest.mark.line(
    "6.2", provenance=f"{INGEST}/authentication.py (05145ee: the project, 67286101474: the key alone)"
)
@pytest.mark.long
def test_a_wrong_key_is_refused_and_the_right_one_at_most_for_30_seconds(new_project):
    """Older 6.x blocks the project, newer that key alone; which one 6.2.6 does is not known."""
    project = new_project()
    wrong = project.post(project.envelope(project.event()), key=uuid.uuid4().hex)
    assert (wrong.status_code, wrong.json()) == (403, {"detail": "Denied"})
    event = project.event()
    assert project.post(json.dumps(event), kind="store", key=uuid.uuid4().hex).status_code == 401
    time.sleep(31)
    project.send("open again")


def test_an_envelope_without_event_id_answers_an_empty_object(project):
    event = project.event()
    answer = project.post(project.envelope(event, header={}))
    assert (answer.status_code, answer.json()) == (200, {})
    project.await_event(event["event_id"])


def test_the_item_length_may_be_left_out(project):
    event = project.event("no length")
    assert project.post(project.envelope(event, length=False)).status_code == 200
    project.await_event(event["event_id"])


ITEMS = [
    ({"type": "session"}, {"sid": "x"}),
    ({"type": "client_report"}, {"timestamp": 1}),
    ({"type": "log", "item_count": 1}, {"items": [{"body": "x"}]}),
]


@pytest.mark.six(f"{INGEST}; of logs only that they are accepted: 6.1.0 and newer store them")
def test_other_items_are_accepted_and_ignored(project):
    for item, payload in ITEMS:
        body = "\n".join(["{}", json.dumps(item), json.dumps(payload), ""])
        answer = project.post(body)
        assert (answer.status_code, answer.json()) == (200, {}), item


def test_two_events_of_one_envelope_are_both_stored(project):
    events = [project.event(f"pair {number}") for number in range(2)]
    lines = [b"{}"]
    for event in events:
        payload = json.dumps(event).encode()
        lines += [json.dumps({"type": "event", "length": len(payload)}).encode(), payload]
    assert project.post(b"\n".join(lines) + b"\n").status_code == 200
    for event in events:
        project.await_event(event["event_id"])


def test_an_empty_body_and_a_broken_header_line_are_400(project):
    assert project.post(b"").json() == {"detail": "Empty request body"}
    answer = project.post(b"{bad\n{}\n{}\n")
    assert (answer.status_code, answer.json()) == (400, {"detail": "Invalid envelope header"})


def test_a_broken_item_or_payload_is_accepted_and_dropped(project):
    assert project.post(b"{}\n{bad\n{}\n").status_code == 200
    assert project.post(b'{}\n{"type":"event"}\n{"exception":"nope","level":5}\n').status_code == 200


def test_the_same_event_id_by_envelope_is_stored_once(project):
    event = project.event(f"twice {uuid.uuid4().hex[:6]}")
    for _ in range(2):
        assert project.post(project.envelope(event)).status_code == 200
    found = project.await_event(event["event_id"])
    after = project.await_event(project.send("after twice"))  # stored later than both
    assert after
    assert project.issue(found["groupID"])["count"] == "1"


@pytest.mark.line("6.2", provenance=f"{INGEST} (6ac3b99): the filter's key is the event id alone")
def test_the_same_event_id_in_another_project_is_dropped(project, new_project):
    other = new_project()
    event = project.event(f"two projects {uuid.uuid4().hex[:6]}")
    for where in (project, other):
        assert where.post(where.envelope(event)).status_code == 200
    project.await_event(event["event_id"])
    other.await_event(other.send("stored later"))
    assert other.find(event["event_id"]) is None


@pytest.mark.line("6.2", provenance=f"{INGEST}, event_store")
def test_the_same_event_id_by_store_is_422(project):
    event = project.event(f"store twice {uuid.uuid4().hex[:6]}")
    assert project.post(json.dumps(event), kind="store").status_code == 200
    again = project.post(json.dumps(event), kind="store")
    assert again.status_code == 422
    assert "Duplicate event id" in again.text
    found = project.await_event(event["event_id"])
    assert project.issue(found["groupID"])["count"] == "1"


@pytest.mark.line("5.2")
def test_the_same_event_id_by_store_is_counted_again(project):
    event = project.event(f"store twice {uuid.uuid4().hex[:6]}")
    for _ in range(2):
        answer = project.post(json.dumps(event), kind="store")
        assert (answer.status_code, answer.json()) == (200, {"event_id": event["event_id"], "task_id": None})
    found = project.await_event(event["event_id"])
    assert wait_for_count(project, found["groupID"], "2")


def wait_for_count(project, issue, count, seconds=15):
    end = time.monotonic() + seconds
    while project.issue(issue)["count"] != count:
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def test_store_wants_an_event_id_and_json(project):
    answer = project.post(json.dumps({"message": "no id"}), kind="store")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "payload", "event_id"]
    assert project.post("{bad", kind="store").json() == {"detail": "Cannot parse request body"}


def test_an_unknown_level_is_stored_as_error(project):
    event = project.event(f"level {uuid.uuid4().hex[:6]}", level="critical")
    project.post(json.dumps(event), kind="store")
    found = project.await_event(event["event_id"])
    assert project.issue(found["groupID"])["level"] == "error"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_envelopes_are_stored(project, encoding):
    event = project.event(encoding)
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    answer = project.post(pack(project.envelope(event)), **{"Content-Encoding": encoding})
    assert answer.status_code == 200
    project.await_event(event["event_id"])


def test_brotli_is_understood(project):
    event = project.event("br")
    answer = project.post(brotli.compress(project.envelope(event)), **{"Content-Encoding": "br"})
    assert answer.status_code == 200
    project.await_event(event["event_id"])


def zstd(data):
    """A zstd frame of raw blocks: valid, and made without a library."""
    frame = b"\x28\xb5\x2f\xfd" + bytes([0xA0]) + len(data).to_bytes(4, "little")
    size = 100_000
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        frame += (len(part) << 3 | last).to_bytes(3, "little") + part
    return frame


@pytest.mark.line("6.2", provenance=f"{INGEST} (6ac3b99)")
def test_zstd_is_understood(project):
    event = project.event("zstd")
    answer = project.post(zstd(project.envelope(event)), **{"Content-Encoding": "zstd"})
    assert answer.status_code == 200
    project.await_event(event["event_id"])


@pytest.mark.line("6.2", provenance=f"{INGEST} (6ac3b99)")
def test_garbage_with_a_gzip_header_is_an_invalid_header(project):
    answer = project.post(b"notgzip", **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()) == (400, {"detail": "Invalid envelope header"})


@pytest.mark.line(
    "6.2", provenance=f"{INGEST} (6ac3b99), settings.py: GLITCHTIP_MAX_UNZIPPED_PAYLOAD_SIZE 5 MiB"
)
def test_a_body_that_unpacks_to_3_mb_is_stored_and_one_beyond_the_limit_is_413(project):
    event = project.event(extra={"blob": "x" * 3_000_000})
    body = gzip.compress(project.envelope(event))
    assert project.post(body, **{"Content-Encoding": "gzip"}).status_code == 200
    # Later 6.x allow 15 MB.
    body = gzip.compress(project.envelope(project.event(extra={"blob": "x" * 17_000_000})))
    assert project.post(body, **{"Content-Encoding": "gzip"}).status_code == 413
    project.await_event(event["event_id"])


@pytest.mark.line("5.2")
def test_garbage_with_a_gzip_header_is_400(project):
    answer = project.post(b"notgzip", **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()) == (400, {"detail": "Empty request body"})


@pytest.mark.line("5.2")
def test_a_body_that_unpacks_beyond_the_limit_is_400_html(project):
    event = project.event(extra={"blob": "x" * 3_000_000})
    answer = project.post(gzip.compress(project.envelope(event)), **{"Content-Encoding": "gzip"})
    assert answer.status_code == 400
    assert answer.headers["Content-Type"].startswith("text/html")


def test_a_plain_body_has_no_such_limit(project):
    event = project.event("large", extra={"blob": "x" * 3_000_000})
    assert project.post(project.envelope(event)).status_code == 200
    project.await_event(event["event_id"])


def test_a_browser_may_send_from_anywhere(server, project):
    answer = requests.options(
        f"{server.url}/api/{project.id}/envelope/",
        headers={"Origin": "http://shop.example.org", "Access-Control-Request-Method": "POST"},
        timeout=20,
    )
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_envelope_takes_post_only_and_says_so_in_json(server, project):
    answer = server.call("GET", f"/api/{project.id}/envelope/", anonymous=True)
    assert (answer.status_code, answer.json()) == (405, {"detail": "Method not allowed"})


def test_a_throttle_rate_of_100_refuses_everything(server, new_project):
    project = new_project()
    server.call("PUT", project.path, {"name": project.name, "eventThrottleRate": 100})
    answer = project.post(project.envelope(project.event()))
    assert (answer.status_code, answer.text) == (429, "Too Many Requests")
    assert int(answer.headers["Retry-After"]) > 0
    answer = project.post(json.dumps(project.event()), kind="store")
    assert (answer.status_code, answer.json()) == (429, {"message": "Please retry later"})


def test_a_deleted_key_no_longer_sends(server, new_project):
    project = new_project()
    key = server.post(f"{project.path}keys/", {"name": "other"})
    hexed = uuid.UUID(key["id"]).hex
    assert project.post(project.envelope(project.event()), key=hexed).status_code == 200
    server.call("DELETE", f"{project.path}keys/{key['id']}/")
    assert project.post(project.envelope(project.event()), key=hexed).status_code == 403


def test_a_burst_is_stored_whole_and_counted_by_id(server, new_project):
    """Also behind the shipped worker settings, which store about four events a second."""
    project = new_project()
    missing = {project.send(f"burst {number % 5}") for number in range(120)}
    progress = time.monotonic()
    while missing and time.monotonic() < progress + VISIBLE_SECONDS:
        found = {event_id for event_id in missing if project.find(event_id)}
        missing -= found
        if found:
            progress = time.monotonic()
        time.sleep(0.2)
    assert not missing
    issues = server.get(f"{project.path}issues/")
    assert sorted(int(issue["count"]) for issue in issues) == [24] * 5
