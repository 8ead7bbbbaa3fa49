"""An existing server as a desired state that, applied to it, changes nothing, and to an empty one rebuilds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ..client import Client
from ..ensure import (
    Outcome,
    ensure_alert,
    ensure_key,
    ensure_member,
    ensure_monitor,
    ensure_organization,
    ensure_project,
    ensure_team,
)
from ..errors import AmbiguousError, InvalidError, MissingError
from ..validate import check_name, check_project_slug
from .entries import alert_entry, member_entry, monitor_entry, project_entry
from .structure import Where, described

Objects = list[dict[str, Any]]
#: A dry run of the function that keeps one kind as declared, given what is on the server.
Look = Callable[[Objects], Outcome]
_TO_MANAGE = "; name it to manage it"
_LARGEST_RATE = 100


@dataclass
class Export:
    """A server as a structure.

    Attributes:
        organizations: entries of the structure; what has its default value is left out. Addresses of
            recipients and heartbeats are complete, so this is a secret. What the structure cannot have is in
            their lists `left_out`, which keeps a purge from removing it.
        left_out: the same as sentences for people.
    """

    organizations: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def export(client: Client, slugs: Iterable[str] | None = None, *, concurrency: int = 4) -> Export:
    """Read organizations (all that the account sees, or those of these slugs) with everything in them.

    Raises GlitchTipError of the first request that fails, MissingError for a slug that is not there.
    """
    return _Exporter(client, concurrency).run(None if slugs is None else list(slugs))


class _Place:
    """An entry that things are put into, and its list of what was left out."""

    def __init__(self, where: Where, sentences: list[str]) -> None:
        self.where = where
        self.left_out: list[dict[str, Any]] = []
        self._sentences = sentences

    def leave_out(self, kind: str, name: str, number: object, why: str, hint: str = "") -> None:
        """Note one thing that the structure cannot have. The id of a key is its secret and not noted."""
        thing = {"kind": kind, "name": name, "why": why}
        shown = "" if kind == "key" or not number else f", id {number}"
        if shown:
            thing["id"] = str(number)
        self.left_out.append(thing)
        self._sentences.append(f"{described(kind, name, self.where)}{shown}: left out, {why}{hint}")

    def nameable(self, kind: str, things: Objects, key: str = "name") -> Objects:
        """Those that their name tells apart, by name; the others are left out."""
        names = Counter(_name(thing, key) for thing in things)
        good: Objects = []
        for thing in sorted(things, key=lambda thing: str(thing.get(key) or "")):
            name = _name(thing, key)
            if name.strip() and names[name] == 1:
                good.append(thing)
                continue
            why = "it has no name" if not name.strip() else f"{names[name]} have this name"
            self.leave_out(kind, str(thing.get(key) or ""), thing.get("id"), why, _TO_MANAGE)
        return good

    def takes(self, kind: str, thing: Mapping[str, Any], look: Look, key: str = "name") -> bool:
        """Whether configure agrees with an entry: it can make it, and finds nothing to change where it is.

        `look` is what configure does with the entry; the thing is left out with the reason when it does not.
        """
        try:
            look([])
            found = look([dict(thing)])
        except (InvalidError, AmbiguousError, MissingError) as error:
            why = error.detail
        else:
            if not found.changed:
                return True
            changed = ", ".join(sorted(set(found.diff()["after"]) - {"state"}))
            why = f"the server keeps it in a form that it does not take ({changed})"
        self.leave_out(kind, str(thing.get(key) or ""), thing.get("id"), why)
        return False

    def finish(self, entry: dict[str, Any]) -> dict[str, Any]:
        """The entry, with what was left out when that is anything."""
        return {**entry, "left_out": self.left_out} if self.left_out else entry


class _Exporter:
    def __init__(self, client: Client, concurrency: int) -> None:
        self._client = client
        self._concurrency = concurrency
        self._sentences: list[str] = []

    def run(self, slugs: list[str] | None) -> Export:
        found = self._client.organizations.list()
        if slugs is not None:
            missing = sorted(set(slugs) - {str(thing["slug"]) for thing in found})
            if missing:
                raise MissingError(
                    code="missing",
                    detail=f"there is no organization {', '.join(missing)}, or the token's user is no member",
                )
        alone = len(found) == 1
        by_name: dict[str, Objects] = {}
        for thing in found:
            by_name.setdefault(str(thing.get("name") or ""), []).append(thing)
        entries = []
        with ThreadPoolExecutor(max_workers=self._concurrency) as pool:
            for name, things in sorted(by_name.items()):
                if len(things) > 1 or not self._is_nameable(name):
                    entries.append(self._unnameable(name, things))
                elif slugs is None or things[0]["slug"] in slugs:
                    entries.append(self._organization(pool, things[0], alone))
        return Export(entries, self._sentences)

    def _unnameable(self, name: str, things: Objects) -> dict[str, Any]:
        """An entry that keeps configure away from organizations that no name tells apart."""
        place = _Place(Where(name), self._sentences)
        why = f"{len(things)} have this name" if len(things) > 1 else "it has no name"
        for thing in things:
            place.leave_out("organization", name, thing.get("id"), why, _TO_MANAGE)
        return place.finish({"name": name})

    def _is_nameable(self, name: str) -> bool:
        try:
            ensure_organization(self._client, name, listed=[], dry_run=True)
        except InvalidError:
            return False
        return True

    def _organization(
        self, pool: ThreadPoolExecutor, found: Mapping[str, Any], alone: bool
    ) -> dict[str, Any]:
        slug, place = str(found["slug"]), _Place(Where(str(found["name"])), self._sentences)
        client = self._client
        reading = [
            pool.submit(reader, slug)
            for reader in (
                client.teams.list,
                client.members.list_with_teams,
                client.projects.list,
                client.monitors.list,
                client.status_pages.list,
            )
        ]
        hidden = None if alone else pool.submit(client.status_pages.all, slug)
        teams, members, projects, monitors, pages = (future.result() for future in reading)
        team_slugs = sorted(
            str(team["slug"]) for team in teams if place.takes("team", team, self._team(slug, team), "slug")
        )
        entry: dict[str, Any] = {
            "name": place.where.organization,
            "teams": team_slugs,
            "members": self._members(slug, place, members, team_slugs),
            "projects": self._projects(pool, slug, place, projects, team_slugs),
        }
        kept = {project["slug"] for project in entry["projects"]}
        entry["monitors"] = self._monitors(slug, place, monitors, projects, kept)
        entry["status_pages"] = self._pages(place, pages, hidden.result() if hidden else [])
        return place.finish(entry)

    def _team(self, organization: str, team: Mapping[str, Any]) -> Look:
        return lambda there: ensure_team(
            self._client, organization, str(team["slug"]), listed=there, dry_run=True
        )

    def _members(self, organization: str, place: _Place, members: Objects, teams: list[str]) -> Objects:
        entries = []
        for member in place.nameable("member", members, "email"):
            entry = member_entry(member)

            def look(there: Objects, entry: Mapping[str, Any] = entry) -> Outcome:
                wanted = {key: entry[key] for key in ("role", "teams")}
                return ensure_member(
                    self._client,
                    organization,
                    entry["email"],
                    **wanted,
                    teams_there=teams,
                    listed=there,
                    dry_run=True,
                )

            if place.takes("member", member, look, "email"):
                entries.append(entry)
        return entries

    def _projects(
        self,
        pool: ThreadPoolExecutor,
        organization: str,
        place: _Place,
        projects: Objects,
        teams: list[str],
    ) -> Objects:
        through = next(iter(teams), None)
        wanted = []
        for project in sorted(projects, key=lambda project: str(project["slug"])):
            entry = project_entry(project)
            rate = project.get("eventThrottleRate")
            if rate and not 0 <= rate <= _LARGEST_RATE:
                why = f"its event_throttle_rate {rate} is not from 0 to {_LARGEST_RATE}; the rest is here"
                place.leave_out("project", entry["name"], project.get("id"), why)

            def look(there: Objects, entry: Mapping[str, Any] = entry) -> Outcome:
                names = ("slug", "teams", "platform", "event_throttle_rate")
                values: dict[str, Any] = {key: entry.get(key) for key in names}
                return ensure_project(
                    self._client,
                    organization,
                    None,
                    entry["name"],
                    **values,
                    through=through,
                    listed=there,
                    parent_known=True,
                    dry_run=True,
                )

            if self._is_addressable(project) and place.takes("project", project, look):
                slug = str(project["slug"])
                keys = pool.submit(self._client.keys.list, organization, slug)
                alerts = pool.submit(self._client.alerts.list, organization, slug)
                wanted.append((entry, keys, alerts))
            elif not self._is_addressable(project):
                why = f"its slug {project['slug']!r} cannot be part of an address; give it another"
                place.leave_out("project", entry["name"], project.get("id"), why)
        return [
            self._in_project(organization, place, entry, keys.result(), alerts.result())
            for entry, keys, alerts in wanted
        ]

    @staticmethod
    def _is_addressable(project: Mapping[str, Any]) -> bool:
        try:
            check_project_slug(str(project["slug"]))
        except InvalidError:
            return False
        return True

    def _in_project(
        self, organization: str, above: _Place, entry: dict[str, Any], keys: Objects, alerts: Objects
    ) -> dict[str, Any]:
        slug = str(entry["slug"])
        place = _Place(Where(above.where.organization, entry["name"], slug), self._sentences)
        named = [key for key in keys if key.get("name")]  # the nameless one comes with every project
        entry["keys"] = [
            str(key["name"])
            for key in place.nameable("key", named)
            if place.takes("key", key, self._key(organization, slug, str(key["name"])))
        ]
        entry["alerts"] = []
        for alert in place.nameable("alert", alerts):
            rule = alert_entry(alert)
            if place.takes("alert", alert, self._alert(organization, slug, rule)):
                entry["alerts"].append(rule)
        return place.finish(entry)

    def _key(self, organization: str, project: str, name: str) -> Look:
        return lambda there: ensure_key(
            self._client, organization, project, name, listed=there, parent_known=True, dry_run=True
        )

    def _alert(self, organization: str, project: str, entry: Mapping[str, Any]) -> Look:
        names = ("quantity", "timespan_minutes", "uptime", "recipients")
        values: dict[str, Any] = {name: entry.get(name) for name in names}
        return lambda there: ensure_alert(
            self._client,
            organization,
            project,
            entry["name"],
            **values,
            incomplete=bool(entry.get("incomplete")),
            listed=there,
            parent_known=True,
            dry_run=True,
        )

    def _monitors(
        self, organization: str, place: _Place, monitors: Objects, projects: Objects, kept: set[str]
    ) -> Objects:
        slugs = {str(project["id"]): str(project["slug"]) for project in projects}
        ids = {slug: number for number, slug in slugs.items()}
        entries = []
        for monitor in place.nameable("monitor", monitors):
            entry = monitor_entry(monitor, slugs)
            threshold = monitor.get("confirmationThreshold") or 1
            if threshold != 1:
                why = f"its confirmationThreshold {threshold} cannot be declared; the rest is here"
                place.leave_out("monitor", entry["name"], monitor.get("id"), why)
            if entry.get("project") and entry["project"] not in kept:
                why = f"its project {entry['project']!r} is left out"
                place.leave_out("monitor", entry["name"], monitor.get("id"), why)
                continue

            def look(there: Objects, entry: Mapping[str, Any] = entry) -> Outcome:
                values = {name: value for name, value in entry.items() if name != "name"}
                return ensure_monitor(
                    self._client,
                    organization,
                    entry["name"],
                    **values,
                    projects=ids,
                    listed=there,
                    dry_run=True,
                )

            if place.takes("monitor", monitor, look):
                entries.append(entry)
        return entries

    def _pages(self, place: _Place, pages: Objects, everywhere: Objects) -> Objects:
        """The organization's pages; a private one of an account with several organizations may be another's."""
        entries = []
        for page in place.nameable("status_page", pages):
            try:
                check_name(str(page["name"]), "a status page", 200)
            except InvalidError as error:
                place.leave_out("status_page", str(page["name"]), page.get("slug"), error.detail)
                continue
            entries.append({"name": page["name"], "public": bool(page.get("isPublic"))})
        for page in everywhere:
            if not page.get("isPublic"):
                why = "it is private, and the server does not tell in which of the account's organizations it is"
                place.leave_out("status_page", str(page["name"]), page.get("slug"), why)
        return entries


def _name(thing: Mapping[str, Any], key: str) -> str:
    """The name that distinguishes one thing from another; upper and lower case of an address are the same."""
    name = str(thing.get(key) or "")
    return name.casefold() if key == "email" else name
