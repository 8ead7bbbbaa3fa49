"""Health checks of the event pipeline: the queue, what a worker left, dead letters, memory kills, the scheduler.

Alarms come long before a limit: GlitchTip answers 200 while events pile up in Valkey, and when Valkey reaches its
memory limit it is killed, loads the same data again and is killed again (5.2, measured: 12 kB an event).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from glitchtip_api import Client, GlitchTipError
from glitchtip_core.files import read_object, write_object

from .docker_stack import Stack, read_oom_kills
from .process import OpsError
from .queue.commands import keep_known_dead_letters, known_dead_letters, recover
from .queue.state import QueueState, read_queue
from .queue.valkey import open_valkey
from .settings import Settings
from .worker_stop import exclusive, finish_interrupted, record_of

_SCHEDULER_KEYS = "vtasks_last_run:"
_SCHEDULER_SQL = (
    "SELECT key, value FROM db_vtaskmetadata WHERE key LIKE 'vtasks\\_last\\_run:%';"  # 6.x without Valkey
)
#: Tasks of the 6.x scheduler that are due every second and every minute; the third runs once a day.
_SCHEDULED = ("uptime-dispatch-checks", "send-alert-notifications")
#: Automatic recoveries in a day. A message that kills its worker would otherwise kill it again and again.
_ATTEMPTS = 3
#: A worker that has just started (seconds) is left alone: whoever started it may be at work.
_SETTLED = 60.0
#: A living worker that holds events for long while more than these wait may only be slow: it is left alone.
_BUSY = 100
_OOM_ALARM = timedelta(hours=1)


class Limits(Protocol):
    """What this module reads of ``monitor.json``."""

    @property
    def max_queue_length(self) -> int:
        """Events."""

    @property
    def max_queue_age(self) -> float:
        """Seconds."""

    @property
    def max_queue_memory_percent(self) -> float:
        """Of Valkey's limit."""

    @property
    def auto_recover(self) -> bool:
        """Whether to bring back what a killed worker left."""


@dataclass(frozen=True)
class Check:
    """Outcome of one check; ``detail`` is one sentence without secrets."""

    name: str
    ok: bool
    detail: str


def guarded(name: str, check: Callable[[], Check]) -> Check:
    """``check()``, or a failed Check with the reason why it could not be made."""
    try:
        return check()
    except (OpsError, GlitchTipError) as error:
        return Check(name, False, str(error))


# --- scheduler --------------------------------------------------------------------------------------------


def is_line_6(settings: Settings) -> bool:
    """Whether the server says that it is of the 6.x line; False when it does not answer (check ``api`` says so)."""
    try:
        with Client(settings.url, retries=1) as client:
            version = str(client.version() or "")
    except GlitchTipError:
        return False
    major = version.lstrip("v").split(".", 1)[0]
    return major.isdigit() and int(major) >= 6


def read_scheduler_marks(stack: Stack, services: Sequence[str]) -> dict[str, str]:
    """The marks that the 6.x line's scheduler leaves in Valkey or in the database; empty on the 5.2 line."""
    if "valkey" in services:
        valkey = open_valkey(stack)
        keys = valkey.call("--scan", "--pattern", f"*{_SCHEDULER_KEYS}*").split()
        return {key: valkey.call("GET", key).strip() for key in keys}
    with stack.database_session(stack.container("postgres")) as session:
        ((exists,),) = session.execute("SELECT to_regclass('db_vtaskmetadata') IS NOT NULL;")
        if exists != "t":
            return {}
        return {row[0]: row[1] for row in session.execute(_SCHEDULER_SQL) if len(row) == 2}


def mark_times(marks: Mapping[str, str]) -> dict[str, float]:
    """Task -> epoch seconds of its last run; what is no time is left out."""
    times: dict[str, float] = {}
    for key, value in marks.items():
        _, found, task = key.partition(_SCHEDULER_KEYS)
        try:
            times |= {task: float(value)} if found else {}
        except ValueError:
            continue
    return times


#: Marks of containers on the same host may be a little ahead (seconds).
_AHEAD = 120.0


