"""The switch and its way back: plan, apply, confirm, rollback, recover.

Every act is journalled before it begins; whatever stops a run, the journal and the recorded states tell the
next run what has to be put back. States: none -> applying -> applied (provisional) -> confirmed, and from
each of them -> rolling_back -> rolled_back.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .api import Tracker, await_event, send_test_event, verify_dsn
from .config import Config, Side
from .deadline import Deadline
from .dsn import Dsn, parse_dsn, shown
from .envfile import EnvFile
from .errors import BusyError, CutoverError, IncompleteError, RolledBackError, ServiceError
from .files import fsync_directory, private_directory, read_json, read_secret, write_json, write_new
from .journal import Journal, State, fold
from .pm2 import Pm2, Process
from .proof import Prober, Proof, find_own_event
from .services import Services, of
from .snapshot import Before, Snapshot, load_before, pids_of, save_before, take

Result = dict[str, Any]
_T = TypeVar("_T")
_LOCK_POLL = 1.0
_EVENT_POLL = 0.5


def _silent(_line: str) -> None:
    """Progress that nobody wants."""


@dataclass
class Host:
    """What the transaction touches outside its own files; tests put their own in place."""

    pm2: Pm2
    tracker: Callable[[Side], Tracker]
    deadline: Deadline
    prober: Prober
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    progress: Callable[[str], None] = _silent
    observer: Callable[[str, str], None] | None = None
    send_test_event: Callable[[Dsn, Mapping[str, str], str, float], str] = send_test_event


def real_host(config: Config, progress: Callable[[str], None]) -> Host:
    """The host we run on."""
    return Host(
        pm2=Pm2(config.pm2),
        tracker=Tracker,
        deadline=Deadline(config),
        prober=Prober(config, monotonic=time.monotonic, sleep=time.sleep),
        progress=progress,
    )


class Cutover:
    """All commands for one configuration. Each returns a result without secrets or raises CutoverError."""

    def __init__(self, config: Config, host: Host) -> None:
        self.config = config
        self.host = host
        self.env = EnvFile(config.env_file, config.env_key)
        self.snapshots = Snapshot(config.state_dir)
        self.journal = Journal(config.state_dir / "journal.jsonl", host.clock, host.observer)
        self.services = Services(config, host.pm2, monotonic=host.monotonic, sleep=host.sleep)
        self.open_marker = config.state_dir / "open"

    # ------------------------------------------------------------------ what stands

    def state(self) -> State:
        """The state that the journal tells."""
        return fold(self.journal.records())

    def status(self) -> Result:
        """What stands now; reads only, and neither PM2 nor a tracker has to answer."""
        state = self.state()
        result: Result = {
            "changed": False,
            "migration_id": self.config.migration_id,
            "state": state.phase,
            "attempt": state.attempt,
            "open": self.open_marker.exists(),
            "confirm_before": state.deadline,
            "snapshot": self.snapshots.exists,
            "problems": list(state.problems),
        }
        try:
            result["env_dsn_host"] = shown(self.env.value())
        except CutoverError as error:
            result["env_dsn_host"] = "-"
            result["problems"].append(str(error))
        result["pm2_running"] = self.host.pm2.running
        try:
            listed = self.services.processes() if result["pm2_running"] else []
        except CutoverError as error:
            listed = []
            result["problems"].append(str(error))
        result["services"] = [
            {
                "name": process.name,
                "status": process.status,
                "pid": process.pid,
                "pm2_dsn_host": shown(process.environment.get(self.config.env_key)),
            }
            for process in listed
            if process.name in self.config.services
        ]
        return result

    # ------------------------------------------------------------------ snapshot

    def snapshot(self) -> Result:
        """Record the state of before the migration, once; a repeat changes nothing."""
        if self.snapshots.exists:
            return {"changed": False, "path": str(self.snapshots.path), **self.snapshots.facts()}
        with self._lock():
            data = self.env.read()
            value = self.env.value()
            dsn = parse_dsn(value, f"the value of {self.config.env_key} in {self.config.env_file}")
            new = self.config.new
            if new is not None and new.dsn_file is not None and new.dsn_file.is_file():
                fresh = parse_dsn(read_secret(new.dsn_file, "the new DSN"), "the new DSN")
                if fresh.key == dsn.key:
                    raise CutoverError(
                        f"{self.config.env_file} holds the new DSN already, "
                        "so this is not the state before the migration"
                    )
            listed = self.services.processes()
            if problems := self._service_problems(listed):
                raise CutoverError(problems[0], {"problems": problems})
            before = take(value, listed, self.config.services, self.config.env_key)
            mode, owner = self.env.stat()
            facts = {
                "migration_id": self.config.migration_id,
                "recorded_at": round(self.host.clock()),
                "dsn_host": dsn.netloc,
                "services": [
                    {
                        "name": process.name,
                        "status": process.status,
                        "dsn_host": self._host_of(process, value),
                    }
                    for process in listed
                    if process.name in (*self.config.services, *self.config.without_sdk)
                ],
            }
            self.snapshots.write(data, mode, owner, before, facts)
            return {"changed": True, "path": str(self.snapshots.path), **self.snapshots.facts()}

    def _host_of(self, process: Process, env_value: str) -> str:
        if process.name in self.config.without_sdk:
            return "-"
        return shown(process.environment.get(self.config.env_key) or env_value)

    # ------------------------------------------------------------------ plan

    def plan(self) -> Result:
        """What apply would do and what stands against it; reads only."""
        problems: list[str] = []
        notes: list[str] = []
        state = self.state()
        if not self.snapshots.exists:
            problems.append(
                "there is no snapshot of the state before the migration; run snapshot (phase 0) first"
            )
        if state.phase in ("applying", "rolling_back"):
            problems.append(f"a change is still open ({state.phase}); run rollback first")
        new = self._collect(problems, self._new_dsn)
        env_value = self._collect(problems, self._env_dsn)
        listed = self._collect(problems, self.services.processes) or []
        if listed:
            problems += self._service_problems(listed)
            notes += self._strangers(listed, problems)
        if new is not None and not self.config.pm2.node.exists():
            problems.append(f"there is no Node.js at {self.config.pm2.node}")
        if new is not None:
            self._collect(problems, lambda: verify_dsn(self._tracker(self.config.new), new))
        done = (
            new is not None and env_value is not None and self._settled(state, listed, new.value, env_value)
        )
        if state.phase == "applied" and not done:
            problems.append(f"attempt {state.attempt} waits for confirm; confirm it or roll it back first")
        rows = [self._plan_row(process, env_value, new, done) for process in listed if self._mine(process)]
        return {
            "changed": False,
            "would_change": not done,
            "state": state.phase,
            "ready": not problems,
            "env_file": str(self.config.env_file),
            "old": shown(env_value),
            "new": new.netloc if new else "-",
            "services": rows,
            "problems": problems,
            "notes": notes,
        }

    def _plan_row(self, process: Process, env_value: str | None, new: Dsn | None, done: bool) -> Result:
        carried = process.environment.get(self.config.env_key)
        if process.name in self.config.without_sdk:
            action = "none: it has no SDK"
        elif done:
            action = "none: it is on the new DSN"
        elif carried is not None and (new is None or carried != new.value):
            action = f"restart with {self.config.env_key} set anew in its PM2 environment"
        elif process.idle_job:
            action = "none: the job reads .env at its next run"
        else:
            action = "restart"
        old = "-" if process.name in self.config.without_sdk else shown(carried or env_value)
        return {"name": process.name, "status": process.status, "old": old, "action": action}

    @staticmethod
    def _collect(problems: list[str], read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except CutoverError as error:
            problems.append(str(error))
            return None

    def _mine(self, process: Process) -> bool:
        return process.name in self.config.services or process.name in self.config.without_sdk

    def _env_dsn(self) -> str:
        value = self.env.value()
        parse_dsn(value, f"the value of {self.config.env_key} in {self.config.env_file}")
        return value

    def _new_dsn(self) -> Dsn:
        if self.config.new is None or self.config.new.dsn_file is None:
            raise CutoverError("the new tracker is not set up yet, or the configuration does not name it")
        return parse_dsn(read_secret(self.config.new.dsn_file, "the new DSN"), "the new DSN")

    def _tracker(self, side: Side | None) -> Tracker:
        if side is None:
            raise CutoverError("the new tracker is not set up yet, or the configuration does not name it")
        return self.host.tracker(side)

    def _service_problems(self, listed: list[Process]) -> list[str]:
        """What is wrong with the configured services."""
        problems: list[str] = []
        for name in self.config.services:
            instances = of(listed, name)
            if not instances:
                problems.append(f"PM2 of user {self.config.pm2.user} knows no service {name}")
                continue
            for process in instances:
                if not process.healthy:
                    problems.append(f"the service {name} is {process.status}, not online")
                if process.environment.get(self.config.env_key) == "":
                    problems.append(
                        f"the service {name} carries an empty {self.config.env_key} in its PM2 environment: "
                        "list it in without_sdk or remove the variable"
                    )
            if len({process.environment.get(self.config.env_key) for process in instances}) > 1:
                problems.append(f"the instances of {name} carry different values of {self.config.env_key}")
        return problems

    def _strangers(self, listed: list[Process], problems: list[str]) -> list[str]:
        """Processes that nobody named: a problem when they use the product's DSN, else a note."""
        notes: list[str] = []
        for process in listed:
            if self._mine(process):
                continue
            inside = Path(process.cwd).is_relative_to(self.config.app_dir) and not process.module
            if inside or self.config.env_key in process.environment:
                problems.append(
                    f"PM2 also runs {process.name}, which stands neither in services nor in without_sdk"
                )
            else:
                notes.append(f"{process.name} is none of the product's services and is left alone")
        return notes

    def _settled(self, state: State, listed: list[Process], new: str, env_value: str) -> bool:
        """Whether an earlier apply has brought everything onto this very DSN."""
        return (
            state.phase in ("applied", "confirmed")
            and state.new_dsn_sha256 == _sha256(new)
            and env_value == new
            and all(
                process.environment.get(self.config.env_key, new) == new
                for process in listed
                if process.name in self.config.services
            )
        )

    # ------------------------------------------------------------------ apply

    def apply(self) -> Result:
        """Move every service to the new DSN and prove each; on any failure put the state of before back.

        Raises CutoverError (nothing was changed), RolledBackError (the state of before is back) or
        IncompleteError (it could not be put back wholly).
        """
        with self._lock():
            plan = self.plan()
            if plan["problems"]:
                raise CutoverError(
                    plan["problems"][0], {"problems": plan["problems"], "state": plan["state"]}
                )
            if not plan["would_change"]:
                return self._unchanged(plan["state"])
            began = self.host.monotonic()
            new = self._new_dsn()
            tracker = self._tracker(self.config.new)
            self._gate(tracker, new)
            before = take(
                self.env.value(), self.services.processes(), self.config.services, self.config.env_key
            )
            attempt = self.state().attempt + 1
            directory = self._attempt_directory(attempt)
            private_directory(directory)
            save_before(directory / "before.json", before)
            self.journal.append(
                "apply_begin", attempt=attempt, new_dsn_sha256=_sha256(new.value), new_host=new.netloc
            )
            try:
                rows = self._switch(attempt, before, new, tracker)
                result = self._finish(attempt, rows, began)
            except Exception as error:
                self._take_back(before, error)
                raise AssertionError("unreachable") from error
            return result

    def _unchanged(self, phase: str) -> Result:
        """The rows of the apply that stands, each event looked up again."""
        stored = read_json(self.config.state_dir / "applied.json") or {"services": []}
        tracker = self._tracker(self.config.new)
        for row in stored["services"]:
            if row["event_id"] and tracker.event(row["event_id"]) is None:
                row["note"] = "its event is no longer kept"
        return {
            "changed": False,
            "state": "unchanged" if phase == "confirmed" else phase,
            "seconds": 0.0,
            "services": stored["services"],
        }

    def _gate(self, tracker: Tracker, new: Dsn) -> None:
        """Refuse unless a test event sent with the new DSN is stored; nothing has been changed yet."""
        self.host.progress("sending a test event with the new DSN")
        event_id = self.host.send_test_event(
            new,
            {self.config.service_tag: "ai-admin-cutover"},
            "ai-admin-cutover test event",
            self.host.clock(),
        )
        stored = await_event(
            tracker, event_id, self.config.probe_wait, monotonic=self.host.monotonic, sleep=self.host.sleep
        )
        if stored is None:
            raise CutoverError(
                f"the new tracker accepted a test event but did not store it within "
                f"{self.config.probe_wait:g} s (does its worker run?); the old DSN stands"
            )

    def _switch(self, attempt: int, before: Before, new: Dsn, tracker: Tracker) -> list[Result]:
        """The acts of one attempt, each journalled first; returns a row a service."""
        self._mark_open(attempt)
        if self.config.confirm_window:
            self.host.deadline.arm(attempt, self.config.run_max + self.config.confirm_window)
        baseline = {event.event_id for event in tracker.recent_events()}
        stamp = time.strftime("%Y%m%d-%H%M", time.localtime(self.host.clock()))
        self.services.watched.clear()
        self.env.backup(stamp)
        self.journal.append("env_switch", attempt=attempt, host=new.netloc)
        self.env.replace(new.value)
        self.host.progress(f"{self.config.env_file} switched to {new.netloc}")
        proofs: dict[str, Proof] = {}
        canary_first = self.config.strategy == "canary_first"
        if canary_first:
            self._restart(self.config.canary, new.value, wait=True)
            self.services.wait_stable([self.config.canary])
            proofs |= self._prove([self.config.canary], {self.config.canary: new}, tracker, baseline)
        others = [name for name in self.config.services if name not in proofs]
        for name in self._jobs_last(others):
            self._restart(name, new.value, wait=canary_first)
        for name in [] if canary_first else others:
            self.services.wait_online(name)
        self.services.wait_stable(self.config.services)
        proofs |= self._prove(others, dict.fromkeys(others, new), tracker, baseline)
        listed = self.services.wait_stable(self.config.services)
        if self.env.value() != new.value:
            raise CutoverError(f"{self.config.env_file} was changed by somebody else meanwhile")
        self.journal.append("pm2_save", attempt=attempt)
        self.host.pm2.save()
        return [self._row(process, before, new, proofs) for process in listed if self._mine(process)]

    def _jobs_last(self, names: list[str]) -> list[str]:
        """The same names; jobs of ``cron_restart`` at the end, as one at work is waited for."""
        jobs = {process.name for process in self.services.processes() if process.cron_job}
        return sorted(names, key=lambda name: name in jobs)

    def _restart(self, name: str, dsn: str, *, wait: bool) -> None:
        self.journal.append("restart", service=name)
        self.host.progress(f"restarting {name}")
        self.services.restart(name, dsn)
        if wait:
            self.services.wait_online(name)

    def _row(self, process: Process, before: Before, new: Dsn, proofs: Mapping[str, Proof]) -> Result:
        if process.name in self.config.without_sdk:
            return _row(process.name, "-", "-", Proof("none", note="no SDK"), process.pid, process.pid)
        watched = self.services.watched[process.name]
        pid_before = next((old.pid for old in watched.before if old.pm_id == process.pm_id), 0)
        proof = proofs[process.name]
        return _row(
            process.name, shown(before.effective(process.name)), new.netloc, proof, pid_before, process.pid
        )

    def _finish(self, attempt: int, rows: list[Result], began: float) -> Result:
        window = self.config.confirm_window
        result = {
            "changed": True,
            "state": "applied" if window else "confirmed",
            "seconds": round(self.host.monotonic() - began, 1),
            "services": rows,
        }
        write_json(self.config.state_dir / "applied.json", result)
        if window:
            self.host.deadline.arm(attempt, window)
            deadline = round(self.host.clock() + window)
            result["confirm_before"] = deadline
            self.journal.append("applied", attempt=attempt, deadline=deadline)
        else:
            self.journal.append("applied", attempt=attempt)
            self.journal.append("confirmed", attempt=attempt)
            self._unmark_open()
        return result

    def _take_back(self, before: Before, error: Exception) -> None:
        """After a failed apply: put the state of before it back and raise what has to be told."""
        reason = str(error) if isinstance(error, CutoverError) else f"unexpected {type(error).__name__}"
        self.host.progress(f"rolling back: {reason}")
        try:
            self._put_back(before, "attempt", reason)
        except IncompleteError as incomplete:
            raise IncompleteError(
                f"{reason}; and the way back is incomplete: {incomplete}", incomplete.details
            ) from error
        raise RolledBackError(
            f"{reason}; the state of before is back", {"state": "rolled_back", "changed": False}
        ) from error

    # ------------------------------------------------------------------ proof

    def _prove(
        self, names: list[str], expected: Mapping[str, Dsn], tracker: Tracker | None, baseline: set[str]
    ) -> dict[str, Proof]:
        """Prove every named service; raises ServiceError at the first that is not on its DSN."""
        proofs: dict[str, Proof] = {}
        for name, outcome in self._outcomes(names, expected, tracker, baseline):
            if isinstance(outcome, CutoverError):
                raise outcome
            self.journal.append("proved", service=name, proof=outcome.kind, event_id=outcome.event_id)
            self.host.progress(f"{name}: {outcome.kind} {outcome.event_id}")
            proofs[name] = outcome
        return proofs

    def _outcomes(
        self, names: list[str], expected: Mapping[str, Dsn], tracker: Tracker | None, baseline: set[str]
    ) -> Iterator[tuple[str, Proof | CutoverError]]:
        """A proof, or what stands against it, for each name; those that report by themselves first."""
        pending = list(names)
        listed = self.services.processes()
        by_name = {process.name: process for process in listed}
        while pending:
            events = tracker.recent_events() if tracker is not None else []
            for name in tuple(pending):
                process = by_name.get(name)
                if process is None:
                    pending.remove(name)
                    yield name, ServiceError(f"PM2 knows no service {name}")
                    continue
                since = self.services.watched[name].since
                own = find_own_event(events, self.config.service_tag, process, baseline)
                if own is not None and tracker is not None and tracker.event(own.event_id) is not None:
                    pending.remove(name)
                    yield name, Proof("own_event", own.event_id, round(self.host.monotonic() - since, 1))
            for name in tuple(pending):
                process = by_name[name]
                since = self.services.watched[name].since
                wait = self.config.own_event_wait if tracker is not None and not process.idle_job else 0.0
                if self.host.monotonic() - since >= wait:
                    pending.remove(name)
                    yield name, self._probe(process, expected[name], tracker, since)
                    break
            else:
                if pending:
                    self.host.sleep(_EVENT_POLL)

    def _probe(
        self, process: Process, expected: Dsn, tracker: Tracker | None, since: float
    ) -> Proof | CutoverError:
        """Probe one service, and check that its process is one of after the switch."""
        self.host.progress(f"{process.name} is silent: probing")
        try:
            old = {known.pid for known in self.services.watched[process.name].before if known.pid}
            if process.online and process.pid in old:
                raise ServiceError(f"{process.name} still runs in its process of before the switch")
            proof = self.host.prober.probe(process, expected, tracker)
        except CutoverError as error:
            return error if process.name in str(error) else ServiceError(f"{process.name}: {error}")
        note = "a job: its next run uses this DSN" if process.idle_job else proof.note
        return Proof(proof.kind, proof.event_id, round(self.host.monotonic() - since, 1), note)

    # ------------------------------------------------------------------ confirm

    def confirm(self) -> Result:
        """Close an applied change; refuses when reality is not what was applied. Repeatable."""
        with self._lock():
            state = self.state()
            if state.phase == "confirmed":
                self._unmark_open()
                return {"changed": False, "state": "confirmed", "attempt": state.attempt}
            if state.phase != "applied":
                raise CutoverError(
                    f"there is nothing to confirm: the state is {state.phase}", {"state": state.phase}
                )
            listed = self.services.processes()
            if problems := self._service_problems(listed):
                raise CutoverError(
                    f"not confirmed: {problems[0]}", {"problems": problems, "state": state.phase}
                )
            if _sha256(self.env.value()) != state.new_dsn_sha256:
                raise CutoverError(f"not confirmed: {self.config.env_file} no longer holds the applied DSN")
            self.journal.append("confirmed", attempt=state.attempt)
            self._unmark_open()
            self.host.deadline.disarm()
            return {"changed": True, "state": "confirmed", "attempt": state.attempt}

    # ------------------------------------------------------------------ rollback

    def rollback(self, reason: str = "asked for", unconfirmed_attempt: int | None = None) -> Result:
        """Put the DSN of before the migration back and prove every service on it. Repeatable from every
        state.

        With ``unconfirmed_attempt`` (the timer of the confirm window) only that attempt is taken back, to the
        state before it, and only while it is not confirmed.
        """
        with self._lock(wait=120.0 if unconfirmed_attempt is not None else 0.0):
            state = self.state()
            if unconfirmed_attempt is not None:
                if not state.open or state.attempt != unconfirmed_attempt:
                    return {"changed": False, "state": state.phase, "services": []}
                return self._recover(state, "it was not confirmed in time")
            before = self.snapshots.before()
            began = self.host.monotonic()
            if self._stands(state, before):
                stored = read_json(self.config.state_dir / "rolled_back.json")
                rows = stored["services"] if isinstance(stored, dict) else []
                return {
                    "changed": False,
                    "state": state.phase,
                    "seconds_to_last_restart": 0.0,
                    "seconds_proof": 0.0,
                    "services": rows,
                }
            return self._roll_back_to_snapshot(before, reason, began)

    def _stands(self, state: State, before: Before) -> bool:
        """Whether everything already is as the recorded state says."""
        if state.open or state.phase == "confirmed":
            return False
        if self.env.value() != before.dsn or not self.host.pm2.running:
            return False
        mine = [process for process in self.services.processes() if process.name in self.config.services]
        return all(
            process.healthy
            and process.environment.get(self.config.env_key) in (None, before.effective(process.name))
            for process in mine
        ) and {process.name for process in mine} >= set(self.config.services)

    def _roll_back_to_snapshot(self, before: Before, reason: str, began: float) -> Result:
        tracker: Tracker | None = None
        baseline: set[str] = set()
        if self.config.old is not None:
            tracker = self.host.tracker(self.config.old)
            try:
                baseline = {event.event_id for event in tracker.recent_events()}
            except CutoverError as error:
                self.host.progress(f"{error}; the way back does not wait for it")
                tracker = None
        self._put_back(before, "snapshot", reason)
        seconds = round(self.host.monotonic() - began, 1)
        rows, unproven = self._rollback_rows(before, tracker, baseline)
        result: Result = {
            "changed": True,
            "state": "rolled_back",
            "seconds_to_last_restart": seconds,
            "seconds_proof": round(self.host.monotonic() - began, 1),
            "services": rows,
        }
        write_json(self.config.state_dir / "rolled_back.json", result)
        if unproven:
            raise CutoverError(
                f"every service is back on its DSN of before the migration, but without proof: {unproven[0]}",
                {**result, "unproven": unproven},
            )
        return result

    def _rollback_rows(
        self, before: Before, tracker: Tracker | None, baseline: set[str]
    ) -> tuple[list[Result], list[str]]:
        """A row a service, and what stands against those that could not be proven."""
        names = [name for name in self.config.services if name in self.services.watched]
        expected = {name: parse_dsn(before.effective(name), f"the recorded DSN of {name}") for name in names}
        main = parse_dsn(before.dsn, "the recorded DSN")
        readable = [name for name in names if str(expected[name]) == str(main)]
        foreign = [name for name in names if name not in readable]
        outcomes = dict(self._outcomes(readable, expected, tracker, baseline))
        outcomes |= dict(self._outcomes(foreign, expected, None, baseline))
        rows: list[Result] = []
        unproven: list[str] = []
        for name in names:
            outcome = outcomes[name]
            if isinstance(outcome, CutoverError):
                unproven.append(str(outcome))
                outcome = Proof("none", note=str(outcome))
            rows.append(
                {
                    "name": name,
                    "dsn_host": expected[name].netloc,
                    "proof": outcome.kind,
                    "event_id": outcome.event_id,
                    "seconds": outcome.seconds,
                    "note": outcome.note,
                }
            )
        rows += [
            {"name": name, "dsn_host": "-", "proof": "none", "event_id": "", "seconds": 0.0, "note": "no SDK"}
            for name in self.config.without_sdk
        ]
        return rows, unproven

    def recover(self) -> Result:
        """Take back what an interrupted run left open (at boot, or after its process was killed)."""
        with self._lock(wait=60.0):
            state = self.state()
            self.env.clean()
            if not state.open:
                changed = self.open_marker.exists()
                self._unmark_open()
                return {"changed": changed, "state": state.phase, "services": []}
            return self._recover(state, f"the run was interrupted while {state.phase}")

    def _recover(self, state: State, reason: str) -> Result:
        if state.phase == "rolling_back" and state.rollback_target == "snapshot":
            before, target = self.snapshots.before(), "snapshot"
        else:
            before, target = load_before(self._attempt_directory(state.attempt) / "before.json"), "attempt"
        self._put_back(before, target, reason)
        return {"changed": True, "state": "rolled_back", "reason": reason, "services": []}

    def _put_back(self, before: Before, target: str, reason: str) -> None:
        """The way back itself: ``.env``, PM2 environments, restarts. IncompleteError when parts failed.

        Nothing in here needs a tracker. A failure with one service does not stop the others.
        """
        state = self.state()
        self._mark_open(state.attempt)
        self.journal.append("rollback_begin", target=target, reason=reason)
        problems: list[str] = []
        with contextlib.suppress(CutoverError):
            self.host.deadline.disarm()
        self.services.watched.clear()
        self.env.clean()
        self.journal.append("rollback_env", host=shown(before.dsn))
        with self._problem(problems):
            self._restore_env(before.dsn)
        if not self.host.pm2.running:
            with self._problem(problems):
                self.host.pm2.rewrite_dump(
                    self.config.env_key, {name: before.effective(name) for name in before.carried}
                )
        if self.host.pm2.running:
            with self._problem(problems):
                self._restart_back(state, before, target, problems)
        else:
            self.host.progress("PM2 does not run; its services will start with the DSN of before")
        if problems:
            self.journal.append("rollback_incomplete", problems=problems)
            raise IncompleteError("; ".join(problems), {"problems": problems, "state": "rolling_back"})
        self.journal.append("rolled_back", target=target)
        self._unmark_open()

    def _restore_env(self, dsn: str) -> None:
        """Set the one value back; a file that can no longer be edited is replaced by the snapshot's bytes."""
        try:
            self.env.replace(dsn)
        except CutoverError as error:
            if not self.snapshots.exists:
                raise
            data, mode, owner = self.snapshots.env()
            if self.config.env_file.exists():
                stamp = time.strftime("%Y%m%d-%H%M", time.localtime(self.host.clock()))
                self.env.backup(stamp, "damaged")
            self.host.progress(f"{error}; the file of the snapshot is put back")
            self.env.restore(data, mode, owner)
            self.env.replace(dsn)
        if self.env.value() != dsn:
            raise CutoverError(f"{self.config.env_file} does not read back as the DSN of before")

    def _restart_back(self, state: State, before: Before, target: str, problems: list[str]) -> None:
        """Restart every service that may have seen another DSN, and see that all of them run."""
        listed = self.services.processes()
        for name in self._jobs_last([name for name in self.config.services if name in before.carried]):
            instances = of(listed, name)
            if not instances:
                problems.append(f"{name} is not in PM2's list")
                continue
            if target == "attempt" and not self._touched(before, name, instances):
                continue
            with self._problem(problems):
                self.journal.append("rollback_restart", service=name)
                self.host.progress(f"restarting {name} on the DSN of before")
                self.services.restart(name, before.effective(name), strict=False)
        for name in tuple(self.services.watched):
            with self._problem(problems):
                self.services.wait_online(name)
                continue
            del self.services.watched[name]
        with self._problem(problems):
            self.services.wait_stable(tuple(self.services.watched))
        for process in self.services.processes():
            carried = process.environment.get(self.config.env_key)
            if process.name in before.carried and carried not in (None, before.effective(process.name)):
                problems.append(f"{process.name} still carries another DSN in its PM2 environment")
        if target == "snapshot" or state.saved:
            self.journal.append("rollback_save")
            self.host.pm2.save()

    def _touched(self, before: Before, name: str, instances: tuple[Process, ...]) -> bool:
        """Whether a service may have read or been given another DSN: it runs in another process."""
        return pids_of(instances, name) != before.pids[name] or any(
            process.environment.get(self.config.env_key) not in (None, before.effective(name))
            for process in instances
        )

    @contextlib.contextmanager
    def _problem(self, problems: list[str]) -> Iterator[None]:
        """Collect a failure as a sentence and go on."""
        try:
            yield
        except CutoverError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"unexpected {type(error).__name__}: {error.strerror}")

    # ------------------------------------------------------------------ files of the state

    def _attempt_directory(self, attempt: int) -> Path:
        return self.config.state_dir / "attempts" / f"{attempt:04d}"

    def _mark_open(self, attempt: int) -> None:
        write_new(self.open_marker, f"{attempt}\n".encode())

    def _unmark_open(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.open_marker.unlink()
            fsync_directory(self.open_marker.parent)

    @contextlib.contextmanager
    def _lock(self, wait: float = 0.0) -> Iterator[None]:
        """One run at a time; the lock dies with its holder. Raises BusyError after ``wait`` seconds."""
        private_directory(self.config.state_dir)
        deadline = self.host.monotonic() + wait
        descriptor = os.open(self.config.state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self.host.monotonic() >= deadline:
                        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
                        raise BusyError(f"another run is under way on this host (process {holder})") from None
                    self.host.sleep(_LOCK_POLL)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _row(name: str, old: str, new: str, proof: Proof, pid_before: int, pid_after: int) -> Result:
    return {
        "name": name,
        "old": old,
        "new": new,
        "proof": proof.kind,
        "event_id": proof.event_id,
        "seconds": proof.seconds,
        "pid_before": pid_before,
        "pid_after": pid_after,
        "note": proof.note,
    }
