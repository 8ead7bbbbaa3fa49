"""Stand-ins of this machine's own PostgreSQL and Redis that tests share, with accounts and a log of every request."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from integration.quick import made_once, npm
from local import running

from glitchtip_api import Client
from glitchtip_api.session import login
from glitchtip_api.validate import SCOPES

PRODUCT = Path(__file__).parents[1] / "ai_admin"
#: The files that take longest, longest first. Two workers take one file after the other, so these must not be the last.
LONGEST = (
    "local_test/test_proof.py",
    "cutover/test_real_drift.py",
    "cutover/test_walk.py",
    "cutover/test_real_pm2.py",
    "cutover/test_real_starts.py",
    "configuration/test_playbooks.py",
    "parity/test_parity.py",
    "operators/test_phase_0.py",
    "docker_role/test_sources.py",
    "cutover/test_break_glass.py",
    "mirror/test_nginx.py",
    "operators/test_rollback.py",
    "api/test_web_servers.py",
    "cutover/test_real_probe.py",
    "mirror/test_role.py",
    "operators/test_phase_3.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; the order within a file stays."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(here).as_posix() if item.path.is_relative_to(here) else ""
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=place)


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
    """The sample product with exactly the packages of its lock file; a copy for each worker, of one installation."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")

    def install(directory: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PRODUCT / name, directory)
        npm("ci", "--omit=dev", cwd=directory)

    packages = made_once(tmp_path_factory, "packages-of-the-product", install)
    app = tmp_path_factory.mktemp("product") / "app"
    shutil.copytree(PRODUCT, app, ignore=shutil.ignore_patterns("node_modules", "__pycache__", ".env"))
    shutil.copytree(packages / "node_modules", app / "node_modules", symlinks=True, copy_function=os.link)
    return app
