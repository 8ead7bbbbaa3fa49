"""Two trackers: a stand-in of the 5.2 line plays Sentry, one of the 6.2 line is GlitchTip (and the reverse)."""

from __future__ import annotations

import argparse
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from integration.conftest import Server

from glitchtip_api import parse_dsn
from glitchtip_api.ingest import send_event
from glitchtip_api.session import login
from glitchtip_ops.cli import Outcome


@dataclass
class Tracker:
    """One project on one server."""

    server: Server
    organization: str
    project: str
    dsn: str = field(repr=False)
    token: str = field(repr=False)

    def send(self, event: Mapping[str, Any]) -> None:
        """As an SDK would."""
        send_event(parse_dsn(self.dsn), dict(event), per_second=None)

    def wait_for(self, *event_ids: str) -> None:
        """Until they are stored."""
        end = time.monotonic() + 40
        with self.server.client as client:
            for event_id in event_ids:
                while client.events.get(self.organization, self.project, event_id) is None:
                    assert time.monotonic() < end, f"{event_id} is not stored"
                    time.sleep(0.2)


@dataclass
class World:
    """Both trackers and the host's settings. ``began`` is the beginning of the test's window."""

    sentry: Tracker
    glitchtip: Tracker
    directory: Path
    began: float

    def run(self, module: str, *arguments: str) -> Outcome:
        """A command of glitchtip-ops as the program would run it."""
        parser = argparse.ArgumentParser()
        import_module(f"glitchtip_ops.{module}").register(parser.add_subparsers())
        options = parser.parse_args([module.replace("_", "-"), *arguments])
        outcome: Outcome = options.handler(options)
        return outcome

    def parity(self, *arguments: str) -> Outcome:
        """The comparison since the test began, without the margin (all is stored)."""
        time.sleep(1.1)  # the window ends with the last whole second
        return self.run("parity", "--since", "1h", "--margin", "0", *arguments)


def error(number: int = 0, **changes: Any) -> dict[str, Any]:
    """What an SDK sends: an exception with stack, breadcrumbs, user, tags, extra."""
    return {
        "event_id": uuid.uuid4().hex,
        "timestamp": time.time(),
        "platform": "node",
        "level": "error",
        "release": "shop@1.0.0",
        "environment": "production",
        "tags": {"component": "database", "backend": "postgres"},
        "user": {"id": "7", "email": "anna.canary@example.org", "username": "anna"},
        "extra": {"attempt": 3, "nested": {"host": "db-1"}},
        "breadcrumbs": {
            "values": [
                {
                    "timestamp": time.time() - 1,
                    "category": "db",
                    "message": "connect",
                    "data": {"port": 5432},
                },
                {"timestamp": time.time(), "category": "db", "message": "query", "level": "warning"},
            ]
        },
        "exception": {
            "values": [
                {
                    "type": f"TypeError{number}",
                    "value": "x is undefined",
                    "stacktrace": {
                        "frames": [
                            {
                                "filename": "node:internal/run",
                                "function": "run",
                                "lineno": 1,
                                "in_app": False,
                            },
                            {"filename": "app/orders.js", "function": "pay", "lineno": 42, "in_app": True},
                        ]
                    },
                }
            ]
        },
        **changes,
    }


def _tracker(server: Server, name: str, scopes: set[str]) -> Tracker:
    with server.client as client:
        organization = client.organizations.create(name)["slug"]
        client.teams.create(organization, "team")
        project = client.projects.create(organization, "team", name="shop")["slug"]
        dsn = client.keys.list(organization, project)[0]["dsn"]["public"]
    with login(server.url, "admin@example.org", server.password) as session:
        token = session.ensure_token(f"parity {name}", scopes).token
    return Tracker(server, organization, project, dsn, token)


@pytest.fixture(params=[("5.2", "6.2"), ("6.2", "5.2")], ids=["sentry 5.2", "sentry 6.2"])
def world(
    request: pytest.FixtureRequest,
    standin: Callable[[str], Server],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    """Both trackers empty; Sentry is read with the least scopes that the documents name."""
    sides = import_module("glitchtip_ops.parity.sides")
    for pace in ("REQUESTS_A_MINUTE", "REQUESTS_A_SECOND"):
        monkeypatch.setattr(sides, pace, None)
    first, second = (standin(line) for line in request.param)
    sentry = _tracker(first, name, {"project:read", "event:read", "org:read"})
    glitchtip = _tracker(second, name, {"project:read", "event:read", "org:read"})
    settings = {
        "migration_id": "m1",
        "url": second.url,
        "public_url": second.url,
        "organization": glitchtip.organization,
        "project": glitchtip.project,
        "project_id": "1",
        "compose_dir": str(tmp_path),
        "backup_dir": str(tmp_path / "backups"),
        "state_dir": str(tmp_path / "state"),
    }
    where = {"url": first.url, "organization": sentry.organization, "project": sentry.project}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    (tmp_path / "token").write_text(glitchtip.token)
    (tmp_path / "dsn").write_text(glitchtip.dsn)
    (tmp_path / "sentry.json").write_text(json.dumps(where))
    (tmp_path / "sentry-token").write_text(sentry.token)
    monkeypatch.setenv("GLITCHTIP_OPS_CONFIG_DIR", str(tmp_path))
    return World(sentry, glitchtip, tmp_path, time.time())
