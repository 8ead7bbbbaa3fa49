"""Repeating phase 3 in another mode, or with other times, is refused before anything is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from integration.operators.conftest import ROOT, Operator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the role runs as root")
PLAY = """
- hosts: servers
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: parallel_run}
"""


@pytest.fixture
def tools(operator: Operator) -> Path:
    """The real operator tools from the source, whose settings are in the test's directory; a run in mode probe exists."""
    place = operator.directory / "ops"
    (place / "state").mkdir(parents=True)
    command = place / "glitchtip-ops"
    command.write_text(
        f"#!/bin/sh\nGLITCHTIP_OPS_CONFIG_DIR={place} PYTHONPATH={ROOT / 'src'} exec {sys.executable} -m glitchtip_ops \"$@\"\n"
    )
    command.chmod(0o755)
    settings = {
        "migration_id": "test",
        "url": operator.world.new.url,
        "public_url": "http://localhost:9090",
        "organization": "ai-admin",
        "project": "ai-admin",
        "project_id": "3",
        "compose_dir": str(place),
        "backup_dir": str(place / "backups"),
        "state_dir": str(place / "state"),
    }
    (place / "settings.json").write_text(json.dumps(settings))
    (place / "token").write_text(operator.world.new.token)
    (place / "dsn").write_text(operator.world.new.dsn)
    operator.variables |= {
        "parallel_run_command": str(command),
        "parallel_run_config_dir": str(place),
        "parallel_run_state_dir": str(place / "state"),
        "parallel_run_dir": str(place),
        "parallel_run_product": False,
    }
    order = [command, "soak", "start", "--duration", "48h", "--interval", "15m", "--mode", "probe"]
    subprocess.run([str(word) for word in order], check=True, capture_output=True, timeout=60)
    return place


def contents(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "changed",
    [
        {"parallel_run_product": True, "parallel_run_mode": "mirror"},
        {"parallel_run_duration": "24h"},
        {"parallel_run_interval": "5m"},
    ],
    ids=["mode", "duration", "interval"],
)
def test_another_run_is_refused_before_anything_is_written(operator: Operator, tools: Path, changed: dict[str, object]) -> None:
    operator.variables |= changed
    play = operator.directory / "play.yml"
    play.write_text(PLAY)
    before = contents(tools)
    for options in ((), ("--check",)):
        code, printed = operator.play_file(play, *options)
        assert code == 2, printed
        text = " ".join(printed.split())
        assert "Nothing was changed on production: a soak of 172800 s every 900 s in mode probe exists already" in text
        assert "give -e parallel_run_restart=true" in text
        assert "non-zero return code" not in printed
        assert contents(tools) == before
    assert operator.world.calls() == []
