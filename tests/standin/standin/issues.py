"""Issues: list and search, detail, change one or many, delete, tags, hashes.

The search language: filters first (``is:``, ``level:``, ``has:``, ``<tag>:<value>``), then free text to the
end. A lone quote breaks the server. The list of an organization leaves out deleted and merged issues; the list
of a project and the bulk calls do not.

What the 6.2 line does otherwise is from its published OpenAPI document and its source, not measured: changes
answer in camelCase, an empty change is allowed, issues have releases and an assignee, a merge adds the moved
events to the count, and a bulk change does fifty issues at once and leaves the rest to the worker.
"""

from __future__ import annotations

import random
import shlex
import uuid
from dataclasses import dataclass, field
from typing import Any

from . import auth, db, state
from .auth import api
from .http import Request, Response, Row, answer, fail, no_content, not_found, server_error, stamp
from .pagination import paginate
from .validation import Field, integers, missing, moment, payload, unprocessable

READ = ("event:read", "event:write", "event:admin")
WRITE = ("event:write", "event:admin")
STATUSES = ("unresolved", "resolved", "ignored")
_SORTS = ("last_seen", "first_seen", "count", "priority")
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
_STATUS = Field("status", nullable=True, choices=STATUSES)
AT_ONCE = 50
MOST_MOVED = 1000
_FROM = (
    "SELECT i.*, log(10::numeric, i.count::numeric) + extract(epoch FROM i.last_seen)::numeric / 300000.0"
    " AS priority, p.slug AS project_slug, p.name AS project_name, p.platform AS"
    " project_platform,"
    " (SELECT count(*) FROM issue_events_comment c WHERE c.issue_id = i.id) AS comments"
    " FROM issue_events_issue i JOIN projects_project p ON p.id = i.project_id AND NOT p.is_deleted"
)


def short_id(row: Row) -> str:
    """``ALERTS-DEMO-A`` (the tenth issue, base 32); needs ``project_slug`` and ``short_id``."""
    number, text = int(row["short_id"]), ""
    while number:
        number, digit = divmod(number, 32)
        text = _DIGITS[digit] + text
    return f"{row['project_slug'].upper()}-{text}"


def issue_json(row: Row, *, snake: bool = False, detail: bool = False) -> dict[str, Any]:
    """An issue. The permalink has the project's slug where the organization's belongs, as measured.

    ``snake``: the answer of a change, which is snake_case in part.
    """
    six = state.get().settings.line == "6.2"
    names = ("shareId", "statusDetails", "subscriptionDetails", "userCount", "matchingEventId")
    values: tuple[Any, ...] = (None, {}, None, 0, row.get("matching_event_id"))
    if snake and not six:
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
        "culprit": row["culprit"] if row["culprit"] is not None else None if six else "",
    }
    if six:
        shown |= {
            "firstRelease": _release(row["first_release"], row["first_seen"]),
            "lastRelease": _release(row["last_release"], row["last_seen"]),
            "assignedTo": _assignee(row),
        }
    return {**shown, "userReportCount": 0} if detail else shown


def _release(version: str | None, seen: Any) -> dict[str, Any] | None:
    if version is None:
        return None
    return {"version": version, "shortVersion": version, "dateCreated": stamp(seen), "dateReleased": None}


def _assignee(row: Row) -> dict[str, Any] | None:
    if row["assigned_to_team_id"]:
        team = db.must("SELECT id, slug FROM teams_team WHERE id = %s", [row["assigned_to_team_id"]])
        named = {"name": team["slug"], "slug": team["slug"], "username": None, "email": None}
        return {"type": "team", "id": str(team["id"]), **named}
    if row["assigned_to_user_id"]:
        user = db.must("SELECT id, name, email FROM users_user WHERE id = %s", [row["assigned_to_user_id"]])
        named = {"name": user["name"] or user["email"], "slug": None}
        named |= {"username": user["email"], "email": user["email"]}
        return {"type": "user", "id": str(user["id"]), **named}
    return None


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

    terms: list[str] = field(default_factory=lambda: ["true"])
    params: list[Any] = field(default_factory=list)
    event_id: str | None = None

    def add(self, term: str, *params: Any) -> None:
        """One more condition."""
        self.terms.append(term)
        self.params.extend(params)


