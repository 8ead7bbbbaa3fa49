"""The phase 1 proof by real SDKs against the stand-in of both lines: Node.js, Python, bursts, monitor, alerts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from glitchtip_api.session import login
from glitchtip_ops.cli import main
from glitchtip_ops.local_test import running
from glitchtip_ops.local_test.expectations import EXPECTATIONS

ROOT = Path(__file__).parents[3]
SCOPES = {"event:read", "org:read", "project:read", "project:write", "project:admin"}


@dataclass
class Project:
    """A project of its own, and what the command needs of it."""

    server: Any
    organization: str
    slug: str
    token: str
    dsn: str
    directory: Path
    app: Path

    def options(self, **changes: Any) -> list[str]:
        """Arguments of the command; None leaves one out."""
        token, dsn = self.directory / "token", self.directory / "dsn"
        token.write_text(self.token)
        dsn.write_text(self.dsn + "\n")
        given: dict[str, Any] = {
            "url": self.server.url,
            "token-file": token,
            "dsn-file": dsn,
            "organization": self.organization,
            "project": self.slug,
            "app-dir": self.app,
            "result": self.directory / "report.json",
            **changes,
        }
        return ["local-test", "--no-stack", *(f"--{k}={v}" for k, v in given.items() if v is not None)]

    def report(self) -> dict[str, Any]:
        """The document that the command kept."""
        found: dict[str, Any] = json.loads((self.directory / "report.json").read_text())
        return found


@pytest.fixture
def project(server: Any, name: str, tmp_path: Path, installed: Path) -> Project:
    """A fresh one on each line, and a token with the scopes that the documentation names."""
    client = server.client
    organization = client.organizations.create(name)["slug"]
    client.teams.create(organization, "proof")
    made = client.projects.create(organization, "proof", name="Proof", platform="node")
    dsn = client.keys.list(organization, made["slug"])[0]["dsn"]["public"]
    with login(server.url, "admin@example.org", server.password) as session:
        token = session.ensure_token("proof", SCOPES).token
    return Project(server, organization, made["slug"], token, dsn, tmp_path, installed)


def leftovers(project: Project) -> list[str]:
    """Names of monitors and rules in the project's organization."""
    client = project.server.client
    found = client.monitors.list(project.organization)
    found += client.alerts.list(project.organization, project.slug)
    return [thing["name"] for thing in found]


