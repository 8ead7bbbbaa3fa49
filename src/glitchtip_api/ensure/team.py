"""Teams, by slug."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..client import Client
from ..validate import check_team_slug
from .outcome import Outcome, create_once, only, within


def ensure_team(
    client: Client, organization: str, slug: str, *, state: str = "present", dry_run: bool = False
) -> Outcome:
    """Make sure that a team exists in an organization (by slug), or does not.

    Raises MissingError when the organization is not there, InvalidError for a slug the server refuses.
    """
    check_team_slug(slug)

    def find() -> dict[str, Any] | None:
        teams = within(lambda: client.teams.list(organization), f"organization {organization!r}")
        return only(teams, "slug", slug, "teams")

    found = find()
    if state == "absent":
        if found and not dry_run:
            client.teams.delete(organization, slug)
        return Outcome(bool(found), _view(found), None)
    if found:
        return Outcome(False, _view(found), _view(found))
    if dry_run:
        return Outcome(True, None, predicted_team(slug), predicted=True)
    created = create_once(client, lambda: client.teams.create(organization, slug), find)
    return Outcome(True, None, _view(created))


def predicted_team(slug: str) -> dict[str, Any]:
    """The team that would be created; its id is not known yet."""
    return {"id": "", "slug": slug}


def _view(team: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if team is None else {key: team.get(key) for key in ("id", "slug")}
