"""The health checks that role monitoring writes ask the cutover's program where, and only where, the product runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from glitchtip_ops.monitor import MonitorConfig

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles" / "monitoring"
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars_files: [{role}/defaults/main.yml, {role}/vars/main.yml]
  tasks:
    - ansible.builtin.copy:
        content: "{{{{ __monitoring_config | to_nice_json }}}}"
        dest: {out}/monitor.json
        mode: "0600"
"""


@pytest.mark.parametrize(
    ("variables", "command"),
    [
        ({}, ("/usr/local/sbin/ai-admin-cutover", "drift", "--json", "--config=/etc/ai-admin-cutover/config.json")),
        (
            {"ai_admin_cutover_link": "/opt/bin/switch", "ai_admin_cutover_config_dir": "/opt/etc"},
            ("/opt/bin/switch", "drift", "--json", "--config=/opt/etc/config.json"),
        ),
        ({"monitoring_product": False}, ()),
        ({"monitoring_cutover_program": ""}, ()),
    ],
)
def test_the_health_checks_compare_the_product_with_the_tracker(
    tmp_path: Path, variables: dict[str, Any], command: tuple[str, ...]
) -> None:
    (tmp_path / "play.yml").write_text(PLAY.format(role=ROLE, out=tmp_path))
    (tmp_path / "extra.yml").write_text(yaml.safe_dump(variables))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", tmp_path / "play.yml",
         "-e", f"@{tmp_path / 'extra.yml'}"],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert MonitorConfig.read(tmp_path / "monitor.json").cutover_command == command
