"""Evidence is written once, keeps its first time, and a phase without its predecessor is refused."""

from __future__ import annotations

import json
import stat

import migration_evidence as me
import pytest


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "migration" / "demo"


@pytest.fixture
def record(run_host_module, place):
    def run(check=False, **options):
        return run_host_module("migration_evidence", check=check, path=str(place), **options)

    return run


def test_check_do_check_do_again(record, place):
    options = {"phase": "phase0", "data": {"services": ["a"], "port": 8080}}
    assert record(check=True, **options)["changed"] is True
    assert not place.exists()
    first = record(**options)
    assert first["changed"] is True
    assert (mode(place), mode(place / "phase0.json")) == (0o700, 0o600)
    content = (place / "phase0.json").read_bytes()
    assert record(check=True, **options)["changed"] is False
    again = record(**options)
    assert again["changed"] is False
    assert again["recorded_at"] == first["recorded_at"]
    assert (place / "phase0.json").read_bytes() == content
    assert [path.name for path in place.iterdir()] == ["phase0.json"]


def test_other_data_keep_the_time_of_the_first_recording(place):
    options = {"path": str(place), "phase": "0", "require": [], "state": "present"}
    me.act({**options, "data": {"x": 1}}, check=False, now="2026-01-01T00:00:00Z")
    result = me.act({**options, "data": {"x": 2}}, check=False, now="2026-02-02T00:00:00Z")
    assert result["changed"] is True
    assert result["diff"]["before"] == {"x": 1}
    assert json.loads((place / "phase0.json").read_text()) == {
        "phase": "phase0",
        "recorded_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-02-02T00:00:00Z",
        "data": {"x": 2},
    }


def test_required_evidence_is_returned(record):
    record(phase="phase0", data={"x": 1})
    record(phase="phase1", data={"y": 2})
    result = record(require=["phase0", 1])
    assert result["evidence"] == {"phase0": {"x": 1}, "phase1": {"y": 2}}
    assert (result["changed"], result["missing"]) == (False, [])


def test_a_missing_predecessor_is_refused_and_nothing_is_written(record, place):
    result = record(require=["phase1"], phase="phase2", data={"x": 1})
    assert result["failed"] is True
    assert result["msg"].startswith("phase1 has not been completed on this host for this migration")
    assert "run the playbook of phase1 first" in result["msg"]
    assert not place.exists()


def test_in_check_mode_a_missing_predecessor_is_only_reported(record, place):
    result = record(check=True, require=["phase1"], phase="phase2", data={"x": 1})
    assert (result["failed"], result["changed"], result["missing"]) == (False, True, ["phase1"])
    assert not place.exists()


@pytest.mark.parametrize("content", ["", "[]", '{"data": 3}', "{"])
def test_damaged_evidence_is_no_evidence(record, place, content):
    place.mkdir(parents=True)
    (place / "phase0.json").write_text(content)
    result = record(check=True, require=["phase0"])
    assert result["failed"] is True
    assert "is damaged: remove it and run that phase again" in result["msg"]


@pytest.mark.parametrize("name", ["../phase0", "phase 0", "", ".hidden", "/etc/passwd"])
def test_a_name_that_is_no_phase_is_refused(record, name):
    result = record(require=[name])
    assert result["failed"] is True
    assert result["msg"] == f"'{name}' is not the name of a phase: use phase0 to phase5."


def test_modes_that_somebody_opened_are_closed_again(record, place):
    record(phase="phase0", data={})
    place.chmod(0o755)
    (place / "phase0.json").chmod(0o644)
    assert record(check=True, phase="phase0", data={})["changed"] is True
    assert mode(place) == 0o755
    assert record(phase="phase0", data={})["changed"] is True
    assert (mode(place), mode(place / "phase0.json")) == (0o700, 0o600)


def test_forgetting_check_do_check_do_again(record, place):
    record(phase="phase0", data={"x": 1})
    assert record(check=True, phase="phase0", state="absent")["changed"] is True
    assert (place / "phase0.json").exists()
    assert record(phase="phase0", state="absent")["changed"] is True
    assert not (place / "phase0.json").exists()
    assert record(phase="phase0", state="absent")["changed"] is False


