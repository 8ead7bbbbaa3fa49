"""The transaction is ended by force: the plug, kill -9, a hang, a stop."""

from __future__ import annotations

import time
from collections.abc import Callable

from drills import lite, off
from drills.framework import Case, Control, Drill, docker
from drills.lite import Lite

#: systemd-run without the property.
_WITHOUT_LIMIT = """
_limited = run
def run(argv, **options):
    return _limited([word for word in argv if not str(word).startswith("--property=RuntimeMaxSec")], **options)
"""
NO_BOOT_RECOVERY = Control(
    "recovery at boot disabled",
    off.shell(f"systemctl disable -q {lite.PROGRAM}-recover.service"),
    "not closed|mark of an open",
)
NO_ON_FAILURE = Control(
    "recovery unit removed",
    off.shell(f"rm /etc/systemd/system/{lite.PROGRAM}-recover.service; systemctl daemon-reload"),
    "not closed|mark of an open",
)


def _handler_off(world: Lite) -> None:
    off.patched("cli", "_interrupt", "import os\n_interrupt = lambda number, frame: os._exit(1)")(world)
    NO_ON_FAILURE.off(world)


NO_HANDLER = Control("signal not handled, recovery unit removed", _handler_off, "not closed|mark of an open")
NO_RESTORE = Control(
    ".env is not put back",
    off.patched("wayback", "WayBack.restore_env", "WayBack.restore_env = lambda self, *a, **k: None"),
    r"\.env holds",
)
NO_RUN_MAX = Control(
    "RuntimeMaxSec off",
    off.patched("glitchtip_core/transaction/detached", "run_detached", _WITHOUT_LIMIT),
    "still hangs",
)


def _cut_at(event: str, nth: int = 1) -> Callable[[Case], None]:
    """Power cut in the first millisecond of an act of an apply; the server boots by itself."""

    def run(case: Case) -> None:
        process, _ = case.at(event, case.apply, nth)
        case.world.cut_power()
        case.world.end(process)
        case.world.boot()

    return run


def _cut_rollback_at(event: str, nth: int = 1) -> Callable[[Case], None]:
    """The same in a rollback of a switch that was confirmed."""

    def run(case: Case) -> None:
        case.applied()
        process, _ = case.at(event, lambda: case.world.begin("rollback --json"), nth)
        case.world.cut_power()
        case.world.end(process)
        case.world.boot()

    return run


def _cut_at_confirm(case: Case) -> None:
    """Power cut while confirm has just written its record: the switch stands."""
    done = case.world.program("apply --json")
    case.expect_code(done, 0, "apply")
    process, _ = case.at("confirmed", lambda: case.world.begin("confirm --json"))
    case.world.cut_power()
    case.world.end(process)
    case.world.boot()


def _cut_twice(case: Case) -> None:
    """The plug again, while the recovery of the first cut is at work."""
    process, _ = case.at("restart", case.apply, 2)
    case.world.cut_power()
    case.world.end(process)
    docker("start", lite.SERVER)
    deadline = time.monotonic() + 60
    # The recovery runs before PM2: the first sight of its record is early in the boot.
    while time.monotonic() < deadline:
        seen = case.world.root(f"grep -c rollback_begin {lite.JOURNAL}", check=False)
        if seen.code == 0 and seen.out.strip() != "0":
            break
        time.sleep(0.02)
    case.world.cut_power()
    case.world.boot()


def _reboot_in_window(case: Case) -> None:
    """An orderly reboot while the switch waits for confirm."""
    case.expect_code(case.world.program("apply --json"), 0, "apply")
    docker("restart", "-t", "60", lite.SERVER)
    case.world.wait_for_boot()


def _kill_nine(case: Case) -> None:
    process, pid = case.at("restart", case.apply, 3)
    case.world.root(f"kill -9 {pid}")
    case.world.end(process)
    time.sleep(1)  # systemd starts OnFailure= after it has seen the death


