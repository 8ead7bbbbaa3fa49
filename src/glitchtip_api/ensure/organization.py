"""Organizations, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..client import Client
from ..resources.base import Objects
from ..validate import check_name
from .outcome import Outcome, create_once, only, removal_warning, slugify


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

    def find(known: Objects | None = None) -> dict[str, Any] | None:
        return only(client.organizations.list() if known is None else known, "name", name, "organizations")

    found = find(listed)
    if state == "absent":
        if found and not dry_run:
            client.organizations.delete(str(found["slug"]))
        notice = (removal_warning("organization", name),) if found else ()
        return Outcome(bool(found), found and view_organization(found), None, warnings=notice)
    if found:
        return Outcome(False, view_organization(found), view_organization(found))
    if dry_run:
        return Outcome(True, None, predicted_organization(name), predicted=True)
    created = create_once(client, lambda: client.organizations.create(name), find)
    return Outcome(True, None, view_organization(created))


def predicted_organization(name: str) -> dict[str, Any]:
    """The organization that would be created; its id is not known yet."""
    return {"id": "", "slug": slugify(name), "name": name}


def view_organization(organization: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared and returned of an organization as the server lists it."""
    return {key: organization.get(key) for key in ("id", "slug", "name")}
