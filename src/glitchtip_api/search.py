"""Searching issues: a typed search, and a check of search text that the server would misread.

The server splits the text like a shell does and reads it from the left: words with a colon are filters
(``is:``, ``level:``, ``has:``, any other key is a tag), the first word without one starts the free text,
which goes to the end. What it does not know it takes for a tag, and a tag that no event has finds nothing
without a word. Source of every statement here: GlitchTip 5.2 as measured; 6.2 reads the text by the same rules.
"""

from __future__ import annotations

import datetime as dt
import re
import shlex
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .errors import InvalidError

Value = TypeVar("Value")

STATUSES = ("unresolved", "resolved", "ignored")
LEVELS = ("sample", "debug", "info", "warning", "error", "fatal")
PAGED_SORTS = ("-last_seen", "last_seen", "-first_seen", "first_seen")
OWN_SORTS = ("-count", "count", "-priority", "priority")

_RELATIVE = re.compile(r"now(\s*-\s*\d+\s*[mhd])?\s*")
_SENTRY_SORTS = {"date": "-last_seen", "new": "-first_seen", "freq": "-count", "inbox": "-last_seen"}
_SENTRY_TERMS = {
    "age": "use start= (it looks at the first event) or seen_since= (it looks at the last one)",
    "firstSeen": "use start= and end=",
    "lastSeen": "use seen_since=",
    "assigned": "the server cannot search for who is assigned",
    "assigned_or_suggested": "the server cannot search for who is assigned",
    "bookmarks": "the server has no bookmarks",
    "timesSeen": "sort by -count instead",
    "times_seen": "sort by -count instead",
    "event.timestamp": "use start= and end=",
    "project": "use projects= with the ids of the projects",
    "project.id": "use projects= with the ids of the projects",
    "issue": "read the issue by its id",
    "id": "use by_event_id() for an event, ids= for issues",
    "title": "use title=",
    "message": "write the words without a key",
    "status": "use is: instead",
}


def _bad(detail: str, code: str = "bad_search") -> InvalidError:
    return InvalidError(code=code, detail=detail)


@dataclass(frozen=True)
class IssueSearch:
    """What issues to look for; all that is given must hold.

    Attributes:
        status: unresolved, resolved or ignored.
        level: that of the issue's first event: sample, debug, info, warning, error or fatal.
        tags: tag -> value, compared whole (no wildcards, no negation, no comparison). Also for what events
            carry by themselves: ``environment``, ``release``, ``server_name``, ``user.id`` ...
        has: tags that must be there with any value.
        text: words that must all be in title, culprit, URL or file names (PostgreSQL's full text search).
        title: part of the title, ``*`` for anything between. A colon, a percent sign or a backslash stands
            for any one character, because the server cannot take them. The server adds the issues that
            have all the words in their search text.
        query: search text in the server's own language, see `check_query`; a tag whose name is refused
            there goes into `tags`.
        environments: at least one of them.
        projects: numeric ids of projects, at least one of them.
        ids: ids of issues, at least one of them.
        start, end: bounds of the *first* event, as a time with a zone, an ISO date, ``now`` or ``now-24h``
            (m, h, d).
        seen_since: the *last* event is not older; compared here, because the server cannot.
        sort: ``-last_seen`` (default), ``last_seen``, ``-first_seen``, ``first_seen``; ``count`` and
            ``priority`` with or without a hyphen are sorted here after everything was read, because the
            server skips and repeats issues when it pages by them.
    """

    status: str | None = None
    level: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    has: Sequence[str] = ()
    text: str = ""
    title: str = ""
    query: str = ""
    environments: Sequence[str] = ()
    projects: Sequence[int | str] = ()
    ids: Sequence[int | str] = ()
    start: dt.datetime | str | None = None
    end: dt.datetime | str | None = None
    seen_since: dt.datetime | None = None
    sort: str = "-last_seen"

    @property
    def is_empty(self) -> bool:
        """True when nothing is asked for, so that every issue of the organization fits."""
        return not self.filters() and self.seen_since is None

    @property
    def sorted_here(self) -> bool:
        """True when the server's own sort would lose issues between pages."""
        return self.sort in OWN_SORTS

    def search_text(self) -> str:
        """The parameter ``query``: filters first, each quoted, then the free text.

        Raises InvalidError for what the server cannot look for.
        """
        terms = []
        if self.status is not None:
            terms.append(f"is:{_one_of(self.status, STATUSES, 'status')}")
        if self.level is not None:
            terms.append(f"level:{_one_of(self.level, LEVELS, 'level')}")
        terms += [f"has:{_tag_value(_tag_key(key))}" for key in _texts(self.has, "has")]
        terms += [f"{_tag_key(key)}:{_tag_value(value)}" for key, value in self.tags.items()]
        query = " ".join([*(shlex.quote(_clean(term)) for term in terms), *self._free_text()])
        if self.query.strip():
            if self.text.strip() or self.title.strip():
                raise _bad("query holds its own free text: give it, or text, or title")
            query = f"{query} {check_query(self.query)}".strip()
        if _is_event_id(query):
            raise _bad("search text that is an event id is read as one: use by_event_id()")
        return query

    def _free_text(self) -> list[str]:
        if self.text.strip() and self.title.strip():
            raise _bad("text and title share one place in the search: give one of them")
        if self.title.strip():
            pattern = re.sub(r"[:%\\]", "_", _clean(self.title.strip()))
            return [shlex.quote(f"*{pattern.strip('*')}*")]
        words = _clean(self.text).split()
        if any("*" in word for word in words):
            raise _bad("text looks for whole words: use title= for a pattern with *")
        words.sort(key=lambda word: ":" in word)  # the first word must not look like a tag; all must occur
        if words and ":" in words[0]:
            raise _bad(
                f"the text {words[0]!r} would be read as a tag: use title=, or add a word without a colon"
            )
        return [shlex.quote(word) for word in words]

    def filters(self) -> dict[str, Any]:
        """The parameters that select issues, without the empty ones. Raises InvalidError for bad values."""
        chosen = {
            "query": self.search_text(),
            "environment": _texts(self.environments, "environments"),
            "project": [number(value, "a project") for value in _several(self.projects, "projects")],
            "id": [number(value, "an issue") for value in _several(self.ids, "ids")],
            "start": _moment(self.start, "start"),
            "end": _moment(self.end, "end"),
        }
        return {name: value for name, value in chosen.items() if value}

    def params(self) -> dict[str, Any]:
        """All parameters of a list. Raises InvalidError for bad values."""
        check_sort(self.sort)
        _moment(self.seen_since, "seen_since")
        return {**self.filters(), "sort": "-last_seen" if self.sorted_here else self.sort}


