"""The window in which services may be restarted: days or one date, hours, and the zone they are meant in.

Written as ``Sun 06:00-08:00``, ``Sat,Sun 22:00-02:00 Europe/Amsterdam`` or ``2026-11-29 06:00-08:00``. The end
is not part of the window; an end before its beginning is on the next day. Without a zone the host's own counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_FORM = (
    "must be like 'Sun 06:00-08:00', 'Sat,Sun 22:00-02:00 Europe/Amsterdam' or '2026-11-29 06:00-08:00', "
    "or empty for always"
)
_PATTERN = re.compile(
    r"(?:(?P<date>\d{4}-\d{2}-\d{2})|(?P<days>[A-Za-z]{3}(?:,[A-Za-z]{3})*))"
    r" +(?P<start>\d{2}:\d{2})-(?P<end>\d{2}:\d{2})(?: +(?P<zone>[A-Za-z0-9_+/-]+))?"
)


@dataclass(frozen=True)
class Window:
    """Days of the week (0 is Monday) or only one date, two times of day, and the zone (None: the host's)."""

    text: str
    days: frozenset[int]
    only: date | None
    start: time
    end: time
    zone: tzinfo | None

    def problem(self, now: float) -> str | None:
        """Why the window is closed at ``now`` (epoch seconds), as one sentence; None while it is open."""
        here = self._local(now)
        for day in (here.date() - timedelta(days=1), here.date()):
            if self._on(day) and self._begin(day) <= here < self._finish(day):
                return None
        told = here.strftime("%a %Y-%m-%d %H:%M")
        if self.only is not None and here >= self._finish(self.only):
            return f"the window {self.text} lies in the past: it is {told} now"
        coming = min(
            begin
            for days in range(9)
            if (self._on(day := here.date() + timedelta(days=days)) or days == 8)
            and (begin := self._next_begin(day)) > here
        )
        return f"the window {self.text} is closed: it is {told} now, it opens {coming.strftime('%a %Y-%m-%d %H:%M')}"

    def _next_begin(self, day: date) -> datetime:
        return self._begin(self.only or day)

    def _on(self, day: date) -> bool:
        return day == self.only if self.only is not None else day.weekday() in self.days

    def _local(self, now: float) -> datetime:
        """Wall time of the window's zone, without the zone: hours are compared as the clock there shows them."""
        moment = datetime.fromtimestamp(now, UTC).astimezone(self.zone)
        return moment.replace(tzinfo=None)

    def _begin(self, day: date) -> datetime:
        return datetime.combine(day, self.start)

    def _finish(self, day: date) -> datetime:
        """When the window that begins on ``day`` ends."""
        later = timedelta(days=1) if self.end <= self.start else timedelta(0)
        return datetime.combine(day, self.end) + later


def _time(text: str) -> time:
    if text == "24:00":
        return time(0, 0)
    return time.fromisoformat(text)


def parse_window(text: str) -> Window | None:
    """The window that ``text`` describes; None for an empty text. Raises ValueError with a predicate.

    The predicate goes after the name of the setting: "window" + " must be like ...".
    """
    text = text.strip()
    if not text:
        return None
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(_FORM)
    try:
        start, end = _time(match["start"]), _time(match["end"])
        day = date.fromisoformat(match["date"]) if match["date"] else None
        days = frozenset(DAYS.index(name.capitalize()) for name in (match["days"] or "").split(",") if name)
    except ValueError:
        raise ValueError(_FORM) from None
    if start == end:
        raise ValueError(f"begins and ends at {match['start']}")
    zone: tzinfo | None = None
    if match["zone"]:
        try:
            from zoneinfo import ZoneInfo  # only where it is needed: the way back must do with less of Python

            zone = ZoneInfo(match["zone"])
        except (ImportError, KeyError, ValueError, OSError):
            raise ValueError(f"names the time zone {match['zone']}, which this host does not know") from None
    return Window(text, days, day, start, end, zone)
