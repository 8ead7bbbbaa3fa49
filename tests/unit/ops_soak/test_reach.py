"""A soak says with the sample that decides it, not at its end, that GO is out of reach; and never wrongly."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.ops_soak import START, make_plan, make_run, make_sample
from unit.ops_soak.test_verdict import ALONE

from glitchtip_ops.soak import NO_GO, Plan, SoakFiles, judge
from glitchtip_ops.soak.commands import describe_status, describe_step
from glitchtip_ops.soak.health import check_soaks
from glitchtip_ops.soak.reach import LASTING, OPEN, is_suspicious, reasons_against
from glitchtip_ops.soak.running import sample_due, status
from glitchtip_ops.soak.store import Sample

NOW = datetime(2026, 1, 10, 6, 2, tzinfo=UTC)
NO_NODE = "PM2: pm2 jlist failed with exit code 127: env: 'node': No such file or directory"


def test_every_criterion_is_known_as_lasting_or_open() -> None:
    found = {each["id"] for each in judge(make_plan(), make_run(), now=NOW)["criteria"]}
    assert found == LASTING | OPEN
    assert not LASTING & OPEN


@pytest.mark.parametrize(("spoil", "criterion"), [pytest.param(each[0], each[1], id=str(i)) for i, each in enumerate(ALONE)])
def test_what_alone_brings_no_go_is_found_before_the_end_when_it_lasts(spoil: Any, criterion: str) -> None:
    samples = make_run()
    spoil(samples)
    reasons = reasons_against(make_plan(), samples)
    whole = judge(make_plan(), samples, now=NOW)
    against = next(each for each in whole["criteria"] if each["id"] == criterion)
    lasting = criterion in LASTING and against["value"] != "-" and "the samples span" not in against["reasons"][0]
    assert bool(reasons) == lasting
    assert set(reasons) <= set(whole["reasons"])


def test_a_clean_run_never_says_it() -> None:
    samples = make_run()
    for count in range(len(samples) + 1):
        assert reasons_against(make_plan(), samples[:count]) == []
    for before, sample in zip([None, *samples], samples, strict=False):
        assert not is_suspicious(make_plan(), before, sample)


SPOILT = st.sampled_from(range(len(ALONE)))


@settings(deadline=None, max_examples=60)
@given(st.lists(SPOILT, max_size=3), st.integers(1, 6))
def test_once_said_no_later_sample_brings_go(spoilt: list[int], cut: int) -> None:
    samples = make_run()
    for index in spoilt:
        try:
            ALONE[index][0](samples)
        except (IndexError, KeyError, TypeError, ValueError):
            return  # two spoilers that need the same sample whole
    begin = samples[:cut]
    rest = [make_sample(10 * number) for number in range(cut, 7)]
    said = reasons_against(make_plan(), begin)
    assert not said or judge(make_plan(), [*begin, *rest], now=NOW)["verdict"] == NO_GO
    assert len(reasons_against(make_plan(), [*begin, *rest])) >= len(said)
    if said and not reasons_against(make_plan(), begin[:-1]):  # the sample that decides it is looked at
        assert is_suspicious(make_plan(), begin[-2] if len(begin) > 1 else None, begin[-1])


class Scripted:
    """Gives prepared samples."""

    def __init__(self, samples: list[dict[str, Any]]) -> None:
        self.samples = samples

    def take(self, *_: Plan | datetime | Sample | None) -> dict[str, Any]:
        return self.samples.pop(0)


@pytest.fixture
def files(tmp_path: Path) -> SoakFiles:
    made = SoakFiles(tmp_path / "m1")
    made.directory.mkdir()
    made.write_plan(make_plan())
    return made


def step(files: SoakFiles, sample: dict[str, Any]) -> dict[str, Any]:
    at = datetime.fromisoformat(sample["at"])
    return sample_due(files, Scripted([sample]), clock=lambda: at)


def test_the_first_sample_says_that_pm2_cannot_be_called(files: SoakFiles) -> None:
    """48 hours were lost by a node that a timer's PATH does not have."""
    found = step(files, make_sample(0, pm2=[], errors=[NO_NODE]))
    told = "\n".join(describe_step(found))
    assert "GO is out of reach" in told
    assert NO_NODE in told
    assert "--restart" in told
    now = START + timedelta(seconds=1)
    assert status(files, now)["out_of_reach"] == found["out_of_reach"]
    assert NO_NODE in "\n".join(describe_status(status(files, now)))


def test_it_is_said_again_with_each_later_sample_and_with_a_step_that_takes_none(files: SoakFiles) -> None:
    first = step(files, make_sample(0, errors=[NO_NODE]))["out_of_reach"]
    assert step(files, make_sample(10))["out_of_reach"] == first
    waiting = sample_due(files, Scripted([]), clock=lambda: START + timedelta(seconds=12))
    assert (waiting["state"], waiting["out_of_reach"]) == ("waiting", first)


def test_counts_that_are_allowed_are_summed_over_all_samples(files: SoakFiles) -> None:
    plan = replace(make_plan(), thresholds=replace(make_plan().thresholds, max_missed_probes=1))
    files.write_plan(plan)
    missed = {"event_id": "e" * 32, "captured": False, "seconds": 30.0, "error": "no answer"}
    assert step(files, make_sample(0, probe=missed))["out_of_reach"] == []
    assert step(files, make_sample(10))["out_of_reach"] == []
    assert "2 of 3 test events were not captured" in step(files, make_sample(20, probe=missed))["out_of_reach"][0]


def test_good_samples_cost_no_look_at_the_others(files: SoakFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """17,000 of them in 48 hours, on a server with one CPU."""
    step(files, make_sample(0))
    monkeypatch.setattr("glitchtip_ops.soak.running.reasons_against", None)
    assert step(files, make_sample(10))["out_of_reach"] == []


def test_a_new_run_begins_without_it(files: SoakFiles) -> None:
    step(files, make_sample(0, errors=[NO_NODE]))
    assert files.out_of_reach.exists()
    files.set_aside(START)
    assert not files.out_of_reach.exists()


def test_the_monitor_reports_soaks_that_run_and_only_those(files: SoakFiles, tmp_path: Path) -> None:
    settings: Any = type("Settings", (), {"state_dir": str(tmp_path), "migration_id": "m1"})
    now = START + timedelta(seconds=1)
    step(files, make_sample(0))
    assert [(each.name, each.ok) for each in check_soaks(settings, now)] == [("soak", True)]
    assert "no sample for" in check_soaks(settings, START + timedelta(seconds=90))[0].detail
    step(files, make_sample(10, errors=[NO_NODE]))
    bad = check_soaks(settings, START + timedelta(seconds=12))[0]
    assert (bad.ok, NO_NODE in bad.detail) == (False, True)
    files.verdict.write_text("{}")
    assert check_soaks(settings, now) == []
    settings.migration_id = "none"
    assert check_soaks(settings, now) == []
