"""Checking what monitors watch, and telling people when something goes down or comes back.

5.2 line: every ten seconds the dispatcher counts its ticks on by ten and queues, for each of these seconds,
the monitors whose interval divides it; those with a timeout of 30 s or more go into a batch of their own. A
batch is stored when its last check is through. A new or changed monitor is checked one second later. 6.2
line: the dispatcher runs every second, a new monitor is checked at once, it is down after ``confirmation_threshold``
failures in a row, and its first result is reported, too (source of a later 6.x, perhaps not yet in 6.2.6).

A monitor with interval 0 ends every run of the dispatcher (division by zero), on both lines.
"""

from __future__ import annotations

import datetime as dt
import logging
import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from . import db, mail, messages, state
from .queue import Message
from .urls import is_private

log = logging.getLogger("glitchtip.worker")

DISPATCH_SECONDS = 10
FIRST_CHECK_SECONDS = 1
DEFAULT_TIMEOUT = 20
SLOW_TIMEOUT = 30
BATCH_LIFE_SECONDS = 60
LARGEST_BODY = 2_000_000
#: Why a check failed.
UNKNOWN, TIMEOUT, STATUS, BODY, SSL, NETWORK = range(6)
REASONS = (
    "Unknown",
    "Timeout",
    "Wrong status code",
    "Expected response not found",
    "SSL error",
    "Network error",
)

#: Columns that every reader of a monitor (alias ``n``) needs: the latest result, and since when it is so.
STATE = (
    "(SELECT is_up FROM uptime_monitorcheck c WHERE c.monitor_id = n.id ORDER BY c.start_check DESC LIMIT 1)"
    " AS latest_is_up,"
    " (SELECT start_check FROM uptime_monitorcheck c WHERE c.monitor_id = n.id AND c.is_change"
    " ORDER BY c.start_check DESC LIMIT 1) AS last_change"
)
_DUE = (
    'SELECT n.id, n."interval", coalesce(n.timeout, %(default)s) AS timeout FROM uptime_monitor n'
    " JOIN organizations_ext_organization o ON o.id = n.organization_id AND o.event_throttle_rate < 100"
    " WHERE {due} AND (n.url <> '' OR n.monitor_type = 'Heartbeat') ORDER BY n.id"
)


def interval() -> int:
    """Seconds between two runs of the dispatcher."""
    return DISPATCH_SECONDS if state.get().settings.line == "5.2" else 1


def check_soon(monitor: int, kind: str) -> None:
    """Queue the first check of a monitor that was made or changed; a heartbeat waits for its dispatcher."""
    if kind != "Heartbeat":
        delay = FIRST_CHECK_SECONDS if state.get().settings.line == "5.2" else 0
        state.get().queue.put({"task": "perform_checks", "ids": [monitor], "eta": time.time() + delay})


def dispatch() -> None:
    """One run: queue the checks that are due until the next one."""
    now, tick = time.time(), int(db.must("SELECT nextval('uptime_counter') AS tick")["tick"])
    if state.get().settings.line != "5.2":
        parameters = {"tick": tick, "default": DEFAULT_TIMEOUT}
        due = db.rows(_DUE.format(due='(%(tick)s + n.id) %% n."interval" = 0'), parameters)
        if due:
            state.get().queue.put({"task": "perform_checks", "ids": [row["id"] for row in due]})
        return
    tick *= DISPATCH_SECONDS
    parameters = {"tick": tick, "default": DEFAULT_TIMEOUT, "ahead": DISPATCH_SECONDS}
    rows = db.rows(_DUE.format(due='%(tick)s %% n."interval" < %(ahead)s'), parameters)
    for seconds, batch in enumerate(buckets(rows, tick)):
        for slow in (False, True):
            ids = [row["id"] for row in batch if (row["timeout"] >= SLOW_TIMEOUT) == slow]
            if ids:
                at = now + seconds
                state.get().queue.put({"task": "perform_checks", "ids": ids, "eta": at, "start": at})


def buckets(monitors: list[db.Row], tick: int) -> list[list[db.Row]]:
    """The monitors of each second of a run that has any. Seconds without any take no time: the real server
    numbers the filled ones only, so that a monitor alone is always checked at the start of the run."""
    seconds = range(tick, tick + DISPATCH_SECONDS)
    found = [[row for row in monitors if second % row["interval"] == 0] for second in seconds]
    return [batch for batch in found if batch]