def test_a_write_that_fails_leaves_the_old_evidence_and_no_scratch_file(place, monkeypatch):
    me.write(place / "phase0.json", {"phase": "phase0", "data": {}})
    before = (place / "phase0.json").read_bytes()

    def no_rename(*_):
        raise OSError("power cut")

    monkeypatch.setattr(me.os, "replace", no_rename)
    with pytest.raises(OSError, match="power cut"):
        me.write(place / "phase0.json", {"phase": "phase0", "data": {"x": 1}})
    assert (place / "phase0.json").read_bytes() == before
    assert [path.name for path in place.iterdir()] == ["phase0.json"]


@pytest.fixture
def run_of(record):
    """run_of(phase, ...) records phases in a run of their own and of the stack ``a``; its id."""

    def make(*phases, stack_id="a"):
        run_id = record(begin=True)["run_id"]
        for phase in phases:
            record(phase=phase, data={"x": 1}, stack_id=stack_id)
        return run_id

    return make


def test_every_record_names_its_run_and_from_phase_2_on_its_stack(record, place, run_of):
    run_id = run_of("phase0", "phase1", "phase2", "phase3", "phase4", "phase5", "rollback")
    named = {path.stem: json.loads(path.read_text()) for path in place.glob("*.json")}
    assert {phase: document["run_id"] for phase, document in named.items()} == dict.fromkeys(named, run_id)
    assert {phase for phase, document in named.items() if "stack_id" not in document} == {"phase0", "phase1"}
    assert record(begin=True) | {"evidence": {}} == {
        "changed": False,
        "evidence": {},
        "missing": [],
        "run_id": run_id,
        "failed": False,
    }


@pytest.mark.parametrize("phase", ["phase2", "phase3", "phase4", "phase5"])
@pytest.mark.parametrize("recorded", ["another", ""])
def test_evidence_of_another_stack_counts_as_missing(record, run_of, phase, recorded):
    run_of(phase, stack_id=recorded)
    refused = record(require=[phase], stack_id="now")
    assert refused["failed"] is True
    assert refused["msg"].endswith(
        f"{phase}.json is evidence of another GlitchTip stack than the one deployed now: run the playbook of {phase} again."
    )
    reported = record(check=True, require=[phase], stack_id="now")
    assert (reported["failed"], reported["missing"], reported["evidence"]) == (False, [phase], {})
    assert record(require=[phase], stack_id=recorded)["evidence"] == {phase: {"x": 1}}


def test_evidence_of_a_run_that_ended_counts_as_missing_where_it_could_not_be_moved(record, place, run_of):
    run_of("phase1", "phase3")
    kept = (place / "phase3.json").read_bytes()
    record(state="ended")
    record(begin=True)
    (place / "phase3.json").write_bytes(kept)
    refused = record(require=["phase3"], stack_id="a")
    assert "phase3.json is evidence of a run that has ended: run the playbook of phase3 again." in refused["msg"]


def test_equal_data_of_another_stack_are_recorded_anew(record, place, run_of):
    run_of("phase2")
    again = record(phase="phase2", data={"x": 1}, stack_id="b")
    assert again["changed"] is True
    document = json.loads((place / "phase2.json").read_text())
    assert (document["stack_id"], "updated_at" in document) == ("b", False)
    assert record(phase="phase2", data={"x": 1}, stack_id="b")["changed"] is False


def test_the_end_of_a_run_check_do_check_do_again(record, place, run_of, tmp_path):
    samples = tmp_path / "ops" / "demo"
    samples.mkdir(parents=True)
    (samples / "verdict.json").write_text("{}")
    run_id = run_of("phase0", "phase1", "phase2", "phase3", "phase4", "phase5", "rollback")
    (place / "local_test.json").write_text("{}")
    (place / "snapshot.json").write_text("{}")
    options = {"state": "ended", "records": [str(samples), str(tmp_path / "absent.json")]}
    assert record(check=True, **options)["changed"] is True
    assert (samples / "verdict.json").exists()
    ended = record(**options)
    assert ended["changed"] is True
    assert sorted(path.name for path in place.iterdir()) == ["ended", "phase0.json", "snapshot.json"]
    moved = sorted(path.name for path in (place / "ended").glob("*/*"))
    phases = [f"phase{number}.json" for number in range(1, 6)]
    assert moved == ["demo", "local_test.json", *phases, "rollback.json"]
    assert not samples.exists()
    assert mode(place / "ended") == 0o700
    assert record(check=True, **options)["changed"] is False
    assert record(**options)["changed"] is False
    assert record(begin=True)["run_id"] not in ("", run_id)
