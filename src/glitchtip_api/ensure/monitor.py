"""Uptime monitors, by name within an organization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ..client import Client
from ..errors import MASK, GlitchTipError
from ..late_answers import Made, Wanted, create_once
from ..resources.base import Objects
from ..validate import check_name
from ..validate_monitor import (
    DEFAULT_INTERVAL,
    FIELDS,
    check_monitor,
    needs_line,
    normal_target,
)
from ..version import Line
from .outcome import Outcome, missing, named, only, same_but, within

# 6.x has it, and a PUT without it sets it back to 1 (documented, the terraform and pulumi providers for 6.2).
_KEPT = ("confirmationThreshold",)
_SHOWN = ("id", *FIELDS, "projectID", "heartbeatEndpoint")


@dataclass(frozen=True)
class MonitorOutcome(Outcome):
    """An `Outcome` whose diff shows the watched URL: only its user info and its query are masked."""

    def diff(self) -> dict[str, dict[str, Any]]:
        """See `Outcome.diff`."""
        diff = super().diff()
        for side, thing in (("before", self.before), ("after", self.after)):
            if thing and "url" in diff[side]:
                diff[side]["url"] = shown_url(str(thing["url"]))
        return diff


def ensure_monitor(
    client: Client,
    organization: str,
    name: str,
    *,
    type: str | None = None,  # noqa: A002 - the word that people know
    url: str | None = None,
    project: str | None = None,
    interval: int | None = None,
    timeout: int | None = None,
    expected_status: int | None = None,
    expected_body: str | None = None,
    projects: Mapping[str, str] | None = None,
    listed: Objects | None = None,
    state: str = "present",
    dry_run: bool = False,
) -> Outcome:
    """Make sure that a monitor of this name exists in an organization with these values, or does not exist.

    Args:
        type: one of `MONITOR_TYPES`; a new monitor needs it.
        url: what is watched; ``host:port`` for `TCP Port`, nothing for `Heartbeat`.
        project: slug of the project whose alert rules (with uptime) report it; "" for none.
        interval: seconds between checks, 1 to 32767, on 6.x to 86400 (new: 60); for a heartbeat the longest silence.
        timeout: seconds that a check may take, 1 to 60 (new: left to the server, which takes 20).
        expected_status: needed for `GET` and `POST`.
        expected_body: text that the answer has to contain; "" for any answer.
        projects: ids of the organization's projects by slug, as they were just read; None reads what is needed.
        listed: all monitors of the organization as they were just read; None reads them.

    None leaves a value as it is. Every write is a whole monitor: a PUT without its project would unlink it.

    Raises InvalidError for values that harm the server or that it refuses, MissingError when the organization or
    the project is not there.
    """
    check_name(name, "a monitor", 200)

    monitors = client.monitors.list(organization) if listed is None else listed
    found = only(monitors, "name", name, "monitors")
    if state == "absent":
        if found and not dry_run:
            client.monitors.delete(organization, int(found["id"]))
        return MonitorOutcome(bool(found), found and view_monitor(found), None)
    given = {
        "monitorType": type,
        "url": url,
        "interval": interval,
        "timeout": timeout,
        "expectedStatus": expected_status,
        "expectedBody": expected_body,
    }
    wanted = {key: value for key, value in given.items() if value is not None}
    body = _whole(name, wanted, found)
    check_monitor(body, client.line if needs_line(body) else "5.2")
    if found is None and listed is None and client.organizations.get(organization) is None:
        raise missing(f"organization {organization!r}")  # its list is empty, not 404
    if project is not None:
        body["project"] = _project_id(client, organization, project, projects, dry_run)
    before = None if found is None else view_monitor(found)
    after = _view_of(body, found)
    late: tuple[str, ...] = ()
    changed = after != before
    if changed and not dry_run:
        written = _write(client, organization, body, found, monitors)
        after, late = written.thing, written.warnings
    warnings = (*_warnings(after, body), *late)
    return MonitorOutcome(changed, before, after, predicted=changed and dry_run, warnings=warnings)


def _whole(name: str, wanted: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any]:
    """The whole monitor that is to be, in the words of a request."""
    start: Mapping[str, Any] = found or {"interval": DEFAULT_INTERVAL}
    body = {**{key: start.get(key) for key in FIELDS}, "name": name, **wanted}
    if wanted.get("monitorType") == "Heartbeat" and "url" not in wanted:
        body["url"] = ""  # it may have been of another type
    body["url"] = normal_target(body["monitorType"], body["url"] or "")
    body["expectedBody"] = body["expectedBody"] or ""
    body["project"] = None if found is None else found.get("projectID")
    return {**body, **{key: start[key] for key in _KEPT if key in start}}


def _project_id(
    client: Client, organization: str, project: str, projects: Mapping[str, str] | None, dry_run: bool
) -> str | None:
    """The id of a project as a string; None for no project, "" for one that only a dry run takes for granted."""
    if not project:
        return None
    if projects is not None and (project in projects or dry_run):
        return projects.get(project, "")
    found = client.projects.get(organization, project) if projects is None else None
    if found is None:
        raise missing(f"project {project!r} in organization {organization!r}")
    return str(found["id"])


def _write(
    client: Client,
    organization: str,
    body: dict[str, Any],
    found: Mapping[str, Any] | None,
    monitors: Objects,
) -> Made:
    """Create, when it is none of `monitors`, or change; check what the server says it is now. Holds its view."""
    where = f"organization {organization!r}"
    if found is None:
        wanted = Wanted(
            f"monitor {body['name']!r} in {where}",
            lambda: named(client.monitors.list(organization), "name", body["name"], monitors),
            lambda one, other: same_but("id", "heartbeatEndpoint")(view_monitor(one), view_monitor(other)),
            lambda _: True,  # a few checks of its own are all that it can have
            lambda twin: client.monitors.delete(organization, int(twin["id"])),
        )
        made = create_once(
            client.transport,
            lambda: within(lambda: client.monitors.create(organization, body), where),
            wanted,
        )
    else:
        made = Made(client.monitors.update(organization, int(found["id"]), body))
    answer = made.thing
    after = view_monitor(answer)
    if after != _view_of(body, answer):
        raise GlitchTipError(
            "POST" if found is None else "PUT",
            "",
            None,
            "not_applied",
            f"the monitor {body['name']!r} is not as it was written; was its project deleted meanwhile?",
        )
    return Made(after, made.warnings)


def predicted_monitor(
    name: str, wanted: Mapping[str, Any], project: str | None = None, line: Line = "6.x"
) -> dict[str, Any]:
    """The monitor that would be created; its id, its project's and a heartbeat's endpoint are not known yet.

    Args:
        wanted: `FIELDS` as far as they are given; None counts as not given.
        project: slug of its project, None or "" for none.
        line: whose limits are kept; without a server to ask the wider ones.
    """
    body = _whole(name, {key: value for key, value in wanted.items() if value is not None}, None)
    check_monitor(body, line)
    return _view_of({**body, "project": "" if project else None}, None)


def view_monitor(monitor: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared and returned of a monitor as the server lists it.

    `heartbeatEndpoint` is to be kept like a password.
    """
    view = {key: monitor.get(key) for key in _SHOWN}
    return {**view, "url": view["url"] or "", "expectedBody": view["expectedBody"] or ""}


def _view_of(body: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any]:
    """The view of the monitor that a request makes of the one that was found."""
    known = {"id": "", "heartbeatEndpoint": None} if found is None else found
    if body["monitorType"] == "Heartbeat" and not known.get("heartbeatEndpoint"):
        known = {**known, "heartbeatEndpoint": ""}
    return view_monitor({**known, **body, "projectID": body["project"]})


def shown_url(url: str) -> str:
    """The address of a monitor as people may see it: user and query masked, host and path there."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    netloc = f"{MASK}@{host}" if "@" in parts.netloc else host
    return urlunsplit((parts.scheme, netloc, parts.path, MASK if parts.query else "", ""))


def _warnings(monitor: Mapping[str, Any], body: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    if monitor["monitorType"] == "SSL":
        found.append(
            f"monitor {monitor['name']!r}: GlitchTip reports type SSL as down always; use GET with an https address"
        )
    if body["project"] is None:
        found.append(
            f"monitor {monitor['name']!r}: without a project nobody is told when it goes down; give it one that has an"
            " alert rule with uptime"
        )
    return tuple(found)
