"""Any server that the API can make: its export changes nothing there, and rebuilds it on an empty server."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from any_server import Recipe, build, servers
from desired_state import filled
from fake_api import FakeApi
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from glitchtip_api.configuration import PURGEABLE, Export, export, reconcile

CASES = st.sampled_from(("5.2", "6.2")).flatmap(lambda line: st.tuples(st.just(line), servers(line)))


def made(line: str, recipe: list[Recipe]) -> FakeApi:
    api = FakeApi(line)
    build(api.client(), recipe)
    api.asked.clear()
    return api


def without_left_out(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries without notes about what is not in them."""
    kept = [
        entry
        for entry in entries
        if ("organization", entry["name"]) not in named(entry.get("left_out") or [])
    ]
    return [_plain(entry) for entry in kept]


def named(things: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(thing["kind"], thing["name"]) for thing in things}


def _plain(thing: Any) -> Any:
    if isinstance(thing, dict):
        return {key: _plain(value) for key, value in thing.items() if key != "left_out"}
    return [_plain(value) for value in thing] if isinstance(thing, list) else thing


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # making a failing case smaller takes minutes
)
@given(CASES)
@pytest.mark.slow
def test_an_export_changes_nothing_there_and_rebuilds_it_elsewhere(
    filters: Any, loaded: Any, case: tuple[str, list[Recipe]]
) -> None:
    api = made(*case)
    exported = export(api.client())
    written_and_read_back(filters, loaded, exported.organizations)
    nothing_is_missing_without_a_reason(api, exported)
    nothing_changes_and_nothing_is_purged(api, exported.organizations)
    is_there_on_an_empty_server(case[0], exported.organizations)


def written_and_read_back(filters: Any, loaded: Any, exported: list[dict[str, Any]]) -> None:
    files = filters.configuration_files(exported)
    assert "canary" not in files["configuration"]
    with tempfile.TemporaryDirectory() as directory:
        assert loaded(files, Path(directory)) == exported


def nothing_changes_and_nothing_is_purged(api: FakeApi, exported: list[dict[str, Any]]) -> None:
    done = reconcile(api.client(), filled(exported), purge=PURGEABLE)
    assert [step.line() for step in done.plan.steps] == []
    assert api.writes() == []


def is_there_on_an_empty_server(line: str, exported: list[dict[str, Any]]) -> None:
    other = FakeApi(line)
    done = reconcile(other.client(), filled(exported))
    if done.applied is not None:
        assert [(step.title, str(error)) for step, error in done.applied.failed] == []
    assert [step.line() for step in done.remaining] == []
    again = reconcile(other.client(), filled(exported), purge=PURGEABLE)
    assert [step.line() for step in again.plan.steps] == []
    assert without_left_out(export(other.client()).organizations) == without_left_out(exported)


def nothing_is_missing_without_a_reason(api: FakeApi, found: Export) -> None:
    places = [(entry, *(entry.get("projects") or [])) for entry in found.organizations]
    assert len(found.left_out) == sum(len(one.get("left_out") or []) for place in places for one in place)
    for entry in found.organizations:
        notes = entry.get("left_out") or []
        assert all(note["why"] for note in notes)
        if ("organization", entry["name"]) in named(notes):
            continue
        org = next(one["id"] for one in api.data["orgs"] if one["name"] == entry["name"])
        for kind, key in (("project", "name"), ("monitor", "name"), ("member", "email")):
            there = {thing[key] for thing in api.data[f"{kind}s"] if thing["org"] == org}
            here = {thing[key] for thing in entry[f"{kind}s"]}
            assert here | {name for noted, name in named(notes) if noted == kind} == there
        projects = {one["slug"]: one["id"] for one in api.data["projects"] if one["org"] == org}
        for project in entry["projects"]:
            inside = named(project.get("left_out") or [])
            rules = {
                rule["name"] for rule in api.data["alerts"] if rule["project"] == projects[project["slug"]]
            }
            here = {rule["name"] for rule in project["alerts"]}
            assert here | {name for noted, name in inside if noted == "alert"} == rules


@pytest.mark.parametrize("line", ["5.2", "6.2"])
def test_rules_without_recipients_and_such_as_never_fire_are_marked(line: str) -> None:
    api = FakeApi(line)
    client = api.client()
    org = str(client.organizations.create("Acme")["slug"])
    client.teams.create(org, "crew")
    client.projects.create(org, "crew", name="Shop")
    client.alerts.create(org, "shop", {"name": "silent"})
    (entry,) = export(client).organizations
    assert entry["projects"][0]["alerts"] == [{"name": "silent", "recipients": [], "incomplete": True}]
