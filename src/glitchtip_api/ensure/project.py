"""Projects, by name within an organization."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..client import Client
from ..resources.base import Objects
from ..validate import check_name, check_number
from .outcome import Outcome, create_once, missing, only, slugify, within

_WRITABLE = ("name", "slug", "platform", "eventThrottleRate")


def ensure_project(
    client: Client,
    organization: str,
    team: str,
    name: str,
    *,
    platform: str | None = None,
    event_throttle_rate: int | None = None,
    listed: Objects | None = None,
    parent_known: bool = False,
    state: str = "present",
    dry_run: bool = False,
) -> Outcome:
    """Make sure that a project exists in an organization and belongs to a team, or does not exist.

    Args:
        platform: free text on the server; None leaves it as it is.
        event_throttle_rate: percent of events to refuse, 0 to 100; None leaves it as it is.
        listed: all projects of the organization as they were just read; None reads them.
        parent_known: the team was just seen, so it is not looked for before a project is created in it.

    A change is one PUT of the whole project as just read, because the server wants the name in each.
    Other teams of the project keep it. Raises MissingError when organization or team is not there.
    """
    check_name(name, "a project", 64)
    check_number(event_throttle_rate, "the throttle rate", 100)
    wanted = {"platform": platform, "eventThrottleRate": event_throttle_rate}
    wanted = {key: value for key, value in wanted.items() if value is not None}

    where = f"organization {organization!r}"

    def find(known: Objects | None = None) -> dict[str, Any] | None:
        projects = within(lambda: client.projects.list(organization), where) if known is None else known
        return only(projects, "name", name, "projects")

    found = find(listed)
    if state == "absent":
        if found and not dry_run:
            client.projects.delete(organization, str(found["slug"]))
        return Outcome(bool(found), found and view_project(found), None)
    warnings: tuple[str, ...] = ()
    before = None
    if found is None:
        parent = f"team {team!r} in {where}"
        if not parent_known and client.teams.get(organization, team) is None:
            raise missing(parent)
        if dry_run:
            return Outcome(True, None, predicted_project(name, team, wanted), predicted=True)

        def create() -> dict[str, Any]:
            made = partial(client.projects.create, organization, team, name=name, platform=platform)
            return within(made, parent)

        found = create_once(client, create, find)
        found = {**found, "teams": [{"slug": team}]}
        if found.get("slug") != slugify(name):
            warnings = (f"the server made the slug {found.get('slug')!r} of the name {name!r}",)
    else:
        before = view_project(found)
    after = _settle(client, organization, team, found, wanted, dry_run)
    return Outcome(after != before, before, after, predicted=dry_run and after != before, warnings=warnings)


def _settle(
    client: Client,
    organization: str,
    team: str,
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    dry_run: bool,
) -> dict[str, Any]:
    """Bring an existing project to the wanted values and into the team; returns its view afterwards."""
    slug = str(found["slug"])
    changes = {key: value for key, value in wanted.items() if found.get(key) != value}
    after = {**found, **changes}
    if changes and not dry_run:
        whole = client.projects.get(organization, slug) or {}
        body = {key: whole.get(key, found.get(key)) for key in _WRITABLE}
        after = {**found, **client.projects.update(organization, slug, {**body, **changes})}
    teams = _teams(found)
    if team not in teams:
        if not dry_run:
            client.projects.add_team(organization, slug, team)
        teams = sorted([*teams, team])
    return {**view_project(after), "teams": teams}


def predicted_project(name: str, team: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The project that would be created; its id is not known yet."""
    return view_project({"id": "", "slug": slugify(name), "name": name, **wanted, "teams": [{"slug": team}]})


def _teams(project: Mapping[str, Any]) -> list[str]:
    return sorted(str(team["slug"]) for team in project.get("teams") or [])


def view_project(project: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared and returned of a project as the organization's list has it."""
    view = {key: project.get(key) for key in ("id", "slug", "name", "platform", "eventThrottleRate")}
    return {**view, "teams": _teams(project)}
