"""The switch and its way back: plan, apply, confirm, rollback, recover.

Every act is journalled before it begins; whatever stops a run, the journal and the recorded states tell the
next run what has to be put back. States: none -> applying -> applied (provisional) -> confirmed, and from
each of them -> rolling_back -> rolled_back. What stands is before, mirror or glitchtip; a failed attempt
restores what stood before it, a rollback always leads to before the migration.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from glitchtip_core.dsn import Dsn, parse_dsn, shown
from glitchtip_core.files import private_directory, read_json, read_secret, write_json
from glitchtip_core.foreign_paths import Place

from .api import Event, await_event, verify_dsn
from .awaited import Awaited
from .bookkeeping import Bookkeeping
from .config import Config, Side
from .containment import contain_host
from .contract import accountable
from .drift import add_drift, find_drift, find_undoing
from .envfile import EnvFile
from .errors import (
    BusyError,
    CutoverError,
    IncompleteError,
    InterruptedRunError,
    RolledBackError,
    ServiceError,
    UnprovenError,
    UnprovenServiceError,
    UnrecordedError,
    UsageError,
    unexpected,
)
from .findings import Finding
from .heard import Attribution, rates, talkers
from .host import Host
from .journal import Journal, State, fold
from .limits import FILE, MARGIN, NOTIFYING
from .manager import Process
from .moved import find_moved, record_moved
from .override import Override
from .planning import env_diff, gate_problems, is_mine, order, plan_row, service_problems, strangers
from .pm2 import check_node
from .proof import SERVER_TAG, Proof, environment_problem
from .proving import Proving
from .rehearsal import ACCEPT, rehearse
from .reserve import Reserve
from .rows import one_per_service
from .running import service_processes
from .services import Services, of
from .snapshot import Before, EnvCopy, Snapshot, load_before, save_before, take
from .store import Store
from .targets import GLITCHTIP, MIRROR, TARGETS, Target, new_dsn, sha256, to_before, to_glitchtip, to_mirror
from .wayback import WayBack

Result = dict[str, Any]
_T = TypeVar("_T")
# All services of a rollback are proven within this time, or said to be unproven.
ROLLBACK_PROOF = 60.0
# A confirm that waits for events ends that many seconds before the window does, and asks in between.
_CONFIRM_MARGIN = 10.0
_CONFIRM_POLL = 5.0
_UNPROVEN = "back on its DSN of before the migration, but unproven"


class Cutover:
    """All commands for one configuration. Each returns a result without secrets or raises CutoverError."""

    def __init__(self, config: Config, host: Host) -> None:
        self.config = config
        host = self.host = contain_host(host)
        self.snapshots = Snapshot(config.state_dir)
        self._moved: dict[Path, Place] = {}
        self.journal = Journal(config.state_dir / "journal.jsonl", host.clock, host.observer)
        self.services = Services(config, host.manager, monotonic=host.monotonic, sleep=host.sleep)
        self.store = Store(config.state_dir, monotonic=host.monotonic, sleep=host.sleep)
        self.proving = Proving(config, host, self.services)
        self.awaited = Awaited(config, host, self.store, self.journal, self.services)
        self.reserve = Reserve(config.state_dir)
        self.books = Bookkeeping(self.store, self.journal, self.reserve, host.progress)
        self.way_back = WayBack(config, host, self.store, self.books, self.services)
        self.override = Override(config, host, self.books, self.services, self.way_back)

    def env(self, path: Path) -> EnvFile:
        """The editor of one ``.env``, which must be where it was at the snapshot, or may be recorded anew."""
        return EnvFile(path, self.config.env_key, self._moved.get(path) or self.snapshots.place(path))

    def _see_moved(self, state: State) -> list[str]:
        """From now on look for each ``.env`` where it would be recorded anew; a note about each of them."""
        moved = find_moved(self.config, self.snapshots, state)
        self._moved = {copy.path: copy.place for copy in moved if copy.place}
        return [
            f"{path} is really {place.path} now, in another directory than the one that was recorded. It still holds its DSN of "
            "before, so the next apply or snapshot records it anew"
            for path, place in self._moved.items()
        ]

    def _record_moved(self) -> bool:
        """Record each ``.env`` anew that a deploy moved while nothing is switched; whether there was one. Raises CutoverError."""
        moved = find_moved(self.config, self.snapshots, self.state())
        record_moved(self.snapshots, self.journal, moved)
        self._moved = {}
        return bool(moved)

    # ------------------------------------------------------------------ what stands

    def state(self) -> State:
        """The state that the journal tells."""
        return fold(self.journal.records())

    def target(self, name: str) -> Target:
        """The DSNs of glitchtip, mirror or before. Raises CutoverError when they cannot be told yet."""
        if name == GLITCHTIP:
            return to_glitchtip(self.config)
        if name == MIRROR:
            return to_mirror(self.config, self.snapshots.before())
        return to_before(self.config, self.snapshots.before())

    def status(self) -> Result:
        """What stands now; reads only, and neither the manager nor a tracker has to answer."""
        state = self.state()
        problems = list(state.problems)
        notes = self._see_moved(state)
        result: Result = {
            "changed": False,
            "migration_id": self.config.migration_id,
            "state": state.phase,
            "attempt": state.attempt,
            "target": state.target,
            "stands": state.stands,
            "stack_id": state.stack_id,
            "overrides": list(state.overrides),
            "overriding": state.overriding,
            "open": self.store.open_marker.exists(),
            "to_verify": self.store.to_verify() is not None,
            "confirm_before": state.deadline,
            "snapshot": self.snapshots.exists,
            "problems": problems,
        }
        hosts = {}
        for path in self.config.env_files:
            value = self._collect(problems, lambda path=path: self.env(path).value())  # type: ignore[misc]
            hosts[path] = shown(value)
        result["env_dsn_host"] = hosts[self.config.env_files[0]]
        result["env_files"] = [{"path": str(path), "dsn_host": host} for path, host in hosts.items()]
        result["pm2_running"] = result["manager_running"] = self.host.manager.running
        listed: list[Process] = []
        if result["manager_running"]:
            listed = self._collect(problems, self.services.processes) or []
        rows = [
            {
                "name": process.name,
                "status": process.status,
                "pid": process.pid,
                "pm2_dsn_host": shown(process.environment.get(self.config.env_key)),
                "process_dsn_host": self._process_dsn_host(process),
                "override": process.name in state.overrides,
            }
            for process in listed
            if process.name in self.config.services
        ]
        result["services"] = one_per_service(rows)
        found = self._collect(problems, lambda: find_drift(self.config, self.host, state, listed))
        add_drift(result, *(found or ([], [])))
        result["notes"] = [*notes, *result["notes"]]
        return result

    def _process_dsn_host(self, process: Process) -> str:
        """Host of the DSN in the environment of a service's running process; ``-`` where that holds none."""
        try:
            found = service_processes(process.name, process.pid, process.command) if process.online else []
        except CutoverError:
            return "unknown"
        values = [running.environment.get(self.config.env_key) for running, _ in found]
        return ", ".join(dict.fromkeys(shown(value) for value in values)) or "-"

    # ------------------------------------------------------------------ snapshot

    def snapshot(self) -> Result:
        """Record the state of before the migration, once. A repeat records a ``.env`` anew that a deploy moved meanwhile."""
        if self.snapshots.exists:
            changed = False
            if not self.reserve.is_whole or find_moved(self.config, self.snapshots, self.state()):
                with self.store.lock():
                    changed = self.reserve.set_aside()
                    changed = self._record_moved() or changed
            return {"changed": changed, "path": str(self.snapshots.path), **self.snapshots.facts()}
        with self.store.lock():
            self.store.clean()
            self.reserve.set_aside()
            values = self._env_values()
            for path, value in values.items():
                self._refuse_switched(path, value)
            listed = self.services.processes()
            if problems := service_problems(self.config, listed):
                raise CutoverError(problems[0], {"problems": problems})
            before = take(self.config, values, listed)
            copies = []
            for path in self.config.env_files:
                seen, place = self.env(path).copy()
                copies.append(EnvCopy(path, seen.data, seen.mode, seen.owner, place))
            facts = {
                "migration_id": self.config.migration_id,
                "recorded_at": round(self.host.clock()),
                "dsn_host": parse_dsn(before.dsn).netloc,
                "manager": self.host.manager.recorded(),
                "services": one_per_service(
                    [
                        {
                            "name": process.name,
                            "status": process.status,
                            "dsn_host": "-"
                            if process.name in self.config.without_sdk
                            else shown(before.effective(process.name)),
                        }
                        for process in listed
                        if is_mine(self.config, process)
                    ]
                ),
            }
            self.snapshots.write(copies, before, facts, self.config.document)
            return {"changed": True, "path": str(self.snapshots.path), **self.snapshots.facts()}

    def _refuse_switched(self, path: Path, value: str) -> None:
        """Raise when the ``.env`` at ``path`` already holds the new DSN or that of the mirror."""
        dsn = parse_dsn(value, f"the value of {self.config.env_key} in {path}")
        told = "so this is not the state before the migration"
        if self.config.mirror.listen.endswith(f"://{dsn.netloc}"):
            raise CutoverError(f"{path} holds the DSN of the mirror already, {told}")
        for name in self.config.sharing(path):
            side = self.config.side_for(name)
            if side is not None and side.dsn_file is not None and side.dsn_file.is_file():
                fresh = parse_dsn(read_secret(side.dsn_file, "the new DSN"), "the new DSN")
                if fresh.key == dsn.key:
                    raise CutoverError(f"{path} holds the new DSN already, {told}")

    # ------------------------------------------------------------------ plan

    def plan(self, to: str = GLITCHTIP) -> Result:
        """What apply would do, in its order, and what stands against it; reads only."""
        return self._plan(to)[0]

    def _plan(self, to: str) -> tuple[Result, Target | None, dict[str, str]]:
        """The plan, the target where it can be told, and what the gates say by their names."""
        if to not in TARGETS:
            raise UsageError(f"there is no target {to}; the targets are {' and '.join(TARGETS)}")
        problems: list[str] = []
        notes: list[str] = []
        state = self.state()
        notes += self._see_moved(state)
        if not self.snapshots.exists:
            problems.append(
                "there is no snapshot of the state before the migration; run snapshot (phase 0) first"
            )
        else:
            problems += self.snapshots.before().missing(self.config)
        if state.phase in ("applying", "rolling_back"):
            problems.append(f"a change is still open ({state.phase}); run rollback first")
        elif state.overriding:
            problems.append(f"the rollback of {state.overriding} alone is still open; run recover first")
        target: Target | None = None
        if not (to == MIRROR and problems):
            target = self._collect(problems, lambda: self.target(to))
        values = self._collect(problems, self._env_values) or {}
        listed = self._collect(problems, self.services.processes) or []
        if listed:
            problems += service_problems(self.config, listed)
            notes += strangers(self.config, listed, problems)
        if target is not None and self.config.manager == "pm2":
            self._collect(problems, lambda: check_node(self.config.pm2))
        if target is not None:
            self._collect(problems, self._verify_new)
        if to == MIRROR and target is not None and (stands := self._collect(problems, self.host.mirror_problem)):
            problems.append(stands)
        done = target is not None and bool(values) and self._settled(state, listed, target, values)
        if state.phase == "applied" and not done:
            problems.append(f"attempt {state.attempt} waits for confirm; confirm it or roll it back first")
        talking: dict[str, float] = {}
        if target is not None and listed and not done:
            talking = self._talking(listed, target)
            found, remarks = rehearse(self.config, self.host, listed, talking)
            problems += found
            notes += remarks
        gates = {} if done else gate_problems(self.config, to, self.host.clock())
        diff: list[Result] = []
        if target is not None:
            for path, dsn in target.files.items():
                row = self._collect(problems, lambda p=path, d=dsn: env_diff(self.env(p), d.value))  # type: ignore[misc]
                diff += [row] if row else []
        undoing: list[Finding] = []
        if target is not None:
            undoing, told = find_undoing(self.config, self.host, target, listed)
            notes += told
        sources = {unit.name: unit.env_file for unit in self.config.units}
        jobs = {process.name for process in listed if process.cron_job}
        result: Result = {
            "changed": False,
            "would_change": not done,
            "state": state.phase,
            "stands": state.stands,
            "target": to,
            "overrides": list(state.overrides),
            "ready": not problems and not gates,
            "env_file": str(self.config.env_files[0]),
            "old": shown(values.get(self.config.env_files[0])),
            "new": target.label if target else "-",
            "services": one_per_service(
                [
                    plan_row(self.config, process, values.get(sources.get(process.name, Path())), target, done)
                    for process in listed
                    if is_mine(self.config, process)
                ]
            ),
            "strategy": self.config.strategy,
            "heard_themselves": talking,
            "order": []
            if done
            else order(self.config, sorted(self.config.services, key=lambda name: name in jobs), talking),
            "diff": diff,
            "gates": [
                {"gate": name, "passed": name not in gates, "reason": gates.get(name, "")}
                for name, wanted in (
                    ("window", self.config.window is not None),
                    ("verdict", self.config.verdict is not None and to == GLITCHTIP),
                )
                if wanted and not done
            ],
            "problems": list(dict.fromkeys([*problems, *gates.values()])),
            "notes": notes,
            "drift": [asdict(finding) for finding in undoing],
        }
        return result, target, gates

    def _talking(self, listed: list[Process], target: Target) -> dict[str, float]:
        """Services that have to be heard themselves, by what the trackers that can be read hold of the last day."""
        sides = [side for name in target.sides for side in target.sides[name]]
        if self.snapshots.exists:
            sides += [
                side
                for found in to_before(self.config, self.snapshots.before()).sides.values()
                for side in found
            ]
        counted = rates(self.config, self.host, listed, dict.fromkeys(sides))
        return talkers(self.config, counted, listed, self.host.clock())

    @staticmethod
    def _collect(problems: list[str], read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except CutoverError as error:
            problems.append(str(error))
            return None

    def _env_values(self) -> dict[Path, str]:
        """The DSN in each ``.env``."""
        values = {path: self.env(path).value() for path in self.config.env_files}
        for path, value in values.items():
            parse_dsn(value, f"the value of {self.config.env_key} in {path}")
        return values

    def _verify_new(self) -> None:
        """See by reads alone that every new DSN belongs to its project of the new tracker."""
        for dsn, side in dict.fromkeys(new_dsn(self.config, name) for name in self.config.services):
            verify_dsn(self.host.tracker(side), dsn)

    def _settled(
        self, state: State, listed: list[Process], target: Target, values: Mapping[Path, str]
    ) -> bool:
        """Whether an earlier apply has brought everything onto these very DSNs."""
        if state.phase not in ("applied", "confirmed", "rolled_back") or state.overrides or state.overriding:
            return False
        return (
            state.stands == target.name
            and state.stands_sha256 == target.fingerprint
            and all(values.get(path) == dsn.value for path, dsn in target.files.items())
            and all(
                process.environment.get(self.config.env_key) in (None, target.services[process.name].value)
                for process in listed
                if process.name in target.services
            )
        )

    # ------------------------------------------------------------------ notes and notifications

    def tell(self, event: str, facts: Mapping[str, Any]) -> list[str]:
        """Notify people; what went wrong with that is returned and noted in the journal, and stops nothing."""
        try:
            with self.host.limit(NOTIFYING, "the notification"):
                problems = self.host.notify(event, {"migration_id": self.config.migration_id, **facts})
        except Exception as error:
            problems = [unexpected(error)]
        notes = [f"notification {event}: {problem}" for problem in problems]
        for note in notes:
            self._note(note)
        return notes

    def _note(self, text: str) -> None:
        self.host.progress(text)
        try:
            self.journal.append("note", text=text)
        except CutoverError as error:
            self.host.progress(str(error))

    @contextmanager
    def _alone(
        self, command: str, *, wait: float = 0.0, unattended: bool = False, restores: bool = False
    ) -> Iterator[None]:
        """Hold the lock, and hold the command to what it may end as (see ``contract``).

        ``restores``: the command restores what was recorded before. It runs even where nothing can be locked, and
        that is a problem to report at its end.
        """
        with ExitStack() as stack:
            self.books.begin(restores=restores)
            try:
                with self.host.limit(wait + MARGIN, "waiting for the lock"):
                    stack.enter_context(self.store.lock(wait=wait))
            except (BusyError, InterruptedRunError):
                raise
            except CutoverError as error:
                if not restores:
                    raise
                self.books.add(str(error))
            stack.enter_context(
                accountable(command, self.journal, self.store, self.tell, unattended=unattended)
            )
            yield

    # ------------------------------------------------------------------ apply

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
        with self._alone("apply"):
            self.store.clean()
            self._record_moved()
            plan, target, gates = self._plan(to)
            closed = {gate: why for gate, why in gates.items() if reasons[gate] is None}
            problems = [text for text in plan["problems"] if text not in gates.values()]
            problems += closed.values()
            if problems or target is None:
                if closed and len(problems) == len(closed):
                    told = {"gate": ", ".join(closed), "passed": False, "reason": problems[0]}
                    self.tell("gate", {"target": to, **told})
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
            self.tell("start", facts)
            try:
                self._gate(target)
            except CutoverError as error:
                self.tell("gate", {**facts, "gate": "test event", "passed": False, "reason": str(error)})
                raise
            for gate in gates:
                reason = str(reasons[gate]).strip()
                self.journal.append("gate_overridden", gate=gate, reason=reason, attempt=attempt)
            passed = [*(row["gate"] for row in plan["gates"]), "test event"]
            why = "; ".join(f"{gate} overridden: {reasons[gate]}" for gate in gates)
            self.tell("gate", {**facts, "gate": ", ".join(passed), "passed": True, "reason": why})
            before = take(self.config, self._env_values(), self.services.processes())
            self._record(attempt, before, target)
            self.store.mark_open(attempt)  # before the journal: the recovery unit looks only where it is
            try:
                self.journal.append(
                    "apply_begin",
                    attempt=attempt,
                    target=to,
                    new_dsn_sha256=target.fingerprint,
                    new_host=target.label,
                    stack_id=self.config.stack_id,
                    run_id=self.config.run_id,
                )
            except Exception:
                if self.state().attempt != attempt:
                    self.store.unmark_open()
                raise
            try:
                rows = self._switch(attempt, before, target, state.overrides, plan["heard_themselves"])
                result = {**self._finish(attempt, rows, began), **undoing}
            except Exception as error:
                self._take_back(before, error, facts)
                raise AssertionError("unreachable") from error
            self.tell(result["state"] if result["state"] == "applied" else "done", {**facts, **_told(result)})
            if result["state"] == "confirmed":
                self._watch(result)
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
        if self._await(side, event_id) is None:
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
            proofs |= self._prove(step, target, baseline, talking)
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
        write_json(self.config.state_dir / "applied.json", {**result, **self._run(attempt)})
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

    def _run(self, attempt: int) -> Result:
        """What a kept result names: the migration, its attempt, and the stack that it is about."""
        return {
            "migration_id": self.config.migration_id,
            "attempt": attempt,
            "stack_id": self.config.stack_id,
            "run_id": self.config.run_id,
        }

    def _take_back(self, before: Before, error: Exception, facts: Mapping[str, Any]) -> None:
        """After a failed apply: put the state of before it back and raise what has to be told."""
        reason = unexpected(error)
        self.host.progress(f"rolling back: {reason}")
        try:
            self.way_back.put_back(before, "attempt", reason)
            stands = self.state().stands
        except UnrecordedError as failure:
            self.tell("incomplete", {**facts, "reason": reason, **failure.details})
            raise UnrecordedError(f"{reason}; {failure}", failure.details) from error
        except Exception as failure:
            told = unexpected(failure)
            details = failure.details if isinstance(failure, IncompleteError) else {"problems": [told]}
            self.tell("incomplete", {**facts, "reason": reason, **details})
            raise IncompleteError(f"{reason}; and the rollback is incomplete: {told}", details) from error
        self.tell("rolled_back", {**facts, "reason": reason, "stands": stands})
        raise RolledBackError(
            f"{reason}; the state of before is back", {"state": "rolled_back", "changed": False}
        ) from error

    # ------------------------------------------------------------------ proof

    def _prove(
        self, names: list[str], target: Target, baseline: set[str], talking: Mapping[str, float]
    ) -> dict[str, Proof]:
        """Prove every named service; raises ServiceError at the first that is not on its DSN."""
        proofs: dict[str, Proof] = {}
        for name, found in self.proving.outcomes(names, target, baseline):
            outcome = self._without_proof(name, found, talking) if isinstance(found, CutoverError) else found
            if outcome.kind != "own_event":
                self._see_that_none_goes_astray(name, target, outcome.event_id)
                if name in talking and not self.config.confirm_window:
                    self._accept(
                        name, f"about {talking[name]:g} events of {name} were expected, and none arrived"
                    )
            if target.name == MIRROR and len(target.sides[name]) == 1:
                note = "; ".join(filter(None, (outcome.note, "the old side accepted, not read back")))
                outcome = replace(outcome, note=note)
            self.journal.append("proved", service=name, proof=outcome.kind, event_id=outcome.event_id)
            self.host.progress(f"{name}: {outcome.kind} {outcome.event_id}")
            proofs[name] = outcome
        return proofs

    def _without_proof(self, name: str, error: CutoverError, talking: Mapping[str, float]) -> Proof:
        """What to record for a service that no probe can prove: it is accepted by its name, or is to be heard.

        Raises the error where neither holds.
        """
        if not isinstance(error, UnprovenServiceError):
            raise error
        if name in talking and self.config.confirm_window and name not in self.config.accept_unproven:
            return Proof("none", note=str(error))
        self._accept(name, str(error))
        return Proof("none", note=f"accepted as unproven: {error}")

    def _accept(self, name: str, reason: str) -> None:
        """Journal that a service is accepted without a proof. Raises UnprovenServiceError where nobody accepts it."""
        if name not in self.config.accept_unproven:
            raise UnprovenServiceError(f"{reason}; {ACCEPT}")
        self.journal.append("unproven_accepted", service=name, reason=reason)

    def _see_that_none_goes_astray(self, name: str, target: Target, probe: str) -> None:
        """A probe speaks for a service's settings, not for its code: nothing that it reported since its restart may be at the old tracker alone.

        A job that rests has not been restarted, what its last run reported may be there. Which name the service gives its server, where
        its code sets one, is seen in the probe's event. Raises ServiceError. An old tracker that cannot be asked is no reason against
        the switch.
        """
        listed = self.services.processes()
        attribution = Attribution(self.config, listed)
        running = [found for found in listed if found.name == name and found.online]
        new = target.sides[name][0]
        old = [side for side in to_before(self.config, self.snapshots.before()).sides[name] if side != new]
        if not running or not old:
            return
        stood_in = self.host.tracker(new).event(probe) if probe else None
        servers = {stood_in.tags[SERVER_TAG]} if stood_in and SERVER_TAG in stood_in.tags else set()
        for side in old:
            try:
                events = self.host.tracker(side).recent_events()
            except CutoverError as error:
                self.host.progress(f"{error}; whether {name} still reports there was not seen")
                continue
            for process in running:
                own = attribution.find(events, [process], (), self.host.tracker(side).event, servers)
                if own and not (side in target.sides[name] and self._await(new, own.event_id)):
                    raise ServiceError(
                        f"{name} still reports to the {side.name} tracker alone: its event {own.event_id} arrived there after its restart, "
                        f"so its code sets the DSN itself, whatever {self.config.env_key} says"
                    )

    def _await(self, side: Side, event_id: str) -> Event | None:
        """The event, once that tracker has it; behind the mirror what reached one side is about to reach the other."""
        return await_event(
            self.host.tracker(side),
            event_id,
            self.config.probe_wait,
            monotonic=self.host.monotonic,
            sleep=self.host.sleep,
        )

    # ------------------------------------------------------------------ confirm

    def confirm(self, wait: float = 0.0) -> Result:
        """Close an applied change; refuses when reality is not what was applied. Repeatable.

        Services that report often have to have been heard themselves; ``wait`` is how many seconds may be spent on
        that, but never more than the confirm window has left.
        """
        until = self.host.monotonic() + wait
        while True:
            with self._alone("confirm"):
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
                self._see_that_none_goes_astray(row["name"], target, row.get("event_id", ""))
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
        for close in (self.store.unmark_open, self.host.deadline.disarm):
            try:
                close()
            except Exception as error:  # it is confirmed: neither the mark nor the timer takes it back any more
                result["notes"] = [*result.get("notes", []), unexpected(error)]
                self._note(f"after the confirm: {unexpected(error)}")
        self.tell("done", {"target": state.target, "attempt": state.attempt})
        self._watch(result)
        return result

    def _check_applied(self, state: State, listed: list[Process]) -> None:
        """Raise when a file or a service no longer has what was applied; services put back alone are left out."""
        stored = read_json(self.store.attempt_directory(state.attempt) / "after.json")
        if not isinstance(stored, dict):  # an attempt of before hashes were kept for each file
            stored = {"files": {str(self.config.env_file): state.new_dsn_sha256}, "services": {}}
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

    def _rows_of(self, name: str) -> list[Result]:
        """The rows of an earlier result, to show; none where its file cannot be read."""
        try:
            stored = read_json(self.config.state_dir / name)
        except CutoverError:
            return []
        rows = stored.get("services") if isinstance(stored, dict) else None
        return rows if isinstance(rows, list) else []

    def _applied_rows(self) -> list[Result]:
        """The rows of the change that was applied last."""
        stored = read_json(self.config.state_dir / "applied.json")
        rows = stored.get("services") if isinstance(stored, dict) else None
        return [row for row in rows or [] if isinstance(row, dict) and "name" in row]

    def _watch(self, result: Result) -> None:
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
            self._note(told)
            result["notes"] = [*result.get("notes", []), told]

    # ------------------------------------------------------------------ rollback

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
        unattended = unconfirmed_attempt is not None
        with self._alone(
            "rollback", wait=120.0 if unattended else 0.0, unattended=unattended, restores=True
        ):
            if unconfirmed_attempt is not None:
                state = self.state()
                if not state.open or state.attempt != unconfirmed_attempt:
                    return {"changed": False, "state": state.phase, "services": []}
                return self._recover(state, "it was not confirmed in time")
            self.way_back.clean_files()
            with suppress(CutoverError), self.host.limit(FILE, "looking where .env is"):
                self._record_moved()
            with self.host.limit(FILE, "reading the snapshot"):
                before = self.snapshots.before()
            if service is not None:
                return self._roll_back_one(self.state(), before, service, reason)
            known = self.books.state()  # without it everything is restored
            if known is not None and self._stands(known, before):
                self.way_back.raise_unrecorded()
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
        if state.open or state.phase == "confirmed" or state.overriding or state.stands != "before":
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

    def _roll_back_all(self, before: Before, reason: str) -> Result:
        began = self.host.monotonic()
        try:
            self.way_back.put_back(before, "snapshot", reason)
        except UnrecordedError as error:
            self.host.progress(str(error))  # everything is back: it is proven all the same, and raised at the end
        except IncompleteError as error:
            self.tell("incomplete", {"reason": reason, **error.details})
            raise
        names = [name for name in self.config.services if name in self.services.watched]
        result = self._rollback_result(names, before, began)
        rows: list[Result] = result["services"]
        rows += [
            {"name": name, "dsn_host": "-", "proof": "none", "event_id": "", "seconds": 0.0, "note": "no SDK"}
            for name in self.config.without_sdk
        ]
        state = self.books.state() or State()
        self.books.write(self.config.state_dir / "rolled_back.json", {**result, **self._run(state.attempt)})
        self._end_rollback(result, {"reason": reason, "stands": "before"})
        if result["unproven"]:
            raise UnprovenError(f"every service is {_UNPROVEN}: {result['unproven'][0]}", result)
        return result

    def _end_rollback(self, result: Result, facts: Mapping[str, Any]) -> None:
        """Notify people of what is restored. Raises UnrecordedError, with the result, where records are missing."""
        try:
            self.way_back.raise_unrecorded()
        except UnrecordedError as error:
            told = {**facts, **_told(result), **error.details, "reason": str(error)}
            result["notes"] = self.tell("incomplete", told)
            raise UnrecordedError(str(error), {**result, **error.details}) from None
        result["notes"] = self.tell("rolled_back", {**facts, **_told(result)})

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
            self.tell("incomplete", {"reason": str(error)})
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

    # ------------------------------------------------------------------ recover

    def recover(self) -> Result:
        """Take back what an interrupted run left open (at boot, or after its process was killed)."""
        with self._alone("recover", wait=60.0, unattended=True, restores=True):
            state = self.state()
            self.way_back.clean_files()
            if state.open:
                return self._recover(state, f"the run was interrupted while {state.phase}")
            if state.overriding:
                return self._recover_override(state)
            changed = self.store.open_marker.exists()
            self.books.unmark_open()
            self.way_back.raise_unrecorded()
            return {"changed": changed, "state": state.phase, "services": []}

    def _recover_override(self, state: State) -> Result:
        running = self.host.manager.running
        try:
            done = self.override.recover(state, self.snapshots.before())
        except IncompleteError as error:
            self.tell("incomplete", {"reason": str(error)})
            raise
        if not running:
            self.books.mark_verify({"event": "rolled_back", "reason": done, "target": "service"})
            self.way_back.raise_unrecorded()
        after = self.state()
        return {
            "changed": True,
            "state": after.phase,
            "reason": done,
            "overrides": list(after.overrides),
            "services": [],
        }

    def _recover(self, state: State, reason: str) -> Result:
        if state.phase == "rolling_back" and state.rollback_target == "snapshot":
            before, target = self.snapshots.before(), "snapshot"
        else:
            path = self.store.attempt_directory(state.attempt) / "before.json"
            before, target = load_before(path), "attempt"
        running = self.host.manager.running
        try:
            self.way_back.put_back(before, target, reason)
        except IncompleteError as error:
            if running or isinstance(error, UnrecordedError):  # else the verify unit notifies, if its mark could be left
                self.tell("incomplete", {**error.details, "reason": f"{reason}; {error}"})
            raise
        stands = self.state().stands
        if running:  # at boot there may be no network yet, and services wait: verify tells it
            self.tell("rolled_back", {"reason": reason, "stands": stands, "attempt": state.attempt})
        return {"changed": True, "state": "rolled_back", "stands": stands, "reason": reason, "services": []}


def _told(result: Mapping[str, Any]) -> dict[str, Any]:
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
