"""The neighbour of the contract suite says so when it was not at work."""

from __future__ import annotations

import time
import uuid
from types import SimpleNamespace

import pytest
import requests
from contract import neighbour


class FakeServer:
    """As much of a server as the neighbour uses."""

    def __init__(self, *_):
        self.removed = []

    def session(self):
        return {"sessionid": "x"}

    def make_token(self, *_):
        return {"token": "t", "id": 1}

    def post(self, path, _):
        return {"slug": "acme", "id": 1, "name": path}

    def get(self, _):
        return [{"slug": "acme", "public": uuid.uuid4().hex}]

    def write(self, method, path, *_):
        self.removed.append((method, path))


class FakeProject:
    """Answers as ``answer`` says; an exception is raised."""

    answer: object = 200

    def __init__(self, server, *_):
        self.server = server

    def event(self, *_, **__):
        return {}

    def envelope(self, _):
        return b""

    def post(self, _):
        if isinstance(self.answer, Exception):
            raise self.answer
        return SimpleNamespace(status_code=self.answer)


def work(monkeypatch, answer):
    monkeypatch.setattr(neighbour, "Server", FakeServer)
    monkeypatch.setattr(neighbour, "Project", FakeProject)
    monkeypatch.setattr(neighbour, "PAUSE", 0.005)
    monkeypatch.setattr(FakeProject, "answer", answer)
    with neighbour.at_work("http://127.0.0.1:1", "a@example.org", "x") as project:
        time.sleep(0.2)
    return project


def test_a_neighbour_whose_events_are_taken_was_at_work(monkeypatch):
    assert work(monkeypatch, 200).server.removed


@pytest.mark.parametrize("answer", [403, 429, 500, requests.ConnectionError("refused")])
def test_one_that_is_refused_was_not(monkeypatch, answer):
    with pytest.raises(RuntimeError, match=r"0 of \d+ events were taken"):
        work(monkeypatch, answer)
