"""Phase 1's judgement: what GlitchTip keeps of the SDK's events is found out field by field."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from unit.ops_support import container

from glitchtip_ops import local_test
from glitchtip_ops.docker_stack import Container, parse_container
from glitchtip_ops.local_test import (
    EXPECTATIONS,
    Expectation,
    Limits,
    LocalTest,
    Sent,
    describe,
    judge_containers,
    judge_event,
    judge_grouping,
    parse_output,
)
from glitchtip_ops.process import OpsError
from glitchtip_ops.settings import Settings

SCRIPT = Path(__file__).parents[3] / "roles/local_test/files/scenarios.cjs"
SETTINGS = Settings(
    migration_id="m1",
    url="http://127.0.0.1:9",
    public_url="http://localhost:9090",
    organization="ai-admin",
    project="ai-admin",
    project_id="1",
    compose_dir=Path("/x"),
    backup_dir=Path("/x"),
    state_dir=Path("/x"),
    token="t" * 64,
    dsn="http://" + "d" * 32 + "@127.0.0.1:9/1",
)


def stored(expected: Expectation, group: str = "7") -> dict[str, Any]:
    """An event as ``/api/0/projects/{org}/{project}/events/{id}/`` answers it when everything was kept."""
    frame = {"filename": "/app/scenarios.cjs", "function": "make", "lineNo": 30, "colNo": 3, "inApp": True}
    loader = {"filename": "node:internal/main", "function": "load", "lineNo": 1, "colNo": 1, "inApp": False}
    exception = {"values": [{"type": "Error", "stacktrace": {"frames": [loader, frame]}}]}
    crumbs = {"values": [{"message": text, "category": "test"} for text in expected.breadcrumbs]}
    tags = {**expected.tags, "local_test": expected.scenario, "environment": "local-test"}
    return copy.deepcopy(
        {
            "title": expected.title,
            "groupID": group,
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
            "context": dict(expected.extra) or None,
            "user": dict(expected.user) or None,
            "entries": [
                {"type": "breadcrumbs", "data": crumbs},
                *([{"type": "exception", "data": exception}] if expected.stack else []),
            ],
        }
    )


def by_name(scenario: str) -> Expectation:
    return next(item for item in EXPECTATIONS if item.scenario == scenario)


def test_the_script_has_exactly_the_expected_scenarios() -> None:
    """Five SDK scenarios and five patterns, the same in the script and in the expectations."""
    names = re.findall(r"^  '([a-z-]+)': \(", SCRIPT.read_text(), re.MULTILINE)
    assert names == [item.scenario for item in EXPECTATIONS]
    assert [name.partition("-")[0] for name in names] == ["sdk"] * 5 + ["pattern"] * 5


@pytest.mark.parametrize("expected", EXPECTATIONS, ids=lambda item: item.scenario)
def test_a_whole_event_has_no_problem(expected: Expectation) -> None:
    """What was kept completely is not complained about."""
    assert judge_event(expected, stored(expected), expected.level) == []


def _drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda event: event.update({key: None})


def _without_lines(event: dict[str, Any]) -> None:
    for frame in event["entries"][1]["data"]["values"][0]["stacktrace"]["frames"]:
        frame["lineNo"] = None


def _flatten(event: dict[str, Any]) -> None:
    event["context"]["booking"]["client"]["visits"] = "[Array]"


@pytest.mark.parametrize(
    ("scenario", "damage", "complaint"),
    [
        ("sdk-basic-error", _without_lines, "no stack trace"),
        ("sdk-basic-error", _drop("entries"), "no stack trace"),
        ("sdk-basic-error", _drop("title"), "title is None"),
        ("sdk-user", _drop("user"), "user email is None"),
        ("sdk-breadcrumbs", _drop("entries"), "breadcrumb 'select bookings' is missing"),
        ("sdk-extra", _drop("context"), "extra order is None"),
        ("pattern-database", _drop("tags"), "tag component is None"),
        ("pattern-booking-monitor", _flatten, "extra booking is"),
    ],
)
def test_what_was_not_kept_is_named(
    scenario: str, damage: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    """Each kind of loss turns the scenario red and says what is gone."""
    expected = by_name(scenario)
    event = stored(expected)
    damage(event)
    assert complaint in "; ".join(judge_event(expected, event, expected.level))


def test_a_wrong_level_is_named() -> None:
    """The level is the issue's: a warning that became an error is a loss."""
    expected = by_name("sdk-level-warning")
    assert judge_event(expected, stored(expected), "error") == ["level is error, not warning"]


