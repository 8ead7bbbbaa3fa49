"""DSN keys, by name within a project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..client import Client
from ..dsn import parse_dsn, split_base_url
from ..resources.base import Objects
from ..validate import check_name
from .outcome import Outcome, create_once, only, within


def ensure_key(
    client: Client,
    organization: str,
    project: str,
    name: str,
    *,
    ingest_url: str | None = None,
    listed: Objects | None = None,
    state: str = "present",
    dry_run: bool = False,
) -> Outcome:
    """Make sure that a key of this name exists in a project, or does not.

    Args:
        ingest_url: address that services on the host use; the returned DSN then points there, not to the
            server's public address.
        listed: all keys of the project as they were just read; None reads them.

    A key cannot be changed (PUT answers 200 and does nothing), so nothing is compared. The key without
    a name that comes with each project is left alone. Raises MissingError when there is no such project.
    """
    check_name(name, "a key", 64)
    if ingest_url:
        split_base_url(ingest_url)

    where = f"project {project!r} in organization {organization!r}"

    def find(known: Objects | None = None) -> dict[str, Any] | None:
        keys = within(lambda: client.keys.list(organization, project), where) if known is None else known
        return only(keys, "name", name, "keys")

    found = find(listed)
    if state == "absent":
        if found and not dry_run:
            client.keys.delete(organization, project, str(found["id"]))
        return Outcome(bool(found), found and view_key(found, ingest_url), None)
    if found:
        view = view_key(found, ingest_url)
        return Outcome(False, view, view)
    if dry_run:
        return Outcome(True, None, predicted_key(name), predicted=True)

    def create() -> dict[str, Any]:
        return within(lambda: client.keys.create(organization, project, name=name), where)

    created = create_once(client, create, find)
    return Outcome(True, None, view_key(created, ingest_url))


def predicted_key(name: str) -> dict[str, Any]:
    """The key that would be created; its id and DSN are not known yet."""
    return {"id": "", "name": name, "public": "", "dsn": ""}


def view_key(key: Mapping[str, Any], ingest_url: str | None = None) -> dict[str, Any]:
    """What is compared and returned of a key as the server lists it; its DSN points to `ingest_url`."""
    dsn = parse_dsn(str(key["dsn"]["public"]))
    if ingest_url:
        dsn = dsn.with_base(ingest_url)
    return {"id": key.get("id"), "name": key.get("name"), "public": dsn.key, "dsn": dsn.url}
