"""The playbooks on this machine, as an operator runs them, with a small product under a fake PM2 between two trackers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.cutover.conftest import World, program, world
from integration.quick import ANSIBLE_PLAYBOOK, ROOT, ansible_variables

__all__ = ["ROOT", "Operator", "operator", "program", "world"]


class Operator:
    """An inventory of one host, which is this machine, and what its playbooks print."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self.directory = directory
        self.state = directory / "host"
        self.vault: dict[str, Any] = {"vault_old_token": world.old.token, "vault_sentry_token": world.old.token}
        product = world.settings
        node = directory / "node"
        node.write_text("#!/bin/sh\necho v20.0.0\n")
        node.chmod(0o755)
        tracker = {"organization": "ai-admin", "project": "ai-admin"}
        self.variables: dict[str, Any] = {
            "migration_id": "test",
            "migration_state_dir": str(self.state / "migration"),
            "preflight_state_dir": str(self.state / "migration"),
            "preflight_target_file": str(self.state / "target"),
            "preflight_env_file": product["env_file"],
            "preflight_node_binary": str(node),
            "preflight_pm2_binary": product["pm2"]["binary"],
            "preflight_pm2_home": product["pm2"]["home"],
            "preflight_services": product["services"],
            "preflight_pm2_modules": product["without_sdk"],
            "preflight_port": 18093,
            "ai_admin_cutover_app_dir": product["app_dir"],
            "ai_admin_cutover_program": str(world.program),
            "ai_admin_cutover_config_dir": str(world.root),
            "ai_admin_cutover_state_root": str(self.state / "cutover"),
            "ai_admin_cutover_link": str(self.state / "link"),
            "ai_admin_cutover_break_glass": str(self.state / "rollback"),
            "ai_admin_cutover_services": product["services"],
            "ai_admin_cutover_without_sdk": product["without_sdk"],
            "ai_admin_cutover_canary": product["canary"],
            "ai_admin_cutover_pm2_home": product["pm2"]["home"],
            "ai_admin_cutover_pm2_binary": product["pm2"]["binary"],
            "ai_admin_cutover_node_binary": product["pm2"]["node"],
            "ai_admin_cutover_new_settings_file": str(self.state / "settings.json"),
            **{f"ai_admin_cutover_old_{key}": value for key, value in tracker.items()},
            "ai_admin_cutover_old_api_url": world.old.url,
            "ai_admin_cutover_old_token": "{{ vault_old_token }}",
            **{f"ops_sentry_{key}": value for key, value in tracker.items()},
            "ops_sentry_url": world.old.url,
            "ops_sentry_token": "{{ vault_sentry_token }}",
        }

    def write(self) -> None:
        """The inventory as files."""
        place = self.directory / "inventory/group_vars/all"
        place.mkdir(parents=True, exist_ok=True)
        (place / "main.yml").write_text(yaml.safe_dump(self.variables))
        (place / "vault.yml").write_text(yaml.safe_dump(self.vault))
        hosts = {"all": {"children": {"servers": {"hosts": {"production": {"ansible_connection": "local"}}}}}}
        (self.directory / "inventory/hosts.yml").write_text(yaml.safe_dump(hosts))

    def play(self, name: str, *options: str) -> tuple[int, str]:
        """Run one of the repository's playbooks, see ``play_file``."""
        return self.play_file(ROOT / f"playbooks/{name}.yml", *options)

    def play_file(self, playbook: Path, *options: str) -> tuple[int, str]:
        """Run a playbook: exit code and everything that it printed, which must hold no secret."""
        self.write()
        done = subprocess.run(
            [
                str(ANSIBLE_PLAYBOOK),
                "-i",
                str(self.directory / "inventory"),
                str(playbook),
                *options,
            ],
            cwd=ROOT,
            env=ansible_variables(ANSIBLE_NOCOLOR="1", COLUMNS="400", **self.world.environment()),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        printed = done.stdout + done.stderr
        self.world.output.append(printed)
        return done.returncode, printed

    def files(self) -> set[str]:
        """What is on the "host" besides the product."""
        return {str(path) for path in self.state.rglob("*")}


def reasons(printed: str) -> list[str]:
    """The reasons of the last message of phase 0, a sentence each."""
    last = printed.rpartition("    msg: |-")[2]
    return [line.strip()[2:] for line in last.splitlines() if line.strip().startswith("- ")]


@pytest.fixture
def operator(world: World, tmp_path: Path) -> Operator:
    world.program.chmod(0o755)
    directory = tmp_path / "controller"
    (directory / "host").mkdir(parents=True)
    return Operator(world, directory)


