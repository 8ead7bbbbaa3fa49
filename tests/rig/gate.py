"""`make test`: its parts side by side, two at a time, each with a log of its own and a row in the table at the end.

A part is a make target, so that each can be run alone. The longest begin first; a part that needs images waits for them.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

from rig import suites
from rig.reasons import COLOUR
from rig.shell import CACHE, ROOT, RigError, say

LOGS = CACHE / "gate"
#: Half of the machine has room for one part; each server of a scenario is bound to one CPU.
LANES = 2
#: Lines of a part that passed, and of one that failed, which are repeated on standard output as soon as it ends.
SHOWN, SHOWN_FAILED = 6, 120
#: Lines of each part that failed which are the last that the gate prints: of a long output often only the end is kept.
SHOWN_AT_THE_END = 12


@dataclass(frozen=True)
class Part:
    """One part of the gate: its name, the arguments of make, and whether it needs the images of the rig."""

    name: str
    target: Sequence[str]
    images: bool = True


PARTS = (
    Part("molecule default", ["molecule", "SCENARIOS=default"]),
    Part("unit", ["unit"], images=False),
    Part("lint", ["lint"], images=False),
    Part("integration", ["integration"], images=False),
    # Mostly waits: beside the longest parts, not alone at the end.
    Part("drills-short", ["drills-short"]),
    Part("molecule glitchtip", ["molecule", "SCENARIOS=glitchtip"]),
    Part("molecule docker", ["molecule", "SCENARIOS=docker"]),
    Part("contract", ["contract"]),
    Part("mutations-short", ["mutations-short"]),
)


@dataclass(frozen=True)
class Outcome:
    """How one part ended: exit code, seconds, and its log."""

    part: Part
    code: int
    seconds: float
    log: Path

    @property
    def passed(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.code == 0


class Gate:
    """Runs the parts."""

    def __init__(self, parts: Sequence[Part] = PARTS) -> None:
        self.parts = parts
        self._ready = Event()
        self._printing = Lock()

    def run(self) -> list[Outcome]:
        """All parts to their end, also after one has failed."""
        LOGS.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(max_workers=LANES + 1) as pool:
            prepared = pool.submit(self._prepare)
            lanes = ThreadPoolExecutor(max_workers=LANES)
            with lanes:
                outcomes = list(lanes.map(self._part, self.parts))
            prepared.result()
        return outcomes

    def _prepare(self) -> None:
        try:
            suites.prepare()
        finally:
            # Parts build what is missing themselves, and say why they cannot.
            self._ready.set()

    def _part(self, part: Part) -> Outcome:
        if part.images:
            self._ready.wait()
        log = LOGS / f"{part.name.replace(' ', '-')}.log"
        say(f"gate: {part.name} begins ({log.relative_to(ROOT)})")
        began = time.monotonic()
        with log.open("wb") as output:
            done = subprocess.run(
                ["make", "--no-print-directory", *part.target],
                cwd=ROOT,
                env={
                    key: value for key, value in os.environ.items() if key not in {"MAKEFLAGS", "MAKELEVEL"}
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        found = Outcome(part, done.returncode, time.monotonic() - began, log)
        with self._printing:
            say(f"gate: {part.name} {'passed' if found.passed else 'FAILED'} after {found.seconds:.0f} s")
            for line in last_lines(log, SHOWN if found.passed else SHOWN_FAILED):
                say(f"  {line}")
        return found


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log that hold text, without colours."""
    lines = [COLOUR.sub("", line).rstrip() for line in log.read_text(errors="replace").splitlines()]
    return [line for line in lines if line][-count:]


def test() -> None:
    """Run the gate; RigError naming the parts that failed."""
    began = time.monotonic()
    outcomes = Gate().run()
    say("\nGate")
    for outcome in outcomes:
        say(f"  {outcome.part.name:<20}{outcome.seconds:6.0f} s  {'passed' if outcome.passed else 'FAILED'}")
    for outcome in outcomes:
        if not outcome.passed:
            say(f"\n{outcome.part.name} ended with:")
            for line in last_lines(outcome.log, SHOWN_AT_THE_END):
                say(f"  {line}")
    failed = [outcome.part.name for outcome in outcomes if not outcome.passed]
    say(f"\n{time.monotonic() - began:.0f} s\n{len(outcomes) - len(failed)} passed, {len(failed)} failed")
    if failed:
        raise RigError(f"{', '.join(failed)} failed (see the lines above, and {LOGS.relative_to(ROOT)}).")
