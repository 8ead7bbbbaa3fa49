"""Issues: list and search, detail, change one or many, delete, tags, hashes.

The search language: filters first (``is:``, ``level:``, ``has:``, ``<tag>:<value>``), then free text to the
end. A lone quote breaks the server.
"""

from __future__ import annotations

import shlex
import uuid
from dataclasses import dataclass, field
from typing import Any

from . import auth, db, state
from .auth import api
from .http import Request, Response, Row, answer, no_content, not_found, server_error, stamp
from .pagination import paginate
from .validation import Field, moment, payload, unprocessable

READ = ("event:read", "event:write", "event:admin")
WRITE = ("event:write", "event:admin")
STATUSES = ("unresolved", "resolved", "ignored")
_SORTS = ("last_seen", "first_seen", "count", "priority")
_STATUS = Field("status", choices=STATUSES)
_FROM = (
    "SELECT i.*, i.count AS priority, p.slug AS project_slug, p.name AS project_name, p.platform AS"
    " project_platform,"
    " (SELECT count(*) FROM issue_events_comment c WHERE c.issue_id = i.id) AS comments"
    " FROM issue_events_issue i JOIN projects_project p ON p.id = i.project_id AND NOT p.is_deleted"
)


def short_id(row: Row) -> str:
    """``ALERTS-DEMO-1``; needs ``project_slug`` and ``short_id``."""
    return f"{row['project_slug'].upper()}-{row['short_id']}"


def issue_json(row: Row, *, snake: bool = False, detail: bool = False) -> dict[str, Any]:
    """An issue. The permalink has the project's slug where the organization's belongs, as measured.

    ``snake``: the answer of a change, which is snake_case in part.
    """
    empty = None if state.get().settings.line == "6.2" else ""
    names = ("shareId", "statusDetails", "subscriptionDetails", "userCount", "matchingEventId")
    values: tuple[Any, ...] = (None, {}, None, 0, None)
    if snake:
        names = ("share_id", "status_details", "subscription_details", "user_count", "matching_event_id")
    shown = {
        "id": str(row["id"]),
        "count": str(row["count"]),
        "type": row["type"],
        "level": row["level"],
        "status": row["status"],
        "project": {
            "id": str(row["project_id"]),
            "platform": row["project_platform"],
            "slug": row["project_slug"],
            "name": row["project_name"],
        },
        "shortId": short_id(row),
        "numComments": row["comments"],
        "stats": {"24h": []},
        "logger": None,
        "permalink": f"{state.get().settings.domain}/{row['project_slug']}/issues/{row['id']}",
        **dict(zip(names, values, strict=True)),
        "firstSeen": stamp(row["first_seen"]),
        "lastSeen": stamp(row["last_seen"]),
        "title": row["title"],
        "metadata": row["metadata"],
        "culprit": row["culprit"] if row["culprit"] is not None else empty,
    }
    return {**shown, "userReportCount": 0} if detail else shown


def find_issue(request: Request, number: str, org: str | None = None) -> Row:
    """The issue, also one that is deleted but not removed; 404 unless the user's organization has it."""
    sql = (
        f"{_FROM} JOIN organizations_ext_organizationuser m ON m.organization_id = p.organization_id"
        " JOIN organizations_ext_organization o ON o.id = p.organization_id AND NOT o.is_deleted"
        " WHERE i.id = %s AND m.user_id = %s"
    )
    params: list[Any] = [number, auth.user_id(request)]
    if org is not None:
        sql += " AND o.slug = %s"
        params.append(org)
    row = db.one(sql, params)
    if row is None:
        raise not_found()
    return row


@dataclass
class Conditions:
    """SQL conditions on ``i`` (the issue), all of which must hold, with their parameters."""

    terms: list[str] = field(default_factory=lambda: ["NOT i.is_deleted"])
    params: list[Any] = field(default_factory=list)
    direct_hit: bool = False

    def add(self, term: str, *params: Any) -> None:
        """One more condition."""
        self.terms.append(term)
        self.params.extend(params)


_HAS_TAG = "EXISTS (SELECT FROM issue_events_issuetag t WHERE t.issue_id = i.id AND t.key = %s"


def _integers(request: Request, name: str) -> list[int]:
    found = []
    for number, value in enumerate(request.parameters(name)):
        try:
            found.append(int(value))
        except ValueError:
            raise unprocessable(
                [
                    {
                        "type": "int_parsing",
                        "loc": ["query", "filters", name, number],
                        "msg": "Input should be a valid integer, unable to parse string as an integer",
                    }
                ]
            ) from None
    return found