def check_sort(sort: str) -> str:
    """Return the name of an order. Raises InvalidError for one that the server does not have."""
    if sort not in PAGED_SORTS + OWN_SORTS:
        instead = _SENTRY_SORTS.get(sort)
        known = ", ".join(PAGED_SORTS + OWN_SORTS)
        raise _bad(
            f"there is no order {sort!r}: " + (f"use {instead}" if instead else f"use one of {known}"),
            "bad_sort",
        )
    return sort


def check_query(query: str) -> str:
    """Return search text that is in the server's own language.

    Raises InvalidError, with what to write instead, for text that breaks the server (a quote or a backslash
    that stands alone) or that it misreads without a word (Sentry's filters, negation, comparison, wildcards
    in tags, filters after free text, unknown statuses and levels).
    """
    _clean(query)
    try:
        words = shlex.split(query)
    except ValueError:
        raise _bad(
            "a quote or a backslash stands alone in the search text: the server fails with 500"
        ) from None
    if _is_event_id(query.strip()):
        raise _bad("search text that is an event id is read as one: use by_event_id()")
    for place, word in enumerate(words):
        if ":" not in word:
            _check_after_text(words[place:])
            return query
        _check_term(word)
    return query


def _check_after_text(words: Sequence[str]) -> None:
    for word in words[1:]:
        key, colon, value = word.partition(":")
        if colon and value and key in ("is", "has", "level", *_SENTRY_TERMS):
            raise _bad(
                f"the filter {word!r} comes after free text and would be read as text: put filters first"
            )


def _check_term(word: str) -> None:
    key, _, value = word.partition(":")
    value = value.strip('"')
    if word.startswith("!"):
        raise _bad(f"the server cannot negate: {word!r} would look for a tag of that name and find nothing")
    if key in _SENTRY_TERMS:
        raise _bad(f"{key}: would be read as a tag and find nothing: {_SENTRY_TERMS[key]}")
    if not key or not value:
        raise _bad(f"the filter {word!r} lacks its key or its value and finds nothing")
    if key == "is":
        _one_of(value, STATUSES, "status")
    elif key == "level":
        _one_of(value, LEVELS, "level")
    elif "*" in value or value[0] in "<>![":
        raise _bad(
            f"tags are compared whole: {word!r} finds only that very value (no wildcards, no comparison)"
        )


def in_parts(values: Sequence[Value], size: int) -> Iterator[list[Value]]:
    """The values in lists of `size` at most: addresses have a limited length."""
    for start in range(0, len(values), size):
        yield list(values[start : start + size])


def number(value: int | str, what: str) -> str:
    """A numeric id as text. Raises InvalidError for a slug, a short id or a number below 1."""
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch(r"[1-9][0-9]{0,17}", text):
        raise _bad(f"the id of {what} is a number, not {text!r} (a slug or short id will not do)", "bad_id")
    return text


def _one_of(value: str, known: tuple[str, ...], what: str) -> str:
    if value not in known:
        raise _bad(f"a {what} is one of {', '.join(known)}; {value!r} would find nothing", f"bad_{what}")
    return value


def _tag_key(key: str) -> str:
    if not key or ":" in key or key != key.strip() or key in ("is", "has", "level"):
        raise _bad(f"the server cannot look for a tag named {key!r}")
    return key


def _tag_value(value: str) -> str:
    text = str(value)
    if not text or text != text.strip('"'):
        raise _bad(
            "the server cannot look for a tag value that is empty or begins or ends with a double quote"
        )
    return text


def _clean(text: str) -> str:
    if "\x00" in text:
        raise _bad("the search text holds a NUL character: the server fails with 500")
    return text


def _several(values: Sequence[Any], what: str) -> Sequence[Any]:
    if isinstance(values, str):
        raise _bad(f"{what} is a list")
    return values


def _texts(values: Sequence[str], what: str) -> list[str]:
    found = list(_several(values, what))
    if not all(found):
        raise _bad(f"{what} holds an empty name")
    return found


def _is_event_id(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _moment(value: dt.datetime | str | None, what: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            raise _bad(f"{what} lacks its time zone", "bad_time")
        return value.isoformat()
    if not _RELATIVE.fullmatch(value):
        try:
            dt.datetime.fromisoformat(value)
        except ValueError:
            raise _bad(
                f"{what} is an ISO date or time, now, or like now-24h (m, h, d); not {value!r}", "bad_time"
            ) from None
    return value
