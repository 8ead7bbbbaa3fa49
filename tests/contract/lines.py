"""Which line a server is of, and rules that hold on one line only.

A rule of one line is marked ``@pytest.mark.line("6.2", provenance="source: 6.2 line, apps/alerts/api.py")``. No server
of the 6.2 line was at hand when its rules were written, so each says where it is from: ``source: <which code>`` or
``document: <which document>``. The 5.2 line was measured throughout, on a running server, and needs no word.

A rule of both lines was measured on 5.2. What is known of it for 6.2 may be said with
``@pytest.mark.six("source: ...")``; without that it is carried over from 5.2, and a run on 6.2 reports it so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

#: The lines, and the versions (major.minor) that belong to each.
LINES = {"5.2": ("5.1", "5.2"), "6.2": ("6.1", "6.2")}
#: A path that the 6.x line has (CHANGELOG 6.0.9): JSON there. On 5.2 the single-page app answers it in HTML.
ONLY_ON_6 = "/api/0/issues/1/commits/"
#: Where a rule of a line may be known from.
PROVENANCES = {"5.2": ("measured",), "6.2": ("source", "document")}
#: What a rule of both lines is on 6.2 when nothing more is known.
CARRIED_OVER = "carried over from 5.2"
PROVENANCE = re.compile(r"([a-z]+): \S.+")


def of_version(version: str) -> str | None:
    """The line of a version such as ``6.2.6`` or ``v5.2.0``; None when it says nothing (empty, ``0.0.0-..``).

    Raises ValueError for a version of no line that is known here.
    """
    match = re.match(r"v?(\d+)\.(\d+)", version)
    if match is None or match[1] == "0":
        return None
    short = f"{match[1]}.{match[2]}"
    for line, versions in LINES.items():
        if short in versions:
            return line
    raise ValueError(version)


def line_of(item: pytest.Item) -> str | None:
    """The only line that a rule holds on, or None."""
    marker = item.get_closest_marker("line")
    return str(marker.args[0]) if marker else None


def problem(line: object, provenance: object = None) -> str | None:
    """What is wrong with what a ``line`` marker says, as half a sentence, or None."""
    if line not in LINES:
        return f"names no line; known are {', '.join(LINES)}"
    if provenance is None and line == "5.2":
        return None
    kinds = PROVENANCES[str(line)]
    found = PROVENANCE.fullmatch(provenance) if isinstance(provenance, str) else None
    if found is None or found[1] not in kinds:
        words = " or ".join(f'"{kind}: <which>"' for kind in kinds)
        return f"must say where it is known from: provenance={words}"
    return None


def provenance_of(item: pytest.Item, line: str) -> str:
    """Where a rule is known from on a line: ``measured``, ``source``, ``document`` or :data:`CARRIED_OVER`."""
    if line == "5.2":
        return "measured"
    for name, place in (("six", 0), ("line", 1)):
        marker = item.get_closest_marker(name)
        if marker:
            given = [*marker.args, marker.kwargs.get("provenance")][place]
            return str(given).partition(":")[0]
    return CARRIED_OVER


def check(items: Iterable[pytest.Item]) -> None:
    """Refuse the collection when a rule of one line does not say where it is known from.

    Raises :class:`pytest.UsageError`.
    """
    found = {}
    for item in items:
        for marker in item.iter_markers("line"):
            text = problem(*(marker.args or (None,)), **marker.kwargs)
            if text:
                found[item.nodeid.split("[")[0]] = text
        for marker in item.iter_markers("six"):
            text = problem("6.2", *marker.args)
            if text:
                found[item.nodeid.split("[")[0]] = text
    if found:
        rows = "; ".join(f"{name} {text}" for name, text in sorted(found.items()))
        raise pytest.UsageError(f"contract: {len(found)} rules of one line: {rows}")
