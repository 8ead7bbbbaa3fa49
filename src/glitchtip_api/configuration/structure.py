"""The desired state as data: what may be said, and what is refused before the server is asked.

```yaml
organizations:
  - name: AI Admin
    teams: [backend]
    members: [{email: dev@example.org, role: member, teams: [backend]}]
    projects:
      - name: API
        platform: node
        teams: [backend]
        keys: [production]
        alerts: [{name: chat, quantity: 1, timespan_minutes: 5, recipients: [{type: webhook, url: ...}]}]
    monitors: [{name: site, type: GET, url: https://www.example.org/, expected_status: 200, project: API}]
    status_pages: [{name: Status, public: true}]
```

A list that is left out is not managed and not even read; a list that is given, also an empty one, is. What
is on the server and not in a given list is *unmanaged*: reported, and removed only when `purge` names its
kind. What an export could not name is listed under `left_out` of its organization or project, with the reason:
nothing of that kind and name is ever removed. An organization whose own kind is in its `left_out` is left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ..ensure.outcome import slugify
from ..errors import InvalidError

Entry = Mapping[str, Any]

#: Kinds in the order in which they are made; removed in the opposite one.
KINDS = ("organization", "team", "member", "project", "key", "alert", "monitor", "status_page")
#: What `purge` may name. GlitchTip has no way to remove a status page over the API.
PURGEABLE = tuple(kind for kind in KINDS if kind != "status_page")


class ConfigurationError(InvalidError):
    """The desired state cannot be: `complaints` has a sentence for each wrong entry. Nothing was sent."""

    def __init__(self, complaints: Iterable[str]) -> None:
        self.complaints = tuple(complaints)
        super().__init__(code="bad_configuration", detail="; ".join(self.complaints))

    def __str__(self) -> str:
        return "; ".join(self.complaints)  # all of them, where `detail` is cut


class Where(NamedTuple):
    """A place: the name of an organization as the configuration has it, and name and slug of a project of it.

    The slug is None where the configuration gives none; then the name tells the project apart.
    """

    organization: str
    project: str | None = None
    slug: str | None = None

    def __str__(self) -> str:
        found = f"organization {self.organization!r}"
        if self.project is None:
            return found
        shown = "" if self.slug in (None, "", slugify(self.project)) else f" (slug {self.slug})"
        return f"{found}, project {self.project!r}{shown}"


def place_of(organization: str, project: Entry) -> Where:
    """The place of a project of the configuration."""
    return Where(organization, project["name"], project["slug"] or None)


def left_out(entry: Entry) -> set[tuple[str, str]]:
    """Kind and name of what an organization or a project has on the server and cannot name here."""
    return {(thing["kind"], thing["name"] or "") for thing in entry.get("left_out") or []}


def managed(organizations: Iterable[Entry]) -> list[Entry]:
    """The organizations without those that are themselves left out."""
    return [entry for entry in organizations if ("organization", entry["name"]) not in left_out(entry)]


def described(kind: str, name: str, where: Where) -> str:
    """``alert 'chat' (organization 'AI Admin', project 'API')`` for messages."""
    what = f"{kind.replace('_', ' ')} {name!r}"
    return what if kind == "organization" else f"{what} ({where})"


def kept_back(entries: Iterable[Entry]) -> set[tuple[Where, str, str]]:
    """Place, kind and name of everything that the configuration lists as left out."""
    found = set()
    for entry in entries:
        found |= {(Where(entry["name"]), kind, name) for kind, name in left_out(entry)}
        for project in entry["projects"] or []:
            place = place_of(entry["name"], project)
            found |= {(place, kind, name) for kind, name in left_out(project)}
    return found


def projects_of(entries: Iterable[Entry]) -> Iterator[tuple[Where, Entry]]:
    """Every project of a configuration with its place."""
    for entry in entries:
        for project in entry["projects"] or []:
            yield place_of(entry["name"], project), project


def names_of(entries: Iterable[Entry] | None) -> list[str] | None:
    """The names in a list; None for one that is left out."""
    return None if entries is None else [str(entry["name"]) for entry in entries]


def check(organizations: Iterable[Entry]) -> None:
    """Refuse what contradicts itself. Raises ConfigurationError naming every place at once."""
    entries = list(organizations)
    complaints = list(_repeated("organization", (entry["name"] for entry in entries), ""))
    for entry in managed(entries):
        complaints += _in_organization(entry)
    if complaints:
        raise ConfigurationError(complaints)


def _in_organization(entry: Entry) -> Iterator[str]:
    where = Where(entry["name"])
    place = f" in {where}"
    yield from _repeated("team", entry["teams"] or [], place)
    yield from _repeated("member", (str(m["email"]).lower() for m in entry["members"] or []), place)
    yield from _repeated_projects(entry["projects"] or [], place)
    slugs = (project["slug"] for project in entry["projects"] or [] if project["slug"])
    yield from _repeated("project slug", slugs, place)
    yield from _repeated("monitor", (monitor["name"] for monitor in entry["monitors"] or []), place)
    yield from _repeated("status page", (page["name"] for page in entry["status_pages"] or []), place)
    yield from _unknown_teams(entry)
    for project in entry["projects"] or []:
        inside = f" in {place_of(entry['name'], project)}"
        yield from _repeated("key", project["keys"] or [], inside)
        yield from _repeated("alert", (alert["name"] for alert in project["alerts"] or []), inside)


def _repeated_projects(projects: Iterable[Entry], place: str) -> Iterator[str]:
    """Projects may share a name when each gives its slug."""
    entries = list(projects)
    for name, times in Counter(project["name"] for project in entries).items():
        slugs = [project["slug"] for project in entries if project["name"] == name and project["slug"]]
        if times > 1 and len(slugs) < times:
            advice = "; give each of them its slug" if slugs else ""
            yield f"the project {name!r} is given {times} times{place}{advice}"


def _repeated(kind: str, names: Iterable[str], place: str) -> Iterator[str]:
    for name, times in Counter(names).items():
        if times > 1:
            yield f"the {kind} {name!r} is given {times} times{place}"


def _unknown_teams(entry: Entry) -> Iterator[str]:
    """Teams that members and projects speak of must be in a team list, when there is one."""
    if entry["teams"] is None:
        return
    known = set(entry["teams"])
    speakers = [("member", member["email"], member["teams"]) for member in entry["members"] or []]
    speakers += [("project", project["name"], project["teams"]) for project in entry["projects"] or []]
    for kind, name, teams in speakers:
        for team in teams or []:
            if team not in known:
                where = Where(entry["name"])
                yield f"the {kind} {name!r} names the team {team!r}, which is not among the teams of {where}"
