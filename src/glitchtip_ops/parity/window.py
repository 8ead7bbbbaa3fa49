"""The span of time that is compared: whole seconds of the events' own time, ending a margin before now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from ..process import OpsError

RETENTION_DAYS = 90  # the longest that Sentry keeps errors (Team, Business); 30 on the Developer plan
PADDING = 300  # seconds read beyond both ends, only to find the other copy of an event at an edge


@dataclass(frozen=True)
class Window:
    """From ``since`` to before ``until``, in epoch seconds.

    Whole seconds, because Sentry's list of events knows no fractions and GlitchTip's does.
    """

    since: int
    until: int

    def holds(self, second: int) -> bool:
        """Whether an event of that second is compared."""
        return self.since <= second < self.until

    def to_json(self) -> dict[str, str]:
        """``{"since", "until"}`` as ISO 8601 in UTC."""
        return {"since": iso(self.since), "until": iso(self.until)}


def iso(second: float) -> str:
    """Epoch seconds as ISO 8601 in UTC, e.g. ``2026-01-11T06:00:00Z``."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch(text: object) -> float | None:
    """Epoch seconds of an ISO time; None for anything else. Without a zone it is UTC."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _duration(text: str) -> int | None:
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:])
    number = text[:-1]
    return int(number) * unit if unit and number.isascii() and number.isdigit() and len(number) < 9 else None


def parse_window(since: str, until: str | None, now: float, margin: int) -> Window:
    """The window that a command line means.

    Args:
        since: ISO time (UTC where it has no zone), or a span before the end: ``90s``, ``15m``, ``24h``, ``2d``.
        until: ISO time; None for now.
        now: epoch seconds.
        margin: seconds before now at which the window ends at the latest, so that what is still on its way
            to one of the trackers is not taken for lost.

    Raises OpsError, one sentence, for a window that makes no sense.
    """
    if margin < 0:
        raise OpsError("--margin is a number of seconds from 0")
    end = now if until is None else epoch(until)
    if end is None:
        raise OpsError(f"--until {until!r} is no time; write it like 2026-01-11T06:00:00Z")
    if end > now:
        raise OpsError(f"--until {until} lies in the future; leave it out to compare up to now")
    last = int(min(end, now - margin))
    span = _duration(since)
    if span == 0:
        raise OpsError("--since 0 is no span; write for example 24h")
    begin = epoch(since) if span is None else last - span
    if begin is None:
        raise OpsError(
            f"--since {since!r} is neither a span like 24h or 2d nor a time like 2026-01-11T06:00:00Z"
        )
    if begin > now:
        raise OpsError(f"--since {since} lies in the future; there is nothing to compare yet")
    if begin >= last:
        raise OpsError(
            f"the window is empty: it would begin at {iso(begin)} and end at {iso(last)}"
            f" ({margin} s before now at the latest, see --margin)"
        )
    return Window(int(begin), last)
