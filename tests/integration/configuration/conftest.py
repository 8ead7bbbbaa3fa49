"""A stand-in of this machine's own PostgreSQL and Redis, with an account and a token for each test run."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from local import running

from glitchtip_api import Client
from glitchtip_api.session import login
from glitchtip_api.validate import SCOPES


@dataclass
class Server:
    """Where it is, a token with every scope, and what was asked of it."""

    url: str
    token: str = field(repr=False)
    log: Path

    @property
    def client(self) -> Client:
        """A client without a rate limit."""
        return Client(self.url, self.token, per_second=None, concurrent=8)

    def lines(self) -> list[str]:
        """Requests to the API so far: ``GET /api/0/... => 200``."""
        text = self.log.read_text().splitlines()
        return [line.partition("glitchtip.access ")[2] for line in text if "glitchtip.access " in line]

    def writes(self) -> list[str]:
        """Those that were no reads."""
        return [line for line in self.lines() if line.split()[0] not in ("GET", "HEAD")]


@pytest.fixture(scope="module", params=["5.2", "6.2"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    if not (shutil.which("redis-server") or shutil.which("valkey-server")):
        pytest.skip("neither redis-server nor valkey-server is installed (make setup-tests)")
    with running(request.param) as local:
        with login(local.url, local.email, local.password) as session:
            token = session.ensure_token("provisioning", set(SCOPES) - {"project:releases"}).token
        yield Server(local.url, token, local.log)


@pytest.fixture
def name() -> str:
    """Name of an organization that no other test has."""
    return f"Org {uuid.uuid4().hex[:8]}"
