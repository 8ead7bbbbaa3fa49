"""A ``.env`` whose directory a deploy made anew while nothing is switched: recorded anew, so that it can be switched.

While the original DSN stands and no change is open there is nothing to put back, so the file that holds exactly that DSN
now is the state of before. Whose links lead there is judged as at the first snapshot.
"""

from __future__ import annotations

from pathlib import Path

from glitchtip_core.transaction.journal import Journal
from glitchtip_core.transaction.state import State

from .config import Config
from .envfile import EnvFile, find_assignment
from .errors import CutoverError
from .snapshot import EnvCopy, Snapshot


def find_moved(config: Config, snapshots: Snapshot, state: State) -> list[EnvCopy]:
    """Every ``.env`` that is elsewhere than recorded, as it is there, if it may be recorded anew. Reads only."""
    if not snapshots.exists or state.open or state.overriding or state.overrides or state.stands != "before":
        return []
    found = [_moved(config, snapshots, path) for path in config.env_files]
    return [copy for copy in found if copy is not None]


def _moved(config: Config, snapshots: Snapshot, path: Path) -> EnvCopy | None:
    place = snapshots.place(path)
    if place is None:
        return None
    file = EnvFile(path, config.env_key)
    try:
        seen, now = file.copy()
        if not place.difference(now):
            return None
        file.check()
        value = find_assignment(seen.data, config.env_key, str(path)).value
        if value != snapshots.before().value(path):
            return None
    except CutoverError:
        return None  # the refusal of the recorded place says what to do
    return EnvCopy(path, seen.data, seen.mode, seen.owner, now)


def record_moved(snapshots: Snapshot, journal: Journal, moved: list[EnvCopy]) -> None:
    """Record them anew, each journalled first. Raises CutoverError; the snapshot is the earlier one then."""
    for copy in moved:
        place = copy.place
        journal.append("env_recorded_anew", file=str(copy.path), place=place.path if place else "")
        snapshots.move(copy)
