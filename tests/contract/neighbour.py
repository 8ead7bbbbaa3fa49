"""Somebody else on the server while the suite runs: an organization whose product reports all the time.

A rule that only holds on an otherwise idle server fails beside it.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from .server import ALL_SCOPES, ORGANIZATIONS, TOKENS, Project, Server

#: Seconds between two of its events.
PAUSE = 0.5


@contextmanager
def at_work(url: str, email: str, password: str, line: str = "5.2") -> Iterator[Project]:
    """A neighbour of the same account that sends two events a second, of a new issue every ten, for as long as the block runs.

    RuntimeError at the end when most of its events were refused: the rules then were not held beside a neighbour.
    """
    server = Server(url, email, password, line)
    server.cookies = server.session()
    token = server.make_token(server.cookies, ALL_SCOPES, "neighbour")
    server.token = token["token"]
    slug = server.post(ORGANIZATIONS, {"name": f"Neighbour {uuid.uuid4().hex[:6]}"})["slug"]
    server.post(f"{ORGANIZATIONS}{slug}/teams/", {"slug": f"neighbour-{uuid.uuid4().hex[:6]}"})
    team = server.get(f"{ORGANIZATIONS}{slug}/teams/")[0]["slug"]
    made = server.post(f"/api/0/teams/{slug}/{team}/projects/", {"name": "Neighbour", "platform": "python"})
    key = uuid.UUID(server.get(f"/api/0/projects/{slug}/{made['slug']}/keys/")[0]["public"]).hex
    project = Project(server, slug, made["slug"], made["id"], made["name"], key)
    over = threading.Event()
    taken: list[bool] = []

    def report() -> None:
        while not over.wait(PAUSE):
            text = f"neighbour {len(taken) // 10}"
            event = project.event(text, environment="neighbour", release="neighbour@1")
            try:
                taken.append(project.post(project.envelope(event)).status_code == 200)
            except requests.RequestException:
                taken.append(False)

    worker = threading.Thread(target=report, daemon=True)
    worker.start()
    try:
        yield project
    finally:
        over.set()
        worker.join(60)
        server.write("DELETE", f"{TOKENS}{token['id']}/", None, server.cookies)
    if sum(taken) * 2 < len(taken):
        raise RuntimeError(
            f"The neighbour of the contract suite was not at work: {sum(taken)} of {len(taken)} events were taken."
        )
