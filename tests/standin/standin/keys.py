"""DSN keys. A key cannot be renamed or disabled: PUT answers 200 and changes nothing."""

from __future__ import annotations

import json
import uuid
from typing import Any
from urllib.parse import urlsplit

from . import auth, db, state
from .auth import api
from .http import Request, Response, Row, answer, no_content, not_found, server_error, stamp
from .pagination import paginate
from .validation import Field, missing, payload, unprocessable

READ = ("project:read", "project:write", "project:admin")
WRITE = ("project:write", "project:admin")
ADMIN = ("project:admin",)
LONGEST_NAME = 64
LARGEST = 32767
_FIELDS = (Field("name", nullable=True), Field("rateLimit", kind="any", nullable=True))
_LIMIT = ("window", "count")


def key_json(row: Row) -> dict[str, Any]:
    """A key with its DSN, built from GLITCHTIP_DOMAIN (whose path is kept)."""
    domain = urlsplit(state.get().settings.domain)
    public = uuid.UUID(str(row["public_key"]))
    dsn = f"{domain.scheme}://{public.hex}@{domain.netloc}{domain.path}/{row['project_id']}"
    security = f"{domain.geturl()}/api/{row['project_id']}/security/?glitchtip_key={public.hex}"
    return {
        "name": row["name"],
        "rateLimit": row["rate_limit"],
        "dateCreated": stamp(row["created"]),
        "id": str(public),
        "dsn": {"public": dsn, "secret": dsn, "security": security},
        "label": row["name"],
        "public": str(public),
        "projectID": row["project_id"],
    }


def _read(request: Request) -> dict[str, Any]:
    """Name and rate limit of a body; 422 for a limit that lacks a number."""
    body = payload(request, _FIELDS)
    limit = body.get("rateLimit")
    if limit is None:
        return body
    given = limit if isinstance(limit, dict) else {}
    where: list[str | int] = ["body", "payload", "rateLimit"]
    errors = [missing(*where, name) for name in _LIMIT if name not in given]
    errors += [
        error
        for name in _LIMIT
        if name in given and (error := Field(name, kind="int").check(given[name], [*where, name]))
    ]
    if errors:
        raise unprocessable(errors)
    return {**body, "rateLimit": {name: int(given[name]) for name in _LIMIT}}


def _find(request: Request, org: str, project: str, key: str) -> Row:
    owner = auth.project(request, org, project)
    row = db.one(
        "SELECT * FROM projects_projectkey WHERE project_id = %s AND public_key = %s", [owner["id"], key]
    )
    if row is None:
        raise not_found()
    return row


@api("/api/0/projects/{org}/{project}/keys/", "GET", scopes=READ)
def list_keys(request: Request, org: str, project: str) -> Response:
    """Newest first; no filter works; a missing project has none."""
    return paginate(
        request,
        "SELECT k.* FROM projects_projectkey k JOIN projects_project p ON p.id = k.project_id"
        " JOIN organizations_ext_organization o ON o.id = p.organization_id AND NOT o.is_deleted"
        " JOIN organizations_ext_organizationuser m ON m.organization_id = o.id"
        " WHERE m.user_id = %s AND o.slug = %s AND p.slug = %s AND NOT p.is_deleted",
        [auth.user_id(request), org, project],
        "created",
        lambda rows: [key_json(row) for row in rows],
        descending=True,
    )


@api("/api/0/projects/{org}/{project}/keys/", "POST", scopes=WRITE)
def create_key(request: Request, org: str, project: str) -> Response:
    """A name may be used twice; without one, and with numbers that do not fit, the server breaks."""
    owner = auth.project(request, org, project)
    body = _read(request)
    limit = body.get("rateLimit")
    if body.get("name") is None or len(body["name"]) > LONGEST_NAME:
        raise server_error()
    if limit and not all(0 <= limit[name] <= LARGEST for name in _LIMIT):
        raise server_error()
    if limit and not limit["count"]:
        limit = None
    row = db.must(
        "INSERT INTO projects_projectkey (project_id, public_key, name, rate_limit)"
        " VALUES (%s, gen_random_uuid(), %s, %s) RETURNING *",
        [owner["id"], body["name"], None if limit is None else json.dumps(limit)],
    )
    return answer(key_json(row), 201)


@api("/api/0/projects/{org}/{project}/keys/{key:uuid}/", "GET", scopes=READ)
def get_key(request: Request, org: str, project: str, key: str) -> Response:
    """By the UUID with dashes only."""
    return answer(key_json(_find(request, org, project, key)))


@api("/api/0/projects/{org}/{project}/keys/{key:uuid}/", "PUT", scopes=WRITE)
def update_key(request: Request, org: str, project: str, key: str) -> Response:
    """200 and no change, as measured."""
    row = _find(request, org, project, key)
    _read(request)
    return answer(key_json(row))


@api("/api/0/projects/{org}/{project}/keys/{key:uuid}/", "DELETE", scopes=ADMIN)
def delete_key(request: Request, org: str, project: str, key: str) -> Response:
    """204, again 404."""
    db.execute("DELETE FROM projects_projectkey WHERE id = %s", [_find(request, org, project, key)["id"]])
    return no_content()
