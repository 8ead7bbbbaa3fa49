"""Alert rules, by name within a project."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..client import Client
from ..errors import GlitchTipError, InvalidError
from ..resources.base import Objects
from ..validate import check_name, check_number, check_recipients, normal_url
from .outcome import Outcome, create_once, missing, only, within

_SHORTEST_SAFE_TIMESPAN = 5


def ensure_alert(
    client: Client,
    organization: str,
    project: str,
    name: str,
    *,
    quantity: int | None = None,
    timespan_minutes: int | None = None,
    uptime: bool | None = None,
    recipients: Iterable[Mapping[str, Any]] | None = None,
    update_tags: str = "on_create",
    listed: Objects | None = None,
    parent_known: bool = False,
    state: str = "present",
    dry_run: bool = False,
) -> Outcome:
    """Make sure that an alert rule of this name exists in a project with these values, or does not exist.

    Args:
        quantity, timespan_minutes: fires when one issue got that many events in that time; 0 to 32767.
        uptime: also report the project's uptime monitors.
        recipients: the whole list, ``[{"type", "url", "tags"}]``; None keeps the ones that are there.
        update_tags: `tags` can be written but never read, so "on_create" writes them with a new recipient
            only; "always" writes them each time and always reports a change.
        listed: all rules of the project as they were just read; None reads them.
        parent_known: the project was just seen, so it is not looked for before a rule is created in it.

    Every PUT carries the full list of recipients: the server deletes the ones that are not in it, and a rule
    without any e-mails the project's people. Changed tags of an existing recipient are a 500 (5.2 line), so
    they are written by two PUTs: without that recipient, then with it.
    """
    check_name(name, "an alert rule", 255)
    check_number(quantity, "quantity")
    check_number(timespan_minutes, "timespan_minutes")
    full_list = None if recipients is None else check_recipients(recipients)
    if full_list == []:
        raise InvalidError(
            code="no_recipients",
            detail="an alert rule without recipients e-mails everyone in the project; name at least one",
        )
    wanted = {"quantity": quantity, "timespanMinutes": timespan_minutes, "uptime": uptime}
    wanted = {key: value for key, value in wanted.items() if value is not None}

    def find(known: Objects | None = None) -> dict[str, Any] | None:
        rules = client.alerts.list(organization, project) if known is None else known
        return only(rules, "name", name, "alert rules")

    found = find(listed)
    if state == "absent":
        if found and not dry_run:
            client.alerts.delete(organization, project, int(found["id"]))
        return Outcome(bool(found), found and view_alert(found), None)
    if found is None:
        return _create(client, organization, project, name, wanted, full_list, find, parent_known, dry_run)
    before = view_alert(found)
    after = {**before, **wanted}
    if full_list is not None:
        after["recipients"] = _recipients(full_list)
    rewrite = update_tags == "always" and any("tagsToAdd" in recipient for recipient in full_list or [])
    changed = after != before or rewrite
    if changed and not dry_run:
        after = _update(client, organization, project, found, wanted, full_list, rewrite)
    return Outcome(changed, before, after, predicted=changed and dry_run, warnings=_warnings(after))


def _create(
    client: Client,
    organization: str,
    project: str,
    name: str,
    wanted: Mapping[str, Any],
    full_list: list[dict[str, Any]] | None,
    find: Callable[[], dict[str, Any] | None],
    parent_known: bool,
    dry_run: bool,
) -> Outcome:
    if full_list is None:
        raise InvalidError(code="no_recipients", detail=f"the new alert rule {name!r} needs recipients")
    fires = wanted.get("quantity") is not None and wanted.get("timespanMinutes") is not None
    if not fires and not wanted.get("uptime"):
        raise InvalidError(
            code="never_fires",
            detail=f"the new alert rule {name!r} never fires: give quantity and timespan_minutes, or uptime",
        )
    where = f"project {project!r} in organization {organization!r}"
    if not parent_known and client.projects.get(organization, project) is None:
        raise missing(where)  # the list of a missing project is empty, not 404
    prediction = predicted_alert(name, wanted, full_list)
    if dry_run:
        return Outcome(True, None, prediction, predicted=True, warnings=_warnings(prediction))
    body = {"name": name, **wanted, "alertRecipients": full_list}

    def create() -> dict[str, Any]:
        return within(lambda: client.alerts.create(organization, project, body), where)

    created = create_once(client, create, find)
    after = view_alert(created)
    if {**after, "id": ""} != prediction:  # what a 500 left behind: its tags are not known either
        after = _update(client, organization, project, created, wanted, full_list, rewrite=True)
    return Outcome(True, None, after, warnings=_warnings(after))


def _update(
    client: Client,
    organization: str,
    project: str,
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    full_list: list[dict[str, Any]] | None,
    rewrite: bool,
) -> dict[str, Any]:
    """Write the whole rule and check what the server says it is now."""
    alert_id = int(found["id"])
    present = [
        {"recipientType": recipient["recipientType"], "url": recipient.get("url") or ""}
        for recipient in found.get("alertRecipients") or []
    ]
    full = present if full_list is None else full_list
    body = {key: found.get(key) for key in ("name", "quantity", "timespanMinutes", "uptime")}
    body = {**body, **wanted, "alertRecipients": full}

    def two_puts() -> dict[str, Any]:
        there = {_identity(recipient) for recipient in present}
        kept = [r for r in full if _identity(r) not in there or "tagsToAdd" not in r]
        client.alerts.update(organization, project, alert_id, {**body, "alertRecipients": kept})
        return client.alerts.update(organization, project, alert_id, body)

    if rewrite:
        answer = two_puts()
    else:
        try:
            answer = client.alerts.update(organization, project, alert_id, body)
        except GlitchTipError as error:
            if error.status != 500:
                raise
            if any("tagsToAdd" not in recipient for recipient in full):
                raise GlitchTipError(
                    error.method,
                    error.path,
                    500,
                    "tags_unknown",
                    "the server cannot change this rule while the tags of its recipients are not known",
                    "give tags for every recipient (an empty list for none)",
                ) from None
            answer = two_puts()
    after = view_alert(answer)
    target = {**view_alert(found), **wanted, "recipients": _recipients(full)}
    if after != target:
        raise GlitchTipError(
            "PUT", "", None, "not_applied", f"the alert rule {after['name']!r} is not as it was written"
        )
    return after


def predicted_alert(
    name: str, wanted: Mapping[str, Any], full_list: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """The rule that would be created; its id is not known yet."""
    return view_alert({"id": "", "name": name, **wanted, "alertRecipients": list(full_list)})


def _identity(recipient: Mapping[str, Any]) -> tuple[str, str]:
    url = str(recipient.get("url") or "")
    return str(recipient["recipientType"]), normal_url(url) if url else ""


def _recipients(recipients: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [{"type": kind, "url": url} for kind, url in sorted(_identity(r) for r in recipients)]


def view_alert(alert: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared and returned of a rule as the server lists it; tags are never shown."""
    view = {key: alert.get(key) for key in ("id", "name", "quantity", "timespanMinutes")}
    view["uptime"] = bool(alert.get("uptime"))
    return {**view, "recipients": _recipients(alert.get("alertRecipients") or [])}


def _warnings(alert: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    timespan = alert.get("timespanMinutes")
    if alert.get("quantity") and timespan is not None and timespan < _SHORTEST_SAFE_TIMESPAN:
        found.append(
            f"alert rule {alert['name']!r}: events that are stored after their minute was evaluated are lost "
            f"with timespan_minutes {timespan}; use {_SHORTEST_SAFE_TIMESPAN} or more"
        )
    if len(alert.get("recipients") or []) > 1:
        found.append(
            f"alert rule {alert['name']!r}: when one recipient refuses the connection the later ones are "
            "skipped; use one rule for each"
        )
    return tuple(found)
