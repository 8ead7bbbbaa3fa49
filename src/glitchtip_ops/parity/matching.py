"""Which events and issues are on both sides: pure functions over indexes that hold 16 bytes of each event.

An index is all that stays in memory of a list of events: a page is forgotten once it was counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .sides import tags_of
from .window import Window, epoch

PROBE_TAGS = ("probe", "cutover_probe", "local_test")
SHOWN_IDS = 20
SHOWN_GROUPS = 20
_LONGEST_TITLE = 200
_NUMBERS = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8}-[0-9a-f-]{27}\b|\b(?=[a-f]*\d)[0-9a-f]{12,}\b|\d+")


class Entry(NamedTuple):
    """What is kept of one event: its issue, and the second it was captured in."""

    issue: str
    second: int


class Named(NamedTuple):
    """What is kept of an issue: title and culprit as its newest event has them."""

    title: str
    culprit: str

    @property
    def key(self) -> str:
        """Equal for the same error where the ids of events differ: numbers and ids in it do not count."""
        return f"{normal_title(self.title)}|{normal_title(self.culprit)}"


@dataclass
class Index:
    """One side of a window.

    Attributes:
        events: id (16 bytes) -> issue and second. Holds some seconds beyond the window, for matching only.
        issues: issue -> title and culprit.
        newest: issue -> ids of events, newest first.
        probes: test events inside the window, left out of everything else.
        duplicated: ids that came twice with another time or another issue.
        cut: second down to which the list was read when the cap ended it; None when it was read whole.
        odd: events that could not be read (no id, no issue): counted, else ignored.
    """

    events: dict[bytes, Entry] = field(default_factory=dict)
    issues: dict[str, Named] = field(default_factory=dict)
    newest: dict[str, list[bytes]] = field(default_factory=dict)
    probes: int = 0
    duplicated: set[bytes] = field(default_factory=set)
    cut: int | None = None
    odd: int = 0


def normal_title(text: str) -> str:
    """A title without what differs from event to event; short enough for GlitchTip's cut at 100 characters."""
    plain = _NUMBERS.sub("#", text.lower().rstrip("….").strip())
    return " ".join(plain.split())[:90]


def is_probe(tags: Mapping[str, str]) -> bool:
    """Whether an event is one of our own test events."""
    return any(tag in tags for tag in PROBE_TAGS)


def index_of(events: Iterable[Mapping[str, Any]], window: Window, cap: int) -> Index:
    """Read events, newest first, into an index; at most ``cap`` of them (test events count)."""
    index = Index()
    strings: dict[str, str] = {}
    for number, event in enumerate(events):
        if number >= cap:
            break
        created = epoch(event.get("dateCreated"))
        raw_id = str(event.get("eventID") or event.get("id") or "").replace("-", "")
        second = int(created) if created is not None else None
        if second is not None and number == cap - 1:
            index.cut = second
        if event.get("event.type") == "transaction" or event.get("type") == "transaction":
            continue
        if second is None or not re.fullmatch(r"[0-9a-fA-F]{32}", raw_id) or not event.get("groupID"):
            index.odd += 1
            continue
        if is_probe(tags_of(event)):
            index.probes += window.holds(second)
            continue
        issue = strings.setdefault(str(event["groupID"]), str(event["groupID"]))
        entry, key = Entry(issue, second), bytes.fromhex(raw_id)
        if key in index.events:
            if index.events[key] != entry:
                index.duplicated.add(key)
            continue
        index.events[key] = entry
        if window.holds(second):
            if issue not in index.issues:
                title, culprit = str(event.get("title") or ""), str(event.get("culprit") or "")
                index.issues[issue] = Named(title[:_LONGEST_TITLE], culprit[:_LONGEST_TITLE])
            index.newest.setdefault(issue, []).append(key)
    return index


