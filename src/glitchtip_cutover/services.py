"""Restarting services and waiting until they run again, one observation of PM2 at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .config import Config
from .errors import ServiceError
from .pm2 import Pm2, Process

_POLL = 0.5


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
    """The product's services under PM2."""

    def __init__(
        self, config: Config, pm2: Pm2, *, monotonic: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self.config = config
        self.pm2 = pm2
        self._monotonic = monotonic
        self._sleep = sleep
        self.watched: dict[str, Watched] = {}
        self._latest: list[Process] = []

    def processes(self) -> list[Process]:
        """PM2's list now."""
        self._latest = self.pm2.processes()
        return self._latest

    def jobs_last(self, names: Iterable[str]) -> list[str]:
        """The same names; jobs of ``cron_restart`` at the end, as one at work is waited for."""
        jobs = {process.name for process in self.processes() if process.cron_job}
        return sorted(names, key=lambda name: name in jobs)

    def restart(self, name: str, dsn: str, *, strict: bool = True) -> bool:
        """Restart one service so that ``dsn`` is its DSN; False when there is nothing to do (an idle job).

        A job of ``cron_restart`` that is at work is given ``restart_wait`` seconds to end by itself. With
        ``strict`` the restart counter may grow by one from here on; without, it is held once the service
        runs.
        """
        instances = of(self._latest or self.processes(), name)
        if not instances:
            raise ServiceError(f"PM2 knows no service {name}")
        if all(process.cron_job for process in instances):
            instances = self._let_job_end(name)
        did = False
        for process in instances:
            carried = process.environment.get(self.config.env_key)
            if carried is not None and carried != dsn:
                self.pm2.restart(process, {self.config.env_key: dsn})
                did = True
            elif not process.idle_job:
                self.pm2.restart(process)
                did = True
        self.watched[name] = Watched(
            name,
            instances,
            {process.pm_id: process.restarts + 1 for process in instances if strict and process.online},
            self._monotonic(),
        )
        return did

    def wait_online(self, name: str) -> tuple[Process, ...]:
        """Wait until the service runs again in a new process. Raises ServiceError when it does not."""
        watched = self.watched[name]
        old = {process.pm_id: process.pid for process in watched.before if process.pid}
        deadline = self._monotonic() + self.config.restart_wait
        while True:
            listed = self.processes()
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

    def wait_stable(self, names: Iterable[str]) -> list[Process]:
        """Wait until each ran ``stable_seconds`` without another restart, and return PM2's list."""
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
                raise ServiceError(f"{watched.name} vanished from PM2's list")
            for process in instances:
                if process.status == "errored":
                    raise ServiceError(f"{watched.name} does not start: PM2 calls it errored")
                allowed = watched.counters.get(process.pm_id, process.restarts)
                if process.restarts > allowed and not process.cron_job:
                    raise ServiceError(f"{watched.name} is not stable: it restarted by itself")

    def _let_job_end(self, name: str) -> tuple[Process, ...]:
        deadline = self._monotonic() + self.config.restart_wait
        instances = of(self.processes(), name)
        while any(process.online for process in instances) and self._monotonic() < deadline:
            self._sleep(1.0)
            instances = of(self.processes(), name)
        return instances
