"""Stored events as the API shows them: detail in camelCase, the list of an issue in snake_case, the raw
JSON form."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

from . import auth, db, state
from .auth import api
from .http import Request, Response, Row, answer, not_found, server_error, stamp
from .issues import READ, find_issue
from .normalize import exceptions, frames, full_title, message_data, message_of
from .pagination import paginate
from .validation import unprocessable

_CONTEXT_TYPES = {
    *("app", "browser", "cloud_resource", "culture", "device", "gpu"),
    *("os", "replay", "response", "runtime", "state", "trace"),
}
_SNAKE = {
    "eventID": "event_id",
    "projectID": "project_id",
    "groupID": "group_id",
    "dateCreated": "date_created",
    "dateReceived": "date_received",
}
_SNAKE_REQUEST = {
    "apiTarget": "api_target",
    "bodySize": "body_size",
    "query": "query_string",
    "inferredContentType": "inferred_content_type",
}


def _frame(frame: Row) -> dict[str, Any]:
    shown = {
        name: frame[name]
        for name in ("vars", "module", "package", "platform", "filename", "function", "context_line")
        if frame.get(name) is not None
    }
    for sent, name in (
        ("in_app", "inApp"),
        ("abs_path", "absPath"),
        ("colno", "colNo"),
        ("lineno", "lineNo"),
    ):
        if frame.get(sent) is not None:
            shown[name] = frame[sent]
    if "absPath" not in shown and frame.get("filename"):
        shown["absPath"] = frame["filename"]
    context: list[list[Any]] = []
    line = frame.get("lineno")
    if isinstance(line, int) and frame.get("context_line") is not None:
        before, after = frame.get("pre_context") or [], frame.get("post_context") or []
        lines = [*before, frame["context_line"], *after]
        context = [[line - len(before) + number, text] for number, text in enumerate(lines)]
    return {**shown, "context": context}


def _exception_entry(raw: Row) -> dict[str, Any]:
    values = []
    any_own = False
    for value in exceptions(raw):
        shown = {
            name: value[name]
            for name in ("type", "value", "mechanism", "module", "thread_id")
            if value.get(name) is not None
        }
        found = frames(value)
        if found:
            shown["stacktrace"] = {"frames": [_frame(frame) for frame in found]}
            any_own = any_own or any(frame.get("in_app") for frame in found)
        values.append(shown)
    return {"type": "exception", "data": {"values": values, "hasSystemFrames": any_own}}


#: Any other level, such as ``log`` of the JavaScript SDK, becomes ``info`` (measured on 5.2).
BREADCRUMB_LEVELS = ("fatal", "error", "warning", "info", "debug")


def _breadcrumbs(raw: Row) -> list[Row]:
    crumbs = raw.get("breadcrumbs")
    if isinstance(crumbs, dict):
        crumbs = crumbs.get("values")
    return [crumb for crumb in crumbs or [] if isinstance(crumb, dict)]


def _breadcrumb(crumb: Row) -> dict[str, Any]:
    when = crumb.get("timestamp")
    if isinstance(when, int | float):
        when = stamp(dt.datetime.fromtimestamp(when, dt.UTC))
    return {
        "type": crumb.get("type") or "default",
        "category": crumb.get("category"),
        "message": crumb.get("message"),
        "data": crumb.get("data"),
        "level": level if (level := crumb.get("level")) in BREADCRUMB_LEVELS else "info",
        "timestamp": when,
        "event_id": crumb.get("event_id"),
    }


def _pairs(value: Any) -> list[list[Any]]:
    if isinstance(value, dict):
        return [[key, item] for key, item in value.items()]
    return [list(pair) for pair in value if isinstance(pair, list | tuple)] if isinstance(value, list) else []


def _request_entry(found: Row) -> dict[str, Any]:
    headers = _pairs(found.get("headers"))
    kind = next((str(value) for key, value in headers if str(key).lower() == "content-type"), None)
    query = found.get("query_string")
    return {
        "type": "request",
        "data": {
            "apiTarget": found.get("api_target"),
            "bodySize": found.get("body_size"),
            "cookies": _pairs(found.get("cookies")),
            "data": found.get("data"),
            "env": found.get("env"),
            "fragment": found.get("fragment"),
            "method": found.get("method"),
            "protocol": found.get("protocol"),
            "url": found.get("url"),
            "headers": headers,
            "query": query if isinstance(query, str) else _pairs(query),
            "inferredContentType": kind,
        },
    }


def _entries(raw: Row) -> list[dict[str, Any]]:
    entries = []
    if exceptions(raw):
        entries.append(_exception_entry(raw))
    crumbs = _breadcrumbs(raw)
    if crumbs:
        entries.append({"type": "breadcrumbs", "data": {"values": [_breadcrumb(crumb) for crumb in crumbs]}})
    message = message_data(raw)
    if message:
        entries.append({"type": "message", "data": message})
    if isinstance(raw.get("request"), dict):
        entries.append(_request_entry(raw["request"]))
    return entries


def _contexts(raw: Row) -> dict[str, Any] | None:
    found = raw.get("contexts")
    if not found:
        return None
    return {
        key: {"type": key, **value} if key in _CONTEXT_TYPES and isinstance(value, dict) else value
        for key, value in found.items()
    }


def _sdk(raw: Row) -> dict[str, Any] | None:
    found = raw.get("sdk")
    if not isinstance(found, dict) or not found.get("name"):
        return None
    return {name: found.get(name) for name in ("name", "version", "packages", "integrations")}


def event_json(row: Row) -> dict[str, Any]:
    """An event in camelCase, without its neighbours."""
    raw = row["data"]
    number = uuid.UUID(str(row["id"])).hex
    return {
        "platform": raw.get("platform"),
        "errors": None,
        "id": number,
        "eventID": number,
        "projectID": row["project_id"],
        "groupID": str(row["issue_id"]),
        "dateCreated": stamp(row["timestamp"]),
        "dateReceived": stamp(row["received"]),
        "dist": raw.get("dist"),
        "culprit": row["transaction"],
        "packages": raw.get("modules") or None,
        "type": row["type"],
        "message": message_of(raw) or full_title(raw),
        "metadata": row["metadata"],
        "tags": [{"key": key, "value": value} for key, value in row["tags"].items()],
        "entries": _entries(raw),
        "contexts": _contexts(raw),
        "context": raw.get("extra") or None,
        "user": raw.get("user") or None,
        "sdk": _sdk(raw),
        "title": row["title"],
    }


def _detail(row: Row) -> dict[str, Any]:
    """With the ids of its neighbours in the issue."""
    neighbours = {}
    for name, sign, order in (("nextEventID", ">", "ASC"), ("previousEventID", "<", "DESC")):
        found = db.one(
            f"SELECT id FROM issue_events_issueevent WHERE issue_id = %s AND received {sign} %s"
            f" ORDER BY received {order} LIMIT 1",
            [row["issue_id"], row["received"]],
        )
        neighbours[name] = uuid.UUID(str(found["id"])).hex if found else None
    return {**event_json(row), "userReport": None, **neighbours}


def _snake(shown: dict[str, Any]) -> dict[str, Any]:
    named = {_SNAKE.get(name, name): value for name, value in shown.items()}
    for entry in named["entries"]:
        if entry["type"] == "request":
            entry["data"] = {_SNAKE_REQUEST.get(name, name): value for name, value in entry["data"].items()}
    return named


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        strange = next(
            (n for n, letter in enumerate(text, 1) if letter not in "0123456789abcdefABCDEF-"), None
        )
        reason = (
            f"invalid length: expected length 32 for simple format, found {len(text)}"
            if strange is None
            else "invalid character: expected an optional prefix of `urn:uuid:` followed by [0-9a-fA-F-],"
            f" found `{text[strange - 1]}` at {strange}"
        )
        raise unprocessable(
            [
                {
                    "type": "uuid_parsing",
                    "loc": ["path", "event_id"],
                    "msg": f"Input should be a valid UUID, {reason}",
                    "ctx": {"error": reason},
                }
            ]
        ) from None


@api("/api/0/issues/{issue:int}/events/", "GET", scopes=READ)
def list_issue_events(request: Request, issue: str) -> Response:
    """Newest first, complete, in snake_case; a missing issue has none."""
    return issue_events(request, issue)


def issue_events(request: Request, issue: str) -> Response:
    """One page of an issue's events."""
    user = auth.user_id(request)
    return paginate(
        request,
        "SELECT e.* FROM issue_events_issueevent e JOIN projects_project p ON p.id = e.project_id"
        " JOIN organizations_ext_organizationuser m ON m.organization_id = p.organization_id"
        " WHERE e.issue_id = %s AND m.user_id = %s",
        [issue, user],
        "received",
        lambda rows: [_snake(event_json(row)) for row in rows],
        descending=True,
    )


