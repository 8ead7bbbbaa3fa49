"""The observer: collects the facts of the invariant without asking the program under test."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ai_admin.ledger import Ledger

from drills import lite
from drills.invariant import NEW, OLD, Counts, Facts, Process, violations
from drills.lite import Lite

HERE = Path(__file__).resolve().parent
#: Services that capture an error in every round of their work.
EMITTING = (
    "ai-admin-api",
    "ai-admin-worker-v2",
    "ai-admin-telegram-bot",
    "ai-admin-booking-monitor",
    "baileys-whatsapp-service",
)
_SETTLE = 15.0
_ARRIVE = 45.0
_UNITS = " ".join(f"{lite.PROGRAM}{part}.service" for part in ("", "-recover", "-deadline", "-verify"))


class Observer:
    """Looks at one world from outside. Made while everything is as in the beginning."""

    def __init__(self, world: Lite) -> None:
        self.world = world
        for name in ("observer.mjs", "watch.py", "collect.py"):
            world.write(f"/root/{name}", (HERE / name).read_text())
        self._env_rest = self.collected()["env"]["rest"]

    def collected(self) -> dict[str, Any]:
        """What ``collect.py`` reads on the server."""
        asked = {
            "env_file": lite.ENV_FILE,
            "state_dir": lite.STATE_DIR,
            "directories": [
                "/opt/ai-admin",
                "/var/lib/ai-admin-cutover",
                "/etc/ai-admin-cutover",
                "/root/.pm2",
                "/srv",
            ],
            "dump": lite.DUMP,
            "key": "SENTRY_DSN",
            "dsns": {OLD: self.world.sentry.dsn, NEW: self.world.glitchtip.dsn},
            "canaries": self.world.canaries,
            "service_prefix": lite.PROGRAM,
        }
        found: dict[str, Any] = json.loads(
            self.world.root("python3 /root/collect.py", input_text=json.dumps(asked)).out
        )
        return found

    def used(self, pids: Mapping[str, int]) -> dict[str, str]:
        """Which DSN each running process's own SDK client has: old, new, other or a sentence."""
        keys = {
            hashlib.sha256(side.key.encode()).hexdigest(): (name, side.host)
            for name, side in self._sides().items()
        }
        command = f"node --no-warnings --experimental-websocket /root/observer.mjs '{json.dumps(dict(pids))}'"
        answers = json.loads(self.world.root(command).out) if pids else {}
        found = {}
        for name, answer in answers.items():
            side, host = keys.get(answer.get("key_sha256", ""), ("other", ""))
            found[name] = (
                f"unknown ({answer['problem']})"
                if "problem" in answer
                else side
                if host == answer["host"]
                else "other"
            )
        return found

    def _sides(self) -> dict[str, lite.Side]:
        return {OLD: self.world.sentry, NEW: self.world.glitchtip}

    def quiet(self, seconds: float = 150) -> list[str]:
        """Wait until none of our units is at work; sentences when that does not happen."""
        deadline = time.monotonic() + seconds
        while True:
            states = self.world.root(
                f"systemctl show -p ActiveState --value {_UNITS}", check=False
            ).out.split()
            if not {"active", "activating", "deactivating"} & set(states):
                return []
            if time.monotonic() > deadline:
                return [f"something is still at work after {seconds:.0f} s"]
            time.sleep(0.3)

    def facts(self, since: float, wanted: Mapping[str, str]) -> Facts:
        """Everything, once the product is at rest. ``since``: when the drill began (epoch seconds); ``wanted``: service -> old/new.

        Waits at most 15 s for services that just start, and 45 s for events on their way.
        """
        deadline = time.monotonic() + _SETTLE
        while not self.world.all_online() and time.monotonic() < deadline:
            time.sleep(0.5)
        rest = self.world.now()
        found = self.collected()
        pids = {
            name: process["pid"]
            for name, process in found["processes"].items()
            if process["pid"] and process["status"] == "online" and not process["job"]
        }
        used = self.used(pids)
        printed = "\n".join(self.world.outputs)
        shown = [
            f"{name} in what was printed" for name, text in self.world.canaries.items() if text in printed
        ]
        facts = Facts(
            env=found["env"]["dsn"],
            env_same=found["env"]["rest"] == self._env_rest,
            processes={
                name: Process(entry["status"], entry["carries"], used.get(name, "none"), entry["job"])
                for name, entry in found["processes"].items()
            },
            dump=found["dump"],
            journal=found["journal"],
            open=found["open"],
            lock_free=found["lock_free"],
            active=tuple(found["active"]),
            leftovers=tuple(found["leftovers"]),
            secrets=(*found["secrets"], *shown),
        )
        state = "glitchtip" if facts.env == NEW else "before"
        broken = violations(facts, tuple(wanted), state, wanted)
        # Where the rest is wrong already, nothing is waited for.
        return replace(facts, counts=self._events(since, rest, wanted, 2.0 if broken else _ARRIVE))

    def _events(self, since: float, rest: float, wanted: Mapping[str, str], seconds: float) -> Counts:
        """Ledger against both databases: until each emitting service was heard, then until what was in the ledger is stored.

        At most ``seconds``. Services go on sending: of a ledger that is read again, there is always an event under way.
        """
        deadline = time.monotonic() + seconds
        names = {side.name: which for which, side in self._sides().items()}
        while True:
            ledger = self.world.ledger(since)
            heard, wrong = after_rest(ledger, rest, names, wanted)
            silent = tuple(sorted(set(EMITTING) - heard))
            if not silent or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        while True:
            stored = [side.stored(since) for side in self._sides().values()]
            counts = compare(ledger, stored, wrong, silent)
            if not counts.lost or time.monotonic() > deadline:
                return counts
            time.sleep(0.5)


def after_rest(
    ledger: Ledger, rest: float, names: Mapping[str, str], wanted: Mapping[str, str]
) -> tuple[set[str], tuple[str, ...]]:
    """Services heard on their own side, and those heard on another one, by events captured after ``rest``."""
    heard: set[str] = set()
    wrong: set[str] = set()
    for event_id, entry in ledger.acknowledged.items():
        captured = ledger.captured.get(event_id)
        if captured is None or captured.at.timestamp() < rest or captured.service not in wanted:
            continue
        right = names.get(entry.host or "") == wanted[captured.service]
        (heard if right else wrong).add(captured.service)
    return heard, tuple(sorted(wrong))


def compare(
    ledger: Ledger, stored: Sequence[Mapping[str, int]], wrong: tuple[str, ...] = (), silent: tuple[str, ...] = ()
) -> Counts:
    """The counts of one drill: what the product acknowledged against what the trackers' databases hold."""
    total: dict[str, int] = {}
    for side in stored:
        for event_id, times in side.items():
            total[event_id] = total.get(event_id, 0) + times
    return Counts(
        captured=len(ledger.captured),
        # An answer to an event of just before is none of this drill's.
        acknowledged=len(ledger.acknowledged.keys() & ledger.captured.keys()),
        stored=sum(1 for event_id in ledger.captured if event_id in total),
        lost=sum(1 for event_id in ledger.acknowledged if event_id not in total),
        duplicated=sum(1 for event_id in ledger.captured if total.get(event_id, 0) > 1),
        wrong_host=wrong,
        silent=silent,
    )