def perform(message: Message) -> None:
    """Check a batch, store the results, and queue a notification for what went down or came back.

    A batch that has waited for a minute is not worth it any more.
    """
    if time.time() > message.get("start", time.time()) + BATCH_LIFE_SECONDS:
        return
    began = dt.datetime.fromtimestamp(message.get("start") or time.time(), dt.UTC)
    monitors = db.rows(f"SELECT n.*, {STATE} FROM uptime_monitor n WHERE n.id = ANY(%s)", [message["ids"]])
    if not monitors:
        return
    with ThreadPoolExecutor(max_workers=min(32, len(monitors))) as threads:
        results = list(threads.map(_result, monitors))
    for monitor, (up, reason, milliseconds) in zip(monitors, results, strict=True):
        if monitor["monitor_type"] == "Heartbeat" and up:
            continue  # only its own calls are kept
        changed = _is_change(monitor, up)
        check = db.one(
            "INSERT INTO uptime_monitorcheck (monitor_id, is_up, is_change, start_check, reason, response_time)"
            " SELECT id, %s, %s, %s, %s, %s FROM uptime_monitor WHERE id = %s RETURNING *",
            [up, changed, began, reason, milliseconds, monitor["id"]],
        )
        if check and changed and (monitor["latest_is_up"] is not None or _reports_first()):
            _queue_notification(monitor["id"], up, reason, began)


def _is_change(monitor: db.Row, up: bool) -> bool:
    """Whether this result changes the monitor's state: up at once, down with the failure that confirms it."""
    if state.get().settings.line == "5.2":
        return monitor["latest_is_up"] is not up
    if up:
        latest = db.one(
            "SELECT is_up FROM uptime_monitorcheck WHERE monitor_id = %s AND is_change"
            " ORDER BY start_check DESC LIMIT 1",
            [monitor["id"]],
        )
        return latest is None or not latest["is_up"]
    failures = db.must(
        "SELECT count(*) AS n FROM uptime_monitorcheck WHERE monitor_id = %(id)s AND start_check > coalesce("
        "(SELECT max(start_check) FROM uptime_monitorcheck WHERE monitor_id = %(id)s AND is_up), '-infinity')",
        {"id": monitor["id"]},
    )["n"]
    return int(failures) + 1 == int(monitor["confirmation_threshold"])


def _reports_first() -> bool:
    """Whether the very first result of a monitor is reported like a change."""
    return state.get().settings.line == "6.2"


def heartbeat(monitor: db.Row) -> db.Row:
    """Store a sign of life (of a monitor with :data:`STATE`); the check."""
    check = db.must(
        "INSERT INTO uptime_monitorcheck (monitor_id, is_up, is_change) VALUES (%s, true, %s) RETURNING *",
        [monitor["id"], monitor["latest_is_up"] is not True],
    )
    if monitor["latest_is_up"] is False or (monitor["latest_is_up"] is None and _reports_first()):
        _queue_notification(monitor["id"], True, None, check["start_check"])
    return check


def _queue_notification(monitor: int, up: bool, reason: int | None, began: dt.datetime) -> None:
    told = {"monitor": monitor, "up": up, "reason": reason, "start": began.isoformat()}
    state.get().queue.put({"task": "send_monitor_notification", **told})


Result = tuple[bool, int | None, int | None]


def _result(monitor: db.Row) -> Result:
    """Up or down, the reason, and the milliseconds that it took."""
    if monitor["monitor_type"] == "Heartbeat":
        seen = db.must(
            "SELECT EXISTS (SELECT FROM uptime_monitorcheck WHERE monitor_id = %s"
            " AND start_check >= now() - make_interval(secs => %s)) AS seen",
            [monitor["id"], monitor["interval"]],
        )
        return bool(seen["seen"]), None, None
    kind, url = monitor["monitor_type"], monitor["url"]
    if not state.get().settings.uptime_allow_private_ips and is_private(
        f"tcp://{url}" if kind == "TCP Port" else url
    ):
        log.warning("monitor %s: its target has a private address, nothing is sent", monitor["id"])
        return False, NETWORK, None
    began = time.monotonic()
    timeout = monitor["timeout"] or DEFAULT_TIMEOUT
    if kind == "TCP Port":
        up, reason = _tcp(url, timeout)
    elif kind in {"Ping", "GET", "POST"}:
        up, reason = _http(monitor, timeout)
    else:
        up, reason = False, None  # SSL: the real server never looks
    answered = reason in {None, STATUS, BODY}
    return up, reason, int((time.monotonic() - began) * 1000) if answered else None