@api("/api/0/issues/{issue:int}/events/latest/", "GET", scopes=READ)
def latest_event(request: Request, issue: str) -> Response:
    """The newest event; 404 without one (also when the issue lost it)."""
    row = db.one(
        "SELECT * FROM issue_events_issueevent WHERE issue_id = %s ORDER BY received DESC LIMIT 1",
        [find_issue(request, issue)["id"]],
    )
    if row is None:
        raise not_found()
    return answer(_detail(row))


@api("/api/0/issues/{issue:int}/events/{event}/", "GET", scopes=READ)
def issue_event(request: Request, issue: str, event: str) -> Response:
    """By its id (32 hex digits, or with dashes); ``oldest`` is 422."""
    number = _uuid(event)
    row = db.one(
        "SELECT * FROM issue_events_issueevent WHERE issue_id = %s AND id = %s",
        [find_issue(request, issue)["id"], number],
    )
    if row is None:
        raise not_found()
    return answer(_detail(row))


@api("/api/0/projects/{org}/{project}/events/", "GET", scopes=READ)
def list_project_events(request: Request, org: str, project: str) -> Response:
    """Newest first, in camelCase; a missing project has none."""
    owner = auth.organization(request, org)
    return paginate(
        request,
        "SELECT e.* FROM issue_events_issueevent e JOIN projects_project p ON p.id = e.project_id"
        " WHERE p.organization_id = %s AND p.slug = %s AND NOT p.is_deleted",
        [owner["id"], project],
        "received",
        lambda rows: [event_json(row) for row in rows],
        descending=True,
    )


