"""The command confirm: an applied switch is closed, once reality is what was applied."""

from __future__ import annotations

from glitchtip_core.dsn import Dsn
from glitchtip_core.files import read_json
from glitchtip_core.transaction.state import State

from .applying import Applying
from .errors import CutoverError
from .manager import Process
from .parts import Result
from .planning import service_problems
from .proof import environment_problem
from .rehearsal import ACCEPT
from .targets import sha256

# A confirm that waits for events ends that many seconds before the window does, and asks in between.
_CONFIRM_MARGIN = 10.0
_CONFIRM_POLL = 5.0


class Confirming(Applying):
    """The command ``confirm``."""

    def confirm(self, wait: float = 0.0) -> Result:
        """Close an applied change; refuses when reality is not what was applied. Repeatable.

        Services that report often have to have been heard themselves; ``wait`` is how many seconds may be spent on
        that, but never more than the confirm window has left.
        """
        until = self.host.monotonic() + wait
        while True:
            with self.change.alone("confirm"):
                state = self.state()
                silent = self._confirm(state) if state.phase == "applied" else []
                if not silent:
                    return self._confirmed(state)
            left = min(
                until - self.host.monotonic(), (state.deadline or 0) - self.host.clock() - _CONFIRM_MARGIN
            )
            if left <= 0:
                raise CutoverError(
                    f"not confirmed: {silent[0]}; {ACCEPT}. Unless it is confirmed, the switch is rolled back when the "
                    "confirm window ends",
                    {"problems": silent, "state": state.phase},
                )
            self.host.progress(f"waiting for events: {silent[0]}")
            self.host.sleep(min(left, _CONFIRM_POLL))

    def _confirm(self, state: State) -> list[str]:
        """Record that an applied change is closed, or return which services are still to be heard."""
        listed = self.services.processes()
        if problems := service_problems(self.config, listed):
            raise CutoverError(f"not confirmed: {problems[0]}", {"problems": problems, "state": state.phase})
        self._check_applied(state, listed)
        target = self.target(state.target)
        for row in self._applied_rows():
            if row.get("proof") in ("probe", "none") and row["name"] in target.sides:
                self.see_that_none_goes_astray(row["name"], target, row.get("event_id", ""))
        if silent := self.awaited.hear(state, target, state.overrides):
            return silent
        self.journal.append("confirmed", attempt=state.attempt)
        return []

    def _confirmed(self, state: State) -> Result:
        """The result of a confirm, after what is left to be done once."""
        if state.phase == "confirmed":
            if not state.overriding:
                self.store.unmark_open()
            return {"changed": False, "state": "confirmed", "attempt": state.attempt}
        if state.phase != "applied":
            raise CutoverError(
                f"there is nothing to confirm: the state is {state.phase}", {"state": state.phase}
            )
        result: Result = {"changed": True, "state": "confirmed", "attempt": state.attempt}
        if notes := self.change.close():
            result["notes"] = notes
        self.change.tell("done", {"target": state.target, "attempt": state.attempt})
        self.start_watch(result)
        return result

    def _check_applied(self, state: State, listed: list[Process]) -> None:
        """Raise when a file or a service no longer has what was applied; services put back alone are left out."""
        stored = read_json(self.store.attempt_directory(state.attempt) / "after.json")
        if not isinstance(stored, dict):  # an attempt of before hashes were kept for each file
            stored = {"files": {str(self.config.env_file): state.target_sha256}, "services": {}}
        for path in self.config.env_files:
            if set(self.config.sharing(path)) <= set(state.overrides):
                continue
            if sha256(self.env(path).value()) != stored["files"].get(str(path)):
                raise CutoverError(f"not confirmed: {path} no longer holds the applied DSN")
        for process in listed:
            carried = process.environment.get(self.config.env_key)
            wanted = stored["services"].get(process.name)
            if process.name not in state.overrides and carried and wanted and sha256(carried) != wanted:
                raise CutoverError(f"not confirmed: {process.name} is given another DSN than the applied one")
        services = self.target(state.target).services
        for process in listed:
            if process.name in services and process.name not in state.overrides:
                self._check_environment(process, services[process.name])

    def _check_environment(self, process: Process, dsn: Dsn) -> None:
        """Raise when a running process has another DSN in its environment; one that was heard may read elsewhere."""
        heard = [
            row
            for row in self._applied_rows()
            if row["name"] == process.name and row.get("proof") == "own_event"
        ]
        if len(heard) == 1:
            return
        if problem := environment_problem(self.config, process, dsn):
            raise CutoverError(f"not confirmed: {problem}")

    def _applied_rows(self) -> list[Result]:
        """The rows of the change that was applied last."""
        stored = read_json(self.config.state_dir / "applied.json")
        rows = stored.get("services") if isinstance(stored, dict) else None
        return [row for row in rows or [] if isinstance(row, dict) and "name" in row]
