"""Counts of issues that include events which were never stored (5.2).

GlitchTip 5.2 adds a batch to its issues' counts in one statement and stores the events in a later one. A worker killed
in between leaves the counts too high, and its events unacknowledged: stored later, they would be counted twice
(measured: 62 of 700 events). An issue's count is the number of its events as long as none of them has been removed by
age; where it is higher, it is set to that number, while the worker is stopped and nothing else counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from glitchtip_core.files import append_line

from ..docker_stack import Container, Stack
from ..process import OpsError

#: GLITCHTIP_MAX_EVENT_LIFE_DAYS where it is not set.
_DAYS = 90
#: The last day of an event's life: partitions go as a whole.
_MARGIN = 2
#: Seconds for a statement; the server ends it itself, so that none goes on after this program gave it up.
_STATEMENT, _TIMEOUT = 60, 90.0
#: What was changed, a JSON line each: ``{"at", "taken_out": {issue id: events}}``.
LOG = "queue-recounts.log"
_EXCESS = """
SELECT issue.id, issue.count - (SELECT count(*) FROM issue_events_issueevent event WHERE event.issue_id = issue.id)
FROM issue_events_issue issue
WHERE issue.last_seen >= to_timestamp({since:.3f}) AND issue.first_seen > now() - interval '{days} days';
"""

#: Writes of issues and events that are still at work: a killed worker's last statement ends without it.
_WRITES = """
SELECT pid, extract(epoch FROM query_start) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()
AND state = 'active' AND query ~* '(insert|update|delete|copy).*issue_events_';
"""
_WRITES_END_WITHIN = 30


def _psql(stack: Stack, postgres: Container, sql: str) -> list[str]:
    argv = ["psql", "-X", "-q", "-A", "-t", "-F", " ", "-v", "ON_ERROR_STOP=1"]
    text = f"SET statement_timeout = '{_STATEMENT}s';\n{sql}"
    return stack.database_run(postgres, argv, timeout=_TIMEOUT, text=text).splitlines()


def await_writes(stack: Stack, postgres: Container, sleep: Callable[[float], None] = time.sleep) -> None:
    """Wait until the statements of a killed worker have ended: one may still store the events that are looked for.

    Raises OpsError when one is still at work after _WRITES_END_WITHIN seconds.
    """
    first = set(_psql(stack, postgres, _WRITES))
    for _ in range(_WRITES_END_WITHIN):
        if not first:
            return
        sleep(1)
        first &= set(_psql(stack, postgres, _WRITES))
    if first:
        raise OpsError(
            f"a statement of the killed worker is still at work in {postgres.name} (pid {min(first).split(' ')[0]}): "
            "see pg_stat_activity for what holds it up, then run it again; nothing was changed"
        )


def recount(
    stack: Stack, postgres: Container, worker: Container, since: float, most: int, log_file: Path
) -> tuple[int, str]:
    """Take out of the counts what was counted and not stored; ``(how many, a note or "")``.

    The worker must be stopped. What is taken out of which issue is in ``log_file`` first.

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
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    append_line(log_file, json.dumps({"at": stamp, "taken_out": excess}))
    _psql(stack, postgres, f"BEGIN;\nSET LOCAL lock_timeout = '10s';\n{changes}COMMIT;\n")
    return total, ""
