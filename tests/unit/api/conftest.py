"""A client of the scripted server, with pauses that are only noted."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from glitchtip_api import Client


@pytest.fixture
def server(scripted_server: Any) -> Any:
    return scripted_server


@pytest.fixture
def pauses() -> list[float]:
    """Seconds that the client would have slept."""
    return []


@pytest.fixture
def client(server: Any, pauses: list[float]) -> Any:
    return Client(server.url, "canary-token-0001", timeout=(1, 0.5), sleep=pauses.append, jitter=lambda: 1.0)


@pytest.fixture
def closed_url() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"
