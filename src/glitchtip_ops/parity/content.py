"""One event on both sides, field by field: equal, different, or not comparable with the reason.

Sentry is the reference. Where it hides or cuts a value by its own rules, nothing can be said about GlitchTip's,
and that is said. Everything that is shown went through `shown`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glitchtip_api.errors import scrub

from .sides import tags_of

EQUAL, DIFFERENT, NOT_COMPARABLE = "equal", "different", "not_comparable"
ABSENT = "neither side has one"
FIELDS = (
    "exception_type",
    "exception_value",
    "message",
    "fingerprint",
    "in_app_frames",
    "breadcrumbs",
    "release",
    "environment",
    "user",
    "level",
    "tags",
    "extra",
)

#: What no reading of the two APIs can compare, whatever the events are.
NOT_COMPARED = (
    (
        "fingerprint",
        "GlitchTip's API does not return it; its effect, which events form an issue, is compared instead",
    ),
    (
        "grouping hash",
        "Sentry hashes stack traces under its grouping configuration, GlitchTip title, culprit and type: the hashes never agree, the groups may",
    ),
    ("title", "GlitchTip cuts it at 100 characters; type, value and message are compared whole"),
    ("culprit", "each side derives its own from the stack trace"),
    ("contexts", "Sentry drops, renames and adds some (browser, device, os, trace, geo of the user)"),
    ("ip_address", "GlitchTip scrubs addresses of users by default, Sentry fills in {{auto}}"),
    ("breadcrumb times", "both convert them, to another precision"),
    ("profiles, replays, attachments, logs, sessions", "GlitchTip accepts and drops them"),
    ("transactions and spans", "not events of an issue; sampled on Sentry's side"),
    (
        "what Sentry never stored",
        (
            "inbound filters, spike protection, quotas and rate limits drop events before they are stored;"
            " such an event is missing in Sentry, not wrong in GlitchTip"
        ),
    ),
    ("what Sentry has deleted", "it keeps errors for 30 or 90 days, by plan"),
)

# What Sentry's server-side scrubbing puts in place of a value.
_MARK = re.compile(
    r"\[(?:Filtered|email|ip|creditcard|iban|mac|uuid|imei|password|pemkey|urlauth|usssn|userpath|bearer)\]"
)
_CUT = re.compile(r"(?:\.\.\.|…)$")
# Tags that a tracker makes of an event by itself.
SENTRY_TAGS = frozenset(
    {
        *(
            "level",
            "logger",
            "site",
            "url",
            "user",
            "transaction",
            "handled",
            "mechanism",
            "dist",
            "interface_type",
        ),
        *("runtime", "runtime.name", "os", "os.name", "os.rooted", "browser", "browser.name", "device"),
        *(
            "device.family",
            "client_os",
            "client_os.name",
            "gpu.name",
            "gpu.vendor",
            "app.device",
            "stack.in_app_only",
        ),
        *("replayId", "symbolicated_in_app", "trace", "trace.span", "trace.ctx", "sdk.name", "sdk.version"),
        *("isFirstSeen", "culture.timezone", "device.class", "environment", "release"),
    }
)
GLITCHTIP_TAGS = frozenset(
    {
        *("user.id", "user.email", "user.username", "os.name", "browser", "browser.name", "device"),
        *("environment", "release", "url", "transaction", "level"),
    }
)
_FIELDS_OF_THEIR_OWN = frozenset(
    {"user", "user.id", "user.email", "user.username", "release", "environment", "level"}
)
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_PHONE = re.compile(r"(?<![\w.])\+?\d[\d ()/-]{7,}\d(?![\w.])")
_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")
_TOKEN = re.compile(r"\b(?=[A-Za-z0-9_-]*\d)(?=[A-Za-z0-9_-]*[A-Za-z])[A-Za-z0-9_-]{20,}\b")
_SECRET_WORD = re.compile(
    r"(?i)\b((?:api[_-]?key|passw(?:or)?d|secret|token|auth\w*|bearer|key)\s*[=:]\s*)[^\s,;&]+"
)
_LONGEST_SHOWN = 120


@dataclass(frozen=True)
class Finding:
    """The outcome for one field; ``sentry`` and ``glitchtip`` only where they differ, scrubbed."""

    field: str
    result: str
    why: str = ""
    sentry: str | None = None
    glitchtip: str | None = None

    def to_json(self) -> dict[str, str]:
        """Without what is empty."""
        shown_values = {"why": self.why or None, "sentry": self.sentry, "glitchtip": self.glitchtip}
        return {
            "field": self.field,
            "result": self.result,
            **{key: value for key, value in shown_values.items() if value is not None},
        }


def shown(value: Any) -> str:
    """A value for people: without addresses, numbers and tokens of persons and systems, and short."""
    text = "(none)" if value is None or value == "" else str(value)
    text = _SECRET_WORD.sub(r"\1***", scrub(text))
    text = _MAIL.sub(lambda found: f"***@*** ({len(found[0])} characters)", text)
    text = _TOKEN.sub("***", _PHONE.sub("***", _ADDRESS.sub("***", text)))
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


@dataclass(frozen=True)
class Verdict:
    """Of one comparison. ``where`` is the place inside a structure."""

    result: str
    why: str = ""
    where: str = ""
    sentry: Any = None
    glitchtip: Any = None


_SAME = Verdict(EQUAL)


def compare_values(sentry: Any, glitchtip: Any, where: str = "") -> Verdict:
    """Compare two values or structures; the worst of what is inside counts."""
    if isinstance(sentry, Mapping) and isinstance(glitchtip, Mapping):
        keys = dict.fromkeys([*sentry, *glitchtip])
        return _worst(
            compare_values(sentry.get(key), glitchtip.get(key), f"{where}.{key}".strip(".")) for key in keys
        )
    if isinstance(sentry, list) and isinstance(glitchtip, list) and len(sentry) == len(glitchtip):
        both = zip(sentry, glitchtip, strict=True)
        return _worst(compare_values(a, b, f"{where}[{number}]") for number, (a, b) in enumerate(both))
    if _plain(sentry) == _plain(glitchtip):
        return _SAME
    return _compare_texts(sentry, glitchtip, where)


def _compare_texts(sentry: Any, glitchtip: Any, where: str) -> Verdict:
    mine, other = _plain(sentry), _plain(glitchtip)
    if _MARK.search(mine):
        pattern = ".*".join(re.escape(part) for part in _MARK.split(mine))
        if re.fullmatch(pattern, other, re.DOTALL) and other:
            return Verdict(NOT_COMPARABLE, "Sentry's data scrubbing replaced the value", where)
    for text, whole, who in ((mine, other, "Sentry"), (other, mine, "GlitchTip")):
        kept = _CUT.sub("", text)
        if kept != text and len(kept) >= 50 and whole.startswith(kept):
            return Verdict(NOT_COMPARABLE, f"{who} cut the value", where)
    return Verdict(DIFFERENT, "", where, sentry, glitchtip)


def _plain(value: Any) -> str:
    """A value as text: both sides turn numbers into texts here and there. None and nothing are the same."""
    if value is None or value in ({}, []):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _worst(verdicts: Iterator[Verdict]) -> Verdict:
    worst = _SAME
    for verdict in verdicts:
        if verdict.result == DIFFERENT:
            return verdict
        if verdict.result == NOT_COMPARABLE:
            worst = verdict
    return worst


# --- the parts of an event --------------------------------------------------------------------------------


def entry_of(event: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The data of the entry ``exception``, ``breadcrumbs``, ``message`` ...; empty without one."""
    for entry in event.get("entries") or []:
        if (
            isinstance(entry, Mapping)
            and entry.get("type") == kind
            and isinstance(entry.get("data"), Mapping)
        ):
            return entry["data"]  # type: ignore[no-any-return]
    return {}