@dataclass
class Pair:
    """One issue of Sentry with what of it is in GlitchTip (or the reverse: ``sentry`` is empty then).

    ``pairs``: (event of Sentry, event of GlitchTip) whose content can be compared, newest first.
    """

    title: str
    sentry: list[str]
    glitchtip: list[str]
    sentry_events: int
    glitchtip_events: int
    missing: int
    pairs: list[tuple[str, str]] = field(default_factory=list)

    @property
    def grouping(self) -> str:
        """``1:1``, ``1:n``, ``n:1``, ``n:m``, or ``none`` when one side has nothing of it."""
        if not self.sentry or not self.glitchtip:
            return "none"
        return f"{'1' if len(self.sentry) == 1 else 'n'}:{'1' if len(self.glitchtip) == 1 else _many(self)}"


def _many(pair: Pair) -> str:
    return "n" if len(pair.sentry) == 1 else "m"


@dataclass
class Matching:
    """What both sides have in common. Counts are of events; ``by`` is ``event_ids`` or ``titles``."""

    by: str
    sentry_events: int
    glitchtip_events: int
    both: int
    missing_in_glitchtip: int
    missing_in_sentry: int
    missing_in_glitchtip_ids: list[str]
    missing_in_sentry_ids: list[str]
    one_to_one: int
    split: list[Pair]
    merged: list[Pair]
    issues: list[Pair]

    @property
    def ratio(self) -> float | None:
        """Events stored on both sides as a share of those in Sentry, 0 to 1, cut (never rounded up to 1)."""
        return None if not self.sentry_events else int(10000 * self.both / self.sentry_events) / 10000


def common_ids(sentry: Index, glitchtip: Index, window: Window) -> int:
    """How many events of the window have an id that is on both sides."""
    return sum(window.holds(entry.second) and key in glitchtip.events for key, entry in sentry.events.items())


def match_by_id(sentry: Index, glitchtip: Index, window: Window) -> Matching:
    """Match event by event: in mirror mode the very same envelopes reach both sides.

    An event belongs to the window by Sentry's time of it; by GlitchTip's where Sentry does not have it.
    """
    ours: dict[str, Counter[str]] = {}
    theirs: dict[str, Counter[str]] = {}
    total: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    extra: Counter[str] = Counter()
    missing_in_glitchtip: list[bytes] = []
    missing_in_sentry: list[bytes] = []
    for key, entry in sentry.events.items():
        if not window.holds(entry.second):
            continue
        total[entry.issue] += 1
        other = glitchtip.events.get(key)
        if other is None:
            lost[entry.issue] += 1
            missing_in_glitchtip.append(key)
            continue
        ours.setdefault(entry.issue, Counter())[other.issue] += 1
        theirs.setdefault(other.issue, Counter())[entry.issue] += 1
    for key, entry in glitchtip.events.items():
        if window.holds(entry.second) and key not in sentry.events:
            extra[entry.issue] += 1
            missing_in_sentry.append(key)

    pairs: list[Pair] = []
    for issue, count in total.most_common():
        found = ours.get(issue, Counter())
        siblings = sorted({other for mine in found for other in theirs[mine]} | {issue})
        pairs.append(
            Pair(
                title=sentry.issues[issue].title,
                sentry=[issue, *[other for other in siblings if other != issue]],
                glitchtip=[other for other, _ in found.most_common()],
                sentry_events=count,
                glitchtip_events=sum(found.values()),
                missing=lost[issue],
                pairs=[(key.hex(), key.hex()) for key in sentry.newest[issue] if key in glitchtip.events],
            )
        )
    pairs += [
        Pair(glitchtip.issues[issue].title, [], [issue], 0, count, 0) for issue, count in extra.most_common()
    ]
    both = sum(total.values()) - sum(lost.values())
    return Matching(
        by="event_ids",
        sentry_events=sum(total.values()),
        glitchtip_events=both + sum(extra.values()),
        both=both,
        missing_in_glitchtip=len(missing_in_glitchtip),
        missing_in_sentry=len(missing_in_sentry),
        missing_in_glitchtip_ids=_shown(missing_in_glitchtip),
        missing_in_sentry_ids=_shown(missing_in_sentry),
        one_to_one=sum(pair.grouping == "1:1" for pair in pairs),
        split=[pair for pair in pairs if len(pair.glitchtip) > 1 and pair.sentry],
        merged=_merged(sentry, theirs),
        issues=pairs,
    )


