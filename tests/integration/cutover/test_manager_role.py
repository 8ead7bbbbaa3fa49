"""What the role writes: a configuration that the program accepts, and units in the right order, for each manager."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.quick import ANSIBLE_PLAYBOOK, ROOT, ansible_variables

from glitchtip_cutover.config_file import parse_config

ROLE = ROOT / "roles" / "ai-admin-cutover"
UNITS = ("recover", "verify", "watch")
PLAY = """
- hosts: all
  connection: local
  gather_facts: false
  vars_files: [{role}/defaults/main.yml, {role}/vars/main.yml]
  tasks:
    - ansible.builtin.include_vars: {{file: "{out}/{{{{ inventory_hostname }}}}.json"}}
    - ansible.builtin.copy:
        content: "{{{{ __ai_admin_cutover_config | to_nice_json }}}}"
        dest: {out}/{{{{ inventory_hostname }}}}/config.json
    - ansible.builtin.template:
        src: {role}/templates/ai-admin-cutover-{{{{ item }}}}.service.j2
        dest: {out}/{{{{ inventory_hostname }}}}/{{{{ item }}}}.service
      loop: [recover, verify, watch]
"""
VARIABLES: dict[str, dict[str, Any]] = {
    "pm2": {
        "ai_admin_cutover_pm2_user": "deploy",
        "__ai_admin_cutover_pm2_units": {
            "files": [{"path": "/etc/systemd/system/shop-pm2.service"}, {"path": "/etc/systemd/system/pm2-deploy.service"}]
        },
    },
    "systemd": {
        "ai_admin_cutover_services": ["api", {"name": "bot.service", "env_file": "/opt/bot/.env"}],
        "ai_admin_cutover_canary": "api",
    },
    "compose": {
        "ai_admin_cutover_app_dir": "/srv/shop",
        "ai_admin_cutover_services": ["web", "bot"],
        "ai_admin_cutover_canary": "",
        "ai_admin_cutover_window": "Sun 06:00-08:00",
        "ai_admin_cutover_verdict_file": "",
        "ai_admin_cutover_watch_compose_project": "",
    },
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directory of what the role writes, by manager: one run, in which each manager is a host."""
    out = tmp_path_factory.mktemp("managers")
    (out / "play.yml").write_text(PLAY.format(role=ROLE, out=out))
    for manager, variables in VARIABLES.items():
        (out / manager).mkdir()
        given = {"migration_id": "walk", "ai_admin_cutover_manager": manager, **variables}
        (out / f"{manager}.json").write_text(json.dumps(given))
    done = subprocess.run(
        [ANSIBLE_PLAYBOOK, "-i", "".join(f"{manager}," for manager in VARIABLES), out / "play.yml"],
        capture_output=True,
        text=True,
        env=ansible_variables(),
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {manager: out / manager for manager in VARIABLES}


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return parser


@pytest.mark.parametrize("manager", VARIABLES)
def test_the_program_accepts_the_configuration_of_the_role(written: dict[str, Path], manager: str) -> None:
    path = written[manager] / "config.json"
    config = parse_config(json.loads(path.read_text()), path)
    assert config.manager == manager
    assert (config.watch.seconds, config.watch.missed_events) == (3600, 3)
    assert config.state_dir == Path("/var/lib/ai-admin-cutover/walk")
    assert config.strategy == "one_by_one"
    if manager == "pm2":
        assert config.verdict is not None
        assert (config.verdict.file, config.verdict.max_age) == (
            Path("/var/lib/glitchtip-ops/walk/verdict.json"),
            259200,
        )
        assert (config.pm2.home, config.pm2.node) == (None, None)  # derived on the host, where the user is known
        assert config.canary == "ai-admin-booking-monitor"
    if manager == "systemd":
        assert config.service("bot.service").env_file == Path("/opt/bot/.env")
    if manager == "compose":
        assert (config.compose.project, config.compose.directory) == ("shop", Path("/srv/shop"))
        assert (config.verdict, config.canary, config.watch.compose_project) == (None, "", "")
        assert config.window is not None


@pytest.mark.parametrize(
    ("manager", "before", "after"),
    [
        ("pm2", ["pm2-deploy.service", "shop-pm2.service"], ["local-fs.target"]),
        ("systemd", ["api.service", "bot.service"], ["local-fs.target"]),
        ("compose", [], ["local-fs.target", "docker.service"]),
    ],
)
def test_the_recovery_comes_before_the_services_where_that_helps_and_after_docker_where_it_needs_it(
    written: dict[str, Path], manager: str, before: list[str], after: list[str]
) -> None:
    recover = unit(written[manager] / "recover.service")["Unit"]
    assert recover.get("Before", "").split() == before
    assert recover["After"].split() == after
    assert recover["ConditionPathExists"] == "/var/lib/ai-admin-cutover/walk/open"
    for name, mark in (("verify", "verify"), ("watch", "watch.json")):
        section = unit(written[manager] / f"{name}.service")["Unit"]
        assert {"ai-admin-cutover-recover.service", *(before or ["docker.service"])} <= set(
            section["After"].split()
        )
        assert section["ConditionPathExists"] == f"/var/lib/ai-admin-cutover/walk/{mark}"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("ExecStart=/usr/local/lib/node_modules/pm2/bin/pm2 resurrect", True),
        ("ExecStart = /home/deploy/.nvm/versions/node/v20.11.0/bin/pm2 start /srv/shop/ecosystem.config.cjs --no-daemon", True),
        ("ExecStartPost=/bin/sh -c '/usr/bin/pm2 resurrect'", True),
        ("ExecReload=/usr/bin/pm2 reload all", False),
        ("Description=pm2 start", False),
        ("ExecStart=/usr/bin/python3 -I /usr/local/lib/ai-admin-cutover/ai-admin-cutover.pyz recover", False),
    ],
)
def test_units_that_start_pm2_are_known_whatever_their_name(line: str, found: bool) -> None:
    for tasks in (ROLE / "tasks" / "install.yml", ROOT / "roles" / "parallel_run" / "tasks" / "mirror_install.yml"):
        task = next(each for each in yaml.safe_load(tasks.read_text()) if each["name"] == "Find the units that start PM2 at boot")
        assert bool(re.match(task["ansible.builtin.find"]["contains"], line)) == found


def test_every_unit_starts_at_boot_and_the_watch_again_after_a_failure(written: dict[str, Path]) -> None:
    for name in UNITS:
        parsed = unit(written["pm2"] / f"{name}.service")
        assert parsed["Install"]["WantedBy"] == "multi-user.target"
        assert f" {name} " in parsed["Service"]["ExecStart"]
    watch = unit(written["pm2"] / "watch.service")["Service"]
    assert (watch["Restart"], watch["RestartPreventExitStatus"]) == ("on-failure", "2 3 4 5")


def test_the_break_glass_is_a_copy_and_goes_with_the_program() -> None:
    """A link would break with what it points to."""
    install = yaml.safe_load((ROLE / "tasks" / "install.yml").read_text())
    copies = [task["cutover_zipapp"]["dest"] for task in install if "cutover_zipapp" in task]
    assert copies == ["{{ ai_admin_cutover_program }}", "{{ ai_admin_cutover_break_glass }}"]
    assert "ai_admin_cutover_break_glass" in (ROLE / "tasks" / "remove.yml").read_text()
