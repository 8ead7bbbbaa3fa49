"""What has to hold before services are restarted: the window and the parallel run's verdict, or a journalled reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from unit.cutover.simulation import NEW, OLD, Simulation

from glitchtip_cutover.config import VerdictSettings
from glitchtip_cutover.errors import CutoverError, UsageError
from glitchtip_cutover.verdict import verdict_problem
from glitchtip_cutover.window import parse_window

AMSTERDAM = "Europe/Amsterdam"


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(AMSTERDAM)).timestamp()


@pytest.mark.parametrize(
    ("window", "moment", "is_open"),
    [
        ("Sun 06:00-08:00", "2026-11-22T06:00", True),
        ("Sun 06:00-08:00", "2026-11-22T07:59:59", True),
        ("Sun 06:00-08:00", "2026-11-22T08:00", False),
        ("Sun 06:00-08:00", "2026-11-21T07:00", False),
        ("sat,sun 22:00-02:00", "2026-11-21T23:00", True),
        ("Sat,Sun 22:00-02:00", "2026-11-23T01:59", True),
        ("Sat,Sun 22:00-02:00", "2026-11-23T02:00", False),
        ("Sat,Sun 22:00-02:00", "2026-11-21T01:00", False),
        ("Sat 20:00-24:00", "2026-11-21T23:59", True),
        ("Sat 20:00-24:00", "2026-11-22T00:00", False),
        ("2026-11-29 06:00-08:00", "2026-11-29T06:30", True),
        ("2026-11-29 06:00-08:00", "2026-11-28T06:30", False),
        ("2026-11-29 23:00-01:00", "2026-11-30T00:30", True),
        # the clock goes back at 03:00 on 2026-10-25: the wall's hours count
        ("Sun 06:00-08:00", "2026-10-25T06:00", True),
    ],
)
def test_a_window_is_open_by_the_wall_clock_of_its_zone(window: str, moment: str, is_open: bool) -> None:
    parsed = parse_window(f"{window} {AMSTERDAM}")
    assert parsed is not None
    assert (parsed.problem(at(moment)) is None) == is_open


def test_a_closed_window_says_when_it_opens_and_a_past_one_that_it_is_over() -> None:
    weekly, dated = (
        parse_window(f"Sun 06:00-08:00 {AMSTERDAM}"),
        parse_window(f"2026-11-20 06:00-08:00 {AMSTERDAM}"),
    )
    assert weekly is not None
    assert dated is not None
    assert "it opens Sun 2026-11-29 06:00" in str(weekly.problem(at("2026-11-22T08:00")))
    assert "lies in the past" in str(dated.problem(at("2026-11-20T08:00")))
    assert "lies in the past" not in str(dated.problem(at("2026-11-19T08:00")))


@pytest.mark.parametrize(
    "text",
    [
        "Sonntag 06:00-08:00",
        "Sun 6-8",
        "Sun 06:00-06:00",
        "2026-02-30 06:00-08:00",
        "Sun 25:00-26:00",
        "Sun 06:00-08:00 Mars/Phobos",
        "Xyz 01:00-02:00",
    ],
)
def test_a_window_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be like|begins and ends|does not know"):
        parse_window(text)


def test_no_window_is_always() -> None:
    assert parse_window("  ") is None


NOW = datetime(2026, 11, 22, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there is no verdict"),
        ("{", "cannot be read"),
        ([], "holds no verdict"),
        ({"verdict": "NO_GO", "reasons": ["3 containers restarted"]}, "NO_GO: 3 containers restarted"),
        ({"verdict": "GO", "migration_id": "other"}, "not of this migration"),
        ({"verdict": "GO", "migration_id": "m"}, "does not say when"),
        ({"verdict": "GO", "migration_id": "m", "judged_at": "yesterday"}, "does not say when"),
        ({"verdict": "GO", "migration_id": "m", "judged_at": "2026-11-20T05:59:00+00:00"}, "too old: 2 days"),
        ({"verdict": "GO", "migration_id": "m", "judged_at": "2026-11-22T07:00:00Z"}, "from the future"),
    ],
)
def test_only_a_fresh_go_of_this_migration_counts(tmp_path: Path, content: Any, sentence: str) -> None:
    path = tmp_path / "verdict.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    problem = verdict_problem(VerdictSettings(path, 172800), "m", NOW.timestamp())
    assert sentence in str(problem)
    assert "\n" not in str(problem)


def test_a_fresh_go_passes(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    path.write_text(
        json.dumps({"verdict": "GO", "migration_id": "m", "judged_at": "2026-11-22T05:00:00+00:00"})
    )
    assert verdict_problem(VerdictSettings(path, 172800), "m", NOW.timestamp()) is None


@pytest.mark.parametrize("stack_id", ["removed", "", None])
def test_a_go_of_another_stack_than_the_deployed_one_does_not_pass(tmp_path: Path, stack_id: str | None) -> None:
    path = tmp_path / "verdict.json"
    verdict = {"verdict": "GO", "migration_id": "m", "judged_at": "2026-11-22T05:00:00+00:00", "stack_id": stack_id}
    path.write_text(json.dumps(verdict))
    problem = verdict_problem(VerdictSettings(path, 172800, "deployed"), "m", NOW.timestamp())
    assert "another GlitchTip stack than the one deployed now; run phase 3 again" in str(problem)
    path.write_text(json.dumps({**verdict, "stack_id": "deployed"}))
    assert verdict_problem(VerdictSettings(path, 172800, "deployed"), "m", NOW.timestamp()) is None


def gated(root: Path, **changes: Any) -> Simulation:
    world = Simulation(
        root, window="2026-11-20 06:00-08:00 UTC", verdict={"file": str(root / "verdict")}, **changes
    )
    world.cutover().snapshot()
    return world


def test_apply_and_plan_refuse_a_window_in_the_past_and_a_missing_verdict(tmp_path: Path) -> None:
    world = gated(tmp_path)
    plan = world.cutover().plan()
    assert [gate["passed"] for gate in plan["gates"]] == [False, False]
    assert plan["ready"] is False
    with pytest.raises(CutoverError, match="lies in the past") as caught:
        world.cutover().apply()
    assert caught.value.exit_code == 1
    with pytest.raises(CutoverError, match="there is no verdict"):
        world.cutover().apply(override_window="the owner is awake")
    assert set(world.uses().values()) == {OLD}
    assert world.pm2.restarted == []
    assert [event for event, facts in world.told if facts["passed"] is False] == ["gate", "gate"]


def test_a_reason_passes_a_gate_and_is_journalled(tmp_path: Path) -> None:
    world = gated(tmp_path)
    world.cutover().apply(override_window="the owner is awake", override_verdict="hosted, soaked there")
    assert set(world.uses().values()) == {NEW}
    told = [
        (r["gate"], r["reason"]) for r in world.cutover().journal.records() if r["event"] == "gate_overridden"
    ]
    assert told == [("window", "the owner is awake"), ("verdict", "hosted, soaked there")]


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_reason_is_none(tmp_path: Path, empty: str) -> None:
    world = gated(tmp_path)
    with pytest.raises(UsageError, match="--override-verdict needs a reason"):
        world.cutover().apply(override_window="x", override_verdict=empty)


def test_a_reason_that_was_not_needed_leaves_no_record(tmp_path: Path) -> None:
    world = Simulation(tmp_path)
    world.cutover().snapshot()
    world.cutover().apply(override_window="just in case")
    assert "gate_overridden" not in {record["event"] for record in world.cutover().journal.records()}


def test_neither_the_mirror_needs_a_verdict_nor_the_way_back_anything(tmp_path: Path) -> None:
    world = gated(tmp_path)
    world.cutover().apply("mirror", override_window="x")
    world.cutover().rollback()
    assert set(world.uses().values()) == {OLD}


def test_what_stands_is_repeated_without_asking_the_gates(tmp_path: Path) -> None:
    world = gated(tmp_path)
    world.cutover().apply(override_window="x", override_verdict="y")
    world.cutover().confirm()
    assert world.cutover().plan()["ready"] is True
    assert world.cutover().apply()["changed"] is False


def test_what_a_switch_and_a_rollback_leave_names_migration_run_and_stack(tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"stack_id": "s1", "run_id": "r1"}))
    new = Simulation(tmp_path).config.document["new"]
    world = Simulation(tmp_path, new={**new, "settings_file": str(settings)})
    cutover = world.cutover()
    cutover.snapshot()
    cutover.apply()
    cutover.confirm()
    assert cutover.status()["stack_id"] == "s1"
    begun = next(record for record in cutover.journal.records() if record["event"] == "apply_begin")
    kept = json.loads((world.config.state_dir / "applied.json").read_text())
    cutover.rollback()
    back = json.loads((world.config.state_dir / "rolled_back.json").read_text())
    for record in (begun, kept, back):
        assert (record["stack_id"], record["run_id"], record["attempt"]) == ("s1", "r1", 1)
    assert kept["migration_id"] == back["migration_id"] == "m"
    assert cutover.status()["stack_id"] == ""
