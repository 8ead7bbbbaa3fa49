"""A few servers of tests/any_server.py on the stand-in: exported, applied to themselves, removed and rebuilt.

The many are in tests/unit/configuration/test_export_property.py; this holds them to the server that the contract
suite checks.
"""

from __future__ import annotations

import uuid

import pytest
from any_server import build, organizations
from desired_state import filled
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from glitchtip_api.configuration import export, reconcile

KINDS = ("team", "member", "project", "key", "alert", "monitor")
few = settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)


def plain(thing):
    """Without what is known of the server of the export only."""
    if isinstance(thing, dict):
        return {key: plain(value) for key, value in thing.items() if key not in ("left_out", "status_pages")}
    return [plain(value) for value in thing] if isinstance(thing, list) else thing


def own(exported, slug_names):
    return [entry for entry in exported.organizations if entry["name"] in slug_names]


@few
@given(data=st.data())
def test_an_export_changes_nothing_and_rebuilds_what_was_removed(server, data):
    recipe = data.draw(organizations(server.line))
    recipe["name"] = f"{recipe['name'][:20]} {uuid.uuid4().hex[:8]}"
    client = server.client
    (slug,) = build(client, [recipe])
    exported = own(export(client, [slug]), {recipe["name"]})
    entries = filled(exported)
    before = len(server.writes())
    done = reconcile(client, entries, purge=KINDS)
    assert [step.line() for step in done.plan.steps] == []
    assert len(server.writes()) == before

    client.organizations.delete(slug)
    rebuilt = reconcile(client, entries)
    assert rebuilt.applied is not None
    assert [(step.title, str(error)) for step, error in rebuilt.applied.failed] == []
    assert [step.line() for step in rebuilt.remaining] == []
    assert [step.line() for step in reconcile(client, entries, purge=KINDS).plan.steps] == []
    (again,) = [one["slug"] for one in client.organizations.list() if one["name"] == recipe["name"]]
    assert plain(own(export(client, [again]), {recipe["name"]})) == plain(exported)
    client.organizations.delete(again)


@pytest.mark.parametrize("public", [True, False])
def test_a_page_that_cannot_be_told_apart_is_named(server, name, public):
    """The account has several organizations: whose a private page is, the server does not say."""
    client = server.client
    slugs = [str(client.organizations.create(f"{name} {number}")["slug"]) for number in (1, 2)]
    client.status_pages.create(slugs[0], f"{name} page", public=public)
    found = own(export(client, slugs), {f"{name} 1", f"{name} 2"})
    pages = [page["name"] for entry in found for page in entry["status_pages"]]
    noted = [note["name"] for entry in found for note in entry.get("left_out") or []]
    assert pages == ([f"{name} page"] if public else [])
    assert (f"{name} page" in noted) is not public
    for slug in slugs:
        client.organizations.delete(slug)