def test_both_sdks_bursts_and_the_monitor(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything passes on both lines, with real figures; nothing of the monitor stays; no secret is printed."""
    markdown = project.directory / "report.md"
    code = main([*project.options(markdown=markdown), "--burst=100", "--burst=1000", "--max-latency=60"])
    printed = capsys.readouterr()
    report = project.report()
    assert (code, report["problems"]) == (0, []), printed.out
    assert {name: sdk["name"] for name, sdk in report["sdks"].items()} == {
        "node": "@sentry/node",
        "python": "sentry-sdk",
    }
    assert len(report["scenarios"]) == 2 * len(EXPECTATIONS)
    assert all(field["ok"] for row in report["scenarios"] for field in row["fields"])
    lines = {
        (row["sdk"], field["found"])
        for row in report["scenarios"]
        for field in row["fields"]
        if field["name"] == "stack line"
    }
    assert len(lines) == 2 * (len(EXPECTATIONS) - 1)  # each error at a line of its own; the message has none
    assert [(burst["sent"], burst["stored"]) for burst in report["bursts"]] == [(100, 100), (1000, 1000)]
    assert [step["step"] for step in report["uptime"]["steps"]] == [
        "up",
        "down",
        "alert down",
        "up again",
        "alert recovered",
    ]
    assert leftovers(project) == []
    assert report["asked"] == {"sdks": ["node", "python"], "bursts": [100, 1000], "uptime": True}
    assert "uptime alert after" in report["proof"]
    for text in (printed.out, printed.err, markdown.read_text(), json.dumps(report)):
        assert project.token not in text
        assert project.dsn.partition("://")[2].partition("@")[0] not in text


def quick(project: Project, *more: str, **changes: Any) -> int:
    """One SDK, a tiny burst, no monitor."""
    return main([*project.options(**changes), "--sdk=python", "--burst=5", "--no-uptime", *more])


def test_a_server_that_changes_one_value_is_caught(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The negative control of the real path: the API's answer is changed in one leaf."""
    event = running.Reader.event

    def changed(self: Any, event_id: str) -> Any:
        found = event(self, event_id)
        if found and (found.get("context") or {}).get("booking"):
            found["context"]["booking"]["client"]["visits"][0]["services"][0]["price"]["amount"] = 1501
        return found

    monkeypatch.setattr(running.Reader, "event", changed)
    assert quick(project) == 3
    assert project.report()["problems"][0].startswith("python pattern-booking-monitor: extra booking is")
    assert "NOT passed" in capsys.readouterr().out


def test_a_monitor_whose_target_never_breaks_fails_and_is_removed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the monitor: an alert that is not sent is not seen."""
    monkeypatch.setattr(running.Site, "broken", property(lambda _: False, lambda *_: None), raising=False)
    code = main([*project.options(), "--sdk=python", "--burst=5", "--uptime-wait=12"])
    uptime = project.report()["uptime"]
    assert (code, uptime["status"]) == (3, "failed")
    assert "step 'down' was not reached within 12 s" in uptime["reason"]
    assert leftovers(project) == []


def test_a_token_that_may_only_read_proves_all_but_the_monitor(project: Project) -> None:
    """It says what is missing, does not pass, and passes without the monitor."""
    with login(project.server.url, "admin@example.org", project.server.password) as session:
        project.token = session.ensure_token("reader", {"event:read", "project:read"}).token
    assert main([*project.options(), "--sdk=python", "--burst=5"]) == 3
    report = project.report()
    assert report["uptime"]["status"] == "not run"
    assert "project:write" in report["uptime"]["reason"]
    assert [problem.partition(":")[0] for problem in report["problems"]] == ["uptime not run"]
    assert quick(project) == 0
    assert leftovers(project) == []


def test_nobody_answers_a_private_address_that_the_server_cannot_reach(project: Project) -> None:
    """Nothing listens where the server is sent to: not run, with the reason, and removed."""
    code = main(
        [
            *project.options(reach="127.0.0.2"),
            "--bind=127.0.0.1",
            "--sdk=python",
            "--burst=5",
            "--uptime-wait=8",
        ]
    )
    uptime = project.report()["uptime"]
    assert (code, uptime["status"]) == (3, "not run")
    assert "did not reach http://127.0.0.2:" in uptime["reason"]
    assert leftovers(project) == []


Change = Callable[[Project], dict[str, Any]]


def _delete_project(project: Project) -> dict[str, Any]:
    project.server.client.projects.delete(project.organization, project.slug)
    return {}


def _delete_key(project: Project) -> dict[str, Any]:
    client = project.server.client
    old = client.keys.list(project.organization, project.slug)[0]
    client.keys.create(project.organization, project.slug, name="new")
    client.keys.delete(project.organization, project.slug, old["id"])
    return {}


def _other_project(project: Project) -> dict[str, Any]:
    client = project.server.client
    other = client.projects.create(project.organization, "proof", name="Other", platform="node")
    project.dsn = client.keys.list(project.organization, other["slug"])[0]["dsn"]["public"]
    return {}


def _no_dsn(project: Project) -> dict[str, Any]:
    project.dsn = "https://example.org/nothing"
    return {}


def _scope(project: Project) -> dict[str, Any]:
    with login(project.server.url, "admin@example.org", project.server.password) as session:
        project.token = session.ensure_token("projects", {"project:read"}).token
    return {}


def _stranger(project: Project) -> dict[str, Any]:
    project.token = "0" * 64
    return {}


def _missing_sdk(project: Project) -> dict[str, Any]:
    empty = project.directory / "empty"
    empty.mkdir()
    (empty / "package.json").write_text("{}")
    return {"app-dir": empty, "sdk": "node"}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_delete_project, "There is no project "),
        (_delete_key, "none of the keys of"),
        (_other_project, "belongs to another project"),
        (_no_dsn, "not a DSN"),
        (_scope, "event:read"),
        (_stranger, "does not know this API token"),
        (_missing_sdk, "Cannot find module '@sentry/node'"),
        (
            lambda project: {"app-dir": project.directory / "nowhere", "sdk": "node"},
            "is not the directory of a Node.js product",
        ),
        (lambda _: {"python": "/nowhere/python"}, "/nowhere/python is not a program here"),
        (lambda _: {"project": None}, "give --project too"),
        (lambda project: {"token-file": project.directory / "no"}, "has to hold the API token"),
        (lambda _: {"ca-path": "/nowhere.pem"}, "/nowhere.pem is not a file"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_kept(
    project: Project, change: Change, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, one line, no report."""
    changes = change(project)
    arguments = [*project.options(**changes), "--burst=5", "--no-uptime"]
    arguments += [] if "sdk" in changes else ["--sdk=python"]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""
    assert not (project.directory / "report.json").exists()
