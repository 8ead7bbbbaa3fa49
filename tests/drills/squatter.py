"""Another user of the host takes GlitchTip's port while nobody else has it: root's tools send it no token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from drills import lite, off
from drills.framework import Case, Control, Drill

PORT = 19322
UNIT = "gtm-squatter"
_LOG = "/var/tmp/gtm-squatter.log"
#: It answers everything like a tracker that knows every project, so that a token is sent again and again.
_SERVER = f"""
import http.server

class Squatter(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open("{_LOG}", "a") as log:
            log.write(self.requestline + "\\n" + str(self.headers))
        body = b'{{"id": "1", "slug": "ai-admin"}}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", {PORT}), Squatter).serve_forever()
"""
_CONNECT = f'import socket; socket.create_connection((\\"127.0.0.1\\", {PORT}), 5)'
SENT = "the squatter was sent the token of the new tracker"
NOT_CHECKED = Control(
    "who listens is not checked",
    off.patched("glitchtip_core/listener", "_judge", "_judge = lambda *_: None"),
    SENT,
)


@contextmanager
def _squatted(case: Case) -> Iterator[None]:
    """The new tracker's API is expected at a port of this host that the user ``nobody`` has."""
    world = case.world
    given = json.loads(world.root(f"cat {lite.CONFIG}").out)["new"]
    world.root(f"rm -f {_LOG}; install -m 600 -o nobody -g nogroup /dev/null {_LOG}")
    world.write("/var/tmp/gtm-squatter.py", _SERVER)
    world.root("chmod 644 /var/tmp/gtm-squatter.py")
    world.root(f"systemd-run --quiet --collect --unit={UNIT} --uid=nobody python3 /var/tmp/gtm-squatter.py")
    try:
        world.root(f"timeout 20 sh -c 'until python3 -c \"{_CONNECT}\" 2>/dev/null; do sleep 0.1; done'")
        world.configure(new={**given, "api_url": f"http://127.0.0.1:{PORT}"})
        yield
    finally:
        world.root(f"systemctl stop {UNIT}", check=False)
        world.configure(new=given)
        world.root(f"rm -f {_LOG} /var/tmp/gtm-squatter.py")


def _squatter(case: Case) -> None:
    """Apply refuses, names the process and its user, restarts nothing; the squatter heard no token."""
    before = case.observer.collected()["processes"]
    with _squatted(case):
        done = case.world.program("apply --json")
        heard = case.world.root(f"cat {_LOG}").out
    case.expect(case.world.glitchtip.token not in heard and "Bearer" not in heard, SENT)
    case.expect_code(done, 1, "apply with a squatter")
    reason = str(done.document.get("reason", ""))
    for word in ("is not served by GlitchTip", "of user nobody"):
        case.expect(word in reason, f"the reason does not say '{word}': {reason[:300]}")
    after = case.observer.collected()["processes"]
    same = all(after[name]["pid"] == entry["pid"] for name, entry in before.items() if not entry["job"])
    case.expect(same, "a service was restarted although nothing could be switched")


DRILLS = (
    Drill(
        "squatter",
        "another user of the host listens where GlitchTip is expected",
        "refused with 1, the process is named, no token sent, no restart",
        _squatter,
        NOT_CHECKED,
    ),
)
