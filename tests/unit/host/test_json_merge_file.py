"""Only our keys of a JSON file change, and a file that we do not understand is not touched."""

from __future__ import annotations

import json
import stat

import pytest
from json_merge_file import merge

FOREIGN = '{"labels": ["owner=somebody"],"log-opts":{"max-size":"1g","tag":"x"}}'
OURS = {"log-driver": "json-file", "log-opts": {"max-size": "10m"}}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "daemon.json"
    path.write_text(FOREIGN)
    path.chmod(0o640)
    return path


@pytest.fixture
def run(run_host_module, file):
    def do(check=False, **options):
        arguments = {"path": str(file), "merge": OURS, **options}
        return run_host_module("json_merge_file", check=check, **arguments)

    return do


def test_check_do_check_do_again(run, file):
    assert run(check=True)["changed"] is True
    assert file.read_text() == FOREIGN
    result = run()
    assert (result["changed"], result["keys"]) == (True, ["log-driver", "log-opts"])
    assert json.loads(file.read_text()) == {
        "labels": ["owner=somebody"],
        "log-driver": "json-file",
        "log-opts": {"max-size": "10m", "tag": "x"},
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    written = file.read_bytes()
    assert run(check=True)["changed"] is False
    assert run()["changed"] is False
    assert file.read_bytes() == written


def test_the_diff_shows_our_keys_only(run):
    assert run(check=True)["diff"]["before"] == {"log-opts": {"max-size": "1g", "tag": "x"}}


def test_a_file_that_says_the_same_in_another_layout_is_left_alone(run, file):
    file.write_text('{ "log-opts": {"max-size":"10m"},\n\n"log-driver" : "json-file"}')
    before = file.read_bytes()
    assert run()["changed"] is False
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "words"),
    [('{"a": 1,}', "is not valid JSON (line 1, column"), ("[1]", "holds no JSON object")],
)
def test_what_is_no_json_object_is_refused_and_kept(run, file, content, words):
    file.write_text(content)
    result = run()
    assert result["failed"] is True
    assert words in result["msg"]
    assert "it was not touched" in result["msg"]
    assert file.read_text() == content


def test_a_missing_and_an_empty_file_are_made(run, tmp_path, file):
    file.write_text("")
    assert run()["changed"] is True
    made = tmp_path / "new.json"
    assert run(path=str(made), check=True)["changed"] is True
    assert not made.exists()
    assert run(path=str(made), mode="0600")["changed"] is True
    assert (stat.S_IMODE(made.stat().st_mode), json.loads(made.read_text())) == (0o600, OURS)


def test_what_the_validator_refuses_is_not_written(run, file, tmp_path):
    refuse = tmp_path / "refuse"
    refuse.write_text('#!/bin/sh\necho "unable to configure: $1: no such option" >&2\nexit 1\n')
    refuse.chmod(0o755)
    result = run(validate=f"{refuse} %s", backup=True)
    assert result["failed"] is True
    assert result["msg"].endswith(f"{file}, it was not touched: unable to configure: {file}: no such option")
    assert file.read_text() == FOREIGN
    assert sorted(path.name for path in tmp_path.iterdir()) == ["daemon.json", "refuse"]


def test_the_validator_sees_the_new_content(run, tmp_path):
    seen = tmp_path / "seen"
    look = tmp_path / "look"
    look.write_text(f"#!/bin/sh\ncp $1 {seen}\n")
    look.chmod(0o755)
    assert run(validate=f"{look} %s")["changed"] is True
    assert json.loads(seen.read_text())["log-driver"] == "json-file"


def test_a_validator_that_hangs_is_ended(run, file, monkeypatch):
    monkeypatch.setattr("json_merge_file.VALIDATE_SECONDS", 0.2)
    result = run(validate="sleep 60")
    assert result["failed"] is True
    assert "sleep did not judge the new content" in result["msg"]
    assert file.read_text() == FOREIGN


def test_a_validator_that_is_not_there_is_one_sentence(run, file):
    result = run(validate="/nonexistent/validator %s")
    assert result["failed"] is True
    assert "/nonexistent/validator cannot be run" in result["msg"]
    assert file.read_text() == FOREIGN


def test_a_backup_is_the_old_file(run):
    result = run(backup=True)
    with open(result["backup_file"]) as stream:
        assert stream.read() == FOREIGN


def test_merging_does_not_change_its_arguments():
    current = {"a": {"b": 1}}
    assert merge(current, {"a": {"c": 2}, "d": [1]}) == {"a": {"b": 1, "c": 2}, "d": [1]}
    assert current == {"a": {"b": 1}}
    assert merge({"a": {"b": 1}}, {"a": 3}) == {"a": 3}
