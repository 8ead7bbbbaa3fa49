"""Secrets that only the server knows (6.x puts them into answers) are in no result, no diff and no plan."""

from __future__ import annotations

from typing import Any

import pytest
from desired_state import filled
from fake_api import FakeApi

from glitchtip_api.configuration import export, reconcile
from glitchtip_api.ensure import ensure_alert, ensure_member, ensure_organization, ensure_project, ensure_team
from glitchtip_api.ensure.outcome import masked
from glitchtip_api.reading import read

ZULIP = {"bot_email": "bot@example.org", "api_key": "canary-api-key", "channel": "ops"}


@pytest.fixture
def api() -> FakeApi:
    """A server with a rule that writes to Zulip."""
    fake = FakeApi("6.2")
    client = fake.client()
    ensure_organization(client, "Acme")
    ensure_team(client, "acme", "crew")
    ensure_project(client, "acme", "crew", "Shop")
    recipient = {"type": "zulip", "url": "https://z.example.org/canary-path", "config": ZULIP}
    ensure_alert(client, "acme", "shop", "chat", uptime=True, recipients=[recipient])
    return fake


def test_an_invitation_is_returned_without_its_link(api: FakeApi) -> None:
    answers: list[Any] = []
    exchange = api.exchange

    def listening(method: str, path: str, **parts: Any) -> Any:
        answers.append(exchange(method, path, **parts))
        return answers[-1]

    api.exchange = listening  # type: ignore[method-assign]
    done = ensure_member(api.client(), "acme", "new@example.org", teams=["crew"])
    assert any(b"canary-invite-link" in answer.body for answer in answers), "the server sent none"
    assert "canary" not in f"{done} {done.diff()}"
    assert "canary" not in str(masked({"members": [{"inviteLink": "https://x.example.org/accept/1/canary/"}]}))


def test_the_key_of_a_bot_that_the_server_returns_is_masked(api: FakeApi) -> None:
    client = api.client()
    changed = ensure_alert(client, "acme", "shop", "chat", quantity=3, timespan_minutes=5)
    assert "canary" not in f"{changed.diff()} {masked(changed.after)} {changed.warnings}"
    shown = read(client, "alert", {"organization": "acme", "project": "shop"}, None)
    assert "canary" not in str(shown.objects)


def test_a_plan_that_changes_the_key_shows_neither(api: FakeApi) -> None:
    client = api.client()
    (entry,) = filled(export(client).organizations)
    entry["projects"][0]["alerts"][0]["recipients"][0]["config"]["api_key"] = "canary-new-key"
    done = reconcile(client, [entry], dry_run=True)
    assert [step.kind for step in done.plan.steps] == ["alert"]
    assert "canary" not in f"{done.plan.steps[0].line()} {done.plan.steps[0].as_dict()} {done.warnings}"
