"""GlitchTip's queue under faults: its worker is killed in a burst, its database and its queue restart in one.

The burst is sent to GlitchTip from this machine beside the product's own events, with a ledger by event id: what was
accepted must be stored once, and issues must count each once. The commands are the operators' own, run from the
source against the containers of the world (no engine is on the drills' server).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rig.shell import CACHE, ROOT, RigError, run

from drills import lite
from drills.framework import Case, Control, Drill, docker
from drills.lite import Lite, Output

_BURST, _SENDERS = 1500, 8
#: Seconds after the burst's begin in which a fault finds the worker with events in hand.
_MOMENTS = (2.0, 3.1, 4.3, 2.6)
_SETTLED = 90.0
#: Protections that a control switched off for the drill that comes next.
_OFF: set[str] = set()


@dataclass
class Burst:
    """The ledger of one burst: ids that GlitchTip accepted, and how many requests it refused."""

    name: str
    accepted: list[str] = field(default_factory=list)
    refused: int = 0
    threads: list[threading.Thread] = field(default_factory=list)

    def end(self) -> None:
        """Wait until everything was sent."""
        for thread in self.threads:
            thread.join()


def _begin(case: Case, name: str, count: int = _BURST) -> Burst:
    """Send ``count`` events of 2 kB over eight connections; returns at once."""
    side = case.world.glitchtip
    address = f"{side.stack.url}/api/{side.tracker.project_id}/envelope/?sentry_key={side.key}"
    burst, left, guard = Burst(f"drill {name} {uuid.uuid4().hex[:6]}"), iter(range(count)), threading.Lock()
    crumbs = [{"category": "drill", "message": "x" * 60, "level": "info"} for _ in range(20)]

    def send() -> None:
        while True:
            with guard:
                number = next(left, None)
            if number is None:
                return
            event_id = uuid.uuid4().hex
            event = {
                "event_id": event_id,
                "level": "error",
                "message": f"{burst.name} {number % 5}",
                "fingerprint": [burst.name, str(number % 5)],
                "breadcrumbs": {"values": crumbs},
            }
            payload = json.dumps(event).encode()
            header = json.dumps({"type": "event", "length": len(payload)}).encode()
            body = json.dumps({"event_id": event_id}).encode() + b"\n" + header + b"\n" + payload
            request = urllib.request.Request(address, body, {"Content-Type": "application/x-sentry-envelope"})
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    answer.read()
            except (urllib.error.URLError, OSError):
                with guard:
                    burst.refused += 1
                continue
            with guard:
                burst.accepted.append(event_id)

    burst.threads = [threading.Thread(target=send, daemon=True) for _ in range(_SENDERS)]
    for thread in burst.threads:
        thread.start()
    return burst


def _rows(case: Case, sql: str) -> list[str]:
    psql = ["docker", "exec", "-i", f"{case.world.glitchtip.stack.name}-postgres"]
    psql += ["psql", "-qtA", "-U", "glitchtip", "-d", "glitchtip"]
    return run(psql, input_text=sql).stdout.split()


def _stored(case: Case, burst: Burst) -> list[str]:
    """Accepted events that are in the database, one entry a row."""
    listed = ",".join(burst.accepted)
    found = _rows(case, f"SELECT id FROM issue_events_issueevent WHERE id = ANY('{{{listed}}}'::uuid[]);")
    return [each.replace("-", "") for each in found]


def _counted(case: Case, burst: Burst) -> int:
    """What the burst's issues count in all."""
    sql = f"SELECT coalesce(sum(count), 0) FROM issue_events_issue WHERE title LIKE '{burst.name} %';"
    return int(_rows(case, sql)[0])


def _judge(case: Case, burst: Burst, *, lost: int = 0) -> None:
    """Every accepted event is stored once and counted once; ``lost`` may be missing."""
    stored = _stored(case, burst)
    missing = len(set(burst.accepted) - set(stored))
    case.expect(bool(burst.accepted), "GlitchTip accepted no event of the burst")
    case.expect(missing <= lost, f"{missing} of {len(burst.accepted)} accepted events are missing")
    twice = len(stored) - len(set(stored))
    case.expect(twice == 0, f"{twice} events are stored twice")
    counted = _counted(case, burst)
    case.expect(
        counted <= len(burst.accepted), f"issues count {counted} events, {len(burst.accepted)} were accepted"
    )
    case.expect(counted >= len(set(stored)), f"issues count {counted} events, {len(set(stored))} are stored")


def _settings(world: Lite) -> Path:
    """Settings of the operators' tools for GlitchTip of this world."""
    side, directory = world.glitchtip, CACHE / f"{lite.NETWORK}-ops"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = {
        "migration_id": lite.MIGRATION,
        "url": side.stack.url,
        "public_url": side.stack.url,
        "organization": side.tracker.organization,
        "project": side.tracker.project,
        "project_id": side.tracker.project_id,
        "compose_dir": str(directory),
        "backup_dir": str(directory / "backups"),
        "state_dir": str(directory / "state"),
    }
    host = urlsplit(side.stack.url).netloc
    texts = {
        "settings.json": json.dumps(settings),
        "token": side.tracker.token,
        "dsn": side.dsn.replace(side.host, host),
        "monitor.json": json.dumps({"compose_project": side.stack.name}),
    }
    for name, text in texts.items():
        path = directory / name
        path.touch(mode=0o600)
        path.write_text(text)
    return directory