def _stopped_by_systemctl(case: Case) -> None:
    process, pid = case.at("restart", case.apply, 3)
    case.go_on(pid)
    case.world.root(f"systemctl stop {lite.PROGRAM}.service")
    done = case.world.end(process)
    case.expect(done.code != 0, "an apply that was stopped says that it is done")


def _hang(case: Case) -> None:
    """The program itself hangs; systemd ends it after RuntimeMaxSec, here 30 s."""
    case.world.configure(run_max=30, restart_wait=15, probe_wait=8)
    process, _ = case.at("restart", case.apply, 2)
    deadline = time.monotonic() + 100
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
    case.expect(process.poll() is not None, "the run still hangs after 100 s")
    if process.poll() is None:
        case.world.root(f"systemctl kill -s KILL {lite.PROGRAM}.service")
    done = case.world.end(process)
    case.expect(done.code != 0, "a run that hung says that it is done")


def _pm2_gone(case: Case) -> None:
    """PM2 and all services are stopped half way and stay away until the transaction has ended."""
    process, pid = case.at("restart", case.apply, 3)
    case.world.root("systemctl stop pm2-root.service")
    case.go_on(pid)
    case.expect_code(case.world.end(process), 3, "apply")
    case.world.root("systemctl start pm2-root.service")


_STEPS = (
    ("apply_begin", 1, "nothing has been changed yet"),
    ("env_switch", 1, "before .env is replaced"),
    ("restart", 1, "before the canary is restarted"),
    ("restart", 5, "some services on each side"),
    ("proved", 1, "the canary is proven"),
    ("pm2_save", 1, "everything is switched, PM2's list is not saved"),
    ("applied", 1, "applied, not confirmed"),
)
_BACK_STEPS = (
    ("rollback_begin", 1, "before anything is put back"),
    ("rollback_env", 1, "before .env is put back"),
    ("rollback_restart", 4, "some services are back"),
    ("rollback_save", 1, "everything is back, PM2's list is not saved"),
    ("rolled_back", 1, "back, the mark is still there"),
)
_BOOT = "the state of before, by the recovery at boot alone"

DRILLS = (
    Drill(
        "power cut: two at once",
        "plug pulled at restart 2, and again in the recovery",
        _BOOT,
        _cut_twice,
        NO_BOOT_RECOVERY,
    ),
    *[
        Drill(
            f"power cut: {event}{'' if nth == 1 else f' {nth}'}",
            f"plug pulled at {event} of apply: {when}",
            _BOOT,
            _cut_at(event, nth),
            NO_BOOT_RECOVERY,
            short=(event, nth) == ("restart", 5),
        )
        for event, nth, when in _STEPS
    ],
    Drill(
        "power cut: confirmed",
        "plug pulled at the record of confirm",
        "the switch stands",
        _cut_at_confirm,
        NO_BOOT_RECOVERY,
        "glitchtip",
    ),
    *[
        Drill(
            f"power cut: {event}{'' if nth == 1 else f' {nth}'}",
            f"plug pulled at {event} of a rollback: {when}",
            _BOOT,
            _cut_rollback_at(event, nth),
            NO_BOOT_RECOVERY,
        )
        for event, nth, when in _BACK_STEPS
    ],
    Drill(
        "reboot in the confirm window",
        "orderly reboot of a switch not yet confirmed",
        _BOOT,
        _reboot_in_window,
        NO_BOOT_RECOVERY,
    ),
    Drill(
        "kill -9",
        "the transaction is killed at its third restart",
        "the state of before, by OnFailure",
        _kill_nine,
        NO_ON_FAILURE,
    ),
    Drill(
        "systemctl stop",
        "the transaction is told to stop",
        "it goes back by itself",
        _stopped_by_systemctl,
        NO_HANDLER,
    ),
    Drill(
        "hang",
        "the transaction hangs at its second restart",
        "ended after RuntimeMaxSec (30 s), back",
        _hang,
        NO_RUN_MAX,
    ),
    Drill(
        "PM2 stops",
        "PM2 and its services are stopped half way and stay away",
        "apply fails with 3; when PM2 is back, so is the state of before",
        _pm2_gone,
        NO_RESTORE,
    ),
)