_HAS_TAG = "EXISTS (SELECT FROM issue_events_issuetag t WHERE t.issue_id = i.id AND t.key = %s"


def search_conditions(request: Request, *, direct: bool = True) -> Conditions:
    """What the query string of a list asks for. 422 for bad values, 500 for an unbalanced quote.

    ``direct``: an event id finds its issue (lists only; elsewhere it is text).
    """
    found = Conditions()
    for name, column in (("id", "i.id"), ("project", "i.project_id")):
        numbers, errors = integers(request, name)
        if errors:
            raise unprocessable(errors)
        if numbers:
            found.add(f"{column} = ANY(%s)", numbers)
    environments = request.parameters("environment")
    if environments:
        found.add(f"{_HAS_TAG} AND t.value = ANY(%s))", "environment", environments)
    for name, sign in (("start", ">="), ("end", "<=")):
        value = request.parameter(name)
        if value is not None:
            found.add(f"i.first_seen {sign} %s", moment(value, name))
    _add_query(found, request.parameter("query") or "", direct)
    return found


def _add_query(found: Conditions, query: str, direct: bool) -> None:
    number = _event_id(query) if direct else None
    if number is not None:
        found.event_id = number.hex
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
        value = value.strip('"')
        if key == "is":
            found.add("i.status = %s", value)
        elif key == "level":
            found.add("i.level = %s", value)
        elif key == "has":
            found.add(f"{_HAS_TAG})", value)
        else:
            found.add(f"{_HAS_TAG} AND t.value = %s)", key, value)
    text = " ".join(terms)
    words = "i.search_vector @@ plainto_tsquery('english', %s)"
    if "*" in text:
        found.add(f"(i.title ILIKE %s OR {words})", f"%{text.replace('*', '%')}%", text)
    elif text:
        found.add(words, text)


