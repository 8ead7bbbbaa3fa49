"""Run drills: fault, invariant from outside, negative control; a table and ``artifacts/drills.json`` at the end."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rig.shell import RigError, run, say

from drills import lite
from drills.invariant import STATES, violations
from drills.lite import Lite, Output
from drills.outside import Observer

#: Seconds in which a service that reports all the time is heard.
_HEARD_SECONDS = 15


@dataclass
class Case:
    """What a fault may use: the world, the observer, and a place for what does not go as expected."""

    world: Lite
    observer: Observer
    problems: list[str] = field(default_factory=list)

    def expect(self, holds: bool, sentence: str) -> None:
        """Note the sentence unless it holds."""
        if not holds:
            self.problems.append(sentence)

    def expect_code(self, output: Output, code: int, what: str) -> None:
        """Note another exit code, with the program's own reason."""
        reason = output.document.get("reason", output.err.strip()[-200:])
        because = f": {reason}" if reason else ""
        self.expect(output.code == code, f"{what} ended with code {output.code}, not {code}{because}")

    def never_confirmed(self, service: str, ended: int, *, back: int = 0) -> None:
        """`apply` ends with ``ended``; or it succeeds, `confirm` refuses because of ``service``, and the rollback ends with ``back``.

        Which of the two depends on the events of the service that the trackers hold from the last 24 hours. ``back``: 5 where
        no service can be heard on its DSN of before.
        """
        done = self.world.program("apply --json")
        if done.code != ended:
            self.expect_code(done, 0, "apply")
            time.sleep(_HEARD_SECONDS)
            done = self.world.program("confirm --json")
            self.expect_code(done, 1, "confirm")
            self.expect_code(self.world.program("rollback --json"), back, "rollback")
        reason = str(done.document.get("reason", ""))
        self.expect(service in reason, f"the reason is: {reason[:200]}")

    def journal_lines(self) -> int:
        """Number of records now."""
        return int(self.world.root(f"cat {lite.JOURNAL} 2>/dev/null | wc -l").out)

    def at(
        self, event: str, start: Callable[[], subprocess.Popen[str]], nth: int = 1, which: str = ""
    ) -> tuple[subprocess.Popen[str], int]:
        """Start a run and stop it dead (SIGSTOP) the moment the nth such record is in the journal; (the caller's process, its pid there)."""
        argv = [
            "docker",
            "exec",
            lite.SERVER,
            "python3",
            "/root/watch.py",
            lite.JOURNAL,
            f"{lite.STATE_DIR}/lock",
        ]
        argv += [str(self.journal_lines()), event, str(nth), *([which] if which else [])]
        watcher = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert watcher.stdout is not None
        try:
            if watcher.stdout.readline().strip() != "watching":
                raise RigError("The watcher of the journal does not start.")
            process = start()
            while watcher.poll() is None and process.poll() is None:
                time.sleep(0.02)
            if watcher.poll() is None:
                time.sleep(0.5)
            if watcher.poll() != 0:
                out = self.world.end(process, 60) if process.poll() is not None else None
                raise RigError(f"The run did not come to {event}" + (f": {out.text[-300:]}" if out else "."))
            return process, int(watcher.stdout.readline())
        finally:
            watcher.kill()
            watcher.wait()

    def go_on(self, pid: int) -> None:
        """Let a stopped run continue."""
        self.world.root(f"kill -CONT {pid}", check=False)

    def apply(self, arguments: str = "") -> subprocess.Popen[str]:
        """Start an apply."""
        return self.world.begin(f"apply --json {arguments}")

    def applied(self) -> None:
        """Have the switch applied and confirmed: the beginning of drills of the way back."""
        for command in ("apply", "confirm"):
            done = self.world.program(f"{command} --json")
            if done.code:
                raise RigError(f"{command} failed where nothing was broken: {done.text[-300:]}")


@dataclass(frozen=True)
class Control:
    """A protection switched off: the drill must then go red, for the reason that ``sign`` (a regular expression) matches."""

    name: str
    off: Callable[[Lite], None]
    sign: str = ""


@dataclass(frozen=True)
class Drill:
    """One fault. ``run`` breaks things and repairs what is not the program's to repair; ``state`` is what must stand after it.

    ``either``: the fault's moment decides; whatever .env says then must hold altogether.
    """

    name: str
    fault: str
    expected: str
    run: Callable[[Case], None]
    control: Control
    state: str = "before"
    either: bool = False
    short: bool = False
    overrides: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    """What one drill came to; ``problems`` empty is survival."""

    drill: Drill
    problems: list[str]
    seconds: float
    sent: int = 0
    stored: int = 0
    lost: int = 0
    duplicated: int = 0
    control: str = ""
    control_red: bool = True

    @property
    def survived(self) -> bool:
        """The invariant holds, and the control, where it was run, went red."""
        return not self.problems and self.control_red

    def told(self) -> dict[str, Any]:
        """``{"survived": bool, "row": its entry in the artifact}``."""
        return {"survived": self.survived, "row": self.row()}

    def row(self) -> dict[str, Any]:
        """Its entry in the artifact."""
        return {
            "name": self.drill.name,
            "fault": self.drill.fault,
            "expected": self.drill.expected,
            "outcome": "survived"
            if self.survived
            else "; ".join(self.problems) or "its control did not go red",
            "seconds": round(self.seconds, 1),
            "sent": self.sent,
            "stored": self.stored,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "control": self.control,
        }


