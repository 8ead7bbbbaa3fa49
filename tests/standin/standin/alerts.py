"""Alert rules of a project: create, list, change, delete, and on the 6.2 line test.

PUT keeps the scalars that are not sent but deletes the recipients that are not sent. The 5.2 line never shows
``tagsToAdd``, and changing it for a recipient that exists breaks it. Nothing here is atomic: what was written
before something broke stays. URLs are normalised when they are saved.

The 6.2 line by its source (apps/alerts of the 6.2 line): more kinds of recipient, ``config`` and ``tagsToAdd``
in answers, changed tags are saved, private addresses are refused.
"""

from __future__ import annotations

import json
from typing import Any

import psycopg

from . import alerting, auth, db, state
from .auth import api
from .http import Request, Response, Row, answer, no_content, not_found, server_error, unknown_path
from .pagination import paginate
from .urls import is_private, read
from .validation import Error, Field, integer_parameter, missing, payload, unprocessable

#: Since 6.0.7 every scope of the project's lists its rules (CHANGELOG).
LIST = {"5.2": ("project:read",), "6.2": ("project:read", "project:write", "project:admin")}
WRITE = ("project:write", "project:admin")
ADMIN = ("project:admin",)
LONGEST_NAME = 255
LONGEST_URL = 2000
PRIVATE = "URLs targeting private or internal IPs are not allowed"
ZULIP_FIELDS = {"bot_email": "botEmail", "api_key": "apiKey", "channel": "channel", "topic": "topic"}
#: The kinds with a URL, and how the answer to an unknown kind names all of them.
WITH_URL = {
    "5.2": ("discord", "webhook", "googlechat"),
    "6.2": ("discord", "feishu", "webhook", "googlechat", "teams", "ntfy", "zulip"),
}
_NAMES = {"webhook": "GENERAL_WEBHOOK", "googlechat": "GOOGLE_CHAT", "teams": "MICROSOFT_TEAMS"}
_FIELDS = (
    Field("name", nullable=True),
    Field("timespanMinutes", kind="int", nullable=True),
    Field("quantity", kind="int", nullable=True),
    Field("uptime", kind="bool"),
    Field("alertRecipients", kind="list", nullable=True),
)
_COLUMNS = {
    "name": "name",
    "timespanMinutes": "timespan_minutes",
    "quantity": "quantity",
    "uptime": "uptime",
}
#: What was sent of a recipient: ``recipient_type``, and if sent ``url``, ``tags_to_add``, ``config``.
Recipient = dict[str, Any]


def _line() -> str:
    return state.get().settings.line


def alert_json(row: Row) -> dict[str, Any]:
    """A rule with its recipients."""
    recipients = db.rows("SELECT * FROM alerts_alertrecipient WHERE alert_id = %s ORDER BY id", [row["id"]])
    return {
        "alertRecipients": [_recipient_json(item) for item in recipients],
        "id": row["id"],
        "name": row["name"],
        "timespanMinutes": row["timespan_minutes"],
        "quantity": row["quantity"],
        "uptime": row["uptime"],
    }


def _recipient_json(row: Row) -> dict[str, Any]:
    shown = {"id": row["id"], "recipientType": row["recipient_type"], "url": row["url"]}
    return shown if _line() == "5.2" else {**shown, "config": row["config"], "tagsToAdd": row["tags_to_add"]}


def _recipients(values: list[Any]) -> list[Recipient]:
    """The recipients of a body; 422 with every error."""
    found, errors = [], []
    for number, value in enumerate(values):
        where: list[str | int] = ["body", "payload", "alertRecipients", number]
        recipient, wrong = _recipient(value, where)
        found.append(recipient)
        errors += wrong
    if errors:
        raise unprocessable(errors)
    return found


