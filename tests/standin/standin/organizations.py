"""Organizations. The slug comes from the name and never changes; a taken one gets a random suffix."""

from __future__ import annotations

import random
import string
from typing import Any

from . import auth, db, state
from .auth import api
from .http import Request, Response, Row, answer, fail, no_content, stamp
from .pagination import paginate
from .projects import projects_with_teams
from .teams import teams_json
from .validation import Field, payload

READ = ("org:read", "org:write", "org:admin")
WRITE = ("org:write", "org:admin")
_NAME = Field("name", required=True, max_length=200)


def organization_json(row: Row) -> dict[str, Any]:
    """An organization as lists and other answers embed it."""
    return {
        "name": row["name"],
        "id": str(row["id"]),
        "dateCreated": stamp(row["created"]),
        "status": {"id": "active", "name": "active"},
        "avatar": {"avatarType": "", "avatarUuid": None},
        "isEarlyAdopter": False,
        "require2fa": False,
        "slug": row["slug"],
        "isAcceptingEvents": row["is_accepting_events"],
        "eventThrottleRate": row["event_throttle_rate"],
    }


def _access(role: int) -> list[str]:
    """What the role may do, as the detail answer lists it (17 scopes for an owner; no order)."""
    hidden = {3: (), 2: ("org:admin",), 1: ("org:admin", "org:write", "member:write", "member:admin")}
    names = [*auth.SCOPES, "org:integrations"]
    if role == 0:
        return [
            name for name in names if name.endswith(":read") or name in {"event:write", "project:releases"}
        ]
    return [name for name in names if name not in hidden[role]]


def _detail(request: Request, row: Row) -> dict[str, Any]:
    user = auth.user_id(request)
    found = db.rows(
        "SELECT * FROM projects_project WHERE organization_id = %s AND NOT is_deleted"
        ' ORDER BY name COLLATE "C"',
        [row["id"]],
    )
    teams = db.rows(
        'SELECT * FROM teams_team WHERE organization_id = %s ORDER BY slug COLLATE "C"', [row["id"]]
    )
    return {
        **organization_json(row),
        "projects": projects_with_teams(found, user),
        "teams": teams_json(teams, user),
        "access": _access(row["role"]),
        "openMembership": True,
    }


def _free_slug(name: str) -> str:
    base = auth.slugify(name)[:200]
    slug, length = base, 2
    while not slug or db.one("SELECT 1 AS one FROM organizations_ext_organization WHERE slug = %s", [slug]):
        suffix = "".join(random.choices(string.ascii_lowercase + string.digits, k=length))
        slug = f"{base}-{suffix}"
        length = min(length + 1, 8)
    return slug


@api("/api/0/organizations/", "GET", scopes=READ)
def list_organizations(request: Request) -> Response:
    """Those that the user is a member of, by name."""
    return paginate(
        request,
        "SELECT o.* FROM organizations_ext_organization o"
        " JOIN organizations_ext_organizationuser m ON m.organization_id = o.id"
        " WHERE m.user_id = %s AND NOT o.is_deleted",
        [auth.user_id(request)],
        "name",
        lambda rows: [organization_json(row) for row in rows],
        cast="text",
        collate=True,
    )


@api("/api/0/organizations/", "POST", scopes=WRITE)
def create_organization(request: Request) -> Response:
    """The first organization and superusers always may; others only when creation is open."""
    body = payload(request, [_NAME])
    user = request.user or {}
    first = not db.must("SELECT EXISTS (SELECT FROM organizations_ext_organization) AS any")["any"]
    if not (first or user.get("is_superuser") or state.get().settings.organization_creation):
        raise fail(403, "Organization creation is not open")
    with db.transaction():
        created = db.must(
            "INSERT INTO organizations_ext_organization (name, slug) VALUES (%s, %s) RETURNING *",
            [body["name"], _free_slug(body["name"])],
        )
        db.execute(
            "INSERT INTO organizations_ext_organizationuser (organization_id, user_id, role, is_owner)"
            " VALUES (%s, %s, %s, true)",
            [created["id"], auth.user_id(request), auth.ROLES["owner"]],
        )
    return answer(_detail(request, {**created, "role": auth.ROLES["owner"]}), 201)


@api("/api/0/organizations/{org}/", "GET", scopes=READ)
def get_organization(request: Request, org: str) -> Response:
    """With projects, teams and what the user may do."""
    return answer(_detail(request, auth.organization(request, org)))


@api("/api/0/organizations/{org}/", "PUT", scopes=WRITE)
def update_organization(request: Request, org: str) -> Response:
    """Renames; the slug stays."""
    row = auth.organization(request, org)
    body = payload(request, [_NAME])
    if row["role"] < auth.ROLES["manager"]:
        raise fail(403, "forbidden")
    db.execute("UPDATE organizations_ext_organization SET name = %s WHERE id = %s", [body["name"], row["id"]])
    return answer(_detail(request, {**row, "name": body["name"]}))


@api("/api/0/organizations/{org}/", "DELETE", scopes=("org:admin",))
def delete_organization(request: Request, org: str) -> Response:
    """Gone for the API at once; the worker removes the data."""
    row = auth.organization(request, org)
    if row["role"] < auth.ROLES["manager"]:
        raise fail(403, "forbidden")
    db.execute("UPDATE organizations_ext_organization SET is_deleted = true WHERE id = %s", [row["id"]])
    state.get().queue.put({"task": "delete_organization", "id": row["id"]})
    return no_content()
