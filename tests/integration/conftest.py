"""Stand-ins of this machine's own PostgreSQL and Redis that tests share, with accounts and a log of every request."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from local import running

from glitchtip_api import Client
from glitchtip_api.session import login
from glitchtip_api.validate import SCOPES

PRODUCT = Path(__file__).parents[1] / "ai_admin"


@dataclass
class Server:
    """Where it is, tokens of its superuser, and what was asked of it.

    Attributes:
        token: may do everything but read releases.
        full_token: may do everything.
        password: the superuser's; the e-mail address is admin@example.org.
    """

    url: str
    line: str
    token: str = field(repr=False)
    full_token: str = field(repr=False)
    password: str = field(repr=False)
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


@pytest.fixture(scope="session")
def standin() -> Iterator[Callable[[str], Server]]:
    """The stand-in of a line ("5.2", "6.2"), started when it is first asked for."""
    started: dict[str, Server] = {}
    with ExitStack() as stack:

        def of(line: str) -> Server:
            if line not in started:
                local = stack.enter_context(running(line))
                with login(local.url, local.email, local.password) as session:
                    token = session.ensure_token("provisioning", set(SCOPES) - {"project:releases"}).token
                    full = session.ensure_token("everything", SCOPES).token
                started[line] = Server(local.url, line, token, full, local.password, local.log)
            return started[line]

        yield of


@pytest.fixture(scope="module", params=["5.2", "6.2"])
def server(request: pytest.FixtureRequest, standin: Callable[[str], Server]) -> Server:
    """Each line in turn."""
    return standin(request.param)


@pytest.fixture
def name() -> str:
    """Name of an organization that no other test has."""
    return f"Org {uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample product with exactly the packages of its lock file."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    app = tmp_path_factory.mktemp("product") / "app"
    shutil.copytree(PRODUCT, app, ignore=shutil.ignore_patterns("node_modules", "__pycache__", ".env"))
    done = subprocess.run(
        ["npm", "ci", "--omit=dev", "--loglevel=error"],
        cwd=app,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"npm ci did not work: {done.stderr.strip().splitlines()[:1]}"
    return app
