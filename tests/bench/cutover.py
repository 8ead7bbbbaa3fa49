"""`make bench`: the sample product at 20 events/s through cutover and rollback, and nothing is lost.

Five services of the product capture an error every 250 ms on the drills' server (``drills/lite.py``). An event's id is
in the product's ledger before the event is captured, and a second line when its tracker has answered. Afterwards
both trackers' databases are asked: what was acknowledged must be stored once, in Sentry or in GlitchTip. An event
whose process ended before its tracker answered is told apart, as ``unacknowledged``; it may be stored all the same.

``cutover_seconds`` is what an operator waits for apply, gate and proof of every service included;
``rollback_seconds`` ends with the last restart of the way back, ``proof_seconds`` is what its proof takes more.

The longest gap is between two captured events of one service, less its usual period.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from ai_admin.ledger import Entry
from drills import lite
from drills.framework import table
from drills.outside import EMITTING, compare
from rig.shell import ROOT, RigError, say

ARTIFACT = ROOT / "artifacts/bench-cutover.json"
RATE = 20.0
_STEADY = 15.0
_SETTLE = 60.0


def interval_ms(rate: float) -> int:
    """Milliseconds between two errors of each emitting service, so that together they capture ``rate`` a second."""
    return round(1000 * len(EMITTING) / rate)


def gaps(captured: Iterable[Entry]) -> dict[str, tuple[float, float]]:
    """Of each service with two events at least: (longest seconds between two of its events, the middle one of all)."""
    moments: dict[str, list[float]] = {}
    for entry in captured:
        moments.setdefault(entry.service, []).append(entry.at.timestamp())
    found = {}
    for service, times in moments.items():
        steps = sorted(later - earlier for earlier, later in pairwise(sorted(times)))
        if steps:
            found[service] = (steps[-1], steps[len(steps) // 2])
    return found


def longest_gap(captured: Iterable[Entry]) -> float:
    """Longest time in seconds that a service captured nothing, less its usual period (the middle of its steps)."""
    return max((longest - usual for longest, usual in gaps(captured).values()), default=0.0)


def figure(program: Mapping[str, Any], field: str) -> float:
    """A figure of the program's answer. Raises RigError where it has none."""
    if field not in program:
        raise RigError(f"The program's answer has no {field}.")
    return float(program[field])


def measure(rate: float = RATE) -> dict[str, Any]:
    """Cutover, confirm and rollback under load on a world of its own; the figures of the artifact.

    Raises RigError when a command fails or the product does not reach nine tenths of the rate.
    """
    world = lite.launch(interval_ms=interval_ms(rate))
    since = world.now()
    time.sleep(_STEADY)
    steady = len(world.ledger(since).captured) / (world.now() - since)
    if steady < 0.9 * rate:
        raise RigError(f"The product captures {steady:.1f} events/s before anything begins, not {rate:g}.")
    began = time.monotonic()
    applied = _done(world, "apply")
    cutover = time.monotonic() - began
    _done(world, "confirm")
    time.sleep(_STEADY)
    began = time.monotonic()
    back = _done(world, "rollback")
    rollback = time.monotonic() - began
    time.sleep(_STEADY)
    # Services that stop send what they still hold, so that the count has an end.
    world.root("PM2_HOME=/root/.pm2 pm2 stop all >/dev/null")
    deadline = time.monotonic() + _SETTLE
    while True:
        ledger = world.ledger(since)
        stored = [world.sentry.stored(since), world.glitchtip.stored(since)]
        counts = compare(ledger, list(stored))
        if not counts.lost or time.monotonic() > deadline:
            break
        time.sleep(1)
    unanswered = set(ledger.captured) - set(ledger.acknowledged)
    return {
        "server": "stand-in 5.2",
        "cutover_seconds": round(cutover, 1),
        "rollback_seconds": figure(back, "seconds_to_last_restart"),
        "proof_seconds": figure(back, "seconds_proof"),
        "longest_gap_seconds": round(longest_gap(ledger.captured.values()), 1),
        "captured": counts.captured,
        "acknowledged": counts.acknowledged,
        "lost": counts.lost,
        "duplicated": counts.duplicated,
        "apart": {
            "events_per_second": round(steady, 1),
            "rollback_and_proof_wall_seconds": round(rollback, 1),
            "slowest_proof_of_cutover_seconds": max(
                float(row["seconds"] or 0) for row in applied["services"]
            ),
            "stored_in_sentry": sum(1 for event_id in ledger.captured if event_id in stored[0]),
            "stored_in_glitchtip": sum(1 for event_id in ledger.captured if event_id in stored[1]),
            "unacknowledged": len(unanswered),
            "unacknowledged_but_stored": sum(
                1 for event_id in unanswered if any(event_id in side for side in stored)
            ),
        },
    }


def _done(world: lite.Lite, command: str) -> dict[str, Any]:
    done = world.program(f"{command} --json")
    if done.code:
        raise RigError(
            f"{command} ended with code {done.code}: {done.document.get('reason', done.text[-300:])}"
        )
    return done.document


def rows(figures: Mapping[str, Any]) -> list[list[object]]:
    """Two columns, what stands apart at the end."""
    return [[key, value] for key, value in figures.items() if key != "apart"] + [
        [key, value] for key, value in figures["apart"].items()
    ]


def write(figures: Mapping[str, Any], path: Path = ARTIFACT) -> None:
    """Write the artifact."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Measure, print, write; 1 when an event was lost or stored twice."""
    parser = argparse.ArgumentParser(prog="python -m bench.cutover", description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=RATE, help="events a second of the whole product")
    options = parser.parse_args(argv)
    try:
        figures = measure(options.rate)
    except RigError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        lite.remove()
    write(figures)
    say("Cutover and rollback under load")
    for line in table(["figure", "value"], rows(figures)):
        say(line)
    if figures["lost"] or figures["duplicated"]:
        print("bench: events were lost or stored twice (see above)", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
