"""What stands now, and the snapshot of the state before the migration."""

from __future__ import annotations

from pathlib import Path

from glitchtip_core.dsn import parse_dsn, shown
from glitchtip_core.files import read_secret

from .drift import add_drift, find_drift
from .errors import CutoverError
from .manager import Process
from .moved import find_moved
from .parts import Parts, Result
from .planning import is_mine, service_problems
from .rows import one_per_service
from .running import service_processes
from .snapshot import EnvCopy, take


class Standing(Parts):
    """The commands ``status`` and ``snapshot``."""

    def status(self) -> Result:
        """What stands now; reads only, and neither the manager nor a tracker has to answer."""
        state = self.state()
        problems = list(state.problems)
        notes = self.see_moved(state)
        result: Result = {
            "changed": False,
            "migration_id": self.config.migration_id,
            "state": state.phase,
            "attempt": state.attempt,
            "target": state.target,
            "stands": state.stands,
            "at_origin": state.at_origin,
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
            value = self.collect(problems, self.env_value, path)
            hosts[path] = shown(value)
        result["env_dsn_host"] = hosts[self.config.env_files[0]]
        result["env_files"] = [{"path": str(path), "dsn_host": host} for path, host in hosts.items()]
        result["pm2_running"] = result["manager_running"] = self.host.manager.running
        listed: list[Process] = []
        if result["manager_running"]:
            listed = self.collect(problems, self.services.processes) or []
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
        found = self.collect(problems, lambda: find_drift(self.config, self.host, state, listed))
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

    def snapshot(self) -> Result:
        """Record the state of before the migration, once. A repeat records a ``.env`` anew that a deploy moved meanwhile."""
        if self.snapshots.exists:
            changed = False
            if not self.reserve.is_whole or find_moved(self.config, self.snapshots, self.state()):
                with self.store.lock():
                    changed = self.reserve.set_aside()
                    changed = self.record_moved() or changed
            return {"changed": changed, "path": str(self.snapshots.path), **self.snapshots.facts()}
        with self.store.lock():
            self.store.clean()
            self.reserve.set_aside()
            values = self.env_values()
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
