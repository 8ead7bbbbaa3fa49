"""A whole run: what it reports when all is well, and each way in which it is not."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from unit.ops_local_test.support import Clock, Immediate, Run, Sdk, Stack, Tracker, refused

from glitchtip_api import GlitchTipError
from glitchtip_ops.local_test import running
from glitchtip_ops.local_test.memory import Sampler
from glitchtip_ops.local_test.report import describe, markdown, proof
from glitchtip_ops.local_test.running import Uptime
from glitchtip_ops.local_test.target import Limits
from glitchtip_ops.process import OpsError


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "ThreadPoolExecutor", Immediate)


@pytest.fixture
def tracker() -> Tracker:
    return Tracker(Clock())


def both(tracker: Tracker, **options: Any) -> list[Sdk]:
    return [Sdk(tracker, "node", **options), Sdk(tracker, "python", **options)]


def test_a_tracker_that_keeps_everything_passes(tracker: Tracker) -> None:
    """Ten rows for each SDK, whole bursts, the figures, and lines for people."""
    senders = both(tracker)
    report = Run(tracker, senders, Stack(300, 350, 310)).run([100, 250])
    assert report["problems"] == []
    assert report["passed"]
    assert all(sender.checked for sender in senders)
    assert [row["ok"] for row in report["scenarios"]] == [True] * 20
    assert [row["sdk"] for row in report["scenarios"]] == ["node"] * 10 + ["python"] * 10
    assert all(field["ok"] for row in report["scenarios"] for field in row["fields"])
    assert [(burst["sent"], burst["stored"]) for burst in report["bursts"]] == [(100, 100), (250, 250)]
    assert report["bursts"][0]["by_sdk"]["node"]["sent"] == 50
    assert 2.0 <= report["latency_seconds"]["p50"] <= report["latency_seconds"]["max"] < 3.0
    assert (report["memory_mib"]["before"], report["memory_mib"]["peak"]) == (300.0, 350.0)
    assert (report["profiles_dropped"], report["uptime"]["status"]) == (2, "not asked")
    assert report["server"] == {
        "url": "http://127.0.0.1:9",
        "version": "5.2.0",
        "organization": "ai-admin",
        "project": "ai-admin",
    }
    assert set(report["across_sdks"].values()) == {"one each"}


def test_the_report_for_people_has_the_figures(tracker: Tracker) -> None:
    """Lines, Markdown and the sentence of proof say the same, and no secret."""
    report = Run(tracker, both(tracker), Stack(300)).run([100])
    text = "\n".join(describe(report))
    for part in ("pattern-queue-job", "ok, 16 fields", "peak 300.0 MiB", "verdict: passed", "p95"):
        assert part in text
    assert "| sdk-basic-error | ok, 11 fields | ok, 11 fields |" in markdown(report)
    assert proof(report).startswith(
        "20 of 20 scenarios of node and python read back (280 fields), burst of 100: 100"
    )
    assert "peak 300.0 MiB, uptime not asked" in proof(report)
    for shown in (text, markdown(report), proof(report), str(report)):
        assert "t" * 64 not in shown
        assert "d" * 32 not in shown


@pytest.mark.parametrize("lose", [[0], [25], [49]])
def test_one_lost_event_of_the_burst_is_one(tracker: Tracker, lose: list[int]) -> None:
    """Wherever it stood in the burst, exactly one is reported lost: it was accepted."""
    senders = [Sdk(tracker, "node", lose=lose), Sdk(tracker, "python")]
    report = Run(tracker, senders).run([100])
    burst = report["bursts"][0]
    assert (burst["sent"], burst["accepted"], burst["stored"], burst["lost"]) == (100, 100, 99, 1)
    assert report["problems"] == ["burst of 100: 1 events were accepted and never seen"]


def test_a_late_event_is_late_and_not_lost(tracker: Tracker) -> None:
    """Between patience (20 s) and grace (10 s more) it is seen late; afterwards it is lost."""
    late = Run(tracker, [Sdk(tracker, delayed={3: 25.0})]).run([100])
    assert (late["bursts"][0]["late"], late["bursts"][0]["lost"]) == (1, 0)
    assert late["problems"] == ["burst of 100: 1 events came later than 20 s after they were sent"]
    other = Tracker(Clock())
    lost = Run(other, [Sdk(other, delayed={3: 35.0})]).run([100])
    assert (lost["bursts"][0]["late"], lost["bursts"][0]["lost"]) == (0, 1)


def test_events_that_were_not_accepted_are_told_by_sdk(tracker: Tracker) -> None:
    """Connections that the server closed in the middle: the loss is explained, and whose it is."""
    senders = [Sdk(tracker, "node"), Sdk(tracker, "python", refuse=[1, 2])]
    report = Run(tracker, senders).run([100])
    assert (report["bursts"][0]["refused"], report["bursts"][0]["lost"]) == (2, 0)
    assert report["bursts"][0]["by_sdk"]["python"]["refused"] == 2
    assert len(report["problems"]) == 1
    assert "2 events were not accepted and not stored (python: 2 got no answer)" in report["problems"][0]


def test_slow_fat_restarted_and_without_a_trace(tracker: Tracker) -> None:
    """Latency and memory have limits, containers stay up, a trace has an answer, an SDK hands over."""
    slow = Tracker(Clock(), delay=6)
    assert "read back after" in Run(slow, both(slow)).run([10])["problems"][0]
    fat = Run(tracker, both(tracker), Stack(300, 600, 300)).run([10])
    assert fat["problems"] == ["the stack used 600 MiB, more than 500 MiB"]
    stack = Stack()
    stack.restart_after = 1
    problems = Run(tracker, both(tracker), stack).run([10])["problems"]
    assert problems == ["container glitchtip-web-1 was restarted during the test"]
    assert (
        "node: a trace was answered with nothing"
        in Run(tracker, both(tracker, trace=None)).run([10])["problems"][0]
    )
    problems = Run(tracker, both(tracker, complete=False)).run([10])["problems"]
    assert "could not hand over" in problems[0]


def test_a_tracker_that_stores_nothing(tracker: Tracker) -> None:
    """Every scenario is named, and that it was accepted."""
    tracker.delay = 999
    problems = Run(tracker, [Sdk(tracker)]).run([1])["problems"]
    assert "node sdk-basic-error: its event did not arrive (answered 200)" in problems
    assert "grouping: node: the same error twice in one issue is False, not True" in problems
    assert "burst of 1: 1 events were accepted and never seen" in problems


@pytest.mark.parametrize(("option", "named"), [("split", "same error twice"), ("merge", "share an issue")])
def test_wrong_grouping_is_named(tracker: Tracker, option: str, named: str) -> None:
    """The same error in two issues; different errors in one."""
    problems = Run(tracker, [Sdk(tracker, **{option: True})]).run([1])["problems"]
    assert len(problems) == 1
    assert named in problems[0]


def test_a_field_that_the_tracker_changed_fails_its_scenario_alone(tracker: Tracker) -> None:
    """The negative control of the whole run: one wrong value in one event."""
    take = tracker.take

    def damaging(event_id: str, scenario: str, sdk: str, group: str = "") -> None:
        take(event_id, scenario, sdk, group)
        if (scenario, sdk) == ("pattern-queue-job", "python"):
            tracker.sent[event_id][1]["context"]["retry"]["delayMs"] = 4001

    tracker.take = damaging  # type: ignore[method-assign]
    report = Run(tracker, both(tracker)).run([1])
    assert [(row["sdk"], row["scenario"]) for row in report["scenarios"] if not row["ok"]] == [
        ("python", "pattern-queue-job")
    ]
    assert report["problems"][0].startswith("python pattern-queue-job: extra retry is")


def test_a_level_of_an_event_is_not_that_of_its_issue(tracker: Tracker) -> None:
    """The issue says info here; the raw event tells its own."""
    assert Run(tracker, both(tracker)).run([1])["passed"]
    tracker.get = lambda *_: {}  # type: ignore[method-assign]
    problems = Run(tracker, both(tracker)).run([1])["problems"]
    assert "node sdk-user: level is 'info', not 'error'" in problems


def test_an_sdk_that_cannot_send_ends_the_test_at_once(tracker: Tracker) -> None:
    """Its own sentence is handed on, without waiting for events that never left."""
    senders = [Sdk(tracker, "node"), Sdk(tracker, "python", error=OpsError("no SDK here"))]
    began = tracker.clock()
    with pytest.raises(OpsError, match="no SDK here"):
        Run(tracker, senders).run([10])
    assert tracker.clock() - began < 5


def test_an_api_that_stays_away_is_one_sentence(tracker: Tracker) -> None:
    """What was sent is not guessed at."""

    def broken(*_: Any) -> Any:
        raise refused(502)

    tracker.events.iterate = broken
    with pytest.raises(OpsError, match="could not be read back"):
        Run(tracker, both(tracker)).run([10])


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ({"project": None}, "There is no project ai-admin/ai-admin"),
        ({"project": {"id": "7"}}, "sends to project number 1, but ai-admin/ai-admin is number 7"),
        ({"keys": [{"public": "e" * 32}]}, "none of the keys"),
    ],
)
def test_a_dsn_that_leads_elsewhere_is_refused_before_anything_is_sent(
    tracker: Tracker, what: dict[str, Any], sentence: str
) -> None:
    """A deleted project, another project, a deleted key: one wrong key would block the project for 30 s."""
    if "project" in what:
        tracker.projects.get = lambda *_: what["project"]
    if "keys" in what:
        tracker.keys.list = lambda *_: what["keys"]
    with pytest.raises(OpsError, match=sentence):
        Run(tracker, both(tracker)).run([10])
    assert tracker.sent == {}


def test_a_token_that_is_unknown_or_lacks_a_scope(tracker: Tracker) -> None:
    """401 in our words; 403 in the client's, which name the scope; nothing is sent."""

    def fails(status: int) -> Any:
        def get(*_: Any) -> Any:
            raise refused(status, "Permission denied")

        return get

    tracker.events.get = fails(403)
    with pytest.raises(GlitchTipError, match="Permission denied"):
        Run(tracker, both(tracker)).run([10])
    tracker.projects.get = fails(401)
    with pytest.raises(OpsError, match="does not know this API token"):
        Run(tracker, both(tracker)).run([10])
    assert tracker.sent == {}