def run_once(drill: Drill, world: Lite, observer: Observer, off: Control | None = None) -> Outcome:
    """Break, wait until all is quiet, judge. The world must stand as in the beginning; it is left as the drill leaves it."""
    since = world.now()
    began = time.monotonic()
    if off is not None:
        off.off(world)
    case = Case(world, observer)
    try:
        drill.run(case)
        problems = case.problems + observer.quiet()
        state = drill.state
        if drill.either and observer.collected()["env"]["dsn"] == STATES["glitchtip"]:
            state = "glitchtip"
        wanted = {name: drill.overrides.get(name, STATES[state]) for name in lite.SERVICES}
        facts = observer.facts(since, wanted)
        problems += violations(facts, lite.SERVICES, state, drill.overrides)
        counts = facts.counts
        return Outcome(
            drill,
            problems,
            time.monotonic() - began,
            counts.captured,
            counts.stored,
            counts.lost,
            counts.duplicated,
        )
    except (RigError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
        return Outcome(drill, [*case.problems, f"the drill broke off: {error}"], time.monotonic() - began)


def judge_control(control: Control, outcome: Outcome) -> tuple[bool, str]:
    """Whether a control went red for its own reason, and the words for the table."""
    broken = [problem for problem in outcome.problems if problem.startswith("the drill broke off")]
    red = [
        problem for problem in outcome.problems if re.search(control.sign, problem) and problem not in broken
    ]
    if red:
        return True, f"{control.name}: red ({red[0]})"
    return False, f"{control.name}: NOT red ({'; '.join(outcome.problems) or 'everything held'})"


def run_all(drills: Sequence[Drill], world: Lite, *, controls: bool = True) -> list[Outcome]:
    """All drills one after the other, each from the same beginning; a control is run once, with the first drill that names it."""
    observer = Observer(world)
    outcomes: list[Outcome] = []
    run_controls: dict[str, tuple[bool, str, str]] = {}
    for drill in drills:
        outcome = run_once(drill, world, observer)
        say(f"  {'ok ' if not outcome.problems else 'RED'} {drill.name} ({outcome.seconds:.0f} s)")
        for problem in outcome.problems:
            say(f"      {problem}")
        world.reset()
        name = drill.control.name
        if controls and name not in run_controls:
            seen = run_once(drill, world, observer, off=drill.control)
            red, words = judge_control(drill.control, seen)
            run_controls[name] = (red, words, drill.name)
            say(f"      control {words} ({seen.seconds:.0f} s)")
            world.reset()
        if name in run_controls:
            red, words, where = run_controls[name]
            outcome.control_red = red
            outcome.control = words if where == drill.name else f"{name}: as in '{where}'"
        outcomes.append(outcome)
    return outcomes


def table(header: list[str], rows: list[list[object]]) -> list[str]:
    """Aligned lines."""
    cells = [header, *[["" if cell is None else str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def document(
    told: Sequence[Mapping[str, Any]], *, server: str, seconds: float, sweep: dict[str, Any] | None
) -> dict[str, Any]:
    """The artifact, of what outcomes told; the crash sweep, where it was run, counts as one more drill."""
    survived = sum(one["survived"] for one in told) + bool(sweep and sweep["survived"])
    return {
        "server": server,
        "seconds": round(seconds, 1),
        "survived": survived,
        "total": len(told) + (sweep is not None),
        "drills": [one["row"] for one in told],
        "sweep": sweep,
    }


def last_line(found: Mapping[str, Any]) -> str:
    """``N of N survived``."""
    return f"{found['survived']} of {found['total']} survived"


def markdown(found: Mapping[str, Any]) -> str:
    """The artifact as the table of ``docs/reliability.md``."""
    lines = [
        f"{last_line(found)}, {found['server']}, {found['seconds']:.0f} s in all.",
        "",
        "| drill | what is broken | what must stand | outcome | s | sent | stored | lost | twice | negative control |",
        "|---|---|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in found["drills"]:
        cells = [row[key] for key in ("name", "fault", "expected", "outcome", "seconds", "sent", "stored")]
        cells += [row["lost"], row["duplicated"], row["control"]]
        lines.append("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |")
    sweep = found.get("sweep")
    if sweep:
        said = "survived" if sweep["survived"] else "failed"
        lines.append(
            f"| crash sweep | the transaction ends at every record and fsync, in-process | the state of before or after"
            f" | {said} | {sweep['seconds']} | | | | | {sweep['tests']} tests of `{sweep['file']}` |"
        )
    return "\n".join(lines) + "\n"


def docker(*arguments: str) -> None:
    """One docker command of a fault."""
    run(["docker", *arguments])
