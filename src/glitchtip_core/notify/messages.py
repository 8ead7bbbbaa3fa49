"""The text of a message: a template of the program, or of the file of notifications, and the facts in it."""

from __future__ import annotations

import re
import string
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..text import one_line

_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+@")
_LISTED = 20


def _as_given(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    return facts


@dataclass(frozen=True)
class Catalogue:
    """What a program can announce.

    ``templates``: event -> text. The first line is the subject; a further line that names a fact which is not known is
    left out. ``facts_for_people`` makes words of facts. ``product`` and ``contact`` are said where the file names none.
    """

    templates: Mapping[str, str]
    product: str
    contact: str
    facts_for_people: Callable[[Mapping[str, Any]], Mapping[str, Any]] = field(default=_as_given)

    @property
    def events(self) -> tuple[str, ...]:
        """Names of the events."""
        return tuple(self.templates)


@dataclass(frozen=True)
class Message:
    """What is sent: event, subject, whole text (the subject is its first line), facts as text, when.

    ``calls``: mentions and addresses that the file of notifications itself has; all others are broken in chats.
    """

    event: str
    title: str
    text: str
    facts: Mapping[str, str]
    moment: datetime
    calls: tuple[str, ...] = ()


def fact_text(value: object) -> str | None:
    """A fact as text of one line without credentials; None when there is nothing to report."""
    if value is None or value in ("", [], (), {}):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return fact_text(value.get("name")) or fact_text(
            ", ".join(f"{key}: {item}" for key, item in value.items())
        )
    if isinstance(value, list | tuple | set | frozenset):
        texts = [text for item in value if (text := fact_text(item))]
        more = f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
        return ", ".join(texts[:_LISTED]) + more or None
    return _CREDENTIALS.sub("***@", one_line(value)) or None


def compose(
    template: str,
    event: str,
    facts: Mapping[str, Any],
    ours: Mapping[str, str],
    catalogue: Catalogue,
    now: float,
) -> Message:
    """The message of an event; facts named as one of ``ours`` are ours. ``now``: epoch seconds."""
    known = {
        name: text
        for name, value in {**catalogue.facts_for_people(facts), **ours, "event": event}.items()
        if (text := fact_text(value)) is not None
    }
    lines = _filled(template, known)
    return Message(event, lines[0], "\n".join(lines), known, datetime.fromtimestamp(now, UTC))


def _filled(text: str, facts: Mapping[str, str]) -> list[str]:
    """The lines of a template whose facts are all known; in the subject an unknown one is a question mark."""
    subject, *rest = text.strip().splitlines()
    lines = [string.Template(subject).substitute(defaultdict(lambda: "?", facts)).strip()]
    for line in rest:
        template = string.Template(line)
        if set(template.get_identifiers()) <= facts.keys():
            lines.append(template.substitute(facts).rstrip())
    return lines
