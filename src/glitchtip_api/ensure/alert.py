"""Alert rules, by name within a project."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..client import Client
from ..errors import GlitchTipError, InvalidError
from ..late_answers import Made, Wanted, create_once
from ..resources.base import Objects
from ..validate import (
    RECIPIENTS_SINCE,
    ZULIP_CONFIG,
    ZULIP_TOPIC,
    check_name,
    check_number,
    check_recipients,
    normal_url,
)
from .outcome import Outcome, missing, named, only, same_but, within

_SHORTEST_SAFE_TIMESPAN = 5
_SCALARS = ("name", "quantity", "timespanMinutes", "uptime")


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
    incomplete: bool = False,
    listed: Objects | None = None,
    parent_known: bool = False,
    state: str = "present",
    dry_run: bool = False,
) -> Outcome:
    """Make sure that an alert rule of this name exists in a project with these values, or does not exist.

    Args:
        quantity, timespan_minutes: fires when one issue got that many events in that time; 0 to 32767.
        uptime: also report the project's uptime monitors.
        recipients: the whole list, ``[{"type", "url", "tags", "config"}]`` (see `check_recipients`); None
            keeps the ones that are there.
        update_tags: the 5.2 line never returns a recipient's tags, so there "on_create" writes them with a
            new recipient only, and "always" writes them each time and always reports a change. 6.x returns
            them: they are compared, and this makes no difference.
        incomplete: also take a rule without recipients, about which the server e-mails everyone in the project
            (5.2 source), and a new one that never fires. Else both are refused, as slips of the pen.
        listed: all rules of the project as they were just read; None reads them.
        parent_known: the project was just seen, so it is not looked for before a rule is created in it.

    Every PUT carries the full list of recipients: the server deletes the ones that are not in it, and a rule
    without any e-mails the project's people. A recipient that is there is sent without its tags unless they
    change, because 5.2 answers other tags with 500 after having saved half of the rule; changed tags are
    written there by two PUTs, without that recipient and then with it.

    Raises InvalidError for values that harm the server and for a kind of recipient that it does not know,
    MissingError when there is no such project.
    """
    check_name(name, "an alert rule", 255)
    check_number(quantity, "quantity")
    check_number(timespan_minutes, "timespan_minutes")
    given = None if recipients is None else check_recipients(recipients)
    if given == [] and not incomplete:
        raise InvalidError(
            code="no_recipients",
            detail="an alert rule without recipients e-mails everyone in the project; name at least one",
        )
    wanted = {"quantity": quantity, "timespanMinutes": timespan_minutes, "uptime": uptime}
    wanted = {key: value for key, value in wanted.items() if value is not None}

    rules = client.alerts.list(organization, project) if listed is None else listed
    found = only(rules, "name", name, "alert rules")
    if state == "absent":
        if found and not dry_run:
            client.alerts.delete(organization, project, int(found["id"]))
        return Outcome(bool(found), found and view_alert(found), None)
    if found is None:
        if not incomplete:
            _check_new(name, wanted, given)
        where = f"project {project!r} in organization {organization!r}"
        if not parent_known and client.projects.get(organization, project) is None:
            raise missing(where)  # the list of a missing project is empty, not 404
        late: tuple[str, ...] = ()
        after = predicted_alert(name, wanted, given or [])
        if not dry_run:
            body = {"name": name, **wanted, "alertRecipients": given or []}
            made = _create(client, organization, project, body, rules, where)
            after, late = view_alert(made.thing), made.warnings
        return Outcome(True, None, after, predicted=dry_run, warnings=(*_warnings(after), *late))
    before = view_alert(found)
    blind = update_tags == "always" and any(_tags_are_unknown(recipient, found) for recipient in given or [])
    changed = blind or not _is_as_wanted(found, wanted, given)
    after = before
    if changed and dry_run:
        after = _foreseen(found, wanted, given)
    elif changed:
        after = view_alert(_update(client, organization, project, found, wanted, given, rewrite=blind))
    return Outcome(changed, before, after, predicted=changed and dry_run, warnings=_warnings(after))


def _check_new(name: str, wanted: Mapping[str, Any], given: Objects | None) -> None:
    if given is None:
        raise InvalidError(code="no_recipients", detail=f"the new alert rule {name!r} needs recipients")
    fires = wanted.get("quantity") is not None and wanted.get("timespanMinutes") is not None
    if not fires and not wanted.get("uptime"):
        raise InvalidError(
            code="never_fires",
            detail=f"the new alert rule {name!r} never fires: give quantity and timespan_minutes, or uptime",
        )


def _create(
    client: Client,
    organization: str,
    project: str,
    body: dict[str, Any],
    before: Objects,
    where: str,
) -> Made:
    """Create a rule that was not there `before`; complete what a failed create left behind."""
    sent: Objects = body["alertRecipients"]

    def create() -> dict[str, Any]:
        with_kinds = _kinds_explained(client, sent, lambda: client.alerts.create(organization, project, body))
        return within(with_kinds, where)

    wanted = Wanted(
        f"alert rule {body['name']!r} of {where}",
        lambda: named(client.alerts.list(organization, project), "name", body["name"], before),
        lambda one, other: same_but("id")(view_alert(one), view_alert(other)),
        lambda _: True,  # a rule has no events, and nothing refers to it
        lambda twin: client.alerts.delete(organization, project, int(twin["id"])),
    )
    made = create_once(client.transport, create, wanted)
    scalars = {key: body[key] for key in _SCALARS if key in body}
    if _is_as_wanted(made.thing, scalars, sent):
        return made
    # left by a 500: its tags are not known either
    whole = _update(client, organization, project, made.thing, scalars, sent, rewrite=True)
    return Made(whole, made.warnings)


def _update(
    client: Client,
    organization: str,
    project: str,
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    given: Objects | None,
    *,
    rewrite: bool,
) -> dict[str, Any]:
    """Write the whole rule, check what the server says it is now, and return that.

    Args:
        rewrite: write the tags of recipients that are there although they cannot be compared.
    """
    alert_id = int(found["id"])
    there = _by_identity(found)
    kept = [_as_sent(recipient) for recipient in there.values()]
    full = kept if given is None else given
    whole = {**{key: found.get(key) for key in _SCALARS}, **wanted}

    def put(recipients: Objects, **other: Any) -> dict[str, Any]:
        body = {**whole, **other, "alertRecipients": recipients}
        return _kinds_explained(
            client, recipients, lambda: client.alerts.update(organization, project, alert_id, body)
        )()

    if rewrite:
        rest = [r for r in full if not (_identity(r) in there and _tags_are_unknown(r, found))]
        silent = {} if rest else {"quantity": None, "uptime": False}  # without recipients it would e-mail
        put([_without_known_tags(r, found) for r in rest], **silent)
        answer = put(full)
    else:
        answer = put([_without_known_tags(recipient, found) for recipient in full])
    if not _is_as_wanted(answer, whole, full):
        raise GlitchTipError(
            "PUT", "", None, "not_applied", f"the alert rule {whole['name']!r} is not as it was written"
        )
    return answer


def _kinds_explained(
    client: Client, recipients: Objects, call: Callable[[], dict[str, Any]]
) -> Callable[[], dict[str, Any]]:
    """The call, with the 422 of a server that does not know a kind of recipient put into one sentence."""

    def explained() -> dict[str, Any]:
        try:
            return call()
        except GlitchTipError as error:
            newer = sorted({r["recipientType"] for r in recipients} & set(RECIPIENTS_SINCE))
            unknown = [kind for kind in newer if f"Input tag '{kind}'" in error.detail]
            if error.status != 422 or not unknown:
                raise
            raise InvalidError(
                code="unknown_recipient",
                detail=f"this server, GlitchTip {client.version() or 'of an unknown version'}, has no "
                f"recipients of type {unknown[0]!r}; they came with {RECIPIENTS_SINCE[unknown[0]]}",
                hint="use type webhook, or upgrade the server",
            ) from None

    return explained


def predicted_alert(
    name: str, wanted: Mapping[str, Any], recipients: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """The rule that would be created; its id is not known yet."""
    return view_alert({"id": "", "name": name, **wanted, "alertRecipients": list(recipients)})


def _foreseen(found: Mapping[str, Any], wanted: Mapping[str, Any], given: Objects | None) -> dict[str, Any]:
    """The view of a rule after the change that is wanted; of its tags only what the server shows."""
    if given is None:
        return view_alert({**found, **wanted})
    there = _by_identity(found)
    shown = any("tagsToAdd" in recipient for recipient in there.values())
    recipients = []
    for recipient in given:
        seen = there.get(_identity(recipient), {})
        merged = {**seen, **recipient}
        if not shown:
            merged.pop("tagsToAdd", None)
        recipients.append(merged)
    return view_alert({**found, **wanted, "alertRecipients": recipients})


def _is_as_wanted(alert: Mapping[str, Any], wanted: Mapping[str, Any], given: Objects | None) -> bool:
    """Whether everything that can be seen of a rule is as it should be."""
    if any(alert.get(key) != value for key, value in wanted.items()):
        return False
    if given is None:
        return True
    there = _by_identity(alert)
    return set(there) == {_identity(recipient) for recipient in given} and not any(
        _differs(recipient, there[_identity(recipient)]) for recipient in given
    )


def _differs(recipient: Mapping[str, Any], seen: Mapping[str, Any]) -> bool:
    tags = recipient.get("tagsToAdd")
    if tags is not None and "tagsToAdd" in seen and (seen["tagsToAdd"] or []) != tags:
        return True
    return "config" in seen and _config_of(recipient) != _config_of(seen)


def _tags_are_unknown(recipient: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether tags are wanted for a recipient, and the server does not show the ones that it has."""
    seen = _by_identity(found).get(_identity(recipient), {})
    return "tagsToAdd" in recipient and "tagsToAdd" not in seen


