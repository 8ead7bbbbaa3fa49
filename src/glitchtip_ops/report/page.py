"""The HTML page: verdict, criteria, plots, what happened, parity, the plan."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from ..soak.plan import span_text, time_text
from .chart import Chart, Limit, Line, style_of, svg, text
from .collecting import MOST_LINES, Report
from .style import CSS

_RESULT = {
    True: ("good", "✓ met"),
    False: ("bad", "✗ not met"),
    None: ("open", "– not judged"),
}
_MOST_ROWS = 50


def headline(report: Report) -> str:
    """The verdict in one sentence."""
    verdict = report.verdict
    met = sum(1 for each in verdict["criteria"] if each["met"])
    judged = sum(1 for each in verdict["criteria"] if each["met"] is not None)
    if verdict["verdict"] == "GO":
        return f"All {judged} criteria are met."
    return f"{judged - met} of {judged} criteria are not met."


def badge(report: Report) -> tuple[str, str]:
    """Class and words of the badge."""
    if not report.verdict["final"]:
        return "open", "RUNNING"
    return ("good", "GO") if report.verdict["verdict"] == "GO" else ("bad", "NO-GO")


# --- plots ------------------------------------------------------------------------------------------------


def charts(report: Report) -> list[Chart]:
    """Every plot, also those with nothing to draw (see ``Chart.measured``)."""
    plan, series, limits = report.plan, report.series, report.plan.thresholds
    begin = datetime.fromisoformat(plan.started_at).timestamp()
    times = series.times
    if not times:
        return []
    bounds = (min(begin, times[0]), max(times[-1], begin + 1.0))

    def lines(plot: str) -> list[Line]:
        return [
            Line(name, series.line(plot, name), dashed=name == "GlitchTip took")
            for name in series.plots.get(plot, {})
        ]

    def chart(
        id_: str, title: str, unit: str, drawn: Sequence[Line], limit: Sequence[Limit] = (), **more: Any
    ) -> Chart:
        note = f"only the first {MOST_LINES} are drawn" if id_ in series.left_out else ""
        return Chart(
            id_, title, unit, times, drawn, limit, gaps=report.gaps, bounds=bounds, note=note, **more
        )

    missed = [
        Line(line.label, [value * limits.max_probe_seconds for value in line.values], missed=True)
        for line in lines("missed")
        if any(math.isfinite(value) for value in line.values)
    ]
    delivered = f"criterion: GlitchTip takes at least {limits.min_mirror_percent:g} % of what Sentry takes"
    plots = [
        chart(
            "memory",
            "Memory of the host and of the stack",
            "%",
            lines("memory"),
            (
                Limit(limits.max_memory_percent, f"host below {limits.max_memory_percent:g} %"),
                Limit(limits.max_stack_percent, f"stack below {limits.max_stack_percent:g} %"),
            ),
            top=100.0,
        ),
        chart("containers", "Memory of each container", "MiB", lines("containers")),
        chart("cpu", "CPU of the host", "% busy", lines("cpu"), top=100.0),
        chart(
            "load",
            "Load",
            "per core",
            lines("load"),
            (Limit(limits.max_load_per_core, f"at most {limits.max_load_per_core:g} (95 %)"),),
        ),
        chart("container_cpu", "CPU of each container", "% of a core", lines("container_cpu")),
        chart(
            "disk",
            "Disk",
            "% full",
            lines("disk"),
            (Limit(limits.max_disk_percent, f"below {limits.max_disk_percent:g} %"),),
            top=100.0,
        ),
        chart(
            "probe",
            "Test events read back by their id",
            "seconds",
            lines("probe") + missed,
            (
                Limit(limits.max_probe_p95_seconds, f"95 % within {limits.max_probe_p95_seconds:g} s"),
                Limit(limits.max_probe_seconds, f"all within {limits.max_probe_seconds:g} s"),
            ),
            logarithmic=True,
        ),
        chart(
            "restarts",
            "Restarts of containers since the start",
            "restarts",
            lines("restarts"),
            (Limit(limits.max_container_restarts, f"at most {limits.max_container_restarts}"),),
            whole=True,
        ),
        chart("pm2_memory", "Memory of each PM2 service", "MiB", lines("pm2_memory")),
        chart(
            "pm2_restarts",
            "Restarts of PM2 services since the start",
            "restarts",
            lines("pm2_restarts"),
            (Limit(limits.max_pm2_restarts, f"at most {limits.max_pm2_restarts}"),),
            whole=True,
        ),
        chart("mirror", "Mirror: envelopes a sample", "envelopes", lines("mirror"), whole=True),
        chart("queue", "Messages waiting for the worker", "messages", lines("queue"), whole=True),
    ]
    return [_with_note(each, delivered) if each.id == "mirror" else each for each in plots]


def _with_note(chart: Chart, note: str) -> Chart:
    values = {each.name: getattr(chart, each.name) for each in fields(chart)}
    return Chart(**{**values, "note": note})


def _figure(chart: Chart, longest_gap: float) -> str:
    legend = "".join(
        f'<li><svg viewBox="0 0 20 10" aria-hidden="true">{_swatch(style_of(number, line), line.missed)}</svg>'
        f"{text(line.label, 80)}</li>"
        for number, line in enumerate(chart.lines)
    )
    note = f'<p class="soft">{text(chart.note)}</p>' if chart.note else ""
    return (
        f'<figure class="card" id="plot-{chart.id}"><h3>{text(chart.title)}</h3>{svg(chart, longest_gap)}'
        f'<figcaption><ul class="legend">{legend}</ul>{note}</figcaption></figure>'
    )


def _swatch(style: str, missed: bool) -> str:
    if missed:
        return f'<circle class="{style}" cx="10" cy="5" r="3.5"/>'
    return f'<path class="line {style}" d="M1 5H19"/>'


# --- parts ------------------------------------------------------------------------------------------------


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f'<th scope="col">{text(each)}</th>' for each in heads)
    return f'<table class="stack"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _short(label: str, value: object) -> str:
    return f'<td class="short" data-label="{text(label)}">{text(value, 60)}</td>'


def _cell(label: str, value: object, longest: int = 300) -> str:
    return f'<td class="number" data-label="{text(label)}">{text(value, longest)}</td>'


def _header(report: Report) -> Iterator[str]:
    verdict, plan = report.verdict, report.plan
    style, words = badge(report)
    named = f" · {text(plan.name)}" if plan.name else ""
    yield f'<h1>Soak of GlitchTip <span class="soft">{text(plan.migration_id)}{named}</span></h1>'
    judged = f"Judged {text(time_text(verdict['judged_at']))}."
    if verdict.get("refreshed_at"):
        judged += f" Judged again {text(time_text(verdict['refreshed_at']))}."
    if verdict["final"]:
        until = datetime.fromisoformat(verdict["judged_at"]) + timedelta(seconds=verdict["valid_for"])
        judged += f" Valid until {text(time_text(until.isoformat()))}."
    else:
        judged = "The soak goes on; this is how it stands. " + judged
    reasons = "".join(f"<li>{text(reason, 500)}</li>" for reason in verdict["reasons"])
    listed = f'<ul class="reasons">{reasons}</ul>' if reasons else ""
    yield (
        f'<section class="card verdict {style}" id="verdict"><span class="badge">{words}</span>'
        f"<div><p><strong>{text(headline(report))}</strong></p>"
        f'<p class="soft">{judged}</p>{listed}</div></section>'
    )
    figures = verdict["figures"]
    tiles = (
        (span_text(figures["span_seconds"]), f"observed, of {span_text(plan.duration)}; {figures['samples']} samples"),
        (_unit(figures["system_memory_percent_max"], "%"), "memory of the host at most"),
        (_unit(figures["stack_memory_mib_max"], "MiB"), "memory of the stack at most"),
        (str(figures["probes_captured"]), f"of {figures['samples']} test events read back"),
        (_unit(figures["probe_seconds_p95"], "s"), "until 95 % of them were read back"),
    )
    shown = "".join(
        f'<div class="card tile"><b>{text(value)}</b><span>{text(what)}</span></div>' for value, what in tiles
    )
    yield f'<div class="tiles">{shown}</div>'


def _unit(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:.4g} {unit}"


def _criteria(report: Report) -> str:
    rows = []
    for each in report.verdict["criteria"]:
        style, words = _RESULT[each["met"]]
        note = f"<small>{text(each['note'])}</small>" if each["note"] else ""
        rows.append(
            f'<tr><td><strong>{text(each["name"])}</strong>{note}</td>{_cell("value", each["value"])}'
            f'{_cell("wanted", each["threshold"])}<td class="{style}"><span>{words}</span></td></tr>'
        )
    return f'<h2>Criteria</h2><div class="card">{_table(("criterion", "value", "wanted", "result"), rows)}</div>'


def _plots(report: Report) -> str:
    every = charts(report)
    longest_gap = 3 * report.plan.interval
    figures = [_figure(chart, longest_gap) for chart in every if chart.measured]
    missing = [chart.title for chart in every if not chart.measured]
    note = f'<p class="soft">Nothing to plot: {text("; ".join(missing))}.</p>' if missing else ""
    gaps = '<p class="soft">Shaded: no samples were taken.</p>' if report.gaps else ""
    if not figures:
        return '<h2>Over time</h2><p class="soft">No sample was taken yet.</p>'
    return (
        f'<h2>Over time <span class="soft">(UTC)</span></h2>{gaps}<div class="plots">{"".join(figures)}</div>{note}'
    )


def _events(report: Report) -> str:
    events = report.events
    if not events.kept:
        return '<h2>What happened</h2><div class="card"><p>Nothing of note.</p></div>'
    rows = [
        f"<tr>{_short('at', time_text(event.at))}{_short('kind', event.kind)}<td>{text(event.text, 400)}</td></tr>"
        for event in events.kept
    ]
    left = events.count - len(events.kept)
    more = f'<p class="soft">… and {left} more.</p>' if left else ""
    return f'<h2>What happened</h2><div class="card">{_table(("at", "kind", "what"), rows)}{more}</div>'


def _parity(report: Report) -> str:
    parity = report.parity
    if parity is None:
        return ""
    ratio = parity.get("ratio")
    share = f"{100 * ratio:.2f} %" if isinstance(ratio, int | float) else "no event in Sentry"
    sides = []
    for name, key in (("Sentry", "sentry"), ("GlitchTip", "glitchtip")):
        side = _mapping(parity.get(key))
        told = (name, side.get("project", "–"), side.get("issues", "–"), side.get("events", "–"))
        labels = ("tracker", "project", "issues", "events")
        sides.append("<tr>" + "".join(map(_cell, labels, told)) + "</tr>")
    rows = []
    for issue in list(parity.get("issues") or [])[:_MOST_ROWS]:
        row = _mapping(issue)
        different = [str(_mapping(each).get("field")) for each in row.get("fields") or [] if _differs(each)]
        cells = (
            _mapping(row.get("sentry")).get("events", "–"),
            _mapping(row.get("glitchtip")).get("events", "–"),
            row.get("missing_in_glitchtip", "–"),
            str(row.get("grouping", "–")).replace("_", " "),
        )
        shorts = "".join(map(_short, ("in Sentry", "in GlitchTip", "missing", "grouping"), cells))
        differing = _cell("fields that differ", ", ".join(different) or "none")
        rows.append(f"<tr><td>{text(row.get('title', ''), 160)}</td>{shorts}{differing}</tr>")
    table = ""
    if rows:
        heads = ("issue", "in Sentry", "in GlitchTip", "missing", "grouping", "fields that differ")
        table = f"<h3>Top issues</h3>{_table(heads, rows)}"
    window = _mapping(parity.get("window"))
    named = ", ".join(str(_mapping(each).get("field")) for each in parity.get("not_comparable") or [])
    left_out = f'<p class="soft">Cannot be compared: {text(named)}.</p>' if named else ""
    return (
        f'<h2>Parity with Sentry</h2><div class="card" id="parity"><p><strong>{text(share)}</strong> of Sentry\'s events are in '
        f"GlitchTip (verdict: {text(parity.get('verdict', '–'))}), "
        f"{text(time_text(str(window.get('since', '–'))))} to {text(time_text(str(window.get('until', '–'))))}; "
        f"compared {text(time_text(str(parity.get('compared_at', '–'))))}.</p>"
        f"{_table(('tracker', 'project', 'issues', 'events'), sides)}{table}{left_out}</div>"
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _differs(finding: Any) -> bool:
    return _mapping(finding).get("result") == "different"


def _plan(report: Report) -> str:
    plan = report.plan
    facts = [
        ("migration", plan.migration_id),
        ("host", plan.host or "–"),
        ("mode", plan.mode),
        ("started", time_text(plan.started_at)),
        ("duration", span_text(plan.duration)),
        ("a sample every", span_text(plan.interval)),
        ("containers", ", ".join(plan.services) or "none"),
        ("PM2 services", ", ".join(plan.pm2_services) or "none"),
        *sorted(plan.versions.items()),
    ]
    listed = "".join(f"<dt>{text(name)}</dt><dd>{text(value, 600)}</dd>" for name, value in facts)
    limits = "".join(
        f"<dt>{text(each.name)}</dt><dd>{text(f'{getattr(plan.thresholds, each.name):g}')}</dd>"
        for each in fields(plan.thresholds)
    )
    return (
        f'<h2>Plan</h2><div class="plots"><div class="card"><h3>What was watched</h3><dl>{listed}</dl></div>'
        f'<div class="card"><h3>Thresholds</h3><dl>{limits}</dl></div></div>'
    )


def html_report(report: Report) -> str:
    """The whole page. Nothing outside it is referred to; its policy forbids scripts and every request."""
    digest = base64.b64encode(hashlib.sha256(CSS.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    _, words = badge(report)
    title = text(f"{words}: soak of GlitchTip, {report.plan.migration_id}")
    made = f"Made {text(time_text(report.made_at.isoformat()))} by glitchtip-ops soak report."
    body = [*_header(report), _criteria(report), _plots(report), _events(report), _parity(report), _plan(report)]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{text(policy)}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
        f"<title>{title}</title><style>{CSS}</style></head>\n<body><main>"
        + "\n".join(body)
        + f"<footer>{made}</footer></main></body></html>\n"
    )
