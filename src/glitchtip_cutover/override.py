"""The way back for one service alone: a journalled override, which the next full switch removes.

A service whose ``.env`` no other one reads gets its DSN of before in there; any other gets it from its manager,
whose value wins over ``.env``. An interrupted override is finished; where that needs the manager and the machine
just starts, it is dropped instead and the service stands where all others do.
"""

from __future__ import annotations

from collections.abc import Mapping

from glitchtip_core.dsn import shown
from glitchtip_core.transaction.bookkeeping import Bookkeeping
from glitchtip_core.transaction.state import State

from .config import Config, Service
from .errors import IncompleteError, ServiceError
from .host import Host
from .limits import restart_seconds
from .manager import manager_label
from .services import Services, Watched, of
from .snapshot import Before
from .wayback import WayBack, collect_into


class Override:
    """Puts single services back on their DSN of before."""

    def __init__(
        self,
        config: Config,
        host: Host,
        books: Bookkeeping,
        services: Services,
        way_back: WayBack,
    ) -> None:
        self._config = config
        self._host = host
        self._books = books
        self._services = services
        self._way_back = way_back

    def stands(self, state: State, unit: Service, before: Before) -> bool:
        """Whether the service is where the override would put it."""
        dsn = before.effective(unit.name)
        instances = of(self._services.processes(), unit.name)
        file_value = self._way_back.env(unit.env_file).value()
        return (
            unit.name in state.overrides
            and not state.overriding
            and bool(instances)
            and all(
                process.healthy and process.environment.get(self._config.env_key, file_value) == dsn
                for process in instances
            )
        )

    def put(self, state: State, unit: Service, before: Before, reason: str) -> None:
        """Do it. Raises IncompleteError when the service did not come back on its DSN of before.

        UnrecordedError: it did, and the record of it is incomplete.
        """
        self._books.mark_open(state.attempt)
        self._books.record("override_begin", service=unit.name, reason=reason)
        self._finish(state, unit, before)

    def recover(self, state: State, before: Before) -> str:
        """Finish an interrupted override, or drop it where that is impossible; what was done, for people."""
        unit = self._config.service(state.overriding)
        if self._host.manager.running:
            self._finish(state, unit, before)
            return f"the rollback of {unit.name} alone was interrupted and is finished"
        own = self._alone(unit)
        dsn = before.effective(unit.name)
        if own:
            self._books.record("rollback_env", file=str(unit.env_file), host=shown(dsn))
            self._way_back.restore_env(unit.env_file, dsn)
        if own or before.carried.get(unit.name) is not None:
            self._host.manager.rewrite_dump(self._config.env_key, {unit.name: dsn})
            self._close(state, "override_done", unit.name)
            done = f"the rollback of {unit.name} alone was interrupted and is finished"
        else:
            value = self._way_back.env(unit.env_file).value()
            self._host.manager.rewrite_dump(self._config.env_key, {unit.name: value})
            self._close(state, "override_dropped", unit.name)
            done = (
                f"the rollback of {unit.name} alone was interrupted before it was restarted; "
                "it stands where the others do, ask for it again"
            )
        return done

    def _alone(self, unit: Service) -> bool:
        return self._config.sharing(unit.env_file) == (unit.name,)

    def _finish(self, state: State, unit: Service, before: Before) -> None:
        problems: list[str] = []
        dsn = before.effective(unit.name)
        self._services.watched.clear()
        self._way_back.clean_files()
        limit = self._host.limit(restart_seconds(self._config), f"restarting {unit.name}")
        with collect_into(problems), limit:
            if self._alone(unit):
                self._books.record("rollback_env", file=str(unit.env_file), host=shown(dsn))
                self._way_back.restore_env(unit.env_file, dsn)
                self._books.record("rollback_restart", service=unit.name)
                self._host.progress(f"restarting {unit.name} on the DSN of before")
                self._services.restart(unit.name, dsn, strict=False)
            else:
                self._books.record("rollback_restart", service=unit.name)
                self._host.progress(f"restarting {unit.name} with the DSN of before in its environment")
                self._pin(unit.name, {self._config.env_key: dsn})
            self._services.wait_online(unit.name)
            self._services.wait_stable([unit.name])
            self._books.record("rollback_save")
            self._host.manager.save()
        if problems:
            self._books.record("override_incomplete", service=unit.name, problems=problems)
            raise IncompleteError(
                f"{unit.name} could not be put back alone: {'; '.join(problems)}",
                {"problems": problems, "state": state.phase},
            )
        self._close(state, "override_done", unit.name)

    def _pin(self, name: str, variables: Mapping[str, str]) -> None:
        """Restart a service with variables from its manager, whether it had them before or not."""
        instances = of(self._services.processes(), name)
        if not instances:
            raise ServiceError(f"{manager_label(self._config)} knows no service {name}")
        self._host.manager.restart_together([(process, variables) for process in instances])
        self._services.watched[name] = Watched(name, instances, {}, self._host.monotonic())

    def _close(self, state: State, event: str, name: str) -> None:
        if self._books.record(event, service=name) and not state.open:
            self._books.unmark_open()
        self._books.raise_unrecorded()