def _command(world: Lite, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {"GLITCHTIP_OPS_CONFIG_DIR": str(_settings(world)), "PYTHONPATH": str(ROOT / "src")}
    return [sys.executable, "-m", "glitchtip_ops", *arguments], {**os.environ, **environment}


def _ops(case: Case, *arguments: str) -> Output:
    """``glitchtip-ops`` run to its end; what it prints is searched for secrets like the program's."""
    argv, environment = _command(case.world, *arguments)
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300, env=environment)
    case.world.outputs += [done.stdout, done.stderr]
    return Output(done.returncode, done.stdout, done.stderr)


def _status(case: Case) -> dict[str, Any]:
    out = _ops(case, "--json", "queue", "status").out
    found: dict[str, Any] = json.loads(out) if out.startswith("{") else {}
    return found


def _await_idle(case: Case) -> None:
    """Wait until nothing waits."""
    end = time.monotonic() + _SETTLED
    while time.monotonic() < end:
        if _status(case).get("waiting") == 0:
            time.sleep(3)  # a batch is stored within 2 s
            if _status(case).get("waiting") == 0:
                return
        time.sleep(1)
    case.expect(False, f"events still wait after {_SETTLED:.0f} s")


def _kill_worker(case: Case, name: str) -> Burst:
    """A burst in whose middle the worker is killed and started again, as the engine does after an OOM kill."""
    worker = case.world.glitchtip.containers("worker")
    for moment in _MOMENTS:
        burst = _begin(case, name)
        time.sleep(moment)
        docker("kill", *worker)
        docker("start", *worker)
        burst.end()
        _await_idle(case)
        if int(_status(case).get("in_hand", 0)):
            return burst
    raise RigError("No kill of the worker found it with events in hand.")


def _worker_killed(case: Case) -> None:
    """What the killed worker left is brought back by the command."""
    burst = _kill_worker(case, "worker killed")
    found = _status(case)
    case.expect(int(found.get("stranded", 0)) > 0, "queue status does not show what the worker left")
    if "recover" not in _OFF:
        case.expect_code(_ops(case, "queue", "recover"), 0, "queue recover")
    _judge(case, burst)
    if "recover" in _OFF:
        _ops(case, "queue", "recover")


def _recovery_killed(case: Case) -> None:
    """The recovery itself is killed while the worker is stopped; the next one finishes it."""
    burst = _kill_worker(case, "recovery killed")
    argv, environment = _command(case.world, "queue", "recover")
    record = _settings(case.world) / "state" / "worker-stopped.json"
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    worker = case.world.glitchtip.containers("worker")[0]
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        state = run(["docker", "inspect", "-f", "{{.State.Running}}", worker]).stdout.strip()
        if record.exists() and state == "false":
            break
        time.sleep(0.02)
    process.kill()
    process.wait()
    case.expect(bool(_status(case).get("interrupted")), "queue status does not show the interrupted recovery")
    if "resume" not in _OFF:
        case.expect_code(_ops(case, "queue", "recover"), 0, "the second queue recover")
    _judge(case, burst)
    if "resume" in _OFF:
        _ops(case, "queue", "recover")


def _restarted(service: str) -> Callable[[Case], None]:
    """A part of the stack is restarted in a burst: by the command, or, as the control, under the running worker."""

    def drill(case: Case) -> None:
        burst = _begin(case, f"{service} restarted")
        time.sleep(2.5)
        if "stop first" in _OFF:
            docker("restart", *case.world.glitchtip.containers(service))
            docker("kill", *case.world.glitchtip.containers("worker"))
            docker("start", *case.world.glitchtip.containers("worker"))
        else:
            case.expect_code(_ops(case, "stack", "restart", service), 0, f"stack restart {service}")
        burst.end()
        _await_idle(case)
        _judge(case, burst)
        if "stop first" in _OFF:
            _ops(case, "queue", "recover")
        case.expect(
            "stop first" in _OFF or not _status(case).get("abandoned", _status(case).get("stranded")),
            "messages were left unacknowledged",
        )

    return drill


def _switched_off(name: str) -> Callable[[Lite], None]:
    return lambda _: _OFF.add(name)


def _with_protections(drill: Callable[[Case], None]) -> Callable[[Case], None]:
    """The drill, with everything switched on again after it."""

    def protected(case: Case) -> None:
        try:
            drill(case)
        finally:
            _OFF.clear()

    return protected


NO_RECOVERY = Control("nobody runs queue recover", _switched_off("recover"), "accepted events are missing")
NO_RESUME = Control("nobody runs it again", _switched_off("resume"), "accepted events are missing")
NOT_STOPPED = Control(
    "the worker is not stopped first", _switched_off("stop first"), "accepted events are missing"
)

DRILLS: tuple[Drill, ...] = (
    Drill(
        "GlitchTip's worker killed in a burst",
        "SIGKILL of the worker while 1,500 events arrive",
        "queue recover: every accepted event stored once, counted once",
        _with_protections(_worker_killed),
        NO_RECOVERY,
    ),
    Drill(
        "recovery of the queue killed",
        "SIGKILL of queue recover while the worker is stopped",
        "the next queue recover starts the worker and finishes",
        _with_protections(_recovery_killed),
        NO_RESUME,
    ),
    Drill(
        "PostgreSQL restarted in a burst",
        "stack restart postgres while 1,500 events arrive",
        "every accepted event stored once, counted once",
        _with_protections(_restarted("postgres")),
        NOT_STOPPED,
    ),
    Drill(
        "Valkey restarted in a burst",
        "stack restart valkey while 1,500 events arrive",
        "every accepted event stored once, counted once; refused ones are the SDK's to send again",
        _with_protections(_restarted("valkey")),
        NOT_STOPPED,
    ),
)
