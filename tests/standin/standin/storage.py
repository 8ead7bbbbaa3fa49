"""Storing a batch of events: issue, regression, event, tags. One transaction, so a batch is stored whole or
not.

An event whose day has no partition is lost while its issue row stays, as on the real server after a restore
or a long stop without ``pgpartition``.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from typing import Any

import psycopg

from . import alerting, db, releases, state
from .normalize import Event, normalize

log = logging.getLogger("glitchtip.worker")
MAX_SEARCH = 4000


def store_batch(messages: list[dict[str, Any]]) -> int:
    """Store ingest messages; how many events are new in the database.

    Raises what psycopg raises when the database does not answer; nothing is stored then.
    """
    stored: list[int] = []
    with db.transaction():
        for message in messages:
            received = dt.datetime.fromisoformat(message["received"])
            event = normalize(message["project"], message["id"], received, message["event"])
            issue = _store(event)
            if issue is not None:
                stored.append(issue)
    state.get().cache.collect(alerting.RECENT, set(stored), alerting.RECENT_SECONDS)
    return len(stored)


def _json(value: Any) -> str:
    """JSON for a jsonb column, which takes neither NUL nor lone surrogates."""
    text = json.dumps(value)
    return text.replace("\\u0000", "") if "\\u0000" in text else text


def _clean(text: str) -> str:
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def _store(event: Event) -> int | None:
    """Store one event; its issue, or None when it was not stored (now or before)."""
    project = db.one(
        "SELECT id, organization_id, scrub_ip_addresses FROM projects_project WHERE id = %s", [event.project]
    )
    if project is None:
        return None  # deleted meanwhile
    issue = _issue(event)
    try:
        with db.transaction():
            fresh = _insert(event, issue["id"], project["scrub_ip_addresses"])
    except psycopg.errors.CheckViolation:
        log.error("event %s lost: no partition for %s", event.id, event.received.date())
        return None
    if not fresh:
        return None  # delivered a second time
    _count(event, issue)
    _tags(event, issue["id"])
    _statistics(event, issue["id"])
    environment = event.tags.get("environment")
    if environment:
        db.execute(
            "INSERT INTO environments_environment (organization_id, project_id, name) VALUES (%s, %s, %s)"
            " ON CONFLICT DO NOTHING",
            [project["organization_id"], event.project, _clean(environment)],
        )
    release = event.tags.get("release")
    if release:
        releases.seen(project["organization_id"], event.project, _clean(release))
    db.execute(
        "UPDATE projects_project SET first_event = %s WHERE id = %s AND first_event IS NULL",
        [event.received, event.project],
    )
    return int(issue["id"])


def _issue(event: Event) -> db.Row:
    """The issue that the event belongs to, made if there is none; locked against another worker."""
    db.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [event.project, event.hash])
    found = db.one(
        "SELECT i.id, i.status, i.search_text, i.resolved_in_release FROM issue_events_issue i"
        " JOIN issue_events_issuehash h ON h.issue_id = i.id"
        " WHERE h.project_id = %s AND h.value = %s AND NOT i.is_deleted",
        [event.project, event.hash],
    )
    if found:
        return found
    number = db.must(
        "UPDATE projects_project SET issue_counter = issue_counter + 1 WHERE id = %s RETURNING"
        " issue_counter AS n",
        [event.project],
    )["n"]
    created = db.must(
        "INSERT INTO issue_events_issue"
        " (project_id, short_id, type, level, title, metadata, first_seen, last_seen, first_release)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " RETURNING id, status, search_text, resolved_in_release",
        [
            event.project,
            number,
            event.type,
            event.level,
            _clean(event.title),
            _json(event.issue_metadata),
            event.received,
            event.received,
            event.tags.get("release"),
        ],
    )
    db.execute(
        "INSERT INTO issue_events_issuehash (project_id, issue_id, value) VALUES (%s, %s, %s)"
        " ON CONFLICT (project_id, value) DO UPDATE SET issue_id = excluded.issue_id",
        [event.project, created["id"], event.hash],
    )
    return created


def _insert(event: Event, issue: int, scrub: bool) -> bool:
    data = event.data
    user = data.get("user")
    if scrub and isinstance(user, dict) and user.get("ip_address") == "{{auto}}":
        data = {**data, "user": {key: value for key, value in user.items() if key != "ip_address"} or None}
    return bool(
        db.execute(
            "INSERT INTO issue_events_issueevent (id, issue_id, project_id, received, timestamp,"
            " type, level, title,"
            " transaction, hash, tags, metadata, data)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [
                event.id,
                issue,
                event.project,
                event.received,
                event.timestamp,
                event.type,
                event.level,
                _clean(event.title),
                _clean(event.culprit),
                event.hash,
                _json(event.tags),
                _json(event.metadata),
                _json(data),
            ],
        )
    )


def _count(event: Event, issue: db.Row) -> None:
    """Count, last seen, release, search text; a resolved issue opens again and forgets its notifications."""
    search = issue["search_text"]
    if event.search not in search:
        search = f"{search}\n{_clean(event.search)}"[:MAX_SEARCH]
    opens = _opens(event, issue)
    db.execute(
        "UPDATE issue_events_issue SET count = count + 1, last_seen = greatest(last_seen, %s),"
        " last_release = coalesce(%s, last_release), search_text = %s,"
        " search_vector = CASE WHEN search_text = %s THEN search_vector ELSE to_tsvector('english', %s) END,"
        " status = CASE WHEN %s THEN 'unresolved' ELSE status END WHERE id = %s",
        [event.received, event.tags.get("release"), search, search, search, opens, issue["id"]],
    )
    if opens:
        db.execute(
            "DELETE FROM alerts_notification WHERE id IN"
            " (SELECT notification_id FROM alerts_notification_issues WHERE issue_id = %s)",
            [issue["id"]],
        )


def _opens(event: Event, issue: db.Row) -> bool:
    """Whether the event opens a resolved issue: not when it is of the release that the issue is resolved in, or
    of none (only the 6.2 line resolves in releases)."""
    if issue["status"] != "resolved":
        return False
    release = event.tags.get("release")
    resolved_in = issue["resolved_in_release"]
    return resolved_in is None or release not in (None, resolved_in)


def _statistics(event: Event, issue: int) -> None:
    """One more in the hour of the event, for its project and its issue."""
    hour = event.received.replace(minute=0, second=0, microsecond=0)
    for table, column, number in (
        ("projects_issueeventprojecthourlystatistic", "project_id", event.project),
        ("issue_events_issueaggregate", "issue_id", issue),
    ):
        db.execute(
            f"INSERT INTO {table} ({column}, date, count) VALUES (%s, %s, 1)"
            f" ON CONFLICT ({column}, date) DO UPDATE SET count = {table}.count + 1",
            [number, hour],
        )


def _tags(event: Event, issue: int) -> None:
    day = event.received.replace(hour=0, minute=0, second=0, microsecond=0)
    for key, value in sorted(event.tags.items()):
        db.execute(
            "INSERT INTO issue_events_issuetag VALUES (%s, %s, %s, %s, 1)"
            " ON CONFLICT (issue_id, key, value, day) DO UPDATE SET count = issue_events_issuetag.count + 1",
            [issue, day, _clean(key), _clean(value)],
        )
