"""The disk of the state directory is full or read-only when everything is to be restored."""

from __future__ import annotations

import time
from collections.abc import Callable

from drills import lite, off
from drills.framework import Case, Control, Drill
from drills.invariant import STATES

_BUSY = 75
STRICT = Control(
    "a record that fails ends the rollback, and no room is set aside",
    off.patched(
        "glitchtip_core/transaction/bookkeeping",
        "Bookkeeping._do",
        "Bookkeeping._do = lambda self, write: (write(), True)[1]\n"
        "Bookkeeping.begin = lambda self, **_: self.problems.clear()",
    ),
    "rollback on a full state disk ended with code 1",
)
_FILL = {
    "bytes": f"cat /dev/zero > {lite.STATE_DIR}/filler 2>/dev/null",
    "inodes": f"n=0; while touch {lite.STATE_DIR}/filler-$n 2>/dev/null; do n=$((n+1)); done",
    "read-only": f"mount -o remount,ro {lite.STATE_DIR}",
}


def _own_disk(case: Case) -> None:
    """The state directory becomes a file system of its own, with all that is in it."""
    case.world.root(
        f"cp -a {lite.STATE_DIR} /srv/state-copy && mount -t tmpfs -o size=4m,nr_inodes=300,mode=700 state {lite.STATE_DIR}"
        f" && cp -a /srv/state-copy/. {lite.STATE_DIR}/ && rm -rf /srv/state-copy"
    )


def _room_again(case: Case) -> None:
    case.world.root(f"mount -o remount,rw {lite.STATE_DIR}; rm -f {lite.STATE_DIR}/filler*")


def _rollback_on_full(kind: str, code: int, *, reserve: bool) -> Callable[[Case], None]:
    """``code``: 0 where the room that was set aside takes the record, 4 where nothing can be written at all."""

    def run(case: Case) -> None:
        _own_disk(case)
        case.applied()
        if not reserve:
            case.world.root(f"rm -rf {lite.STATE_DIR}/reserve")
        case.world.root(_FILL[kind], check=False)
        try:
            done = case.world.program("rollback --json")
            case.expect_code(done, code, "rollback on a full state disk")
            found = case.observer.collected()["env"]["dsn"]
            case.expect(found == STATES["before"], f".env holds the {found} DSN after the rollback on a full state disk")
            case.problems += case.observer.quiet()
        finally:
            _room_again(case)
        if done.code:
            deadline = time.monotonic() + 60
            while (again := case.world.program("rollback --json")).code == _BUSY and time.monotonic() < deadline:
                time.sleep(1)
            case.expect_code(again, 0, "rollback with room again")

    return run


def _drill(name: str, fault: str, expected: str, run: Callable[[Case], None]) -> Drill:
    return Drill(f"state disk full: {name}", fault, expected, run, STRICT)


DRILLS = (
    _drill(
        "bytes",
        "no byte is free in the state directory's file system at a rollback",
        "everything restored and recorded in the room that was set aside, 0",
        _rollback_on_full("bytes", 0, reserve=True),
    ),
    _drill(
        "inodes",
        "no inode is free there, and nothing is set aside",
        "everything restored, 4: the record is incomplete; then 0 once there is room",
        _rollback_on_full("inodes", 4, reserve=False),
    ),
    _drill(
        "read-only",
        "that file system is read-only at a rollback",
        "everything restored, 4: the record is incomplete; then 0 once it can be written",
        _rollback_on_full("read-only", 4, reserve=True),
    ),
)
