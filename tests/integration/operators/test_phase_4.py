"""What changed between phase 0 and phase 4 is found before the switch begins; a failed phase 1 says what it left."""

from __future__ import annotations

import os

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from drills.role_stack import load_plugins
from integration.operators.conftest import ROOT, Operator

PLAY = """
- hosts: servers
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: preflight, tasks_from: again}
    - ansible.builtin.import_role: {name: ai-admin-cutover, tasks_from: status}
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the role runs as root")
def test_a_fault_since_phase_0_refuses_the_switch(operator: Operator) -> None:
    world = operator.world
    play = operator.directory / "play.yml"
    play.write_text(PLAY)
    code, printed = operator.play_file(play)
    assert code == 0, printed
    (world.env_file.parent / ".env.local").write_text(f"SENTRY_DSN={world.old.dsn}\n")
    world.change_service("silent", pm2_env={"watch": True})
    code, printed = operator.play_file(play)
    assert code == 2
    assert "The switch was not begun on production, 2 reason(s):" in printed
    assert ".env.local line 1 sets SENTRY_DSN too" in printed
    assert "silent: it is restarted whenever a file changes (watch)" in printed
    code, printed = operator.play_file(play, "--check")
    assert code == 0
    assert "The switch would be refused:" in printed
    assert world.calls() == []


def test_phase_4_checks_before_it_installs_or_switches_anything() -> None:
    (play,) = yaml.safe_load((ROOT / "playbooks/phase4_cutover.yml").read_text(encoding="utf-8"))
    roles = [task["ansible.builtin.import_role"] for task in play["tasks"][0]["block"] if "ansible.builtin.import_role" in task]
    steps = [role.get("tasks_from", "main") if role["name"] != "preflight" else "again" for role in roles]
    assert steps[:3] == ["again", "main", "apply"]


def staging_message(result: dict[str, object], containers: list[str]) -> str:
    load_plugins()
    (play,) = yaml.safe_load((ROOT / "playbooks/phase1_local_test.yml").read_text(encoding="utf-8"))
    rescue = next(task["rescue"] for task in play["tasks"] if "rescue" in task)
    variables = {
        "ansible_failed_result": result,
        "staging_left": {"stdout_lines": containers},
        "inventory_hostname": "app1",
        "local_test_stack_dir": "/opt/glitchtip-staging",
        "local_test_config_dir": "/etc/glitchtip-ops/staging",
        "staging_reason": trust_as_template(rescue[-1]["vars"]["staging_reason"]),
    }
    templar = Templar(loader=DataLoader(), variables=variables)
    return " ".join(str(templar.template(trust_as_template(rescue[-1]["ansible.builtin.fail"]["msg"]))).split())


def test_a_failed_phase_1_says_what_still_runs_and_how_to_remove_it() -> None:
    told = staging_message({"msg": "It did not keep a field."}, ["glitchtip-staging-web-1", "glitchtip-staging-valkey-1"])
    assert told.startswith("It did not keep a field. The staging stack still runs on app1")
    assert "glitchtip-staging-valkey-1, glitchtip-staging-web-1" in told
    assert "docker compose --project-directory /opt/glitchtip-staging down --volumes" in told
    assert "Running phase 1 again removes it first" in told


def test_a_failed_phase_1_that_left_nothing_says_so_and_a_command_is_told_by_its_output() -> None:
    told = staging_message({"msg": "non-zero return code", "cmd": ["x"], "rc": 1, "stderr": "no space left"}, [])
    assert told == "no space left. Nothing of the staging stack runs."
