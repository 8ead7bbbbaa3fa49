"""Compare a window of both trackers and put the result together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .content import DIFFERENT, EQUAL, NOT_COMPARABLE, NOT_COMPARED, Finding, combine, compare_events, shown
from .matching import (
    SHOWN_GROUPS,
    Index,
    Matching,
    Pair,
    common_ids,
    index_of,
    match_by_id,
    match_by_title,
    spread,
)
from .sides import Side
from .window import RETENTION_DAYS, Window, iso

EMPTY = "empty"
AUTO, BY_ID, BY_TITLE = "auto", "ids", "titles"


@dataclass(frozen=True)
class Wanted:
    """What to compare: ``top`` issues, ``samples`` events of each whole, ``max_events`` a side, how to match."""

    top: int = 20
    samples: int = 3
    max_events: int = 50_000
    match: str = AUTO


def compare(
    sentry: Side, glitchtip: Side, window: Window, wanted: Wanted, now: Callable[[], float]
) -> dict[str, Any]:
    """The whole comparison as a document, see docs/parity.md. Raises OpsError when a side cannot be read."""
    for side in (sentry, glitchtip):
        side.check()
    indexes = [index_of(side.events(window), window, wanted.max_events) for side in (sentry, glitchtip)]
    asked, cuts = window, [index.cut for index in indexes if index.cut is not None]
    notes: list[str] = []
    if cuts and max(cuts) >= window.since:
        window = Window(min(max(cuts) + 1, window.until), window.until)
        notes.append(
            f"more than {wanted.max_events} events (--max-events): only those since {iso(window.since)} are compared"
        )
    mine, other = indexes
    ids = wanted.match == BY_ID or (wanted.match == AUTO and _ids_agree(mine, other, window))
    matching = (match_by_id if ids else match_by_title)(mine, other, window)
    if not ids:
        notes.append(
            "no event id is on both sides (probe mode: the product's events reach Sentry only, or each side has"
            " events of its own): issues are matched by title and culprit, and counts are compared, not events"
            if wanted.match == AUTO
            else "issues are matched by title and culprit: counts are compared, not events"
        )
    notes += _notes(mine, other, asked, now())
    rows = [
        _row(sentry, glitchtip, pair, wanted.samples, matching.by) for pair in matching.issues[: wanted.top]
    ]
    return {
        "verdict": "",
        "compared_at": iso(now()),
        "window": {
            **window.to_json(),
            "asked_since": iso(asked.since),
            "max_events": wanted.max_events,
            "cut": window != asked,
        },
        "matched_by": matching.by,
        "sentry": _side(sentry, mine, window, matching.sentry_events),
        "glitchtip": _side(glitchtip, other, window, matching.glitchtip_events),
        "both": matching.both,
        "ratio": matching.ratio,
        "missing_in_glitchtip": matching.missing_in_glitchtip,
        "missing_in_glitchtip_ids": matching.missing_in_glitchtip_ids,
        "missing_in_sentry": matching.missing_in_sentry,
        "missing_in_sentry_ids": matching.missing_in_sentry_ids,
        "grouping": _grouping(matching),
        "issues": rows,
        "issues_not_shown": max(0, len(matching.issues) - wanted.top),
        "not_comparable": [{"field": name, "why": why} for name, why in NOT_COMPARED],
        "notes": notes,
    } | _judged(matching, rows, mine, other)


def _ids_agree(sentry: Index, glitchtip: Index, window: Window) -> bool:
    """Whether the two sides hold the same events: then ids decide, also when all but one were lost."""
    if common_ids(sentry, glitchtip, window):
        return True
    return not (_inside(sentry, window) and _inside(glitchtip, window))


def _inside(index: Index, window: Window) -> int:
    return sum(window.holds(entry.second) for entry in index.events.values())


def _side(side: Side, index: Index, window: Window, events: int) -> dict[str, Any]:
    inside = {entry.issue for entry in index.events.values() if window.holds(entry.second)}
    return {
        "url": side.client.url,
        "project": f"{side.organization}/{side.project}",
        "events": events,
        "issues": len(inside),
        "probes_left_out": index.probes,
        "duplicated": len(index.duplicated),
        "unreadable": index.odd,
    }


def _grouping(matching: Matching) -> dict[str, Any]:
    return {
        "one_to_one": matching.one_to_one,
        "split": len(matching.split),
        "merged": len(matching.merged),
        "split_issues": [_group(pair) for pair in matching.split[:SHOWN_GROUPS]],
        "merged_issues": [_group(pair) for pair in matching.merged[:SHOWN_GROUPS]],
    }


def _group(pair: Pair) -> dict[str, Any]:
    return {
        "title": shown(pair.title),
        "sentry": pair.sentry[:SHOWN_GROUPS],
        "glitchtip": pair.glitchtip[:SHOWN_GROUPS],
    }


def _row(sentry: Side, glitchtip: Side, pair: Pair, samples: int, by: str) -> dict[str, Any]:
    """One issue: counts, grouping, and the fields of some of its events."""
    compared: list[list[Finding]] = []
    used: list[str] = []
    for mine_id, other_id in spread(pair.pairs, samples):
        mine, other = sentry.event(mine_id), glitchtip.event(other_id)
        if mine is not None and other is not None:
            compared.append(compare_events(mine, other))
            used.append(mine_id)
    fields = combine(compared) if compared else []
    if by == "titles":
        fields = [_of_other_events(finding) for finding in fields]
    return {
        "title": shown(pair.title),
        "sentry": {"issues": pair.sentry[:SHOWN_GROUPS], "events": pair.sentry_events},
        "glitchtip": {"issues": pair.glitchtip[:SHOWN_GROUPS], "events": pair.glitchtip_events},
        "missing_in_glitchtip": pair.missing,
        "grouping": pair.grouping,
        "compared_events": used,
        "fields": [finding.to_json() for finding in fields],
    }


#: What may differ from event to event of one issue.
_OF_ONE_EVENT = frozenset({"exception_value", "message", "breadcrumbs", "user", "tags", "extra", "release"})


def _of_other_events(finding: Finding) -> Finding:
    """Matched by title, two different events are compared: what belongs to one event proves nothing."""
    if finding.field in _OF_ONE_EVENT and finding.result == DIFFERENT:
        return Finding(finding.field, NOT_COMPARABLE, "matched by title: these are two different events")
    return finding


def _judged(
    matching: Matching, rows: list[dict[str, Any]], sentry: Index, glitchtip: Index
) -> dict[str, Any]:
    """``verdict`` and, part by part, ``judgement``; each part ``equal``, ``different`` or ``empty``."""
    if not matching.sentry_events and not matching.glitchtip_events:
        return {"verdict": EMPTY, "judgement": {"events": EMPTY, "grouping": EMPTY, "content": EMPTY}}
    lost = matching.missing_in_glitchtip or matching.missing_in_sentry
    doubled = sentry.duplicated or glitchtip.duplicated
    results = [finding["result"] for row in rows for finding in row["fields"]]
    content = DIFFERENT if DIFFERENT in results else EQUAL if EQUAL in results else EMPTY
    grouped = matching.one_to_one or matching.split or matching.merged
    judgement = {
        "events": DIFFERENT if lost or doubled else EQUAL,
        "grouping": DIFFERENT if matching.split or matching.merged else EQUAL if grouped else EMPTY,
        "content": content,
    }
    return {
        "verdict": EQUAL if all(part == EQUAL for part in judgement.values()) else DIFFERENT,
        "judgement": judgement,
    }


def _notes(sentry: Index, glitchtip: Index, asked: Window, now: float) -> list[str]:
    notes = []
    if asked.since < now - RETENTION_DAYS * 86400:
        notes.append(
            f"the window begins more than {RETENTION_DAYS} days ago; Sentry has deleted what is older"
        )
    for name, index in (("Sentry", sentry), ("GlitchTip", glitchtip)):
        if index.odd:
            notes.append(
                f"{index.odd} entries of {name}'s list have no readable id, time or issue and are left out"
            )
    return notes


def sentence(report: Mapping[str, Any]) -> str:
    """The outcome in one sentence."""
    window = f"between {report['window']['since']} and {report['window']['until']}"
    if report["verdict"] == EMPTY:
        return f"empty: neither Sentry nor GlitchTip has an event {window} (test events do not count)"
    judgement = report["judgement"]
    parts = ", ".join(f"{name} {judgement[name]}" for name in ("events", "grouping", "content"))
    ratio = (
        "no event in Sentry"
        if report["ratio"] is None
        else f"{100 * report['ratio']:.2f} % of Sentry's events"
    )
    also = "" if report["ratio"] is None else " are in GlitchTip too"
    return f"{report['verdict']}: {ratio}{also} {window} ({parts})"
