"""The shared package: standard library and relative imports only, and nothing of it written a second time."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from unit.core.product import FILES

from glitchtip_cutover.bundle import bundle

ROOT = Path(__file__).resolve().parents[3]
CORE = ROOT / "src" / "glitchtip_core"

#: What sends HTTP, SMTP or anything else over a connection, and who may import it: one place for each kind of client.
CLIENTS = {
    "http.client": {"src/glitchtip_core/http.py", "src/glitchtip_api/connections.py"},
    "urllib.request": set(),
    "smtplib": {"src/glitchtip_core/notify/transports/email.py"},
    "requests": {"src/glitchtip_api/connections.py"},
    "urllib3": {"src/glitchtip_api/connections.py"},
    "httpx": set(),
    "aiohttp": set(),
    "ftplib": set(),
    "ansible.module_utils.urls": set(),
}


def clients_of(source: str) -> set[str]:
    """The clients of CLIENTS that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {
        client for client in CLIENTS if any(name == client or name.startswith(f"{client}.") for name in names)
    }


def test_http_is_sent_from_one_place_and_by_the_api_client() -> None:
    """So that each request has an end, a size, no redirect and no foreign proxy."""
    found: dict[str, set[str]] = {client: set() for client in CLIENTS}
    for path in FILES:
        for client in clients_of(path.read_text()) if path.suffix == ".py" else ():
            found[client].add(path.relative_to(ROOT).as_posix())
    assert found == CLIENTS


@pytest.mark.parametrize(
    ("line", "client"),
    [
        ("import urllib.request as u", "urllib.request"),
        ("from urllib import request", "urllib.request"),
        ("from urllib.request import urlopen", "urllib.request"),
        ("from http import client", "http.client"),
        ("import requests.adapters", "requests"),
        ("from requests import get", "requests"),
    ],
)
def test_a_second_client_is_found(line: str, client: str) -> None:
    assert clients_of(line) == {client}
    assert clients_of("from urllib.parse import urlsplit\nfrom .requests import x\nimport http") == set()


def test_every_role_that_calls_pm2_takes_the_same_four_settings() -> None:
    """User, PM2_HOME, program and Node.js; all roles take one value of each."""
    for role, node in (
        ("preflight", "preflight_node_binary"),
        ("ai_admin_cutover", "ai_admin_cutover_node_binary"),
        ("parallel_run", "parallel_run_pm2_node"),
        ("monitoring", "monitoring_pm2_node"),
    ):
        for name, value in (
            (f"{role}_pm2_user", "product_pm2_user"),
            (f"{role}_pm2_home", "product_pm2_home"),
            (f"{role}_pm2_binary", "product_pm2_binary"),
            (node, "product_node_binary"),
        ):
            defaults = (ROOT / "roles" / role.replace("ai_admin_", "ai-admin-") / "defaults/main.yml").read_text()
            assert f'\n{name}: "{{{{ {value} | default(' in defaults, name


def imported(package: str) -> set[str]:
    """Our own packages that ``package`` imports."""
    found: set[str] = set()
    for path in (ROOT / "src" / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            found |= {name.split(".")[0] for name in names if name.startswith("glitchtip_")}
    return found - {package}


def test_what_the_tools_and_the_switch_import_is_installed_with_them(tmp_path: Path) -> None:
    tasks = yaml.safe_load((ROOT / "roles/ops/tasks/install.yml").read_text())
    argv = next(task for task in tasks if task["name"] == "Pack the source")["ansible.builtin.command"]["argv"]
    assert imported("glitchtip_ops") | {"glitchtip_ops"} == {word for word in argv if word.startswith("glitchtip_")}
    program = tmp_path / "program.pyz"
    program.write_bytes(bundle(ROOT / "src" / "glitchtip_cutover"))
    with zipfile.ZipFile(program) as archive:
        names = {path.relative_to(CORE.parent).as_posix() for path in CORE.rglob("*.py")}
        assert any(name.count("/") == 3 for name in names)
        assert names <= set(archive.namelist())


def test_the_switch_is_imported_as_module_utils_where_only_ansible_finds_our_packages() -> None:
    """On a server a module of Ansible has them below ansible.module_utils alone."""
    source = """
import ansible.module_utils, sys
ansible.module_utils.__path__.append(sys.argv[1])
from ansible.module_utils.glitchtip_cutover import compose, pm2, prechecks, systemd
assert sys.modules["glitchtip_core.pm2"].__name__ == "ansible.module_utils.glitchtip_core.pm2"
"""
    argv = [sys.executable, "-I", "-c", source, str(ROOT / "src")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr


def test_every_part_of_the_shared_package_is_found_where_modules_come_over_the_wire() -> None:
    """Mitogen finds a part only by a name that was imported before; ours are named below ansible.module_utils there."""
    source = """
import ansible.module_utils, sys
ansible.module_utils.__path__.append(sys.argv[1])
import ansible.module_utils.glitchtip_cutover
print(*sorted(name for name in sys.modules if name.startswith("glitchtip_core.")))
"""
    argv = [sys.executable, "-I", "-c", source, str(ROOT / "src")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    names = {path.relative_to(CORE.parent).with_suffix("").as_posix().replace("/", ".") for path in CORE.rglob("*.py")}
    parts = {name.removesuffix(".__init__") for name in names} - {"glitchtip_core"}
    assert len(parts) > 3
    assert set(done.stdout.split()) == parts
