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


#: The fault of the clock drill: the program's wall clock is two hours ahead while a file is there. The clock of a container is
#: that of the whole machine, so it is not set.
_SETTABLE = """
_real_host = real_host
def real_host(config, progress):
    import dataclasses, os
    ahead = lambda: 7200.0 if os.path.exists("/run/clock-jump") else 0.0
    return dataclasses.replace(_real_host(config, progress), clock=lambda: time.time() + ahead())
"""
_BY_THE_CLOCK = """
_init = Watch.__init__
def __init__(self, config, host, **named):
    import dataclasses
    _init(self, config, host, **named)
    self.host = dataclasses.replace(self.host, monotonic=self.host.clock)
Watch.__init__ = __init__
Watch._longest = property(lambda self: 1e9)
"""
WATCH_BY_CLOCK = Control(
    "the watch measures with the wall clock",
    off.patched("watch", "Watch._watch", _BY_THE_CLOCK),
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


def _clock_jump(case: Case) -> None:
    """The clock is set two hours ahead in the first minute of the watch; a service stops after that."""
    off.patched("host", "real_host", _SETTABLE)(case.world)
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
    try:
        time.sleep(5)
        case.world.root("touch /run/clock-jump")
        time.sleep(25)  # some checks: a watch that ends by the clock has ended
        case.world.root("PM2_HOME=/root/.pm2 pm2 stop ai-admin-api >/dev/null")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and case.observer.collected()["journal"] != "rolled_back":
            time.sleep(1)
    finally:
        case.world.root("rm -f /run/clock-jump")
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
    Drill(
        "clock jump",
        "the clock is set two hours ahead in the watch of the first hour, then a service stops",
        "the watch goes on and takes it back by itself",
        _clock_jump,
        WATCH_BY_CLOCK,
    ),
)
