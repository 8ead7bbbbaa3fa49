"""What operators read before they start agrees with what the roles and programs have."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from glitchtip_cutover import errors

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/before_you_start.md").read_text()
README = (ROOT / "README.md").read_text()
TEXTS = [
    ROOT / "README.md",
    ROOT / "ansible.cfg",
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "playbooks").rglob("*.yml"),
    *(ROOT / "inventory/example").rglob("*.yml"),
]


def variables(role: str, part: str = "defaults") -> dict[str, object]:
    return yaml.safe_load((ROOT / "roles" / role / part / "main.yml").read_text())


def table(text: str, heading: str) -> dict[str, list[str]]:
    """First column -> all columns of the table below a heading (or below a line that begins so)."""
    rest = text[text.index(heading) + len(heading) :]
    rows = re.search(r"(?:^\|.*\n)+", rest, re.MULTILINE)
    assert rows, heading
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows[0].splitlines()[2:]]
    return {row[0].strip("`"): row for row in cells}


def test_every_command_names_the_inventory_alike():
    named = {
        f"{path.relative_to(ROOT)}: {found}"
        for path in TEXTS
        for found in re.findall(r"-i (inventory/[\w.-]+)", path.read_text())
        if found != "inventory/production"
    }
    assert not named


def ignored(path: str) -> bool:
    done = subprocess.run(
        ["git", "check-ignore", "--quiet", "--no-index", path], cwd=ROOT, check=False, capture_output=True
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


@pytest.mark.parametrize(
    "path",
    [
        "inventory/production/hosts.yml",
        "inventory/production/group_vars/all/vault.yml",
        "inventory/staging/group_vars/all/main.yml",
        "inventory/hosts.yml",
        "inventory/demo/group_vars/all/generated.yml",
    ],
)
def test_git_ignores_an_inventory_of_ones_own(path):
    assert ignored(path)


def test_git_keeps_the_demo_and_the_example():
    listed = subprocess.run(
        ["git", "ls-files", "inventory"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert {Path(path).parts[1] for path in listed} == {"demo", "example"}
    assert not [path for path in listed if ignored(path)]


def test_docker_source_says_for_each_supported_system_what_the_role_does():
    rows = table(PAGE, "### `docker_source`")
    packages = variables("docker", "vars")["__docker_distro_packages"]
    assert isinstance(packages, dict)
    systems = variables("preflight")["preflight_systems"]
    assert isinstance(systems, list)
    assert {f"{one['id']} {one['version']}" for one in systems} == {name.lower() for name in rows}
    for name, row in rows.items():
        offered = packages.get(name.lower().replace(" ", ""))
        assert row[2].startswith("yes" if offered else "refused"), name
        for package in re.findall(r"`([^`]+)`", row[2]):
            assert package in offered


def port_of(value: str) -> str:
    """The port of an address, also where it is the default in a template."""
    found = re.search(r":(\d+)\D*$", value)
    assert found, value
    return found[1]


def test_the_ports_are_the_defaults():
    rows = table(PAGE, "### Ports")
    listen = str(variables("parallel_run")["parallel_run_mirror_listen"])
    public = str(variables("glitchtip")["glitchtip_public_url"])
    assert set(rows) == {
        str(variables("glitchtip")["glitchtip_port"]),
        str(variables("local_test")["local_test_port"]),
        "any free one",
        port_of(listen),
        port_of(public),
    }
    known = {name for role in (ROOT / "roles").iterdir() for name in variables(role.name)}
    named = {name for row in rows.values() for name in re.findall(r"`([a-z0-9_]+)`", row[2])}
    assert named
    assert named <= known | {"mirror"}


def test_the_firewall_rule_is_the_one_that_the_walk_uses():
    used = (ROOT / "tests/rig/images/operator/nftables.conf").read_text()
    shown = re.search(r"```\n(table inet filter \{\n.*?\n\})\n```", PAGE, re.DOTALL)
    assert shown
    assert used.endswith(shown[1] + "\n")


def test_the_question_for_the_user_of_pm2_is_the_one_that_the_walk_asks():
    walk = (ROOT / "tests/rig/operator_server.py").read_text()
    asked = re.search(r'^_ASK_USER = "(.*)"$', walk, re.MULTILINE)
    assert asked
    assert f"sudo -u shop -H bash -ic '{asked[1]}'" in PAGE


def test_every_exit_code_of_the_switch_is_explained_where_it_is_met():
    rows = table(README, "names the exit code of `ai-admin-cutover`")
    explained = {int(code) for key in rows for code in key.split(", ")}
    codes = {
        one.exit_code
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.CutoverError)
    }
    assert explained == codes


def test_what_the_controller_does_with_ssh_is_what_the_configuration_says():
    assert "PreferredAuthentications=publickey" in (ROOT / "ansible.cfg").read_text()
    assert "PreferredAuthentications=publickey" in PAGE
    assert "host_key_checking = true" in (ROOT / "ansible.cfg").read_text()


def test_variables_that_the_page_names_exist():
    example = (ROOT / "inventory/example/group_vars/all/main.yml").read_text()
    prefixes = "product|docker|glitchtip|ai_admin_cutover|local_test|parallel_run"
    named = set(re.findall(rf"`((?:{prefixes})_[a-z0-9_]+)[`:]", PAGE))
    assert len(named) > 10
    known = set(re.findall(r"^(?:# )?([a-z0-9_]+):", example, re.MULTILINE))
    known |= {name for role in (ROOT / "roles").iterdir() for name in variables(role.name)}
    assert named <= known
