"""DSN keys, by name within a project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..client import Client
from ..dsn import parse_dsn, split_base_url
from ..late_answers import Wanted, create_once
from ..resources.base import Objects
from ..validate import check_name, check_rate_limit
from .outcome import Outcome, missing, named, only, within


def ensure_key(
    client: Client,
    organization: str,
    project: str,
    name: str,
    *,
    ingest_url: str | None = None,
    rate_limit: Mapping[str, Any] | None = None,
    listed: Objects | None = None,
    parent_known: bool = False,
    state: str = "present",
    dry_run: bool = False,
) -> Outcome:
    """Make sure that a key of this name exists in a project, or does not.

    Args:
        ingest_url: address that services on the host use; the returned DSN then points there, not to the
            server's public address.
        rate_limit: ``{"count", "window"}``, events in so many seconds, written when the key is created. The
            server stores it and does nothing with it (measured on 5.2), so there is a warning.
        listed: all keys of the project as they were just read; None reads them.
        parent_known: the project was just seen, so it is not looked for before a key is created in it.

    A key cannot be changed (PUT answers 200 and does nothing), so nothing is compared. The key without
    a name that comes with each project is left alone. Raises MissingError when there is no such project.
    """
    check_name(name, "a key", 64)
    limit = check_rate_limit(rate_limit)
    if ingest_url:
        split_base_url(ingest_url)

    where = f"project {project!r} in organization {organization!r}"
    keys = within(lambda: client.keys.list(organization, project), where) if listed is None else listed
    found = only(keys, "name", name, "keys")
    if state == "absent":
        if found and not dry_run:
            client.keys.delete(organization, project, str(found["id"]))
        return Outcome(bool(found), found and view_key(found, ingest_url), None)
    if found:
        view = view_key(found, ingest_url)
        return Outcome(False, view, view, warnings=_warnings(name, limit, view))
    # The list of a missing project is empty, not 404; a project that is there mostly has a key.
    if not keys and not parent_known and client.projects.get(organization, project) is None:
        raise missing(where)
    prediction = predicted_key(name, limit)
    warnings = _warnings(name, limit, prediction)
    if dry_run:
        return Outcome(True, None, prediction, predicted=True, warnings=warnings)

    def create() -> dict[str, Any]:
        return within(lambda: client.keys.create(organization, project, name=name, rate_limit=limit), where)

    wanted = Wanted(
        f"key {name!r} of {where}",
        lambda: named(client.keys.list(organization, project), "name", name, keys),
        lambda one, other: one.get("rateLimit") == other.get("rateLimit"),
        lambda _: True,  # made a moment ago, and its DSN was given to nobody
        lambda twin: client.keys.delete(organization, project, str(twin["id"])),
    )
    made = create_once(client.transport, create, wanted)
    return Outcome(True, None, view_key(made.thing, ingest_url), warnings=(*warnings, *made.warnings))


def predicted_key(name: str, rate_limit: Mapping[str, int] | None = None) -> dict[str, Any]:
    """The key that would be created; its id and DSN are not known yet."""
    return {"id": "", "name": name, "public": "", "dsn": "", "rateLimit": rate_limit}


def _warnings(name: str, limit: Mapping[str, int] | None, key: Mapping[str, Any]) -> tuple[str, ...]:
    if limit is None:
        return ()
    idle = f"key {name!r}: the server stores a rate limit but does not enforce it"
    if key["rateLimit"] == limit:
        return (idle,)
    return (idle, f"key {name!r}: its rate limit stays as it is, because the server changes no key")


def view_key(key: Mapping[str, Any], ingest_url: str | None = None) -> dict[str, Any]:
    """What is compared and returned of a key as the server lists it; its DSN points to `ingest_url`."""
    dsn = parse_dsn(str(key["dsn"]["public"]))
    if ingest_url:
        dsn = dsn.with_base(ingest_url)
    return {
        "id": key.get("id"),
        "name": key.get("name"),
        "public": dsn.key,
        "dsn": dsn.url,
        "rateLimit": key.get("rateLimit"),
    }
