"""Uptime monitors of an organization, their checks, and the heartbeat endpoint. No token scope is needed.

The checks themselves are in :mod:`standin.uptime`. What the real server breaks on, this one does, too: a
number out of range is 500; an unknown type is 500 although the monitor is stored, and from then on nobody
can list the organization's monitors. 6.2 line: ``confirmationThreshold`` (a PUT without it sets it to 1), intervals of
1 to 86400 (notes on 6.2.6; what a number out of range answers there was not seen, here it is 422).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import psycopg

from . import auth, db, state, uptime
from .auth import api
from .http import Request, Response, Row, answer, fail, no_content, not_found, router, server_error, stamp
from .pagination import paginate
from .urls import is_private
from .validation import Error, Field, payload, unprocessable

HTTP_TYPES = ("Ping", "GET", "POST")
TYPES = (*HTTP_TYPES, "TCP Port", "SSL", "Heartbeat")
CHECKS_SHOWN = 60
PATH = "/api/0/organizations/{org}/monitors/"
_FIELDS = (
    Field("expectedBody", required=True),
    Field("expectedStatus", kind="int", required=True, nullable=True),
    Field("timeout", kind="int", required=True, nullable=True),
    Field("project", nullable=True),
    Field("monitorType", max_length=12),
    Field("name", required=True, max_length=200),
    Field("url", nullable=True, max_length=2000),
    Field("interval", kind="int"),
    Field("confirmationThreshold", kind="int"),
)
LONGEST_INTERVAL = 86400
SMALLINT = 32767
_LETTER = "a-z\u00a1-\uffff"
_LABEL = rf"[{_LETTER}0-9](?:[{_LETTER}0-9-]{{0,61}}[{_LETTER}0-9])?"
_TOP_LEVEL = rf"(?:[{_LETTER}](?:[{_LETTER}-]{{0,61}}[{_LETTER}])|xn--[a-z0-9-]{{0,58}}[a-z0-9])"
_HOST = re.compile(rf"localhost|{_LABEL}(?:\.{_LABEL})*\.{_TOP_LEVEL}\.?", re.IGNORECASE)
_ADDRESS = re.compile(
    r"(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!\Z)|\Z)){4}\Z|\[[0-9a-f:.]+\]\Z", re.IGNORECASE
)
_URL = re.compile(
    r"(?:https?|ftps?)://(?:[^\s:@/]+(?::[^\s:@/]*)?@)?(\[[^\]\s]+\]|[^\s:/?#\[\]]+)(?::\d{1,5})?(?:[/?#]\S*)?\Z",
    re.IGNORECASE,
)


def valid_url(url: str) -> bool:
    """Whether Django's URL check takes it: a host is an address, ``localhost`` or a name with a dot and
    without an underscore."""
    match = _URL.match(url)
    host = match.group(1) if match else ""
    return bool(_ADDRESS.match(host) or _HOST.fullmatch(host))


def _line() -> str:
    return state.get().settings.line


def check_rows(monitor: int, limit: int = CHECKS_SHOWN) -> list[Row]:
    """The latest checks of the last twelve hours."""
    return db.rows(
        "SELECT * FROM uptime_monitorcheck WHERE monitor_id = %s AND start_check > now() - interval '12 hours'"
        " ORDER BY start_check DESC LIMIT %s",
        [monitor, limit],
    )


def check_json(row: Row, detail: bool) -> dict[str, Any]:
    """One check; with its response time where the real server shows it."""
    shown = {"isUp": row["is_up"], "startCheck": stamp(row["start_check"]), "reason": row["reason"]}
    return {**shown, "responseTime": row["response_time"]} if detail else shown


def monitor_json(row: Row, detail: bool = False) -> dict[str, Any]:
    """A monitor (with ``organization_slug``, ``project_name`` and what :data:`uptime.STATE` adds); 500 for
    one of an unknown type."""
    if row["monitor_type"] not in TYPES:
        raise server_error()
    endpoint = row["endpoint_id"]
    path = f"/api/0/organizations/{row['organization_slug']}/heartbeat_check/{endpoint}/"
    changed = row["last_change"]
    return {
        "projectID": None if row["project_id"] is None else str(row["project_id"]),
        "environmentID": None,
        "isUp": row["latest_is_up"],
        "lastChange": changed.isoformat().replace("+00:00", "Z") if changed else None,
        "heartbeatEndpoint": f"{state.get().settings.domain}{path}" if endpoint else None,
        "projectName": row["project_name"],
        "envName": None,
        "checks": [check_json(check, detail) for check in check_rows(row["id"])],
        "organizationID": row["organization_id"],
        "monitorType": row["monitor_type"],
        "id": row["id"],
        "endpointID": endpoint,
        "created": stamp(row["created"]),
        "name": row["name"],
        "url": row["url"],
        "expectedStatus": row["expected_status"],
        "expectedBody": row["expected_body"],
        "interval": row["interval"],
        "timeout": row["timeout"],
        **({} if _line() == "5.2" else {"confirmationThreshold": row["confirmation_threshold"]}),
    }


def _out_of_bounds(body: dict[str, Any]) -> list[Error]:
    bounds = {"timeout": 60}
    if _line() == "6.2":
        bounds |= {"interval": LONGEST_INTERVAL, "confirmationThreshold": 32767}
    return [error for name, most in bounds.items() for error in _bounds(name, body.get(name), most)]


def _bounds(field: str, value: int | None, most: int) -> list[Error]:
    if value is None or 1 <= value <= most:
        return []
    name, sign, limit = ("greater_than_equal", "ge", 1) if value < 1 else ("less_than_equal", "le", most)
    message = f"Input should be {name.replace('_', ' ').replace('equal', 'or equal to')} {limit}"
    where = ["body", "payload", field]
    return [{"type": name, "loc": where, "msg": message, "ctx": {sign: limit}}]


def _port_url(url: str | None) -> str:
    """``host:port`` as it is stored; 422 when it is something else."""
    if url is None:
        raise server_error()
    text = url.replace("http://", "//", 1)
    parts = urlsplit(text if text.startswith("//") else f"//{text}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or not port:
        raise fail(422, "Invalid Port URL, expected hostname and port")
    return f"{parts.hostname}:{port}"


def _refuse_private(kind: str, url: str) -> None:
    """6.2 line: a target must be public unless the server allows private ones."""
    if state.get().settings.uptime_allow_private_ips or kind not in {*HTTP_TYPES, "TCP Port"}:
        return
    if is_private(f"tcp://{url}" if kind == "TCP Port" else url):
        raise fail(422, "URLs targeting private/internal IPs are not allowed")


def _read(request: Request) -> dict[str, Any]:
    """The body, checked as the real server does it, in its order."""
    body = payload(request, _FIELDS)
    errors = _out_of_bounds(body)
    if errors:
        raise unprocessable(errors)
    if _line() == "5.2":
        body.pop("confirmationThreshold", None)
    kind = body.setdefault("monitorType", "Ping")
    url = body.setdefault("url", None)
    if url == "" and kind in {*HTTP_TYPES, "SSL"}:
        raise fail(422, f"URL is required for {kind}")
    if kind in HTTP_TYPES and not valid_url(url or ""):
        raise fail(422, "Invalid Url")
    if body["expectedStatus"] is None and kind in {"GET", "POST"}:
        raise fail(422, f"Expected status is required for {kind}")
    if kind == "TCP Port":
        body["url"] = _port_url(url)
    _refuse_private(kind, body["url"] or "")
    return body


def _project(body: dict[str, Any], organization: int) -> int | None:
    """The id of the body's project. Unknown: none at all, without a word. Not a number: 500."""
    given = body.get("project")
    if not given:
        return None
    try:
        number = int(given)
    except ValueError:
        raise server_error() from None
    row = db.one(
        "SELECT id FROM projects_project WHERE id = %s AND organization_id = %s AND NOT is_deleted",
        [number, organization],
    )
    return row["id"] if row else None


