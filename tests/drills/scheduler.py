"""GlitchTip's scheduler (beat) dies while its worker lives: events go on being stored, but there are no alerts, uptime checks and partitions.

Runs a stack of its own beside the world, as the role deploys it, with the image's own worker command, whose scheduler is a process. Where the
role makes it a thread, a kill of it is a kill of its worker (drill "GlitchTip's worker killed in a burst").
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rig.shell import RigError, run, wait_for

from drills import limits, load
from drills.framework import Case, Control, Drill, docker
from drills.lite import Lite
from drills.role_stack import RoleStack
from glitchtip_ops.docker_stack import Stack
from glitchtip_ops.monitor import check_containers

_STOCK = {"glitchtip_worker_command": ["./bin/run-celery-with-beat.sh"]}
_SCHEDULE = "/tmp/celerybeat-schedule*"
_EVENTS = 1000
#: Of worker_health.py: a schedule of this age (seconds) is that of a dead scheduler; a living one writes it every 180 s.
_DEAD_AFTER = 420
#: The schedule is aged so that this many seconds are left, more than a living scheduler leaves it alone.
_LEFT = 195
#: Holds a word while a control has the health check off.
_OFF: set[str] = set()


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found += [int(word) for word in path.read_text().split()]
    return found


def scheduler_of(stack: RoleStack) -> int:
    """Process id, on this machine, of the scheduler that the worker started. RigError when it has not started one."""
    inspected = run(["docker", "inspect", "-f", "{{.State.Pid}}", stack.container("worker")]).stdout
    children = _children(int(inspected))
    if len(children) != 1:
        raise RigError(
            f"The worker has {len(children)} child processes; its scheduler should be the only one."
        )
    return children[0]


def _kill_scheduler(stack: RoleStack) -> None:
    try:
        os.kill(scheduler_of(stack), signal.SIGKILL)
    except ProcessLookupError as error:
        raise RigError("The scheduler had ended before it was killed.") from error


def _age_schedule(stack: RoleStack, seconds: int) -> None:
    """Make the schedule file look so many seconds old."""
    program = f"touch -d @{time.time() - seconds:.0f} {_SCHEDULE}"
    docker("exec", stack.container("worker"), "sh", "-c", program)


def _became(stack: RoleStack, health: str, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if stack.health("worker") == health:
            return True
        time.sleep(1)
    return False


def _schedule_exists(stack: RoleStack) -> bool:
    argv = ["docker", "exec", stack.container("worker"), "sh", "-c", f"ls {_SCHEDULE}"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _alarm(stack: RoleStack) -> str:
    """What the monitor says of the containers; empty where all are well."""
    found = check_containers(Stack(stack.name), list(stack.services))
    return "" if found.ok else found.detail


def _killed(case: Case) -> None:
    """Every event is stored, the worker becomes unhealthy, the monitor says so, a restart brings the scheduler back."""
    with limits.role_stack({}, _STOCK, blind={"worker"} if _OFF else set()) as stack:
        dsn = load.new_dsn(stack)
        wait_for("The scheduler's file", lambda: _schedule_exists(stack), seconds=60, pause=1)
        case.expect(_alarm(stack) == "", f"the monitor alarms before the fault: {_alarm(stack)}")
        with ThreadPoolExecutor(1) as pool:
            burst = pool.submit(load.send, stack, dsn, _EVENTS)
            time.sleep(2)
            _kill_scheduler(stack)
        accepted = burst.result().accepted
        case.expect(
            len(accepted) == _EVENTS, f"GlitchTip refused events of the burst: {burst.result().refused}"
        )
        try:
            load.drain(stack, accepted, seconds=120)
        except load.MissingError as error:
            case.problems.append(str(error))
        case.problems += limits.killed(limits.memory(stack))
        _age_schedule(stack, _DEAD_AFTER - _LEFT)
        case.expect(
            _became(stack, "unhealthy", _LEFT + 60), "the worker without a scheduler is still healthy"
        )
        if _OFF:
            return
        alarm = _alarm(stack)
        case.expect(
            alarm == "worker is running/unhealthy", f"the monitor does not alarm as it should: {alarm}"
        )
        docker("restart", stack.container("worker"))
        case.expect(_became(stack, "healthy", 120), "the worker is not healthy again after its restart")
        scheduler_of(stack)
        case.expect(_alarm(stack) == "", f"the monitor alarms after the restart: {_alarm(stack)}")


def _drill(case: Case) -> None:
    try:
        _killed(case)
    finally:
        _OFF.clear()


def _blind(_: Lite) -> None:
    _OFF.add("health check")


DRILLS = (
    Drill(
        "GlitchTip's scheduler killed in a burst",
        "SIGKILL of the worker's scheduler while 1,000 events arrive",
        "all are stored; the worker becomes unhealthy, the monitor alarms, a restart mends it",
        _drill,
        Control("a health check that does not see the scheduler", _blind, "still healthy"),
    ),
)
