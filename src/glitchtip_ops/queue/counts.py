"""Counts of issues that include events which were never stored (5.2).

GlitchTip 5.2 adds a batch to its issues' counts in one statement and stores the events in a later one. A worker killed
in between leaves the counts too high, and its events unacknowledged: stored later, they would be counted twice
(measured: 62 of 700 events). An issue's count is the number of its events as long as none of them has been removed by
age; where it is higher, it is set to that number, while the worker is stopped and nothing else counts.
"""

from __future__ import annotations

from ..docker_stack import Container, Stack
from ..process import OpsError

#: GLITCHTIP_MAX_EVENT_LIFE_DAYS where it is not set.
_DAYS = 90
#: The last day of an event's life: partitions go as a whole.
_MARGIN = 2
_TIMEOUT = 120.0
_EXCESS = """
SELECT issue.id, issue.count - (SELECT count(*) FROM issue_events_issueevent event WHERE event.issue_id = issue.id)
FROM issue_events_issue issue
WHERE issue.last_seen >= to_timestamp({since:.3f}) AND issue.first_seen > now() - interval '{days} days';
"""


def _psql(stack: Stack, postgres: Container, sql: str) -> list[str]:
    argv = ["psql", "-X", "-q", "-A", "-t", "-F", " ", "-v", "ON_ERROR_STOP=1"]
    return stack.database_run(postgres, argv, timeout=_TIMEOUT, text=sql).splitlines()


def recount(stack: Stack, postgres: Container, worker: Container, since: float, most: int) -> tuple[int, str]:
    """Take out of the counts what was counted and not stored; ``(how many, a note or "")``.

    ``since``: issues seen from then on (epoch seconds). ``most``: events that were left; an excess above it has
    another cause (a batch that the database refused) and is left alone. Raises OpsError when the database fails.
    """
    value = stack.environment(worker, ["GLITCHTIP_MAX_EVENT_LIFE_DAYS"]).get(
        "GLITCHTIP_MAX_EVENT_LIFE_DAYS", ""
    )
    days = max((int(value) if value.isdigit() else _DAYS) - _MARGIN, 0)
    excess: dict[int, int] = {}
    for line in _psql(stack, postgres, _EXCESS.format(since=since, days=days)):
        words = line.split()
        if len(words) != 2:
            continue
        try:
            issue, more = int(words[0]), int(words[1])
        except ValueError:
            raise OpsError("psql answered something unexpected about the counts of issues") from None
        if more > 0:
            excess[issue] = more
    total = sum(excess.values())
    if not total:
        return 0, ""
    if total > most:
        return 0, f"issues count {total} events that are not stored, more than were left: left as they are"
    changes = "".join(
        f"UPDATE issue_events_issue SET count = count - {more} WHERE id = {issue};\n"
        for issue, more in excess.items()
    )
    _psql(stack, postgres, f"BEGIN;\n{changes}COMMIT;\n")
    return total, ""