def check_scheduler(marks: Mapping[str, str], now: datetime, limit: float, *, is_6: bool = False) -> Check:
    """The scheduler (alerts, uptime checks, retention) ran lately. 5.2 leaves no marks: not checked then.

    On 6.x (django-vtasks 3.1.0) one error of Valkey or PostgreSQL ends the scheduler for good, silently, while the
    worker lives on: there, no mark at all is trouble as well.
    """
    times = mark_times(marks)
    if not times and not is_6:
        return Check("scheduler", True, "this server keeps no record of its scheduler: not checked")
    if not times:
        return Check("scheduler", False, "the scheduler has left no mark: restart the worker's container")
    ages = {task: now.timestamp() - times[task] for task in _SCHEDULED if task in times}
    ages = ages or {"any task": now.timestamp() - max(times.values())}
    ahead = -min(ages.values())
    if ahead > _AHEAD:
        return Check(
            "scheduler",
            False,
            f"the scheduler's last run lies {ahead:.0f} s in the future: the clock was set back, so whether the scheduler runs is "
            "not known; check it with `timedatectl`, then restart its container (glitchtip-ops stack restart worker)",
        )
    late = [f"{task} for {age:.0f} s" for task, age in ages.items() if age > limit]
    if late:
        return Check(
            "scheduler",
            False,
            f"the scheduler has not run {', '.join(late)}: no alerts, no uptime checks; restart its container "
            "(glitchtip-ops stack restart worker)",
        )
    return Check("scheduler", True, f"the scheduler ran {max(min(ages.values()), 0):.0f} s ago")


# --- queue ------------------------------------------------------------------------------------------------


def check_queue(state: QueueState, limits: Limits) -> Check:
    """Events do not pile up: number, age of the oldest, memory of Valkey against its limit."""
    age = "" if state.oldest is None else f", the oldest for {state.oldest:.0f} s"
    text = f"{state.waiting} events or tasks wait{age}"
    troubles: list[str] = []
    if state.waiting > limits.max_queue_length:
        troubles.append(f"more than {limits.max_queue_length}")
    if (state.oldest or 0.0) > limits.max_queue_age:
        troubles.append(f"longer than {limits.max_queue_age:.0f} s")
    if state.memory_limit:
        percent = 100.0 * state.memory_used / state.memory_limit
        text += f"; Valkey uses {percent:.0f} % of its {state.memory_limit // 2**20} MiB"
        if percent > limits.max_queue_memory_percent:
            troubles.append(f"above {limits.max_queue_memory_percent:g} %: at its limit Valkey is killed")
    if state.left_behind:
        troubles.append(
            f"{state.left_behind} more are in the list of the 5.2 line, which this server never reads"
        )
    if troubles:
        advice = "is the worker running? docker ps; glitchtip-ops queue status --rate 10"
        return Check("queue", False, f"{text} ({'; '.join(troubles)}); {advice}")
    return Check("queue", True, text)


def check_unacked(state: QueueState) -> Check:
    """No message is in the hands of a worker that is gone (5.2)."""
    if not state.abandoned:
        return Check("unacked", True, f"no message is left by a dead worker, {state.in_hand} are in hand")
    return Check(
        "unacked",
        False,
        f"{state.abandoned} accepted events or tasks were left by a worker that was killed; bring them back with: "
        "glitchtip-ops queue recover",
    )


def check_dead_letters(state: QueueState, known: int) -> Check:
    """No event was given up since the last recovery (6.x)."""
    if state.dead_letters <= known:
        return Check("dead_letters", True, f"{state.dead_letters} dead letters, none new")
    return Check(
        "dead_letters",
        False,
        f"{state.dead_letters - known} events or tasks were given up by the worker; bring them back with: "
        "glitchtip-ops queue recover (once the database is well)",
    )


