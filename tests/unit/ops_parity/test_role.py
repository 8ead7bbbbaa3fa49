"""Role ops writes what the commands read, and keeps the token out of sight."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from glitchtip_ops.parity.sides import SETTINGS_FILE, TOKEN_FILE, SentrySettings

ROLE = Path(__file__).resolve().parents[3] / "roles" / "ops"


def tasks() -> list[dict[str, Any]]:
    """The tasks of sentry.yml."""
    return yaml.safe_load((ROLE / "tasks" / "sentry.yml").read_text())  # type: ignore[no-any-return]


def test_phases_0_2_and_3_write_the_token_so_that_a_corrected_one_takes_effect() -> None:
    """Phase 2 by its settings; phases 0 and 3 once there are settings to write beside."""
    settings = yaml.safe_load((ROLE / "tasks" / "settings.yml").read_text())
    assert {"ansible.builtin.import_tasks": "sentry.yml"}.items() <= settings[-1].items()
    for name in ("phase0_prepare", "phase3_parallel_run"):
        text = (ROLE.parents[1] / f"playbooks/{name}.yml").read_text()
        (play,) = yaml.safe_load(text)
        included = [task.get("ansible.builtin.include_role") for task in play["tasks"]]
        assert {"name": "ops", "tasks_from": "sentry"} in included


def test_the_command_knows_every_key_that_the_role_writes() -> None:
    """And the role writes all of them; the token has its own file."""
    written = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["__ops_sentry"]
    assert set(written) == {each.name for each in fields(SentrySettings)} - {"token"}


def test_the_token_is_written_without_a_trace() -> None:
    """No log, no diff, no other reader than root and the tools' group."""
    task = next(
        task for task in tasks() if str(task.get("ansible.builtin.copy", {}).get("dest")).endswith(TOKEN_FILE)
    )
    assert (task["no_log"], task["diff"], task["ansible.builtin.copy"]["mode"]) == (True, False, "0640")
    others = [task for task in tasks() if "ops_sentry_token }}" in str(task)]
    assert others == [task]


def test_without_sentry_its_files_are_removed() -> None:
    """A token that nobody uses any more stays nowhere."""
    task = next(task for task in tasks() if task.get("loop") == [SETTINGS_FILE, TOKEN_FILE])
    assert task["ansible.builtin.file"]["state"] == "absent"
    assert task["when"] == "ops_sentry_url | length == 0"
