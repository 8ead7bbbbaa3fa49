"""What people do: drop the line, press Ctrl-C, come second, take the wrong host, forget to confirm."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable

from rig.shell import RigError

from drills import lite, off
from drills.framework import Case, Control, Drill
from drills.lite import Lite

_OTHER: dict[str, str] = {"preflight_target_id": "another-server"}
_TIMER = f"{lite.PROGRAM}-deadline.timer"
NO_TIMER = Control(
    "timer of the confirm window off",
    off.patched("glitchtip_core/transaction/detached", "Deadline.arm", "Deadline.arm = lambda self, attempt, seconds: None"),
    "not closed|mark of an open",
)
NOT_DETACHED = Control(
    "run as a part of the session",
    off.patched("cli", "has_systemd", "has_systemd = lambda: False"),
    r"\.env holds|went back",
)
_NO_FLOCK = """
@contextlib.contextmanager
def _unlocked(self, wait=0.0):
    private_directory(self.directory)
    if not (self.directory / "lock").exists():
        (self.directory / "lock").write_text(str(os.getpid()))
    yield
Store.lock = _unlocked
"""


def _lock_off(world: Lite) -> None:
    off.patched("cli", "has_systemd", "has_systemd = lambda: False")(world)
    off.patched("glitchtip_core/transaction/store", "Store.lock", _NO_FLOCK)(world)
    world.root(f"rm -f {lite.STATE_DIR}/lock")


NO_LOCK = Control("lock and unit name off", _lock_off, "second operator was not refused")
NO_IDENTITY = Control(
    "mark of the host not read",
    lambda world: world.write_inventory(**_OTHER, preflight_target_file="/root/no-mark"),
    "was not refused",
)
NOT_INTERRUPTED = Control(
    "Ctrl-C that does not reach the play",
    lambda world: setattr(world, "interrupts", False),
    r"says that it is done",
)


def _ssh_drop(case: Case) -> None:
    """The operator's terminal goes away in the middle; the run goes on and is confirmed later."""
    argv = [*case.world.ssh_argv()[:-1], "-tt", case.world.ssh_argv()[-1], f"{lite.PROGRAM} apply --json"]

    def session() -> subprocess.Popen[str]:
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    process, pid = case.at("restart", session, 3)
    process.kill()
    time.sleep(1)
    case.go_on(pid)
    out, err = process.communicate()
    case.world.outputs += [out, err]
    for problem in case.observer.quiet():
        case.problems.append(problem)
    case.expect_code(case.world.program("confirm --json"), 0, "confirm after the line was dropped")


def _second_operator(case: Case) -> None:
    process, pid = case.at("restart", case.apply, 2)
    began = time.monotonic()
    second = case.world.begin("apply --json")
    try:
        code: int | None = second.wait(timeout=10)
    except subprocess.TimeoutExpired:
        code = None
    seconds = time.monotonic() - began
    case.expect(
        code == 75 and seconds < 2,
        f"the second operator was not refused at once: code {code} after {seconds:.1f} s",
    )
    for command in ("rollback", "confirm"):
        done = case.world.program(f"{command} --json", 20) if code == 75 else None
        if done is not None:
            case.expect_code(done, 75, f"the second operator's {command}")
    case.go_on(pid)
    case.expect_code(case.world.end(process), 0, "the first operator's apply")
    if code is None:
        case.world.end(second)
    case.expect_code(case.world.program("confirm --json"), 0, "confirm")


def _interrupted_play(task: str, nth: int = 1, begun: str = "") -> Callable[[Case], None]:
    """SIGINT to the play and its children the moment this task begins; what runs on the host goes on, the window closes it.

    ``begun``: not before this file is on the host.
    """

    def run(case: Case) -> None:
        case.world.write_inventory(ai_admin_cutover_confirm_window=8)
        try:
            process = case.world.play()
            seen = _read_until(process, task, nth)
            if begun:
                case.world.root(f"for _ in $(seq 300); do test -e {begun} && exit; sleep 0.1; done; exit 1")
            if case.world.interrupts:
                os.killpg(process.pid, signal.SIGINT)
            out, _ = process.communicate(timeout=300)
            case.world.outputs.append(seen + out)
            case.expect(process.returncode != 0, "a play that was interrupted says that it is done")
        finally:
            case.world.write_inventory()
        _out_of_window(case, 240)

    return run


