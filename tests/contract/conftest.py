"""The rules of a GlitchTip server that this repository relies on, one test a rule; the test's name is the rule.

The suite speaks plain HTTP, one connection a request, so that it depends on no client of ours, and it runs
alike on the stand-in and on a real server::

    make contract GLITCHTIP_URL=https://errors.example.org GLITCHTIP_EMAIL=admin@example.org   # password: environment

It makes organizations and tokens of its own and removes them; nothing else is touched. docs/contract.md tells
the variables, what needs which of them, and how long a run takes.

A test asks ``server`` (contract/server.py), in an ``organization`` of the run's own, mostly in a ``project`` or
a ``new_project()``; deliveries come to ``receiver``. Marks: ``line("6.2", provenance=...)`` for a rule of one
line, ``destructive`` for one that could harm a live instance.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from contract import lines
from contract.receiver import Receiver
from contract.report import Report
from contract.server import Project, Server, wait_until
from contract.target import Refused, Target, close_target, open_target

__all__ = ["Project", "Receiver", "Server", "wait_until"]

TARGET = pytest.StashKey[Target]()
REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("contract")
    group.addoption("--url", help="the server, e.g. http://127.0.0.1:8080 (GLITCHTIP_URL)")
    group.addoption("--email", help="account that may create organizations (GLITCHTIP_EMAIL)")
    group.addoption("--line", help="hold it to this line instead of finding out (GLITCHTIP_LINE)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "line(name, provenance): the rule holds on this line only; provenance: 'measured: ..' or 'documented: ..'",
    )
    config.addinivalue_line("markers", "long: waits for half a minute and more, so it begins first")
    given = getattr(config, "workerinput", {}).get("contract")
    if given:
        config.stash[TARGET] = Target.of_leader(given, os.environ["GLITCHTIP_PASSWORD"])


def _leads(config: pytest.Config) -> bool:
    return not hasattr(config, "workerinput")


def _destructive() -> bool:
    return os.environ.get("CONTRACT_DESTRUCTIVE") == "1"


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Know the server, once for all processes, before the first rule is collected."""
    config = session.config
    if not _leads(config) or config.option.collectonly:
        return
    given = {f"GLITCHTIP_{name.upper()}": config.getoption(f"--{name}") for name in ("url", "email", "line")}
    try:
        target = open_target({**os.environ, **{name: value for name, value in given.items() if value}})
    except Refused as error:
        raise pytest.UsageError(f"contract: {error}.") from error
    report = Report(target.server.url, target.version, target.server.line, target.line_source, _destructive())
    config.stash[TARGET], config.stash[REPORT] = target, report
    config.pluginmanager.register(Outcomes(report))


