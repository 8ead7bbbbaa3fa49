"""The rules of a server on which no user exists yet: what a first deployment meets between the migrations and the first superuser.

Run by ``make contract`` before the superuser of its servers is created, and on any other server with
``make contract-empty GLITCHTIP_URL=...``. Without ``CONTRACT_DESTRUCTIVE=1`` nothing is created; with it the last rules sign up a user
and create an organization, so that the server is no longer empty afterwards.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from contract.report import Report
from contract.server import Journal, Server
from contract.target import Refused, find_line, settings_of

SERVER = pytest.StashKey[Server]()
REPORT = pytest.StashKey[Report]()


def pytest_sessionstart(session):
    config = session.config
    if config.option.collectonly:
        return
    try:
        url = os.environ.get("GLITCHTIP_URL", "").rstrip("/")
        if not url:
            raise Refused("GLITCHTIP_URL must be given")
        found = settings_of(url)
        version = str(found.get("version") or "")
        line, source = find_line(url, version, os.environ.get("GLITCHTIP_LINE"))
        if not found["enableUserRegistration"]:
            raise Refused(
                f"{url} has users (registration is reported closed): these rules are about a server without any"
            )
    except Refused as error:
        raise pytest.UsageError(f"contract: {error}.") from error
    server = Server(url, "", "", line)
    server.journal = Journal(Path(tempfile.mkdtemp(prefix="contract-empty-")) / "journal")
    config.stash[SERVER] = server
    config.stash[REPORT] = Report(url, version, line, source, _destructive())


def _destructive():
    return os.environ.get("CONTRACT_DESTRUCTIVE") == "1"


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("destructive") and not _destructive():
            item.add_marker(pytest.mark.skip(reason="creates a user: CONTRACT_DESTRUCTIVE=1 runs it"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if found := item.config.stash.get(REPORT, None):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        found.note(item.nodeid, report.when, report.outcome, reason.removeprefix("Skipped: "))
    return report


def pytest_sessionfinish(session):
    report = session.config.stash.get(REPORT, None)
    if report and os.environ.get("CONTRACT_REPORT"):
        report.write(Path(os.environ["CONTRACT_REPORT"]))


def pytest_terminal_summary(terminalreporter, config):
    if report := config.stash.get(REPORT, None):
        terminalreporter.write_line(
            report.sentence().replace("contract:", "contract, empty server:"), bold=True
        )


@pytest.fixture(scope="session")
def server(pytestconfig):
    """The server, without an account."""
    return pytestconfig.stash[SERVER]
