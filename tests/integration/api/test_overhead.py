"""What the client costs beside the same request made with a bare `requests.Session`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import requests

from glitchtip_api import Client

ANSWER_SECONDS = 0.02
ROUNDS, CALLS = 5, 40

SERVER = """
import asyncio, sys

BODY = b'[{"id": "1", "slug": "acme", "name": "Acme"}]'
HEAD = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(BODY)

async def serve(reader, writer):
    try:
        while await reader.readuntil(b"\\r\\n\\r\\n"):
            await asyncio.sleep(float(sys.argv[1]))
            writer.write(HEAD + BODY)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture
def slow_url() -> Iterator[str]:
    """A server in a process of its own that answers after 20 ms and keeps connections."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(ANSWER_SECONDS)], stdout=subprocess.PIPE
    ) as process:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/api/0/organizations/"
        process.terminate()


def cost(call):
    """Seconds of this process's CPU and of the clock that one call takes."""
    call()
    cpu, clock = time.process_time(), time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.process_time() - cpu) / CALLS, (time.perf_counter() - clock) / CALLS


def test_the_client_costs_less_than_a_tenth_of_a_call_more_than_bare_requests(slow_url):
    base, path = slow_url[: slow_url.index("/api/")], slow_url[slow_url.index("/api/") :]
    params = {"limit": 100}
    with requests.Session() as session, Client(base, "t" * 64, per_second=None) as client:
        rounds = [
            (
                cost(lambda: session.get(slow_url, params=params, timeout=(5, 30)).json()),
                cost(lambda: client.get(path, params)),
            )
            for _ in range(ROUNDS)
        ]
        assert client.transport.connections.opened == 1
    bare, own = (
        [statistics.median(round_[which][kind] for round_ in rounds) * 1000 for kind in (0, 1)]
        for which in (0, 1)
    )
    print(
        f"\na call that takes 20 ms: requests.Session {bare[1]:.2f} ms ({bare[0]:.2f} ms of CPU), "
        f"client {own[1]:.2f} ms ({own[0]:.2f} ms of CPU), difference {own[0] - bare[0]:+.2f} ms of CPU"
    )
    assert own[0] - bare[0] < ANSWER_SECONDS * 1000 / 10
