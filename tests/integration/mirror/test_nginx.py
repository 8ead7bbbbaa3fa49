"""The mirror's nginx as it is configured on a host: what reaches whom, and what a bad copy costs the product."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import signal
import socket
import subprocess
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import brotli
import pytest
from integration.mirror.bed import (
    KEY,
    NEW_KEY,
    OTHER_KEY,
    OTHER_NEW_KEY,
    Answer,
    Authority,
    Bed,
    Client,
    Tracker,
    free_port,
    quantile,
)

from glitchtip_cutover.mirror_routes import Names
from glitchtip_ops.mirror import read_counts

EVENT = b'{"event_id":"%032d"}\n{"type":"event","length":2}\n{}\n'
PATH = f"/api/7/envelope/?sentry_version=7&sentry_key={KEY}&sentry_client=sentry.javascript.node%2F10.24.0"
EVER = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


def pair(bed: Bed, **protections) -> tuple[Tracker, Tracker]:
    """One service between two trackers."""
    old, new = bed.tracker(), bed.tracker()
    bed.start([("api", old.dsn(KEY, "7"), new.dsn(NEW_KEY, "3"))], **protections)
    return old, new


def counts(bed: Bed) -> dict:
    found = read_counts(*EVER, log_dir=bed.root / "log")
    assert found is not None
    return found


def wait(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------- both healthy


def test_every_envelope_reaches_both_trackers_with_the_same_bytes_and_each_one_s_own_key_and_project(bed):
    old, new = pair(bed)
    client = Client(bed.port)
    bodies = [EVENT % number for number in range(200)]
    assert [client.post(body, PATH).status for body in bodies] == [200] * 200
    bed.settled(400)
    wanted = sorted(hashlib.sha256(body).hexdigest() for body in bodies)
    assert sorted(got.sha256 for got in old.got) == wanted
    assert sorted(got.sha256 for got in new.got) == wanted
    assert {got.path for got in old.got} == {PATH}
    assert {got.path for got in new.got} == {
        f"/api/3/envelope/?sentry_version=7&sentry_key={NEW_KEY}&sentry_client=sentry.javascript.node%2F10.24.0"
    }
    assert {got.headers["host"] for got in old.got} == {f"127.0.0.1:{old.port}"}
    assert {got.headers["host"] for got in new.got} == {f"127.0.0.1:{new.port}"}
    assert counts(bed)["sentry"] == {"sent": 200, "ok": 200, "failed": 0}
    assert counts(bed)["glitchtip"] == {"sent": 200, "ok": 200, "failed": 0, "skipped": 0}


def compress(body: bytes) -> bytes:
    """Brotli's quickest: its best takes seconds for 5 MB of noise."""
    return brotli.compress(body, quality=1)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("br", compress), ("", bytes)],
)
def test_a_packed_or_large_body_is_passed_as_it_is(bed, encoding, pack):
    old, new = pair(bed)
    headers = {"Content-Encoding": encoding} if encoding else {}
    for body in (pack(EVENT % 1), pack(os.urandom(5_000_000))):
        assert Client(bed.port).post(body, PATH, headers).status == 200
    bed.settled(4)
    assert sorted((got.size, got.sha256) for got in old.got) == sorted(
        (got.size, got.sha256) for got in new.got
    )
    assert len(old.got) == 2
    assert {got.headers.get("content-encoding", "") for got in old.got + new.got} == {encoding}


def test_a_body_above_20_mb_is_refused_and_one_below_is_not(bed):
    old, new = pair(bed)
    assert Client(bed.port).post(bytes(20 * 1024 * 1024), PATH).status == 200
    assert Client(bed.port).post(bytes(20 * 1024 * 1024 + 1), PATH).status == 413
    wait(lambda: len(old.got) == len(new.got) == 1)


