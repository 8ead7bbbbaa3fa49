"""Environments, which appear by themselves from events."""

from __future__ import annotations

from . import auth, db
from .auth import api
from .http import Request, Response, Row, answer, not_found
from .pagination import paginate
from .validation import Field, payload

READ = ("org:read", "org:write", "org:admin")
PROJECT_READ = ("project:read", "project:write", "project:admin")
PROJECT_WRITE = ("project:write", "project:admin")


def _json(row: Row) -> dict[str, object]:
    return {"id": row["id"], "name": row["name"], "isHidden": row["is_hidden"]}


@api("/api/0/organizations/{org}/environments/", "GET", scopes=READ)
def list_environments(request: Request, org: str) -> Response:
    """Of the organization, by name, each once."""
    return paginate(
        request,
        "SELECT min(id) AS id, name FROM environments_environment WHERE organization_id = %s GROUP BY name",
        [auth.organization(request, org)["id"]],
        "name",
        lambda rows: [{"id": row["id"], "name": row["name"]} for row in rows],
        cast="text",
        collate=True,
    )


@api("/api/0/projects/{org}/{project}/environments/", "GET", scopes=PROJECT_READ)
def list_project_environments(request: Request, org: str, project: str) -> Response:
    """Of a project, by name."""
    return paginate(
        request,
        "SELECT * FROM environments_environment WHERE project_id = %s",
        [auth.project(request, org, project)["id"]],
        "name",
        lambda rows: [_json(row) for row in rows],
        cast="text",
        collate=True,
    )


@api("/api/0/projects/{org}/{project}/environments/{name}/", "PUT", scopes=PROJECT_WRITE)
def update_environment(request: Request, org: str, project: str, name: str) -> Response:
    """Hides or shows an environment of a project."""
    owner = auth.project(request, org, project)
    body = payload(request, [Field("name"), Field("isHidden", kind="bool", required=True)])
    row = db.one(
        "UPDATE environments_environment SET is_hidden = %s WHERE project_id = %s AND name = %s RETURNING *",
        [body["isHidden"], owner["id"], name],
    )
    if row is None:
        raise not_found()
    return answer(_json(row))
