"""Organizations, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..client import Client
from ..late_answers import Wanted, create_once
from ..resources.base import Objects
from ..validate import check_name
from .outcome import Outcome, named, only, removal_warning, slugify


def ensure_organization(
    client: Client,
    name: str,
    *,
    listed: Objects | None = None,
    state: str = "present",
    dry_run: bool = False,
) -> Outcome:
    """Make sure that an organization of this name exists, or does not.

    Args:
        listed: all organizations as they were just read; None reads them.

    Raises AmbiguousError when two have the name, InvalidError for an empty or too long one (200 characters).
    """
    check_name(name, "an organization", 200)

    before = client.organizations.list() if listed is None else listed
    found = only(before, "name", name, "organizations")
    if state == "absent":
        if found and not dry_run:
            client.organizations.delete(str(found["slug"]))
        notice = (removal_warning("organization", name),) if found else ()
        return Outcome(bool(found), found and view_organization(found), None, warnings=notice)
    if found:
        return Outcome(False, view_organization(found), view_organization(found))
    if dry_run:
        return Outcome(True, None, predicted_organization(name), predicted=True)
    wanted = Wanted(
        f"organization {name!r}",
        lambda: named(client.organizations.list(), "name", name, before),
        lambda one, other: one.get("name") == other.get("name"),
        lambda twin: _is_empty(client, str(twin["slug"])),
        lambda twin: client.organizations.delete(str(twin["slug"])),
    )
    made = create_once(client.transport, lambda: client.organizations.create(name), wanted)
    return Outcome(True, None, view_organization(made.thing), warnings=made.warnings)


def _is_empty(client: Client, slug: str) -> bool:
    """Whether an organization has nothing but its one member, the account that made it."""
    has = client.projects.list(slug) or client.teams.list(slug) or client.monitors.list(slug)
    return not has and len(client.members.list(slug)) <= 1


def predicted_organization(name: str) -> dict[str, Any]:
    """The organization that would be created; its id is not known yet."""
    return {"id": "", "slug": slugify(name), "name": name}


def view_organization(organization: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared and returned of an organization as the server lists it."""
    return {key: organization.get(key) for key in ("id", "slug", "name")}
