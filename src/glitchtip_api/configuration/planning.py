"""From a desired state and a snapshot to the steps in between, also for what does not exist yet."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
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
    ensure_status_page,
    ensure_team,
)
from ..ensure.outcome import only, removal_warning
from ..ensure.status_page import predicted_status_page
from ..errors import AmbiguousError, InvalidError, MissingError
from ..resources.members import whoami
from .snapshot import Objects, Snapshot
from .steps import Act, Addresses, Plan, Step, deleting
from .structure import (
    KINDS,
    PURGEABLE,
    ConfigurationError,
    Entry,
    Where,
    check,
    described,
    kept_back,
    managed,
    names_of,
    place_of,
    projects_of,
)

__all__ = ["Plan", "Step", "plan"]

def plan(client: Client, snapshot: Snapshot, organizations: Iterable[Entry], purge: Collection[str]) -> Plan:
    """Compare, and return the steps. Sends no request but the one that names the own account, for `purge`.

    Raises ConfigurationError that names every wrong entry at once.
    """
    entries = list(organizations)
    unknown = sorted(set(purge) - set(PURGEABLE))
    if unknown:
        raise ConfigurationError([f"purge takes {', '.join(PURGEABLE)}, not {', '.join(unknown)}"])
    if "organization" in purge and not entries:
        raise ConfigurationError(
            ["an empty configuration with purge of organizations would remove everything"]
        )
    check(entries)
    return _Planner(client, snapshot, purge).plan(entries)


class _Planner:
    def __init__(self, client: Client, snapshot: Snapshot, purge: Collection[str]) -> None:
        self._client = client
        self._snapshot = snapshot
        self._purge = purge
        self._at = Addresses()
        self._steps: dict[str, list[Step]] = {kind: [] for kind in KINDS}
        self._removals: dict[str, list[Step]] = {kind: [] for kind in KINDS}
        self._unmanaged: list[dict[str, Any]] = []
        self._warnings: list[str] = []
        self._complaints: list[str] = []
        self._kept_back: set[tuple[Where, str, str]] = set()

    def plan(self, organizations: list[Entry]) -> Plan:
        entries = managed(organizations)
        self._kept_back = kept_back(organizations)
        for kind in KINDS:
            for step in getattr(self, f"_{kind}s")(entries):
                self._foresee(*step)
        if self._complaints:
            raise ConfigurationError(self._complaints)
        self._find_unmanaged(entries, {entry["name"] for entry in organizations})
        stages = [self._steps[kind] for kind in KINDS] + [self._removals[kind] for kind in reversed(KINDS)]
        return Plan(
            tuple(tuple(stage) for stage in stages if stage),
            tuple(self._unmanaged),
            tuple(dict.fromkeys(self._warnings)),
        )

    def _foresee(self, kind: str, name: str, where: Where, act: Act, address: Where | None = None) -> None:
        try:
            outcome = act(self._client, True)
        except (InvalidError, AmbiguousError, MissingError) as error:
            hint = f" ({error.hint})" if error.hint else ""
            self._complaints.append(f"{described(kind, name, where)}: {error.detail}{hint}")
            # what is inside is still checked, as if it had to be made
            self._at.learn(kind, address or where, {"slug": "", "id": ""})
            return
        self._at.learn(kind, address or where, outcome.after)
        self._warnings += outcome.warnings
        if outcome.changed:
            verb = "create" if outcome.before is None else "update"

            def learn_by_doing(client: Client, dry_run: bool) -> Outcome:
                made = act(client, dry_run)
                self._at.learn(kind, address or where, made.after)
                return made

            self._steps[kind].append(Step(verb, kind, name, where, outcome, learn_by_doing))

    # One generator a kind: what `_foresee` wants of each entry.

    def _organizations(self, entries: list[Entry]) -> Iterator[tuple[str, str, Where, Act]]:
        for entry in entries:
            name = entry["name"]

            def act(client: Client, dry_run: bool, name: str = name) -> Outcome:
                return ensure_organization(client, name, listed=self._snapshot.organizations, dry_run=dry_run)

            yield "organization", name, Where(name), act

    def _teams(self, entries: list[Entry]) -> Iterator[tuple[str, str, Where, Act]]:
        for entry in entries:
            where = Where(entry["name"])
            for slug in entry["teams"] or []:

                def act(client: Client, dry_run: bool, where: Where = where, slug: str = slug) -> Outcome:
                    return ensure_team(
                        client,
                        self._at.organization(where.organization),
                        slug,
                        listed=self._snapshot.of("team", where),
                        dry_run=dry_run,
                    )

                yield "team", slug, where, act

    def _members(self, entries: list[Entry]) -> Iterator[tuple[str, str, Where, Act]]:
        for entry in entries:
            where = Where(entry["name"])
            for member in entry["members"] or []:

                def act(
                    client: Client,
                    dry_run: bool,
                    where: Where = where,
                    member: Entry = member,
                    entry: Entry = entry,
                ) -> Outcome:
                    return ensure_member(
                        client,
                        self._at.organization(where.organization),
                        member["email"],
                        role=member["role"],
                        teams=member["teams"],
                        teams_there=self._teams_of(entry),
                        listed=self._snapshot.of("member", where),
                        dry_run=dry_run,
                    )

                yield "member", member["email"], where, act

    def _teams_of(self, entry: Entry) -> list[str] | None:
        """Teams that are there or are made before members are; None where nobody has looked."""
        if entry["teams"] is None and self._snapshot.organization(entry):
            return None
        there = self._snapshot.of("team", Where(entry["name"]))
        return [*(entry["teams"] or []), *(str(team["slug"]) for team in there)]

    def _projects(self, entries: list[Entry]) -> Iterator[tuple[str, str, Where, Act, Where]]:
        for entry in entries:
            where = Where(entry["name"])
            for project in entry["projects"] or []:

                def act(
                    client: Client,
                    dry_run: bool,
                    where: Where = where,
                    project: Entry = project,
                    entry: Entry = entry,
                ) -> Outcome:
                    return ensure_project(
                        client,
                        self._at.organization(where.organization),
                        self._first_team(entry, project),
                        project["name"],
                        slug=project["slug"],
                        teams=project["teams"],
                        through=self._any_team(entry),
                        platform=project["platform"],
                        event_throttle_rate=project["event_throttle_rate"],
                        listed=self._snapshot.of("project", where),
                        parent_known=True,
                        dry_run=dry_run,
                    )

                yield "project", project["name"], where, act, place_of(entry["name"], project)

    def _first_team(self, entry: Entry, project: Entry) -> str | None:
        """The team of a new project that names none: the first of the organization."""
        if project["teams"] is not None or self._snapshot.project(entry["name"], project):
            return None
        return next(iter(entry["teams"] or []), None)

    def _any_team(self, entry: Entry) -> str | None:
        """A team in which a project can be created that belongs to none in the end."""
        there = [str(team["slug"]) for team in self._snapshot.of("team", Where(entry["name"]))]
        return next(iter([*(entry["teams"] or []), *there]), None)

    def _keys(self, entries: list[Entry]) -> Iterator[tuple[str, str, Where, Act]]:
        for where, project in projects_of(entries):
            for name in project["keys"] or []:

                def act(client: Client, dry_run: bool, where: Where = where, name: str = name) -> Outcome:
                    return ensure_key(
                        client,
                        self._at.organization(where.organization),
                        self._at.project(where),
                        name,
                        listed=self._snapshot.of("key", where),
                        parent_known=True,
                        dry_run=dry_run,
                    )

                yield "key", name, where, act

    def _alerts(self, entries: list[Entry]) -> Iterator[tuple[str, str, Where, Act]]:
        for where, project in projects_of(entries):
            for alert in project["alerts"] or []:

                def act(client: Client, dry_run: bool, where: Where = where, alert: Entry = alert) -> Outcome:
                    return ensure_alert(
                        client,
                        self._at.organization(where.organization),
                        self._at.project(where),
                        alert["name"],
                        quantity=alert["quantity"],
                        timespan_minutes=alert["timespan_minutes"],
                        uptime=alert["uptime"],
                        recipients=alert["recipients"],
                        incomplete=bool(alert.get("incomplete")),
                        listed=self._snapshot.of("alert", where),
                        parent_known=True,
                        dry_run=dry_run,
                    )

                yield "alert", alert["name"], where, act

    def _monitors(self, entries: list[Entry]) -> Iterator[tuple[str, str, Where, Act]]:
        for entry in entries:
            where = Where(entry["name"])
            for monitor in entry["monitors"] or []:

                def act(
                    client: Client,
                    dry_run: bool,
                    where: Where = where,
                    monitor: Entry = monitor,
                    entry: Entry = entry,
                ) -> Outcome:
                    slug, ids = self._project_of(entry, monitor["project"])
                    return ensure_monitor(
                        client,
                        self._at.organization(where.organization),
                        monitor["name"],
                        type=monitor["type"],
                        url=monitor["url"],
                        project=slug,
                        interval=monitor["interval"],
                        timeout=monitor["timeout"],
                        expected_status=monitor["expected_status"],
                        expected_body=monitor["expected_body"],
                        projects=ids,
                        listed=self._snapshot.of("monitor", where),
                        dry_run=dry_run,
                    )

                yield "monitor", monitor["name"], where, act

    def _project_of(self, entry: Entry, wanted: str | None) -> tuple[str | None, dict[str, str]]:
        """Slug of the project that a monitor names by name or slug, and the ids of all projects by slug."""
        where = Where(entry["name"])
        objects = self._snapshot.of("project", where)
        ids = {str(project["slug"]): str(project["id"]) for project in objects}
        ids |= self._at.project_ids(entry["name"])
        if not wanted:
            return wanted, ids
        slugs = {self._at.project(place_of(entry["name"], project)) for project in entry["projects"] or []}
        if wanted in slugs or any(wanted == project["slug"] for project in entry["projects"] or []):
            return wanted, ids
        named = [project for project in entry["projects"] or [] if project["name"] == wanted]
        if len(named) > 1:
            raise AmbiguousError(
                code="ambiguous",
                detail=f"{len(named)} projects of the configuration are called {wanted!r}; name it by its slug",
            )
        if named:
            return self._at.project(place_of(entry["name"], named[0])), ids
        found = only(objects, "slug", wanted, "projects") or only(objects, "name", wanted, "projects")
        if found is None:
            raise MissingError(
                code="missing",
                detail=f"neither the configuration nor the server has the project {wanted!r} that it names",
            )
        return str(found["slug"]), ids

    def _status_pages(self, entries: list[Entry]) -> Iterator[tuple[str, str, Where, Act]]:
        for entry in entries:
            where = Where(entry["name"])
            for page in entry["status_pages"] or []:

                def act(
                    client: Client,
                    dry_run: bool,
                    where: Where = where,
                    page: Entry = page,
                    entry: Entry = entry,
                ) -> Outcome:
                    if dry_run and self._snapshot.organization(entry) is None:
                        return self._page_of_new_organization(page)
                    return ensure_status_page(
                        client,
                        self._at.organization(where.organization),
                        page["name"],
                        public=page["public"],
                        listed=self._snapshot.of("status_page", where),
                        dry_run=dry_run,
                    )

                yield "status_page", page["name"], where, act

    def _page_of_new_organization(self, page: Entry) -> Outcome:
        """What `ensure_status_page` would say, which asks about an organization that is not there yet."""
        if not page["public"] and self._snapshot.organizations:
            raise AmbiguousError(
                code="ambiguous",
                detail="the server does not tell a private page of one organization from that of another",
                hint="make it public, or use a token of a user who is a member of this organization only",
            )
        return Outcome(True, None, predicted_status_page(page["name"], page["public"]), predicted=True)

    # What is there and was not named.

    def _find_unmanaged(self, entries: list[Entry], named: Collection[str]) -> None:
        for entry in entries:
            self._in_organization(entry)
        for organization in self._snapshot.organizations:
            if organization["name"] not in named:
                slug = str(organization["slug"])
                self._remove_or_report(
                    "organization",
                    str(organization["name"]),
                    Where(str(organization["name"])),
                    organization,
                    deleting("organizations", slug),
                )

    def _in_organization(self, entry: Entry) -> None:
        where = Where(entry["name"])
        if self._snapshot.organization(entry) is None:
            return
        org = self._at.organization(entry["name"])
        for team in self._left("team", where, entry["teams"], "slug"):
            slug = str(team["slug"])
            self._remove_or_report("team", slug, where, team, deleting("teams", org, slug))
        for member in self._strangers(where, entry["members"]):
            self._remove_or_report(
                "member",
                str(member.get("email") or ""),
                where,
                member,
                deleting("members", org, str(member["id"])),
            )
        for project in self._other_projects(entry):
            slug = str(project["slug"])
            self._remove_or_report(
                "project",
                str(project["name"]),
                where,
                project,
                deleting("projects", org, slug),
            )
        for project_entry in entry["projects"] or []:
            self._in_project(org, place_of(entry["name"], project_entry), project_entry)
        for monitor in self._left("monitor", where, names_of(entry["monitors"]), "name"):
            number = int(monitor["id"])
            self._remove_or_report(
                "monitor",
                str(monitor["name"]),
                where,
                monitor,
                deleting("monitors", org, number),
            )
        for page in self._left("status_page", where, names_of(entry["status_pages"]), "name"):
            self._report("status_page", str(page["name"]), where, page)

    def _in_project(self, org: str, where: Where, entry: Entry) -> None:
        slug = self._at.project(where)
        for key in self._left("key", where, entry["keys"], "name"):
            if not key.get("name"):
                continue  # the key that comes with every project: its DSN may be in use
            self._remove_or_report(
                "key",
                str(key["name"]),
                where,
                key,
                deleting("keys", org, slug, str(key["id"])),
            )
        for alert in self._left("alert", where, names_of(entry["alerts"]), "name"):
            number = int(alert["id"])
            self._remove_or_report(
                "alert",
                str(alert.get("name") or ""),
                where,
                alert,
                deleting("alerts", org, slug, number),
            )

    def _left(self, kind: str, where: Where, names: Iterable[str] | None, field: str) -> Objects:
        if names is None:
            return []
        known = set(names)
        return [thing for thing in self._snapshot.of(kind, where) if thing.get(field) not in known]

    def _strangers(self, where: Where, members: list[Entry] | None) -> Objects:
        """Members that nobody named, without the primary owner and the account that this runs as."""
        if members is None:
            return []
        known = {str(member["email"]).lower() for member in members}
        found = [
            member
            for member in self._snapshot.of("member", where)
            if str(member.get("email") or "").lower() not in known
            # a manager's token may remove the primary owner; the members are a 500 ever after (5.2, measured)
            and not member.get("isOwner")
        ]
        if not found:
            return []
        account = whoami(self._client)
        return [member for member in found if not (account and account.is_member(member))]

    def _other_projects(self, entry: Entry) -> Objects:
        if entry["projects"] is None:
            return []
        slugs = {self._at.project(place_of(entry["name"], project)) for project in entry["projects"]}
        return [
            project
            for project in self._snapshot.of("project", Where(entry["name"]))
            if project["slug"] not in slugs
        ]

    def _remove_or_report(
        self, kind: str, name: str, where: Where, found: Mapping[str, Any], act: Act
    ) -> None:
        if kind not in self._purge or (where, kind, name) in self._kept_back:
            self._report(kind, name, where, found)
            return
        if kind in ("organization", "project"):
            self._warnings.append(removal_warning(kind, name))
        outcome = Outcome(True, {"id": found.get("id"), "name": name}, None, predicted=True)
        self._removals[kind].append(Step("delete", kind, name, where, outcome, act))

    def _report(self, kind: str, name: str, where: Where, found: Mapping[str, Any]) -> None:
        number = None if kind == "key" else found.get("id")  # the id of a key is its secret
        place = {"organization": where.organization, "project": where.project}
        self._unmanaged.append({"kind": kind, "name": name, **place, "id": number})