class Outcomes:
    """Counts outcomes in the process that leads; pytest-xdist sends it the reports of the others."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        self._report.note(report.nodeid, report.when or "", report.outcome, reason.removeprefix("Skipped: "))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """What pytest-xdist hands to a process that it starts."""
    node.workerinput["contract"] = node.config.stash[TARGET].for_worker()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lines.check(items)
    items.sort(key=_turn)
    target = config.stash.get(TARGET, None)
    for item in items:
        line = lines.line_of(item)
        if target and line and line != target.server.line:
            item.add_marker(pytest.mark.skip(reason=f"of the {line} line only"))
        if item.get_closest_marker("destructive") and not _destructive():
            item.add_marker(
                pytest.mark.skip(reason="could harm a live instance: CONTRACT_DESTRUCTIVE=1 runs it")
            )


def _turn(item: pytest.Item) -> int:
    """Long waits begin first, destructive rules come last."""
    if item.get_closest_marker("destructive"):
        return 2
    return 0 if item.get_closest_marker("long") else 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Rules run side by side, a destructive one alone: the processes of a run share one lock."""
    target = item.config.stash.get(TARGET, None)
    if target is None:
        return (yield)
    with (target.directory / "lock").open("a") as file:
        alone = item.get_closest_marker("destructive") is not None and _destructive()
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Remove what is left, after every process of the run has ended and before the summary is printed."""
    yield
    report, target = session.config.stash.get(REPORT, None), session.config.stash.get(TARGET, None)
    if report is None or target is None:
        return
    try:
        report.leftovers = close_target(target)
    except (AssertionError, OSError) as error:  # the server went away, or does not answer as it did
        report.leftovers = [
            f"what the run made (organizations contract-{target.run}*) could not be removed: {error}"
        ]
    shutil.rmtree(target.directory, ignore_errors=True)
    if report.leftovers and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if os.environ.get("CONTRACT_REPORT"):
        report.write(Path(os.environ["CONTRACT_REPORT"]))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    report = config.stash.get(REPORT, None)
    if report is None:
        return
    for sentence in report.leftovers:
        terminalreporter.write_line(f"contract: {sentence}", red=True)
    terminalreporter.write_line(report.sentence(), bold=True)


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> Server:
    """The server, with a session and a token that has every scope."""
    target = pytestconfig.stash.get(TARGET, None)
    assert target is not None, "run the suite by itself: pytest tests/contract"
    return target.server


@pytest.fixture(scope="session")
def cookies(server: Server) -> dict[str, str]:
    """A logged-in session."""
    return server.cookies


@pytest.fixture(scope="session")
def organization(server: Server, pytestconfig: pytest.Config) -> str:
    """The slug of an organization of this process of this run, with the team ``crew``.

    It is removed when all processes have ended: while events are on their way, removing it would lose others'.
    """
    name = f"Contract {pytestconfig.stash[TARGET].run} {uuid.uuid4().hex[:4]}"
    slug = server.post("/api/0/organizations/", {"name": name})["slug"]
    server.post(f"/api/0/organizations/{slug}/teams/", {"slug": "crew"})
    return str(slug)


@pytest.fixture(scope="session")
def new_project(server: Server, organization: str) -> Callable[..., Project]:
    """Make a project of the run's organization."""

    def make(name: str | None = None, platform: str | None = "python") -> Project:
        name = name or f"P {uuid.uuid4().hex[:8]}"
        made = server.post(
            f"/api/0/teams/{organization}/crew/projects/", {"name": name, "platform": platform}
        )
        keys = server.get(f"/api/0/projects/{organization}/{made['slug']}/keys/")
        key = uuid.UUID(keys[0]["public"]).hex
        return Project(server, organization, made["slug"], made["id"], made["name"], key)

    return make


@pytest.fixture(scope="session")
def project(new_project: Callable[..., Project]) -> Project:
    """The project that most rules share."""
    return new_project()


@pytest.fixture(scope="session")
def scoped(server: Server) -> Iterator[Callable[..., str]]:
    """Make a token with these scopes only."""
    made: dict[tuple[str, ...], dict[str, Any]] = {}
    levels = ("read", "write", "admin")
    order = [*(f"project:{level}" for level in levels), "project:releases"]
    order += [f"{kind}:{level}" for kind in ("team", "event", "org", "member") for level in levels]

    def make(*scopes: str) -> str:
        if scopes not in made:
            bits = sum(1 << order.index(scope) for scope in scopes)
            made[scopes] = server.make_token(server.cookies, bits, "scoped")
        return str(made[scopes]["token"])

    yield make
    for token in made.values():
        server.write("DELETE", f"/api/0/api-tokens/{token['id']}/", None, server.cookies)


@pytest.fixture(scope="session")
def receiver(server: Server, new_project: Callable[..., Project], pytestconfig: pytest.Config) -> Receiver:
    """Where webhooks come to; rules that need one are not applicable when there is none."""
    found = pytestconfig.stash[TARGET].receiver
    if found is None:
        pytest.skip("no receiver: CONTRACT_RECEIVER=host:port names this machine as the server reaches it")
    if server.line == "6.2":
        recipient = {"recipientType": "webhook", "url": f"{found.url}/trial"}
        answer = server.call("POST", f"{new_project().path}alerts/", {"alertRecipients": [recipient]})
        if answer.status_code == 422:
            pytest.skip(
                "the server refuses this receiver's address (GLITCHTIP_ALLOW_PRIVATE_IPS is off there)"
            )
    return found
