"""A played stack with a real Valkey, and where the tools keep their state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from unit.ops_queue import SERVER, PlayedStack

from glitchtip_ops.queue import recovery


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedStack]:
    if SERVER is None:
        pytest.skip("neither valkey-server nor redis-server is installed")
    played = PlayedStack(tmp_path)
    monkeypatch.setattr(recovery, "_PATIENCE", 0.0)
    monkeypatch.setattr(recovery, "_RATE", 1000.0)
    played.valkey("SADD", "_kombu.binding.celery", "celery")
    yield played
    played.close()


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    return SimpleNamespace(state_dir=tmp_path / "state")