def test_the_key_is_found_in_the_query_and_in_both_headers_and_no_other_header_with_it_reaches_the_new_tracker(
    bed,
):
    old, new = pair(bed)
    written = f"Sentry sentry_version=7, sentry_client=x/1, sentry_key={KEY}, sentry_secret=hush"
    for path, headers in (
        (PATH, {}),
        ("/api/7/envelope/", {"X-Sentry-Auth": written}),
        ("/api/7/store/", {"Authorization": written}),
        ("/api/7/security/?sentry_key=" + KEY, {"Cookie": "session=hush"}),
    ):
        assert Client(bed.port).post(EVENT % 1, path, headers).status == 200
    bed.settled(8)
    assert [got.headers.get("x-sentry-auth") for got in old.got] == [None, written, None, None]
    assert old.got[2].headers["authorization"] == written
    assert len(new.got) == 4
    for got in new.got:
        assert not {"x-sentry-auth", "authorization", "cookie"} & set(got.headers)
        assert KEY not in got.path
        assert f"sentry_key={NEW_KEY}" in got.path
    assert sorted(got.path.split("?")[0] for got in new.got) == [
        "/api/3/envelope/",
        "/api/3/envelope/",
        "/api/3/security/",
        "/api/3/store/",
    ]


def test_two_services_with_two_keys_reach_two_projects_and_prefixes_of_dsns_are_kept(bed):
    old, other_old, new = bed.tracker(), bed.tracker(), bed.tracker()
    first, second = old.dsn(KEY, "7"), other_old.dsn(OTHER_KEY, "8", "/base/sentry")
    bed.start(
        [
            ("api", first, new.dsn(NEW_KEY, "3", "/gt")),
            ("worker", first, new.dsn(NEW_KEY, "3", "/gt")),
            ("bot", second, new.dsn(OTHER_NEW_KEY, "4")),
        ]
    )
    assert bed.dsn(second) == f"http://{OTHER_KEY}@127.0.0.1:{bed.port}/base/sentry/8"
    assert Client(bed.port).post(b"one", PATH).status == 200
    path = f"/base/sentry/api/8/envelope/?sentry_key={OTHER_KEY}"
    assert Client(bed.port).post(b"two", path).status == 200
    bed.settled(4)
    assert [got.path for got in old.got] == [PATH]
    assert [got.path for got in other_old.got] == [path]
    assert sorted(got.path.split("&sentry_client")[0] for got in new.got) == [
        f"/api/4/envelope/?sentry_version=7&sentry_key={OTHER_NEW_KEY}",
        f"/gt/api/3/envelope/?sentry_version=7&sentry_key={NEW_KEY}",
    ]


def test_an_unknown_key_reaches_the_old_tracker_which_judges_it_and_is_counted_as_skipped(bed):
    old, new = pair(bed)
    old.status = 403
    for path in (
        f"/api/7/envelope/?sentry_key={OTHER_KEY}",  # nobody's key
        f"/api/8/envelope/?sentry_key={KEY}",  # another project's
        "/api/7/envelope/",  # none at all
    ):
        assert Client(bed.port).post(b"x", path).status == 403
    bed.settled(6)
    assert len(old.got) == 3
    assert new.got == []
    assert counts(bed)["glitchtip"] == {"sent": 0, "ok": 0, "failed": 0, "skipped": 3}
    assert counts(bed)["sentry"] == {"sent": 3, "ok": 0, "failed": 3}


def test_what_the_new_tracker_has_no_endpoint_for_goes_to_the_old_one_only(bed):
    old, new = pair(bed)
    assert Client(bed.port).post(b"dump", f"/api/7/minidump/?sentry_key={KEY}").status == 200
    assert Client(bed.port).post(b"x", "/etc/passwd").status == 404
    assert Client(bed.port).post(b"x", "/_mirror/glitchtip").status == 404
    bed.settled(1)
    assert [got.path for got in old.got] == [f"/api/7/minidump/?sentry_key={KEY}"]
    assert new.got == []
    assert counts(bed)["sentry"] == {"sent": 0, "ok": 0, "failed": 0}


def test_no_key_and_no_header_of_a_request_stands_in_any_log(bed):
    old, new = pair(bed)
    Client(bed.port).post(EVENT % 1, PATH)
    new.stop()
    Client(bed.port).post(EVENT % 2, PATH, {"X-Sentry-Auth": f"Sentry sentry_key={KEY}"})
    old.stop()
    assert Client(bed.port).post(EVENT % 3, PATH).status == 502
    bed.settled(6)
    assert bed.process is not None
    bed.process.send_signal(signal.SIGQUIT)
    bed.process.wait(10)
    assert bed.process.stderr is not None
    told = bed.process.stderr.read().decode()
    for path in (bed.root / "log").iterdir():
        told += path.read_text()
    assert "glitchtip" in told
    for secret in (KEY, NEW_KEY, "sentry_key"):
        assert secret not in told


# ----------------------------------------------------------------------------------- a copy that goes wrong


