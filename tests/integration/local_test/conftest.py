"""Stand-ins whose web server says when it closes a connection, as role glitchtip sets it up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from integration.conftest import Server
from local import running

from glitchtip_api.session import login
from glitchtip_api.validate import SCOPES


@pytest.fixture(scope="package", params=["5.2", "6.2"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Each line in turn. Without the header Sentry's SDK for Python loses about half of a burst."""
    with running(request.param, environment={"UWSGI_ADD_HEADER": "Connection: close"}) as local:
        with login(local.url, local.email, local.password) as session:
            token = session.ensure_token("provisioning", set(SCOPES) - {"project:releases"}).token
            full = session.ensure_token("everything", SCOPES).token
        yield Server(local.url, request.param, token, full, local.password, local.log)
