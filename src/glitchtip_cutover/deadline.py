"""The units of the switch: its detached runs and the timer of its confirm window (see ``glitchtip_core.transaction.detached``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from glitchtip_core.transaction import detached
from glitchtip_core.transaction.detached import Program, Units

from .config import Config

WATCH_UNIT = "ai-admin-cutover-watch"
UNITS = Units(
    run="ai-admin-cutover",
    deadline="ai-admin-cutover-deadline",
    recover="ai-admin-cutover-recover",
    results=Path("/run/ai-admin-cutover"),
    module="glitchtip_cutover",
    back="rollback",
    runs="Switch of the DSN",
    takes_back="Roll an unconfirmed switch of the DSN back",
)


def program_of(config: Config) -> Program:
    """What the units of the switch run."""
    return Program(UNITS, config.path, config.state_dir, config.run_max)


def run_detached(config: Config, command: str, arguments: Sequence[str]) -> tuple[int, bytes]:
    """Run a command of ours as a unit of its own and wait for it; return exit code and JSON result. Raises CutoverError."""
    return detached.run_detached(program_of(config), command, arguments)
