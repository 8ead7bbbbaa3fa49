"""Objects of any kind as lists, without their secrets: what the module glitchtip_info returns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .client import Client
from .ensure.monitor import shown_url
from .ensure.outcome import SECRET_KEYS, masked, missing, only
from .errors import MASK, GlitchTipError, InvalidError, scrub
from .resources.base import Objects
from .search import IssueSearch

DEFAULT_LIMIT = 100

Where = Mapping[str, Any]
_SLUG = re.compile(r"[-a-zA-Z0-9_]+")


@dataclass(frozen=True)
class Reading:
    """What was read.

    Attributes:
        objects: as the server gives them, secrets masked.
        truncated: there are more than the limit allowed.
        warnings: sentences for people.
    """

    objects: Objects
    truncated: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """How one kind is read.

    Attributes:
        read: the objects, one after the other.
        needs: names of what has to be given.
        takes: names of what may be given besides.
        shown: an object without its secrets.
        limit: how many are read where nobody says how many.
    """

    read: Callable[[Client, Where], Iterable[dict[str, Any]]]
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    shown: Callable[[Any], Any] = masked
    limit: int | None = None


def read(client: Client, kind: str, where: Where, limit: int | None = None) -> Reading:
    """The objects of a kind, at most `limit` of them.

    Args:
        kind: one of `KINDS`.
        where: ``organization``, ``project`` (slugs), ``monitor`` (name), ``query`` (see `check_query`),
            ``event_id``; what the kind does not take has to be left out, but for the organization.

    The server answers many lists of a missing organization or project with 200 and nothing in it (5.2,
    measured), so that an empty list is believed only after its parent was seen.

    Raises MissingError for a parent that is not there, InvalidError for a value that cannot be asked for.
    """
    how = KINDS[kind]
    _check(kind, how, where, limit)
    most = how.limit if limit is None else limit
    try:
        found = list(islice(how.read(client, where), None if most is None else most + 1))
    except GlitchTipError as error:
        if error.code != "not_found":
            raise
        if _see_parents(client, how, where):  # nobody may look, but the server itself says so
            raise missing(f"organization {where['organization']!r}") from None
        raise
    warnings = () if found else _see_parents(client, how, where)
    return Reading([how.shown(thing) for thing in found[:most]], len(found) > len(found[:most]), warnings)


def _check(kind: str, how: Kind, where: Where, limit: int | None) -> None:
    for name in ("project", "monitor", "query", "event_id"):
        if where.get(name) is not None and name not in (*how.needs, *how.takes):
            raise InvalidError(code="bad_option", detail=f"{name} says nothing about the kind {kind}")
    for name in ("organization", "project"):
        if name in (*how.needs, *how.takes) and where.get(name) is not None:
            check_slug(where[name], name)
    if limit is not None and limit < 1:
        raise InvalidError(code="bad_number", detail=f"limit is a number from 1, not {limit}")


def check_slug(slug: str, what: str) -> str:
    """Return the slug of an organization or a project. Raises InvalidError for what looks like a name.

    The server answers a path with such a text in it with the HTML of its pages.
    """
    if not _SLUG.fullmatch(slug):
        raise InvalidError(
            code="bad_slug",
            detail=f"{what} {slug!r} is no slug: that has letters, digits, hyphens and underscores only",
            hint="the slug is the last part of its address, and what the modules return",
        )
    return slug


def _see_parents(client: Client, how: Kind, where: Where) -> tuple[str, ...]:
    """Raise MissingError when the organization or the project is not there; a sentence when nobody may look."""
    if "organization" not in how.needs:
        return ()
    organization, project = where["organization"], where.get("project")
    try:
        if project is not None and client.projects.get(organization, project) is not None:
            return ()
        if client.organizations.get(organization) is None:
            raise missing(f"organization {organization!r}")
    except GlitchTipError as error:
        if error.status != 403:
            raise
        return (f"the list is empty, and whether its parent exists could not be seen: {error}",)
    if project is not None:
        raise missing(f"project {project!r} in organization {organization!r}")
    return ()


def _account(client: Client, _where: Where) -> Objects:
    root = client.root()
    if not root.get("user"):
        raise GlitchTipError(
            "GET",
            "/api/0/",
            200,
            "unauthorized",
            "the server knows nobody by this token",
            "the token is wrong, revoked or expired: make a new one",
        )
    return [root]


def _checks(client: Client, where: Where) -> Iterator[dict[str, Any]]:
    organization, name = where["organization"], where["monitor"]
    monitors = client.monitors.list(organization)
    found = only(monitors, "name", name, "monitors")
    if found is None:
        if not monitors:
            _see_parents(client, KINDS["monitor"], where)
        raise missing(f"monitor {name!r} in organization {organization!r}")
    return client.monitors.checks(organization, int(found["id"]))


def _issues(client: Client, where: Where) -> Iterator[dict[str, Any]]:
    organization, project = where["organization"], where.get("project")
    projects = []
    if project is not None:
        found = client.projects.get(organization, project)
        if found is None:
            _see_parents(client, KINDS["issue"], where)
            return iter(())
        projects = [found["id"]]
    search = IssueSearch(query=where.get("query") or "", projects=projects)
    return client.issues.iterate(organization, search=search)


def _events(client: Client, where: Where) -> Iterable[dict[str, Any]]:
    organization, project, event_id = where["organization"], where["project"], where.get("event_id")
    if event_id is None:
        return client.events.iterate(organization, project)
    found = client.events.get(organization, project, event_id)
    return [] if found is None else [found]


def _members(client: Client, where: Where) -> Objects:
    found = client.members.list_with_teams(where["organization"])
    if not found:  # whoever may read is a member
        raise missing(f"organization {where['organization']!r}")
    return found


def _shown_monitor(monitor: Mapping[str, Any]) -> dict[str, Any]:
    """A monitor's address is no webhook: only user and query may be secrets."""
    return {**masked(monitor), "url": shown_url(str(monitor.get("url") or ""))}


