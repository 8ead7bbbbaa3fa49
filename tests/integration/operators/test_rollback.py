"""What an operator sees of a rollback: its plan, its table, and what its exit codes mean."""

from __future__ import annotations

import os

import pytest
from integration.operators.conftest import Operator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the playbooks run as root")


@pytest.fixture
def switched(operator: Operator) -> Operator:
    for command in ("snapshot", "apply", "confirm"):
        operator.world.run(command)
    return operator


def test_check_mode_shows_services_files_and_masked_dsns_and_changes_nothing(switched: Operator) -> None:
    world = switched.world
    before, calls = world.env_file.read_bytes(), world.calls()
    code, printed = switched.play("rollback", "--check", "--diff")
    assert code == 0, printed
    lines = [line.strip().removeprefix("- ").strip("'\"") for line in printed.splitlines()]
    assert any(line.split()[:2] == ["SERVICE", "STATUS"] for line in lines)
    for name in ("api", "monitor", "silent", "carrier", "job"):
        assert any(line.startswith(f"{name} ") and world.old.netloc in line for line in lines), name
    assert f"{world.env_file}:" in printed
    assert f"***@{world.new.netloc}" in printed
    assert f"***@{world.old.netloc}" in printed
    assert world.env_file.read_bytes() == before
    assert world.calls() == calls
    code, printed = switched.play("rollback", "--check", "-e", "ai_admin_cutover_rollback_service=api")
    assert code == 0
    assert "restart with its original SENTRY_DSN in its environment" in printed
    assert "monitor " not in printed


def test_the_rollback_prints_a_table_and_its_figures(switched: Operator) -> None:
    code, printed = switched.play("rollback")
    assert code == 0, printed
    assert "SERVICE" in printed
    assert "REPORTS TO" in printed
    assert "5 of 5 services proven" in printed
    assert "1 without an SDK" in printed


def test_back_but_unproven_prints_the_table_and_says_what_code_5_means(switched: Operator) -> None:
    switched.world.old.stores = False
    code, printed = switched.play("rollback")
    assert code == 2
    assert "SERVICE" in printed
    assert "exit code 5: back but unproven" in printed
    assert "non-zero return code" not in printed


def test_a_program_that_is_damaged_is_told_with_what_it_printed(switched: Operator) -> None:
    broken = switched.directory / "broken.pyz"
    broken.write_text("#!/bin/sh\necho 'no such interpreter' >&2\nexit 9\n")
    broken.chmod(0o755)
    switched.variables["ai_admin_cutover_program"] = str(broken)
    code, printed = switched.play("rollback")
    assert code == 2
    assert "the program ended without a result: no such interpreter" in printed
    code, printed = switched.play("rollback", "--check")
    assert "The program gave no answer: no such interpreter" in printed
