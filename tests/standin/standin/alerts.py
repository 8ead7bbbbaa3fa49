"""Alert rules of a project: create, list, change, delete.

PUT keeps the scalars that are not sent but deletes the recipients that are not sent. ``tagsToAdd`` is never
shown, and changing it for a recipient that exists breaks the server. URLs are normalised when they are
saved.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from . import auth, db, state
from .auth import api
from .http import Request, Response, Row, answer, no_content, not_found, server_error
from .pagination import paginate
from .validation import Error, Field, missing, payload, unprocessable

LIST = ("project:read",)
WRITE = ("project:write", "project:admin")
ADMIN = ("project:admin",)
WITH_URL = ("discord", "webhook", "googlechat")
_TAGS = "RecipientType.EMAIL, RecipientType.DISCORD, RecipientType.GENERAL_WEBHOOK, RecipientType.GOOGLE_CHAT"
_FIELDS = (
    Field("name", nullable=True, max_length=255),
    Field("timespanMinutes", kind="int", nullable=True),
    Field("quantity", kind="int", nullable=True),
    Field("uptime", kind="bool"),
    Field("alertRecipients", kind="list", nullable=True),
)
Recipient = tuple[str, str, tuple[str, ...]]


def alert_json(row: Row) -> dict[str, Any]:
    """A rule with its recipients."""
    recipients = db.rows("SELECT * FROM alerts_alertrecipient WHERE alert_id = %s ORDER BY id", [row["id"]])
    return {
        "alertRecipients": [
            {"id": item["id"], "recipientType": item["recipient_type"], "url": item["url"]}
            for item in recipients
        ],
        "id": row["id"],
        "name": row["name"],
        "timespanMinutes": row["timespan_minutes"],
        "quantity": row["quantity"],
        "uptime": row["uptime"],
    }


def normalised(url: str) -> str | None:
    """The absolute URL as it is stored (``https://h?token=a`` -> ``https://h/?token=a``), or None."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return None
    if parts.scheme.lower() not in {"http", "https"} or not parts.hostname:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    default = {"http": 80, "https": 443}[parts.scheme.lower()]
    where = f"{user}{host}:{port}" if port not in {None, default} else f"{user}{host}"
    return urlunsplit((parts.scheme.lower(), where, parts.path or "/", parts.query, parts.fragment))


def is_private(url: str) -> bool:
    """Whether a webhook would go to an address that is not public. A name that does not resolve is not
    private."""
    host = urlsplit(url).hostname or ""
    try:
        addresses = [host] if _literal(host) else [str(item[4][0]) for item in socket.getaddrinfo(host, None)]
    except OSError:
        return False
    return any(not ipaddress.ip_address(address.partition("%")[0]).is_global for address in addresses)


def _literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _recipient(value: Any, number: int) -> tuple[Recipient | None, Error | None]:
    where: list[str | int] = ["body", "payload", "alertRecipients", number]
    if not isinstance(value, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        return None, {"type": "model_attributes_type", "loc": where, "msg": message}
    kind = value.get("recipientType", value.get("recipient_type"))
    tags = value.get("tagsToAdd", value.get("tags_to_add")) or []
    if kind == "email":
        return ("email", "", tuple(tags)), None
    discriminator = "'recipient_type' | 'recipientType'"
    if kind is None:
        message = f"Unable to extract tag using discriminator {discriminator}"
        return None, {"type": "union_tag_not_found", "loc": where, "msg": message}
    if kind not in WITH_URL:
        return None, {
            "type": "union_tag_invalid",
            "loc": where,
            "msg": f"Input tag '{kind}' found using {discriminator} does not match any of the"
            f" expected tags: {_TAGS}",
            "ctx": {"discriminator": discriminator, "tag": kind, "expected_tags": _TAGS},
        }
    where = [*where, kind, "url"]
    if "url" not in value:
        return None, missing(*where)
    url = normalised(str(value["url"]))
    if url is None:
        reason = "relative URL without a base"
        message = f"Input should be a valid URL, {reason}"
        return None, {"type": "url_parsing", "loc": where, "msg": message, "ctx": {"error": reason}}
    if not state.get().settings.allow_private_ips and is_private(url):
        message = "Value error, URL points to a private address"
        return None, {"type": "value_error", "loc": where, "msg": message, "ctx": {"error": message}}
    return (str(kind), url, tuple(str(tag) for tag in tags)), None


def _recipients(values: list[Any]) -> list[Recipient]:
    found, errors = [], []
    for number, value in enumerate(values):
        recipient, error = _recipient(value, number)
        if recipient:
            found.append(recipient)
        if error:
            errors.append(error)
    if errors:
        raise unprocessable(errors)
    return found


def _insert(alert: int, recipients: list[Recipient]) -> None:
    """One by one and not in a transaction: what was inserted before a duplicate broke the server stays."""
    for kind, url, tags in recipients:
        try:
            db.execute(
                "INSERT INTO alerts_alertrecipient (alert_id, recipient_type, url, tags_to_add)"
                " VALUES (%s, %s, %s, %s)",
                [alert, kind, url, list(tags)],
            )
        except psycopg.errors.UniqueViolation:
            raise server_error() from None


def _find(request: Request, org: str, project: str, alert: str) -> Row:
    owner = auth.project(request, org, project)
    row = db.one("SELECT * FROM alerts_projectalert WHERE id = %s AND project_id = %s", [alert, owner["id"]])
    if row is None:
        raise not_found()
    return row


def _may_write(request: Request, org: str, project: Row) -> bool:
    """Role admin or more, or a member of a team that has the project."""
    owner = auth.organization(request, org)
    if owner["role"] >= auth.ROLES["admin"]:
        return True
    return (
        db.one(
            "SELECT 1 AS one FROM teams_team_projects p JOIN teams_team_members m ON m.team_id = p.team_id"
            " WHERE p.project_id = %s AND m.organizationuser_id = %s",
            [project["id"], owner["member_id"]],
        )
        is not None
    )


@api("/api/0/projects/{org}/{project}/alerts/", "GET", scopes=LIST)
def list_alerts(request: Request, org: str, project: str) -> Response:
    """Newest first; a missing project has none."""
    return paginate(
        request,
        "SELECT a.* FROM alerts_projectalert a JOIN projects_project p ON p.id = a.project_id AND"
        " NOT p.is_deleted"
        " JOIN organizations_ext_organization o ON o.id = p.organization_id"
        " JOIN organizations_ext_organizationuser m ON m.organization_id = o.id"
        " WHERE m.user_id = %s AND o.slug = %s AND p.slug = %s",
        [auth.user_id(request), org, project],
        "created",
        lambda rows: [alert_json(row) for row in rows],
        descending=True,
    )


@api("/api/0/projects/{org}/{project}/alerts/", "POST", scopes=WRITE)
def create_alert(request: Request, org: str, project: str) -> Response:
    """Every field is optional. Two identical recipients break the server, yet the rule stays."""
    owner = auth.project(request, org, project)
    body = payload(request, _FIELDS)
    recipients = _recipients(body.get("alertRecipients") or [])
    if not _may_write(request, org, owner):
        raise not_found()
    try:
        row = db.must(
            "INSERT INTO alerts_projectalert (project_id, name, timespan_minutes, quantity, uptime)"
            " VALUES (%s, %s, %s, %s, %s) RETURNING *",
            [
                owner["id"],
                body.get("name") or "",
                body.get("timespanMinutes"),
                body.get("quantity"),
                body.get("uptime", False),
            ],
        )
    except (psycopg.errors.NumericValueOutOfRange, psycopg.errors.CheckViolation):
        raise server_error() from None
    _insert(row["id"], recipients)
    return answer(alert_json(row), 201)


@api("/api/0/projects/{org}/{project}/alerts/{alert:int}/", "DELETE", scopes=ADMIN)
def delete_alert(request: Request, org: str, project: str, alert: str) -> Response:
    """204, again 404; role admin or more."""
    row = _find(request, org, project, alert)
    if auth.organization(request, org)["role"] < auth.ROLES["admin"]:
        raise not_found()
    db.execute("DELETE FROM alerts_projectalert WHERE id = %s", [row["id"]])
    return no_content()


@api("/api/0/projects/{org}/{project}/alerts/{alert:int}/", "PUT", scopes=WRITE)
def update_alert(request: Request, org: str, project: str, alert: str) -> Response:
    """What is sent changes; recipients that are not sent are deleted; identical ones keep their ids."""
    owner = auth.project(request, org, project)
    row = _find(request, org, project, alert)
    body = payload(request, _FIELDS)
    wanted = _recipients(body.get("alertRecipients") or [])
    if not _may_write(request, org, owner):
        raise not_found()
    there = {
        (item["recipient_type"], item["url"]): tuple(item["tags_to_add"])
        for item in db.rows("SELECT * FROM alerts_alertrecipient WHERE alert_id = %s", [row["id"]])
    }
    if any(there.get((kind, url), tags) != tags for kind, url, tags in wanted):
        raise server_error()  # unique on rule, type and URL: the same recipient cannot come with other tags
    try:
        updated = db.must(
            "UPDATE alerts_projectalert SET name = %s, timespan_minutes = %s, quantity = %s, uptime = %s"
            " WHERE id = %s RETURNING *",
            [
                body["name"] or "" if "name" in body else row["name"],
                body.get("timespanMinutes", row["timespan_minutes"]),
                body.get("quantity", row["quantity"]),
                body.get("uptime", row["uptime"]),
                row["id"],
            ],
        )
    except (psycopg.errors.NumericValueOutOfRange, psycopg.errors.CheckViolation):
        raise server_error() from None
    kept = {(kind, url) for kind, url, _ in wanted}
    for kind, url in set(there) - kept:
        db.execute(
            "DELETE FROM alerts_alertrecipient WHERE alert_id = %s AND recipient_type = %s AND url = %s",
            [row["id"], kind, url],
        )
    _insert(row["id"], [item for item in wanted if item[:2] not in there])
    return answer(alert_json(updated))