def _recipient(value: Any, where: list[str | int]) -> tuple[Recipient, list[Error]]:
    if not isinstance(value, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        return {}, [{"type": "model_attributes_type", "loc": where, "msg": message}]
    kind = value.get("recipientType", value.get("recipient_type"))
    wrong = _wrong_kind(kind, where)
    if wrong:
        return {}, [wrong]
    where = [*where, str(kind)]
    sent: Recipient = {"recipient_type": kind}
    errors = [*_url(value, sent, where), *_tags(value, sent, where)]
    if kind == "zulip":
        errors += _zulip(value, sent, where)
    return sent, errors


def _wrong_kind(kind: Any, where: list[str | int]) -> Error | None:
    discriminator = "'recipient_type' | 'recipientType'"
    if kind is None:
        message = f"Unable to extract tag using discriminator {discriminator}"
        context = {"discriminator": discriminator}
        return {"type": "union_tag_not_found", "loc": where, "msg": message, "ctx": context}
    if kind == "email" or kind in WITH_URL[_line()]:
        return None
    kinds = ("email", *WITH_URL[_line()])
    tags = ", ".join(f"RecipientType.{_NAMES.get(name, name.upper())}" for name in kinds)
    message = (
        f"Input tag '{kind}' found using {discriminator} does not match any of the expected tags: {tags}"
    )
    context = {"discriminator": discriminator, "tag": str(kind), "expected_tags": tags}
    return {"type": "union_tag_invalid", "loc": where, "msg": message, "ctx": context}


def _url(value: dict[str, Any], sent: Recipient, where: list[str | int]) -> list[Error]:
    email = sent["recipient_type"] == "email"
    if "url" not in value:
        return [] if email else [missing(*where, "url")]
    if email and value["url"] in ("", None):
        sent["url"] = value["url"]
        return []
    url, error = read(value["url"])
    if error is None and not email and not state.get().settings.allow_private_ips and is_private(url):
        error = {"type": "value_error", "msg": f"Value error, {PRIVATE}", "ctx": {"error": PRIVATE}}
    if error:
        return [{**error, "loc": [*where, "url"]}]
    sent["url"] = url
    return []


def _tags(value: dict[str, Any], sent: Recipient, where: list[str | int]) -> list[Error]:
    name = "tagsToAdd" if "tagsToAdd" in value else "tags_to_add"
    if name not in value:
        return []
    tags = sent["tags_to_add"] = value[name]
    where = [*where, "tagsToAdd"]
    if tags is None:
        return []
    if not isinstance(tags, list):
        return [{"type": "list_type", "loc": where, "msg": "Input should be a valid list"}]
    return [
        {"type": "string_type", "loc": [*where, number], "msg": "Input should be a valid string"}
        for number, tag in enumerate(tags)
        if not isinstance(tag, str)
    ]


def _zulip(value: dict[str, Any], sent: Recipient, where: list[str | int]) -> list[Error]:
    """Its flat fields become ``config``; the topic has a default that is only stored when it is sent."""
    sent["config"], errors = {}, []
    for column, name in ZULIP_FIELDS.items():
        given = value.get(name, value.get(column))
        if name not in value and column not in value:
            errors += [] if name == "topic" else [missing(*where, name)]
        elif isinstance(given, str):
            sent["config"][column] = given
        else:
            message = "Input should be a valid string"
            errors.append({"type": "string_type", "loc": [*where, name], "msg": message})
    return errors


def _insert(alert: int, sent: Recipient) -> None:
    """Raises 500 for the same type and URL again, for a URL of null and for one that is too long."""
    url, tags = sent.get("url", ""), sent.get("tags_to_add", [])
    if url is None or len(url) > LONGEST_URL:
        raise server_error()
    try:
        db.execute(
            "INSERT INTO alerts_alertrecipient (alert_id, recipient_type, url, tags_to_add, config)"
            " VALUES (%s, %s, %s, %s, %s)",
            [alert, sent["recipient_type"], url, tags, json.dumps(sent.get("config", {}))],
        )
    except psycopg.errors.UniqueViolation:
        raise server_error() from None


def _put(alert: int, sent: Recipient) -> int:
    """Find or make a recipient; its id.

    The 5.2 line finds it by all that was sent, so that other tags are a new recipient, which breaks on the
    type and URL that it shares; the 6.2 line finds it by type and URL and changes the rest.
    """
    finds = sent if _line() == "5.2" else {key: sent.get(key, "") for key in ("recipient_type", "url")}
    same = "".join(f" AND {column} IS NOT DISTINCT FROM %s" for column in finds)
    sql = f"SELECT id FROM alerts_alertrecipient WHERE alert_id = %s{same} ORDER BY id"
    found = db.rows(sql, [alert, *finds.values()])
    if len(found) > 1:
        raise server_error()
    if not found:
        _insert(alert, sent)
        return int(db.rows(sql, [alert, *finds.values()])[0]["id"])
    for column in ("tags_to_add", "config"):
        if column not in finds and column in sent:
            changed = json.dumps(sent[column]) if column == "config" else sent[column]
            db.execute(
                f"UPDATE alerts_alertrecipient SET {column} = %s WHERE id = %s", [changed, found[0]["id"]]
            )
    return int(found[0]["id"])


def _scalars(body: dict[str, Any]) -> dict[str, Any]:
    """The columns that a body sets. Raises 500 for a name of null or one that is too long."""
    if "name" in body and (body["name"] is None or len(body["name"]) > LONGEST_NAME):
        raise server_error()
    return {column: body[name] for name, column in _COLUMNS.items() if name in body}


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
    """Every field is optional. Recipients that break the server (two identical ones, null) leave the rule."""
    owner = auth.project(request, org, project)
    body = payload(request, _FIELDS)
    sent = body.pop("alertRecipients", [])
    recipients = _recipients(sent or [])
    if not _may_write(request, org, owner):
        raise not_found()
    row = _save(
        "INSERT INTO alerts_projectalert (project_id, name, timespan_minutes, quantity, uptime)"
        " VALUES (%(project)s, %(name)s, %(timespan_minutes)s, %(quantity)s, %(uptime)s) RETURNING *",
        {
            "project": owner["id"],
            "name": "",
            "timespan_minutes": None,
            "quantity": None,
            "uptime": False,
            **_scalars(body),
        },
    )
    if sent is None:
        raise server_error()
    with db.transaction():  # the recipients are made in one go: all or none
        for recipient in recipients:
            _insert(row["id"], recipient)
    return answer(alert_json(row), 201)


def _save(sql: str, values: dict[str, Any]) -> Row:
    try:
        return db.must(sql, values)
    except (psycopg.errors.NumericValueOutOfRange, psycopg.errors.CheckViolation):
        raise server_error() from None


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
    """What is sent changes; recipients that are not sent are deleted; identical ones keep their ids.

    Written one after the other: when a recipient breaks the server, the scalars and the recipients before it
    are saved, and none is deleted.
    """
    owner = auth.project(request, org, project)
    row = _find(request, org, project, alert)
    body = payload(request, _FIELDS)
    sent = body.pop("alertRecipients", [])
    recipients = _recipients(sent or [])
    if not _may_write(request, org, owner):
        raise not_found()
    columns = {name: row[name] for name in _COLUMNS.values()}
    updated = _save(
        "UPDATE alerts_projectalert SET name = %(name)s, timespan_minutes = %(timespan_minutes)s,"
        " quantity = %(quantity)s, uptime = %(uptime)s WHERE id = %(id)s RETURNING *",
        {**columns, **_scalars(body), "id": row["id"]},
    )
    if sent is None:
        raise server_error()
    kept = [_put(row["id"], recipient) for recipient in recipients]
    db.execute(
        "DELETE FROM alerts_alertrecipient WHERE alert_id = %s AND NOT id = ANY(%s)", [row["id"], kept]
    )
    return answer(alert_json(updated))


@api("/api/0/projects/{org}/{project}/alerts/{alert:int}/test/", "POST", scopes=WRITE)
def test_alert(request: Request, org: str, project: str, alert: str) -> Response:
    """Send a test to every recipient, or to ``recipient_id``; e-mail is skipped, answers are not looked at."""
    if _line() == "5.2":
        return unknown_path(request)
    row = _find(request, org, project, alert)
    only = integer_parameter(request, "recipient_id")
    results = []
    for recipient in db.rows(
        "SELECT * FROM alerts_alertrecipient WHERE alert_id = %s ORDER BY id", [row["id"]]
    ):
        if only is not None and recipient["id"] != only:
            continue
        kind = recipient["recipient_type"]
        if kind != "email":
            alerting.test(row["project_id"], recipient)
        status = "skipped" if kind == "email" else "sent"
        results.append({"recipientType": kind, "status": status, "message": None})
    return answer(results)
