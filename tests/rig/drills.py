"""`make drills`, `make drills-short`: faults on a throwaway server, their table and ``artifacts/drills.json``."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from drills import catalogue, lite
from drills.framework import Drill, Outcome, document, last_line, markdown, run_all, table

from rig import subject
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


def part(chosen: Sequence[Drill]) -> list[Outcome]:
    """Boot one world, run these drills in it, remove it."""
    began = time.monotonic()
    say(f"drills: booting {lite.SERVER} and both trackers ...")
    try:
        world = lite.launch()
        say(f"drills: {lite.SERVER} ready after {time.monotonic() - began:.0f} s, {len(chosen)} drills")
        return run_all(chosen, world)
    finally:
        if not os.environ.get("DRILLS_KEEP"):
            lite.remove()


def drills_part() -> None:
    """One of the worlds side by side: names of drills on standard input, what they came to on standard output, all else on standard error."""
    names = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        outcomes = part([drill for drill in catalogue.DRILLS if drill.name in names])
    print(json.dumps([outcome.told() for outcome in outcomes]))


def shares(chosen: Sequence[Drill], worlds: int) -> list[list[str]]:
    """Names of the drills for each world: those that share a control stay together, and no world has many more than another."""
    groups: dict[str, list[str]] = {}
    for drill in chosen:
        groups.setdefault(drill.control.name, []).append(drill.name)
    found: list[list[str]] = [[] for _ in range(worlds)]
    for group in sorted(groups.values(), key=len, reverse=True):
        # The control is a run of its own.
        min(found, key=lambda names: sum(len(g) + 1 for g in groups.values() if g[0] in names)).extend(group)
    return found


_WORLDS = 2


def side_by_side(chosen: Sequence[Drill]) -> list[dict[str, Any]]:
    """Each share in a process and a world of its own. Raises RigError when one of them broke off."""
    running = []
    for number, names in enumerate(shares(chosen, _WORLDS), start=1):
        process = subprocess.Popen(
            [sys.executable, "-m", "rig", "drills-part"],
            cwd=ROOT,
            env={**os.environ, "DRILLS_WORLD": str(number)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(names))
        process.stdin.close()
        running.append(process)
    printed = [process.stdout.read() for process in running if process.stdout is not None]
    if any(process.wait() for process in running):
        raise RigError("A world of the drills broke off (see the lines above).")
    found = {told["row"]["name"]: told for text in printed for told in json.loads(text)}
    return [found[drill.name] for drill in chosen]


def drills(*, short: bool = False) -> None:
    """Run the drills, in two worlds side by side where it is the whole catalogue; RigError unless every one survived and every control went red."""
    began = time.monotonic()
    wanted = os.environ.get("DRILLS", "").split(",") if os.environ.get("DRILLS") else []
    chosen = [
        d
        for d in (catalogue.SHORT if short else catalogue.DRILLS)
        if not wanted or any(w in d.name for w in wanted)
    ]
    if not chosen:
        raise RigError(f"No drill is called {', '.join(wanted)}.")
    lite.prepare()
    if short or wanted:
        told = [outcome.told() for outcome in part(chosen)]
    else:
        told = side_by_side(chosen)
    # The short form runs beside the sweep, which is a part of the unit and the slow tests.
    counted = None if short else sweep()
    found = document(
        told, server=f"{subject.of_line('5.2').name} 5.2", seconds=time.monotonic() - began, sweep=counted
    )
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
