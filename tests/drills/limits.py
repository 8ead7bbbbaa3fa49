"""The backlog that role glitchtip's limits are made for: the worker is stopped, events arrive, nothing is killed and all are stored.

Runs a stack of its own beside the world, exactly as the role deploys it (one CPU, the role's limits), on the stand-in or on a real image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field

from local import free_port

from drills import lite, load
from drills.framework import Case, Control, Drill, docker
from drills.lite import Lite
from drills.role_stack import Memory, RoleStack, memory_of

#: Events that arrive while the worker is stopped; the role's default unless DRILLS_BACKLOG says otherwise.
EVENTS = int(os.environ.get("DRILLS_BACKLOG", "20000"))
#: The slowest rate at which a backlog may be stored, in events a second on one shared CPU.
SLOWEST = 20


@dataclass
class Backlog:
    """What a backlog came to. ``memory``: of each service when the queue was fullest, and when it was drained."""

    sent: load.Sent = field(default_factory=load.Sent)
    queued: int = 0
    bytes_each: int = 0
    drain_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    full: dict[str, Memory] = field(default_factory=dict)
    drained: dict[str, Memory] = field(default_factory=dict)


@contextmanager
def role_stack(
    limits: Mapping[str, str], variables: Mapping[str, object] | None = None, *, blind: Set[str] = frozenset()
) -> Iterator[RoleStack]:
    """A running stack of the role, removed afterwards; arguments as of :class:`RoleStack`."""
    stack = RoleStack(f"{lite.NETWORK}-role", free_port(), variables or {}, limits, blind)
    stack.remove()
    try:
        stack.start()
        yield stack
    finally:
        stack.remove()


def memory(stack: RoleStack) -> dict[str, Memory]:
    """Memory of every service."""
    return {service: memory_of(stack.container(service)) for service in stack.services}


def killed(found: dict[str, Memory]) -> list[str]:
    """A sentence for each service in which the kernel killed a process, or which was restarted."""
    return [
        f"{service} was killed for memory ({one.kills} kills, {one.restarts} restarts)"
        for service, one in found.items()
        if one.kills or one.killed or one.restarts
    ]


def _used(stack: RoleStack) -> int:
    lines = stack.valkey("INFO", "memory").splitlines()
    return next(int(line.partition(":")[2]) for line in lines if line.startswith("used_memory:"))


def run_backlog(stack: RoleStack, events: int, *, size: int = 2000) -> Backlog:
    """Stop the worker, send, start the worker, wait until all is stored; counters and memory before, between and after."""
    found = Backlog()
    dsn = load.new_dsn(stack)
    found.problems += [f"before: {sentence}" for sentence in killed(memory(stack))]
    docker("stop", stack.container("worker"))
    empty = _used(stack)
    found.sent = load.send(stack, dsn, events, size=size)
    found.full = memory(stack)
    if found.sent.refused or len(found.sent.accepted) < events:
        found.problems.append(
            f"{len(found.sent.accepted)} of {events} events were accepted, the others refused: {found.sent.refused}"
        )
    found.problems += killed(found.full)
    if found.problems:
        return found
    found.queued = stack.waiting()
    found.bytes_each = (_used(stack) - empty) // events
    docker("start", stack.container("worker"))
    try:
        found.drain_seconds = load.drain(stack, found.sent.accepted, seconds=events / SLOWEST + 60)
    except load.MissingError as error:
        found.problems.append(str(error))
    found.drained = memory(stack)
    found.problems += killed(found.drained)
    return found


def _survives(case: Case) -> None:
    with role_stack(case.world.memory_limits) as stack:
        found = run_backlog(stack, EVENTS)
        case.problems += found.problems
        if not found.problems:
            needed = stack.sizing["required_mib"]
            used = sum(one.pss for one in found.full.values())
            case.expect(used <= needed, f"the stack used {used:.0f} MiB, phase 0 asks for {needed}")
            stack.wait_healthy(stack.services, seconds=120)


def _limits(**old: str) -> Callable[[Lite], None]:
    def off(world: Lite) -> None:
        world.memory_limits = dict(old)

    return off


DRILLS = (
    Drill(
        "backlog",
        f"GlitchTip's worker is stopped while {EVENTS} events arrive",
        "nothing is killed, all are stored",
        _survives,
        Control("Valkey's former limit of 64 MiB", _limits(valkey="64m"), "killed for memory|refused"),
    ),
)