def _is_new_kill(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a container lost a process since the reading ``before`` (empty: it had lost none by then).

    The counter ``kills`` begins at 0 with every start; ``restarts`` counts those by the engine, not by hand.
    """
    if before.get("id") != now["id"] or "at" not in before:
        return True
    if before.get("started_at") == now["started_at"]:
        return bool(now["kills"] > before.get("kills", 0))
    return bool(now["kills"] or now["restarts"] > before.get("restarts", 0))


class Pipeline:
    """The checks of the queue and of memory kills; with ``act`` it remembers, and recovers."""

    def __init__(
        self,
        settings: Settings,
        stack: Stack,
        limits: Limits,
        now: Callable[[], datetime],
        *,
        act: bool = False,
    ) -> None:
        self.settings = settings
        self.stack = stack
        self.limits = limits
        self.now = now
        self.act = act

    def checks(self) -> list[Check]:
        """Each on its own; without a reading of the queue only that is said."""
        notes = guarded("worker_start", self._finish_interrupted)
        result = [guarded("oom", self._oom)]
        if notes.detail:
            result.append(notes)
        try:
            state = read_queue(self.stack, self.now())
        except OpsError as error:
            return [*result, Check("queue", False, str(error))]
        known = known_dead_letters(self.settings.state_dir)
        if self.act and state.dead_letters < known:
            keep_known_dead_letters(self.settings.state_dir, state.dead_letters)
        return [
            *result,
            check_queue(state, self.limits),
            guarded("unacked", lambda: self._unacked(state)),
            check_dead_letters(state, known),
        ]

    def _finish_interrupted(self) -> Check:
        """A command that was killed with the worker stopped: start it."""
        if not record_of(self.settings.state_dir).exists():
            return Check("worker_start", True, "")
        if self._is_busy():
            return Check("worker_start", True, "")
        if not self.act:
            return Check(
                "worker_start",
                False,
                "a command stopped the worker and has not started it again; run: glitchtip-ops queue recover",
            )
        with exclusive(self.settings.state_dir):
            note = finish_interrupted(self.stack, self.settings.state_dir)
        return Check("worker_start", not note, note or "")

    def _is_busy(self) -> bool:
        """Whether a recovery or a restart is at work right now."""
        try:
            with exclusive(self.settings.state_dir):
                return False
        except OpsError:
            return True

    def _unacked(self, state: QueueState) -> Check:
        check = check_unacked(state)
        if not check.ok and self._is_busy():  # without a worker everything in hand looks left
            return Check(check.name, True, "a recovery of the queue or a restart is at work")
        if check.ok or not self.act or not self.limits.auto_recover or state.line == "6.x":
            return check
        refusal = self._why_not_now(state)
        if refusal:
            return Check(check.name, False, f"{check.detail} (not done by itself: {refusal})")
        self._note_attempt()
        outcome = recover(self.settings, self.stack)
        said = "; ".join(outcome.lines)
        if outcome.code == 0:
            return Check(
                check.name, False, f"a worker was killed; what it left was brought back by itself: {said}"
            )
        return Check(check.name, False, f"a worker was killed; bringing back what it left failed: {said}")

    def _why_not_now(self, state: QueueState) -> str:
        """Why an automatic recovery is not started now; empty when it may be."""
        now = self.now()
        recent = [each for each in self._attempts() if now - datetime.fromisoformat(each) < timedelta(days=1)]
        if len(recent) >= _ATTEMPTS:
            return f"{len(recent)} attempts in a day; find out what kills the worker"
        if not state.stranded and state.waiting > _BUSY:
            return f"the worker is alive and {state.waiting} wait: it may only be slow; see its log and the database"
        workers = self.stack.workers(self.stack.containers())
        for worker in workers:
            if not worker.well:
                return f"{worker.service} is {worker.state}/{worker.health or 'no check'}"
            if (now - datetime.fromisoformat(worker.started_at)).total_seconds() < _SETTLED:
                return f"{worker.service} has just started"
        return "" if workers and state.line == "5.2" else "there is no worker of the 5.2 line"

    def _attempts(self) -> list[str]:
        kept = (read_object(self.settings.state_dir / "queue-recoveries.json") or {}).get("attempts")
        return [str(each) for each in kept] if isinstance(kept, list) else []

    def _note_attempt(self) -> None:
        attempts = [*self._attempts(), self.now().isoformat(timespec="seconds")][-10:]
        write_object(self.settings.state_dir / "queue-recoveries.json", {"attempts": attempts})

    def _oom(self) -> Check:
        """No container, healthy or not, lost a process for lack of memory within the last hour.

        Docker's flag stays set after the container is well again, also over a restart by hand (5.2 stack,
        measured), so a kill counts from when it was first seen, and what makes a new one is a higher counter.
        """
        file, now = self.settings.state_dir / "oom.json", self.now()
        before: dict[str, Any] = (read_object(file) or {}).get("seen") or {}
        seen: dict[str, dict[str, Any]] = {}
        for container in self.stack.containers():
            kills = read_oom_kills(container) or 0
            if container.oom_killed or kills:
                entry = before.get(container.service) or {}
                current = {
                    "id": container.id[:12],
                    "started_at": container.started_at,
                    "restarts": container.restarts,
                    "kills": kills,
                }
                at = now.isoformat(timespec="seconds") if _is_new_kill(entry, current) else entry["at"]
                seen[container.service] = {**current, "at": str(at)}
        if self.act:
            write_object(file, {"seen": seen})
        fresh = [
            service
            for service, entry in seen.items()
            if now - datetime.fromisoformat(entry["at"]) < _OOM_ALARM
        ]
        if fresh:
            return Check(
                "oom",
                False,
                f"the kernel killed processes of {', '.join(sorted(fresh))} for lack of memory: raise its limit "
                "(inventory), then look for lost events: glitchtip-ops queue status",
            )
        earlier = f" (earlier: {', '.join(sorted(seen))})" if seen else ""
        return Check("oom", True, f"no container lost a process for lack of memory in the last hour{earlier}")
