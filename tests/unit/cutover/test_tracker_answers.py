"""404 of a tracker: an event that is not there, or a path that the server does not serve. Only the first is an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from glitchtip_core.http import Answer
from glitchtip_cutover import api
from glitchtip_cutover.api import Tracker
from glitchtip_cutover.config import Side
from glitchtip_cutover.errors import CutoverError

JSON, PAGE = "application/json; charset=utf-8", "text/html"


def tracker(monkeypatch: pytest.MonkeyPatch, root: Path, content_type: str, body: bytes, status: int = 404) -> Tracker:
    """A tracker whose server answers everything alike."""
    token = root / "token"
    token.write_text("t" * 40, encoding="ascii")
    token.chmod(0o600)
    answer = Answer(status, {"content-type": content_type}, body)
    monkeypatch.setattr(api, "request", lambda *_, **__: answer)
    side: Any = Side.__new__(Side)
    for name, value in (
        ("name", "new"),
        ("api_url", "http://127.0.0.1:1"),
        ("organization", "acme"),
        ("project", "shop"),
        ("token_file", token),
    ):
        object.__setattr__(side, name, value)
    return Tracker(side, sleep=lambda _: None)


@pytest.mark.parametrize("detail", ["Not Found", "The requested resource does not exist", "not found"])
def test_an_event_that_is_not_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, detail: str) -> None:
    body = json.dumps({"detail": detail}).encode()
    assert tracker(monkeypatch, tmp_path, JSON, body).event("0" * 32) is None


@pytest.mark.parametrize("method", ["event", "recent_events", "public_keys", "project_id"])
@pytest.mark.parametrize(
    ("content_type", "body"),
    [(JSON, b'{"detail": "Not found"}'), (PAGE, b"<html>"), (JSON, b"<html>"), ("", b"")],
)
def test_a_path_that_is_not_served_is_a_failure_that_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, method: str, content_type: str, body: bytes
) -> None:
    found = getattr(tracker(monkeypatch, tmp_path, content_type, body), method)
    with pytest.raises(CutoverError, match=r"does not serve /api/0/projects/acme/shop/.*version"):
        found(*["0" * 32][: method == "event"])


def test_a_project_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(CutoverError, match="knows no project acme/shop"):
        tracker(monkeypatch, tmp_path, JSON, b'{"detail": "Not Found"}').recent_events()
