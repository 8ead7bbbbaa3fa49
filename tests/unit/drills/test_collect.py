"""What is read on the server, by readers that share no code with the program."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest
from drills import collect

DSNS = {"old": "http://a@sentry/1", "new": "http://b@glitchtip/2"}


def test_a_file_without_or_with_two_dsns_holds_none(tmp_path: Path):
    path = tmp_path / ".env"
    path.write_text("A=1\nSENTRY_DSN=http://a@sentry/1\nB=2\n")
    assert collect.env_file(str(path), "SENTRY_DSN", DSNS) == {
        "dsn": "old",
        "rest": "A=1\nSENTRY_DSN=\nB=2\n",
    }
    path.write_text("SENTRY_DSN=x\nSENTRY_DSN=y\n")
    assert collect.env_file(str(path), "SENTRY_DSN", DSNS)["dsn"] == "2 times"
    path.write_text("")
    assert collect.env_file(str(path), "SENTRY_DSN", DSNS)["dsn"] == "0 times"
    assert collect.env_file(str(tmp_path / "none"), "SENTRY_DSN", DSNS)["dsn"] == "unreadable"


@pytest.mark.parametrize(
    ("events", "phase"),
    [
        ([], "none"),
        (["apply_begin", "env_switch"], "open"),
        (["apply_begin", "applied"], "applied"),
        (["apply_begin", "applied", "confirmed"], "confirmed"),
        (["apply_begin", "rollback_begin", "rollback_incomplete"], "incomplete"),
        (["apply_begin", "rollback_begin", "rolled_back"], "rolled_back"),
    ],
)
def test_the_last_record_that_opens_or_closes_decides(tmp_path: Path, events: list[str], phase: str):
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(json.dumps({"event": event}) + "\n" for event in events))
    assert collect.journal_phase(str(path)) == (phase, events)


def test_a_journal_that_is_no_journal_is_damaged(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    path.write_text("{")
    assert collect.journal_phase(str(path))[0] == "damaged"


def test_a_lock_that_somebody_holds_is_not_free(tmp_path: Path):
    path = tmp_path / "lock"
    assert collect.lock_free(str(path))
    with path.open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert not collect.lock_free(str(path))
    assert collect.lock_free(str(path))


def test_a_dsn_in_pm2s_environment_is_found_wherever_it_stands():
    for entry in (
        {"SENTRY_DSN": DSNS["new"]},
        {"env": {"SENTRY_DSN": DSNS["new"]}},
        {"pm2_env": {"SENTRY_DSN": DSNS["new"]}},
        {"pm2_env": {"env": {"SENTRY_DSN": DSNS["new"]}}},
    ):
        assert collect.carried(entry, "SENTRY_DSN", DSNS) == "new"
    assert collect.carried({"env": {}}, "SENTRY_DSN", DSNS) == "none"
    two = {"env": {"SENTRY_DSN": DSNS["new"]}, "pm2_env": {"SENTRY_DSN": DSNS["old"]}}
    assert collect.carried(two, "SENTRY_DSN", DSNS) == "several"


def test_a_file_that_was_not_finished_is_found(tmp_path: Path):
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules/x.part").touch()
    assert collect.leftovers([str(tmp_path)]) == []
    (tmp_path / ".env.part").touch()
    assert collect.leftovers([str(tmp_path)]) == [str(tmp_path / ".env.part")]


def test_a_secret_is_named_by_its_name_never_by_its_text():
    found = collect.secrets_in({"token": "s3cret", "key": "other"}, {"systemd's journal": "x s3cret y"})
    assert found == ["token in systemd's journal"]
