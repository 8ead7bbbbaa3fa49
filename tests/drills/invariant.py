"""The invariant of every drill, judged from facts that were read from outside.

All services on exactly one DSN; file, PM2's environment, saved list and running process agree; lock free, journal
closed, no mark of an open change, nothing half-written, no secret in any output; what a tracker acknowledged is
stored there, nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

OLD, NEW = "old", "new"
#: Which DSN each state of the product means.
STATES = {"before": OLD, "glitchtip": NEW}
CLOSED = {"before": ("none", "rolled_back", "confirmed"), "glitchtip": ("confirmed",)}


@dataclass(frozen=True)
class Process:
    """One service as PM2 lists it; ``carries`` and ``uses``: old, new, other, none; ``uses`` is the process's own SDK."""

    status: str
    carries: str
    uses: str
    job: bool = False


@dataclass(frozen=True)
class Counts:
    """Events of one drill. ``wrong_host`` and ``silent`` are services since everything had come to rest."""

    captured: int = 0
    acknowledged: int = 0
    stored: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong_host: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What stands. ``env_same``: every byte of .env but the DSN's value is as before."""

    env: str
    env_same: bool
    processes: Mapping[str, Process]
    dump: Mapping[str, str]
    journal: str
    open: bool
    lock_free: bool
    active: tuple[str, ...]
    leftovers: tuple[str, ...]
    secrets: tuple[str, ...]
    counts: Counts = field(default_factory=Counts)


def violations(
    facts: Facts, services: tuple[str, ...], state: str, overrides: Mapping[str, str] | None = None
) -> list[str]:
    """One sentence for each part of the invariant that does not hold.

    ``state``: before or glitchtip; ``overrides``: services that stand on the other side on purpose (old or new).
    """
    wanted = {name: (overrides or {}).get(name, STATES[state]) for name in services}
    found: list[str] = []
    if facts.env != STATES[state]:
        found.append(f".env holds the {facts.env} DSN, not the {STATES[state]} one")
    if not facts.env_same:
        found.append(".env differs in more than its DSN")
    for name, side in wanted.items():
        found += _service(name, side, facts)
    if facts.journal not in CLOSED[state]:
        found.append(f"the journal is not closed: {facts.journal}")
    if facts.open:
        found.append("the mark of an open change is still there")
    if not facts.lock_free:
        found.append("the lock is held")
    if facts.active:
        found.append(f"still at work: {', '.join(facts.active)}")
    if facts.leftovers:
        found.append(f"half-written files: {', '.join(facts.leftovers)}")
    found += [f"secret shown: {secret}" for secret in facts.secrets]
    return found + _events(facts.counts)


def _service(name: str, side: str, facts: Facts) -> list[str]:
    process = facts.processes.get(name)
    if process is None:
        return [f"{name} is not in PM2's list"]
    found = []
    waiting = process.job and process.status == "stopped"
    if process.status != "online" and not waiting:
        found.append(f"{name} is {process.status}")
    if not process.job and process.uses != side:
        found.append(f"{name} uses the {process.uses} DSN, not the {side} one")
    if process.carries not in ("none", side):
        found.append(f"{name} carries the {process.carries} DSN in PM2's environment")
    if name not in facts.dump:
        found.append(f"{name} is missing in PM2's saved list")
    elif facts.dump[name] not in ("none", side):
        found.append(f"{name} carries the {facts.dump[name]} DSN in PM2's saved list")
    return found


def _events(counts: Counts) -> list[str]:
    found = []
    if counts.lost:
        found.append(f"{counts.lost} acknowledged events are stored nowhere")
    if counts.duplicated:
        found.append(f"{counts.duplicated} events are stored twice")
    if counts.wrong_host:
        found.append(f"events of {', '.join(counts.wrong_host)} went to the other tracker")
    if counts.silent:
        found.append(f"no acknowledged event of {', '.join(counts.silent)}")
    return found
