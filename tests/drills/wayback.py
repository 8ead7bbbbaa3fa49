"""The ways back that are not the whole one: a single service, the break-glass command, the first hour's watch."""

from __future__ import annotations

import time

from drills import lite, off
from drills.framework import Case, Control, Drill
from drills.lite import Lite
from drills.product import NO_VARIABLES

ALONE = "baileys-whatsapp-service"
NO_PIN = Control(
    "the service is restarted without a DSN of its own",
    off.patched(
        "override",
        "Override._pin",
        "_pin = Override._pin\nOverride._pin = lambda self, name, variables: _pin(self, name, {})",
    ),
    f"{ALONE} uses the new DSN",
)
NO_COPY = Control(
    "no copy of the configuration",
    off.patched("cli", "find_copy", "find_copy = lambda root: None", "glitchtip-rollback"),
    "glitchtip-rollback ended with code 2",
)
NO_WATCH_UNIT = Control(
    "the watch is stopped",
    off.patched("watch", "Watch.look", "Watch.look = lambda self: None"),
    r"\.env holds",
)


def _one_service(case: Case) -> None:
    """One service goes back alone; the others stay."""
    case.applied()
    case.expect_code(
        case.world.program(f"rollback --service {ALONE} --json"), 0, "the rollback of one service"
    )


def _one_service_again(case: Case) -> None:
    """The next full switch takes the service along."""
    _one_service(case)
    for command in ("apply", "confirm"):
        case.expect_code(case.world.program(f"{command} --json"), 0, command)


def _break_glass(case: Case) -> None:
    """No network, no configuration: nothing but python3 and what is on the disk."""
    case.applied()
    case.world.root("rm -rf /etc/ai-admin-cutover; iptables -A OUTPUT ! -o lo -j DROP")
    try:
        began = time.monotonic()
        done = case.world.root("glitchtip-rollback", check=False)
        seconds = time.monotonic() - began
    finally:
        case.world.root("iptables -F OUTPUT")
    case.world.outputs.append(done.text)
    said = done.err.splitlines()[-1:] or [""]
    case.expect(done.code == 5, f"glitchtip-rollback ended with code {done.code}, not 5: {said[0]}")
    case.expect(seconds < 60, f"glitchtip-rollback took {seconds:.0f} s")


def _watch(case: Case) -> None:
    """A service is gone in the first hour after the switch: the watch takes everything back by itself."""
    case.world.configure(
        watch={
            "seconds": 300,
            "interval": 3,
            "max_memory_percent": 100,
            "missed_events": 3,
            "compose_project": "",
        }
    )
    case.applied()
    case.world.root("PM2_HOME=/root/.pm2 pm2 stop ai-admin-api >/dev/null")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and case.observer.collected()["journal"] != "rolled_back":
        time.sleep(1)
    _end_watch(case.world)


def _end_watch(world: Lite) -> None:
    world.root(f"systemctl stop {lite.PROGRAM}-watch.service", check=False)


DRILLS = (
    Drill(
        "one service back",
        "one of eight services is put back alone",
        "that one on the old DSN, the others on the new one",
        _one_service,
        NO_PIN,
        "glitchtip",
        overrides={ALONE: "old"},
    ),
    Drill(
        "one service back, then forward",
        "a full switch after one service was put back",
        "all on the new DSN",
        _one_service_again,
        NO_VARIABLES,
        "glitchtip",
    ),
    Drill(
        "break-glass",
        "glitchtip-rollback without a network and without /etc/ai-admin-cutover",
        "the state of before, exit code 5: unproven",
        _break_glass,
        NO_COPY,
    ),
    Drill(
        "watch of the first hour",
        "a service stops after the switch was confirmed",
        "the watch takes it back by itself",
        _watch,
        NO_WATCH_UNIT,
    ),
)
