"""The health checks that role monitoring writes ask the cutover's program where, and only where, the product runs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.quick import ANSIBLE_PLAYBOOK, ROOT, ansible_variables

from glitchtip_ops.monitor import MonitorConfig

ROLE = ROOT / "roles" / "monitoring"
PLAY = """
- hosts: all
  connection: local
  gather_facts: false
  vars_files: [{role}/defaults/main.yml, {role}/vars/main.yml]
  tasks:
    - ansible.builtin.include_vars: {{file: "{out}/{{{{ inventory_hostname }}}}.yml"}}
    - ansible.builtin.copy:
        content: "{{{{ __monitoring_config | to_nice_json }}}}"
        dest: {out}/{{{{ inventory_hostname }}}}.json
        mode: "0600"
"""
#: Variables of a host, and the command that its health checks then have.
HOSTS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({}, ("/usr/local/sbin/ai-admin-cutover", "drift", "--json", "--config=/etc/ai-admin-cutover/config.json")),
    (
        {"ai_admin_cutover_link": "/opt/bin/switch", "ai_admin_cutover_config_dir": "/opt/etc"},
        ("/opt/bin/switch", "drift", "--json", "--config=/opt/etc/config.json"),
    ),
    ({"monitoring_product": False}, ()),
    ({"monitoring_stack": False}, ("/usr/local/sbin/ai-admin-cutover", "drift", "--json", "--config=/etc/ai-admin-cutover/config.json")),
    ({"monitoring_cutover_program": ""}, ()),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the settings of every host: ``host0.json`` is that of the first."""
    out = tmp_path_factory.mktemp("monitoring")
    (out / "play.yml").write_text(PLAY.format(role=ROLE, out=out))
    for number, (variables, _) in enumerate(HOSTS):
        (out / f"host{number}.yml").write_text(yaml.safe_dump(variables))
    done = subprocess.run(
        [ANSIBLE_PLAYBOOK, "-i", "".join(f"host{number}," for number in range(len(HOSTS))), out / "play.yml"],
        env=ansible_variables(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.parametrize("number", range(len(HOSTS)), ids=[f"variables{number}-command{number}" for number in range(len(HOSTS))])
def test_the_health_checks_compare_the_product_with_the_tracker(written: Path, number: int) -> None:
    config = MonitorConfig.read(written / f"host{number}.json")
    assert config.cutover_command == HOSTS[number][1]
    assert config.stack is HOSTS[number][0].get("monitoring_stack", True)