def _merged(sentry: Index, theirs: Mapping[str, Counter[str]]) -> list[Pair]:
    """The issues of GlitchTip that hold events of several issues of Sentry."""
    return [
        Pair(
            title=" / ".join(sentry.issues[other].title for other in list(found)[:3]),
            sentry=list(found),
            glitchtip=[issue],
            sentry_events=sum(found.values()),
            glitchtip_events=sum(found.values()),
            missing=0,
        )
        for issue, found in theirs.items()
        if len(found) > 1
    ]


def match_by_title(sentry: Index, glitchtip: Index, window: Window) -> Matching:
    """Match issue by issue, by title and culprit without numbers: where each side has events of its own.

    Counts are compared, not events: one lost and another one twice under the same title is not seen.
    """
    ours, theirs = _by_title(sentry, window), _by_title(glitchtip, window)
    pairs: list[Pair] = []
    lost = extra = both = 0
    for key in dict.fromkeys([*ours, *theirs]):
        mine, other = ours.get(key, _Titled()), theirs.get(key, _Titled())
        lost += max(0, mine.count - other.count)
        extra += max(0, other.count - mine.count)
        both += min(mine.count, other.count)
        pairs.append(
            Pair(
                title=mine.title or other.title,
                sentry=mine.issues,
                glitchtip=other.issues,
                sentry_events=mine.count,
                glitchtip_events=other.count,
                missing=max(0, mine.count - other.count),
                pairs=[(a.hex(), b.hex()) for a, b in zip(mine.newest, other.newest, strict=False)],
            )
        )
    pairs.sort(key=lambda pair: (-pair.sentry_events, -pair.glitchtip_events))
    whole = [pair for pair in pairs if pair.sentry and pair.glitchtip]
    return Matching(
        by="titles",
        sentry_events=sum(each.count for each in ours.values()),
        glitchtip_events=sum(each.count for each in theirs.values()),
        both=both,
        missing_in_glitchtip=lost,
        missing_in_sentry=extra,
        missing_in_glitchtip_ids=[],
        missing_in_sentry_ids=[],
        one_to_one=sum(pair.grouping == "1:1" for pair in whole),
        split=[pair for pair in whole if len(pair.glitchtip) > len(pair.sentry)],
        merged=[pair for pair in whole if len(pair.sentry) > len(pair.glitchtip)],
        issues=pairs,
    )


@dataclass
class _Titled:
    title: str = ""
    count: int = 0
    issues: list[str] = field(default_factory=list)
    newest: list[bytes] = field(default_factory=list)


def _by_title(index: Index, window: Window) -> dict[str, _Titled]:
    found: dict[str, _Titled] = {}
    for issue, named in index.issues.items():
        each = found.setdefault(named.key, _Titled(named.title))
        each.issues.append(issue)
        kept = [key for key in index.newest[issue] if window.holds(index.events[key].second)]
        each.count += len(kept)
        each.newest += kept
    return {key: each for key, each in found.items() if each.count}


def spread(items: list[tuple[str, str]], count: int) -> Iterator[tuple[str, str]]:
    """``count`` of the items: the first, the last and some between them."""
    if len(items) <= count:
        yield from items
        return
    for number in range(count):
        yield items[0 if count == 1 else round(number * (len(items) - 1) / (count - 1))]


def _shown(keys: list[bytes]) -> list[str]:
    return [key.hex() for key in keys[:SHOWN_IDS]]
