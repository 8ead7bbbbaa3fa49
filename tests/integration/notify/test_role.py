"""The role writes whom to tell, and its announce tasks tell them; nothing that goes wrong there stops a play."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from integration.quick import ANSIBLE_PLAYBOOK, ROOT, ansible_variables
from unit.cutover.test_announce import SECRET, Hook, serving, slack

from glitchtip_cutover.bundle import bundle

ROLE = "    - ansible.builtin.include_role: {name: ai-admin-cutover, tasks_from: %s}\n"
HEAD = "- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n"
FACTS = """      vars:
        ai_admin_cutover_announce_event: gate
        ai_admin_cutover_announce_facts: {gate: "phase 3, soak", verdict: is passed, reason: "a=b $c {{ '{{' }} d"}
"""
TOLD = HEAD + ROLE % "configure" + (ROLE % "announce" + FACTS) * 2
WRONG = (
    HEAD
    + (ROLE % "configure" + "      vars: {ai_admin_cutover_notify: []}\n")
    + "    - ansible.builtin.command: test ! -e {{ ai_admin_cutover_config_dir }}/notify.json\n"
    + (ROLE % "configure" + "      vars: {ai_admin_cutover_notify: [{kind: pager, name: p}]}\n")
)


@pytest.mark.skipif(os.geteuid() != 0, reason="the role writes files of root")
def test_the_role_writes_the_file_announces_and_in_check_mode_only_says_what_it_would(tmp_path: Path) -> None:
    program = tmp_path / "ai-admin-cutover.pyz"
    program.write_bytes(bundle(ROOT / "src" / "glitchtip_cutover"))
    program.chmod(0o755)
    (tmp_path / "etc").mkdir()
    written = tmp_path / "etc" / "notify.json"

    def play(text: str, *options: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "play.yml").write_text(text)
        command = [
            str(ANSIBLE_PLAYBOOK),
            "-i",
            "localhost,",
            "-vv",
            "--diff",
            *options,
        ]
        return subprocess.run(
            [*command, "-e", f"@{tmp_path}/variables.json", str(tmp_path / "play.yml")],
            cwd=ROOT,
            env=ansible_variables(ANSIBLE_ROLES_PATH=str(ROOT / "roles")),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    with serving(Hook()) as hook:
        variables: dict[str, Any] = {
            "ansible_python_interpreter": sys.executable,
            "ai_admin_cutover_migration_id": "m-1",
            "ai_admin_cutover_program": str(program),
            "ai_admin_cutover_config_dir": str(tmp_path / "etc"),
            "ai_admin_cutover_state_root": str(tmp_path / "state"),
            "ai_admin_cutover_notify_contact": "Anna",
        }
        (tmp_path / "variables.json").write_text(json.dumps(variables))
        target = json.dumps([slack(hook)])
        with_target = TOLD.replace("  tasks:\n", f"  vars: {{ai_admin_cutover_notify: {target}}}\n  tasks:\n")
        hook.answers = [(200, {}), (403, {})]

        told = play(with_target)
        assert told.returncode == 0, told.stdout
        assert written.stat().st_mode & 0o777 == 0o600
        text = hook.requests[0][2]["text"]
        assert text.splitlines()[1:3] == ["Gate: phase 3, soak", "a=b $c {{ d"]
        assert "Anna" in text
        assert len(hook.requests) == 2
        assert "team (slack) answered 403" in told.stdout

        checked = play(with_target, "--check")
        assert checked.returncode == 0, checked.stdout
        assert "to team:" in checked.stdout
        assert "Gate: phase 3, soak" in checked.stdout
        assert len(hook.requests) == 2

        wrong = play(WRONG)
        assert wrong.returncode == 2
        assert "targets[0]: kind must be one of" in wrong.stdout
    assert not any(SECRET in run.stdout + run.stderr for run in (told, checked, wrong))
