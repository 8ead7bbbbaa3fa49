"""The client against both web servers of GlitchTip: no call fails, no event is lost or stored twice."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from glitchtip_api import Client, parse_dsn
from glitchtip_api.ingest import send_event

CALLS = 400
EVENTS = 200
THREADS = 4


def mixed(client, place, number):
    """One of eight calls, six reads and two writes of which each can be counted afterwards."""
    path = f"/api/0/projects/{place.organization}/{place.project}"
    match number % 8:
        case 0:
            return client.post(f"/api/0/organizations/{place.organization}/teams/", {"slug": f"t-{number}"})
        case 1:
            return client.put(f"{path}/", {"name": "probe", "platform": "python"})
        case 2:
            return client.organizations.list()
        case 3:
            return client.get(f"{path}/")
        case 4:
            return client.get(f"{path}/keys/")
        case 5:
            return client.settings()
        case 6:
            return client.teams.list(place.organization)
        case _:
            return client.root()


@pytest.mark.parametrize("threads", [1, THREADS, 16])
def test_no_call_fails_and_no_write_is_doubled(place, threads):
    first = threads * 10_000
    numbers = range(first, first + CALLS)
    began = time.monotonic()
    with (
        Client(place.url, place.token, retries=0, per_second=None, concurrent=threads) as client,
        ThreadPoolExecutor(threads) as pool,
    ):
        answers = list(pool.map(lambda number: mixed(client, place, number), numbers))
        seconds = time.monotonic() - began
        kept = client.transport.connections
        made = [t["slug"] for t in client.teams.list(place.organization) if t["slug"].startswith("t-")]
        for number in numbers[::8]:
            client.delete(f"/api/0/teams/{place.organization}/t-{number}/")
    assert len(answers) == CALLS
    assert sorted(slug for slug in made) == sorted(f"t-{number}" for number in numbers[::8])
    print(
        f"\n{place.url}, {threads} threads: {CALLS} calls in {seconds:.1f} s, 0 failed; "
        f"{CALLS - CALLS // 4} reads over {kept.opened - CALLS // 4 - len(made)} connections and writes over "
        f"their own; {kept.lost} lost by a kept one and sent again"
    )


def test_every_event_that_was_accepted_is_stored_once(place):
    dsn = parse_dsn(place.dsn).with_base(place.url)
    event = {"message": "transport", "fingerprint": ["transport"], "platform": "python"}
    began = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        sent = list(
            pool.map(lambda number: send_event(dsn, {**event, "extra": {"n": number}}), range(EVENTS))
        )
    seconds = time.monotonic() - began
    path = f"/api/0/projects/{place.organization}/{place.project}/events/"
    deadline = time.monotonic() + 60
    with Client(place.url, place.token, per_second=None) as client:
        while True:
            found = Counter(str(item["id"]).replace("-", "") for item in client.paginate(path))
            if len(found.keys() & set(sent)) == EVENTS or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        issues = client.get(f"/api/0/organizations/{place.organization}/issues/")
    assert len(set(sent)) == EVENTS
    assert {event_id: found[event_id] for event_id in sent} == dict.fromkeys(sent, 1)
    assert sum(int(issue["count"]) for issue in issues) == EVENTS
    print(f"\n{place.url}: {EVENTS} events by {THREADS} threads in {seconds:.1f} s, all stored once")


def test_what_the_client_is_spared_happens_to_a_plain_session(place):
    """The trap itself: kept connections lose requests on a server that closes them without a word."""
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {place.token}"
        lost = 0
        for _ in range(100):
            try:
                session.get(f"{place.url}/api/0/", timeout=20)
            except requests.ConnectionError:
                lost += 1
        reused = (
            not lost
            and session.get_adapter(place.url).poolmanager.connection_from_url(place.url).num_connections
        )
    print(f"\n{place.url}: a plain Session lost {lost} of 100 reads")
    with Client(place.url, place.token, per_second=None) as client:
        for _ in range(100):
            client.root()
        assert client.transport.connections.keeping is (client.transport.connections.lost == 0)
        if reused == 1:
            assert (client.transport.connections.opened, client.transport.connections.keeping) == (1, True)
