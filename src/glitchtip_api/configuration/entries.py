"""What the server shows of one thing, as an entry of the structure without what has its default value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..ensure.alert import view_alert
from ..validate import ZULIP_TOPIC

_LARGEST_RATE = 100


def member_entry(found: Mapping[str, Any]) -> dict[str, Any]:
    """A member or an invitation, with exactly its teams."""
    return {
        "email": str(found.get("email") or ""),
        "role": str(found.get("role") or ""),
        "teams": sorted(str(team) for team in found.get("teams") or []),
    }


def project_entry(found: Mapping[str, Any]) -> dict[str, Any]:
    """A project without what is in it. Its slug is always there: it tells two of one name apart."""
    entry: dict[str, Any] = {"name": str(found["name"]), "slug": str(found["slug"])}
    if found.get("platform"):
        entry["platform"] = found["platform"]
    rate = found.get("eventThrottleRate")
    if rate and 0 < rate <= _LARGEST_RATE:
        entry["event_throttle_rate"] = rate
    entry["teams"] = sorted(str(team["slug"]) for team in found.get("teams") or [])
    return entry


def alert_entry(found: Mapping[str, Any]) -> dict[str, Any]:
    """A rule; the tags of its recipients are in it where the server returns them (6.x)."""
    entry: dict[str, Any] = {"name": found["name"]}
    for field_name, key in (("quantity", "quantity"), ("timespanMinutes", "timespan_minutes")):
        if found.get(field_name) is not None:
            entry[key] = found[field_name]
    if found.get("uptime"):
        entry["uptime"] = True
    recipients = [_recipient_entry(recipient) for recipient in view_alert(found)["recipients"]]
    entry["recipients"] = recipients
    fires = entry.get("quantity") is not None and entry.get("timespan_minutes") is not None
    if not recipients or not (fires or entry.get("uptime")):
        entry["incomplete"] = True
    return entry


def _recipient_entry(view: Mapping[str, Any]) -> dict[str, Any]:
    recipient = {key: value for key, value in view.items() if value}
    config = {key: value for key, value in (view.get("config") or {}).items() if value}
    if config.get("topic") == ZULIP_TOPIC:
        del config["topic"]
    return {**recipient, "config": config} if config else recipient


def monitor_entry(found: Mapping[str, Any], slugs: Mapping[str, str]) -> dict[str, Any]:
    """A monitor; `slugs` are those of the organization's projects by id."""
    entry: dict[str, Any] = {"name": found["name"], "type": found["monitorType"]}
    if found.get("url"):
        entry["url"] = found["url"]
    project = slugs.get(str(found.get("projectID") or ""))
    if project:
        entry["project"] = project
    for field_name, key in (
        ("interval", "interval"),
        ("timeout", "timeout"),
        ("expectedStatus", "expected_status"),
        ("expectedBody", "expected_body"),
    ):
        if found.get(field_name) not in (None, ""):
            entry[key] = found[field_name]
    return entry
