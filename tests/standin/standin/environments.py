"""Environments, which appear by themselves from events.

An environment of an organization is one object with a number of its own, listed once for each project that
has it; a project may hide its own.
"""

from __future__ import annotations

from . import auth, db
from .auth import api
from .http import Request, Response, Row, answer, not_found
from .pagination import paginate
from .validation import Error, Field, literal, payload, unprocessable

READ = ("org:read", "org:write", "org:admin")
PROJECT_READ = ("project:read", "project:write", "project:admin")
PROJECT_WRITE = ("project:write", "project:admin")
_HIDDEN = {"all": "", "hidden": " AND e.is_hidden", "visible": " AND NOT e.is_hidden"}
_FROM = (
    " FROM environments_environment e JOIN organizations_ext_organization o ON o.id = e.organization_id"
    " AND NOT o.is_deleted JOIN organizations_ext_organizationuser m ON m.organization_id = o.id"
    " WHERE o.slug = %s AND m.user_id = %s"
)


def _visibility(request: Request) -> str:
    """The condition that ``?visibility=`` asks for."""
    errors: list[Error] = []
    wanted = literal(request, "visibility", ("all", "hidden", "visible"), errors, "visible")
    if errors:
        raise unprocessable(errors)
    return _HIDDEN[wanted]


def _json(row: Row) -> dict[str, object]:
    return {"name": row["name"], "id": row["id"], "isHidden": row["is_hidden"]}


@api("/api/0/organizations/{org}/environments/", "GET", scopes=READ)
def list_environments(request: Request, org: str) -> Response:
    """Newest first, once for each project; nothing, and 200, where there is no such organization."""
    sql = (
        "SELECT e.name, (SELECT min(id) FROM environments_environment first"
        f" WHERE first.organization_id = e.organization_id AND first.name = e.name) AS id {_FROM}"
    )
    return paginate(
        request,
        sql + _visibility(request),
        [org, auth.user_id(request)],
        "id",
        lambda rows: [{"id": row["id"], "name": row["name"]} for row in rows],
        cast="bigint",
        descending=True,
    )


@api("/api/0/projects/{org}/{project}/environments/", "GET", scopes=PROJECT_READ)
def list_project_environments(request: Request, org: str, project: str) -> Response:
    """Newest first; nothing, and 200, where there is no such project."""
    sql = (
        f"SELECT e.* {_FROM} AND EXISTS (SELECT FROM projects_project p"
        " WHERE p.id = e.project_id AND p.slug = %s AND NOT p.is_deleted)"
    )
    return paginate(
        request,
        sql + _visibility(request),
        [org, auth.user_id(request), project],
        "id",
        lambda rows: [_json(row) for row in rows],
        cast="bigint",
        descending=True,
    )


@api("/api/0/projects/{org}/{project}/environments/{name}/", "PUT", scopes=PROJECT_WRITE)
def update_environment(request: Request, org: str, project: str, name: str) -> Response:
    """Hides or shows an environment of a project; the name in the body is needed and ignored."""
    body = payload(request, [Field("name", required=True), Field("isHidden", kind="bool", required=True)])
    row = db.one(
        "UPDATE environments_environment SET is_hidden = %s WHERE project_id = %s AND name = %s RETURNING *",
        [body["isHidden"], auth.project(request, org, project)["id"], name],
    )
    if row is None:
        raise not_found()
    return answer(_json(row))