def search_conditions(request: Request) -> Conditions:
    """What the query string of a list asks for. 422 for bad values, 500 for an unbalanced quote."""
    found = Conditions()
    for name, column in (("id", "i.id"), ("project", "i.project_id")):
        numbers = _integers(request, name)
        if numbers:
            found.add(f"{column} = ANY(%s)", numbers)
    environments = request.parameters("environment")
    if environments:
        found.add(f"{_HAS_TAG} AND t.value = ANY(%s))", "environment", environments)
    for name, sign in (("start", ">="), ("end", "<=")):
        value = request.parameter(name)
        if value:
            found.add(f"i.first_seen {sign} %s", moment(value, name))
    _add_query(found, (request.parameter("query") or "").strip())
    return found


def _add_query(found: Conditions, query: str) -> None:
    if not query:
        return
    try:
        number = uuid.UUID(query)
    except ValueError:
        pass
    else:
        found.direct_hit = True
        found.add(
            "EXISTS (SELECT FROM issue_events_issueevent e WHERE e.issue_id = i.id AND e.id = %s)", number
        )
        return
    try:
        terms = shlex.split(query)
    except ValueError:
        raise server_error() from None
    while terms and ":" in terms[0]:
        key, _, value = terms.pop(0).partition(":")
        if key == "is":
            found.add("i.status = %s", value)
        elif key == "level":
            found.add("i.level = %s", value)
        elif key == "has":
            found.add(f"{_HAS_TAG})", value)
        else:
            found.add(f"{_HAS_TAG} AND t.value = %s)", key, value)
    text = " ".join(terms)
    if len(text) > 2 and text.startswith("*") and text.endswith("*"):
        pattern = text[1:-1].replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        found.add("i.title ILIKE %s", f"%{pattern}%")
    elif text:
        found.add("i.search_vector @@ plainto_tsquery('english', %s)", text)


def _list(request: Request, found: Conditions) -> Response:
    sort = request.parameter("sort") or "-last_seen"
    if sort.removeprefix("-") not in _SORTS or sort.startswith("--"):
        choices = [*_SORTS, *(f"-{name}" for name in _SORTS)]
        text = ", ".join(f"'{name}'" for name in choices[:-1]) + f" or '{choices[-1]}'"
        raise unprocessable(
            [
                {
                    "type": "literal_error",
                    "loc": ["query", "sort"],
                    "msg": f"Input should be {text}",
                    "ctx": {"expected": text},
                }
            ]
        )
    order = sort.removeprefix("-")
    response = paginate(
        request,
        f"{_FROM} WHERE {' AND '.join(found.terms)}",
        found.params,
        order,
        lambda rows: [issue_json(row) for row in rows],
        descending=sort.startswith("-"),
        cast="timestamptz" if order.endswith("_seen") else "bigint",
    )
    if found.direct_hit:
        response.headers["X-Sentry-Direct-Hit"] = "1"
    return response


@api("/api/0/organizations/{org}/issues/", "GET", scopes=READ)
def list_issues(request: Request, org: str) -> Response:
    """All issues of an organization; 404 when it is missing."""
    owner = auth.organization(request, org)
    found = search_conditions(request)
    found.add("p.organization_id = %s", owner["id"])
    return _list(request, found)


@api("/api/0/projects/{org}/{project}/issues/", "GET", scopes=READ)
def list_project_issues(request: Request, org: str, project: str) -> Response:
    """All issues of a project; a missing one has none."""
    owner = auth.organization(request, org)
    found = search_conditions(request)
    found.add("p.organization_id = %s", owner["id"])
    found.add("p.slug = %s", project)
    return _list(request, found)


@api("/api/0/issues/{issue:int}/", "GET", scopes=READ)
def get_issue(request: Request, issue: str) -> Response:
    """One issue."""
    return answer(issue_json(find_issue(request, issue), detail=True))


def _update(request: Request, row: Row) -> Response:
    body = payload(request, [_STATUS])
    if "status" not in body:
        raise server_error()
    db.execute("UPDATE issue_events_issue SET status = %s WHERE id = %s", [body["status"], row["id"]])
    return answer(issue_json({**row, "status": body["status"]}, snake=True, detail=True))


@api("/api/0/issues/{issue:int}/", "PUT", scopes=WRITE)
def update_issue(request: Request, issue: str) -> Response:
    """Changes the status; assignment and status details are ignored; ``{}`` breaks the server."""
    return _update(request, find_issue(request, issue))


@api("/api/0/organizations/{org}/issues/{issue:int}/", "PUT", scopes=WRITE)
def update_organization_issue(request: Request, org: str, issue: str) -> Response:
    """The same by the organization's path, which has no GET."""
    return _update(request, find_issue(request, issue, org))