def _tcp(address: str, timeout: float) -> tuple[bool, int | None]:
    try:
        host, port = address.split(":")
        socket.create_connection((host, int(port)), timeout).close()
    except TimeoutError:
        return False, TIMEOUT
    except (OSError, ValueError, OverflowError):
        return False, UNKNOWN
    return True, None


def _http(monitor: db.Row, timeout: float) -> tuple[bool, int | None]:
    import requests  # only the worker needs it
    import requests.exceptions as failures
    from urllib3.exceptions import NewConnectionError

    method = "HEAD" if monitor["monitor_type"] == "Ping" else str(monitor["monitor_type"])
    headers = {"User-Agent": f"GlitchTip/{state.get().settings.version}"}
    try:
        with requests.request(
            method,
            monitor["url"],
            headers=headers,
            timeout=timeout,
            allow_redirects=method != "HEAD",
            stream=True,
        ) as reply:
            if method == "HEAD":
                return True, None
            if reply.status_code != monitor["expected_status"]:
                return False, STATUS
            if monitor["expected_body"]:
                body = reply.raw.read(LARGEST_BODY, decode_content=True)
                if monitor["expected_body"] not in body.decode(reply.encoding or "utf-8", "ignore"):
                    return False, BODY
            return True, None
    except failures.SSLError:
        return False, SSL
    except failures.Timeout:
        return False, TIMEOUT
    except failures.ConnectionError as error:
        inner: Any = error.args[0] if error.args else None
        return False, NETWORK if isinstance(getattr(inner, "reason", None), NewConnectionError) else UNKNOWN
    except Exception:
        log.warning("monitor %s cannot be checked", monitor["id"], exc_info=True)
        return False, UNKNOWN


def notify(message: Message) -> None:
    """Tell the recipients of the rules of the monitor's project that report uptime, in order.

    Raises what requests raises when a receiver cannot be reached: the rest is not told then.
    """
    monitor = db.one(
        "SELECT n.*, o.slug AS organization_slug FROM uptime_monitor n"
        " JOIN organizations_ext_organization o ON o.id = n.organization_id WHERE n.id = %s",
        [message["monitor"]],
    )
    if monitor is None or monitor["project_id"] is None:
        return
    recipients = db.rows(
        "SELECT r.* FROM alerts_alertrecipient r JOIN alerts_projectalert a ON a.id = r.alert_id"
        " WHERE a.project_id = %s AND a.uptime ORDER BY r.id",
        [monitor["project_id"]],
    )
    for recipient in recipients:
        _tell(monitor, recipient, message)


def _tell(monitor: db.Row, recipient: db.Row, message: Message) -> None:
    link = f"{state.get().settings.domain}/{monitor['organization_slug']}/uptime-monitors/{monitor['id']}"
    if recipient["recipient_type"] == "email":
        status = "is back up" if message["up"] else "is down"
        details = {"link": link, "when": message["start"]}
        if message["reason"]:
            details["reason"] = REASONS[message["reason"]]
        mail.send(_people(monitor["project_id"]), f"GlitchTip: {monitor['name']} {status}", **details)
    else:
        text = "The monitored site is back up." if message["up"] else "The monitored site has gone down."
        messages.send_uptime(recipient, monitor["name"], link, text)


def _people(project: int) -> list[str]:
    rows: Iterable[db.Row] = db.rows(
        "SELECT DISTINCT u.email FROM users_user u"
        " JOIN organizations_ext_organizationuser m ON m.user_id = u.id"
        " JOIN teams_team_members tm ON tm.organizationuser_id = m.id"
        " JOIN teams_team_projects tp ON tp.team_id = tm.team_id WHERE tp.project_id = %s ORDER BY u.email",
        [project],
    )
    return [row["email"] for row in rows]
