"""The switch and its way back: plan, apply, confirm, rollback, recover.

Every act is journalled before it begins; whatever stops a run, the journal and the recorded states tell the
next run what has to be put back. States: none -> applying -> applied (provisional) -> confirmed, and from
each of them -> rolling_back -> rolled_back.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .api import Tracker, await_event, verify_dsn
from .config import Config, Side
from .dsn import Dsn, parse_dsn, shown
from .envfile import EnvFile
from .errors import CutoverError, IncompleteError, RolledBackError
from .files import private_directory, read_json, read_secret, write_json
from .host import Host
from .journal import Journal, State, fold
from .planning import is_mine, plan_row, service_problems, strangers
from .pm2 import Process
from .proof import Proof
from .proving import Proving
from .services import Services
from .snapshot import Before, Snapshot, load_before, save_before, take
from .store import Store
from .wayback import WayBack

Result = dict[str, Any]
_T = TypeVar("_T")


class Cutover:
    """All commands for one configuration. Each returns a result without secrets or raises CutoverError."""

    def __init__(self, config: Config, host: Host) -> None:
        self.config = config
        self.host = host
        self.env = EnvFile(config.env_file, config.env_key)
        self.snapshots = Snapshot(config.state_dir)
        self.journal = Journal(config.state_dir / "journal.jsonl", host.clock, host.observer)
        self.services = Services(config, host.manager, monotonic=host.monotonic, sleep=host.sleep)
        self.store = Store(config.state_dir, monotonic=host.monotonic, sleep=host.sleep)
        self.proving = Proving(config, host, self.services)
        self.way_back = WayBack(config, host, self.store, self.journal, self.services)

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
            "open": self.store.open_marker.exists(),
            "confirm_before": state.deadline,
            "snapshot": self.snapshots.exists,
            "problems": list(state.problems),
        }
        try:
            result["env_dsn_host"] = shown(self.env.value())
        except CutoverError as error:
            result["env_dsn_host"] = "-"
            result["problems"].append(str(error))
        result["pm2_running"] = self.host.manager.running
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
        with self.store.lock():
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
            if problems := service_problems(self.config, listed):
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
            problems += service_problems(self.config, listed)
            notes += strangers(self.config, listed, problems)
        if new is not None and not self.config.pm2.node.exists():
            problems.append(f"there is no Node.js at {self.config.pm2.node}")
        if new is not None:
            self._collect(problems, lambda: verify_dsn(self._tracker(self.config.new), new))
        done = (
            new is not None and env_value is not None and self._settled(state, listed, new.value, env_value)
        )
        if state.phase == "applied" and not done:
            problems.append(f"attempt {state.attempt} waits for confirm; confirm it or roll it back first")
        rows = [
            plan_row(self.config, process, env_value, new, done)
            for process in listed
            if is_mine(self.config, process)
        ]
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

    @staticmethod
    def _collect(problems: list[str], read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except CutoverError as error:
            problems.append(str(error))
            return None

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
        with self.store.lock():
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
            directory = self.store.attempt_directory(attempt)
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
        self.store.mark_open(attempt)
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
        for name in self.services.jobs_last(others):
            self._restart(name, new.value, wait=canary_first)
        for name in [] if canary_first else others:
            self.services.wait_online(name)
        self.services.wait_stable(self.config.services)
        proofs |= self._prove(others, dict.fromkeys(others, new), tracker, baseline)
        listed = self.services.wait_stable(self.config.services)
        if self.env.value() != new.value:
            raise CutoverError(f"{self.config.env_file} was changed by somebody else meanwhile")
        self.journal.append("pm2_save", attempt=attempt)
        self.host.manager.save()
        return [
            self._row(process, before, new, proofs) for process in listed if is_mine(self.config, process)
        ]

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
            self.store.unmark_open()
        return result

    def _take_back(self, before: Before, error: Exception) -> None:
        """After a failed apply: put the state of before it back and raise what has to be told."""
        reason = str(error) if isinstance(error, CutoverError) else f"unexpected {type(error).__name__}"
        self.host.progress(f"rolling back: {reason}")
        try:
            self.way_back.put_back(before, "attempt", reason)
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
        for name, outcome in self.proving.outcomes(names, expected, tracker, baseline):
            if isinstance(outcome, CutoverError):
                raise outcome
            self.journal.append("proved", service=name, proof=outcome.kind, event_id=outcome.event_id)
            self.host.progress(f"{name}: {outcome.kind} {outcome.event_id}")
            proofs[name] = outcome
        return proofs

    # ------------------------------------------------------------------ confirm

    def confirm(self) -> Result:
        """Close an applied change; refuses when reality is not what was applied. Repeatable."""
        with self.store.lock():
            state = self.state()
            if state.phase == "confirmed":
                self.store.unmark_open()
                return {"changed": False, "state": "confirmed", "attempt": state.attempt}
            if state.phase != "applied":
                raise CutoverError(
                    f"there is nothing to confirm: the state is {state.phase}", {"state": state.phase}
                )
            listed = self.services.processes()
            if problems := service_problems(self.config, listed):
                raise CutoverError(
                    f"not confirmed: {problems[0]}", {"problems": problems, "state": state.phase}
                )
            if _sha256(self.env.value()) != state.new_dsn_sha256:
                raise CutoverError(f"not confirmed: {self.config.env_file} no longer holds the applied DSN")
            self.journal.append("confirmed", attempt=state.attempt)
            self.store.unmark_open()
            self.host.deadline.disarm()
            return {"changed": True, "state": "confirmed", "attempt": state.attempt}

    # ------------------------------------------------------------------ rollback

    def rollback(self, reason: str = "asked for", unconfirmed_attempt: int | None = None) -> Result:
        """Put the DSN of before the migration back and prove every service on it. Repeatable from every
        state.

        With ``unconfirmed_attempt`` (the timer of the confirm window) only that attempt is taken back, to the
        state before it, and only while it is not confirmed.
        """
        with self.store.lock(wait=120.0 if unconfirmed_attempt is not None else 0.0):
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
        if self.env.value() != before.dsn or not self.host.manager.running:
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
        self.way_back.put_back(before, "snapshot", reason)
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
        outcomes = dict(self.proving.outcomes(readable, expected, tracker, baseline))
        outcomes |= dict(self.proving.outcomes(foreign, expected, None, baseline))
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
        with self.store.lock(wait=60.0):
            state = self.state()
            self.env.clean()
            if not state.open:
                changed = self.store.open_marker.exists()
                self.store.unmark_open()
                return {"changed": changed, "state": state.phase, "services": []}
            return self._recover(state, f"the run was interrupted while {state.phase}")

    def _recover(self, state: State, reason: str) -> Result:
        if state.phase == "rolling_back" and state.rollback_target == "snapshot":
            before, target = self.snapshots.before(), "snapshot"
        else:
            before, target = (
                load_before(self.store.attempt_directory(state.attempt) / "before.json"),
                "attempt",
            )
        self.way_back.put_back(before, target, reason)
        return {"changed": True, "state": "rolled_back", "reason": reason, "services": []}


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