def slow(bed: Bed, *, seconds: float, requests: int = 8, **protections) -> list[Answer]:
    """A client that keeps its connection, while the new tracker takes its time."""
    old, new = pair(bed, **protections)
    new.delay = seconds
    client = Client(bed.port, keep=True)
    answers = [client.post(EVENT % number, PATH) for number in range(requests)]
    assert [answer.status for answer in answers] == [200] * requests
    assert len(old.got) == requests
    return answers


@pytest.mark.parametrize("seconds", [1.0, 10.0])
def test_a_slow_copy_does_not_delay_the_product(bed, seconds):
    took = [answer.seconds for answer in slow(bed, seconds=seconds)]
    print(f"copy {seconds:g} s slow: p50 {quantile(took, 0.5) * 1000:.1f} ms, max {max(took) * 1000:.1f} ms")
    assert max(took) < 0.5


def test_with_connections_kept_a_slow_copy_delays_the_product_which_is_why_they_are_not(bed):
    took = [answer.seconds for answer in slow(bed, seconds=1.0, requests=4, keepalive=60)]
    assert min(took[1:]) > 0.8


def test_a_new_tracker_that_is_down_costs_nothing_and_each_lost_copy_is_counted(bed):
    old, new = pair(bed)
    new.stop()
    took = [Client(bed.port).post(EVENT % number, PATH).seconds for number in range(50)]
    bed.settled(100)
    assert quantile(took, 0.95) < 0.25
    assert len(old.got) == 50
    assert counts(bed)["glitchtip"] == {"sent": 50, "ok": 0, "failed": 50, "skipped": 0}


def burst(bed: Bed, number: int = 400) -> list[int]:
    """Statuses of a burst by 20 clients at the same time; 0 where the connection was lost."""

    def send(number: int) -> int:
        try:
            return Client(bed.port, timeout=5).post(EVENT % number, PATH).status
        except (OSError, http.client.HTTPException):
            return 0

    with ThreadPoolExecutor(20) as pool:
        return list(pool.map(send, range(number)))


def test_copies_that_hang_are_bounded_and_the_old_tracker_still_gets_everything(bed):
    bed.make_settings(concurrent=16, connections=256)
    old, new = pair(bed)
    new.delay = 60
    assert burst(bed) == [200] * 400
    assert len(old.got) == 400
    copies = [line for line in bed.settled(800) if line["leg"] == "glitchtip"]
    assert len(copies) == 400
    limited = [line for line in copies if line["status"] == "503"]
    print(f"hanging copies: {400 - len(limited)} tried, {len(limited)} not sent")
    assert limited, "none was limited, so nothing bounds the copies"
    assert len(new.got) <= 400 - len(limited)
    assert counts(bed)["glitchtip"] == {"sent": 400, "ok": 0, "failed": 400, "skipped": 0}
    new.released.set()
    before = len(new.got)
    assert Client(bed.port).post(EVENT % 1000, PATH).status == 200
    wait(lambda: len(new.got) == before + 1)


def test_without_the_bound_copies_that_hang_take_the_connections_of_the_product(bed):
    """Negative control of ``concurrent``: the same burst, and the worker's connections run out."""
    bed.make_settings(concurrent=16, connections=256)
    old, new = bed.tracker(), bed.tracker()
    bed.write([("api", old.dsn(KEY, "7"), new.dsn(NEW_KEY, "3"))])
    text = bed.settings.file.read_text()
    assert "limit_conn mirrored 16;" in text
    bed.settings.file.write_text(text.replace("limit_conn mirrored 16;", ""))
    bed.take()
    wait(lambda: _answers(bed.port))
    new.delay = 60
    failed = [status for status in burst(bed) if status != 200]
    print(f"without the bound {len(failed)} of 400 never reached the old tracker")
    assert failed


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_client_that_leaves_right_after_its_answer_does_not_take_the_copy_with_it(bed):
    _old, new = pair(bed)
    big = os.urandom(3_000_000)
    new.stop()  # takes connections into its backlog only when it listens: a late start
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", new.port))
    listener.listen(8)
    got = bytearray()

    def late() -> None:
        connection, _ = listener.accept()
        time.sleep(0.7)
        connection.settimeout(3)
        try:
            while len(got) < len(big):
                part = connection.recv(65536)
                if not part:
                    break
                got.extend(part)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        finally:
            connection.close()

    thread = threading.Thread(target=late)
    thread.start()
    assert Client(bed.port).post(big, PATH).status == 200  # and the connection is closed
    thread.join(10)
    listener.close()
    bed.settled(2)
    assert len(got) >= len(big)
    assert counts(bed)["glitchtip"]["ok"] == 1


