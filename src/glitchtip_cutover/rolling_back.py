"""The commands rollback and recover: the state of before is put back, and proven."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from glitchtip_core.files import read_json
from glitchtip_core.transaction.limits import MARGIN
from glitchtip_core.transaction.state import ATTEMPT, SNAPSHOT, State

from .applying import told_of
from .errors import (
    CutoverError,
    IncompleteError,
    UnprovenError,
    UnprovenServiceError,
    UnrecordedError,
    unexpected,
)
from .limits import FILE
from .parts import Parts, Result
from .proof import Proof
from .services import of
from .snapshot import Before, load_before
from .targets import to_before

# All services of a rollback are proven within this time, or said to be unproven.
ROLLBACK_PROOF = 60.0
_UNPROVEN = "back on its DSN of before the migration, but unproven"


class RollingBack(Parts):
    """The commands ``rollback`` and ``recover``."""

    def rollback(
        self,
        reason: str = "asked for",
        unconfirmed_attempt: int | None = None,
        service: str | None = None,
    ) -> Result:
        """Put the DSN of before the migration back and prove every service on it. Repeatable from every
        state.

        With ``unconfirmed_attempt`` (the timer of the confirm window) only that attempt is taken back, to the
        state before it, and only while it is not confirmed. With ``service`` that service alone is put back.
        Raises UnprovenError when all is back and not proven, IncompleteError when not all is back.
        """
        if service is not None:
            self.config.service(service)
        with self.change.taking_back(by_timer=unconfirmed_attempt is not None):
            if unconfirmed_attempt is not None:
                state = self.state()
                if not state.open or state.attempt != unconfirmed_attempt:
                    return {"changed": False, "state": state.phase, "services": []}
                return self._recover(state, "it was not confirmed in time")
            self.way_back.clean_files()
            with suppress(CutoverError), self.host.limit(FILE, "looking where .env is"):
                self.record_moved()
            with self.host.limit(FILE, "reading the snapshot"):
                before = self.snapshots.before()
            if service is not None:
                return self._roll_back_one(self.state(), before, service, reason)
            known = self.books.state()  # without it everything is restored
            if known is not None and self._stands(known, before):
                self.books.raise_unrecorded()
                return {
                    "changed": False,
                    "state": known.phase,
                    "seconds_to_last_restart": 0.0,
                    "seconds_proof": 0.0,
                    "services": self._rows_of("rolled_back.json"),
                }
            return self._roll_back_all(before, reason)

    def _stands(self, state: State, before: Before) -> bool:
        """Whether everything already is as the recorded state says."""
        if not state.at_origin or state.phase == "confirmed":
            return False
        if not self.host.manager.running:
            return False
        for path in self.config.env_files:
            try:
                if self.env(path).value() != before.value(path):
                    return False
            except CutoverError:
                return False
        mine = [process for process in self.services.processes() if process.name in self.config.services]
        return all(
            process.healthy
            and process.environment.get(self.config.env_key) in (None, before.effective(process.name))
            for process in mine
        ) and {process.name for process in mine} >= set(self.config.services)

    def _rows_of(self, name: str) -> list[Result]:
        """The rows of an earlier result, to show; none where its file cannot be read."""
        try:
            stored = read_json(self.config.state_dir / name)
        except CutoverError:
            return []
        rows = stored.get("services") if isinstance(stored, dict) else None
        return rows if isinstance(rows, list) else []

    def _roll_back_all(self, before: Before, reason: str) -> Result:
        began = self.host.monotonic()
        try:
            self.way_back.put_back(before, SNAPSHOT, reason)
        except UnrecordedError as error:
            self.host.progress(str(error))  # everything is back: it is proven all the same, and raised at the end
        except IncompleteError as error:
            self.change.tell("incomplete", {"reason": reason, **error.details})
            raise
        names = [name for name in self.config.services if name in self.services.watched]
        result = self._rollback_result(names, before, began)
        rows: list[Result] = result["services"]
        rows += [
            {"name": name, "dsn_host": "-", "proof": "none", "event_id": "", "seconds": 0.0, "note": "no SDK"}
            for name in self.config.without_sdk
        ]
        state = self.books.state() or State()
        self.books.write(self.config.state_dir / "rolled_back.json", {**result, **self.run_facts(state.attempt)})
        self._end_rollback(result, {"reason": reason, "stands": "before"})
        if result["unproven"]:
            raise UnprovenError(f"every service is {_UNPROVEN}: {result['unproven'][0]}", result)
        return result

    def _end_rollback(self, result: Result, facts: Mapping[str, Any]) -> None:
        """Notify people of what is restored. Raises UnrecordedError, with the result, where records are missing."""
        try:
            self.books.raise_unrecorded()
        except UnrecordedError as error:
            told = {**facts, **told_of(result), **error.details, "reason": str(error)}
            result["notes"] = self.change.tell("incomplete", told)
            raise UnrecordedError(str(error), {**result, **error.details}) from None
        result["notes"] = self.change.tell("rolled_back", {**facts, **told_of(result)})

    def _roll_back_one(self, state: State, before: Before, service: str, reason: str) -> Result:
        if state.phase in ("applying", "rolling_back"):
            raise CutoverError(f"a change is still open ({state.phase}); run rollback or recover first")
        if state.overriding and state.overriding != service:
            raise CutoverError(f"the rollback of {state.overriding} alone is still open; run recover first")
        unit = self.config.service(service)
        if service not in before.carried:
            raise CutoverError(f"the snapshot of before the migration does not know the service {service}")
        if not of(self.services.processes(), service):
            raise CutoverError(f"the service {service} does not run on this host")
        if state.stands == "before" or self.override.stands(state, unit, before):
            return {
                "changed": False,
                "state": state.phase,
                "stands": state.stands,
                "overrides": list(state.overrides),
                "services": [],
            }
        began = self.host.monotonic()
        self.way_back.restarted_at = began
        try:
            self.override.put(state, unit, before, reason)
        except UnrecordedError as error:
            self.host.progress(str(error))
        except IncompleteError as error:
            self.change.tell("incomplete", {"reason": str(error)})
            raise
        self.way_back.restarted_at = self.host.monotonic()
        result = self._rollback_result([service], before, began)
        after = self.state()
        result |= {"state": after.phase, "stands": after.stands, "overrides": list(after.overrides)}
        self._end_rollback(result, {"reason": reason, "service": service})
        if result["unproven"]:
            raise UnprovenError(f"{service} is {_UNPROVEN}: {result['unproven'][0]}", result)
        return result

    def _rollback_result(self, names: list[str], before: Before, began: float) -> Result:
        """Rows of those services with their proofs, and what stands against those that could not be proven."""
        restarted = self.way_back.restarted_at
        proof_began = self.host.monotonic()
        target = to_before(self.config, before)
        outcomes: dict[str, Proof | CutoverError] = {}
        try:
            with self.host.limit(ROLLBACK_PROOF + MARGIN, "proving the services"):
                outcomes.update(self.proving.outcomes(names, target, until=proof_began + ROLLBACK_PROOF))
        except Exception as error:  # the services are back: whatever fails from here on is no failure of that
            outcomes |= {name: CutoverError(unexpected(error)) for name in names if name not in outcomes}
        rows: list[Result] = []
        unproven: list[str] = list(self.proving.unread)
        for name in names:
            outcome = outcomes.get(name) or CutoverError(f"{name} was not proven")
            if isinstance(outcome, CutoverError):
                accepted = isinstance(outcome, UnprovenServiceError) and name in self.config.accept_unproven
                unproven += [] if accepted else [str(outcome)]
                outcome = Proof("none", note=str(outcome))
            rows.append(
                {
                    "name": name,
                    "dsn_host": target.services[name].netloc,
                    "proof": outcome.kind,
                    "event_id": outcome.event_id,
                    "seconds": outcome.seconds,
                    "note": outcome.note,
                }
            )
        return {
            "changed": True,
            "state": "rolled_back",
            "seconds_to_last_restart": round(restarted - began, 1),
            "seconds_proof": round(self.host.monotonic() - proof_began, 1),
            "services": rows,
            "unproven": unproven,
        }

    def recover(self) -> Result:
        """Take back what an interrupted run left open (at boot, or after its process was killed)."""

        def nothing(state: State, marked: bool) -> Result:
            return {"changed": marked, "state": state.phase, "services": []}

        return self.change.recover(self.way_back.clean_files, self._recover, self._recover_override, nothing)

    def _recover_override(self, state: State) -> Result:
        running = self.host.manager.running
        try:
            done = self.override.recover(state, self.snapshots.before())
        except IncompleteError as error:
            self.change.tell("incomplete", {"reason": str(error)})
            raise
        if not running:
            self.books.mark_verify({"event": "rolled_back", "reason": done, "target": "service"})
            self.books.raise_unrecorded()
        after = self.state()
        return {
            "changed": True,
            "state": after.phase,
            "reason": done,
            "overrides": list(after.overrides),
            "services": [],
        }

    def _recover(self, state: State, reason: str) -> Result:
        if state.phase == "rolling_back" and state.rollback_target == SNAPSHOT:
            before, target = self.snapshots.before(), SNAPSHOT
        else:
            path = self.store.attempt_directory(state.attempt) / "before.json"
            before, target = load_before(path), ATTEMPT
        running = self.host.manager.running
        try:
            self.way_back.put_back(before, target, reason)
        except IncompleteError as error:
            if running or isinstance(error, UnrecordedError):  # else the verify unit notifies, if its mark could be left
                self.change.tell("incomplete", {**error.details, "reason": f"{reason}; {error}"})
            raise
        stands = self.state().stands
        if running:  # at boot there may be no network yet, and services wait: verify tells it
            self.change.tell("rolled_back", {"reason": reason, "stands": stands, "attempt": state.attempt})
        return {"changed": True, "state": "rolled_back", "stands": stands, "reason": reason, "services": []}
