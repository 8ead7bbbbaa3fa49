"""An existing server as a desired state that, applied to it, changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ..client import Client
from ..ensure.alert import view_alert
from ..ensure.outcome import slugify
from ..errors import MissingError
from .structure import Where, described

Objects = list[dict[str, Any]]


@dataclass
class Export:
    """A server as a structure.

    Attributes:
        organizations: entries of the structure; what has its default value is left out. Addresses of
            recipients and heartbeats are complete, so this is a secret.
        left_out: sentences about what the structure cannot name: objects without a name, or of one name.
    """

    organizations: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def export(client: Client, slugs: Iterable[str] | None = None, *, concurrency: int = 4) -> Export:
    """Read organizations (all that the account sees, or those of these slugs) with everything in them.

    Raises GlitchTipError of the first request that fails, MissingError for a slug that is not there.
    """
    return _Exporter(client, concurrency).run(None if slugs is None else list(slugs))


class _Exporter:
    def __init__(self, client: Client, concurrency: int) -> None:
        self._client = client
        self._concurrency = concurrency
        self._left_out: list[str] = []

    def run(self, slugs: list[str] | None) -> Export:
        found = self._client.organizations.list()
        if slugs is not None:
            missing = sorted(set(slugs) - {str(thing["slug"]) for thing in found})
            if missing:
                raise MissingError(
                    code="missing",
                    detail=f"there is no organization {', '.join(missing)}, or the token's user is no member",
                )
        named = self._nameable("organization", found, "name", None)
        wanted = [thing for thing in named if slugs is None or thing["slug"] in slugs]
        with ThreadPoolExecutor(max_workers=self._concurrency) as pool:
            entries = [self._organization(pool, thing) for thing in wanted]
        return Export(entries, self._left_out)

    def _organization(self, pool: ThreadPoolExecutor, found: Mapping[str, Any]) -> dict[str, Any]:
        slug, where = str(found["slug"]), Where(str(found["name"]))
        client = self._client
        teams = pool.submit(client.teams.list, slug)
        members = pool.submit(client.members.list_with_teams, slug)
        projects = pool.submit(client.projects.list, slug)
        monitors = pool.submit(client.monitors.list, slug)
        pages = pool.submit(client.status_pages.list, slug)
        slug_of = {str(project["id"]): str(project["slug"]) for project in projects.result()}
        readers = [
            (
                project,
                pool.submit(client.keys.list, slug, str(project["slug"])),
                pool.submit(client.alerts.list, slug, str(project["slug"])),
            )
            for project in projects.result()
        ]
        names = Counter(str(project["name"]) for project in projects.result())
        return {
            "name": where.organization,
            "teams": sorted(str(team["slug"]) for team in teams.result()),
            "members": [_member(member) for member in _sorted(members.result(), "email")],
            "projects": [
                self._project(where, project, keys.result(), alerts.result(), names)
                for project, keys, alerts in sorted(readers, key=lambda read: str(read[0]["slug"]))
            ],
            "monitors": [
                _monitor(monitor, slug_of)
                for monitor in self._nameable("monitor", monitors.result(), "name", where)
            ],
            "status_pages": [
                {"name": page["name"], "public": bool(page.get("isPublic"))}
                for page in self._nameable("status_page", pages.result(), "name", where)
            ],
        }

    def _project(
        self, where: Where, found: Mapping[str, Any], keys: Objects, alerts: Objects, names: Counter[str]
    ) -> dict[str, Any]:
        name, slug = str(found["name"]), str(found["slug"])
        inside = Where(where.organization, name)
        entry: dict[str, Any] = {"name": name}
        if slug != slugify(name) or names[name] > 1:
            entry["slug"] = slug
        if found.get("platform"):
            entry["platform"] = found["platform"]
        if found.get("eventThrottleRate"):
            entry["event_throttle_rate"] = found["eventThrottleRate"]
        entry["teams"] = sorted(str(team["slug"]) for team in found.get("teams") or [])
        kept = [key for key in keys if key.get("name")]  # the nameless one comes with every project
        entry["keys"] = [str(key["name"]) for key in self._nameable("key", kept, "name", inside)]
        entry["alerts"] = [_alert(alert) for alert in self._nameable("alert", alerts, "name", inside)]
        return entry

    def _nameable(self, kind: str, things: Objects, field_name: str, where: Where | None) -> Objects:
        """Those that their name tells apart, by name; a sentence for each of the others."""
        names = Counter(str(thing.get(field_name) or "") for thing in things)
        good: Objects = []
        for thing in _sorted(things, field_name):
            name = str(thing.get(field_name) or "")
            if name.strip() and names[name] == 1:
                good.append(thing)
                continue
            why = "it has no name" if not name.strip() else f"{names[name]} have this name"
            number = "" if kind == "key" else f", id {thing.get('id')}"  # the id of a key is its secret
            place = described(kind, name, where or Where(name))
            self._left_out.append(f"{place}{number}: left out, {why}; name it to manage it")
        return good


def _sorted(things: Objects, field_name: str) -> Objects:
    return sorted(things, key=lambda thing: str(thing.get(field_name) or ""))


def _member(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "email": found["email"],
        "role": found["role"],
        "teams": sorted(str(team) for team in found.get("teams") or []),
    }


def _alert(found: Mapping[str, Any]) -> dict[str, Any]:
    """A rule; the tags of its recipients are in it where the server returns them (6.x)."""
    entry: dict[str, Any] = {"name": found["name"]}
    for field_name, key in (("quantity", "quantity"), ("timespanMinutes", "timespan_minutes")):
        if found.get(field_name) is not None:
            entry[key] = found[field_name]
    if found.get("uptime"):
        entry["uptime"] = True
    recipients = [
        {key: value for key, value in recipient.items() if value}
        for recipient in view_alert(found)["recipients"]
    ]
    if recipients:  # without any the server e-mails the project's people; nothing to write then
        entry["recipients"] = recipients
    return entry


def _monitor(found: Mapping[str, Any], slug_of: Mapping[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": found["name"], "type": found["monitorType"]}
    if found.get("url"):
        entry["url"] = found["url"]
    project = slug_of.get(str(found.get("projectID") or ""))
    if project:
        entry["project"] = project
    for field_name, key in (
        ("interval", "interval"),
        ("timeout", "timeout"),
        ("expectedStatus", "expected_status"),
        ("expectedBody", "expected_body"),
    ):
        if found.get(field_name) not in (None, ""):
            entry[key] = found[field_name]
    return entry