def _read_until(process: subprocess.Popen[str], task: str, nth: int) -> str:
    """Read the play's output up to the nth header of that task."""
    seen, count = [], 0
    for line in process.stdout or []:
        seen.append(line)
        if line.startswith("TASK [") and task in line:
            count += 1
            if count == nth:
                # The header comes first: the task is at work a moment later.
                time.sleep(1.5)
                return "".join(seen)
    raise RigError(f"The play has no task {task!r}: {''.join(seen)[-400:]}")


#: A module that the controller left behind may take this long until it starts the switch (seconds).
_STARTING = 6.0


def _out_of_window(case: Case, seconds: float) -> None:
    """Wait until the change is closed, or nothing would close it any more (no unit of ours, no timer)."""
    deadline = time.monotonic() + seconds
    command = f"""
        pgrep -f '[a]i-admin-cutover(.pyz)? (apply|confirm|rollback)' >/dev/null && exit 0
        test -e {lite.STATE_DIR}/open && systemctl is-active -q {lite.PROGRAM}.service {_TIMER} {lite.PROGRAM}-deadline.service
    """
    idle_since = time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - idle_since < _STARTING:
        time.sleep(0.5)
        if case.world.root(command, check=False).code == 0:
            idle_since = time.monotonic()


def _no_confirm(case: Case) -> None:
    case.world.configure(confirm_window=3)
    case.expect_code(case.world.program("apply --json"), 0, "apply")
    _out_of_window(case, 240)


def _wrong_host(case: Case) -> None:
    """The inventory's address leads to a host that is marked as another migration's target."""
    if '"preflight_target_file"' not in lite.INVENTORY.read_text():
        case.world.write_inventory(**_OTHER)
    try:
        process = case.world.play()
        out, _ = process.communicate(timeout=300)
    finally:
        case.world.write_inventory()
    case.world.outputs.append(out)
    case.expect(process.returncode != 0 and "check the address" in out, "the wrong host was not refused")


DRILLS = (
    Drill(
        "SSH drop",
        "the operator's terminal dies at the third restart",
        "the run ends well on the host",
        _ssh_drop,
        NOT_DETACHED,
        "glitchtip",
    ),
    Drill(
        "second operator",
        "apply, rollback and confirm while an apply runs",
        "each refused with 75, apply in under 2 s; the first ends well",
        _second_operator,
        NO_LOCK,
        "glitchtip",
    ),
    # First of those with this control: a play installs the program anew, and undoes what a control switched off in it.
    Drill("no confirm", "nobody confirms", "back when the window has passed", _no_confirm, NO_TIMER),
    Drill(
        "Ctrl-C: install",
        "SIGINT to the play while the program is installed",
        "the state of before",
        _interrupted_play("Install the program"),
        NOT_INTERRUPTED,
    ),
    Drill(
        "Ctrl-C: configure",
        "SIGINT to the play while the configuration is written",
        "the state of before",
        _interrupted_play("Write the configuration"),
        NOT_INTERRUPTED,
    ),
    Drill(
        "Ctrl-C: apply",
        "SIGINT to the play while it waits for apply",
        "the run ends, its window passes, back",
        _interrupted_play("Run the command on the host", begun=f"{lite.STATE_DIR}/open"),
        NOT_INTERRUPTED,
    ),
    Drill(
        "Ctrl-C: confirm",
        "SIGINT to the play while it confirms",
        "confirmed, or taken back by the window",
        _interrupted_play("Run the command on the host", 2),
        NO_TIMER,
        either=True,
    ),
    Drill(
        "wrong host",
        "the inventory leads to another migration's host",
        "refused before anything is done",
        _wrong_host,
        NO_IDENTITY,
    ),
)
