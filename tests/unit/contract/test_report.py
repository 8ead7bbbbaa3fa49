"""What the contract suite reports."""

from __future__ import annotations

import json

from contract.report import Report, joined


def report():
    found = Report("http://x", "5.2.0", "5.2", "version")
    for rule in ("a", "b", "c"):
        found.note(rule, "setup", "passed")
    found.note("a", "call", "passed")
    found.note("b", "call", "failed")
    found.note("c", "call", "passed")
    found.note("c", "teardown", "failed")
    found.note("d", "setup", "skipped", "of the 6.2 line only")
    found.note("e", "setup", "failed")
    return found


def test_a_rule_fails_with_any_of_its_parts_and_is_counted_once():
    found = report().as_json()
    counts = [found[key] for key in ("rules", "passed", "failed", "not_applicable")]
    assert counts == [5, 1, 3, 1]
    assert found["failures"] == ["b", "c", "e"]
    assert found["reasons"] == {"of the 6.2 line only": 1}


def test_the_sentence_names_server_version_line_counts_and_reasons():
    assert report().sentence() == (
        "contract: 4 rules ran on http://x (GlitchTip 5.2.0, line 5.2 by version) in 0 s: 1 passed, 3 failed,"
        " 1 not applicable (1 of the 6.2 line only)"
    )


def test_several_runs_have_the_keys_of_one_with_counts_added_up(tmp_path):
    path = tmp_path / "sub/contract.json"
    report().write(path)
    run = json.loads(path.read_text())
    both = joined([run, {**run, "version": "6.2.6"}])
    assert {key: both[key] for key in ("version", "rules", "passed", "failed", "not_applicable")} == {
        "version": "5.2.0, 6.2.6",
        "rules": 10,
        "passed": 2,
        "failed": 6,
        "not_applicable": 2,
    }
    assert len(both["runs"]) == 2
    assert joined([run])["rules"] == 5


def test_it_says_where_the_rules_that_ran_are_known_from():
    found = report()
    found.provenances = {"a": "source", "b": "source", "c": "document", "d": "source"}
    assert found.as_json()["provenance"] == {"source": 2, "document": 1}
    assert found.sentence().endswith("; known from: 2 source, 1 document")
