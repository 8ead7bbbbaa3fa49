"""The worker of the 5.2 line: stores events in batches, runs the other tasks, and keeps the schedule when it has the beat.

A batch is stored 2 s after its first event or when it has 100. The worker holds at most ``worker_window``
messages unacknowledged: with Celery's defaults that is 4 a core, hence about 2 x cores events a second.
SIGTERM ends it after the batch in hand is stored. A batch that the database refused goes back to the queue.
The 6.2 line's worker is in :mod:`standin.vtasks`; the tasks are the same.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import psycopg
from celery import beat as celery_beat

from . import alerting, issues, removal, state, storage, uptime
from .queue import HeldQueue, Message

log = logging.getLogger("glitchtip.worker")

BATCH_SIZE = 100
FLUSH_SECONDS = 2.0
POLL_SECONDS = 0.1
RETRY_SECONDS = 1.0
#: Where celery's scheduler of the 5.2 line keeps its schedule, and how often it writes it.
SCHEDULE = Path("/tmp/celerybeat-schedule")
SYNC_SECONDS = 180.0
#: Environment variable of a scheduler that is a worker's child: the worker's process id.
PARENT = "STANDIN_PARENT"

TASKS: dict[str, Callable[[Message], None]] = {
    "process_event_alerts": lambda _: alerting.evaluate(),
    "send_notification": lambda message: alerting.deliver(int(message["id"])),
    "delete_organization": lambda message: removal.organization(int(message["id"])),
    "delete_project": lambda message: removal.project(int(message["id"])),
    "delete_issues": lambda message: removal.issues([int(number) for number in message["ids"]]),
    "update_issues": issues.apply_update,
    "maintenance": lambda _: removal.maintenance(),
    "dispatch_checks": lambda _: uptime.dispatch(),
    "perform_checks": uptime.perform,
    "send_monitor_notification": uptime.notify,
}


class Worker:
    """One consumer of the queue. ``clock`` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._state = state.get()
        self._queue = cast("HeldQueue", self._state.queue)
        self._clock = clock
        self._batch: list[tuple[str, Message]] = []
        self._batch_began = 0.0
        self._later: list[tuple[str, Message]] = []
        self.stopping = threading.Event()
        self._others = 0
        self._lock = threading.Lock()

    def run(self) -> None:
        """Work until :attr:`stopping` is set, then store what is in hand."""
        restored = self._with_patience(self._queue.restore)
        if restored:
            log.info("restored %d messages that another worker left", restored)
        log.info("ready, up to %d messages in hand", self._state.settings.worker_window)
        while not self.stopping.is_set():
            if not self._step():
                self.stopping.wait(POLL_SECONDS)
        log.info("Warm shutdown")
        if self._later:
            self._give_back(self._later)
        if self._batch:
            self._flush(last=True)
        deadline = self._clock() + 15
        while self._others and self._clock() < deadline:
            time.sleep(0.05)

    def _with_patience(self, call: Callable[[], int]) -> int:
        while not self.stopping.is_set():
            try:
                return call()
            except Exception:
                log.exception("queue does not answer")
                self.stopping.wait(RETRY_SECONDS)
        return 0

    def _step(self) -> bool:
        """Take and do what there is; whether there was something."""
        room = min(BATCH_SIZE, self._state.settings.worker_window) - len(self._batch)
        try:
            taken = self._queue.take(room) if room > 0 else []
        except Exception:
            log.exception("queue does not answer")
            self.stopping.wait(RETRY_SECONDS)
            return False
        for tag, message in taken:
            if message["task"] == "ingest":
                if not self._batch:
                    self._batch_began = self._clock()
                self._batch.append((tag, message))
            else:
                self._later.append((tag, message))
        self._start_due()
        full = len(self._batch) >= BATCH_SIZE
        due = bool(self._batch) and self._clock() - self._batch_began >= FLUSH_SECONDS
        if full or due:
            self._flush()
        return bool(taken) or full or due

    def _start_due(self) -> None:
        """Start the other tasks whose time (``eta``, seconds since 1970, if there is one) has come."""
        now = time.time()
        due = [item for item in self._later if item[1].get("eta", 0) <= now]
        self._later = [item for item in self._later if item not in due]
        for tag, message in due:
            self._start_task(tag, message)

    def _flush(self, last: bool = False) -> None:
        batch, self._batch = self._batch, []
        try:
            stored = storage.store_batch([message for _, message in batch])
        except (psycopg.OperationalError, psycopg.InterfaceError):
            log.exception("database does not answer, %d events go back to the queue", len(batch))
            self._give_back(batch)
            if not last:
                self.stopping.wait(RETRY_SECONDS)
            return
        except Exception:
            log.exception("a batch of %d was refused, storing its events one by one", len(batch))
            self._one_by_one(batch)
            return
        log.info("stored %d of %d events", stored, len(batch))
        self._acknowledge([tag for tag, _ in batch])

    def _acknowledge(self, tags: list[str]) -> None:
        try:
            self._queue.done(tags)
        except Exception:
            log.exception("could not acknowledge %d messages", len(tags))

    def _give_back(self, batch: list[tuple[str, Message]]) -> None:
        try:
            self._queue.give_back(batch)
        except Exception:
            log.exception("queue does not answer, %d messages stay in hand", len(batch))

    def _one_by_one(self, batch: list[tuple[str, Message]]) -> None:
        """Store what can be stored when one event spoils the batch; the one that cannot is logged and
        dropped."""
        for tag, message in batch:
            try:
                storage.store_batch([message])
            except psycopg.OperationalError:
                self._give_back([(tag, message)])
                continue
            except Exception:
                log.exception("event %s cannot be stored", message["id"])
            self._acknowledge([tag])

    def _start_task(self, tag: str, message: Message) -> None:
        with self._lock:
            self._others += 1
        threading.Thread(target=self._run_task, args=(tag, message), daemon=True).start()

    def _run_task(self, tag: str, message: Message) -> None:
        """Other tasks have a thread each, so that a slow webhook does not stop ingest. They are not
        retried."""
        try:
            task = TASKS.get(message["task"])
            if task is None:
                log.error("unknown task %s", message["task"])
            else:
                task(message)
        except Exception:
            log.exception("task %s failed", message["task"])
        finally:
            self._acknowledge([tag])
            with self._lock:
                self._others -= 1


