"""Teams, by slug."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..client import Client
from ..late_answers import Wanted, create_once
from ..resources.base import Objects
from ..validate import check_team_slug
from .outcome import Outcome, named, only, within


def ensure_team(
    client: Client,
    organization: str,
    slug: str,
    *,
    listed: Objects | None = None,
    state: str = "present",
    dry_run: bool = False,
) -> Outcome:
    """Make sure that a team exists in an organization (by slug), or does not.

    Args:
        listed: all teams of the organization as they were just read; None reads them.

    Raises MissingError when the organization is not there, InvalidError for a slug the server refuses.
    """
    check_team_slug(slug)

    where = f"organization {organization!r}"

    def read() -> Objects:
        return within(lambda: client.teams.list(organization), where)

    found = only(read() if listed is None else listed, "slug", slug, "teams")
    if state == "absent":
        if found and not dry_run:
            client.teams.delete(organization, slug)
        return Outcome(bool(found), found and view_team(found), None)
    if found:
        return Outcome(False, view_team(found), view_team(found))
    if dry_run:
        return Outcome(True, None, predicted_team(slug), predicted=True)
    made = create_once(
        client.transport,
        lambda: within(lambda: client.teams.create(organization, slug), where),
        Wanted(f"team {slug!r} in {where}", lambda: named(read(), "slug", slug)),
    )
    return Outcome(True, None, view_team(made.thing), warnings=made.warnings)


def predicted_team(slug: str) -> dict[str, Any]:
    """The team that would be created; its id is not known yet."""
    return {"id": "", "slug": slug}


def view_team(team: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared and returned of a team as the server lists it."""
    return {key: team.get(key) for key in ("id", "slug")}
