"""The way back: puts a recorded state in place again, whatever the present one is.

Nothing in here needs a tracker, a controller, a network or the new DSN, and nothing waits for systemd before the
last service was restarted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from .config import Config
from .dsn import shown
from .envfile import EnvFile
from .errors import CutoverError, IncompleteError, unexpected
from .host import Host
from .journal import Journal, State, fold
from .manager import Process
from .services import Services, of
from .snapshot import Before, Snapshot, pids_of
from .store import Store


class WayBack:
    """Restores every ``.env``, the manager's environments and the services of one configuration.

    ``restarted_at`` is when the last service of the last way back was online again (monotonic seconds).
    """

    def __init__(
        self, config: Config, host: Host, store: Store, journal: Journal, services: Services
    ) -> None:
        self._config = config
        self._host = host
        self._store = store
        self._journal = journal
        self._services = services
        self._snapshots = Snapshot(config.state_dir)
        self.restarted_at: float = 0.0

    def put_back(self, before: Before, target: str, reason: str) -> None:
        """The way back itself: ``.env`` files, environments, restarts. IncompleteError when parts failed.

        A failure with one service does not stop the others.
        """
        state = fold(self._journal.records())
        self._store.mark_open(state.attempt)
        self._journal.append("rollback_begin", target=target, reason=reason)
        problems: list[str] = []
        self._services.watched.clear()
        self.clean_files()
        for path in self._config.env_files:
            with collect_into(problems):
                value = before.value(path)
                self._journal.append("rollback_env", file=str(path), host=shown(value))
                self.restore_env(path, value)
        running = self._host.manager.running
        if running:
            with collect_into(problems):
                self._restart_back(state, before, target, problems)
        else:
            with collect_into(problems):
                self._host.manager.rewrite_dump(
                    self._config.env_key, {name: before.effective(name) for name in before.carried}
                )
            self._host.progress("the services do not run yet; they will start with the DSN of before")
        self.restarted_at = self.restarted_at if running else self._host.monotonic()
        if problems:
            self._journal.append("rollback_incomplete", problems=problems)
            raise IncompleteError("; ".join(problems), {"problems": problems, "state": "rolling_back"})
        if not running:
            self._store.mark_verify({"event": "rolled_back", "reason": reason, "target": target})
        self._journal.append("rolled_back", target=target)
        self._store.unmark_open()
        with contextlib.suppress(CutoverError):
            self._host.deadline.disarm()

    def env(self, path: Path) -> EnvFile:
        """The editor of one ``.env``, which must be where it was at the snapshot."""
        return EnvFile(path, self._config.env_key, self._snapshots.place(path))

    def clean_files(self) -> None:
        """Remove what an interrupted write may have left beside the ``.env`` files, and in the state directory.

        What cannot be removed stops nothing.
        """
        with collect_into([]):
            self._store.clean()
        for path in self._config.env_files:
            with collect_into([]):
                self.env(path).clean()

    def restore_env(self, path: Path, dsn: str) -> None:
        """Set the one value back; a file that can no longer be edited is replaced by the snapshot's bytes."""
        env = self.env(path)
        try:
            env.replace(dsn)
        except CutoverError as error:
            if not self._snapshots.exists:
                raise
            copy = self._snapshots.env(path)
            self._host.progress(f"{error}; the file of the snapshot is put back")
            stamp = time.strftime("%Y%m%d-%H%M", time.localtime(self._host.clock()))
            env.put_back(copy.data, copy.mode, copy.owner, stamp)
            env.replace(dsn)
        if env.value() != dsn:
            raise CutoverError(f"{path} does not read back as the DSN of before")

    def _restart_back(self, state: State, before: Before, target: str, problems: list[str]) -> None:
        """Restart every service that may have seen another DSN, together, and see that all of them run."""
        listed = self._services.processes()
        wanted: dict[str, str] = {}
        for name in [name for name in self._config.services if name in before.carried]:
            instances = of(listed, name)
            if not instances:
                problems.append(f"the service {name} is not there any more")
            elif target == "snapshot" or self._touched(before, name, instances):
                self._journal.append("rollback_restart", service=name)
                wanted[name] = before.effective(name)
        self.restart_together(wanted, problems)
        for process in self._services.processes():
            carried = process.environment.get(self._config.env_key)
            if process.name in before.carried and carried not in (None, before.effective(process.name)):
                problems.append(f"{process.name} is still given another DSN by its manager")
        if target == "snapshot" or state.saved:
            self._journal.append("rollback_save")
            self._host.manager.save()

    def restart_together(self, wanted: dict[str, str], problems: list[str]) -> None:
        """Restart the services of ``wanted`` on those DSNs, and see them online and steady."""
        if wanted:
            self._host.progress(f"restarting {', '.join(wanted)} on the DSN of before")
        problems += [str(error) for error in self._services.restart_together(wanted, strict=False).values()]
        for name in tuple(self._services.watched):
            with collect_into(problems):
                self._services.wait_online(name)
                continue
            self._services.watched.pop(name, None)
        self.restarted_at = self._host.monotonic()
        with collect_into(problems):
            self._services.wait_stable(tuple(self._services.watched))

    def _touched(self, before: Before, name: str, instances: tuple[Process, ...]) -> bool:
        """Whether a service may have read or been given another DSN: it runs in another process."""
        return pids_of(instances, name) != before.pids[name] or any(
            process.environment.get(self._config.env_key) not in (None, before.effective(name))
            for process in instances
        )


@contextlib.contextmanager
def collect_into(problems: list[str]) -> Iterator[None]:
    """Collect a failure as a sentence and go on."""
    try:
        yield
    except Exception as error:
        problems.append(unexpected(error))