def _shown_page(page: Mapping[str, Any]) -> dict[str, Any]:
    return {**masked(page), "monitors": [_shown_monitor(each) for each in page.get("monitors") or []]}


def _scrubbed(thing: Any) -> Any:
    """What came from events: each text without what looks like a secret; ids and addresses stay readable."""
    if isinstance(thing, Mapping):
        return {
            name: MASK if name in SECRET_KEYS and value and isinstance(value, str) else _scrubbed(value)
            for name, value in thing.items()
        }
    if isinstance(thing, list):
        return [_scrubbed(value) for value in thing]
    return scrub(thing) if isinstance(thing, str) else thing


_ORGANIZATION = ("organization",)
_PROJECT = ("organization", "project")
KINDS: dict[str, Kind] = {
    "instance": Kind(lambda client, _where: [client.settings()], shown=_scrubbed),
    "account": Kind(_account),
    "organization": Kind(lambda client, _where: client.organizations.list()),
    "team": Kind(lambda client, where: client.teams.list(where["organization"]), _ORGANIZATION),
    "member": Kind(_members, _ORGANIZATION),
    "project": Kind(lambda client, where: client.projects.list(where["organization"]), _ORGANIZATION),
    "key": Kind(lambda client, where: client.keys.list(where["organization"], where["project"]), _PROJECT),
    "alert": Kind(
        lambda client, where: client.alerts.list(where["organization"], where["project"]), _PROJECT
    ),
    "monitor": Kind(
        lambda client, where: client.monitors.list(where["organization"]), _ORGANIZATION, shown=_shown_monitor
    ),
    "monitor_check": Kind(_checks, ("organization", "monitor"), limit=DEFAULT_LIMIT),
    "status_page": Kind(
        lambda client, where: client.status_pages.list(where["organization"]),
        _ORGANIZATION,
        shown=_shown_page,
    ),
    "release": Kind(
        lambda client, where: client.releases.list(where["organization"], where.get("project")),
        _ORGANIZATION,
        ("project",),
    ),
    "environment": Kind(
        lambda client, where: client.environments.list(
            where["organization"], where.get("project"), visibility="all"
        ),
        _ORGANIZATION,
        ("project",),
    ),
    "issue": Kind(_issues, _ORGANIZATION, ("project", "query"), shown=_scrubbed, limit=DEFAULT_LIMIT),
    "event": Kind(_events, _PROJECT, ("event_id",), shown=_scrubbed, limit=DEFAULT_LIMIT),
}