class Beat:
    """The schedule: puts the periodic tasks into the queue. Exactly one may run."""

    def __init__(self) -> None:
        self._state = state.get()
        self.stopping = threading.Event()
        self._every = {
            "process_event_alerts": self._state.settings.alert_interval,
            "dispatch_checks": uptime.interval(),
        }
        self._due = {task: time.monotonic() + seconds for task, seconds in self._every.items()}
        self._maintained = ""
        self._scheduler = celery_beat.Scheduler()
        self._synced = 0.0

    def run(self) -> None:
        """Tick until :attr:`stopping` is set, or the worker whose child this is has gone; maintenance is due at 05:00 UTC."""
        parent = int(os.environ.get(PARENT, "0"))
        while not self.stopping.wait(0.5) and parent in (0, os.getppid()):
            try:
                self._tick()
            except Exception:
                log.exception("the schedule could not be kept")
                self.stopping.wait(RETRY_SECONDS)

    def _tick(self) -> None:
        now = time.monotonic()
        if self._state.settings.celery and (not self._synced or now - self._synced >= SYNC_SECONDS):
            with contextlib.suppress(OSError):
                SCHEDULE.write_text("")
            self._synced = now
        for task, seconds in self._every.items():
            if now >= self._due[task]:
                self._due[task] = max(now, self._due[task] + seconds)
                self._send(task)
        day = time.strftime("%Y-%m-%d", time.gmtime())
        if time.gmtime().tm_hour >= 5 and self._maintained != day:
            if self._maintained:
                self._send("maintenance")
            self._maintained = day
        elif not self._maintained:
            self._maintained = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86400))

    def _send(self, task: str) -> None:
        self._scheduler.apply_async(lambda: self._state.queue.put({"task": task}))


def when_set(event: threading.Event, call: Callable[[], None]) -> None:
    """Wait for the event, then call."""
    event.wait()
    call()


def run(*, consume: bool, beat: bool, stop: threading.Event | None = None, signals: bool = True) -> None:
    """Run a worker, a beat or both until SIGTERM or SIGINT (or until ``stop`` is set).

    A worker has its beat in a process of its own, as celery's; when that dies the worker goes on without a word. It is a
    thread in the all-in-one process, and where celery was told so.
    """
    worker = Worker() if consume else None
    apart = consume and beat and signals and celery_beat._Process is not None
    schedule = Beat() if beat and not apart else None
    environment = {**os.environ, PARENT: str(os.getpid())}
    child = subprocess.Popen([sys.executable, "-m", "standin", "beat"], env=environment) if apart else None

    def end(*_: Any) -> None:
        for part in (worker, schedule):
            if part:
                part.stopping.set()
        if child:
            child.terminate()

    if signals:
        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
    if stop is not None:
        threading.Thread(target=when_set, args=(stop, end), daemon=True).start()
    if schedule and worker:
        threading.Thread(target=schedule.run, daemon=True).start()
    if worker:
        worker.run()
    elif schedule:
        schedule.run()
    if child:
        child.kill()
        child.wait()
