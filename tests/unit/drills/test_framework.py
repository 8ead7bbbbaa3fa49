"""The table, the last line, the judgement of controls, and the list of drills."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from drills import catalogue
from drills.framework import (
    Case,
    Control,
    Drill,
    Outcome,
    document,
    judge_control,
    last_line,
    markdown,
    table,
)
from rig.drills import shares


def _nothing(_: object) -> None:
    """No fault."""


CONTROL = Control("protection off", _nothing, "not closed")
DRILL = Drill("kill -9", "killed", "back", _nothing, CONTROL)
SWEEP = {"file": "f", "tests": 3, "failed": 0, "seconds": 1.0, "survived": True}


def _outcome(*problems: str, red: bool = True) -> Outcome:
    return Outcome(DRILL, list(problems), 1.0, control="protection off: red", control_red=red)


def test_what_holds_and_has_a_red_control_survives():
    found = document([_outcome().told()], server="s", seconds=2, sweep=SWEEP)
    assert last_line(found) == "2 of 2 survived"
    assert found["drills"][0]["outcome"] == "survived"


@pytest.mark.parametrize("outcome", [_outcome("the lock is held"), _outcome(red=False)])
def test_a_violation_or_a_control_that_stays_green_is_no_survival(outcome: Outcome):
    found = document([outcome.told()], server="s", seconds=2, sweep=SWEEP)
    assert last_line(found) == "1 of 2 survived"
    assert found["drills"][0]["outcome"] != "survived"


def test_a_sweep_that_failed_counts():
    assert (
        last_line(document([_outcome().told()], server="s", seconds=2, sweep={**SWEEP, "survived": False}))
        == "1 of 2 survived"
    )


def test_without_a_sweep_only_drills_are_counted():
    assert last_line(document([_outcome().told()], server="s", seconds=2, sweep=None)) == "1 of 1 survived"


def test_a_control_is_red_only_for_its_own_reason():
    assert judge_control(CONTROL, _outcome("the journal is not closed: open"))[0]
    assert not judge_control(CONTROL, _outcome())[0]
    assert not judge_control(CONTROL, _outcome("the lock is held"))[0]


def test_a_control_whose_drill_broke_off_is_not_red():
    red, words = judge_control(CONTROL, _outcome("the drill broke off: the journal is not closed"))
    assert not red
    assert "broke off" in words


def test_an_expectation_that_fails_is_kept_as_a_sentence():
    case = Case(None, None)  # type: ignore[arg-type]
    case.expect(True, "good")
    case.expect(False, "bad")
    assert case.problems == ["bad"]


def test_a_table_has_columns_of_one_width():
    assert table(["a", "b"], [["long", 1], [None, 22]]) == ["  a     b", "  long  1", "        22"]


def test_the_page_has_a_row_a_drill_and_one_for_the_sweep():
    text = markdown(document([_outcome("a | b").told()], server="s", seconds=2, sweep=SWEEP))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert text.startswith("1 of 2 survived")
    assert [row.split(" | ")[0] for row in rows] == ["| drill", "| kill -9", "| crash sweep"]
    assert {row.replace(" | |", " | . |").count("|") for row in rows[:2]} == {11}


def test_names_of_drills_are_unique_and_each_has_a_control_with_a_sign():
    names = [drill.name for drill in catalogue.DRILLS]
    assert len(names) == len(set(names))
    assert all(drill.control.sign for drill in catalogue.DRILLS)
    assert all(isinstance(drill.run, Callable) for drill in catalogue.DRILLS)


def test_controls_of_one_name_are_one_control():
    by_name: dict[str, Control] = {}
    for drill in catalogue.DRILLS:
        assert by_name.setdefault(drill.control.name, drill.control) is drill.control


def test_the_short_form_has_three_to_five_drills_of_different_kinds():
    assert 3 <= len(catalogue.SHORT) <= 5
    assert len({drill.control.name for drill in catalogue.SHORT}) == len(catalogue.SHORT)


def test_every_kind_of_journal_record_has_a_power_cut():
    cut = {
        drill.name.removeprefix("power cut: ").split(" ")[0]
        for drill in catalogue.DRILLS
        if "power cut" in drill.name
    }
    assert cut >= {
        "apply_begin", "env_switch", "restart", "proved", "pm2_save", "applied", "confirmed",
        "rollback_begin", "rollback_env", "rollback_restart", "rollback_save", "rolled_back",
    }  # fmt: skip


def test_drills_that_share_a_control_run_in_one_world_and_the_worlds_have_about_the_same_to_do() -> None:
    found = shares(catalogue.DRILLS, 2)
    assert sorted(name for names in found for name in names) == sorted(
        drill.name for drill in catalogue.DRILLS
    )
    controls = [{drill.control.name for drill in catalogue.DRILLS if drill.name in names} for names in found]
    assert not controls[0] & controls[1]
    runs = [len(names) + len(own) for names, own in zip(found, controls, strict=True)]
    assert abs(runs[0] - runs[1]) <= 2
