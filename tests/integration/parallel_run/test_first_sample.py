"""Phase 3 waits for the first sample of a run and fails with its reasons when GO is out of reach already."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.quick import ANSIBLE_PLAYBOOK, ROOT, ansible_variables

ROLE = ROOT / "roles" / "parallel_run"
WAITING = ("Wait for the first sample", "Take the state after it")
NO_NODE = "1 reading(s) failed, the first: PM2: pm2 jlist failed with exit code 127: env: 'node': No such file or directory"
RUNNING: dict[str, Any] = {"state": "running", "verdict": None, "reasons": [], "figures": {"samples": 0}, "plan": {}, "out_of_reach": []}


def play(directory: Path, *answers: dict[str, Any]) -> tuple[int, str]:
    """The role's tasks after the order, with tools that answer ``soak status`` one after the other: (exit code, output)."""
    for number, answer in enumerate(answers):
        (directory / f"answer-{number}").write_text(json.dumps(answer))
    tool = directory / "glitchtip-ops"
    tool.write_text(
        f'#!/bin/sh\ncd {directory}\necho "$*" >> calls\nset -- answer-*\ncat "$1"\n[ $# -eq 1 ] || rm "$1"\n'
    )
    tool.chmod(0o755)
    tasks = [task for task in yaml.safe_load((ROLE / "tasks/run.yml").read_text()) if task["name"] in WAITING]
    assert [task["name"] for task in tasks] == list(WAITING)
    tasks[0]["delay"] = 0
    document = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
        "tasks": [
            {"ansible.builtin.set_fact": {"parallel_run_result": RUNNING, "parallel_run_command": str(tool)}},
            *tasks,
            *yaml.safe_load((ROLE / "tasks/verdict.yml").read_text()),
        ],
    }
    (directory / "play.yml").write_text(yaml.safe_dump([document], sort_keys=False))
    done = subprocess.run(
        [ANSIBLE_PLAYBOOK, "-i", "localhost,", directory / "play.yml"],
        capture_output=True, text=True, timeout=300, check=False,
        env=ansible_variables(),
    )  # fmt: skip
    return done.returncode, " ".join(done.stdout.split())


def test_a_cause_in_the_first_sample_ends_the_play_with_it(tmp_path: Path) -> None:
    code, output = play(tmp_path, RUNNING, {**RUNNING, "figures": {"samples": 1}, "out_of_reach": [NO_NODE]})
    assert code == 2, output
    assert "GO is out of reach, whatever follows" in output
    assert "No such file or directory" in output
    assert "parallel_run_restart=true" in output
    assert (tmp_path / "calls").read_text().splitlines() == ["--json soak status"] * 2


@pytest.mark.parametrize("without", [[], ["out_of_reach"]])
def test_a_good_first_sample_lets_the_run_go_on(tmp_path: Path, without: list[str]) -> None:
    """Also with tools of an earlier version, which give no such list."""
    answer = {**RUNNING, "figures": {"samples": 1}}
    code, output = play(tmp_path, {name: value for name, value in answer.items() if name not in without})
    assert code == 0, output
    assert "goes on by itself (1 samples so far)" in output
