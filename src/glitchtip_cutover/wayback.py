"""The way back: puts a recorded state in place again, whatever the present one is.

Nothing in here needs a tracker, a controller or the new DSN.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from .config import Config
from .dsn import shown
from .envfile import EnvFile
from .errors import CutoverError, IncompleteError
from .host import Host
from .journal import Journal, State, fold
from .pm2 import Process
from .services import Services, of
from .snapshot import Before, Snapshot, pids_of
from .store import Store


class WayBack:
    """Restores ``.env``, PM2's environments and the services of one configuration."""

    def __init__(
        self, config: Config, host: Host, store: Store, journal: Journal, services: Services
    ) -> None:
        self._config = config
        self._host = host
        self._store = store
        self._journal = journal
        self._services = services
        self._env = EnvFile(config.env_file, config.env_key)
        self._snapshots = Snapshot(config.state_dir)

    def put_back(self, before: Before, target: str, reason: str) -> None:
        """The way back itself: ``.env``, PM2 environments, restarts. IncompleteError when parts failed.

        Nothing in here needs a tracker. A failure with one service does not stop the others.
        """
        state = fold(self._journal.records())
        self._store.mark_open(state.attempt)
        self._journal.append("rollback_begin", target=target, reason=reason)
        problems: list[str] = []
        with contextlib.suppress(CutoverError):
            self._host.deadline.disarm()
        self._services.watched.clear()
        self._env.clean()
        self._journal.append("rollback_env", host=shown(before.dsn))
        with _collect_into(problems):
            self._restore_env(before.dsn)
        if not self._host.manager.running:
            with _collect_into(problems):
                self._host.manager.rewrite_dump(
                    self._config.env_key, {name: before.effective(name) for name in before.carried}
                )
        if self._host.manager.running:
            with _collect_into(problems):
                self._restart_back(state, before, target, problems)
        else:
            self._host.progress("PM2 does not run; its services will start with the DSN of before")
        if problems:
            self._journal.append("rollback_incomplete", problems=problems)
            raise IncompleteError("; ".join(problems), {"problems": problems, "state": "rolling_back"})
        self._journal.append("rolled_back", target=target)
        self._store.unmark_open()

    def _restore_env(self, dsn: str) -> None:
        """Set the one value back; a file that can no longer be edited is replaced by the snapshot's bytes."""
        try:
            self._env.replace(dsn)
        except CutoverError as error:
            if not self._snapshots.exists:
                raise
            data, mode, owner = self._snapshots.env()
            if self._config.env_file.exists():
                stamp = time.strftime("%Y%m%d-%H%M", time.localtime(self._host.clock()))
                self._env.backup(stamp, "damaged")
            self._host.progress(f"{error}; the file of the snapshot is put back")
            self._env.restore(data, mode, owner)
            self._env.replace(dsn)
        if self._env.value() != dsn:
            raise CutoverError(f"{self._config.env_file} does not read back as the DSN of before")

    def _restart_back(self, state: State, before: Before, target: str, problems: list[str]) -> None:
        """Restart every service that may have seen another DSN, and see that all of them run."""
        listed = self._services.processes()
        for name in self._services.jobs_last(
            [name for name in self._config.services if name in before.carried]
        ):
            instances = of(listed, name)
            if not instances:
                problems.append(f"{name} is not in PM2's list")
                continue
            if target == "attempt" and not self._touched(before, name, instances):
                continue
            with _collect_into(problems):
                self._journal.append("rollback_restart", service=name)
                self._host.progress(f"restarting {name} on the DSN of before")
                self._services.restart(name, before.effective(name), strict=False)
        for name in tuple(self._services.watched):
            with _collect_into(problems):
                self._services.wait_online(name)
                continue
            del self._services.watched[name]
        with _collect_into(problems):
            self._services.wait_stable(tuple(self._services.watched))
        for process in self._services.processes():
            carried = process.environment.get(self._config.env_key)
            if process.name in before.carried and carried not in (None, before.effective(process.name)):
                problems.append(f"{process.name} still carries another DSN in its PM2 environment")
        if target == "snapshot" or state.saved:
            self._journal.append("rollback_save")
            self._host.manager.save()

    def _touched(self, before: Before, name: str, instances: tuple[Process, ...]) -> bool:
        """Whether a service may have read or been given another DSN: it runs in another process."""
        return pids_of(instances, name) != before.pids[name] or any(
            process.environment.get(self._config.env_key) not in (None, before.effective(name))
            for process in instances
        )


@contextlib.contextmanager
def _collect_into(problems: list[str]) -> Iterator[None]:
    """Collect a failure as a sentence and go on."""
    try:
        yield
    except CutoverError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"unexpected {type(error).__name__}: {error.strerror}")
