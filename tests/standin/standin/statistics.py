"""Counts of events by hour: ``stats_v2`` of an organization and ``issues-stats`` of issues."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from . import auth, db
from .auth import api
from .http import HttpError, Request, Response, answer, not_found
from .validation import Error, integers, literal, missing, moment, unprocessable

SCOPES = ("org:read", "org:write", "org:admin")
CATEGORIES = ("error", "transaction")
INTERVALS = {"1d": "1 day", "1h": "1 hour", "1m": "1 minute"}
FIELDS = ("sum(quantity)", "sum(times_seen)")
PERIODS = ("14d", "24h")
MOST_INTERVALS = 1000
MOST_ISSUES = 200
_INTERVALS_A_DAY = {"1d": 1, "1h": 24, "1m": 1440}
_HOUR = dt.timedelta(hours=1)


def _bounds(request: Request, errors: list[Error]) -> list[dt.datetime]:
    found = []
    for name in ("start", "end"):
        value = request.parameter(name)
        if value is None:
            errors.append(missing("query", name))
            continue
        try:
            found.append(_time(value, name))
        except HttpError as error:
            errors += json.loads(error.response.body)["detail"]
    return found


def _time(value: str, name: str) -> dt.datetime:
    try:
        return dt.datetime.fromtimestamp(float(value), dt.UTC)
    except ValueError:
        return moment(value, name, relative=False)


def _full_hour(when: dt.datetime) -> dt.datetime:
    return when.replace(minute=0, second=0, microsecond=0)


@api("/api/0/organizations/{org}/stats_v2/", "GET", scopes=SCOPES)
def stats_v2(request: Request, org: str) -> Response:
    """A series of counts, with the oddities of the real query.

    Each interval takes the events of the hour that begins in it or with it, so ``1d`` counts one hour a day
    and ``1m`` counts an hour sixty times; an interval with events of other projects only is left out; none
    is null; the end moves to the next full hour.
    """
    errors: list[Error] = []
    category = literal(request, "category", CATEGORIES, errors)
    interval = literal(request, "interval", tuple(INTERVALS), errors, default="1h")
    projects, failed = integers(request, "project", least=-1)
    errors += failed
    field = literal(request, "field", FIELDS, errors)
    bounds = _bounds(request, errors)
    if errors:
        raise unprocessable(errors)
    start, end = bounds
    if (end - start).days * _INTERVALS_A_DAY[interval] > MOST_INTERVALS:
        raise unprocessable([{"end": "Too many intervals"}])
    sql = (
        "SELECT p.id FROM projects_project p JOIN organizations_ext_organization o ON o.id = p.organization_id"
        " JOIN organizations_ext_organizationuser m ON m.organization_id = o.id AND m.user_id = %s"
        " WHERE o.slug = %s AND NOT p.is_deleted AND NOT o.is_deleted"
    )
    params: list[Any] = [auth.user_id(request), org]
    if projects:
        sql += " AND p.id = ANY(%s)"
        params.append(projects)
    chosen = [row["id"] for row in db.rows(sql, params)]
    if not chosen:
        raise not_found()
    counted = "s.count" if category == "error" else "NULL::bigint"
    joined = "" if category == "error" else " AND false"
    series = db.rows(
        f"SELECT gs.ts, sum({counted})::bigint AS count FROM generate_series(%s, %s, %s::interval) gs (ts)"
        " LEFT JOIN projects_issueeventprojecthourlystatistic s"
        f" ON s.date >= gs.ts AND s.date < gs.ts + interval '1 hour'{joined}"
        " WHERE s.project_id = ANY(%s) OR s.project_id IS NULL GROUP BY gs.ts ORDER BY gs.ts",
        [_full_hour(start), _full_hour(end + _HOUR), INTERVALS[interval], chosen],
    )
    return answer(
        {
            "intervals": [row["ts"].astimezone(dt.UTC).replace(microsecond=0).isoformat() for row in series],
            "groups": [{"series": {field: [row["count"] for row in series]}}],
        }
    )


@api("/api/0/organizations/{org}/issues-stats/", "GET")
def issue_stats(request: Request, org: str) -> Response:
    """Counts of up to 200 issues by hour (24h) or by day (14d), in no order; it asks for no scope."""
    errors: list[Error] = []
    groups, failed = integers(request, "groups")
    errors += failed
    if not errors and not request.parameters("groups"):
        errors.append(missing("query", "groups"))
    period = literal(request, "statsPeriod", PERIODS, errors, default="24h")
    if errors:
        raise unprocessable(errors)
    owner = auth.organization(request, org)
    issues = db.rows(
        "SELECT i.* FROM issue_events_issue i JOIN projects_project p ON p.id = i.project_id"
        " WHERE p.organization_id = %s AND i.id = ANY(%s) LIMIT %s",
        [owner["id"], groups, MOST_ISSUES],
    )
    unit, days = ("hour", 1) if period == "24h" else ("day", 14)
    counts: dict[int, list[list[int]]] = {issue["id"]: [] for issue in issues}
    for row in db.rows(
        "SELECT issue_id, extract(epoch FROM date_trunc(%s, date AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')::bigint"
        " AS at, sum(count)::bigint AS count FROM issue_events_issueaggregate"
        " WHERE issue_id = ANY(%s) AND date >= now() - make_interval(days => %s) GROUP BY 1, 2 ORDER BY 2",
        [unit, list(counts), days],
    ):
        counts[row["issue_id"]].append([row["at"], row["count"]])
    return answer(
        [
            {
                "id": str(issue["id"]),
                "count": str(issue["count"]),
                "userCount": issue["count"],
                "firstSeen": issue["first_seen"].astimezone(dt.UTC).isoformat(),
                "lastSeen": issue["last_seen"].astimezone(dt.UTC).isoformat(),
                "isUnhandled": False,
                "stats": {"24h": None, "14d": None, period: counts[issue["id"]]},
            }
            for issue in issues
        ]
    )
