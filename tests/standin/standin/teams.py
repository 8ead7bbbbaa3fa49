"""Teams. Their slug is their only name, and the only unique name there is: a second one is a 500."""

from __future__ import annotations

from typing import Any

import psycopg

from . import auth, db
from .auth import api
from .http import Request, Response, Row, answer, fail, no_content, not_found, server_error, stamp
from .pagination import paginate
from .users import me_or_number
from .validation import Field, payload, unprocessable

READ = ("team:read", "team:write", "team:admin")
WRITE = ("team:write", "team:admin")
ADMIN = ("team:admin",)
LIST = (*READ, "org:read", "org:write", "org:admin")
_SLUG = Field("slug", required=True, max_length=50, pattern="^[-a-zA-Z0-9_]+$")


def team_json(row: Row, user: int) -> dict[str, Any]:
    """A team without its projects."""
    members = db.must(
        "SELECT count(*) AS n, coalesce(bool_or(m.user_id = %s), false) AS mine FROM teams_team_members t"
        " JOIN organizations_ext_organizationuser m ON m.id = t.organizationuser_id WHERE t.team_id = %s",
        [user, row["id"]],
    )
    return {
        "id": str(row["id"]),
        "slug": row["slug"],
        "dateCreated": stamp(row["created"]),
        "isMember": members["mine"],
        "memberCount": members["n"],
    }


def teams_json(rows: list[Row], user: int) -> list[dict[str, Any]]:
    """Teams with their projects."""
    from .projects import project_json

    result = []
    for row in rows:
        projects = db.rows(
            "SELECT p.* FROM projects_project p JOIN teams_team_projects t ON t.project_id = p.id"
            ' WHERE t.team_id = %s AND NOT p.is_deleted ORDER BY p.name COLLATE "C"',
            [row["id"]],
        )
        result.append({**team_json(row, user), "projects": [project_json(found, user) for found in projects]})
    return result


def find_team(request: Request, org: str, slug: str) -> Row:
    """The team with the user's ``role`` in its organization; 404 when there is none."""
    owner = auth.organization(request, org)
    row = db.one("SELECT * FROM teams_team WHERE organization_id = %s AND slug = %s", [owner["id"], slug])
    if row is None:
        raise not_found()
    return {**row, "role": owner["role"]}


@api("/api/0/organizations/{org}/teams/", "GET", scopes=LIST)
def list_teams(request: Request, org: str) -> Response:
    """By slug; nothing, and 200, where there is no such organization."""
    user = auth.user_id(request)
    return paginate(
        request,
        "SELECT t.* FROM teams_team t JOIN organizations_ext_organization o ON o.id = t.organization_id"
        " JOIN organizations_ext_organizationuser m ON m.organization_id = o.id AND m.user_id = %s"
        " WHERE o.slug = %s AND NOT o.is_deleted",
        [user, org],
        "slug",
        lambda rows: teams_json(rows, user),
        cast="text",
        collate=True,
    )


@api("/api/0/organizations/{org}/teams/", "POST", scopes=(*WRITE, "org:write", "org:admin"))
def create_team(request: Request, org: str) -> Response:
    """The creator becomes a member; role admin or more."""
    body = payload(request, [_SLUG])
    owner = auth.organization(request, org)
    if owner["role"] < auth.ROLES["admin"]:
        raise not_found()
    try:
        with db.transaction():
            row = db.must(
                "INSERT INTO teams_team (organization_id, slug) VALUES (%s, %s) RETURNING *",
                [owner["id"], body["slug"]],
            )
            db.execute("INSERT INTO teams_team_members VALUES (%s, %s)", [row["id"], owner["member_id"]])
    except psycopg.errors.UniqueViolation:
        raise server_error() from None
    return answer(teams_json([row], auth.user_id(request))[0], 201)


@api("/api/0/teams/{org}/{team}/", "GET", scopes=READ)
def get_team(request: Request, org: str, team: str) -> Response:
    """One team."""
    return answer(teams_json([find_team(request, org, team)], auth.user_id(request))[0])


@api("/api/0/teams/{org}/{team}/", "PUT", scopes=WRITE)
def rename_team(request: Request, org: str, team: str) -> Response:
    """Onto a taken slug: 500. No role is asked for: a plain member with the scope may."""
    row = find_team(request, org, team)
    body = payload(request, [_SLUG])
    try:
        renamed = db.must(
            "UPDATE teams_team SET slug = %s WHERE id = %s RETURNING *", [body["slug"], row["id"]]
        )
    except psycopg.errors.UniqueViolation:
        raise server_error() from None
    return answer(teams_json([renamed], auth.user_id(request))[0])


@api("/api/0/teams/{org}/{team}/", "DELETE", scopes=ADMIN)
def delete_team(request: Request, org: str, team: str) -> Response:
    """204, again 404. No role is asked for: a plain member with the scope may."""
    db.execute("DELETE FROM teams_team WHERE id = %s", [find_team(request, org, team)["id"]])
    return no_content()


@api("/api/0/organizations/{org}/members/{member}/teams/{team}/", "POST", "DELETE", scopes=WRITE)
def membership(request: Request, org: str, member: str, team: str) -> Response:
    """``me`` or a member's id joins (201) or leaves (200) a team; repeatable.

    Everybody may join and leave for himself. For others it takes a manager, or an admin who is in the team.
    The answer counts the members as they were before; after leaving it still says ``isMember``.
    """
    row = find_team(request, org, team)
    owner = auth.organization(request, org)
    number = owner["member_id"] if member == "me" else _member(owner["id"], member)
    before = teams_json([row], auth.user_id(request))[0]
    if (
        number != owner["member_id"]
        and owner["role"] < auth.ROLES["admin" if before["isMember"] else "manager"]
    ):
        raise fail(403, "Must be admin to modify teams")
    if request.method == "DELETE":
        db.execute(
            "DELETE FROM teams_team_members WHERE team_id = %s AND organizationuser_id = %s",
            [row["id"], number],
        )
        return answer(before)
    db.execute("INSERT INTO teams_team_members VALUES (%s, %s) ON CONFLICT DO NOTHING", [row["id"], number])
    return answer({**before, "isMember": True}, 201)


def _member(organization: int, number: str) -> int:
    if not number.isdigit():
        raise unprocessable(me_or_number("member_id"))
    found = db.one(
        "SELECT id FROM organizations_ext_organizationuser WHERE id = %s AND organization_id = %s",
        [number, organization],
    )
    if found is None:
        raise not_found()
    return int(found["id"])
