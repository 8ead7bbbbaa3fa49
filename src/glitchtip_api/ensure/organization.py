"""Organizations, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..client import Client
from ..validate import check_name
from .outcome import Outcome, create_once, only, slugify


def ensure_organization(
    client: Client, name: str, *, state: str = "present", dry_run: bool = False
) -> Outcome:
    """Make sure that an organization of this name exists, or does not.

    Raises AmbiguousError when two have the name, InvalidError for an empty or too long one (200 characters).
    """
    check_name(name, "an organization", 200)

    def find() -> dict[str, Any] | None:
        return only(client.organizations.list(), "name", name, "organizations")

    found = find()
    if state == "absent":
        if found and not dry_run:
            client.organizations.delete(str(found["slug"]))
        return Outcome(bool(found), _view(found), None)
    if found:
        return Outcome(False, _view(found), _view(found))
    if dry_run:
        return Outcome(True, None, predicted_organization(name), predicted=True)
    created = create_once(client, lambda: client.organizations.create(name), find)
    return Outcome(True, None, _view(created))


def predicted_organization(name: str) -> dict[str, Any]:
    """The organization that would be created; its id is not known yet."""
    return {"id": "", "slug": slugify(name), "name": name}


def _view(organization: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if organization is None:
        return None
    return {key: organization.get(key) for key in ("id", "slug", "name")}
