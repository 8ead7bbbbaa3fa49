"""Projects, by slug where one is wanted, else by name, within an organization."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from ..client import Client
from ..errors import GlitchTipError, InvalidError
from ..late_answers import Made, Wanted, create_once, write_until_seen
from ..resources.base import Objects
from ..validate import check_name, check_number, check_project_slug, check_team_slug
from .outcome import Outcome, missing, named, only, removal_warning, same_but, slugify, within

_WRITABLE = ("name", "slug", "platform", "eventThrottleRate")
_LONGEST_NAME = 64
_LONGEST_PLATFORM = 64
_LONGEST_SLUG = 50


def ensure_project(
    client: Client,
    organization: str,
    team: str | None,
    name: str,
    *,
    slug: str | None = None,
    teams: Iterable[str] | None = None,
    through: str | None = None,
    platform: str | None = None,
    event_throttle_rate: int | None = None,
    listed: Objects | None = None,
    parent_known: bool = False,
    state: str = "present",
    dry_run: bool = False,
) -> Outcome:
    """Make sure that a project exists in an organization and belongs to its teams, or does not exist.

    Args:
        team: a team that it must belong to, others stay; None when `teams` says it all, or for a project
            that is there and keeps its teams.
        slug: with it the project is found by slug, and renamed when its name differs. A new one is created by
            its name, because the server ignores a given slug then, and its slug is written after that.
        teams: the teams that it belongs to, exactly these; None leaves them as they are.
        through: a team in which a new project is created that belongs to none in the end (`teams` is empty),
            because the server creates projects in teams only.
        platform: free text on the server, at most 64 characters; None leaves it as it is.
        event_throttle_rate: percent of events to refuse, 0 to 100; None leaves it as it is.
        listed: all projects of the organization as they were just read; None reads them.
        parent_known: the teams were just seen, so the one in which a project is created is not looked for.

    A change is one PUT of the whole project as just read, because the server wants the name in each.
    Raises MissingError when organization or team is not there, AmbiguousError when two projects have the
    name, InvalidError for values that the server refuses unclearly, GlitchTipError (code `slug_taken`) when
    the slug is not to be had: then the project that was created for it is deleted again.
    """
    if slug is None or len(name) > _LONGEST_NAME:  # with a slug the name tells nothing apart, and may be empty
        check_name(name, "a project", _LONGEST_NAME)
    check_number(event_throttle_rate, "the throttle rate", 100)
    if platform is not None and len(platform) > _LONGEST_PLATFORM:
        raise InvalidError(code="bad_platform", detail="a project's platform has at most 64 characters")
    if slug is not None:
        check_project_slug(slug)
    exactly = None if teams is None else sorted({check_team_slug(one) for one in teams})
    if team is not None and exactly is not None and team not in exactly:
        raise InvalidError(
            code="bad_team", detail=f"team {team!r} of project {name!r} is not among its teams {exactly}"
        )
    wanted = {"platform": platform, "eventThrottleRate": event_throttle_rate}
    wanted = {key: value for key, value in wanted.items() if value is not None}
    if slug is not None:
        wanted["name"] = name
    where = f"organization {organization!r}"
    natural = ("name", name) if slug is None else ("slug", slug)

    projects = within(lambda: client.projects.list(organization), where) if listed is None else listed
    found = only(projects, *natural, "projects")
    if state == "absent":
        if found and not dry_run:
            client.projects.delete(organization, str(found["slug"]))
        notice = (removal_warning("project", name),) if found else ()
        return Outcome(bool(found), found and view_project(found), None, warnings=notice)
    if found is not None:
        before = view_project(found)
        after = _settle(client, organization, found, wanted, team, exactly, dry_run)
        return Outcome(after != before, before, after, predicted=dry_run and after != before)

    first = team if team is not None else next(iter(exactly or []), through)
    if first is None:
        raise InvalidError(code="no_team", detail=f"the new project {name!r} needs a team")
    parent = f"team {first!r} in {where}"
    if not parent_known and client.teams.get(organization, first) is None:
        raise missing(parent)
    warnings = _namesakes(projects, name, slug)
    if dry_run:
        belongs = [first] if exactly is None else exactly
        prediction = predicted_project(name, belongs, wanted, slug=slug)
        return Outcome(True, None, prediction, predicted=True, warnings=warnings)
    creation = _create(client, organization, first, name, wanted, projects, parent)
    created = creation.thing
    made = str(created.get("slug"))
    if slug is None:
        warnings = _other_slug(name, made)
    elif made != slug:
        created = _move(client, organization, created, slug)
    after = _settle(client, organization, created, wanted, team, exactly, dry_run=False)
    return Outcome(True, None, after, warnings=(*warnings, *creation.warnings))


def _create(
    client: Client,
    organization: str,
    team: str,
    name: str,
    wanted: Mapping[str, Any],
    before: Objects,
    parent: str,
) -> Made:
    """Create a project in a team. After a lost answer the one that was not there `before` is taken."""

    def create() -> dict[str, Any]:
        made = partial(
            client.projects.create,
            organization,
            team,
            name=name,
            platform=wanted.get("platform"),
            event_throttle_rate=wanted.get("eventThrottleRate"),
        )
        return {**within(made, parent), "teams": [{"slug": team}]}

    return create_once(
        client.transport,
        create,
        Wanted(
            f"project {name!r} in organization {organization!r}",
            lambda: named(client.projects.list(organization), "name", name, before),
            lambda one, other: same_but("id", "slug", "dateCreated")(_compared(one), _compared(other)),
            lambda twin: _is_untouched(client, organization, twin),
            lambda twin: client.projects.delete(organization, str(twin["slug"])),
            "keep the one that services send to and delete the other, then run it again",
        ),
    )


def _is_untouched(client: Client, organization: str, project: Mapping[str, Any]) -> bool:
    """Whether a project is as the server makes one: no event, one key without a name, no alert rule.

    Asked of the server each: that ``firstEvent`` is ever set is not measured.
    """
    slug = str(project["slug"])
    keys = client.keys.list(organization, slug)
    return not (
        project.get("firstEvent")
        or client.events.list(organization, slug, 1)
        or client.alerts.list(organization, slug)
        or len(keys) > 1
        or any(key.get("name") for key in keys)
    )


def _compared(project: Mapping[str, Any]) -> dict[str, Any]:
    return {**view_project(project), "platform": project.get("platform") or ""}


def _move(client: Client, organization: str, created: dict[str, Any], slug: str) -> dict[str, Any]:
    """Give a new project its slug, or delete it again: a second run would not find it by that slug."""
    made = str(created["slug"])
    body = {key: created.get(key) for key in _WRITABLE if created.get(key) is not None}
    try:
        moved = client.projects.update(organization, made, {**body, "slug": slug})
    except GlitchTipError as error:
        if error.status != 500:  # what a slug that is taken is answered with
            raise
        client.projects.delete(organization, made)
        raise GlitchTipError(
            error.method,
            error.path,
            500,
            "slug_taken",
            f"the slug {slug!r} is taken although no project shows it, so project {created['name']!r} was "
            "not made",
            "a deleted project keeps its slug until the worker has removed it: try again in a minute",
        ) from None
    if moved.get("slug") != slug:
        raise GlitchTipError(
            "PUT",
            "",
            None,
            "not_applied",
            f"the server made the slug {moved.get('slug')!r} where {slug!r} was wanted",
            "delete that project, or ask for the slug that it has",
        )
    return {**created, **moved}


def _settle(
    client: Client,
    organization: str,
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    team: str | None,
    exactly: list[str] | None,
    dry_run: bool,
) -> dict[str, Any]:
    """Bring an existing project to the wanted values and into its teams; returns its view afterwards."""
    slug = str(found["slug"])
    changes = {key: value for key, value in wanted.items() if found.get(key) != value}
    after = {**found, **changes}
    if changes and not dry_run:
        whole = client.projects.get(organization, slug) or {}
        body = {key: whole.get(key, found.get(key)) for key in _WRITABLE}
        after = {**found, **client.projects.update(organization, slug, {**body, **changes})}
    has = _teams(found)
    gets = sorted({*has, team} if team is not None else has) if exactly is None else exactly
    if not dry_run:
        for one in [one for one in gets if one not in has]:
            _add_team(client, organization, slug, one)
        for one in [one for one in has if one not in gets]:
            client.projects.remove_team(organization, slug, one)
    return {**view_project(after), "teams": gets}


def _add_team(client: Client, organization: str, project: str, team: str) -> None:
    where = f"team {team!r} in organization {organization!r}"

    def has_it() -> bool:
        return any(found.get("slug") == team for found in client.projects.teams(organization, project))

    write_until_seen(
        client.transport,
        lambda: within(lambda: client.projects.add_team(organization, project, team), where),
        has_it,
        f"project {project!r} with {where}",
    )


def _namesakes(projects: Objects, name: str, slug: str | None) -> tuple[str, ...]:
    """A warning when a project of this name has another slug than the one that is wanted."""
    others = sorted(str(project.get("slug")) for project in projects if project.get("name") == name)
    if slug is None or not others:
        return ()
    return (f"project {slug!r} is new although {', '.join(map(repr, others))} has the name {name!r}, too",)


def _other_slug(name: str, made: str) -> tuple[str, ...]:
    if made == _foreseen_slug(name):
        return ()
    because = (
        f"the server made the slug {made!r} of the name {name!r}, because that name has none or it is taken, "
        "perhaps by a deleted project that the worker has not removed yet; give a slug to choose another"
    )
    return (because,)


def _foreseen_slug(name: str) -> str:
    slug = slugify(name)[:_LONGEST_SLUG]
    return "new-1" if slug == "new" else slug  # "new" is a word of the server's own addresses


def predicted_project(
    name: str, teams: Iterable[str], wanted: Mapping[str, Any], *, slug: str | None = None
) -> dict[str, Any]:
    """The project that would be created; its id is not known yet."""
    foreseen = {"id": "", "name": name, **wanted, "slug": slug or _foreseen_slug(name)}
    return view_project({**foreseen, "teams": [{"slug": team} for team in teams]})


def _teams(project: Mapping[str, Any]) -> list[str]:
    return sorted(str(team["slug"]) for team in project.get("teams") or [])


def view_project(project: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared and returned of a project as the organization's list has it."""
    view = {key: project.get(key) for key in ("id", "slug", "name", "platform", "eventThrottleRate")}
    return {**view, "teams": _teams(project)}
