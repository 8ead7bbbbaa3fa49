"""``glitchtip-ops soak``: start, sample, status, verdict, report."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from glitchtip_core.files import lock, write_bytes

from ..cli import BAD_ANSWER, Outcome
from ..docker_stack import Stack
from ..probe import Probe, send_probe
from ..process import OpsError
from ..settings import Settings, load_settings, settings_directory
from .config import SoakConfig
from .plan import GO, MODES, Plan, check_name, parse_duration
from .running import (
    ended_text,
    migration_directory,
    open_verdict,
    refresh,
    sample_due,
    start,
    status,
    utc_now,
)
from .sampler import Sampler, real_issues
from .store import SoakFiles

_MARKS = {True: "met", False: "NOT MET", None: "-"}


def make_sampler(settings: Settings, config: SoakConfig) -> Sampler:
    """The sampler of this host."""

    def probe() -> Probe:
        return send_probe(settings, "soak", timeout=config.probe_timeout)

    def real(plan: Plan) -> dict[str, Any]:
        return real_issues(settings, plan)

    return Sampler(config, Stack(config.compose_project), probe, real=real)


def ordered(soak_files: SoakFiles, stack_id: str) -> Plan:
    """The plan. Raises OpsError when no soak of the stack ``stack_id`` was ordered."""
    plan = soak_files.read_plan()
    if plan is None:
        named = f" named {soak_files.name}" if soak_files.name else ""
        raise OpsError(f"no soak{named} was ordered on this host; begin with: glitchtip-ops soak start")
    if plan.stack_id != stack_id:
        raise OpsError(ended_text(plan))
    return plan


def watched_services(config: SoakConfig) -> SoakConfig:
    """``config`` with the services of the process model that runs here (6.x may have no worker of its own)."""
    if "worker" not in config.services:
        return config
    stack = Stack(config.compose_project)
    try:
        return replace(config, services=stack.services(config.services, stack.containers()))
    except OpsError:
        return config  # no engine answers: the samples will say so


def _start(options: argparse.Namespace, settings: Settings, config: SoakConfig) -> Outcome:
    result = start(
        settings,
        watched_services(config),
        parse_duration(options.duration),
        parse_duration(options.interval),
        restart=options.restart,
        dry_run=options.dry_run,
        name=options.name,
        mode=options.mode,
    )
    return Outcome(result, describe_status(result))


def _sample(settings: Settings, config: SoakConfig) -> Outcome:
    """A step of every soak that runs; one that fails does not keep the others from theirs."""
    directory = migration_directory(settings)
    if not directory.is_dir():
        return Outcome({"soaks": []}, ["no soak was ordered"])
    results: list[dict[str, Any]] = []
    failures: list[str] = []
    with lock(directory / ".soak.lock", "a sample of the soak"):
        for soak_files in SoakFiles.all_of(directory):
            try:
                results.append(sample_due(soak_files, make_sampler(settings, config), stack_id=settings.stack_id))
            except OpsError as error:
                failures.append(str(error))
    if failures:
        raise OpsError("; ".join(failures))
    lines = [line for result in results for line in describe_step(result)]
    hopeless = any(result["out_of_reach"] for result in results)
    return Outcome({"soaks": results}, lines or ["no soak was ordered"], BAD_ANSWER if hopeless else 0)


def _verdict(options: argparse.Namespace, settings: Settings) -> Outcome:
    soak_files = SoakFiles(migration_directory(settings), check_name(options.name))
    plan = ordered(soak_files, settings.stack_id)
    if options.refresh:
        refresh(soak_files, plan, utc_now())
    verdict = open_verdict(soak_files, plan, utc_now())
    return Outcome(verdict, table(verdict), 0 if verdict["verdict"] == GO else BAD_ANSWER)


def _report(options: argparse.Namespace, settings: Settings) -> Outcome:
    from ..report import html_report, markdown_report, read_report  # only this action needs it

    soak_files = SoakFiles(migration_directory(settings), check_name(options.name))
    plan = ordered(soak_files, settings.stack_id)
    report = read_report(soak_files, plan, utc_now())
    written: dict[str, Any] = {}
    if options.markdown:
        write_bytes(Path(options.markdown), markdown_report(report).encode(), 0o640)
        written["markdown"] = options.markdown
    html = options.html or ("" if options.markdown else str(soak_files.directory / "report.html"))
    if html:
        size = html_report(report)
        write_bytes(Path(html), size.encode(), 0o640)
        written["html"] = html
    lines = [f"{path} written, {os.path.getsize(path) // 1024} KiB" for path in written.values()]
    return Outcome({**written, "verdict": report.verdict["verdict"], "final": report.verdict["final"]}, lines)


def run(options: argparse.Namespace) -> Outcome:
    """One action of ``soak``."""
    settings = load_settings()
    if options.action == "verdict":
        return _verdict(options, settings)
    if options.action == "report":
        return _report(options, settings)
    if options.action == "status":
        soak_files = SoakFiles(migration_directory(settings), check_name(options.name))
        result = status(soak_files, utc_now(), settings.stack_id)
        return Outcome(result, describe_status(result))
    config = SoakConfig.read(settings_directory() / "soak.json")
    return _start(options, settings, config) if options.action == "start" else _sample(settings, config)


# --- for people -------------------------------------------------------------------------------------------


def describe_step(result: Mapping[str, Any]) -> list[str]:
    """What one call of ``soak sample`` did, some lines."""
    which = f"soak {result['name']}" if result["name"] else "soak"
    sample = result["sample"]
    lines: list[str] = []
    if sample is not None:
        probe = sample["probe"]
        text = f"captured after {probe['seconds']} s" if probe["captured"] else f"not captured: {probe['error']}"
        lines = [f"{which}: {sample['at']} test event {text}", *(f"- {error}" for error in sample["errors"])]
    lines += describe_reach(result)
    if result["verdict"]:
        return [*lines, f"{which}: the ordered time is covered, verdict {result['verdict']}"]
    if result["state"] == "ended":
        return [f"{which}: it was ordered for another stack than the one deployed now; run phase 3 again"]
    if result["state"] == "waiting":
        return [f"{which}: the next sample is not due yet"]
    return lines or [f"{which}: nothing to do ({result['state']})"]


def describe_reach(result: Mapping[str, Any]) -> list[str]:
    """Why GO is out of reach, and what to do; no line while it is not."""
    if not result["out_of_reach"]:
        return []
    return [
        "GO is out of reach, whatever follows:",
        *(f"- {reason}" for reason in result["out_of_reach"]),
        "Correct the cause, then begin anew: phase 3 with -e parallel_run_restart=true (glitchtip-ops soak start --restart)",
    ]


def describe_status(result: Mapping[str, Any]) -> list[str]:
    """How a soak stands, some lines."""
    found, named = result["figures"], f" {result['name']}" if result.get("name") else ""
    lines = [f"soak{named} {result['state']}, verdict {result['verdict'] or 'still open'}"]
    if found.get("samples"):
        system, stack = found["system_memory_percent_max"], found["stack_memory_mib_max"]
        lines += [
            f"{found['samples']} samples over {found['span_seconds']} s",
            f"{found['probes_captured']} test events captured, slowest {found['probe_seconds_max']} s",
            f"memory at most {system} %, of the stack {stack} MiB",
        ]
    if result.get("ended"):
        lines.append(f"- {result['ended']}")
    lines += describe_reach(result)
    if result.get("stalled"):
        lines.append(f"- {result['stalled']}")
    return [*lines, *(f"- {reason}" for reason in result["reasons"])]


def table(verdict: Mapping[str, Any]) -> list[str]:
    """GO or NO_GO, then every criterion with value and threshold, then the reasons against it."""
    head = f"{verdict['verdict']} (migration {verdict['migration_id']}, mode {verdict['mode']})"
    if not verdict["final"]:
        head += " over the samples so far; the soak goes on"
    rows = [("criterion", "value", "threshold", "")] + [
        (each["name"], each["value"], each["threshold"], _MARKS[each["met"]]) for each in verdict["criteria"]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [head, ""]
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        lines.append("  ".join([*cells, row[3]]).rstrip())
    notes = [f"- {each['name']}: {each['note']}" for each in verdict["criteria"] if each["note"]]
    reasons = [f"- {reason}" for reason in verdict["reasons"]]
    for title, block in (("Against GO:", reasons), ("Notes:", notes)):
        lines += ["", title, *block] if block else []
    return lines


def register(subparsers: Any) -> None:
    """Add ``soak`` with its actions."""
    parser = subparsers.add_parser("soak", help="prove GlitchTip beside Sentry for a while, then GO or NO_GO")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    begin = actions.add_parser("start", help="order a soak (glitchtip-soak.timer takes the samples)")
    begin.add_argument("--duration", default="48h", help="60s to 7d (default: 48h)")
    begin.add_argument("--interval", default="15m", help="time between two samples, from 10s (default: 15m)")
    begin.add_argument("--mode", choices=MODES, help="default: what role parallel_run configured")
    begin.add_argument(
        "--restart", action="store_true", help="begin anew; the files of the run before are renamed"
    )
    begin.add_argument("--dry-run", action="store_true", help="only say whether a run would be ordered")
    actions.add_parser(
        "sample", help="take the sample that is due in every running soak; exit code 3 when GO is out of reach"
    )
    look = actions.add_parser("status", help="state of the soak, and whether GO can still be reached")
    verdict = actions.add_parser("verdict", help="every criterion; exit code 3 for NO_GO")
    verdict.add_argument(
        "--refresh", action="store_true", help="judge the same samples again (parity has come since)"
    )
    report = actions.add_parser("report", help="a page with plots, or Markdown for a chat")
    report.add_argument("--html", metavar="FILE", help="one self-contained file")
    report.add_argument("--markdown", metavar="FILE", help="at most 4000 characters")
    for action in (begin, look, verdict, report):
        action.add_argument(
            "--name", default="", help="a further soak of this migration, e.g. after-cutover"
        )
    parser.set_defaults(handler=run)
