"""A GlitchTip to talk to: the one that the environment names, or stand-ins in both ways of serving.

``GLITCHTIP_URL`` (several with commas), ``GLITCHTIP_EMAIL`` and ``GLITCHTIP_PASSWORD`` name servers that run::

    GLITCHTIP_URL=http://127.0.0.1:18000,http://127.0.0.1:18001 ... pytest -s tests/integration/api

Without them a stand-in is started that closes connections without a word, as uWSGI of the 5.2 image does, and
one that keeps them, as granian does. The tests make an organization of their own and remove it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from local import running

from glitchtip_api import Client
from glitchtip_api.session import Session, login

NAMED = [url for url in os.environ.get("GLITCHTIP_URL", "").split(",") if url]
# granian's settings make the stand-in keep connections open
MODES = {"closes silently": {}, "keeps open": {"USE_GRANIAN": "true", "USE_ASYNC_SERVER": "true"}}


@dataclass(frozen=True)
class Target:
    """A server and an account that may do everything."""

    url: str
    email: str
    password: str = field(repr=False)

    def login(self, **options: object) -> Session:
        """A session of the account."""
        return login(self.url, self.email, self.password, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="session", params=NAMED or list(MODES))
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Each server in turn."""
    if NAMED:
        yield Target(request.param, os.environ["GLITCHTIP_EMAIL"], os.environ["GLITCHTIP_PASSWORD"])
        return
    with running("5.2", environment=MODES[request.param]) as local:
        yield Target(local.url, local.email, local.password)


@dataclass(frozen=True)
class Place:
    """An organization of the test's own with a team and a project, and a token for everything."""

    url: str
    token: str = field(repr=False)
    organization: str
    project: str
    dsn: str = field(repr=False)


@pytest.fixture(scope="session")
def place(target: Target) -> Iterator[Place]:
    """Made for the run and removed after it."""
    label = f"transport {uuid.uuid4().hex[:8]}"
    every = [
        f"{kind}:{level}"
        for kind in ("project", "team", "event", "org", "member")
        for level in ("read", "write", "admin")
    ]
    with target.login() as session:
        token = session.ensure_token(label, every).token
        with Client(target.url, token, per_second=None) as client:
            organization = client.organizations.create(label)["slug"]
            client.teams.create(organization, "crew")
            project = client.projects.create(organization, "crew", name="probe", platform="python")["slug"]
            dsn = client.keys.list(organization, project)[0]["dsn"]["public"]
            try:
                yield Place(target.url, token, organization, project, dsn)
            finally:
                client.delete(f"/api/0/organizations/{organization}/")
        session.remove_token(label)