def _without_known_tags(recipient: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """A recipient as it is sent: without tags when it is there already and its tags cannot be compared."""
    seen = _by_identity(found).get(_identity(recipient))
    if seen is None or "tagsToAdd" in seen:
        return dict(recipient)
    return {key: value for key, value in recipient.items() if key != "tagsToAdd"}


def _identity(recipient: Mapping[str, Any]) -> tuple[str, str]:
    url = str(recipient.get("url") or "")
    return str(recipient["recipientType"]), normal_url(url) if url else ""


def _by_identity(alert: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {_identity(recipient): recipient for recipient in alert.get("alertRecipients") or []}


def _as_sent(seen: Mapping[str, Any]) -> dict[str, Any]:
    """A recipient as the server returned it, in the form in which it is sent back unchanged."""
    sent = {"recipientType": seen["recipientType"], "url": seen.get("url") or ""}
    if seen.get("tagsToAdd") is not None:
        sent["tagsToAdd"] = seen["tagsToAdd"]
    config = _config_of(seen)
    for name in ZULIP_CONFIG if config else ():
        head, *tail = name.split("_")
        sent[head + "".join(part.capitalize() for part in tail)] = config.get(name, "")
    return sent


def _config_of(recipient: Mapping[str, Any]) -> dict[str, str]:
    """What a zulip recipient needs beside its URL: sent flat, returned as `config`. No topic is the default one."""
    if recipient.get("config"):
        config = {name: str(recipient["config"].get(name) or "") for name in ZULIP_CONFIG}
    elif "botEmail" in recipient:
        flat = (recipient["botEmail"], recipient["apiKey"], recipient["channel"], recipient["topic"])
        config = dict(zip(ZULIP_CONFIG, flat, strict=True))
    else:
        return {}
    return {**config, "topic": config["topic"] or ZULIP_TOPIC}


def view_alert(alert: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared and returned of a rule as the server lists it.

    A recipient is ``{"type", "url"}``, with `tags` where the server shows them (6.x) and `config` for zulip.
    """
    view = {key: alert.get(key) for key in ("id", "name", "quantity", "timespanMinutes")}
    view["uptime"] = bool(alert.get("uptime"))
    return {**view, "recipients": [_view_recipient(*pair) for pair in sorted(_by_identity(alert).items())]}


def _view_recipient(identity: tuple[str, str], recipient: Mapping[str, Any]) -> dict[str, Any]:
    view: dict[str, Any] = {"type": identity[0], "url": identity[1]}
    if "tagsToAdd" in recipient:
        view["tags"] = list(recipient["tagsToAdd"] or [])
    config = _config_of(recipient)
    return {**view, "config": config} if config else view


def _warnings(alert: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    if not alert.get("recipients"):
        found.append(
            f"alert rule {alert['name']!r} has no recipients: the server e-mails everyone in the project"
        )
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
