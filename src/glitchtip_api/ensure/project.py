"""Projects, by name within an organization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..client import Client
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
    state: str = "present",
    dry_run: bool = False,
) -> Outcome:
    """Make sure that a project exists in an organization and belongs to a team, or does not exist.

    Args:
        platform: free text on the server; None leaves it as it is.
        event_throttle_rate: percent of events to refuse, 0 to 100; None leaves it as it is.

    A change is one PUT of the whole project as just read, because the server wants the name in each.
    Other teams of the project keep it. Raises MissingError when organization or team is not there.
    """
    check_name(name, "a project", 64)
    check_number(event_throttle_rate, "the throttle rate", 100)
    wanted = {"platform": platform, "eventThrottleRate": event_throttle_rate}
    wanted = {key: value for key, value in wanted.items() if value is not None}

    def find() -> dict[str, Any] | None:
        projects = within(lambda: client.projects.list(organization), f"organization {organization!r}")
        return only(projects, "name", name, "projects")

    found = find()
    if state == "absent":
        if found and not dry_run:
            client.projects.delete(organization, str(found["slug"]))
        return Outcome(bool(found), found and _view(found), None)
    warnings: tuple[str, ...] = ()
    before = None
    if found is None:
        if client.teams.get(organization, team) is None:
            raise missing(f"team {team!r} in organization {organization!r}")
        if dry_run:
            return Outcome(True, None, predicted_project(name, team, wanted), predicted=True)
        found = create_once(
            client,
            lambda: client.projects.create(organization, team, name=name, platform=platform),
            find,
        )
        found = {**found, "teams": [{"slug": team}]}
        if found.get("slug") != slugify(name):
            warnings = (f"the server made the slug {found.get('slug')!r} of the name {name!r}",)
    else:
        before = _view(found)
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
    return {**_view(after), "teams": teams}


def predicted_project(name: str, team: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The project that would be created; its id is not known yet."""
    return _view({"id": "", "slug": slugify(name), "name": name, **wanted, "teams": [{"slug": team}]})


def _teams(project: Mapping[str, Any]) -> list[str]:
    return sorted(str(team["slug"]) for team in project.get("teams") or [])


def _view(project: Mapping[str, Any]) -> dict[str, Any]:
    view = {key: project.get(key) for key in ("id", "slug", "name", "platform", "eventThrottleRate")}
    return {**view, "teams": _teams(project)}
