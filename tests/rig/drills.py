"""`make drills`, `make drills-short`: faults on a throwaway server, their table and ``artifacts/drills.json``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any
from xml.etree import ElementTree

from drills import catalogue, lite
from drills.framework import document, last_line, markdown, run_all, table

from rig.shell import ROOT, RigError, say

ARTIFACT = ROOT / "artifacts/drills.json"
_SWEEP = "tests/unit/cutover/test_crash.py"


def sweep() -> dict[str, Any]:
    """The crash sweep in-process, which ends the transaction at every journal record and every fsync: its counts."""
    began = time.monotonic()
    report = lite.DIRECTORY / "sweep.xml"
    report.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "pytest", "-q", _SWEEP, f"--junitxml={report}"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    parsed = ElementTree.parse(report) if report.exists() else None  # noqa: S314
    suite = next(parsed.getroot().iter("testsuite")).attrib if parsed else {}
    tests = int(suite.get("tests", 0))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0)) + int(suite.get("skipped", 0))
    seconds = round(time.monotonic() - began, 1)
    survived = done.returncode == 0 and tests > 0 and failed == 0
    return {"file": _SWEEP, "tests": tests, "failed": failed, "seconds": seconds, "survived": survived}


def drills(*, short: bool = False) -> None:
    """Boot the world, run the drills, print the table; RigError unless every one survived and every control went red."""
    began = time.monotonic()
    wanted = os.environ.get("DRILLS", "").split(",") if os.environ.get("DRILLS") else []
    chosen = [
        d
        for d in (catalogue.SHORT if short else catalogue.DRILLS)
        if not wanted or any(w in d.name for w in wanted)
    ]
    if not chosen:
        raise RigError(f"No drill is called {', '.join(wanted)}.")
    say("drills: booting the server and both trackers ...")
    try:
        world = lite.launch()
        say(f"drills: world ready after {time.monotonic() - began:.0f} s, {len(chosen)} drills")
        outcomes = run_all(chosen, world)
        # The short form runs beside the unit tests, which hold the sweep.
        counted = None if short else sweep()
    finally:
        if not os.environ.get("DRILLS_KEEP"):
            lite.remove()
    found = document(outcomes, server="stand-in 5.2", seconds=time.monotonic() - began, sweep=counted)
    if not wanted:
        path = ARTIFACT.with_name("drills-short.json") if short else ARTIFACT
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
    rows = [
        [
            row["name"],
            row["outcome"],
            row["seconds"],
            row["sent"],
            row["stored"],
            row["lost"],
            row["duplicated"],
            row["control"],
        ]
        for row in found["drills"]
    ]
    if counted is not None:
        outcome = "survived" if counted["survived"] else "failed"
        rows.append(["crash sweep", outcome, counted["seconds"], "", "", "", "", f"{counted['tests']} tests"])
    header = ["drill", "outcome", "seconds", "sent", "stored", "lost", "twice", "negative control"]
    say("\nDrills")
    for line in table(header, rows):
        say(line)
    say(f"\n{time.monotonic() - began:.0f} s\n{last_line(found)}")
    if found["survived"] != found["total"]:
        raise RigError(
            f"{found['total'] - found['survived']} of {found['total']} did not survive (see the table above)."
        )


def drills_short() -> None:
    """A few of them with their controls, for the gate."""
    drills(short=True)


def drills_table() -> None:
    """Put the table of the last whole run into docs/reliability.md, between its marks."""
    if not ARTIFACT.exists():
        raise RigError("There is no artifacts/drills.json; run `make drills` first.")
    page = ROOT / "docs/reliability.md"
    text = page.read_text()
    begin, end = "<!-- drills: begin -->\n", "<!-- drills: end -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise RigError(f"{page} has lost its marks {begin.strip()} and {end}.")
    page.write_text(head + begin + markdown(json.loads(ARTIFACT.read_text())) + end + tail)
