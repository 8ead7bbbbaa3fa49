"""Projects and the teams that they belong to. A name may be used twice; the slug then gets a number."""

from __future__ import annotations

from typing import Any

import psycopg

from . import auth, db, state
from .auth import api
from .http import Request, Response, Row, answer, no_content, not_found, server_error, stamp
from .pagination import paginate
from .teams import LIST as TEAM_LIST
from .teams import find_team, team_json
from .validation import Field, payload

READ = ("project:read", "project:write", "project:admin")
LIST = ("project:read",)
WRITE = ("project:write", "project:admin")
ADMIN = ("project:admin",)
_NAME = Field("name", required=True, max_length=64)
_PLATFORM = Field("platform", nullable=True)
_RATE = Field("eventThrottleRate", kind="int", nullable=True)
LONGEST_SLUG = 50
LONGEST_PLATFORM = 64
LARGEST_RATE = 32767
RESERVED_SLUGS = {"new"}


def project_json(row: Row, user: int) -> dict[str, Any]:
    """A project without organization and teams."""
    mine = db.must(
        "SELECT EXISTS (SELECT FROM teams_team_projects t JOIN teams_team_members tm ON tm.team_id ="
        " t.team_id"
        " JOIN organizations_ext_organizationuser m ON m.id = tm.organizationuser_id"
        " WHERE t.project_id = %s AND m.user_id = %s) AS mine",
        [row["id"], user],
    )["mine"]
    return {
        "name": row["name"],
        "slug": row["slug"],
        "id": str(row["id"]),
        "avatar": {"avatarType": "", "avatarUuid": None},
        "color": "",
        "features": [],
        "hasAccess": True,
        "isBookmarked": False,
        "isInternal": False,
        "isMember": mine,
        "isPublic": False,
        "scrubIPAddresses": row["scrub_ip_addresses"],
        "dateCreated": stamp(row["created"]),
        "platform": row["platform"],
        "firstEvent": stamp(row["first_event"]),
        "eventThrottleRate": row["event_throttle_rate"],
    }


def projects_with_teams(rows: list[Row], user: int) -> list[dict[str, Any]]:
    """Projects with ``teams``."""
    return [{**project_json(row, user), "teams": _teams(row["id"])} for row in rows]


def projects_with_organization(rows: list[Row], user: int) -> list[dict[str, Any]]:
    """Projects with ``organization``."""
    from .organizations import organization_json

    result = []
    for row in rows:
        owner = db.must(
            "SELECT * FROM organizations_ext_organization WHERE id = %s", [row["organization_id"]]
        )
        result.append({**project_json(row, user), "organization": organization_json(owner)})
    return result


def _teams(project: int) -> list[dict[str, str]]:
    found = db.rows(
        "SELECT t.id, t.slug FROM teams_team t JOIN teams_team_projects p ON p.team_id = t.id"
        " WHERE p.project_id = %s ORDER BY t.id",
        [project],
    )
    return [{"id": str(row["id"]), "slug": row["slug"]} for row in found]


def _free_slug(organization: int, name: str, own: int = 0) -> str:
    """The slug of a name, with a number from 2 on when it is taken by another than the project ``own``."""
    base = auth.slugify(name)
    if base in RESERVED_SLUGS:
        base += "-1"
    slug, number = base[:LONGEST_SLUG], 2
    while not slug or _taken(organization, slug, own):
        end = f"-{number}"
        slug, number = base[: LONGEST_SLUG - len(end)] + end, number + 1
    return slug


def _taken(organization: int, slug: str, own: int) -> bool:
    """Also by a deleted project that the worker did not remove yet."""
    return (
        db.one(
            "SELECT 1 AS one FROM projects_project WHERE organization_id = %s AND slug = %s AND id <> %s",
            [organization, slug, own],
        )
        is not None
    )


def _fitting(body: dict[str, Any]) -> dict[str, Any]:
    """The body of a write; 500 for what the columns do not take."""
    rate, platform = body.get("eventThrottleRate", 0), body.get("platform") or ""
    if rate is None or not 0 <= rate <= LARGEST_RATE or len(platform) > LONGEST_PLATFORM:
        raise server_error()
    return body


@api("/api/0/projects/", "GET", scopes=LIST)
def list_projects(request: Request) -> Response:
    """All projects of all the user's organizations, by name."""
    user = auth.user_id(request)
    return paginate(
        request,
        "SELECT p.* FROM projects_project p"
        " JOIN organizations_ext_organization o ON o.id = p.organization_id AND NOT o.is_deleted"
        " JOIN organizations_ext_organizationuser m ON m.organization_id = p.organization_id"
        " WHERE m.user_id = %s AND NOT p.is_deleted",
        [user],
        "name",
        lambda rows: projects_with_organization(rows, user),
        cast="text",
        collate=True,
    )


@api("/api/0/organizations/{org}/projects/", "GET", scopes=LIST)
def list_organization_projects(request: Request, org: str) -> Response:
    """By name; ``query=team:slug`` or ``!team:slug``."""
    user = auth.user_id(request)
    sql = "SELECT p.* FROM projects_project p WHERE p.organization_id = %s AND NOT p.is_deleted"
    params: list[Any] = [auth.organization(request, org)["id"]]
    for term in (request.parameter("query") or "").split():
        key, _, slug = term.partition(":")
        if key in {"team", "!team"}:
            sql += (
                f" AND {'NOT ' if key[0] == '!' else ''}EXISTS (SELECT FROM teams_team_projects tp"
                " JOIN teams_team t ON t.id = tp.team_id WHERE tp.project_id = p.id AND t.slug = %s)"
            )
            params.append(slug)
    return paginate(
        request, sql, params, "name", lambda rows: projects_with_teams(rows, user), cast="text", collate=True
    )