# ------------------------------------------------------------------------------------- the old tracker's say


@pytest.mark.parametrize("status", [400, 403, 413, 429, 503])
def test_what_the_old_tracker_answers_reaches_the_sdk_as_it_is(bed, status):
    old, new = pair(bed)
    limits = "60:error:organization, 120:transaction:key"
    old.status, old.headers = status, {"Retry-After": "60", "X-Sentry-Rate-Limits": limits}
    answer = Client(bed.port).post(EVENT % 1, PATH)
    assert answer.status == status
    assert answer.headers["retry-after"] == "60"
    assert answer.headers["x-sentry-rate-limits"] == limits
    bed.settled(2)
    assert len(new.got) == 1
    assert counts(bed)["sentry"] == {"sent": 1, "ok": 0, "failed": 1}


def test_while_the_old_tracker_is_down_the_sdk_is_told_and_the_copy_still_arrives(bed):
    old, new = pair(bed)
    old.stop()
    assert [Client(bed.port).post(EVENT % number, PATH).status for number in range(50)] == [502] * 50
    bed.settled(100)
    assert len(new.got) == 50
    assert counts(bed)["sentry"] == {"sent": 50, "ok": 0, "failed": 50}
    assert counts(bed)["glitchtip"]["ok"] == 50


def test_an_answer_of_the_old_tracker_commands_nothing_here(bed):
    old, _ = pair(bed)
    old.headers = {"X-Accel-Redirect": "/_mirror/health"}
    assert Client(bed.port).post(EVENT % 1, PATH).headers["content-length"] == "10"  # the tracker's own body


# -------------------------------------------------------------------------------------------------- TLS


def tls(bed: Bed, certified: str, *, trusted: bool = True, **protections) -> Tracker:
    """An old tracker at https://localhost with a certificate for ``certified``."""
    authority = Authority(bed.root / "ca")
    old = bed.tracker(tls=authority.context(certified), host="localhost")
    other = Authority(bed.root / "other-ca")
    bed.make_settings(ca_file=str((authority if trusted else other).file))
    new = bed.tracker()
    bed.start([("api", old.dsn(KEY, "7"), new.dsn(NEW_KEY, "3"))], **protections)
    return old


def test_the_old_tracker_is_reached_by_https_under_its_own_name(bed):
    old = tls(bed, "localhost")
    assert Client(bed.port).post(EVENT % 1, PATH).status == 200
    assert old.got[0].headers["host"] == f"localhost:{old.port}"


@pytest.mark.parametrize(("certified", "trusted"), [("localhost", False), ("elsewhere.example.org", True)])
def test_a_certificate_of_nobody_or_of_another_name_gets_no_envelope(bed, certified, trusted):
    old = tls(bed, certified, trusted=trusted)
    assert Client(bed.port).post(EVENT % 1, PATH).status == 502
    assert old.got == []


def test_without_verification_a_wrong_certificate_would_get_the_envelope(bed):
    old = tls(bed, "elsewhere.example.org", trusted=False, verify_tls=False)
    assert Client(bed.port).post(EVENT % 1, PATH).status == 200
    assert len(old.got) == 1


