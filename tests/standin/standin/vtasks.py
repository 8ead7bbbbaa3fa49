"""Worker and scheduler of the 6.2 line, as django-vtasks 3.1.0 runs them (from its source, not measured).

The worker collects events for two seconds or until it has 100, and works on up to ``VTASKS_CONCURRENCY`` batches and
tasks at once. It does not acknowledge: a batch in hand is in no list, so SIGKILL loses it, and SIGTERM has it stored.
A task that raises goes to the dead letters at once, every event of a batch alike; nothing is tried again.

The scheduler ticks every second under a lock. One error of Valkey or PostgreSQL ends it for good and without a word,
while the worker goes on. Its marks are written when a task is queued, not when it was done.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from . import db, logs, state, storage
from .queue import Message
from .vtasks_queue import DEFAULT, INGEST, PREFIX, Taken, Tasks, me
from .worker import TASKS, when_set

log = logging.getLogger("glitchtip.worker")

BATCH_SIZE = 100
FLUSH_SECONDS = 2.0
POLL_SECONDS = 0.1
RETRY_SECONDS = 1.0
HEARTBEAT_SECONDS = 5
#: Seconds that a stop waits for what is in hand.
DRAIN_SECONDS = 25
LOCK, MARK = "vtasks_scheduler_lock", "vtasks_last_run:"
LOCK_SECONDS = 15
#: How long a scheduler that does not hold the lock waits.
STANDBY_SECONDS = 5
TICK_SECONDS = 1.0
MAINTENANCE_HOUR = 5


class Worker:
    """One consumer of both queues. ``clock`` gives monotonic seconds; ``health_file`` is touched while it turns."""

    def __init__(
        self,
        tasks: Tasks,
        concurrency: int,
        rescue_interval: float = 0,
        health_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks = tasks
        self._rescue_interval = rescue_interval
        self._health_file = health_file
        self._clock = clock
        self._batch: Taken = []
        self._batch_began = 0.0
        self._free = threading.Semaphore(concurrency)
        self._concurrency = concurrency
        # One batch is written at a time: two that hold events of the same issues would block each other, and the
        # database would end one of them, which loses it.
        self._storing = threading.Lock()
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="vtasks")
        self._next = {"alive": 0.0, "rescue": clock() + rescue_interval}
        self.stopping = threading.Event()

    def run(self) -> None:
        """Work until :attr:`stopping` is set, then end what is in hand."""
        self._rescue()
        log.info("worker %s is ready, up to %d tasks at once", me(), self._concurrency)
        while not self.stopping.is_set():
            try:
                busy = self.step()
            except Exception:
                log.exception("the queue does not answer")
                self.stopping.wait(RETRY_SECONDS)
                continue
            if not busy:
                self.stopping.wait(POLL_SECONDS)
        self._drain()

    def step(self) -> bool:
        """One turn: signs of life, events, other tasks; whether there was something to do."""
        self._tick()
        busy = self._collect()
        while self._free.acquire(blocking=False):
            taken = self._tasks.take(DEFAULT, 1)
            if not taken:
                self._free.release()
                break
            self._start(self._perform, taken)
            busy = True
        return busy

    def _tick(self) -> None:
        now = self._clock()
        if now >= self._next["alive"]:
            self._next["alive"] = now + HEARTBEAT_SECONDS
            self._tasks.alive()
            if self._health_file:
                self._health_file.touch()
        if self._rescue_interval > 0 and now >= self._next["rescue"]:
            self._next["rescue"] = now + self._rescue_interval
            self._rescue()

    def _rescue(self) -> None:
        try:
            again = self._tasks.rescue()
        except Exception:
            log.exception("the queue does not answer")
            return
        if again:
            log.info("queued %d tasks again that another worker left", again)

    def _collect(self) -> bool:
        """Pop events; start the batch when it is full or two seconds old and a place is free."""
        room = BATCH_SIZE - len(self._batch)
        taken = self._tasks.take(INGEST, room) if room else []
        if taken and not self._batch:
            self._batch_began = self._clock()
        self._batch += taken
        due = len(self._batch) >= BATCH_SIZE or self._clock() - self._batch_began >= FLUSH_SECONDS
        if not self._batch or not due or not self._free.acquire(blocking=False):
            return bool(taken)
        batch, self._batch = self._batch, []
        self._start(self._store, batch)
        return True

    def _start(self, work: Callable[[list[Message]], None], taken: Taken) -> None:
        self._pool.submit(self._finish, work, taken)

    def _finish(self, work: Callable[[list[Message]], None], taken: Taken) -> None:
        """Run a task or batch; whatever it raises makes it a dead letter."""
        try:
            work([message for _, message in taken])
        except Exception as error:
            log.warning("%d tasks failed: %s", len(taken), error)
            reason = f"{type(error).__name__}: {error}"
            self._quietly(lambda: self._tasks.fail(taken, reason))
        finally:
            self._quietly(lambda: self._tasks.done(taken))
            self._free.release()

    def _quietly(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            log.exception("the queue does not answer")

    def _store(self, messages: list[Message]) -> None:
        entries = [message for message in messages if "log" in message]
        events = [message for message in messages if "event" in message]
        with self._storing:
            stored = storage.store_batch(events) if events else 0
            logs.store(entries)
        log.info("stored %d of %d events", stored, len(events))

    def _perform(self, messages: list[Message]) -> None:
        for message in messages:
            wait = message.get("eta", 0) - time.time()
            if wait > 0:
                self.stopping.wait(wait)
            task = TASKS.get(message["task"])
            if task is None:
                raise LookupError(f"unknown task {message['task']}")
            task(message)

    def _drain(self) -> None:
        log.info("stopping: %d events in hand are stored first", len(self._batch))
        end = self._clock() + DRAIN_SECONDS
        if self._batch and self._free.acquire(timeout=DRAIN_SECONDS):
            batch, self._batch = self._batch, []
            self._start(self._store, batch)
        self._pool.shutdown(wait=False)
        for _ in range(self._concurrency):
            if not self._free.acquire(timeout=max(0.0, end - self._clock())):
                return


class Marks:
    """The scheduler's lock and its run marks: epoch seconds as text, without an end."""

    def __init__(self, client: Any | None) -> None:
        self._client = client

    def hold(self) -> bool:
        """Whether this process is the scheduler now. Raises when Valkey or PostgreSQL does not answer."""
        if self._client is None:
            row = db.one(
                "INSERT INTO db_vtaskmetadata (key, value, expires_at)"
                " VALUES (%s, %s, now() + make_interval(secs => %s)) ON CONFLICT (key) DO UPDATE"
                " SET value = excluded.value, expires_at = excluded.expires_at"
                " WHERE db_vtaskmetadata.expires_at <= now() OR db_vtaskmetadata.value = excluded.value"
                " RETURNING key",
                [LOCK, me(), LOCK_SECONDS],
            )
            return row is not None
        key = f"{PREFIX}scheduler:{LOCK}"
        if self._client.set(key, me(), nx=True, ex=LOCK_SECONDS):
            return True
        if self._client.get(key) != me():
            return False
        self._client.expire(key, LOCK_SECONDS)
        return True

    def read(self, task: str) -> float:
        """When a task was queued last; 0 when never."""
        if self._client is None:
            row = db.one("SELECT value FROM db_vtaskmetadata WHERE key = %s", [f"{MARK}{task}"])
            return float(row["value"]) if row else 0.0
        return float(self._client.get(f"{PREFIX}scheduler:{MARK}{task}") or 0)

    def write(self, task: str, moment: float) -> None:
        """Remember that a task was queued now."""
        if self._client is None:
            db.execute(
                "INSERT INTO db_vtaskmetadata (key, value) VALUES (%s, %s)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                [f"{MARK}{task}", str(moment)],
            )
        else:
            self._client.set(f"{PREFIX}scheduler:{MARK}{task}", str(moment))