@api("/api/0/projects/{org}/{project}/events/{event}/", "GET", scopes=READ)
def project_event(request: Request, org: str, project: str, event: str) -> Response:
    """200 when the event is stored in this project, 404 when not."""
    number = _uuid(event)
    row = db.one(
        "SELECT * FROM issue_events_issueevent WHERE project_id = %s AND id = %s",
        [auth.project(request, org, project)["id"], number],
    )
    if row is None:
        raise not_found()
    return answer(_detail(row))


@api("/api/0/organizations/{org}/issues/{issue:int}/events/{event}/json/", "GET", scopes=READ)
def raw_event(request: Request, org: str, issue: str, event: str) -> Response:
    """The event as an SDK would send it, with level, environment and tags as an object.

    A missing one is 500 on the 5.2 line and 404 on the 6.2 line.
    """
    number = _uuid(event)
    owner = auth.organization(request, org)
    row = db.one(
        "SELECT e.* FROM issue_events_issueevent e JOIN projects_project p ON p.id = e.project_id"
        " WHERE e.issue_id = %s AND e.id = %s AND p.organization_id = %s",
        [issue, number, owner["id"]],
    )
    if row is None:
        raise server_error() if state.get().settings.line == "5.2" else not_found()
    raw = row["data"]
    shown: dict[str, Any] = {
        "platform": raw.get("platform"),
        "event_id": uuid.UUID(str(row["id"])).hex,
        "timestamp": row["timestamp"].timestamp(),
        "datetime": stamp(row["timestamp"]),
        "project": row["project_id"],
        "level": row["level"],
        "modules": raw.get("modules") or {},
        "sdk": raw.get("sdk") or {},
        "type": row["type"],
        "title": row["title"],
        "transaction": row["transaction"],
        "tags": row["tags"],
        "hashes": [row["hash"]],
    }
    for name in (
        "exception",
        "breadcrumbs",
        "request",
        "user",
        "contexts",
        "extra",
        "environment",
    ):
        if raw.get(name):
            shown[name] = raw[name]
    return answer(shown)
