"""The variables of roles and inventories as Ansible resolves them for the host of the example, in this process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from drills.role_stack import load_plugins

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "inventory" / "example" / "group_vars" / "all" / "main.yml"
HOST = "production"
#: What Ansible itself adds for a playbook of this repository on a single server.
MAGIC = {
    "inventory_hostname": HOST,
    "groups": {"all": [HOST], "servers": [HOST]},
    "hostvars": {HOST: {}},
    "playbook_dir": str(ROOT / "playbooks"),
    "ansible_play_hosts_all": [HOST],
    "ansible_check_mode": False,
    "vault_sentry_token": "token-from-the-vault",
}


@cache
def loader() -> DataLoader:
    """Ansible's reader of YAML, with this repository's filters known."""
    load_plugins()
    return DataLoader()


def read_variables(path: Path) -> dict[str, Any]:
    """The variables of one file; their templates are ones that Ansible trusts."""
    return dict(loader().load_from_file(str(path), trusted_as_template=True) or {})


def templates(text: Any) -> bool:
    """Whether a value has a template anywhere in it."""
    return "{{" in str(text) or "{%" in str(text)


@cache
def roles_variables() -> dict[str, Any]:
    """Defaults and vars of every role, as they are written."""
    found: dict[str, Any] = {}
    for pattern in ("roles/*/defaults/main.yml", "roles/*/vars/main.yml"):
        for path in sorted(ROOT.glob(pattern)):
            found |= read_variables(path)
    return found


def render(variables: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, Any]:
    """``names`` (all variables) with their templates resolved; those that need a host's answer or a registered result are left out."""
    templar = Templar(loader=loader(), variables={**MAGIC, **variables})
    found: dict[str, Any] = {}
    for name in variables if names is None else names:
        try:
            found[name] = templar.template(variables[name])
        except AnsibleError:
            continue
    return found