def _values(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [value for value in data.get("values") or [] if isinstance(value, Mapping)]


def _exceptions(event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return _values(entry_of(event, "exception"))


def _frames(event: Mapping[str, Any], *, own: bool) -> list[dict[str, Any]]:
    found = []
    for value in _exceptions(event):
        trace = value.get("stacktrace")
        for frame in (trace.get("frames") if isinstance(trace, Mapping) else None) or []:
            if isinstance(frame, Mapping) and (not own or frame.get("inApp") or frame.get("in_app")):
                line = frame.get("lineNo", frame.get("lineno"))
                file = frame.get("filename") or frame.get("absPath") or frame.get("module")
                found.append({"file": file, "function": frame.get("function"), "line": line})
    return found


def _count(things: Sequence[Any], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _place(frame: Mapping[str, Any]) -> str:
    return f"{frame['function'] or '?'} {frame['file']}:{frame['line']}"


def _message(event: Mapping[str, Any]) -> str:
    if _exceptions(event):
        return ""
    data = entry_of(event, "message")
    return str(data.get("formatted") or data.get("message") or event.get("message") or "")


def _breadcrumbs(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "type": crumb.get("type") or "default",
            "category": None if crumb.get("category") in ("", "default") else crumb.get("category"),
            "level": crumb.get("level") or "info",
            "message": crumb.get("message"),
            "data": crumb.get("data"),
        }
        for crumb in _values(entry_of(event, "breadcrumbs"))
    ]


def _release(event: Mapping[str, Any]) -> str:
    release = event.get("release")
    if isinstance(release, Mapping):
        release = release.get("version")
    return str(release or tags_of(event).get("release") or "")


def _level(event: Mapping[str, Any]) -> str:
    return str(tags_of(event).get("level") or event.get("level") or "")


# --- the fields -------------------------------------------------------------------------------------------


Event = Mapping[str, Any]


def _simple(name: str, sentry: Any, glitchtip: Any) -> Finding:
    if _plain(sentry) == "" and _plain(glitchtip) == "":
        return Finding(name, EQUAL, ABSENT)
    return _finding(name, compare_values(sentry, glitchtip))


def _finding(name: str, verdict: Verdict) -> Finding:
    why = ": ".join(part for part in (verdict.where, verdict.why) if part)
    if verdict.result != DIFFERENT:
        return Finding(name, verdict.result, why)
    return Finding(name, DIFFERENT, why, shown(verdict.sentry), shown(verdict.glitchtip))


def _types(sentry: Event, glitchtip: Event) -> Finding:
    return _simple(
        "exception_type",
        [value.get("type") for value in _exceptions(sentry)],
        [value.get("type") for value in _exceptions(glitchtip)],
    )


def _texts(sentry: Event, glitchtip: Event) -> Finding:
    return _simple(
        "exception_value",
        [value.get("value") for value in _exceptions(sentry)],
        [value.get("value") for value in _exceptions(glitchtip)],
    )


def _fingerprint(sentry: Event, glitchtip: Event) -> Finding:
    mine, other = sentry.get("fingerprint"), glitchtip.get("fingerprint")
    if mine is not None and other is not None:
        return _simple("fingerprint", mine, other)
    return Finding("fingerprint", NOT_COMPARABLE, NOT_COMPARED[0][1])


def _own_frames(sentry: Event, glitchtip: Event) -> Finding:
    mine, other = _frames(sentry, own=True), _frames(glitchtip, own=True)
    all_mine, all_other = _frames(sentry, own=False), _frames(glitchtip, own=False)
    if not all_mine and not all_other:
        return Finding("in_app_frames", EQUAL, ABSENT)
    if mine == other:
        if mine:
            return Finding("in_app_frames", EQUAL, _count(mine, "frame"))
        mine, other = all_mine, all_other  # nothing is marked as the product's own: all of them count
    elif all_mine == all_other:
        why = "all frames are equal, but Sentry's stack trace rules mark others as in-app than the SDK did"
        return Finding("in_app_frames", NOT_COMPARABLE, why)
    if mine == other:
        return Finding("in_app_frames", EQUAL, f"{_count(mine, 'frame')}, none marked in-app")
    for number in range(max(len(mine), len(other))):
        one = _place(mine[number]) if number < len(mine) else None
        two = _place(other[number]) if number < len(other) else None
        if one != two:
            why = f"frame {number + 1} of {len(mine)} in Sentry, {len(other)} in GlitchTip"
            return Finding("in_app_frames", DIFFERENT, why, shown(one), shown(two))
    return Finding("in_app_frames", DIFFERENT, "the frames differ")


def _crumbs(sentry: Event, glitchtip: Event) -> Finding:
    mine, other = _breadcrumbs(sentry), _breadcrumbs(glitchtip)
    if not mine and not other:
        return Finding("breadcrumbs", EQUAL, ABSENT)
    if mine and len(mine) < len(other) and compare_values(mine, other[-len(mine) :]).result != DIFFERENT:
        why = f"Sentry kept the last {len(mine)} of {len(other)}, which are all in GlitchTip"
        return Finding("breadcrumbs", NOT_COMPARABLE, why)
    if len(mine) != len(other):
        return Finding("breadcrumbs", DIFFERENT, "their number", str(len(mine)), str(len(other)))
    verdict = compare_values(mine, other)
    if verdict.result == EQUAL:
        return Finding("breadcrumbs", EQUAL, _count(mine, "breadcrumb"))
    return _finding("breadcrumbs", verdict)


def _user(sentry: Event, glitchtip: Event) -> Finding:
    mine, other = (
        {key: _user_of(event).get(key) for key in ("id", "email", "username")}
        for event in (sentry, glitchtip)
    )
    if not any(map(_plain, [*mine.values(), *other.values()])):
        return Finding("user", EQUAL, ABSENT)
    verdict = compare_values(mine, other)
    return _finding("user", verdict)


def _user_of(event: Event) -> Mapping[str, Any]:
    user = event.get("user")
    return user if isinstance(user, Mapping) else {}


def _tags(sentry: Event, glitchtip: Event) -> Finding:
    mine, other = tags_of(sentry), tags_of(glitchtip)
    made = {key for key in mine if key not in other and key in SENTRY_TAGS}
    made |= {key for key in other if key not in mine and key in GLITCHTIP_TAGS}
    made -= _FIELDS_OF_THEIR_OWN
    compared = sorted((mine.keys() | other.keys()) - made - _FIELDS_OF_THEIR_OWN)
    verdict = compare_values(
        {key: mine.get(key) for key in compared}, {key: other.get(key) for key in compared}
    )
    if verdict.result != EQUAL:
        return _finding("tags", verdict)
    left_out = f"; made by one side alone and left out: {', '.join(sorted(made))}" if made else ""
    return Finding("tags", EQUAL, f"{_count(compared, 'tag')}{left_out}")


def _level_finding(sentry: Event, glitchtip: Event) -> Finding:
    mine, other = _level(sentry), _level(glitchtip)
    if not mine or not other:
        who = "Sentry" if not mine else "GlitchTip"
        return Finding("level", NOT_COMPARABLE, f"{who} does not tell the level of this event")
    return _simple("level", mine, other)


_COMPARISONS: tuple[Callable[[Event, Event], Finding], ...] = (
    _types,
    _texts,
    lambda sentry, glitchtip: _simple("message", _message(sentry), _message(glitchtip)),
    _fingerprint,
    _own_frames,
    _crumbs,
    lambda sentry, glitchtip: _simple("release", _release(sentry), _release(glitchtip)),
    lambda sentry, glitchtip: _simple(
        "environment", tags_of(sentry).get("environment"), tags_of(glitchtip).get("environment")
    ),
    _user,
    _level_finding,
    _tags,
    lambda sentry, glitchtip: _simple("extra", sentry.get("context"), glitchtip.get("context")),
)


def compare_events(sentry: Event, glitchtip: Event) -> list[Finding]:
    """Every field of `FIELDS`, in that order."""
    return [compare(sentry, glitchtip) for compare in _COMPARISONS]


def combine(samples: Sequence[Sequence[Finding]]) -> list[Finding]:
    """One finding a field of several events of an issue: a difference in one of them is a difference."""
    rank = {DIFFERENT: 0, NOT_COMPARABLE: 1, EQUAL: 2}
    return [
        min(of_field, key=lambda finding: rank[finding.result]) for of_field in zip(*samples, strict=True)
    ]
