"""GO needs every criterion met over the whole time; each criterion alone turns the verdict to NO_GO."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from glitchtip_ops.process import OpsError
from glitchtip_ops.soak import GO, NO_GO, Plan, Thresholds, count_error_lines, figures, judge, parse_duration

START = datetime(2026, 1, 10, 6, 0, tzinfo=UTC)
SERVICES = ("postgres", "valkey", "web", "worker")
PM2 = ("ai-admin-api", "ai-admin-batch-processor")
Samples = list[dict[str, Any]]


def plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "migration_id": "m1",
        "started_at": START.isoformat(),
        "duration": 60.0,
        "interval": 10.0,
        "services": SERVICES,
        "pm2_services": PM2,
        "thresholds": Thresholds(),
    }
    return Plan(**{**values, **changes})


def sample(seconds: float) -> dict[str, Any]:
    return {
        "at": (START + timedelta(seconds=seconds)).isoformat(),
        "containers": [
            {
                "service": service,
                "id": service,
                "state": "running",
                "health": "healthy",
                "well": True,
                "restarts": 0,
                "oom_killed": False,
                "started_at": "2026-01-09T00:00:00Z",
            }
            for service in SERVICES
        ],
        "memory": {
            "system_percent": 61.0,
            "system_source": "cgroup",
            "stack_used": 300 * 2**20,
            "stack_limit": 400 * 2**20,
        },
        "pm2": [
            {"name": PM2[0], "status": "online", "pid": 5, "restarts": 7, "job": False, "well": True},
            {"name": PM2[1], "status": "stopped", "pid": 0, "restarts": 1, "job": True, "well": True},
        ],
        "worker_errors": 0,
        "probe": {"event_id": "e" * 32, "captured": True, "seconds": 1.5, "error": None},
        "errors": [],
    }


@pytest.fixture
def good() -> Samples:
    return [sample(seconds) for seconds in range(0, 61, 10)]


def test_a_whole_clean_run_is_go(good: Samples) -> None:
    verdict = judge(plan(), good)
    assert (verdict["verdict"], verdict["reasons"]) == (GO, [])
    assert verdict["figures"]["samples"] == 7
    assert verdict["figures"]["probe_seconds_max"] == 1.5
    assert all(criterion["met"] for criterion in verdict["criteria"])


def set_container(index: int, service: str, **values: Any) -> Callable[[Samples], None]:
    def change(samples: Samples) -> None:
        for container in samples[index]["containers"]:
            if container["service"] == service:
                container.update(values)

    return change


def set_pm2(index: int, position: int, **values: Any) -> Callable[[Samples], None]:
    return lambda samples: samples[index]["pm2"][position].update(values)


def set_sample(index: int, **values: Any) -> Callable[[Samples], None]:
    return lambda samples: samples[index].update(values)


MISSED = {"event_id": "e" * 32, "captured": False, "seconds": 30.0, "error": "GET events answered 404"}
SLOW = {"event_id": "e" * 32, "captured": True, "seconds": 30.1, "error": None}
FULL = {"system_percent": 80.0, "system_source": "meminfo", "stack_used": 1, "stack_limit": 100}
TIGHT = {"system_percent": 10.0, "system_source": "meminfo", "stack_used": 95, "stack_limit": 100}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda samples: samples.clear(), "no sample was taken"),
        (lambda samples: samples.pop(), "the samples span 50 s of the ordered 60 s"),
        (lambda samples: samples.__delitem__(slice(1, 5)), r"gap\(s\) in the samples, the longest 50 s"),
        (lambda samples: samples.__delitem__(slice(0, 4)), "the longest 40 s"),
        (lambda samples: samples.insert(3, sample(5)), "the clock went backwards"),
        (
            set_container(3, "worker", well=False, state="restarting", health=None),
            "worker was restarting/None at",
        ),
        (set_container(3, "web", well=False, health="unhealthy"), "container web was running/unhealthy"),
        (lambda samples: samples[2]["containers"].pop(0), "container postgres was absent"),
        (set_container(-1, "worker", restarts=2), r"container worker restarted 2 time\(s\)"),
        (
            set_container(-1, "valkey", started_at="2026-01-10T06:00:30Z"),
            r"container valkey restarted 1 time\(s\)",
        ),
        (set_container(-1, "web", id="other"), r"container web restarted 1 time\(s\)"),
        (set_container(4, "worker", oom_killed=True), "worker was killed for lack of memory"),
        (set_sample(2, memory=FULL), r"system memory reached 80.0 % \(meminfo; allowed: below 80 %\)"),
        (set_sample(2, memory=TIGHT), "the stack used 95.0 % of its memory limits"),
        (set_pm2(5, 0, status="errored", well=False), "PM2 service ai-admin-api was errored"),
        (lambda samples: samples[4]["pm2"].pop(0), "PM2 service ai-admin-api was absent"),
        (set_pm2(-1, 0, restarts=8), r"PM2 service ai-admin-api restarted 1 time\(s\)"),
        (set_pm2(3, 1, status="errored", well=False), "PM2 service ai-admin-batch-processor was errored"),
        (set_sample(6, probe=MISSED), r"1 of 7 test events were not captured \(GET events answered 404\)"),
        (set_sample(6, probe=None), r"1 of 7 test events were not captured \(not read back\)"),
        (set_sample(1, probe=SLOW), r"the slowest test event took 30.1 s"),
        (set_sample(1, worker_errors=3), r"the worker logged 3 error line\(s\)"),
        (set_sample(1, errors=["PM2: the daemon does not answer"]), r"1 reading\(s\) failed, the first: PM2"),
    ],
)
def test_each_criterion_alone_is_enough_for_no_go(
    good: Samples, spoil: Callable[[Samples], Any], reason: str
) -> None:
    spoiled = copy.deepcopy(good)
    spoil(spoiled)
    verdict = judge(plan(), spoiled)
    assert verdict["verdict"] == NO_GO
    assert any(re.search(reason, found) for found in verdict["reasons"]), verdict["reasons"]


def test_memory_that_was_never_measured_is_no_go(good: Samples) -> None:
    for entry in good:
        entry["memory"] = None
    assert judge(plan(), good)["reasons"] == ["memory was never measured"]


def test_a_start_without_samples_for_long_counts_as_a_gap() -> None:
    late = [sample(seconds) for seconds in range(40, 101, 10)]
    assert "the longest 40 s" in judge(plan(), late)["reasons"][0]


def test_thresholds_are_the_plans(good: Samples) -> None:
    good[-1]["containers"][0]["restarts"] = 1
    good[2]["worker_errors"] = 2
    lenient = Thresholds(max_container_restarts=1, max_worker_errors=2)
    assert judge(plan(thresholds=lenient), good)["verdict"] == GO


def test_restarts_from_before_the_run_do_not_count(good: Samples) -> None:
    for entry in good:
        entry["containers"][0]["restarts"] = 9
    assert judge(plan(), good)["verdict"] == GO


def test_a_job_that_ran_again_is_no_restart(good: Samples) -> None:
    good[-1]["pm2"][1]["restarts"] = 5
    assert judge(plan(), good)["verdict"] == GO


def test_many_reasons_are_summed_up(good: Samples) -> None:
    for entry in good:
        entry["containers"] = []
    reasons = judge(plan(), good)["reasons"]
    assert len(reasons) == 6
    assert reasons[-1] == "... and 23 more"


def test_figures_of_nothing_are_empty() -> None:
    assert figures([])["samples"] == 0
    assert figures([])["probe_seconds_median"] is None


def test_a_plan_survives_its_file() -> None:
    assert Plan.from_json(json.loads(json.dumps(plan().to_json()))) == plan()
    with pytest.raises(OpsError, match="not one"):
        Plan.from_json({"migration_id": "m1"})


@pytest.mark.parametrize(
    ("text", "seconds"), [("60", 60), ("60s", 60), ("15m", 900), ("48h", 172800), ("2d", 172800)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "0", "0h", "-5m", "1.5h", "5 m", "h5", "٣m", "1w"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(OpsError, match="not a duration"):
        parse_duration(text)


def test_error_lines_of_a_log_are_counted() -> None:
    lines = [
        "[2026-01-10 06:00:00,1: ERROR/MainProcess] Task failed",
        "Traceback (most recent call last):",
        "2026-01-10 CRITICAL boom",
        "ERROR: connection lost",
        "[2026-01-10 06:00:00,1: INFO/MainProcess] handled 3 events with level error",
        "stored TerrorError",
    ]
    assert count_error_lines(lines) == 4