class Scheduler:
    """Queues what is due, once a second, while it holds the lock."""

    def __init__(self, marks: Marks, tasks: Tasks, alert_interval: float, uptime: bool = True) -> None:
        self._marks = marks
        self._tasks = tasks
        self._every = {("process_event_alerts", "send-alert-notifications"): alert_interval}
        if uptime:
            self._every["dispatch_checks", "uptime-dispatch-checks"] = 1.0
        self.stopping = threading.Event()

    def run(self) -> None:
        """Tick until :attr:`stopping` is set, or until the first error: nobody notices, nothing starts it again."""
        wait = 0.0
        try:
            while not self.stopping.wait(wait):
                wait = TICK_SECONDS if self._marks.hold() else STANDBY_SECONDS
                if wait == TICK_SECONDS:
                    self.tick(time.time())
        except Exception:
            return

    def tick(self, now: float) -> None:
        """Queue what is due at ``now`` (epoch seconds)."""
        for (task, name), seconds in self._every.items():
            if now - self._marks.read(name) >= seconds:
                self._queue(task, name, now)
        if self._marks.read("perform-maintenance") < latest_maintenance(now):
            self._queue("maintenance", "perform-maintenance", now)

    def _queue(self, task: str, name: str, now: float) -> None:
        self._tasks.put({"task": task})
        self._marks.write(name, now)


def latest_maintenance(now: float) -> float:
    """The last 05:00 UTC before ``now``, in epoch seconds: a first start and a long stop are behind it."""
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    at = moment.replace(hour=MAINTENANCE_HOUR, minute=0, second=0, microsecond=0)
    return (at if at <= moment else at - dt.timedelta(days=1)).timestamp()


def run(*, stop: threading.Event | None = None, split: bool = True) -> None:
    """Run worker and scheduler until SIGTERM or SIGINT (``split``), or until ``stop`` is set (embedded)."""
    current = state.get()
    settings, tasks = current.settings, cast("Tasks", current.queue)
    named = os.environ.get("VTASKS_HEALTH_CHECK_FILE") if split else None
    health = Path(named) if named else None
    worker = Worker(tasks, settings.vtasks_concurrency, settings.rescue_interval, health)
    schedule = Scheduler(Marks(current.client), tasks, settings.alert_interval, settings.enable_uptime)

    def end(*_: Any) -> None:
        worker.stopping.set()
        schedule.stopping.set()

    if split:
        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
    if stop is not None:
        threading.Thread(target=when_set, args=(stop, end), daemon=True).start()
    threading.Thread(target=schedule.run, daemon=True).start()
    worker.run()
