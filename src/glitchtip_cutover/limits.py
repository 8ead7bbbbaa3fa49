"""How long each step of a rollback may take (see ``glitchtip_core.transaction.limits``)."""

from __future__ import annotations

from glitchtip_core.transaction.limits import MARGIN

from .config import Config

#: Seconds for removing what interrupted writes left, for one file, and for the manager's saved list.
CLEANING, FILE, SAVING = 20.0, 30.0, 180.0


def restart_seconds(config: Config) -> float:
    """The limit for restarting all services and seeing them run: that of a whole run."""
    return config.run_max


def told_limits(config: Config, proof: float) -> str:
    """The limits in one sentence, for people who wait."""
    return (
        f"each step has a time limit: {FILE:g} s for a file, {restart_seconds(config):g} s for all restarts, {SAVING:g} s for the "
        f"manager's saved list, {proof + MARGIN:g} s for the proof; a step that takes longer is given up and the next one begins"
    )
