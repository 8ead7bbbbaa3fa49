"""Which issues a rule fires for, and the messages that go out. Runs in the worker, once a tick.

A rule fires for an issue of its project that got at least ``quantity`` events within the last
``timespanMinutes`` and that this rule did not report yet. All issues of one tick come in one message a
rule. There is no retry: HTTP errors count as delivered, a refused connection skips the recipients after it
for good.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from . import db, mail, state
from .alerts import is_private
from .issues import short_id

log = logging.getLogger("glitchtip.worker")

TIMEOUT_SECONDS = 10
#: The measured server's own; our own version of requests does not matter to a receiver.
USER_AGENT = "python-requests/2.32.4"
#: The colour of errors, the only one that was seen.
COLOR = "#e52b50"


def evaluate() -> None:
    """One tick: find what every rule has to report and queue one notification a rule."""
    rules = db.rows(
        "SELECT a.* FROM alerts_projectalert a JOIN projects_project p ON p.id = a.project_id AND"
        " NOT p.is_deleted"
        " WHERE a.quantity IS NOT NULL AND a.timespan_minutes IS NOT NULL ORDER BY a.id"
    )
    for rule in rules:
        with db.transaction():
            found = db.rows(
                "SELECT e.issue_id AS id FROM issue_events_issueevent e"
                " JOIN issue_events_issue i ON i.id = e.issue_id AND NOT i.is_deleted"
                " WHERE e.project_id = %s AND e.received >= now() - make_interval(mins => %s)"
                " AND NOT EXISTS (SELECT FROM alerts_notification_issues ni"
                " JOIN alerts_notification n ON n.id = ni.notification_id"
                " WHERE ni.issue_id = e.issue_id AND n.alert_id = %s)"
                " GROUP BY e.issue_id HAVING count(*) >= %s ORDER BY e.issue_id",
                [rule["project_id"], rule["timespan_minutes"], rule["id"], rule["quantity"]],
            )
            if not found:
                continue
            number = db.must(
                "INSERT INTO alerts_notification (alert_id) VALUES (%s) RETURNING id", [rule["id"]]
            )["id"]
            for issue in found:
                db.execute("INSERT INTO alerts_notification_issues VALUES (%s, %s)", [number, issue["id"]])
        state.get().queue.put({"task": "send_notification", "id": number})


def deliver(number: int) -> None:
    """Send one notification to the recipients of its rule, in order.

    Raises what requests raises when a receiver cannot be reached: the rest is not sent then.
    """
    rule = db.one(
        "SELECT a.*, p.name AS project_name, p.slug AS project_slug, o.slug AS organization_slug,"
        " p.organization_id"
        " FROM alerts_notification n JOIN alerts_projectalert a ON a.id = n.alert_id"
        " JOIN projects_project p ON p.id = a.project_id"
        " JOIN organizations_ext_organization o ON o.id = p.organization_id WHERE n.id = %s",
        [number],
    )
    if rule is None:
        return
    issues = db.rows(
        "SELECT i.*, p.slug AS project_slug FROM issue_events_issue i JOIN projects_project p ON"
        " p.id = i.project_id"
        " JOIN alerts_notification_issues ni ON ni.issue_id = i.id WHERE ni.notification_id = %s"
        " ORDER BY i.id",
        [number],
    )
    recipients = db.rows("SELECT * FROM alerts_alertrecipient WHERE alert_id = %s ORDER BY id", [rule["id"]])
    if not recipients:
        recipients = [{"recipient_type": "email", "url": "", "tags_to_add": []}]
    for recipient in recipients:
        _send(rule, issues, recipient)
    db.execute("UPDATE alerts_notification SET is_sent = true WHERE id = %s", [number])


def _send(rule: db.Row, issues: list[db.Row], recipient: db.Row) -> None:
    kind, url = recipient["recipient_type"], recipient["url"]
    if kind == "email":
        people = db.rows(
            "SELECT DISTINCT u.email FROM users_user u JOIN organizations_ext_organizationuser m ON"
            " m.user_id = u.id"
            " JOIN teams_team_members tm ON tm.organizationuser_id = m.id"
            " JOIN teams_team_projects tp ON tp.team_id = tm.team_id WHERE tp.project_id = %s ORDER"
            " BY u.email",
            [rule["project_id"]],
        )
        text = f"{len(issues)} error{'s' if len(issues) > 1 else ''} reported in {rule['project_name']}"
        mail.send([row["email"] for row in people], text)
        return
    if not state.get().settings.allow_private_ips and is_private(url):
        log.warning("alert %s: the receiver has a private address, nothing is sent", rule["id"])
        return
    shown = issues[: state.get().settings.max_issues_per_alert]
    parts = [_part(rule, issue, recipient["tags_to_add"]) for issue in shown]
    bodies = {"webhook": _webhook, "discord": _discord, "googlechat": _google_chat}
    post(url, bodies[kind](rule, parts, len(issues)), kind)


def post(url: str, body: dict[str, Any], kind: str) -> None:
    """Deliver one message. Any answer counts as delivered; no answer raises what requests raises."""
    import requests  # only the worker needs it

    headers = {"User-Agent": USER_AGENT, "Content-Type": "application/json"}
    reply = requests.post(url, data=json.dumps(body), headers=headers, timeout=TIMEOUT_SECONDS)
    log.info("%s alert sent, answer %d", kind, reply.status_code)


def _tag(issue: int, key: str) -> str | None:
    row = db.one(
        "SELECT value FROM issue_events_issuetag WHERE issue_id = %s AND key = %s"
        " GROUP BY value ORDER BY sum(count) DESC, value LIMIT 1",
        [issue, key],
    )
    return None if row is None else str(row["value"])


def _part(rule: db.Row, issue: db.Row, tags: list[str]) -> dict[str, Any]:
    """What every kind of message tells about one issue."""
    domain = state.get().settings.domain
    return {
        "title": issue["title"],
        "url": f"{domain}/{rule['organization_slug']}/issues/{issue['id']}",
        "culprit": issue["culprit"],
        "short_id": short_id(issue),
        "project": rule["project_name"],
        "environment": _tag(issue["id"], "environment"),
        "server_name": _tag(issue["id"], "server_name"),
        "release": _tag(issue["id"], "release"),
        "tags": [(tag, value) for tag in tags if (value := _tag(issue["id"], tag))],
    }


def _headline(total: int) -> str:
    return "GlitchTip Alert" if total == 1 else f"GlitchTip Alert ({total} issues)"


def _webhook(_: db.Row, parts: list[dict[str, Any]], total: int) -> dict[str, Any]:
    attachments = []
    for part in parts:
        fields = [{"title": "Project", "value": part["project"], "short": True}]
        for title, name, short in (
            ("Environment", "environment", True),
            ("Server Name", "server_name", True),
            ("Release", "release", False),
        ):
            if part[name]:
                fields.append({"title": title, "value": part[name], "short": short})
        fields += [{"title": tag.capitalize(), "value": value, "short": False} for tag, value in part["tags"]]
        attachment = {
            "title": part["title"],
            "title_link": part["url"],
            "text": part["culprit"],
            "image_url": None,
            "color": COLOR,
            "fields": fields,
            "mrkdown_in": ["text"],
        }
        if state.get().settings.line == "6.2":
            del attachment["text"]  # absent since 6.2.3, whose culprit is null
        attachments.append(attachment)
    sections = [
        {
            "activityTitle": part["title"],
            "activitySubtitle": f"[View Issue {part['short_id']}]({part['url']})",
        }
        for part in parts
    ]
    return {"alias": "GlitchTip", "text": _headline(total), "attachments": attachments, "sections": sections}


def _discord(_: db.Row, parts: list[dict[str, Any]], total: int) -> dict[str, Any]:
    embeds = []
    for part in parts:
        fields = [{"name": "Project", "value": part["project"], "inline": True}]
        for title, name, inline in (
            ("Environment", "environment", True),
            ("Release", "release", False),
            ("Server name", "server_name", False),
        ):
            if part[name]:
                fields.append({"name": title, "value": part[name], "inline": inline})
        fields += [{"name": tag.capitalize(), "value": value, "inline": False} for tag, value in part["tags"]]
        embeds.append(
            {
                "title": part["title"],
                "description": part["culprit"],
                "color": int(COLOR[1:], 16),
                "url": part["url"],
                "fields": fields,
            }
        )
    return {"content": _headline(total), "embeds": embeds}


def _google_chat(_: db.Row, parts: list[dict[str, Any]], __: int) -> dict[str, Any]:
    cards = []
    for part in parts:
        widgets: list[dict[str, Any]] = [{"decoratedText": {"topLabel": "Culprit", "text": part["culprit"]}}]
        labels = [("Environment", "environment"), ("Server Name", "server_name"), ("Release", "release")]
        pairs = [(title, part[name]) for title, name in labels if part[name]]
        pairs += [(tag.capitalize(), value) for tag, value in part["tags"]]
        widgets += [{"decoratedText": {"topLabel": title, "text": value}} for title, value in pairs]
        link = {"text": f"View Issue {part['short_id']}", "onClick": {"openLink": {"url": part["url"]}}}
        widgets.append({"buttonList": {"buttons": [link]}})
        section = {"header": f"<font color='{COLOR}'>{part['title']}</font>", "widgets": widgets}
        header = {"title": "GlitchTip Alert", "subtitle": part["project"]}
        cards.append({"cardId": "createCardMessage", "card": {"header": header, "sections": [section]}})
    return {"cardsV2": cards}
