"""What all commands share: the configuration, the host, the transaction, and the current state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from glitchtip_core.dsn import parse_dsn
from glitchtip_core.foreign_paths import Place
from glitchtip_core.transaction.state import State

from .awaited import Awaited
from .config import Config
from .containment import contain_host
from .envfile import EnvFile
from .errors import CutoverError
from .host import Host
from .moved import find_moved, record_moved
from .override import Override
from .planning import env_diff
from .proving import Proving
from .services import Services
from .snapshot import Snapshot
from .switching import transaction_of
from .targets import GLITCHTIP, MIRROR, Target, to_before, to_glitchtip, to_mirror
from .wayback import WayBack

Result = dict[str, Any]
_T = TypeVar("_T")
_P = ParamSpec("_P")


class Parts:
    """The parts of one configuration; each command's class adds its own."""

    def __init__(self, config: Config, host: Host) -> None:
        self.config = config
        host = self.host = contain_host(host)
        self.snapshots = Snapshot(config.state_dir)
        self._moved: dict[Path, Place] = {}
        self.change = transaction_of(config, host)
        self.journal, self.store = self.change.journal, self.change.store
        self.reserve, self.books = self.change.reserve, self.change.books
        self.services = Services(config, host.manager, monotonic=host.monotonic, sleep=host.sleep)
        self.proving = Proving(config, host, self.services)
        self.awaited = Awaited(config, host, self.store, self.journal, self.services)
        self.way_back = WayBack(config, host, self.change, self.services)
        self.override = Override(config, host, self.books, self.services, self.way_back)

    def env(self, path: Path) -> EnvFile:
        """The editor of one ``.env``, which must be where it was at the snapshot, or may be recorded anew."""
        return EnvFile(path, self.config.env_key, self._moved.get(path) or self.snapshots.place(path))

    def see_moved(self, state: State) -> list[str]:
        """From now on look for each ``.env`` where it would be recorded anew; a note about each of them."""
        moved = find_moved(self.config, self.snapshots, state)
        self._moved = {copy.path: copy.place for copy in moved if copy.place}
        return [
            f"{path} is really {place.path} now, in another directory than the one that was recorded. It still holds its DSN of "
            "before, so the next apply or snapshot records it anew"
            for path, place in self._moved.items()
        ]

    def record_moved(self) -> bool:
        """Record each ``.env`` anew that a deploy moved while nothing is switched; whether there was one. Raises CutoverError."""
        moved = find_moved(self.config, self.snapshots, self.state())
        record_moved(self.snapshots, self.journal, moved)
        self._moved = {}
        return bool(moved)

    def state(self) -> State:
        """The state that the journal tells."""
        return self.change.state()

    def target(self, name: str) -> Target:
        """The DSNs of glitchtip, mirror or before. Raises CutoverError when they cannot be told yet."""
        if name == GLITCHTIP:
            return to_glitchtip(self.config)
        if name == MIRROR:
            return to_mirror(self.config, self.snapshots.before())
        return to_before(self.config, self.snapshots.before())

    @staticmethod
    def collect(
        problems: list[str], read: Callable[_P, _T], *given: _P.args, **named: _P.kwargs
    ) -> _T | None:
        """What ``read`` returns; None, and its sentence in ``problems``, where it fails."""
        try:
            return read(*given, **named)
        except CutoverError as error:
            problems.append(str(error))
            return None

    def env_value(self, path: Path) -> str:
        """The DSN in one ``.env``. Raises CutoverError."""
        return self.env(path).value()

    def env_diff(self, path: Path, value: str) -> Result | None:
        """The line of one ``.env`` that would change, masked; None where it has that value. Raises CutoverError."""
        return env_diff(self.env(path), value)

    def env_values(self) -> dict[Path, str]:
        """The DSN in each ``.env``."""
        values = {path: self.env_value(path) for path in self.config.env_files}
        for path, value in values.items():
            parse_dsn(value, f"the value of {self.config.env_key} in {path}")
        return values

    def run_facts(self, attempt: int) -> Result:
        """What a kept result names: the migration, its attempt, and the stack that it is about."""
        return {
            "migration_id": self.config.migration_id,
            "attempt": attempt,
            "stack_id": self.config.stack_id,
            "run_id": self.config.run_id,
        }
