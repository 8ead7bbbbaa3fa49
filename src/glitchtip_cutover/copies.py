"""The configuration's copies in the state directory, for the day on which the file itself is gone."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from glitchtip_core.switch import JOURNAL

from .config import Config
from .config_file import load_config
from .errors import UsageError


def _changed(directory: Path) -> float:
    """When the migration in that directory last did something (epoch seconds)."""
    times = [0.0]
    for name in (JOURNAL, "before/snapshot.json"):
        with contextlib.suppress(OSError):
            times.append((directory / name).stat().st_mtime)
    return max(times)


def find_copy(state_root: Path) -> Config | None:
    """The configuration of the newest migration below ``state_root`` that has a snapshot; None without any.

    The last apply's copy comes before the snapshot's. Paths of the state are those of where it was found.
    """
    try:
        directories = [path for path in state_root.iterdir() if (path / "before" / "snapshot.json").is_file()]
    except OSError:
        return None
    for directory in sorted(directories, key=_changed, reverse=True):
        for name in ("config.json", "before/config.json"):
            with contextlib.suppress(UsageError):
                return replace(load_config(directory / name, lenient=True), state_dir=directory)
    return None