@api("/api/0/teams/{org}/{team}/projects/", "GET", scopes=LIST)
def list_team_projects(request: Request, org: str, team: str) -> Response:
    """By name."""
    user = auth.user_id(request)
    return paginate(
        request,
        "SELECT p.* FROM projects_project p JOIN teams_team_projects t ON t.project_id = p.id"
        " WHERE t.team_id = %s AND NOT p.is_deleted",
        [find_team(request, org, team)["id"]],
        "name",
        lambda rows: [project_json(row, user) for row in rows],
        cast="text",
        collate=True,
    )


@api("/api/0/teams/{org}/{team}/projects/", "POST", scopes=WRITE)
def create_project(request: Request, org: str, team: str) -> Response:
    """Comes with one key named "" and no alert rule; ``slug`` in the body is ignored."""
    body = _fitting(payload(request, [_NAME, _PLATFORM, _RATE]))
    owner = find_team(request, org, team)
    if owner["role"] < auth.ROLES["admin"]:
        raise not_found()
    with db.transaction():
        row = db.must(
            "INSERT INTO projects_project (organization_id, name, slug, platform, event_throttle_rate)"
            " VALUES (%s, %s, %s, %s, %s) RETURNING *",
            [
                owner["organization_id"],
                body["name"],
                _free_slug(owner["organization_id"], body["name"]),
                body.get("platform"),
                body.get("eventThrottleRate", 0),
            ],
        )
        db.execute("INSERT INTO teams_team_projects VALUES (%s, %s)", [owner["id"], row["id"]])
        db.execute(
            "INSERT INTO projects_projectkey (project_id, public_key) VALUES (%s, gen_random_uuid())",
            [row["id"]],
        )
    return answer(project_json(row, auth.user_id(request)), 201)


@api("/api/0/projects/{org}/{project}/", "GET", scopes=READ)
def get_project(request: Request, org: str, project: str) -> Response:
    """One project with its organization."""
    row = auth.project(request, org, project)
    return answer(projects_with_organization([row], auth.user_id(request))[0])


@api("/api/0/projects/{org}/{project}/", "PUT", scopes=WRITE)
def update_project(request: Request, org: str, project: str) -> Response:
    """``name`` is required; ``slug`` renames the URL; roles are not checked; 100 does not bound the rate.

    Any text of up to 50 characters is a slug, also one under which no address finds the project again; an
    empty one is made from the name; a taken one breaks the server.
    """
    row = auth.project(request, org, project)
    body = _fitting(payload(request, [_NAME, _PLATFORM, _RATE, Field("slug", nullable=True)]))
    slug = body.get("slug", row["slug"]) or _free_slug(row["organization_id"], body["name"], row["id"])
    if len(slug) > LONGEST_SLUG:
        raise server_error()
    try:
        updated = db.must(
            "UPDATE projects_project SET name = %s, platform = %s, slug = %s, event_throttle_rate = %s"
            " WHERE id = %s RETURNING *",
            [
                body["name"],
                body.get("platform", row["platform"]),
                slug,
                body.get("eventThrottleRate", row["event_throttle_rate"]),
                row["id"],
            ],
        )
    except psycopg.errors.UniqueViolation:
        raise server_error() from None
    return answer(projects_with_organization([updated], auth.user_id(request))[0])


@api("/api/0/projects/{org}/{project}/", "DELETE", scopes=ADMIN)
def delete_project(request: Request, org: str, project: str) -> Response:
    """404 from now on; the worker removes it later, until then its slug is taken. The 5.2 line checks no role, the
    6.2 line wants admin (source)."""
    row = auth.project(request, org, project)
    if state.get().settings.line == "6.2" and auth.organization(request, org)["role"] < auth.ROLES["admin"]:
        raise not_found()
    db.execute("UPDATE projects_project SET is_deleted = true WHERE id = %s", [row["id"]])
    state.get().queue.put({"task": "delete_project", "id": row["id"]})
    return no_content()


@api("/api/0/projects/{org}/{project}/teams/", "GET", scopes=TEAM_LIST)
def list_project_teams(request: Request, org: str, project: str) -> Response:
    """By slug."""
    user = auth.user_id(request)
    return paginate(
        request,
        "SELECT t.* FROM teams_team t JOIN teams_team_projects p ON p.team_id = t.id WHERE p.project_id = %s",
        [auth.project(request, org, project)["id"]],
        "slug",
        lambda rows: [team_json(row, user) for row in rows],
        cast="text",
        collate=True,
    )


@api("/api/0/projects/{org}/{project}/teams/{team}/", "POST", "DELETE", scopes=ADMIN)
def project_team(request: Request, org: str, project: str, team: str) -> Response:
    """Give the project to a team (201, again 201) or take it away (200, again 404); role manager or more."""
    row = auth.project(request, org, project)
    owner = find_team(request, org, team)
    if owner["role"] < auth.ROLES["manager"]:
        raise not_found()
    if request.method == "POST":
        db.execute(
            "INSERT INTO teams_team_projects VALUES (%s, %s) ON CONFLICT DO NOTHING", [owner["id"], row["id"]]
        )
    elif not db.execute(
        "DELETE FROM teams_team_projects WHERE team_id = %s AND project_id = %s", [owner["id"], row["id"]]
    ):
        raise not_found()
    return answer(
        projects_with_teams([row], auth.user_id(request))[0], 201 if request.method == "POST" else 200
    )
