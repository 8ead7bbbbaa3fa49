"""The gate runs every part to its end and fails when one of them does."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from rig import gate
from rig.gate import PARTS, Gate, Part, last_lines
from rig.shell import RigError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A ``make`` that fails for the target ``bad`` and prints what it was called with."""
    program = tmp_path / "bin/make"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "called: $*"\nfor word; do [ "$word" != bad ] || exit 2; done\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(gate, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(gate, "ROOT", tmp_path)
    monkeypatch.setattr(gate.suites, "prepare", lambda: None)


def test_every_part_is_a_target_of_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {part.target[0] for part in PARTS} <= targets


def test_every_molecule_scenario_but_that_of_the_topology_is_a_part():
    scenarios = {path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")} - {"topology"}
    assert {word for part in PARTS for word in part.target if "=" in word} == {
        f"SCENARIOS={name}" for name in scenarios
    }


@pytest.mark.usefixtures("make")
def test_a_part_that_fails_does_not_end_the_others():
    parts = [Part("one", ["one"]), Part("two", ["bad"]), Part("three", ["three"], images=False)]
    outcomes = Gate(parts).run()
    assert [(outcome.part.name, outcome.passed) for outcome in outcomes] == [
        ("one", True),
        ("two", False),
        ("three", True),
    ]
    assert last_lines(outcomes[2].log, 5) == ["called: --no-print-directory three"]


@pytest.mark.usefixtures("make")
def test_the_gate_fails_and_names_what_failed(monkeypatch, capsys):
    monkeypatch.setattr(gate, "PARTS", (Part("one", ["one"]), Part("two words", ["bad"])))
    monkeypatch.setattr(Gate.__init__, "__defaults__", (gate.PARTS,))
    with pytest.raises(RigError, match=r"^two words failed"):
        gate.test()
    shown = capsys.readouterr().out
    assert "\n1 passed, 1 failed\n" in shown
    assert "two words ended with:\n  called: --no-print-directory bad\n" in shown
    assert "one ended with:" not in shown


@pytest.mark.usefixtures("make")
def test_images_that_cannot_be_prepared_are_reported_after_the_parts(monkeypatch):
    def fail():
        raise RigError("no engine")

    monkeypatch.setattr(gate.suites, "prepare", fail)
    with pytest.raises(RigError, match="no engine"):
        Gate([Part("one", ["one"])]).run()
