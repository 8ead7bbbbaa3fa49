"""GO needs every criterion met over the whole time; each criterion alone turns the verdict to NO_GO."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from unit.ops_soak import START, make_plan, make_run, make_sample, with_mirror

from glitchtip_ops.process import OpsError
from glitchtip_ops.soak import GO, NO_GO, Plan, Thresholds
from glitchtip_ops.soak.plan import check_thresholds, check_times, parse_duration, span_text
from glitchtip_ops.soak.sampler import count_error_lines
from glitchtip_ops.soak.verdict import figures, judge, percentile

Samples = list[dict[str, Any]]
NOW = START + timedelta(seconds=62)


def verdict(samples: Samples, parity: dict[str, Any] | None = None, **plan: Any) -> dict[str, Any]:
    return judge(make_plan(**plan), samples, now=NOW, parity=parity)


def against(document: dict[str, Any]) -> list[str]:
    """Ids of the criteria that are not met."""
    return [each["id"] for each in document["criteria"] if each["met"] is False]


MIRROR_ONLY = ["mirror_delivery", "mirror_sentry", "mirror_glitchtip", "real_events"]


@pytest.fixture
def good() -> Samples:
    return make_run()


def test_a_whole_clean_run_is_go(good: Samples) -> None:
    found = verdict(good)
    assert (found["verdict"], found["reasons"], against(found)) == (GO, [], [])
    assert found["figures"]["samples"] == 7
    assert found["figures"]["probe_seconds_max"] == 1.5
    assert (found["migration_id"], found["judged_at"]) == ("m1", NOW.isoformat(timespec="seconds"))
    assert found["valid_for"] == 7 * 86400
    not_judged = [each["id"] for each in found["criteria"] if each["met"] is None]
    assert not_judged == ["dead_letters", "worker_log", *MIRROR_ONLY, "parity"]
    assert all(each["note"] for each in found["criteria"] if each["met"] is None)
    assert all(each["threshold"] and each["value"] and each["name"] for each in found["criteria"])


def test_a_whole_clean_run_with_the_mirror_is_go(good: Samples) -> None:
    parity = {"migration_id": "m1", "compared_at": NOW.isoformat(), "ratio": 1.0, "verdict": "equal"}
    found = verdict(with_mirror(good), parity, mode="mirror", require_parity=True)
    assert (found["verdict"], found["reasons"]) == (GO, [])
    assert {each["id"] for each in found["criteria"] if not each["met"]} == {"dead_letters", "worker_log"}
    told = next(each["value"] for each in found["criteria"] if each["id"] == "mirror_delivery")
    legs = found["figures"]["mirror"]
    assert f"{legs['glitchtip']['ok']} of {legs['sentry']['ok']}" in told


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


def set_queue(index: int, **values: Any) -> Callable[[Samples], None]:
    return lambda samples: samples[index]["queue_state"].update(values)


def every(**values: Any) -> Callable[[Samples], None]:
    def change(samples: Samples) -> None:
        for sample in samples:
            sample.update(copy.deepcopy(values))

    return change


def set_seconds(*seconds: float) -> Callable[[Samples], None]:
    def change(samples: Samples) -> None:
        for sample, value in zip(samples, seconds, strict=True):
            sample["probe"]["seconds"] = value

    return change


MISSED = {"event_id": "e" * 32, "captured": False, "seconds": 30.0, "error": "GET events answered 404"}
FULL = {"system_percent": 80.0, "system_source": "meminfo", "stack_used": 1, "stack_limit": 100}
TIGHT = {"system_percent": 10.0, "system_source": "meminfo", "stack_used": 95, "stack_limit": 100}
BUSY = {"busy": 1, "total": 2, "cores": 2, "load1": 9.0, "load5": 8.1, "percent": None}
DISKS = [{"path": "/", "percent": 20.0, "free": 5}, {"path": "/var/lib/docker", "percent": 90.0, "free": 1}]

ALONE: list[tuple[Callable[[Samples], Any], str, str]] = [
    (lambda samples: samples.pop(), "coverage", "the samples span 50 s of the ordered 60 s"),
    (lambda samples: samples.__delitem__(slice(1, 5)), "coverage", "gap(s) in the samples, the longest 50 s"),
    (lambda samples: samples.insert(3, make_sample(5)), "coverage", "the clock went backwards"),
    (
        set_container(3, "worker", well=False, state="restarting", health=None),
        "uptime",
        "worker was restarting/None at",
    ),
    (
        set_container(3, "web", well=False, health="unhealthy"),
        "uptime",
        "container web was running/unhealthy",
    ),
    (lambda samples: samples[2]["containers"].pop(0), "uptime", "container postgres was absent"),
    (set_container(-1, "worker", restarts=2), "crashes", "container worker restarted 2 time(s)"),
    (set_container(-1, "valkey", started_at="2026-01-10T06:00:55Z"), "crashes", "valkey restarted 1 time(s)"),
    (set_container(-1, "web", id="other"), "crashes", "container web restarted 1 time(s)"),
    (set_container(4, "worker", oom_killed=True), "crashes", "worker was killed for lack of memory"),
    (set_sample(2, memory=FULL), "memory", "system memory reached 80.0 % (meminfo, "),
    (every(memory=None), "memory", "memory was never measured"),
    (set_sample(2, memory=TIGHT), "stack_memory", "the stack used 95.0 % of its memory limits"),
    (every(cpu=BUSY), "cpu", "the load per core was above 4 (95th percentile: 4.05)"),
    (every(cpu=None), "cpu", "the load was never measured"),
    (set_sample(5, disk=DISKS), "disk", "/var/lib/docker was 90.0 % full"),
    (every(disk=[]), "disk", "the disk was never measured"),
    (set_pm2(5, 0, status="errored", pid=0, well=False), "pm2_online", "ai-admin-api was errored"),
    (lambda samples: samples[4]["pm2"].pop(0), "pm2_online", "PM2 service ai-admin-api was absent"),
    (set_pm2(3, 1, status="errored", well=False), "pm2_online", "ai-admin-batch-processor was errored"),
    (set_pm2(-1, 0, restarts=8), "pm2_restarts", "PM2 service ai-admin-api restarted 1 time(s)"),
    (set_pm2(-1, 0, restarts=0, pid=99), "pm2_restarts", "PM2 service ai-admin-api restarted 1 time(s)"),
    (set_sample(6, probe=MISSED), "probes", "1 of 7 test events were not captured (GET events answered 404)"),
    (set_sample(6, probe=None), "probes", "1 of 7 test events were not captured (not read back)"),
    (set_seconds(1, 1, 1, 1, 1, 1, 30.1), "probe_max", "the slowest test event took 30.1 s"),
    (set_seconds(16, 16, 16, 16, 16, 16, 16), "probe_p95", "one in twenty test events took 16.0 s"),
    (
        set_container(4, "postgres", oom_kills=2),
        "crashes",
        "2 process(es) of container postgres were killed for lack",
    ),
    (set_queue(2, waiting=2001), "queue", "2001 events waited at"),
    (set_queue(2, oldest=301.0), "queue", "an event had waited for 301 s at"),
    (set_queue(2, left_behind=4), "queue", "4 events wait in the list of the 5.2 line"),
    (set_queue(2, abandoned=1), "unacked", "1 messages were left unacknowledged"),
    (set_queue(3, line="6.x", dead_letters=5), "dead_letters", "5 events or tasks were given up"),
    (set_sample(1, errors=["PM2: no answer"]), "readings", "1 reading(s) failed, the first: PM2: no answer"),
]


@pytest.mark.parametrize(("spoil", "criterion", "reason"), ALONE)
def test_each_criterion_alone_is_enough_for_no_go(
    good: Samples, spoil: Callable[[Samples], Any], criterion: str, reason: str
) -> None:
    spoil(good)
    found = verdict(good)
    assert found["verdict"] == NO_GO
    expected = {criterion, "probe_p95"} if criterion == "probe_max" else {criterion}
    assert set(against(found)) == expected, found["reasons"]
    assert any(reason in each for each in found["reasons"]), found["reasons"]


def legs(index: int, leg: str, **values: int) -> Callable[[Samples], None]:
    return lambda samples: samples[index]["mirror"][leg].update(values)


@pytest.mark.parametrize(
    ("spoil", "criteria", "reason"),
    [
        (
            legs(2, "glitchtip", ok=90),
            {"mirror_delivery"},
            "GlitchTip took 690 envelopes, 98.57 % of the 700",
        ),
        (legs(2, "sentry", sent=110, failed=10), {"mirror_sentry"}, "Sentry's leg failed 10 of 710 times"),
        (legs(2, "glitchtip", sent=110, failed=10), {"mirror_glitchtip"}, "GlitchTip's leg failed 10 of 710"),
        (every(mirror=None), {"mirror_delivery", "mirror_sentry", "mirror_glitchtip"}, "never counted"),
        (
            every(real={"issues": 0, "more": False}),
            {"real_events"},
            "0 issue(s) with events of the product itself",
        ),
        (every(real=None), {"real_events"}, "real events were never looked for"),
    ],
)
def test_each_criterion_of_the_mirror_alone_is_enough_for_no_go(
    good: Samples, spoil: Callable[[Samples], Any], criteria: set[str], reason: str
) -> None:
    with_mirror(good)
    spoil(good)
    found = verdict(good, mode="mirror")
    assert set(against(found)) == criteria
    assert any(reason in each for each in found["reasons"]), found["reasons"]


def test_a_mirror_through_which_nothing_went_proves_nothing(good: Samples) -> None:
    with_mirror(good)
    for sample in good:
        sample["mirror"].update(
            sentry={"sent": 0, "ok": 0, "failed": 0}, glitchtip={"sent": 0, "ok": 0, "failed": 0}
        )
    assert verdict(good, mode="mirror")["reasons"] == ["Sentry took no envelope through the mirror"]


def parity_of(**changes: Any) -> dict[str, Any]:
    base = {"migration_id": "m1", "compared_at": NOW.isoformat(), "ratio": 1.0, "verdict": "equal"}
    return {**base, **changes}


@pytest.mark.parametrize(
    ("parity", "met", "text"),
    [
        (parity_of(), True, ""),
        (parity_of(ratio=0.99), True, ""),
        (parity_of(ratio=0.98), False, "GlitchTip has 98.00 % of Sentry's events"),
        (None, False, "parity is required and was not measured: glitchtip-ops parity has not run"),
        (parity_of(migration_id="m0"), False, "is of another migration"),
        (parity_of(compared_at="2026-01-10T05:00:00Z"), False, "is older than this soak"),
        (parity_of(compared_at="yesterday"), False, "tells no time"),
        (parity_of(ratio=None), False, "found no event in Sentry"),
    ],
)
def test_parity_that_is_required_must_be_there_be_of_this_soak_and_be_enough(
    good: Samples, parity: dict[str, Any] | None, met: bool, text: str
) -> None:
    found = verdict(with_mirror(good), parity, mode="mirror", require_parity=True)
    assert (found["verdict"] == GO) is met
    assert text in " ".join(found["reasons"])


def test_parity_that_is_not_required_and_not_measured_is_said_and_does_not_count(good: Samples) -> None:
    found = verdict(with_mirror(good), None, mode="mirror")
    (parity,) = [each for each in found["criteria"] if each["id"] == "parity"]
    assert (found["verdict"], parity["met"]) == (GO, None)
    assert parity["note"] == "not measured: glitchtip-ops parity has not run"


def test_parity_that_is_bad_counts_although_it_is_not_required(good: Samples) -> None:
    assert verdict(with_mirror(good), parity_of(ratio=0.5), mode="mirror")["verdict"] == NO_GO


def test_after_the_cutover_real_events_are_wanted_and_no_mirror(good: Samples) -> None:
    with_mirror(good)
    for sample in good:
        del sample["mirror"]
    assert verdict(good, mode="after")["verdict"] == GO
    every(real={"issues": 0})(good)
    assert against(verdict(good, mode="after")) == ["real_events"]


def test_no_sample_at_all_is_no_go() -> None:
    found = verdict([])
    assert found["reasons"][0] == "no sample was taken"
    assert {"coverage", "memory", "cpu", "disk", "probe_max", "probe_p95"} <= set(against(found))


def test_a_start_without_samples_for_long_counts_as_a_gap() -> None:
    late = [make_sample(seconds) for seconds in range(40, 101, 10)]
    assert "the longest 40 s" in verdict(late)["reasons"][0]


def test_a_timer_that_is_a_second_early_covers_the_time_and_two_seconds_do_not() -> None:
    almost = [make_sample(seconds) for seconds in (0, 10, 20, 30, 40, 50)]
    assert verdict([*almost, make_sample(59.2)])["verdict"] == GO
    assert verdict([*almost, make_sample(58)])["verdict"] == NO_GO


def test_thresholds_are_the_plans(good: Samples) -> None:
    good[-1]["containers"][0]["restarts"] = 1
    good[2]["queue_state"].update(waiting=5000, abandoned=2)
    good[3]["errors"] = ["x: y"]
    lenient = Thresholds(
        max_container_restarts=1, max_queued_events=5000, max_abandoned_events=2, max_failed_readings=1
    )
    assert verdict(good)["verdict"] == NO_GO
    assert verdict(good, thresholds=lenient)["verdict"] == GO


def test_restarts_from_before_the_run_do_not_count(good: Samples) -> None:
    for entry in good:
        entry["containers"][0]["restarts"] = 9
    assert verdict(good)["verdict"] == GO


def test_a_counter_that_was_reset_does_not_hide_the_restarts_after_it(good: Samples) -> None:
    for entry, restarts in zip(good, (9, 9, 0, 1, 2, 2, 2), strict=True):
        entry["containers"][0]["restarts"] = restarts
    assert "container postgres restarted 2 time(s) (allowed: 0)" in verdict(good)["reasons"]


def test_a_job_that_ran_again_is_no_restart(good: Samples) -> None:
    good[-1]["pm2"][1]["restarts"] = 5
    assert verdict(good)["verdict"] == GO


def test_pm2_is_not_judged_when_no_service_is_named(good: Samples) -> None:
    found = verdict(good, pm2_services=())
    assert found["verdict"] == GO
    assert [each["met"] for each in found["criteria"] if each["id"].startswith("pm2")] == [None, None]


def test_the_stack_is_not_judged_on_the_products_own_host(good: Samples) -> None:
    for entry in good:
        entry["containers"], entry["memory"]["stack_limit"], entry["worker_errors"] = [], 0, None
        entry["queue_state"] = None
    found = verdict(good, services=())
    assert found["verdict"] == GO
    notes = {each["id"]: each["note"] for each in found["criteria"] if each["met"] is None}
    assert {"uptime", "crashes", "stack_memory", "worker_log", "queue", "unacked", "dead_letters"} <= set(
        notes
    )
    assert "another host" in notes["worker_log"]


LOGS = (
    "[2026-01-10 06:00:00,1: ERROR/MainProcess] Task failed",
    "Traceback (most recent call last):",
    "socket.gaierror: [Errno -2] Name or service not known",
    "Error: OperationalError('connection failed')",
    "error connecting in 'pool-1'",
    "CRITICAL/MainProcess Unrecoverable error",
)


@pytest.mark.parametrize("line", LOGS)
@pytest.mark.parametrize("times", [1, 5000])
def test_no_text_of_a_log_alone_changes_the_verdict(good: Samples, line: str, times: int) -> None:
    for entry in good:
        entry["worker_errors"] = count_error_lines([line] * times)
    found = verdict(good, thresholds=Thresholds(max_worker_errors=0))
    assert (found["verdict"], found["reasons"]) == (GO, [])
    (shown,) = [each for each in found["criteria"] if each["id"] == "worker_log"]
    assert shown["met"] is None
    assert shown["value"] == f"{sum(entry['worker_errors'] for entry in good)} lines look like errors"


def test_the_silence_of_a_log_hides_no_bad_outcome(good: Samples) -> None:
    for spoil, criterion, _ in ALONE:
        samples = copy.deepcopy(good)
        spoil(samples)
        assert all(not entry["worker_errors"] for entry in samples)
        assert criterion in against(verdict(samples))


def test_dead_letters_from_before_the_soak_do_not_count(good: Samples) -> None:
    for entry in good:
        entry["queue_state"].update(line="6.x", dead_letters=9)
    assert verdict(good)["verdict"] == GO


def test_samples_of_an_older_version_have_no_queue_to_judge(good: Samples) -> None:
    for entry in good:
        del entry["queue_state"]
    found = verdict(good)
    assert found["verdict"] == GO
    notes = {each["id"]: each["note"] for each in found["criteria"] if each["met"] is None}
    assert "not measured" in notes["queue"]


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ({}, False),
        ({"started_at": "2026-01-10T06:00:55Z"}, False),  # by hand
        ({"started_at": "2026-01-10T06:00:55Z", "restarts": 1}, True),  # by the engine: killed again
        ({"id": "another"}, True),
    ],
)
def test_a_flag_of_a_kill_before_the_soak_counts_only_for_a_new_one(
    good: Samples, changes: dict[str, Any], counted: bool
) -> None:
    for entry in good:
        entry["containers"][0]["oom_killed"] = True
    good[-1]["containers"][0].update(changes)
    reasons = verdict(good)["reasons"]
    assert any("killed for lack of memory" in reason for reason in reasons) is counted


def test_an_oom_counter_from_before_the_soak_does_not_count_and_one_of_a_new_start_does(
    good: Samples,
) -> None:
    for entry in good:
        entry["containers"][0]["oom_kills"] = 3
    assert verdict(good)["verdict"] == GO
    good[-1]["containers"][0].update(oom_kills=1, started_at="2026-01-10T06:00:55Z")
    assert any("1 process(es) of container postgres" in each for each in verdict(good)["reasons"])


def test_a_worker_log_that_could_not_be_read_is_a_failed_reading_not_a_clean_log(good: Samples) -> None:
    good[2].update(worker_errors=None, errors=["worker log: no running container"])
    assert against(verdict(good)) == ["readings"]


def test_many_reasons_are_summed_up(good: Samples) -> None:
    for entry in good:
        entry["containers"] = []
    reasons = verdict(good)["reasons"]
    assert len(reasons) == 6
    assert reasons[-1] == "... and 23 more"


def test_figures_of_nothing_are_empty() -> None:
    assert figures([])["samples"] == 0
    assert figures([])["probe_seconds_median"] is None


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile([1.0], 95) == 1.0
    assert percentile([float(number) for number in range(1, 101)], 95) == 95.0
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0


def test_a_plan_survives_its_file() -> None:
    assert Plan.from_json(json.loads(json.dumps(make_plan().to_json()))) == make_plan()
    with pytest.raises(OpsError, match="not one"):
        Plan.from_json({"migration_id": "m1"})


@pytest.mark.parametrize(
    ("text", "seconds"), [("60", 60), ("60s", 60), ("15m", 900), ("48h", 172800), ("2d", 172800)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "0", "0h", "-5m", "1.5h", "5 m", "h5", "٣m", "1w", "9" * 400])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(OpsError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "interval", "sentence"),
    [
        (59, 10, "between 60 s and 7 days"),
        (604801, 900, "7 days"),
        (60, 9, "10 s apart"),
        (60, 61, "longer than"),
    ],
)
def test_times_that_prove_nothing_are_refused(duration: float, interval: float, sentence: str) -> None:
    with pytest.raises(OpsError, match=sentence):
        check_times(duration, interval)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"max_memory": 80}, "there is no threshold max_memory "),
        ({"max_memory_percent": -1}, "max_memory_percent is -1; it cannot be negative"),
        ({"max_memory_percent": 101}, "a percentage ends at 100"),
        ({"min_mirror_percent": 100.5}, "a percentage ends at 100"),
        ({"max_memory_percent": "80"}, "'80', which is not a number"),
        ({"max_memory_percent": None}, "not a number"),
        ({"max_memory_percent": True}, "not a number"),
        ({"max_memory_percent": float("nan")}, "not a number"),
        ({"max_probe_seconds": float("inf")}, "not a number"),
        ({"max_pm2_restarts": 1.5}, "not a whole number"),
        ({"max_memory_percent": 0}, "which no host can keep to"),
        ({"max_probe_seconds": 5, "max_probe_p95_seconds": 6}, "is above max_probe_seconds"),
        (["max_memory_percent"], "not a mapping"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused_in_one_sentence(given: Any, sentence: str) -> None:
    with pytest.raises(OpsError) as caught:
        check_thresholds(given)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("see parallel_run_thresholds in the inventory")


def test_thresholds_keep_their_defaults_and_a_lower_bound_pulls_the_percentile_along() -> None:
    assert check_thresholds({}) == Thresholds()
    found = check_thresholds({"max_probe_seconds": 5, "max_pm2_restarts": 2.0})
    assert (found.max_probe_p95_seconds, found.max_pm2_restarts) == (5.0, 2)
    assert isinstance(found.max_pm2_restarts, int)


def test_durations_are_told_as_people_say_them() -> None:
    told = [span_text(seconds) for seconds in (0, 60.2, 900, 172800, 125, 5400)]
    assert told == ["0 s", "60 s", "15 min", "48 h", "2 min 5 s", "1 h 30 min"]


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
