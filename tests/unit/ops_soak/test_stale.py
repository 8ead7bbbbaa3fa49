"""Samples, a verdict or a comparison of another stack prove nothing about the one that is deployed now."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from unit.ops_soak import START, make_plan, make_sample

from glitchtip_ops.process import OpsError
from glitchtip_ops.soak.commands import describe_status, ordered
from glitchtip_ops.soak.config import SoakConfig
from glitchtip_ops.soak.plan import GO, NO_GO
from glitchtip_ops.soak.running import conclude, sample_due, start, status
from glitchtip_ops.soak.store import SoakFiles
from glitchtip_ops.soak.verdict import judge


@pytest.fixture
def go(tmp_path: Any) -> SoakFiles:
    """A soak of the stack ``old`` that ended with GO, as an uninstall that could not move it would leave it."""
    soak_files = SoakFiles(tmp_path / "m1")
    plan = make_plan(stack_id="old", run_id="r1")
    soak_files.directory.mkdir()
    soak_files.write_plan(plan)
    for seconds in range(0, 61, 10):
        soak_files.add(make_sample(seconds, stack_id="old"))
    assert conclude(soak_files, plan, START + timedelta(seconds=61))["verdict"] == GO
    return soak_files


def begin(soak_files: SoakFiles, stack_id: str, **options: Any) -> dict[str, Any]:
    settings: Any = SimpleNamespace(
        state_dir=soak_files.directory.parent, migration_id="m1", stack_id=stack_id, run_id="r2", url=""
    )
    later = START + timedelta(hours=1)
    return start(
        settings,
        SoakConfig(services=(), thresholds={}),
        60.0,
        10.0,
        restart=False,
        clock=lambda: later,
        versions=lambda _: {},
        **options,
    )


def test_a_new_stack_gets_no_go_from_the_samples_of_the_old_one(go: SoakFiles) -> None:
    assert status(go, START, "old")["verdict"] == GO
    found = status(go, START, "new")
    assert (found["state"], found["verdict"], found["plan"]) == ("absent", None, None)
    assert any("another GlitchTip stack" in line for line in describe_status(found))
    with pytest.raises(OpsError, match="another GlitchTip stack"):
        ordered(go, "new")


def test_phase_3_begins_anew_and_keeps_the_old_files(go: SoakFiles) -> None:
    predicted = begin(go, "new", dry_run=True)
    assert (predicted["changed"], predicted["verdict"]) == (True, None)
    assert go.verdict.exists()
    begun = begin(go, "new")
    assert (begun["changed"], begun["state"], begun["verdict"]) == (True, "running", None)
    plan = go.read_plan()
    assert plan is not None
    assert (plan.stack_id, plan.run_id) == ("new", "r2")
    assert not go.verdict.exists()
    assert not go.samples.exists()
    assert len(list(go.directory.glob("*.2026*"))) == 3


def test_the_same_stack_keeps_its_soak(go: SoakFiles) -> None:
    assert begin(go, "old")["changed"] is False
    assert begin(go, "old")["verdict"] == GO


def test_the_timer_takes_no_sample_of_another_stack(go: SoakFiles) -> None:
    go.verdict.unlink()
    taken: list[Any] = []
    taker: Any = SimpleNamespace(take=lambda *found: taken.append(found))
    assert sample_due(go, taker, stack_id="new")["state"] == "ended"
    assert taken == []


def test_every_sample_and_verdict_names_run_and_stack(go: SoakFiles) -> None:
    begin(go, "new")
    taker: Any = SimpleNamespace(take=lambda *_: make_sample(0))
    sample_due(go, taker, stack_id="new", clock=lambda: START + timedelta(hours=1))
    (line,) = go.samples.read_text().splitlines()
    assert (json.loads(line)["stack_id"], json.loads(line)["run_id"]) == ("new", "r2")
    verdict = judge(make_plan(stack_id="s", run_id="r"), [], now=START)
    assert (verdict["stack_id"], verdict["run_id"]) == ("s", "r")


@pytest.mark.parametrize("left", ["old", ""])
def test_samples_that_another_stack_left_are_a_gap(left: str) -> None:
    samples = [make_sample(seconds, stack_id="new") for seconds in range(0, 61, 10)]
    plan = make_plan(stack_id="new")
    now = START + timedelta(seconds=61)
    assert judge(plan, samples, now=now)["verdict"] == GO
    old = [make_sample(seconds, stack_id=left) for seconds in range(0, 61, 10)]
    found = judge(plan, [*old[:5], *samples[5:]], now=now)
    assert found["verdict"] == NO_GO
    assert found["figures"]["samples"] == 2


def test_a_comparison_of_another_stack_is_not_measured() -> None:
    parity = {"migration_id": "m1", "stack_id": "old", "compared_at": START.isoformat(), "ratio": 1.0}
    plan = make_plan(mode="mirror", require_parity=True, stack_id="new")
    found = judge(plan, [], now=START, parity=parity)
    assert "parity is required and was not measured: the comparison is of another stack" in found["reasons"]
