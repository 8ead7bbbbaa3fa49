"""The proxy of the mutations alters what it shall and nothing else; every mutation points at rules that exist."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
from pathlib import Path

import pytest
import requests
from contract_mutations.catalogue import MUTATIONS
from contract_mutations.proxy import Answer, Proxy

ROOT = Path(__file__).resolve().parents[3]


def through(port, ask, **hooks):
    """The result of ``ask(url)`` in a thread, with a proxy in front of the port; and the proxy."""

    async def run():
        proxy = Proxy(port, **hooks)
        await proxy.start()
        try:
            return await asyncio.to_thread(ask, proxy.url), proxy
        finally:
            await proxy.stop()

    return asyncio.run(run())


def port_of(script):
    return int(script.url.rsplit(":", 1)[1])


def test_requests_and_answers_pass_as_they_are(scripted_server):
    scripted_server.then(201, {"id": "1"}, headers={"Link": "{'<x>'}", "X-Hits": "7"})

    def ask(url):
        return requests.post(f"{url}/a/?b=c", data=b"\x00\xff", headers={"X-A": "b"}, timeout=5)

    answer, proxy = through(port_of(scripted_server), ask)
    asked = scripted_server.asked[0]
    assert (asked.method, asked.path, asked.body, asked.headers["x-a"]) == (
        "POST",
        "/a/?b=c",
        b"\x00\xff",
        "b",
    )
    assert asked.headers["host"] == proxy.url.removeprefix("http://")
    assert (answer.status_code, answer.json(), answer.headers["Link"]) == (201, {"id": "1"}, "{'<x>'}")
    assert proxy.altered == 0


def test_a_kept_connection_stays_kept_and_a_dropped_one_is_dropped(scripted_server):
    scripted_server.then(200, 1).then(200, 2).then(drop=True)

    def ask(url):
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
        found = []
        for _ in range(2):
            connection.request("GET", "/")
            found.append(json.loads(connection.getresponse().read()))
        connection.request("GET", "/")
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            connection.getresponse()
        return found

    assert through(port_of(scripted_server), ask)[0] == [1, 2]


def test_an_answer_in_the_servers_place_never_reaches_the_server(scripted_server):
    answer, proxy = through(
        port_of(scripted_server),
        lambda url: requests.get(url, timeout=5),
        on_request=lambda _: Answer.of(409, {}),
    )
    assert (answer.status_code, proxy.altered, scripted_server.asked) == (409, 1, [])


def test_a_change_of_an_answer_is_counted_only_when_it_changed_something(scripted_server):
    scripted_server.then(200, {"a": 1}).then(200, {"a": 2})

    def to_one(_, answer):
        answer.set_json({"a": 1})

    def ask(url):
        return [requests.get(url, timeout=5).json() for _ in range(2)]

    found, proxy = through(port_of(scripted_server), ask, on_answer=to_one)
    assert (found, proxy.altered) == ([{"a": 1}, {"a": 1}], 1)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_points_at_rules_that_exist(mutation):
    file, *rest = mutation.first
    names = re.findall(r"^def (test_\w+)", (ROOT / file).read_text(), re.MULTILINE)
    words = rest[1].split(" or ") if rest else [""]
    assert any(word in name for name in names for word in words)
    assert mutation.sentence


def test_there_are_enough_mutations_and_six_of_them_are_the_short_form():
    names = [mutation.name for mutation in MUTATIONS]
    assert len(set(names)) == len(names) >= 24
    assert sum(mutation.short for mutation in MUTATIONS) == 6
