"""The mark of a watch that is due: the file ``watch.json``, which also keeps how far the watch is."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path

from glitchtip_core.files import fsync_directory, read_json, write_json

from .config import Config
from .errors import CutoverError

_LARGEST = 2.0**53


@dataclass
class WatchMark:
    """``began`` is the date of the confirm (epoch seconds); ``watched`` are measured seconds, ``checks`` those that saw the services.

    ``alerted``: people know that this watch could not go on.
    """

    attempt: int
    began: float
    watched: float = 0.0
    checks: int = 0
    begun: bool = False
    alerted: bool = False


def watch_mark(config: Config) -> Path:
    """The file."""
    return config.state_dir / "watch.json"


def write_mark(config: Config, mark: WatchMark) -> None:
    """Write it durably. Raises CutoverError."""
    write_json(watch_mark(config), asdict(mark))


def read_mark(config: Config) -> WatchMark | None:
    """What it says, None when there is none. Raises CutoverError when it is damaged.

    One without ``watched`` and ``checks``, of an earlier version, begins anew.
    """
    data = read_json(watch_mark(config))
    if data is None:
        return None
    fields = data if isinstance(data, dict) else {}
    attempt, began = _number(fields.get("attempt")), _number(fields.get("began"))
    if attempt is None or began is None:
        raise CutoverError(f"{watch_mark(config)} is damaged")
    watched, checks = _number(fields.get("watched")), _number(fields.get("checks"))
    return WatchMark(
        attempt=int(attempt),
        began=began,
        watched=watched if watched and checks else 0.0,
        checks=int(checks) if watched and checks else 0,
        begun=data.get("begun") is True,
        alerted=data.get("alerted") is True,
    )


def _number(value: object) -> float | None:
    """A number that is not negative, None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LARGEST
    return float(value) if is_number else None  # type: ignore[arg-type]


def remove_mark(config: Config) -> None:
    """Remove it. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        watch_mark(config).unlink()
        fsync_directory(config.state_dir)
