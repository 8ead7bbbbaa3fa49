"""Which issues a rule fires for, and who is told. Runs in the worker, once a tick.

A rule fires for an issue of its project that got an event since the last tick, has at least ``quantity`` events
within the last ``timespanMinutes``, and was not reported by this rule yet; its status does not matter. All issues
of one tick come in one message a rule. There is no retry: any answer counts as delivered, and on the 5.2 line a
refused connection skips the recipients after it for good.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from . import db, mail, messages, state
from .issues import short_id
from .messages import Part, Tag

log = logging.getLogger("glitchtip.worker")

#: The issues that got an event since the last tick, where the cache is Valkey; forgotten after an hour.
RECENT = "alert_issue_ids"
RECENT_SECONDS = 3600
#: Tags that every message shows, in this order, before those that the recipient asks for.
STANDARD = {"environment": "Environment", "server_name": "Server Name", "release": "Release"}

post = messages.post


def evaluate() -> None:
    """One tick: find what every rule has to report and queue one notification a rule."""
    recent = state.get().cache.drain(RECENT)
    if recent is not None and not recent:
        return
    rules = db.rows(
        "SELECT a.* FROM alerts_projectalert a JOIN projects_project p ON p.id = a.project_id AND"
        " NOT p.is_deleted"
        " WHERE a.quantity IS NOT NULL AND a.timespan_minutes IS NOT NULL ORDER BY a.id"
    )
    for rule in rules:
        try:
            number = _notification(rule, recent)
        except psycopg.errors.ForeignKeyViolation:
            log.info("rule %s or one of its issues was deleted during this tick", rule["id"])
            continue
        if number is not None:
            state.get().queue.put({"task": "send_notification", "id": number})


def _notification(rule: db.Row, recent: Any) -> int | None:
    """The notification of what a rule has to report, or None when that is nothing."""
    with db.transaction():
        found = db.rows(
            "SELECT e.issue_id AS id FROM issue_events_issueevent e"
            " JOIN issue_events_issue i ON i.id = e.issue_id AND NOT i.is_deleted"
            " WHERE e.project_id = %s AND e.received >= now() - make_interval(mins => %s)"
            " AND (%s::bigint[] IS NULL OR e.issue_id = ANY(%s))"
            " AND NOT EXISTS (SELECT FROM alerts_notification_issues ni"
            " JOIN alerts_notification n ON n.id = ni.notification_id"
            " WHERE ni.issue_id = e.issue_id AND n.alert_id = %s)"
            " GROUP BY e.issue_id HAVING count(*) >= %s ORDER BY e.issue_id",
            [rule["project_id"], rule["timespan_minutes"], recent, recent, rule["id"], rule["quantity"]],
        )
        if not found:
            return None
        number = int(
            db.must("INSERT INTO alerts_notification (alert_id) VALUES (%s) RETURNING id", [rule["id"]])["id"]
        )
        for issue in found:
            db.execute("INSERT INTO alerts_notification_issues VALUES (%s, %s)", [number, issue["id"]])
        return number


def deliver(number: int) -> None:
    """Send one notification to the recipients of its rule: in order, on the 6.2 line side by side.

    Raises on the 5.2 line what requests raises when a receiver cannot be reached: the rest is not sent then.
    """
    notification = db.one("SELECT alert_id FROM alerts_notification WHERE id = %s", [number])
    if notification is None:
        return
    issues = db.rows(
        "SELECT i.*, p.slug AS project_slug, p.name AS project_name, o.slug AS organization_slug"
        " FROM issue_events_issue i JOIN projects_project p ON p.id = i.project_id"
        " JOIN organizations_ext_organization o ON o.id = p.organization_id"
        " JOIN alerts_notification_issues ni ON ni.issue_id = i.id WHERE ni.notification_id = %s"
        " ORDER BY i.id",
        [number],
    )
    recipients: list[dict[str, Any]] = db.rows(
        "SELECT * FROM alerts_alertrecipient WHERE alert_id = %s ORDER BY id", [notification["alert_id"]]
    )
    if not recipients:
        recipients = [{"recipient_type": "email"}]
    if state.get().settings.line == "5.2":
        for recipient in recipients:
            _send(issues, recipient)
    else:
        with ThreadPoolExecutor(len(recipients)) as pool:
            for failed in pool.map(lambda recipient: _caught(issues, recipient), recipients):
                if failed:
                    log.warning("a recipient could not be reached: %s", type(failed).__name__)
    db.execute("UPDATE alerts_notification SET is_sent = true WHERE id = %s", [number])


def _caught(issues: list[db.Row], recipient: dict[str, Any]) -> Exception | None:
    try:
        _send(issues, recipient)
    except Exception as error:
        return error
    return None


def test(project: int, recipient: dict[str, Any]) -> None:
    """Send a test to a recipient: the newest issue of the project, or that there is none. Failures are silent."""
    issues = db.rows(
        "SELECT i.*, p.slug AS project_slug, p.name AS project_name, o.slug AS organization_slug"
        " FROM issue_events_issue i JOIN projects_project p ON p.id = i.project_id"
        " JOIN organizations_ext_organization o ON o.id = p.organization_id"
        " WHERE i.project_id = %s AND NOT i.is_deleted ORDER BY i.id DESC LIMIT 1",
        [project],
    )
    try:
        if issues:
            _send(issues, recipient)
        else:
            name = db.must("SELECT name FROM projects_project WHERE id = %s", [project])["name"]
            messages.send_test(recipient, name)
    except OSError as error:  # what requests raises is one
        log.warning("a test could not be delivered: %s", type(error).__name__)


def _send(issues: list[db.Row], recipient: dict[str, Any]) -> None:
    if recipient["recipient_type"] == "email":
        _mail(issues)
        return
    shown = issues[: state.get().settings.max_issues_per_alert]
    parts = [_part(issue, recipient["tags_to_add"] or []) for issue in shown]
    messages.send(recipient, parts, len(issues))


def _mail(issues: list[db.Row]) -> None:
    """To everyone in the project's teams; nobody there, no mail."""
    people = db.rows(
        "SELECT DISTINCT u.email FROM users_user u JOIN organizations_ext_organizationuser m ON"
        " m.user_id = u.id"
        " JOIN teams_team_members tm ON tm.organizationuser_id = m.id"
        " JOIN teams_team_projects tp ON tp.team_id = tm.team_id WHERE tp.project_id = %s ORDER BY u.email",
        [issues[0]["project_id"]],
    )
    if not people:
        return
    project, total = issues[0]["project_name"], len(issues)
    subject = (
        f"Error in {project}: {issues[0]['title']}" if total == 1 else f"{total} errors reported in {project}"
    )
    text = "\n".join(f"{issue['title']} {_address(issue)}" for issue in issues)
    mail.send([row["email"] for row in people], subject[:998], text=text)


def _address(issue: db.Row) -> str:
    return f"{state.get().settings.domain}/{issue['organization_slug']}/issues/{issue['id']}"


def _part(issue: db.Row, tags: list[str]) -> Part:
    six = state.get().settings.line == "6.2"
    asked = [(key, STANDARD[key]) for key in STANDARD]
    asked += [
        (key, STANDARD.get(key, key.capitalize()) if six else key.capitalize())
        for key in tags
        if not (six and key in STANDARD)
    ]
    found = [Tag(key, label, value) for key, label in asked if (value := _tag(issue["id"], key))]
    return Part(
        title=issue["title"],
        url=_address(issue),
        culprit=issue["culprit"],
        short_id=short_id(issue),
        project=issue["project_name"],
        level=issue["level"],
        tags=tuple(found),
    )


def _tag(issue: int, key: str) -> str | None:
    row = db.one(
        "SELECT value FROM issue_events_issuetag WHERE issue_id = %s AND key = %s"
        " GROUP BY value ORDER BY sum(count) DESC, value LIMIT 1",
        [issue, key],
    )
    return None if row is None else str(row["value"])