def _save(sql: str, params: Sequence[Any], interval: int = 0) -> Row:
    if _line() == "5.2" and interval > SMALLINT:
        raise server_error()  # the column is a smallint there
    try:
        return db.must(sql, params)
    except (psycopg.errors.DataError, psycopg.errors.IntegrityError):
        raise server_error() from None


def _rows(request: Request, org: str, more: str = "", params: Sequence[Any] = ()) -> tuple[str, list[Any]]:
    """The query for the monitors that the user may see, and its parameters."""
    sql = (
        f"SELECT n.*, o.slug AS organization_slug, p.name AS project_name, {uptime.STATE}"
        " FROM uptime_monitor n JOIN organizations_ext_organization o ON o.id = n.organization_id"
        " JOIN organizations_ext_organizationuser m ON m.organization_id = o.id"
        " LEFT JOIN projects_project p ON p.id = n.project_id"
        f" WHERE NOT o.is_deleted AND m.user_id = %s AND o.slug = %s {more}"
    )
    return sql, [auth.user_id(request), org, *params]


def _find(request: Request, org: str, monitor: str) -> Row:
    row = db.one(*_rows(request, org, "AND n.id = %s", [int(monitor)]))
    if row is None:
        raise not_found()
    return row


@api(PATH, "POST")
def create_monitor(request: Request, org: str) -> Response:
    """201; names may repeat. An unknown type is stored and then 500."""
    body = _read(request)
    owner = auth.organization(request, org)
    kind = body["monitorType"]
    row = _save(
        "INSERT INTO uptime_monitor (organization_id, project_id, monitor_type, endpoint_id, name, url,"
        ' expected_status, expected_body, "interval", timeout, confirmation_threshold)'
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        [
            owner["id"],
            _project(body, owner["id"]),
            kind,
            uuid.uuid4() if kind == "Heartbeat" else None,
            body["name"],
            body["url"] or "",
            body["expectedStatus"],
            body["expectedBody"],
            body.get("interval", 60),
            body["timeout"],
            body.get("confirmationThreshold", 1),
        ],
        body.get("interval", 60),
    )
    uptime.check_soon(row["id"], kind)
    return answer(monitor_json(_find(request, org, str(row["id"]))), 201)


