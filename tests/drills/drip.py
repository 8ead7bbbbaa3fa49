"""A tracker's API sends a byte a second and never ends: nothing waits for it longer than for one that is silent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from drills import lite, off
from drills.framework import Case, Control, Drill

PORT = 19321
UNIT = "gtm-drip"
#: Seconds after which the dripping server goes away, so that a control ends too; and what a command may take.
_LIFE = 200
_PATIENCE = 140
_SERVER = f"""
import os, socketserver, threading, time

class Drip(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(65536)
        self.request.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nX-Drip: ")
        while True:
            self.request.sendall(b"x")
            time.sleep(1)

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

threading.Timer({_LIFE}, os._exit, [0]).start()
Server(("127.0.0.1", {PORT}), Drip).serve_forever()
"""
_CONNECT = f"import socket; socket.create_connection((\\\"127.0.0.1\\\", {PORT}), 5)"
EACH_WAIT_ALONE = Control(
    "each wait has a limit, their sum has none",
    off.patched("glitchtip_core/http", "_Clock.left", "_Clock.left = lambda self: 15.0"),
    "waited for a tracker that drips",
)


@contextmanager
def _dripping(case: Case, side: str) -> Iterator[None]:
    """The API of one side answers a byte a second; events go where they went."""
    world = case.world
    given = json.loads(world.root(f"cat {lite.CONFIG}").out)[side]
    world.write("/root/drip.py", _SERVER)
    world.root(f"systemd-run --quiet --collect --unit={UNIT} python3 /root/drip.py")
    try:
        world.root(f"timeout 20 sh -c 'until python3 -c \"{_CONNECT}\" 2>/dev/null; do sleep 0.1; done'")
        world.configure(**{side: {**given, "api_url": f"http://127.0.0.1:{PORT}"}})
        yield
    finally:
        world.root(f"systemctl stop {UNIT}", check=False)
        world.configure(**{side: given})


def _timed(case: Case, command: str, code: int) -> lite.Output:
    began = time.monotonic()
    done = case.world.program(f"{command} --json")
    took = time.monotonic() - began
    case.expect_code(done, code, f"{command} with a tracker that drips")
    case.expect(took < _PATIENCE, f"{command} waited for a tracker that drips: {took:.0f} s")
    return done


def _before(case: Case) -> None:
    """The new tracker's API drips: refused, and nothing was restarted."""
    before = case.observer.collected()["processes"]
    with _dripping(case, "new"):
        _timed(case, "apply", 1)
    after = case.observer.collected()["processes"]
    same = all(after[name]["pid"] == entry["pid"] for name, entry in before.items() if not entry["job"])
    case.expect(same, "a service was restarted although nothing could be switched")


def _on_the_way_back(case: Case) -> None:
    """The old tracker's API drips while everything goes back: services are put back all the same, unproven."""
    case.applied()
    with _dripping(case, "old"):
        done = _timed(case, "rollback", 5)
    last = float(done.document.get("seconds_to_last_restart", 999))
    case.expect(last < 60, f"the last restart waited for a tracker that drips: {last:.0f} s")


DRILLS = (
    Drill(
        "dripping tracker before",
        "the new tracker's API sends a byte a second",
        "refused with 1 in time, no restart",
        _before,
        EACH_WAIT_ALONE,
    ),
    Drill(
        "dripping tracker on the way back",
        "the old tracker's API sends a byte a second while everything goes back",
        "back in time, unproven",
        _on_the_way_back,
        EACH_WAIT_ALONE,
    ),
)
