"""What the switch announces to people: its events, their texts, and the words for its facts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glitchtip_core.notify.messages import Catalogue, fact_text
from glitchtip_core.notify.notifier import Notifier
from glitchtip_core.notify.settings import Settings
from glitchtip_core.notify.settings import parse_settings as parse_core_settings

from .errors import CutoverError, InterruptedRunError, UsageError

if TYPE_CHECKING:
    from .config import Config

#: What can be announced, and what is said when the file has no text of its own. The first line is the subject; a further
#: line that names a fact which is not known is left out.
TEMPLATES: Mapping[str, str] = {
    "start": (
        "$product on $host: moving the error tracking begins\n"
        "Step: $phase\n"
        "To: $to\n"
        "DSN: from $old_host to $new_host\n"
        "Services: $services\n"
        "Each service restarts once; users may notice a few seconds. Please deploy and restart nothing until the "
        "next message.\n"
        "If something looks wrong meanwhile, call $contact."
    ),
    "gate": (
        "$product on $host: a gate $verdict\n"
        "Gate: $gate\n"
        "$reason\n"
        "A gate that is not passed changes nothing. Questions and objections go to $contact now."
    ),
    "applied": (
        "$product on $host: the switch is made and proven, not yet confirmed\n"
        "Errors go to: $to ($new_host)\n"
        "Services: $services\n"
        "It took $seconds s.\n"
        "Without a confirmation by $confirm_before it takes itself back.\n"
        "Please look at your service now; if it misbehaves, call $contact (the way back: glitchtip-rollback)."
    ),
    "done": (
        "$product on $host: the switch is done\n"
        "Errors go to: $to\n"
        "Services: $services\n"
        "It took $seconds s.\n"
        "Deployments are free again. Errors of before are where they were.\n"
        "If errors are missing from now on, call $contact."
    ),
    "rolled_back": (
        "$product on $host: the switch was taken back\n"
        "Reason: $reason\n"
        "Only for: $service\n"
        "Errors go to: $back_to\n"
        "It took $seconds_to_last_restart s.\n"
        "Without proof yet: $unproven\n"
        "Still open: $problems\n"
        "Nothing has to be done for your service. Who sees it misbehave calls $contact."
    ),
    "incomplete": (
        "$product on $host: SOMEBODY HAS TO LOOK, the way back is not complete\n"
        "Reason: $reason\n"
        "Still open: $problems\n"
        "Call $contact now. On the host: ai-admin-cutover status, then glitchtip-rollback.\n"
        "Please deploy and restart nothing until this is closed."
    ),
    "watch_alarm": (
        "$product on $host: the watch after the switch raised an alarm\n"
        "Reason: $reason\n"
        "The switch is being taken back now; the next message tells how that ended.\n"
        "Call $contact if no message follows within two minutes."
    ),
    "watch_passed": (
        "$product on $host: the watch after the switch ended well\n"
        "Looks at containers, services, memory and events: $looks\n"
        "Services that sent nothing in that time: $silent\n"
        "Still naming another tracker, which has to be corrected: $drift\n"
        "Nothing else has to be done. Later trouble goes to $contact as always."
    ),
    "drift": (
        "$product on $host: a service or a settings file names another tracker than the active one\n"
        "Found: $problems\n"
        "Nothing was changed. Correct each of them as it says; `ai-admin-cutover drift` on the host lists them all.\n"
        "For questions call $contact."
    ),
}
#: What facts of the switch are called for people.
_WORDS: Mapping[str, Mapping[object, str]] = {
    "to": {"glitchtip": "GlitchTip", "mirror": "the old tracker, with a copy to GlitchTip (mirror)"},
    "back_to": {
        "before": "the tracker of before the migration",
        "mirror": "the old tracker, with a copy to GlitchTip (mirror)",
        "glitchtip": "GlitchTip",
    },
    "verdict": {True: "is passed", False: "is NOT passed"},
}


def _facts_for_people(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The facts, with ``to``, ``back_to`` and ``verdict`` made from ``target``, ``stands`` and ``passed`` where these are given."""
    words = {
        name: _WORDS[name].get(facts.get(source)) if isinstance(facts.get(source), str | bool) else None
        for name, source in (("to", "target"), ("back_to", "stands"), ("verdict", "passed"))
    }
    known = {**words, **facts}
    moment = fact_text(facts.get("confirm_before")) or ""
    if moment.isdigit():
        known["confirm_before"] = f"{datetime.fromtimestamp(int(moment)).astimezone():%H:%M %Z}"
    return known


CATALOGUE = Catalogue(TEMPLATES, "AI Admin", "the people who run the switch", _facts_for_people)


def notifier_of(path: Path | None) -> Notifier:
    """The notifier of the switch, with the file of notifications at ``path``."""
    return Notifier(path, CATALOGUE)


def parse_settings(data: object, where: str = "the notifications") -> Settings:
    """Check the decoded file of notifications. Raises UsageError with one sentence that begins with ``where``."""
    try:
        return parse_core_settings(data, CATALOGUE, where)
    except (InterruptedRunError, UsageError):
        raise
    except CutoverError as error:
        raise UsageError(str(error)) from None


def parse_facts(pairs: list[str]) -> dict[str, str]:
    """Facts of a command line, ``KEY=VALUE`` each. Raises UsageError."""
    facts = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or re.fullmatch(r"[a-z_][a-z0-9_]*", name) is None:
            raise UsageError(f"--fact takes KEY=VALUE with a KEY of small letters, digits and _, not {pair[:40]!r}")
        facts[name] = value
    return facts


def announce(
    config: Config, event: str, facts: Mapping[str, Any], *, dry_run: bool = False, notifier: Notifier | None = None
) -> dict[str, Any]:
    """Tell people about ``event``; with ``dry_run`` only say what would be told to whom.

    The result: ``changed``, ``would_change``, ``event``, ``text``, ``targets`` (name and kind of those that want
    this event) and ``problems``. Raises UsageError for an unknown event or a wrong file.
    """
    notifier = notifier or notifier_of(config.notify_file)
    everything = {"migration_id": config.migration_id, **facts}
    try:
        message, targets = notifier.preview(event, everything)
    except InterruptedRunError:
        raise
    except CutoverError as error:
        raise UsageError(str(error)) from None
    result: dict[str, Any] = {
        "changed": False,
        "would_change": bool(targets),
        "event": event,
        "text": message.text,
        "targets": [{"name": target.name, "kind": target.kind} for target in targets],
        "problems": [],
    }
    if dry_run or not targets:
        return result
    problems = notifier.send(event, everything)
    return {**result, "changed": len(problems) < len(targets), "problems": problems}
