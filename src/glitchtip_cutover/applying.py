"""The command apply: the acts of a switch, each journalled first, and what a failure of one leads to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from glitchtip_core.dsn import shown
from glitchtip_core.files import private_directory, read_json, write_json
from glitchtip_core.transaction.state import ATTEMPT

from .config import Side
from .errors import CutoverError, UsageError, unexpected
from .evidence import Evidence
from .manager import Process
from .parts import Result
from .plan import Planning
from .planning import is_mine
from .proof import Proof
from .rows import one_per_service
from .snapshot import Before, save_before, take
from .targets import GLITCHTIP, Target, sha256


class Applying(Planning, Evidence):
    """The command ``apply``."""

    def apply(
        self,
        to: str = GLITCHTIP,
        *,
        override_window: str | None = None,
        override_verdict: str | None = None,
    ) -> Result:
        """Move every service to the target and prove each; on any failure put the state of before back.

        The overrides are reasons to pass a closed window or a missing GO; they are journalled. Raises
        CutoverError (nothing was changed), RolledBackError (the state of before is back) or IncompleteError (it
        could not be put back wholly).
        """
        reasons = {"window": override_window, "verdict": override_verdict}
        for gate, reason in reasons.items():
            if reason is not None and not reason.strip():
                raise UsageError(f"--override-{gate} needs a reason, which the journal keeps")
        with self.change.alone("apply"):
            self.store.clean()
            self.record_moved()
            plan, target, gates = self.make_plan(to)
            closed = {gate: why for gate, why in gates.items() if reasons[gate] is None}
            problems = [text for text in plan["problems"] if text not in gates.values()]
            problems += closed.values()
            if problems or target is None:
                if closed and len(problems) == len(closed):
                    told = {"gate": ", ".join(closed), "passed": False, "reason": problems[0]}
                    self.change.tell("gate", {"target": to, **told})
                raise CutoverError(problems[0], {"problems": problems, "state": plan["state"]})
            undoing = {"drift": plan["drift"], "notes": [row["text"] for row in plan["drift"]]}
            if not plan["would_change"]:
                return {**self._unchanged(plan["state"], target), **undoing}
            began = self.host.monotonic()
            state = self.state()
            attempt = state.attempt + 1
            facts = {
                "target": to,
                "attempt": attempt,
                "services": list(self.config.services),
                "old_host": plan["old"],
                "new_host": target.label,
            }
            self.reserve.set_aside()
            self.change.tell("start", facts)
            try:
                self._gate(target)
            except CutoverError as error:
                self.change.tell("gate", {**facts, "gate": "test event", "passed": False, "reason": str(error)})
                raise
            for gate in gates:
                reason = str(reasons[gate]).strip()
                self.journal.append("gate_overridden", gate=gate, reason=reason, attempt=attempt)
            passed = [*(row["gate"] for row in plan["gates"]), "test event"]
            why = "; ".join(f"{gate} overridden: {reasons[gate]}" for gate in gates)
            self.change.tell("gate", {**facts, "gate": ", ".join(passed), "passed": True, "reason": why})
            before = take(self.config, self.env_values(), self.services.processes())
            self._record(attempt, before, target)
            self.change.begin(
                attempt,
                target=to,
                new_dsn_sha256=target.fingerprint,
                new_host=target.label,
                stack_id=self.config.stack_id,
                run_id=self.config.run_id,
            )
            try:
                rows = self._switch(attempt, before, target, state.overrides, plan["heard_themselves"])
                result = {**self._finish(attempt, rows, began), **undoing}
            except Exception as error:
                self.change.take_back(partial(self.way_back.put_back, before, ATTEMPT), error, facts)
            self.change.tell(result["state"] if result["state"] == "applied" else "done", {**facts, **told_of(result)})
            if result["state"] == "confirmed":
                self.start_watch(result)
            return result

    def _record(self, attempt: int, before: Before, target: Target) -> None:
        """Keep the state before an attempt, hashes of what it brings, and the configuration that it used."""
        directory = self.store.attempt_directory(attempt)
        private_directory(directory)
        save_before(directory / "before.json", before)
        write_json(
            directory / "after.json",
            {
                "files": {str(path): sha256(dsn.value) for path, dsn in target.files.items()},
                "services": {name: sha256(dsn.value) for name, dsn in target.services.items()},
            },
        )
        write_json(self.config.state_dir / "config.json", dict(self.config.document))

    def _unchanged(self, phase: str, target: Target) -> Result:
        """The rows of the apply that stands, each event looked up again."""
        stored = read_json(self.config.state_dir / "applied.json") or {"services": []}
        for row in stored["services"]:
            sides = target.sides.get(row["name"], ())
            if row["event_id"] and sides and self.host.tracker(sides[0]).event(row["event_id"]) is None:
                row["note"] = "its event is no longer kept"
        return {
            "changed": False,
            "state": "applied" if phase == "applied" else "unchanged",
            "target": target.name,
            "seconds": 0.0,
            "services": stored["services"],
        }

    def _gate(self, target: Target) -> None:
        """Refuse unless a test event sent with each DSN is stored on each side; nothing has been changed yet."""
        for dsn, sides in target.distinct():
            self.host.progress(f"sending a test event to {dsn}")
            event_id = self.host.send_test_event(
                dsn,
                {self.config.service_tag: "ai-admin-cutover"},
                "ai-admin-cutover test event",
                self.host.clock(),
            )
            for side in sides:
                self._await_test_event(side, event_id)

    def _await_test_event(self, side: Side, event_id: str) -> None:
        if self.await_event(side, event_id) is None:
            raise CutoverError(
                f"a test event was accepted, but the {side.name} tracker did not store it within "
                f"{self.config.probe_wait:g} s (does its worker run?); the old DSN stands"
            )

    def _switch(
        self,
        attempt: int,
        before: Before,
        target: Target,
        overrides: tuple[str, ...],
        talking: Mapping[str, float],
    ) -> list[Result]:
        """The acts of one attempt, each journalled first; returns a row a service."""
        if self.config.confirm_window:
            self.host.deadline.arm(attempt, self.config.run_max + self.config.confirm_window)
        began = self.host.clock()
        baseline = self.proving.baseline(target, self.config.services)
        stamp = time.strftime("%Y%m%d-%H%M", time.localtime(self.host.clock()))
        self.services.watched.clear()
        for path in target.files:
            self.env(path).backup(stamp)
        for path, dsn in target.files.items():
            self.journal.append("env_switch", attempt=attempt, file=str(path), host=dsn.netloc)
            self.env(path).replace(dsn.value)
            self.host.progress(f"{path} switched to {dsn.netloc}")
        proofs: dict[str, Proof] = {}
        names = [name for name in self.config.services if name != self.config.canary]
        steps = [[self.config.canary]] if self.config.canary else []
        if self.config.strategy == "one_by_one":
            steps += [[name] for name in self.services.jobs_last(names)]
        elif names:
            steps.append(names)
        for step in steps:
            self._restart(step, target, overrides)
            proofs |= self.prove(step, target, baseline, talking)
        listed = self.services.wait_stable(self.config.services)
        for path, dsn in target.files.items():
            if self.env(path).value() != dsn.value:
                raise CutoverError(f"{path} was changed by somebody else meanwhile")
        for name, expected in self.awaited.record(attempt, began, baseline, proofs, talking).items():
            told = f"has to be heard before confirm: about {expected:g} events expected"
            proofs[name] = replace(proofs[name], note="; ".join(filter(None, (told, proofs[name].note))))
        self.journal.append("pm2_save", attempt=attempt)
        self.host.manager.save()
        return one_per_service(
            [self._row(process, before, target, proofs) for process in listed if is_mine(self.config, process)]
        )

    def _restart(self, names: list[str], target: Target, overrides: tuple[str, ...]) -> None:
        """Restart services, one alone or many together, and see them online and steady."""
        for name in names:
            if name in overrides:
                self.journal.append("override_removed", service=name)
            self.journal.append("restart", service=name)
        self.host.progress(f"restarting {', '.join(names)}")
        wanted = {name: target.services[name].value for name in names}
        if len(names) == 1:
            self.services.restart(names[0], wanted[names[0]])
        elif failed := self.services.restart_together(wanted):
            raise next(iter(failed.values()))
        for name in names:
            self.services.wait_online(name)
        self.services.wait_stable(names)

    def _row(self, process: Process, before: Before, target: Target, proofs: Mapping[str, Proof]) -> Result:
        if process.name in self.config.without_sdk:
            return _row(process.name, "-", "-", Proof("none", note="no SDK"), process.pid, process.pid)
        watched = self.services.watched[process.name]
        pid_before = next((old.pid for old in watched.before if old.pm_id == process.pm_id), 0)
        old, new = shown(before.effective(process.name)), target.services[process.name].netloc
        return _row(process.name, old, new, proofs[process.name], pid_before, process.pid)

    def _finish(self, attempt: int, rows: list[Result], began: float) -> Result:
        window = self.config.confirm_window
        result = {
            "changed": True,
            "state": "applied" if window else "confirmed",
            "target": self.state().target,
            "seconds": round(self.host.monotonic() - began, 1),
            "services": rows,
        }
        write_json(self.config.state_dir / "applied.json", {**result, **self.run_facts(attempt)})
        ends = self.change.finish(attempt, window)
        return result if ends is None else {**result, "confirm_before": ends}

    def start_watch(self, result: Result) -> None:
        """Start the first hour's watch after a switch to the new tracker; that it cannot start undoes nothing."""
        try:
            state = self.state()
            if state.stands != GLITCHTIP or not self.config.watch.seconds:
                return
            facts = {
                "migration_id": self.config.migration_id,
                "attempt": state.attempt,
                "stands": state.stands,
                "confirmed_at": round(self.host.clock()),
            }
            self.host.start_watch(facts)
            result["watch_seconds"] = self.config.watch.seconds
        except Exception as error:
            told = f"the watch of the first hour was not started: {unexpected(error)}"
            self.change.note(told)
            result["notes"] = [*result.get("notes", []), told]


def told_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """What of a result people are told."""
    kept = ("seconds", "confirm_before", "seconds_to_last_restart", "seconds_proof", "unproven")
    return {key: result[key] for key in kept if key in result}


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
