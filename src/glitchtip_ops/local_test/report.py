"""The report for people: lines of a table, Markdown for chat, and one sentence of proof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glitchtip_core.text import one_line, without_mentions

Report = Mapping[str, Any]
_MISSING = "-"


def scenario_rows(report: Report) -> list[tuple[str, ...]]:
    """Scenario, then for each SDK ``ok (fields)`` or ``FAILED``."""
    sdks = list(report["sdks"])
    cells = {(row["scenario"], row["sdk"]): row for row in report["scenarios"]}
    names = dict.fromkeys(row["scenario"] for row in report["scenarios"])
    return [(name, *(_verdict(cells.get((name, sdk))) for sdk in sdks)) for name in names]


def _verdict(row: Report | None) -> str:
    if row is None:
        return _MISSING
    return f"ok, {len(row['fields'])} fields" if row["ok"] else "FAILED"


def burst_rows(report: Report) -> list[tuple[str, ...]]:
    """Sent, accepted, stored, late, lost, refused, accepted per second, latency p50 and p95 in seconds, drained."""
    return [
        tuple(
            _MISSING if burst[key] is None else str(burst[key])
            for key in (
                "sent",
                "accepted",
                "stored",
                "late",
                "lost",
                "refused",
                "accepted_per_second",
                "latency_p50",
                "latency_p95",
                "drained_seconds",
            )
        )
        for burst in report["bursts"]
    ]


BURST_HEAD = ("sent", "accepted", "stored", "late", "lost", "refused", "per s", "p50 s", "p95 s", "drained s")


def facts(report: Report) -> list[tuple[str, str]]:
    """What is said in a line each: label and text."""
    latency, memory, uptime = report["latency_seconds"], report["memory_mib"], report["uptime"]
    sdks = ", ".join(f"{sdk['name']} {sdk['version']}" for sdk in report["sdks"].values())
    server = report["server"]
    good = sum(1 for field in report["grouping"] if field["ok"])
    steps = ", ".join(f"{step['step']} {step['seconds']} s" for step in uptime["steps"])
    told = {
        "server": f"{server['url']} {server['version']} {server['organization']}/{server['project']}",
        "SDKs": sdks,
        "latency": f"p50 {latency['p50']} s, p95 {latency['p95']} s, max {latency['max']} s (at most {latency['limit']:g} s)",
        "grouping": f"{good} of {len(report['grouping'])} as expected",
        "memory": (
            f"before {memory['before']} MiB, peak {memory['peak']} MiB ({memory['samples']} samples), after {memory['after']} MiB"
            if memory
            else "not watched (no stack on this machine)"
        ),
        "uptime": f"{uptime['status']}{': ' if uptime['reason'] or steps else ''}{uptime['reason'] or steps}",
        "profiles": f"{report['profiles_dropped']} sent; {report['note']}",
        "time": f"{report['seconds']} s, {report['judged_at']}",
    }
    walked = report.get("walked")
    if walked is False:
        told["walked"] = (
            "NO: no real server of this line was ever walked; it is known from its source and documents"
        )
    elif walked:
        told["walked"] = "yes, a real server of this line"
    if report["across_sdks"]:
        one = sum(1 for value in report["across_sdks"].values() if value == "one issue")
        told["both SDKs"] = (
            f"the same error is one issue in {one} of {len(report['across_sdks'])} scenarios (not judged)"
        )
    return list(told.items())


def image_rows(report: Report) -> list[tuple[str, ...]]:
    """What the image itself says, by name and file; empty when it was not asked, as on another machine."""
    found = report.get("image_facts")
    if not found:
        return []
    rows: list[tuple[str, ...]] = [
        (fact["name"], fact["answer"], fact["file"] or _MISSING) for fact in found["facts"]
    ]
    return [*rows, ("could not be read", found["reason"], _MISSING)] if found["reason"] else rows


IMAGE_HEAD = ("the image says", "answer", "file")


def describe(report: Report) -> list[str]:
    """The report for a terminal, a line each."""
    lines = _table([("scenario", *report["sdks"]), *scenario_rows(report)])
    lines += ["", *_table([BURST_HEAD, *burst_rows(report)])] if report["bursts"] else []
    lines += ["", *_table([(label, text) for label, text in facts(report)])]
    lines += ["", *_table([IMAGE_HEAD, *image_rows(report)])] if image_rows(report) else []
    lines += [f"problem: {problem}" for problem in report["problems"]]
    return [*lines, f"verdict: {'passed' if report['passed'] else 'NOT passed'}"]


def markdown(report: Report) -> str:
    """The report as Markdown, for chat and for the record."""
    parts = [
        "# Phase 1 proof: " + ("passed" if report["passed"] else "not passed"),
        *(f"- **problem**: {_cell(problem)}" for problem in report["problems"]),
        "",
        *_pipes([("scenario", *report["sdks"]), *scenario_rows(report)]),
        "",
        *(_pipes([BURST_HEAD, *burst_rows(report)]) if report["bursts"] else []),
        "",
        *_pipes([("what", "found"), *facts(report)]),
        *(["", *_pipes([IMAGE_HEAD, *image_rows(report)])] if image_rows(report) else []),
    ]
    return "\n".join(parts) + "\n"


def proof(report: Report) -> str:
    """One sentence of what was really measured."""
    rows = report["scenarios"]
    fields = sum(len(row["fields"]) for row in rows)
    kept = sum(1 for row in rows if row["ok"])
    said = [f"{kept} of {len(rows)} scenarios of {' and '.join(report['sdks'])} read back ({fields} fields)"]
    said += [
        f"burst of {burst['sent']}: {burst['stored']} stored, p95 {burst['latency_p95']} s"
        for burst in report["bursts"]
    ]
    if report["memory_mib"]:
        said.append(f"peak {report['memory_mib']['peak']} MiB")
    uptime = report["uptime"]
    seconds = {step["step"]: step["seconds"] for step in uptime["steps"]}
    if uptime["status"] == "passed":
        said.append(
            f"uptime alert after {seconds['alert down']} s, recovery after {seconds['alert recovered']} s"
        )
    else:
        said.append(f"uptime {uptime['status']}")
    return ", ".join(said)


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _pipes(rows: list[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(_cell(text) for text in row) + " |" for row in rows]
    return [lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]


def _cell(text: str) -> str:
    return without_mentions(one_line(text)).replace("|", "\\|")
