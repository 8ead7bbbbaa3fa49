"""A soak against a real API: its test event is read back, and real errors are told from test events."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from integration.conftest import Server
from unit.ops_soak import make_plan

from glitchtip_api import parse_dsn
from glitchtip_api.ingest import await_event, send_event
from glitchtip_ops.docker_stack import Stack
from glitchtip_ops.probe import send_probe
from glitchtip_ops.soak.config import SoakConfig
from glitchtip_ops.soak.sampler import Sampler, real_issues


@pytest.fixture
def settings(server: Server, name: str) -> Any:
    """Settings of the tools for a new organization with one project."""
    client = server.client
    organization = client.organizations.create(name)["slug"]
    client.teams.create(organization, "crew")
    project = client.projects.create(organization, "crew", name="shop")
    dsn = client.keys.list(organization, project["slug"])[0]["dsn"]["public"]
    return SimpleNamespace(
        url=server.url,
        token=server.token,
        organization=organization,
        project=project["slug"],
        project_id=str(project["id"]),
        dsn=dsn,
    )


def send(settings: Any, server: Server, level: str, tags: dict[str, str]) -> None:
    event_id = uuid.uuid4().hex
    error = {"type": "DatabaseError", "value": f"ECONNREFUSED {event_id}"}
    event = {"event_id": event_id, "level": level, "exception": {"values": [error]}, "tags": tags}
    event["fingerprint"] = [event_id]
    send_event(parse_dsn(settings.dsn), event)
    await_event(server.client, settings.organization, settings.project, event_id, timeout=30)


def test_a_soak_sees_real_errors_only_when_the_product_has_sent_some(server: Server, settings: Any) -> None:
    now = datetime.now(UTC)
    plan = make_plan(
        mode="mirror", started_at=(now - timedelta(seconds=5)).isoformat(), services=(), pm2_services=()
    )

    def counts(*_: Any) -> dict[str, Any]:
        return {leg: {"sent": 1, "ok": 1, "failed": 0} for leg in ("sentry", "glitchtip")}

    taker = Sampler(
        SoakConfig(services=()),
        Stack(),
        lambda: send_probe(settings, "soak"),
        real=lambda ordered: real_issues(settings, ordered),
        mirror=counts,
    )
    first = taker.take(plan, now, None)
    assert first["errors"] == []
    assert first["probe"]["captured"], first["probe"]
    send(settings, server, "error", {"cutover_probe": "api"})
    send(settings, server, "info", {"component": "database"})
    assert taker.take(plan, now, first)["real"]["issues"] == 0
    send(settings, server, "error", {"component": "database"})
    found = taker.take(plan, now, first)["real"]
    assert (found["issues"], found["more"]) == (1, False)
    later = make_plan(mode="mirror", started_at=(datetime.now(UTC) + timedelta(minutes=5)).isoformat())
    assert real_issues(settings, later)["issues"] == 0
