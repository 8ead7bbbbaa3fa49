"""Counts of events over time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import GlitchTipError, InvalidError, MissingError, NotJsonError
from ..search import in_parts, number
from .base import Objects, Resource, path_of

GROUPS_AT_ONCE = 100  # the server looks at 200 and drops the rest; half of that keeps the address short
PERIODS = ("24h", "14d")
FIELD = "sum(quantity)"

_HOUR = dt.timedelta(hours=1)
_SPAN = dt.timedelta(days=40)  # one answer holds 1,000 intervals at most; 40 days are 960 hours


@dataclass(frozen=True)
class HourCount:
    """How many events the server received in the hour that begins at `start` (UTC)."""

    start: dt.datetime
    count: int


class Statistics(Resource):
    """/api/0/organizations/{organization}/stats_v2/ and /issues-stats/"""

    def issue_stats(self, organization: str, groups: Sequence[str | int], period: str = "24h") -> Objects:
        """How often issues happened, in the order of `groups`; issues that are not there are left out.

        Each ``{"id", "count", "userCount", "firstSeen", "lastSeen", "isUnhandled", "stats"}``; in ``stats``
        the period's name leads to ``[[Unix time, events], ...]``, by time, intervals without events left out.
        ``userCount`` is the number of events, not of users.

        Args:
            groups: ids of issues, as many as wanted.
            period: ``24h`` (by hour) or ``14d`` (by day).
        """
        if period not in PERIODS:
            raise InvalidError(code="bad_period", detail=f"a period is one of {', '.join(PERIODS)}")
        wanted = list(dict.fromkeys(number(group, "an issue") for group in groups))
        path = path_of("organizations", organization, "issues-stats")
        found: dict[str, dict[str, Any]] = {}
        for part in in_parts(wanted, GROUPS_AT_ONCE):
            for stats in self._client.get(path, {"groups": part, "statsPeriod": period}):
                series = {
                    name: sorted(values) for name, values in stats["stats"].items() if values is not None
                }
                found[stats["id"]] = {**stats, "stats": series}
        return [found[group] for group in wanted if group in found]

    def events_per_hour(
        self, organization: str, start: dt.datetime, end: dt.datetime, project: str | int | None = None
    ) -> list[HourCount]:
        """Events received in each hour from that of `start` to the last one that begins before `end`.

        Every hour is there, those without events with 0. It asks by the hour only, forty days at a time, and
        reads by time, because the server leaves out hours in which only other projects had events, writes
        null for 0, adds an hour at the end, counts the first hour of a day only when asked by day, and
        refuses more than 1,000 intervals.

        Args:
            start, end: with a time zone.
            project: numeric id; None counts all projects of the organization.

        Raises InvalidError for bad bounds, MissingError when there is no such organization or project, or
        the organization has no project.
        """
        first = _hour(start, "start")
        if _utc(end, "end") <= first:
            raise InvalidError(code="bad_time", detail="end must come after start")
        asked = {"category": "error", "field": FIELD, "interval": "1h"}
        if project is not None:
            asked["project"] = number(project, "a project")
        counts: dict[dt.datetime, int] = {}
        hour = first
        while hour < end:
            counts[hour] = 0
            hour += _HOUR
        for begin in _steps(first, end):
            last = min(begin + _SPAN, hour) - _HOUR
            for moment, count in self._series(organization, {**asked, **_bounds(begin, last)}):
                if begin <= moment <= last:
                    counts[moment] += count
        return [HourCount(moment, count) for moment, count in counts.items()]

    def events_total(
        self, organization: str, start: dt.datetime, end: dt.datetime, project: str | int | None = None
    ) -> int:
        """Events received in the hours of `events_per_hour`, together."""
        return sum(hour.count for hour in self.events_per_hour(organization, start, end, project))

    def _series(self, organization: str, asked: dict[str, str]) -> list[tuple[dt.datetime, int]]:
        path = path_of("organizations", organization, "stats_v2")
        try:
            answer = self._client.get(path, asked)
        except GlitchTipError as error:
            if error.code != "not_found":
                raise
            where = f"project {asked['project']} in " if "project" in asked else "project in "
            raise MissingError(
                "GET",
                path,
                404,
                "missing",
                f"there is no {where}organization {organization}",
                "or no access to it",
            ) from None
        try:
            moments = [dt.datetime.fromisoformat(text).astimezone(dt.UTC) for text in answer["intervals"]]
            values = answer["groups"][0]["series"][FIELD]
            return [(moment, int(value or 0)) for moment, value in zip(moments, values, strict=True)]
        except (KeyError, IndexError, TypeError, ValueError):
            raise NotJsonError(
                "GET", path, 200, "not_a_series", "the answer holds no series of counts"
            ) from None


def _utc(moment: dt.datetime, what: str) -> dt.datetime:
    if moment.tzinfo is None:
        raise InvalidError(code="bad_time", detail=f"{what} lacks its time zone")
    return moment.astimezone(dt.UTC)


def _hour(moment: dt.datetime, what: str) -> dt.datetime:
    return _utc(moment, what).replace(minute=0, second=0, microsecond=0)


def _steps(first: dt.datetime, end: dt.datetime) -> list[dt.datetime]:
    steps = []
    while first < end:
        steps.append(first)
        first += _SPAN
    return steps


def _bounds(begin: dt.datetime, last: dt.datetime) -> dict[str, str]:
    return {"start": begin.isoformat(), "end": last.isoformat()}