@pytest.mark.parametrize(
    ("first", "second", "good"),
    [
        ({"groupID": "7"}, {"groupID": 7}, True),
        ({"groupID": "7"}, {"groupID": "8"}, False),
        ({"groupID": "7"}, None, False),
    ],
)
def test_grouping(first: dict[str, Any], second: dict[str, Any] | None, good: bool) -> None:
    """One error twice is one issue; a missing half proves nothing."""
    assert (judge_grouping(first, second) == []) is good


def test_containers_that_restarted_left_or_fell_ill() -> None:
    """A restart shows by count, by start time and by another id."""
    web = parse_container(container("web"))
    assert judge_containers([web], [web]) == []
    restarted = "container glitchtip-web-1 was restarted during the test"
    for change in ({"restarts": 1}, {"started_at": "2026-01-11T00:00:00Z"}, {"id": "f" * 64}):
        assert judge_containers([web], [replace(web, **change)]) == [restarted]
    assert judge_containers([web], [replace(web, health="unhealthy")]) == [
        "container glitchtip-web-1 is not well (running, unhealthy)"
    ]
    other = replace(web, name="glitchtip-worker-1")
    assert judge_containers([web, other], [web]) == ["container glitchtip-worker-1 is gone"]
    assert judge_containers([], []) == ["the stack has no containers"]


