"""Releases. Made by hand or by events; the version is unique in an organization, a second one is a 500.

``deploys/`` and ``commits/`` are no paths of the 5.2 line: the single-page app answers there.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import psycopg

from . import auth, db
from .auth import api
from .http import Request, Response, Row, answer, no_content, not_found, server_error, stamp
from .pagination import paginate
from .validation import Field, moment, payload, unprocessable

SCOPES = ("project:releases",)
_VERSION = Field("version", required=True)
_UPDATE = [Field("ref", nullable=True), Field("dateReleased", kind="any", nullable=True)]
_VISIBLE = (
    "SELECT r.* FROM releases_release r JOIN organizations_ext_organization o ON o.id = r.organization_id"
    " AND NOT o.is_deleted JOIN organizations_ext_organizationuser m ON m.organization_id = o.id"
    " WHERE o.slug = %s AND m.user_id = %s"
)
_OF_PROJECT = (
    " AND EXISTS (SELECT FROM releases_releaseproject rp JOIN projects_project p ON p.id = rp.project_id"
    " WHERE rp.release_id = r.id AND p.slug = %s)"
)


def seen(organization: int, project: int, version: str) -> None:
    """An event of this release came: make it, without a date, and let it hold the project."""
    version = version[:255]
    db.execute(
        "INSERT INTO releases_release (organization_id, version) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        [organization, version],
    )
    db.execute(
        "INSERT INTO releases_releaseproject (release_id, project_id) SELECT id, %s FROM releases_release"
        " WHERE organization_id = %s AND version = %s ON CONFLICT DO NOTHING",
        [project, organization, version],
    )


def _json(row: Row) -> dict[str, Any]:
    projects = db.rows(
        "SELECT p.name, p.slug FROM releases_releaseproject rp JOIN projects_project p ON p.id = rp.project_id"
        " WHERE rp.release_id = %s ORDER BY rp.id",
        [row["id"]],
    )
    return {
        "ref": row["ref"],
        "dateReleased": _date(row["released"]),
        "version": row["version"],
        "dateCreated": stamp(row["created"]),
        "shortVersion": row["version"],
        "projects": [{"name": project["name"], "slug": project["slug"]} for project in projects],
        "url": row["url"],
        "data": row["data"],
        "deployCount": row["deploy_count"],
    }


def _date(released: dt.datetime | None) -> str | None:
    """Milliseconds only where there are any: ``2026-11-20T00:00:00Z``."""
    text = stamp(released)
    return text.replace(".000Z", "Z") if text else None


def _released(body: dict[str, Any]) -> dt.datetime | None:
    """The date of the body; now when it has none."""
    if "dateReleased" not in body:
        return dt.datetime.now(dt.UTC)
    value = body["dateReleased"]
    return None if value is None else moment(str(value), "dateReleased", relative=False)


def _find(request: Request, org: str, version: str, project: str | None = None) -> Row:
    sql, params = f"{_VISIBLE} AND r.version = %s", [org, auth.user_id(request), version]
    if project is not None:
        sql, params = sql + _OF_PROJECT, [*params, project]
    row = db.one(sql, params)
    if row is None:
        raise not_found()
    return row


def _insert(owner: Row, body: dict[str, Any]) -> Row:
    try:
        return db.must(
            "INSERT INTO releases_release (organization_id, version, ref, released)"
            " VALUES (%s, %s, %s, %s) RETURNING *",
            [owner["id"], body["version"], body.get("ref"), _released(body)],
        )
    except (psycopg.errors.UniqueViolation, psycopg.errors.StringDataRightTruncation):
        raise server_error() from None


def _add(release: Row, projects: list[int]) -> None:
    for project in projects:
        db.execute(
            "INSERT INTO releases_releaseproject (release_id, project_id) VALUES (%s, %s)"
            " ON CONFLICT DO NOTHING",
            [release["id"], project],
        )


@api("/api/0/organizations/{org}/releases/", "GET", scopes=SCOPES)
def list_releases(request: Request, org: str) -> Response:
    """Newest first; nothing, and 200, where there is no such organization."""
    return _page(request, _VISIBLE, [org, auth.user_id(request)])


@api("/api/0/projects/{org}/{project}/releases/", "GET", scopes=SCOPES)
def list_project_releases(request: Request, org: str, project: str) -> Response:
    """Newest first; nothing, and 200, where there is no such project."""
    return _page(request, _VISIBLE + _OF_PROJECT, [org, auth.user_id(request), project])


def _page(request: Request, sql: str, params: list[Any]) -> Response:
    return paginate(
        request, sql, params, "created", lambda rows: [_json(row) for row in rows], descending=True
    )


@api("/api/0/organizations/{org}/releases/", "POST", scopes=SCOPES)
def create_release(request: Request, org: str) -> Response:
    """At least one of the projects must exist. A version that exists is a 500."""
    body = payload(request, [*_UPDATE, _VERSION, Field("projects", kind="list", required=True)])
    _released(body)
    owner = auth.organization(request, org)
    projects = db.rows(
        "SELECT id FROM projects_project WHERE organization_id = %s AND slug = ANY(%s) AND NOT is_deleted"
        " ORDER BY id",
        [owner["id"], [str(slug) for slug in body["projects"]]],
    )
    if not projects:
        raise unprocessable([{"projects": "Require at least one valid project"}])
    release = _insert(owner, body)
    _add(release, [project["id"] for project in projects])
    return answer(_json(release), 201)


@api("/api/0/projects/{org}/{project}/releases/", "POST", scopes=SCOPES)
def create_project_release(request: Request, org: str, project: str) -> Response:
    """Makes a release or takes the one that exists as it is, and adds the project; repeatable."""
    body = payload(request, [*_UPDATE, _VERSION])
    _released(body)
    found = auth.project(request, org, project)
    owner = auth.organization(request, org)
    release = db.one(
        "SELECT * FROM releases_release WHERE organization_id = %s AND version = %s",
        [owner["id"], body["version"]],
    ) or _insert(owner, body)
    _add(release, [found["id"]])
    return answer(_json(release), 201)


@api("/api/0/organizations/{org}/releases/{version}/", "GET", "PUT", "DELETE", scopes=SCOPES)
def one_release(request: Request, org: str, version: str) -> Response:
    """Read, change, delete."""
    return _one(request, org, version)


@api("/api/0/projects/{org}/{project}/releases/{version}/", "GET", "PUT", "DELETE", scopes=SCOPES)
def one_project_release(request: Request, org: str, project: str, version: str) -> Response:
    """The same of a project that the release holds; DELETE removes it from all."""
    return _one(request, org, version, project)


def _one(request: Request, org: str, version: str, project: str | None = None) -> Response:
    body = payload(request, _UPDATE) if request.method == "PUT" else {}
    released = _released(body)
    row = _find(request, org, version, project)
    if request.method == "DELETE":
        db.execute("DELETE FROM releases_release WHERE id = %s", [row["id"]])
        return no_content()
    if request.method == "PUT":
        row = db.must(
            "UPDATE releases_release SET ref = %s, released = %s WHERE id = %s RETURNING *",
            [body.get("ref"), released, row["id"]],
        )
    return answer(_json(row))


@api("/api/0/organizations/{org}/releases/{version}/files/", "GET", scopes=SCOPES)
def list_files(request: Request, org: str, version: str) -> Response:  # noqa: ARG001
    """Source maps of a release; their upload is not imitated, so there are none."""
    return paginate(request, "SELECT now() AS created WHERE false", [], "created", list, descending=True)
