"""What the stack of role glitchtip uses and does: memory after 2,000 events, events/s, and a backlog while the worker is stopped.

    PYTHONPATH=tests:tests/standin:src .venv/bin/python -m bench.backlog [EVENTS] [BYTES_OF_AN_EVENT ...]

Prints Markdown tables. The stack runs as the role deploys it, on one CPU, on the stand-in or on the image that GLITCHTIP_IMAGE and
GLITCHTIP_VERSION name. With several sizes each gets a backlog of its own: the first of EVENTS, others of a tenth. Memory is PSS; MiB.
"""

from __future__ import annotations

import sys

from drills import limits, load
from drills.role_stack import Memory, RoleStack
from rig import engine, images
from rig.shell import RigError, say

#: Of the memory figure that is compared between versions.
WARM = 2_000


def table(found: dict[str, Memory]) -> list[str]:
    """One line a service, and their sum."""
    lines = [
        "| service | PSS | highest of its cgroup | limit | times at the limit | kills |",
        "|---|---|---|---|---|---|",
    ]
    for service, one in found.items():
        lines.append(
            f"| {service} | {one.pss:.0f} | {one.peak:.0f} | {one.limit:.0f} | {one.failures} | {one.kills} |"
        )
    return [*lines, f"| sum | {sum(one.pss for one in found.values()):.0f} | | | | |"]


def warm(stack: RoleStack) -> None:
    """2,000 events with the worker running: rates, and memory afterwards."""
    sent = load.send(stack, load.new_dsn(stack, "Warm"), WARM)
    seconds = sent.seconds + load.drain(stack, sent.accepted, seconds=300)
    rates = f"{sent.rate:.0f} accepted/s, {len(sent.accepted) / seconds:.0f} processed/s"
    say(f"\n{WARM} events: {rates}, refused {sent.refused or 'none'}; memory afterwards:\n")
    say("\n".join(table(limits.memory(stack))))


def backlog(stack: RoleStack, events: int, size: int) -> list[str]:
    """One backlog; its problems."""
    found = limits.run_backlog(stack, events, size=size)
    body = len(load.envelope("0" * 32, 1, size))
    say(
        f"\nBacklog of {events} events of {body} bytes, {found.sent.rate:.0f} accepted/s; memory with the worker stopped:\n"
    )
    say("\n".join(table(found.full)))
    if found.drained:
        rate = events / found.drain_seconds if found.drain_seconds else 0
        say(
            f"\n{found.queued} waited, {found.bytes_each} bytes each in Valkey; stored at {rate:.0f}/s; memory afterwards:\n"
        )
        say("\n".join(table(found.drained)))
    return found.problems


def main(arguments: list[str]) -> int:
    """Measure and print; 1 when something was killed, refused or lost."""
    events, *sizes = [int(text) for text in arguments] or [limits.EVENTS]
    problems: list[str] = []
    try:
        engine.ensure()
        images.build_all(["postgres", "valkey", "standin-5.2"])
        with limits.role_stack({}) as stack:
            say(f"{stack.image}, GlitchTip {stack.version}; without events:\n")
            say("\n".join(table(limits.memory(stack))))
            warm(stack)
            for number, size in enumerate(sizes or [2000]):
                problems += backlog(stack, events if number == 0 else events // 10, size)
    except RigError as error:
        problems.append(str(error))
    for problem in problems:
        say(f"bench.backlog: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