@api(PATH, "GET")
def list_monitors(request: Request, org: str) -> Response:
    """Newest first; an organization that the user is no member of has none."""
    sql, params = _rows(request, org)
    return paginate(
        request, sql, params, "created", lambda rows: [monitor_json(row) for row in rows], descending=True
    )


@api(PATH + "{monitor:int}/", "DELETE")
def delete_monitor(request: Request, org: str, monitor: str) -> Response:
    """204 with its checks, again 404; also one of an unknown type."""
    db.execute("DELETE FROM uptime_monitor WHERE id = %s", [_find(request, org, monitor)["id"]])
    return no_content()


@api(PATH + "{monitor:int}/", "PUT")
def update_monitor(request: Request, org: str, monitor: str) -> Response:
    """The whole body: what is not in it gets its default, and the project is unlinked."""
    body = _read(request)
    row = _find(request, org, monitor)
    if body.get("project") == "":
        raise server_error()
    kind = body["monitorType"]
    endpoint = row["endpoint_id"] or (uuid.uuid4() if kind == "Heartbeat" else None)
    _save(
        "UPDATE uptime_monitor SET project_id = %s, monitor_type = %s, endpoint_id = %s, name = %s, url = %s,"
        ' expected_status = %s, expected_body = %s, "interval" = %s, timeout = %s, confirmation_threshold = %s'
        " WHERE id = %s RETURNING id",
        [
            _project(body, row["organization_id"]),
            kind,
            endpoint,
            body["name"],
            body["url"],
            body["expectedStatus"],
            body["expectedBody"],
            body.get("interval", 60),
            body["timeout"],
            body.get("confirmationThreshold", 1),
            row["id"],
        ],
        body.get("interval", 60),
    )
    uptime.check_soon(row["id"], kind)
    return answer(monitor_json(_find(request, org, monitor)))


@api(PATH + "{monitor:int}/", "GET")
def get_monitor(request: Request, org: str, monitor: str) -> Response:
    """One monitor; its checks have their response time."""
    return answer(monitor_json(_find(request, org, monitor), detail=True))


_BOOLEANS = {
    **dict.fromkeys(("true", "1", "on", "yes", "y", "t"), True),
    **dict.fromkeys(("false", "0", "off", "no", "n", "f"), False),
}


@api(PATH + "{monitor:int}/checks/", "GET")
def list_checks(request: Request, org: str, monitor: str) -> Response:
    """Newest first, ``?is_change=true`` those that found another state; a missing monitor has none."""
    given = request.parameter("is_change")
    wanted = None if given is None else _BOOLEANS.get(given.lower())
    if given is not None and wanted is None:
        message = "Input should be a valid boolean, unable to interpret input"
        raise unprocessable([{"type": "bool_parsing", "loc": ["query", "is_change"], "msg": message}])
    sql = (
        "SELECT c.* FROM uptime_monitorcheck c JOIN uptime_monitor n ON n.id = c.monitor_id"
        " JOIN organizations_ext_organization o ON o.id = n.organization_id AND NOT o.is_deleted"
        " JOIN organizations_ext_organizationuser m ON m.organization_id = o.id"
        " WHERE m.user_id = %s AND o.slug = %s AND n.id = %s"
    )
    params: list[Any] = [auth.user_id(request), org, int(monitor)]
    if wanted is not None:
        sql += " AND c.is_change = %s"
        params.append(wanted)
    return paginate(
        request,
        sql,
        params,
        "start_check",
        lambda rows: [check_json(row, detail=True) for row in rows],
        descending=True,
    )


@router.route("/api/0/organizations/{org}/heartbeat_check/{endpoint:uuid}/", "POST")
def heartbeat(_: Request, org: str, endpoint: str) -> Response:
    """The sign of life of whatever a heartbeat monitor watches; open to everybody who knows the address."""
    row = db.one(
        f"SELECT n.*, {uptime.STATE} FROM uptime_monitor n"
        " JOIN organizations_ext_organization o ON o.id = n.organization_id AND NOT o.is_deleted"
        " WHERE o.slug = %s AND n.endpoint_id = %s",
        [org, endpoint],
    )
    if row is None:
        raise not_found()
    check = uptime.heartbeat(row)
    return answer({"is_up": True, "start_check": stamp(check["start_check"]), "reason": None})