def test_output_of_the_script() -> None:
    """Times become seconds, answers are counted, anything else is refused."""
    lines: list[dict[str, Any]] = [
        {"scenario": "burst", "event_id": "a", "sent_at": 1500},
        {"scenario": "burst", "event_id": "b", "sent_at": 2000},
        {"event_id": "a", "status": 200},
        {"event_id": "b", "status": None},
        {"profiles": 1, "transaction_status": 200},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    sent = parse_output(text)
    assert (sent.at, sent.accepted, sent.profiles) == ({"a": 1.5, "b": 2.0}, 1, 1)
    for wrong in ("", "hello", text.rpartition("\n")[0]):
        with pytest.raises(OpsError, match="something else"):
            parse_output(wrong)


def test_events_that_were_not_accepted_say_why() -> None:
    """Connections that the server closed in the middle show as no answer: the burst's loss is explained."""
    sent = Sent({}, {"a": 200, "b": None, "c": None, "d": 429})
    assert local_test._refusals(sent) == ", 2 got no answer, 1 got 429"


class Tracker:
    """A GlitchTip that shows an event ``delay`` seconds after it was sent, and never those in ``lost``."""

    def __init__(self, delay: float = 2.0) -> None:
        self.now = 100.0
        self.delay = delay
        self.sent: dict[str, tuple[str, float]] = {}
        self.lost: set[str] = set()
        self.groups = {item.scenario: str(number) for number, item in enumerate(EXPECTATIONS)}
        self.events = self.issues = self

    def __call__(self, *_: Any, **_options: Any) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def get(self, *path: str) -> dict[str, Any] | None:
        if len(path) == 1:
            return {"level": EXPECTATIONS[int(path[0])].level}
        self.now += 0.01
        scenario, at = self.sent.get(path[2], ("", 0.0))
        if not scenario or path[2] in self.lost or self.now < at + self.delay:
            return None
        expected = by_name(scenario) if scenario != "burst" else EXPECTATIONS[0]
        return stored(expected, self.groups.get(scenario, "burst"))


class Stack:
    """Containers without an engine."""

    def __init__(self, mib: float = 300) -> None:
        self.mib = mib

    def containers(self) -> list[Container]:
        return [parse_container(container("web"))]

    def memory_used(self, _: Sequence[Container]) -> dict[str, int]:
        return {"glitchtip-web-1": int(self.mib * 2**20)}


class Run(LocalTest):
    """The test with a tracker and an SDK in this process; ``lose`` picks positions of the burst to lose."""

    def __init__(
        self, tracker: Tracker, mib: float = 300, lose: Sequence[int] = (), trace: int | None = 200
    ) -> None:
        super().__init__(
            SETTINGS,
            app_dir=Path("/x"),
            script=SCRIPT,
            node="node",
            user="root",
            stack=Stack(mib),  # type: ignore[arg-type]
            clock=lambda: tracker.now,
            sleep=self.wait,
        )
        self.tracker = tracker
        self.lose = lose
        self.trace = trace

    def wait(self, seconds: float) -> None:
        self.tracker.now += seconds

    def exchange(self, client: Any, items: Any, burst: Any, patience: float) -> Any:
        capturing: Future[Sent] = Future()
        capturing.set_result(self.capture(items, burst))
        ids = [item["event_id"] for item in items] + list(burst)
        return capturing.result(), self.read_back(client, ids, patience, capturing)

    def capture(self, items: Any, burst: Sequence[str]) -> Sent:
        tracker = self.tracker
        sent = {item["event_id"]: (item["scenario"], tracker.now) for item in items}
        sent |= dict.fromkeys(burst, ("burst", tracker.now))
        tracker.sent |= sent
        tracker.lost |= {burst[position] for position in self.lose if burst}
        return Sent({key: at for key, (_, at) in sent.items()}, dict.fromkeys(sent, 200), 1, self.trace)


def run(monkeypatch: pytest.MonkeyPatch, test: Run) -> dict[str, Any]:
    monkeypatch.setattr(local_test, "Client", test.tracker)
    return test.run(100, Limits(latency=5, stack_mib=500, patience=20))


def test_a_tracker_that_keeps_everything_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten rows, a whole burst, the figures, and lines for people."""
    report = run(monkeypatch, Run(Tracker()))
    assert report["problems"] == []
    assert report["passed"]
    assert [row["ok"] for row in report["scenarios"]] == [True] * 10
    assert (report["burst"]["sent"], report["burst"]["stored"]) == (100, 100)
    assert 2.0 <= report["latency_seconds"]["median"] <= report["latency_seconds"]["max"] < 3.0
    assert (report["stack_memory_mib"], report["profiles_dropped"]) == (300.0, 2)
    assert "100 of 100 stored" in "\n".join(describe(report))


@pytest.mark.parametrize("lose", [[0], [50], [99]])
def test_one_lost_event_of_the_burst_is_one(monkeypatch: pytest.MonkeyPatch, lose: list[int]) -> None:
    """Wherever it stood in the burst, exactly one is reported missing."""
    report = run(monkeypatch, Run(Tracker(), lose=lose))
    assert report["burst"]["stored"] == 99
    assert report["problems"] == [
        "1 of 100 events of the burst did not arrive within 20 s (100 were accepted)"
    ]


def test_slow_fat_and_ungrouped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency and memory have limits, a repeated error one issue, a trace an answer."""
    assert "read back after" in run(monkeypatch, Run(Tracker(delay=6)))["problems"][0]
    assert "600 MiB, more than 500 MiB" in run(monkeypatch, Run(Tracker(), mib=600))["problems"][0]
    assert "answered with nothing" in run(monkeypatch, Run(Tracker(), trace=None))["problems"][0]
    tracker = Tracker(delay=999)
    problems = run(monkeypatch, Run(tracker))["problems"]
    assert "sdk-basic-error: its event did not arrive" in problems
    assert "the same error twice is not one issue (issues: none)" in problems


def test_an_sdk_that_cannot_send_ends_the_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The process's own sentence is handed on, at once and not after the patience, and without the DSN."""
    script = tmp_path / "node"
    script.write_text(
        "#!/bin/sh\necho \"Cannot find module '@sentry/node' for $LOCAL_TEST_DSN\" >&2\nexit 1\n"
    )
    script.chmod(0o755)
    tracker = Tracker()
    monkeypatch.setattr(local_test, "Client", tracker)
    test = LocalTest(
        SETTINGS,
        app_dir=tmp_path,
        script=SCRIPT,
        node=str(script),
        user="root",
        stack=Stack(),  # type: ignore[arg-type]
    )
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(OpsError, match="could not send the test errors: Cannot find module") as error:
        test.run(1, Limits(patience=60))
    assert "d" * 32 not in str(error.value)
