"""What is on the server, read once: the lists that a configuration speaks of, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ..client import Client
from ..ensure.outcome import only
from .structure import Entry, Where, managed, place_of

Objects = list[dict[str, Any]]


@dataclass
class Snapshot:
    """Lists of a server by where they are: organizations everywhere, the rest below their parent.

    A list that is not in here was not asked for (its parent does not exist, or nobody manages it).
    """

    organizations: Objects
    lists: dict[tuple[str, Where], Objects] = field(default_factory=dict)

    def of(self, kind: str, where: Where) -> Objects:
        """The objects of a kind in a place; empty where there is nothing yet."""
        return self.lists.get((kind, where), [])

    def organization(self, entry: Entry) -> dict[str, Any] | None:
        """The organization that an entry names, or None. Raises AmbiguousError."""
        return only(self.organizations, "name", entry["name"], "organizations")

    def project(self, organization: str, entry: Entry) -> dict[str, Any] | None:
        """The project that an entry names (by slug when it gives one), or None. Raises AmbiguousError."""
        projects = self.of("project", Where(organization))
        if entry.get("slug"):
            return only(projects, "slug", entry["slug"], "projects")
        return only(projects, "name", entry["name"], "projects")


def read(client: Client, organizations: Iterable[Entry], concurrency: int) -> Snapshot:
    """Read every list that the entries manage: one page or more a list, two lists a project at most.

    Raises GlitchTipError of the first request that fails.
    """
    snapshot = Snapshot(client.organizations.list())
    with ThreadPoolExecutor(max_workers=concurrency) as pool:
        pairs = [(entry, snapshot.organization(entry)) for entry in managed(organizations)]
        there = [(entry, str(found["slug"])) for entry, found in pairs if found]
        _fill(snapshot, pool, (job for entry, slug in there for job in _in_organization(client, entry, slug)))
        _fill(
            snapshot,
            pool,
            (job for entry, slug in there for job in _in_projects(client, snapshot, entry, slug)),
        )
    return snapshot


Job = tuple[str, Where, Callable[[], Objects]]


def _fill(snapshot: Snapshot, pool: ThreadPoolExecutor, jobs: Iterator[Job]) -> None:
    started = [(kind, where, pool.submit(reader)) for kind, where, reader in jobs]
    try:
        for kind, where, future in started:
            snapshot.lists[(kind, where)] = future.result()
    finally:
        for _, _, future in started:
            future.cancel()


def _in_organization(client: Client, entry: Entry, slug: str) -> Iterator[Job]:
    where = Where(entry["name"])
    if entry["teams"] is not None:
        yield "team", where, lambda: client.teams.list(slug)
    if entry["members"] is not None:
        with_teams = any(member["teams"] is not None for member in entry["members"])
        lister = client.members.list_with_teams if with_teams else client.members.list
        yield "member", where, lambda: lister(slug)
    if entry["projects"] is not None or entry["monitors"]:  # a monitor names its project
        yield "project", where, lambda: client.projects.list(slug)
    if entry["monitors"] is not None:
        yield "monitor", where, lambda: client.monitors.list(slug)
    if entry["status_pages"] is not None:
        yield "status_page", where, lambda: client.status_pages.list(slug)


def _in_projects(client: Client, snapshot: Snapshot, entry: Entry, organization: str) -> Iterator[Job]:
    for project in entry["projects"] or []:
        found = snapshot.project(entry["name"], project)
        if found is None:
            continue
        where = place_of(entry["name"], project)
        slug = str(found["slug"])
        if project["keys"] is not None:
            yield "key", where, _reader(client.keys.list, organization, slug)
        if project["alerts"] is not None:
            yield "alert", where, _reader(client.alerts.list, organization, slug)


def _reader(lister: Callable[[str, str], Objects], organization: str, project: str) -> Callable[[], Objects]:
    return lambda: lister(organization, project)
