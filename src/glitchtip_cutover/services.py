"""Restarting services and waiting until they run again, one observation of their manager at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from .config import Config
from .errors import CutoverError, InterruptedRunError, ServiceError
from .manager import Manager, Process, Restart, manager_label

_POLL = 0.5
# The way back is in a hurry: a job that is at work then gets this many seconds to end by itself.
JOB_PATIENCE_BACK = 5.0


@dataclass(frozen=True)
class Watched:
    """A restarted service: its state of before, the restart counters to hold, and since when to watch."""

    name: str
    before: tuple[Process, ...]
    counters: dict[int, int]
    since: float


def of(processes: Iterable[Process], name: str) -> tuple[Process, ...]:
    """All instances of one service."""
    return tuple(process for process in processes if process.name == name)


class Services:
    """The product's services under their manager."""

    def __init__(
        self,
        config: Config,
        manager: Manager,
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self.config = config
        self.manager = manager
        self._monotonic = monotonic
        self._sleep = sleep
        self.watched: dict[str, Watched] = {}
        self._latest: list[Process] = []
        self._seen_at = float("-inf")

    def processes(self) -> list[Process]:
        """The manager's list now."""
        began = self._monotonic()
        self._latest = self.manager.processes()
        self._seen_at = began
        return self._latest

    def jobs_last(self, names: Iterable[str]) -> list[str]:
        """The same names; jobs at the end, as one at work is waited for."""
        jobs = {process.name for process in self.processes() if process.cron_job}
        return sorted(names, key=lambda name: name in jobs)

    def restart(self, name: str, dsn: str, *, strict: bool = True) -> bool:
        """Restart one service so that ``dsn`` is its DSN; False when there is nothing to do (an idle job).

        A job that is at work is given time to end by itself: ``restart_wait`` seconds with ``strict``, a few
        without. With ``strict`` the restart counter may grow by what one restart adds from here on; without, it
        is held once the service runs.
        """
        instances = self._instances(name, strict)
        restarts = self._restarts(instances, dsn)
        for process, variables in restarts:
            self.manager.restart(process, variables)
        self._watch(name, instances, strict)
        return bool(restarts)

    def restart_together(self, dsns: Mapping[str, str], *, strict: bool = True) -> dict[str, CutoverError]:
        """Restart many services at the same time, each so that ``dsns[name]`` is its DSN; what failed, by name.

        Jobs come after all others, as one at work is given time to end by itself (see ``restart``). Services that
        failed are not watched any more; the others are, as after ``restart``.
        """
        failed: dict[str, CutoverError] = {}
        self.processes()
        jobs = {process.name for process in self._latest if process.cron_job}
        for names in ([name for name in dsns if name not in jobs], [name for name in dsns if name in jobs]):
            chosen: dict[str, tuple[Process, ...]] = {}
            for name in names:
                try:
                    chosen[name] = self._instances(name, strict)
                except CutoverError as error:
                    failed[name] = error
            restarts = [
                restart
                for name, instances in chosen.items()
                for restart in self._restarts(instances, dsns[name])
            ]
            failures: dict[str, CutoverError] = {}
            if restarts:
                try:
                    self.manager.restart_together(restarts)
                except InterruptedRunError:
                    raise
                except CutoverError as error:
                    told = error.details.get("failed") or dict.fromkeys(chosen, str(error))
                    failures = {name: ServiceError(str(text)) for name, text in told.items()}
            failed |= failures
            for name, instances in chosen.items():
                if name not in failures:
                    self._watch(name, instances, strict)
        return failed

    def _instances(self, name: str, strict: bool) -> tuple[Process, ...]:
        """All instances as they were last seen; a job at work is waited for."""
        instances = of(self._latest or self.processes(), name)
        if not instances:
            raise ServiceError(f"{manager_label(self.config)} knows no service {name}")
        if all(process.cron_job for process in instances):
            wait = self.config.restart_wait
            instances = self._let_job_end(name, wait if strict else min(wait, JOB_PATIENCE_BACK))
        return instances

    def _restarts(self, instances: Iterable[Process], dsn: str) -> list[Restart]:
        """What has to be restarted, and with which variables; an idle job reads ``.env`` at its next run."""
        restarts: list[Restart] = []
        for process in instances:
            carried = process.environment.get(self.config.env_key)
            if carried is not None and carried != dsn:
                restarts.append((process, {self.config.env_key: dsn}))
            elif not process.idle_job:
                restarts.append((process, None))
        return restarts

    def _watch(self, name: str, instances: tuple[Process, ...], strict: bool) -> None:
        self.watched[name] = Watched(
            name,
            instances,
            {process.pm_id: process.restarts_after for process in instances if strict and process.online},
            self._monotonic(),
        )

    def wait_online(self, name: str) -> tuple[Process, ...]:
        """Wait until the service runs again in a new process. Raises ServiceError when it does not."""
        watched = self.watched[name]
        old = {process.pm_id: process.pid for process in watched.before if process.pid}
        deadline = self._monotonic() + self.config.restart_wait
        while True:
            # One list of after the restart serves all services that were restarted together.
            listed = self._latest if self._seen_at > watched.since else self.processes()
            self._check(listed)
            instances = of(listed, name)
            if instances and all(
                process.healthy and (process.idle_job or process.pid != old.get(process.pm_id))
                for process in instances
            ):
                counters = {process.pm_id: process.restarts for process in instances} | watched.counters
                self.watched[name] = Watched(name, watched.before, counters, self._monotonic())
                return instances
            if self._monotonic() >= deadline:
                status = ", ".join(sorted({process.status for process in instances})) or "gone"
                raise ServiceError(
                    f"{name} did not come back within {self.config.restart_wait:g} s: it is {status}"
                )
            self._sleep(_POLL)
            self._seen_at = float("-inf")

    def wait_stable(self, names: Iterable[str]) -> list[Process]:
        """Wait until each ran ``stable_seconds`` without another restart, and return the manager's list."""
        wanted = [self.watched[name] for name in names]
        while True:
            listed = self.processes()
            self._check(listed)
            left = max(
                (watched.since + self.config.stable_seconds - self._monotonic() for watched in wanted),
                default=0.0,
            )
            if left <= 0:
                return listed
            self._sleep(min(left, max(_POLL, left / 2)))

    def _check(self, listed: Iterable[Process]) -> None:
        """Raise ServiceError when a service that was restarted before has died or restarted by itself."""
        listed = list(listed)
        for watched in self.watched.values():
            instances = of(listed, watched.name)
            if len(instances) < len(watched.before):
                raise ServiceError(
                    f"{watched.name} vanished: {manager_label(self.config)} no longer lists it"
                )
            for process in instances:
                if process.status == "errored":
                    raise ServiceError(f"{watched.name} does not start: it is errored")
                allowed = watched.counters.get(process.pm_id, process.restarts)
                if process.restarts > allowed and not process.cron_job:
                    raise ServiceError(f"{watched.name} is not stable: it restarted by itself")

    def _let_job_end(self, name: str, wait: float) -> tuple[Process, ...]:
        deadline = self._monotonic() + wait
        instances = of(self.processes(), name)
        while any(process.online for process in instances) and self._monotonic() < deadline:
            self._sleep(1.0)
            instances = of(self.processes(), name)
        return instances
