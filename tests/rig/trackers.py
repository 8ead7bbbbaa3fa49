"""The two trackers of the demo, read back through their APIs: "Sentry" beside the server and GlitchTip on it."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from local import free_port

from glitchtip_api import Client, GlitchTipError
from rig import world
from rig.shell import RigError, wait_for

#: Of the tokens with which the rig sets up and reads a tracker.
SCOPES = [
    "project:read",
    "project:write",
    "project:admin",
    "team:read",
    "team:write",
    "event:read",
    "event:write",
    "org:read",
    "org:write",
]


@dataclass(frozen=True)
class Tracker:
    """Where one tracker is and how to read it."""

    url: str
    email: str
    password: str
    token: str
    organization: str
    project: str
    project_id: str

    def stored_ids(self) -> Counter[str]:
        """How often each event id stands in the project, read page by page."""
        client = Client(self.url, self.token, read_only=True)
        found: Counter[str] = Counter()
        for event in client.paginate(
            f"/api/0/projects/{self.organization}/{self.project}/events/", {"limit": 100}
        ):
            found[str(event["id"]).replace("-", "")] += 1
        return found

    def has(self, event_id: str) -> bool:
        """Whether the event is stored."""
        client = Client(self.url, self.token, read_only=True)
        return client.events.get(self.organization, self.project, event_id) is not None


@contextmanager
def tunnel(server: world.Server = world.MAIN, there: int = 8080) -> Iterator[str]:
    """An SSH tunnel to GlitchTip on the server (port ``there``) for as long as the block runs; gives its URL on this machine."""
    port = free_port()
    *options, target = world.ssh_argv(server)
    argv = [
        *options,
        "-N",
        "-o",
        "ExitOnForwardFailure=yes",
        "-L",
        f"127.0.0.1:{port}:127.0.0.1:{there}",
        target,
    ]
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for("An answer of GlitchTip through the tunnel", lambda: answers(url), seconds=30)
            yield url
        finally:
            process.terminate()


def answers(url: str) -> bool:
    """Whether a tracker's API answers there."""
    try:
        Client(url, timeout=(2, 5), retries=0).settings()
    except GlitchTipError:
        return False
    return True


def settle(
    captured: set[str],
    acknowledged: set[str],
    sentry: Tracker,
    glitchtip: Tracker,
    *,
    mirrored: bool = False,
    seconds: float = 60,
) -> dict[str, int]:
    """Compare the ledger with both trackers until nothing acknowledged is missing, at most ``seconds``.

    Returns ``{"captured", "acknowledged", "sentry", "glitchtip", "lost", "duplicated"}``: ``lost`` is acknowledged but stored nowhere,
    ``duplicated`` is stored more than once, in one tracker or over both; after a parallel run with the mirror (``mirrored``) an event
    belongs in both, and only twice in one of them is a duplicate.
    """
    deadline = time.monotonic() + seconds
    while True:
        counts = [tracker.stored_ids() for tracker in (sentry, glitchtip)]
        lost = sum(1 for event_id in acknowledged if not any(event_id in count for count in counts))
        if not lost or time.monotonic() > deadline:
            break
        time.sleep(2)
    total: Counter[str] = counts[0] | counts[1] if mirrored else counts[0] + counts[1]
    return {
        "captured": len(captured),
        "acknowledged": len(acknowledged),
        "sentry": len(captured & counts[0].keys()),
        "glitchtip": len(captured & counts[1].keys()),
        "lost": lost,
        "duplicated": sum(1 for event_id in captured if total[event_id] > 1),
    }


def require(condition: bool, sentence: str) -> None:
    """RigError with the sentence unless the condition holds."""
    if not condition:
        raise RigError(sentence)