@api("/api/0/issues/{issue:int}/", "DELETE", scopes=WRITE)
def delete_issue(request: Request, issue: str) -> Response:
    """Out of the lists at once; the worker removes it later."""
    row = find_issue(request, issue)
    _mark_deleted([row["id"]])
    return no_content()


def _mark_deleted(numbers: list[int]) -> None:
    if numbers:
        db.execute("UPDATE issue_events_issue SET is_deleted = true WHERE id = ANY(%s)", [numbers])
        state.get().queue.put({"task": "delete_issues", "ids": numbers})


def _matching(request: Request, org: str) -> list[int]:
    """The ids that the filters of a bulk call match; without any filter, all of the organization."""
    owner = auth.organization(request, org)
    found = search_conditions(request)
    found.add("p.organization_id = %s", owner["id"])
    rows = db.rows(
        "SELECT i.id FROM issue_events_issue i JOIN projects_project p ON p.id = i.project_id"
        f" WHERE {' AND '.join(found.terms)} ORDER BY i.id",
        found.params,
    )
    return [row["id"] for row in rows]


@api("/api/0/organizations/{org}/issues/", "PUT", scopes=WRITE)
def bulk_update(request: Request, org: str) -> Response:
    """Changes everything that the query string matches; 200 also when that is nothing."""
    body = payload(request, [_STATUS, Field("merge", kind="int")])
    numbers = _matching(request, org)
    if "status" in body:
        db.execute("UPDATE issue_events_issue SET status = %s WHERE id = ANY(%s)", [body["status"], numbers])
    if body.get("merge") and len(numbers) > 1:
        _merge(numbers[-1], numbers[:-1])
    return answer({"status": body.get("status"), "merge": body.get("merge")})


def _merge(target: int, others: list[int]) -> None:
    """Into the highest id; counts are not summed, the others leave the lists but can still be read by id."""
    with db.transaction():
        for table in ("issue_events_issuehash", "issue_events_issueevent"):
            db.execute(f"UPDATE {table} SET issue_id = %s WHERE issue_id = ANY(%s)", [target, others])
        db.execute("UPDATE issue_events_issue SET is_deleted = true WHERE id = ANY(%s)", [others])


@api("/api/0/organizations/{org}/issues/", "DELETE", scopes=WRITE)
def bulk_delete(request: Request, org: str) -> Response:
    """Deletes everything that the query string matches; the answer claims a status."""
    _mark_deleted(_matching(request, org))
    return answer({"status": "resolved", "merge": None})


@api("/api/0/issues/{issue:int}/tags/", "GET", scopes=READ)
def issue_tags(request: Request, issue: str) -> Response:
    """Keys with their values by count; ``key=`` chooses."""
    row = find_issue(request, issue)
    wanted = request.parameters("key")
    found: dict[str, list[Row]] = {}
    for tag in db.rows(
        "SELECT key, value, sum(count)::bigint AS count FROM issue_events_issuetag WHERE issue_id = %s"
        " GROUP BY key, value ORDER BY sum(count) DESC, value",
        [row["id"]],
    ):
        if not wanted or tag["key"] in wanted:
            found.setdefault(tag["key"], []).append(tag)
    return answer(
        [
            {
                "topValues": [
                    {"name": tag["value"], "value": tag["value"], "count": tag["count"], "key": key}
                    for tag in values[:10]
                ],
                "uniqueValues": len(values),
                "key": key,
                "name": key,
                "totalValues": sum(tag["count"] for tag in values),
            }
            for key, values in found.items()
        ]
    )


@api("/api/0/issues/{issue:int}/user-reports/", "GET", scopes=READ)
def user_reports(request: Request, issue: str) -> Response:
    """User feedback is not collected, so the list is empty."""
    find_issue(request, issue)
    return paginate(
        request, "SELECT id FROM issue_events_issue WHERE false", [], "id", lambda _: [], cast="bigint"
    )


@api("/api/0/organizations/{org}/issues/{issue:int}/hashes/", "GET", scopes=READ)
def issue_hashes(request: Request, org: str, issue: str) -> Response:
    """The grouping hashes with the latest event of each."""
    from .events import event_json

    row = find_issue(request, issue, org)

    def render(rows: list[Row]) -> list[Any]:
        shown = []
        for found in rows:
            latest = db.one(
                "SELECT * FROM issue_events_issueevent WHERE issue_id = %s AND hash = %s"
                " ORDER BY received DESC LIMIT 1",
                [row["id"], found["value"]],
            )
            shown.append({"id": found["value"], "latestEvent": event_json(latest) if latest else None})
        return shown

    return paginate(
        request,
        "SELECT * FROM issue_events_issuehash WHERE issue_id = %s",
        [row["id"]],
        "id",
        render,
        descending=True,
        cast="bigint",
    )
