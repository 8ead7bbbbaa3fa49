"""No test here looks at processes and crontabs of this machine: those of the simulated product are shown instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.cutover import simulation

from glitchtip_cutover import pm2, running, surroundings, systemd


@pytest.fixture(autouse=True)
def _simulated_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation.Simulation.current = None
    simulation.PROCESSES.clear()
    monkeypatch.setattr(running, "_parents", simulation.children)
    for name in ("ETC", "SPOOL"):
        monkeypatch.setattr(surroundings, name, Path("/nonexistent"))
    for module in (running, pm2, systemd):
        monkeypatch.setattr(module, "read_running", simulation.read_running)