def _event_id(query: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(query)
    except ValueError:
        return None


def _list(request: Request, found: Conditions) -> Response:
    sort = request.parameter("sort")
    if sort is None:
        sort = "-last_seen"
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
    casts = {"count": "bigint", "priority": "numeric"}
    response = paginate(
        request,
        f"{_FROM} WHERE {' AND '.join(found.terms)}",
        found.params,
        order,
        lambda rows: [issue_json({**row, "matching_event_id": found.event_id}) for row in rows],
        descending=sort.startswith("-"),
        cast=casts.get(order, "timestamptz"),
    )
    if found.event_id:
        response.headers["X-Sentry-Direct-Hit"] = "1"
    return response


@api("/api/0/organizations/{org}/issues/", "GET", scopes=READ)
def list_issues(request: Request, org: str) -> Response:
    """All issues of an organization; 404 when it is missing."""
    owner = auth.organization(request, org)
    found = search_conditions(request)
    found.add("NOT i.is_deleted")
    found.add("p.organization_id = %s", owner["id"])
    return _list(request, found)


@api("/api/0/projects/{org}/{project}/issues/", "GET", scopes=READ)
def list_project_issues(request: Request, org: str, project: str) -> Response:
    """All issues of a project, merged and deleted ones too; a missing project has none."""
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
    six = state.get().settings.line == "6.2"
    fields = [_STATUS]
    if six:
        fields += [Field("statusDetails", kind="dict", nullable=True), Field("assignedTo", nullable=True)]
    body = payload(request, fields)
    if body.get("status") is None and not six:
        raise server_error()
    changed: dict[str, Any] = {}
    if body.get("status") is not None:
        changed["status"] = body["status"]
        if six:
            changed |= _resolution(row, body)
    if "assignedTo" in body:
        organization = db.must(
            "SELECT organization_id AS id FROM projects_project WHERE id = %s", [row["project_id"]]
        )
        changed |= assignee(body["assignedTo"], organization["id"])
    for column, value in changed.items():
        db.execute(f"UPDATE issue_events_issue SET {column} = %s WHERE id = %s", [value, row["id"]])
    return answer(issue_json({**row, **changed}, snake=True, detail=True))


def _resolution(row: Row, body: dict[str, Any]) -> dict[str, Any]:
    """The release that an issue is resolved in; unknown ones are ignored."""
    if body["status"] != "resolved":
        return {"resolved_in_release": None}
    details = body.get("statusDetails") or {}
    sql = (
        "SELECT r.version FROM releases_release r"
        " JOIN projects_project p ON p.organization_id = r.organization_id AND p.id = %s"
    )
    if details.get("inRelease"):
        found = db.one(f"{sql} WHERE r.version = %s", [row["project_id"], details["inRelease"]])
    elif details.get("inNextRelease"):
        found = db.one(
            f"{sql} JOIN releases_releaseproject rp ON rp.release_id = r.id AND rp.project_id = p.id"
            " ORDER BY r.created DESC LIMIT 1",
            [row["project_id"]],
        )
    else:
        found = None
    return {"resolved_in_release": found["version"]} if found else {}


def assignee(text: str | None, organization: int) -> dict[str, Any]:
    """The columns for ``user:<id>``, ``team:<slug>``, an e-mail address, or nobody (null and empty text)."""
    chosen: dict[str, Any] = {"assigned_to_user_id": None, "assigned_to_team_id": None}
    if not text:
        return chosen
    kind, _, name = text.partition(":")
    if kind == "team" and name:
        sql = "SELECT id FROM teams_team WHERE organization_id = %s AND slug = %s"
        found = db.one(sql, [organization, name])
        if found is None:
            raise fail(404, "Team not found")
        return {**chosen, "assigned_to_team_id": found["id"]}
    if kind == "user" and not name.isdigit():
        raise fail(400, "Invalid assignedTo format")
    found = db.one(
        "SELECT u.id FROM users_user u JOIN organizations_ext_organizationuser m ON m.user_id = u.id"
        " WHERE m.organization_id = %s AND (u.id::text = %s OR u.email = %s)",
        [organization, name if kind == "user" else None, text],
    )
    if found is None:
        raise fail(404, "User is not a member of this organization")
    return {**chosen, "assigned_to_user_id": found["id"]}


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
    """The ids that the filters of a bulk call match, deleted ones too; without any filter, all of the
    organization."""
    owner = auth.organization(request, org)
    found = search_conditions(request, direct=False)
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
    six = state.get().settings.line == "6.2"
    fields = [_STATUS, Field("merge", kind="int", nullable=True)]
    if six:
        fields.append(Field("assignedTo", nullable=True))
    body = payload(request, fields)
    numbers = _matching(request, org)
    changed = {"status": body["status"]} if body.get("status") else {}
    if "assignedTo" in body:
        changed |= assignee(body["assignedTo"], auth.organization(request, org)["id"])
    task: dict[str, Any] = {"task": "update_issues", "changed": changed, "merge_into": None}
    if body.get("merge") and len(numbers) > 1:
        task["merge_into"] = numbers[-1]
    now = numbers[:AT_ONCE] if six else numbers
    apply_update({**task, "ids": now})
    if numbers[len(now) :]:
        state.get().queue.put({**task, "ids": numbers[len(now) :]})
    return answer({"status": body.get("status"), "merge": body.get("merge")})


def apply_update(task: dict[str, Any]) -> None:
    """Change the issues ``ids`` (columns ``changed``) and merge them into ``merge_into``; the worker's part of a
    bulk change, too."""
    for column, value in task["changed"].items():
        db.execute(f"UPDATE issue_events_issue SET {column} = %s WHERE id = ANY(%s)", [value, task["ids"]])
    if task["merge_into"] is not None:
        _merge(task["merge_into"], [number for number in task["ids"] if number != task["merge_into"]])


def _merge(target: int, others: list[int]) -> None:
    """Into the highest id, with 1,000 events at most and without the tags.

    The others leave the organization's list but can still be read by id. The count is not summed on the 5.2
    line; on the 6.2 line the moved events are added.
    """
    with db.transaction():
        db.execute(
            "UPDATE issue_events_issuehash SET issue_id = %s WHERE issue_id = ANY(%s)", [target, others]
        )
        moved = db.execute(
            "UPDATE issue_events_issueevent SET issue_id = %s WHERE (id, received) IN"
            " (SELECT id, received FROM issue_events_issueevent WHERE issue_id = ANY(%s) LIMIT %s)",
            [target, others, MOST_MOVED],
        )
        db.execute("UPDATE issue_events_issue SET is_deleted = true WHERE id = ANY(%s)", [others])
        if state.get().settings.line == "6.2":
            db.execute("UPDATE issue_events_issue SET count = count + %s WHERE id = %s", [moved, target])


@api("/api/0/organizations/{org}/issues/", "DELETE", scopes=WRITE)
def bulk_delete(request: Request, org: str) -> Response:
    """Deletes everything that the query string matches; the answer claims a status."""
    _mark_deleted(_matching(request, org))
    return answer({"status": "resolved", "merge": None})


@api("/api/0/issues/{issue:int}/tags/", "GET", scopes=READ)
def issue_tags(request: Request, issue: str) -> Response:
    """Keys in no order, their values by count; ``key=`` chooses one."""
    return tags_of(request, find_issue(request, issue))


def tags_of(request: Request, row: Row) -> Response:
    """The counted tags of an issue."""
    wanted = request.parameter("key")
    found: dict[str, list[Row]] = {}
    for tag in db.rows(
        "SELECT key, value, sum(count)::bigint AS count FROM issue_events_issuetag WHERE issue_id = %s"
        " GROUP BY key, value ORDER BY sum(count) DESC, value",
        [row["id"]],
    ):
        if not wanted or tag["key"] == wanted:
            found.setdefault(tag["key"], []).append(tag)
    return answer(
        [
            {
                "topValues": [
                    {"name": tag["value"], "value": tag["value"], "count": tag["count"], "key": key}
                    for tag in values
                ],
                "uniqueValues": len(values),
                "key": key,
                "name": key,
                "totalValues": sum(tag["count"] for tag in values),
            }
            for key, values in random.sample(list(found.items()), len(found))
        ]
    )


@api("/api/0/issues/{issue:int}/user-reports/", "GET", scopes=READ)
def user_reports(request: Request, issue: str) -> Response:  # noqa: ARG001
    """User feedback is not collected, so the list is empty, also that of a missing issue."""
    return paginate(
        request, "SELECT id FROM issue_events_issue WHERE false", [], "id", lambda _: [], cast="bigint"
    )


@api("/api/0/organizations/{org}/issues/{issue:int}/hashes/", "GET", scopes=("event:read",))
def issue_hashes(request: Request, org: str, issue: str) -> Response:
    """The grouping hashes with the latest event of each; a missing issue has none."""
    from .events import event_json

    owner = auth.organization(request, org)

    def render(rows: list[Row]) -> list[Any]:
        shown = []
        for found in rows:
            latest = db.one(
                "SELECT * FROM issue_events_issueevent WHERE project_id = %s AND hash = %s"
                " ORDER BY received DESC LIMIT 1",
                [found["project_id"], found["value"]],
            )
            shown.append({"id": found["value"], "latestEvent": event_json(latest) if latest else None})
        return shown

    return paginate(
        request,
        "SELECT h.* FROM issue_events_issuehash h JOIN projects_project p ON p.id = h.project_id"
        " WHERE h.issue_id = %s AND p.organization_id = %s",
        [issue, owner["id"]],
        "value",
        render,
        cast="text",
        collate=True,
    )


@api("/api/0/organizations/{org}/issues/{issue:int}/hashes/", "DELETE", scopes=("event:admin",))
def delete_hashes(request: Request, org: str, issue: str) -> Response:
    """Later events with these hashes make issues of their own."""
    owner = auth.organization(request, org)
    values = request.parameters("id")
    if not values:
        raise unprocessable([missing("query", "id")])
    db.execute(
        "DELETE FROM issue_events_issuehash h USING projects_project p WHERE p.id = h.project_id"
        " AND p.organization_id = %s AND h.issue_id = %s AND h.value = ANY(%s)",
        [owner["id"], issue, [value.replace("-", "").lower() for value in values]],
    )
    return Response(202)
