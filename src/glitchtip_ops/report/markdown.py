"""The report for a chat: short Markdown, nothing in it that pings people or makes a link of a name."""

from __future__ import annotations

from glitchtip_core.text import escape_markdown, one_line

from ..soak.plan import span_text, time_text
from .collecting import Report
from .page import badge, headline

LONGEST = 4000
_MARKS = {True: "✅", False: "❌", None: "▫️"}


def plain(value: object, longest: int = 200) -> str:
    """``value`` as text that Markdown leaves alone; mentions and addresses are broken by an empty character."""
    line = one_line(value)
    if len(line) > longest:
        line = line[: longest - 1] + "…"
    return escape_markdown(line)


def clip(text: str, longest: int = LONGEST) -> str:
    """At most ``longest`` characters: whole lines, and a word when some are missing."""
    if len(text) <= longest:
        return text
    ending = "\n… (shortened)\n"
    head = text[: longest - len(ending)]
    return head[: head.rfind("\n")] + ending


def markdown_report(report: Report) -> str:
    """Verdict, reasons, a line a criterion; at most 4000 characters, the most important first."""
    verdict, plan = report.verdict, report.plan
    named = f" ({plain(plan.name)})" if plan.name else ""
    seconds, samples = verdict["figures"]["span_seconds"], verdict["figures"]["samples"]
    seen = f"{span_text(seconds)} of {span_text(plan.duration)} in mode {plain(plan.mode)}, {samples} samples"
    lines = [
        f"**{badge(report)[1]}** · soak of GlitchTip, {plain(plan.migration_id)}{named}",
        plain(headline(report)),
        f"{seen}, judged {time_text(verdict['judged_at'])}",
    ]
    if verdict["reasons"]:
        lines += ["", "**Against GO**", *(f"- {plain(reason)}" for reason in verdict["reasons"])]
    lines += ["", "**Criteria**"]
    lines += [
        f"- {_MARKS[each['met']]} {plain(each['name'])}: {plain(each['value'])} ({plain(each['threshold'])})"
        for each in verdict["criteria"]
    ]
    if report.events.kept:
        lines += ["", "**What happened**"]
        lines += [f"- {time_text(each.at)} {plain(each.text)}" for each in report.events.kept]
        if report.events.count > len(report.events.kept):
            lines.append(f"- … and {report.events.count - len(report.events.kept)} more")
    return clip("\n".join(lines) + "\n")