def test_without_an_address_the_monitor_is_not_run_and_not_passed(tracker: Tracker) -> None:
    """A hosted server does not reach us by itself; who does not ask for the monitor passes."""
    run = Run(tracker, both(tracker), uptime=Uptime())
    run.target = run.target.__class__("https://errors.example.org", "o", "p", "t" * 64, run.target.dsn)
    report = run.run([1])
    assert (report["uptime"]["status"], report["passed"]) == ("not run", False)
    assert report["problems"][0].startswith(
        "uptime not run: https://errors.example.org is not on this machine"
    )
    run.uptime = None
    assert run.run([1])["passed"]


def test_an_address_that_is_not_ours_is_said(tracker: Tracker) -> None:
    """TEST-NET-1 is no address of this machine."""
    report = Run(tracker, both(tracker), uptime=Uptime(bind="192.0.2.1")).run([1])
    assert "192.0.2.1 is no address of this machine" in report["uptime"]["reason"]


def test_whatever_fails_the_monitor_is_stopped(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends only when the monitor's thread has, and that is told to stop."""
    told: list[bool] = []

    def watch(_: Any, __: Any, ___: str, stopped: threading.Event) -> None:
        told.append(stopped.wait(10))

    monkeypatch.setattr(running, "ThreadPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(Run, "watch", watch)
    with pytest.raises(OpsError):
        Run(tracker, [Sdk(tracker, error=OpsError("no"))], uptime=Uptime()).run([1])
    assert told == [True]


def test_the_list_is_paged_and_not_asked_a_thousand_times(tracker: Tracker) -> None:
    """A burst of 1000 costs some dozens of requests."""
    Run(tracker, both(tracker)).run([1000])
    assert len(tracker.requests) < 150


def test_the_sampler_keeps_the_peak_and_its_trouble() -> None:
    """The largest sample; an engine that stops answering is told and ends the sampling."""
    values = iter([100 * 2**20, 400 * 2**20, 200 * 2**20])
    with Sampler(lambda: next(values, 2**20), pause=0.001) as sampler:
        while sampler.samples < 4:
            pass
    assert sampler.peak == 400

    def broken() -> int:
        raise OpsError("docker stats failed")

    with Sampler(broken) as sampler:
        pass
    assert (sampler.samples, sampler.trouble) == (0, "docker stats failed")


def test_memory_that_could_not_be_sampled_is_a_problem(tracker: Tracker) -> None:
    """No figure is made up."""
    run = Run(tracker, both(tracker), Stack(), limits=Limits())
    sampler = Sampler(lambda: 1)
    sampler.trouble = "docker stats failed"
    run.judge_memory(1, sampler, 1)
    assert run.problems == ["the memory of the stack could not be sampled: docker stats failed"]
