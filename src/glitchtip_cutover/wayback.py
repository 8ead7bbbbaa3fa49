"""The way back: puts a recorded state in place again, whatever the present one is.

Nothing in here needs a tracker, a controller, a network or the new DSN, and nothing waits for systemd before the
last service was restarted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from glitchtip_core.dsn import shown
from glitchtip_core.transaction.state import SNAPSHOT, State
from glitchtip_core.transaction.transaction import Transaction

from .config import Config
from .envfile import EnvFile
from .errors import CutoverError, StepTooLongError, unexpected
from .host import Host
from .limits import CLEANING, FILE, SAVING, restart_seconds
from .manager import Process
from .services import Services, of
from .snapshot import Before, Snapshot, pids_of


class WayBack:
    """Restores every ``.env``, the manager's environments and the services of one configuration.

    ``restarted_at`` is when the last service of the last way back was online again (monotonic seconds).
    """

    def __init__(
        self, config: Config, host: Host, change: Transaction, services: Services
    ) -> None:
        self._config = config
        self._host = host
        self._change = change
        self._store, self._books = change.store, change.books
        self._services = services
        self._snapshots = Snapshot(config.state_dir)
        self.restarted_at: float = 0.0

    def put_back(self, before: Before, target: str, reason: str) -> None:
        """The way back itself: ``.env`` files, environments, restarts. IncompleteError when parts failed.

        A failure with one service does not stop the others, and a record that cannot be written stops nothing: where
        everything is restored, UnrecordedError says so at the end.
        """
        self._change.put_back(target, reason, partial(self._restore, before, target))

    def _restore(self, before: Before, target: str, state: State, problems: list[str]) -> bool:
        """Restore everything; whether services were restarted, and not only what the manager starts them with."""
        self._services.watched.clear()
        self.clean_files()
        for path in self._config.env_files:
            with collect_into(problems), self._host.limit(FILE, f"restoring {path}"):
                value = before.value(path)
                self._books.record("rollback_env", file=str(path), host=shown(value))
                self.restore_env(path, value)
        running = self._host.manager.running
        if running:
            done = False
            with collect_into(problems), self._host.limit(restart_seconds(self._config), "restarting the services"):
                self._restart_back(before, target, problems)
                done = True
            if done and (target == SNAPSHOT or state.saved):
                self._save(problems)
        else:
            with collect_into(problems), self._host.limit(FILE, "restoring the manager's saved list"):
                self._host.manager.rewrite_dump(
                    self._config.env_key, {name: before.effective(name) for name in before.carried}
                )
            self._host.progress("the services do not run yet; they will start with the DSN of before")
            self.restarted_at = self._host.monotonic()
        return running

    def _save(self, problems: list[str]) -> None:
        """Have the manager keep what runs now for the next boot."""
        with collect_into(problems), self._host.limit(SAVING, "saving the manager's list"):
            self._books.record("rollback_save")
            self._host.manager.save()

    def env(self, path: Path) -> EnvFile:
        """The editor of one ``.env``, which must be where it was at the snapshot."""
        return EnvFile(path, self._config.env_key, self._snapshots.place(path))

    def clean_files(self) -> None:
        """Remove what an interrupted write may have left beside the ``.env`` files, and in the state directory.

        What cannot be removed stops nothing.
        """
        with collect_into([]), self._host.limit(CLEANING, "removing unfinished files"):
            self._store.clean()
        for path in self._config.env_files:
            with collect_into([]), self._host.limit(CLEANING, "removing unfinished files"):
                self.env(path).clean()

    def restore_env(self, path: Path, dsn: str) -> None:
        """Set the one value back; a file that can no longer be edited is replaced by the snapshot's bytes."""
        env = self.env(path)
        try:
            env.replace(dsn, in_place=True)
        except StepTooLongError:
            raise
        except CutoverError as error:
            if not self._snapshots.exists:
                raise
            copy = self._snapshots.env(path)
            self._host.progress(f"{error}; the file of the snapshot is put back")
            stamp = time.strftime("%Y%m%d-%H%M", time.localtime(self._host.clock()))
            keep = partial(self._keep, env, stamp)
            env.put_back(copy.data, copy.mode, copy.owner, stamp, keep)
            env.replace(dsn, in_place=True)
        if env.value() != dsn:
            raise CutoverError(f"{path} does not read back as the DSN of before")

    def _keep(self, env: EnvFile, stamp: str, data: bytes, why: CutoverError) -> None:
        """Keep a damaged file, of which no copy could be made beside it, in the state directory."""
        copy = self._config.state_dir / f"damaged-{stamp}{str(env.path).replace('/', '-')}"
        if not self._books.write_bytes(copy, data):
            self._books.add(f"no copy of the damaged {env.path} could be kept: {why}")

    def _restart_back(self, before: Before, target: str, problems: list[str]) -> None:
        """Restart every service that may have seen another DSN, together, and see that all of them run."""
        listed = self._services.processes()
        wanted: dict[str, str] = {}
        for name in [name for name in self._config.services if name in before.carried]:
            instances = of(listed, name)
            if not instances:
                problems.append(f"the service {name} is not there any more")
            elif target == SNAPSHOT or self._touched(before, name, instances):
                self._books.record("rollback_restart", service=name)
                wanted[name] = before.effective(name)
        self.restart_together(wanted, problems)
        for process in self._services.processes():
            carried = process.environment.get(self._config.env_key)
            if process.name in before.carried and carried not in (None, before.effective(process.name)):
                problems.append(f"{process.name} is still given another DSN by its manager")

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
