"""A comparison for people: a table for the terminal, and Markdown for a ticket or a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glitchtip_core.text import one_line, without_mentions

from .comparing import sentence
from .content import DIFFERENT, EQUAL, NOT_COMPARABLE

_WORDS = {EQUAL: "equal", DIFFERENT: "DIFFERENT", NOT_COMPARABLE: "not comparable"}
_TITLE_WIDTH = 44


def lines(report: Mapping[str, Any]) -> list[str]:
    """The report as lines of a terminal."""
    mine, other = report["sentry"], report["glitchtip"]
    grouping = report["grouping"]
    found = [
        sentence(report),
        f"  {'':24}{'Sentry':>10}{'GlitchTip':>12}",
        f"  {'events':24}{mine['events']:>10}{other['events']:>12}",
        f"  {'issues':24}{mine['issues']:>10}{other['issues']:>12}",
        f"  {'missing here':24}{report['missing_in_sentry']:>10}{report['missing_in_glitchtip']:>12}",
        f"  {'duplicated':24}{mine['duplicated']:>10}{other['duplicated']:>12}",
        f"  {'test events left out':24}{mine['probes_left_out']:>10}{other['probes_left_out']:>12}",
        (
            f"  grouping: {grouping['one_to_one']} issues 1:1, {grouping['split']} split in GlitchTip,"
            f" {grouping['merged']} merged in GlitchTip"
        ),
    ]
    if report["issues"]:
        found.append(f"  {'issue':{_TITLE_WIDTH}}{'Sentry':>8}{'GlitchTip':>11}  {'map':4} fields")
    for row in report["issues"]:
        title = row["title"] if len(row["title"]) < _TITLE_WIDTH else row["title"][: _TITLE_WIDTH - 2] + "…"
        found.append(
            f"  {title:{_TITLE_WIDTH}}{row['sentry']['events']:>8}{row['glitchtip']['events']:>11}"
            f"  {row['grouping']:4} {_fields(row)}"
        )
        found += [
            f"      {_difference(finding)}" for finding in row["fields"] if finding["result"] == DIFFERENT
        ]
    if report["issues_not_shown"]:
        found.append(f"  and {report['issues_not_shown']} more issues (--top)")
    for side in ("glitchtip", "sentry"):
        ids = report[f"missing_in_{side}_ids"]
        if ids:
            found.append(f"  missing in {'GlitchTip' if side == 'glitchtip' else 'Sentry'}: {', '.join(ids)}")
    return found + [f"  note: {note}" for note in report["notes"]]


def _fields(row: Mapping[str, Any]) -> str:
    results = [finding["result"] for finding in row["fields"]]
    if not results:
        return "no event on both sides"
    counts = [f"{results.count(result)} {_WORDS[result]}" for result in (EQUAL, DIFFERENT, NOT_COMPARABLE)]
    return ", ".join(count for count in counts if not count.startswith("0 "))


def _difference(finding: Mapping[str, Any]) -> str:
    where = f" ({finding['why']})" if finding.get("why") else ""
    return (
        f"{finding['field']}{where}: Sentry {finding.get('sentry')!r}, GlitchTip {finding.get('glitchtip')!r}"
    )


def cell(text: Any) -> str:
    """A text that stays inside one cell of a Markdown table and is no markup."""
    plain = without_mentions(one_line(text))
    for sign in "\\`*_[]<>|#":
        plain = plain.replace(sign, f"\\{sign}")
    return plain


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    mine, other, grouping = report["sentry"], report["glitchtip"], report["grouping"]
    found = [
        "# Parity of Sentry and GlitchTip",
        "",
        (
            f"**{report['verdict']}**. {cell(sentence(report))}. Compared {report['compared_at']},"
            f" matched by {report['matched_by'].replace('_', ' ')}."
        ),
        "",
        "| | Sentry | GlitchTip |",
        "|---|--:|--:|",
        f"| project | {cell(mine['project'])} | {cell(other['project'])} |",
        f"| events | {mine['events']} | {other['events']} |",
        f"| issues | {mine['issues']} | {other['issues']} |",
        f"| missing here | {report['missing_in_sentry']} | {report['missing_in_glitchtip']} |",
        f"| duplicated | {mine['duplicated']} | {other['duplicated']} |",
        f"| test events left out | {mine['probes_left_out']} | {other['probes_left_out']} |",
        "",
        (
            f"Grouping: {grouping['one_to_one']} issues map 1:1, {grouping['split']} are split and"
            f" {grouping['merged']} merged in GlitchTip."
        ),
        "",
    ]
    if report["issues"]:
        found += [
            "## Issues",
            "",
            "| issue | Sentry | GlitchTip | grouping | fields |",
            "|---|--:|--:|---|---|",
        ]
        found += [
            f"| {cell(row['title'])} | {row['sentry']['events']} | {row['glitchtip']['events']}"
            f" | {row['grouping']} | {cell(_fields(row))} |"
            for row in report["issues"]
        ]
        found.append("")
    different = [
        f"- {cell(row['title'])}: {cell(_difference(finding))}"
        for row in report["issues"]
        for finding in row["fields"]
        if finding["result"] == DIFFERENT
    ]
    if different:
        found += ["## Differences", "", *different, ""]
    for side, name in (("glitchtip", "GlitchTip"), ("sentry", "Sentry")):
        ids = report[f"missing_in_{side}_ids"]
        if ids:
            found += [f"Missing in {name} (the first {len(ids)}): {', '.join(f'`{one}`' for one in ids)}", ""]
    found += ["## What cannot be compared", ""]
    found += [f"- {cell(item['field'])}: {cell(item['why'])}" for item in report["not_comparable"]]
    found += ["", *(f"Note: {cell(note)}." for note in report["notes"])]
    return "\n".join(found).rstrip() + "\n"