def test_a_name_is_asked_of_the_hosts_name_server_when_it_is_needed_not_when_nginx_starts(bed):
    """A name server that answers only later: nginx starts without it, and finds the address then."""
    old, new = bed.tracker(host="sentry.example.org"), bed.tracker()
    port = free_port()
    bed.start(
        [("api", old.dsn(KEY, "7"), new.dsn(NEW_KEY, "3"))], Names(servers=(f"127.0.0.1:{port}",), ipv6=False)
    )
    stop = threading.Event()
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", port))
    server.settimeout(0.1)

    def answer() -> None:
        while not stop.is_set():
            try:
                asked, where = server.recvfrom(512)
            except TimeoutError:
                continue
            head = asked[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
            record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x01"
            server.sendto(head + asked[12:] + record, where)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        assert Client(bed.port).post(EVENT % 1, PATH).status == 200
    finally:
        stop.set()
        thread.join()
        server.close()
    assert old.got[0].headers["host"] == f"sentry.example.org:{old.port}"


# ------------------------------------------------------------------------------------- counting, reloading


def test_the_counts_are_what_the_trackers_saw(bed):
    old, new = pair(bed)
    client = Client(bed.port)
    for number in range(60):
        old.status = 429 if number % 6 == 0 else 200
        new.status = 500 if number % 10 == 0 else 200
        client.post(EVENT % number, PATH)
        wanted = number + 1
        wait(lambda wanted=wanted: len(new.got) == wanted)
    bed.settled(120)
    found = counts(bed)
    assert found["sentry"] == {"sent": len(old.got), "ok": 50, "failed": 10}
    assert found["glitchtip"] == {"sent": len(new.got), "ok": 54, "failed": 6, "skipped": 0}
    # nginx counts in milliseconds: an answer may take none of them.
    assert 0 <= found["seconds"]["sentry_p50"] <= found["seconds"]["sentry_p95"] < 1
    assert 0 < found["seconds"]["glitchtip_p50"] <= found["seconds"]["glitchtip_p95"] < 1
    now = datetime.now(UTC)
    empty = read_counts(now + timedelta(hours=1), now + timedelta(hours=2), log_dir=bed.root / "log")
    assert empty is not None
    assert empty["sentry"]["sent"] == 0


def test_a_reload_and_a_rotation_under_traffic_lose_nothing(bed):
    old, new = pair(bed)
    stop = threading.Event()
    sent: list[int] = []

    def traffic() -> None:
        client = Client(bed.port)
        while not stop.is_set():
            sent.append(client.post(EVENT % len(sent), PATH).status)

    threads = [threading.Thread(target=traffic) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert bed.process is not None
    log = bed.root / "log" / "mirror.jsonl"
    for turn in range(4):
        time.sleep(0.2)
        bed.process.send_signal(signal.SIGHUP)
        wait(log.exists)  # opened again after the last rotation
        log.rename(log.with_name(f"mirror.jsonl.{turn + 1}"))
        bed.process.send_signal(signal.SIGUSR1)
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(sent) == {200}
    wait(lambda: len(old.got) == len(new.got) == len(sent))
    wait(lambda: counts(bed)["sentry"]["sent"] == counts(bed)["glitchtip"]["sent"] == len(sent))


# ------------------------------------------------------------------------------------- the product's own SDK

SDK = """
const Sentry = require('@sentry/node');
Sentry.init({dsn: process.env.SENTRY_DSN, tracesSampleRate: 1, enableLogs: false});
(async () => {
  for (let i = 0; i < 30; i++) Sentry.captureException(new Error('number ' + i));
  Sentry.startSpan({name: 'span', op: 'test'}, () => {});
  Sentry.captureException(new Error('big'), {extra: {big: 'x'.repeat(14000)}, contexts: {more: {a: 'y'.repeat(60000)}}});
  const started = Date.now();
  const flushed = await Sentry.flush(20000);
  console.log(JSON.stringify({flushed, ms: Date.now() - started}));
  process.exit(0); // the timer of flush would keep the process for its 20 s
})();
"""


@pytest.fixture(scope="module")
def app(installed: Path) -> Path:
    """The product's packages, of its lock file."""
    (installed / "send.cjs").write_text(SDK)
    return installed


@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_the_products_sdk_reaches_both_with_events_and_traces_however_slow_the_copy(bed, app, delay):
    old, new = pair(bed)
    old.keep_bodies = True
    new.delay = delay
    done = subprocess.run(
        ["node", "send.cjs"],
        cwd=app,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], "SENTRY_DSN": bed.dsn(old.dsn(KEY, "7"))},
    )
    assert done.returncode == 0, done.stderr
    assert '"flushed":true' in done.stdout
    print(f"@sentry/node, copy {delay:g} s slow: {done.stdout.strip()}")
    wait(lambda: len(new.got) == len(old.got))
    assert sorted(got.sha256 for got in old.got) == sorted(got.sha256 for got in new.got)
    kinds = [
        line
        for got in old.got
        for line in (gzip.decompress(got.body) if got.headers.get("content-encoding") else got.body).split(
            b"\n"
        )
        if line.startswith(b'{"type":"')
    ]
    assert sum(b'"event"' in kind for kind in kinds) == 31
    assert sum(b'"transaction"' in kind for kind in kinds) == 1
