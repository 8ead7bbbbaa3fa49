"""What apply would do, in its order, and what stands against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from glitchtip_core.dsn import shown
from glitchtip_core.transaction.state import State

from .api import verify_dsn
from .drift import find_undoing
from .errors import UsageError
from .findings import Finding
from .heard import rates, talkers
from .manager import Process
from .parts import Parts, Result
from .planning import gate_problems, is_mine, order, plan_row, service_problems, strangers
from .pm2 import check_node
from .rehearsal import rehearse
from .rows import one_per_service
from .targets import GLITCHTIP, MIRROR, TARGETS, Target, new_dsn, to_before


class Planning(Parts):
    """The command ``plan``."""

    def plan(self, to: str = GLITCHTIP) -> Result:
        """What apply would do, in its order, and what stands against it; reads only."""
        return self.make_plan(to)[0]

    def make_plan(self, to: str) -> tuple[Result, Target | None, dict[str, str]]:
        """The plan, the target where it can be told, and what the gates say by their names."""
        if to not in TARGETS:
            raise UsageError(f"there is no target {to}; the targets are {' and '.join(TARGETS)}")
        problems: list[str] = []
        notes: list[str] = []
        state = self.state()
        notes += self.see_moved(state)
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
            target = self.collect(problems, lambda: self.target(to))
        values = self.collect(problems, self.env_values) or {}
        listed = self.collect(problems, self.services.processes) or []
        if listed:
            problems += service_problems(self.config, listed)
            notes += strangers(self.config, listed, problems)
        if target is not None and self.config.manager == "pm2":
            self.collect(problems, lambda: check_node(self.config.pm2))
        if target is not None:
            self.collect(problems, self._verify_new)
        if to == MIRROR and target is not None and (stands := self.collect(problems, self.host.mirror_problem)):
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
                row = self.collect(problems, self.env_diff, path, dsn.value)
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
