"""Teams. Their slug is their only name, and the only unique name there is: a second one is a 500."""

from __future__ import annotations

from typing import Any

import psycopg

from . import auth, db
from .auth import api
from .http import Request, Response, Row, answer, fail, no_content, not_found, server_error, stamp
from .pagination import paginate
from .validation import Field, payload

READ = ("team:read", "team:write", "team:admin", "org:read", "org:write", "org:admin")
WRITE = ("team:write", "team:admin", "org:write", "org:admin")
ADMIN = ("team:admin", "org:write", "org:admin")
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


@api("/api/0/organizations/{org}/teams/", "GET", scopes=READ)
def list_teams(request: Request, org: str) -> Response:
    """By slug."""
    user = auth.user_id(request)
    return paginate(
        request,
        "SELECT * FROM teams_team WHERE organization_id = %s",
        [auth.organization(request, org)["id"]],
        "slug",
        lambda rows: teams_json(rows, user),
        cast="text",
        collate=True,
    )


@api("/api/0/organizations/{org}/teams/", "POST", scopes=WRITE)
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
    """Onto a taken slug: 500."""
    row = find_team(request, org, team)
    body = payload(request, [_SLUG])
    if row["role"] < auth.ROLES["admin"]:
        raise not_found()
    try:
        renamed = db.must(
            "UPDATE teams_team SET slug = %s WHERE id = %s RETURNING *", [body["slug"], row["id"]]
        )
    except psycopg.errors.UniqueViolation:
        raise server_error() from None
    return answer(teams_json([renamed], auth.user_id(request))[0])


@api("/api/0/teams/{org}/{team}/", "DELETE", scopes=ADMIN)
def delete_team(request: Request, org: str, team: str) -> Response:
    """204, again 404."""
    row = find_team(request, org, team)
    if row["role"] < auth.ROLES["admin"]:
        raise not_found()
    db.execute("DELETE FROM teams_team WHERE id = %s", [row["id"]])
    return no_content()


@api("/api/0/organizations/{org}/members/{member}/teams/{team}/", "POST", "DELETE", scopes=WRITE)
def membership(request: Request, org: str, member: str, team: str) -> Response:
    """``me`` or a member's id joins (201) or leaves (200) a team; repeatable."""
    row = find_team(request, org, team)
    owner = auth.organization(request, org)
    if member == "me":
        number = owner["member_id"]
    else:
        found = member.isdigit() and db.one(
            "SELECT id FROM organizations_ext_organizationuser WHERE id = %s AND organization_id = %s",
            [member, owner["id"]],
        )
        if not found:
            raise not_found()
        number = found["id"]
        if number != owner["member_id"] and owner["role"] < auth.ROLES["admin"]:
            raise fail(403, "forbidden")
    if request.method == "POST":
        db.execute(
            "INSERT INTO teams_team_members VALUES (%s, %s) ON CONFLICT DO NOTHING", [row["id"], number]
        )
    else:
        db.execute(
            "DELETE FROM teams_team_members WHERE team_id = %s AND organizationuser_id = %s",
            [row["id"], number],
        )
    return answer(teams_json([row], auth.user_id(request))[0], 201 if request.method == "POST" else 200)
