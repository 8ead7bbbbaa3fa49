"""The example inventory names every variable of every role, with the value that it really has, and no secret."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "inventory" / "example"
VARIABLES = EXAMPLE / "group_vars" / "all" / "main.yml"
VAULT = EXAMPLE / "group_vars" / "all" / "vault.example.yml"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: "# name: value" is a variable that is commented out; explanations begin with two #.
COMMENTED = re.compile(r"^# ([a-z][a-z0-9_]*:.*)$", re.MULTILINE)
SWITCHED_OFF = re.compile(
    r"StrictHostKeyChecking(?!=yes)|host_key_checking|HOST_KEY_CHECKING|UserKnownHostsFile=/dev/null"
)
KINDS = {"str": str, "path": str, "int": int, "bool": bool, "list": list, "dict": dict, "float": (int, float)}


def load(path):
    return yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER) or {}  # noqa: S506 - a safe loader


def commented(path):
    """Name and value of every variable that stands there commented out."""
    found = {}
    for line in COMMENTED.findall(path.read_text(encoding="utf-8")):
        found |= yaml.safe_load(line)
    return found


@cache
def specifications():
    """Every variable of every role: name -> its argument specification."""
    found = {}
    for path in sorted((ROOT / "roles").glob("*/meta/argument_specs.yml")):
        for entry in load(path)["argument_specs"].values():
            found |= entry.get("options") or {}
    return found


def command(*arguments):
    """Run one of Ansible's commands of this environment; its standard output."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / arguments[0]), *arguments[1:]],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def hosts(inventory):
    """Variables by host, as `ansible-inventory` sees them."""
    return json.loads(command("ansible-inventory", "-i", str(inventory), "--list"))["_meta"]["hostvars"]


def test_every_variable_of_every_role_is_set_or_shown_exactly_once():
    text = VARIABLES.read_text(encoding="utf-8")
    stands = {
        name: len(re.findall(rf"^(?:# )?{name}:", text, re.MULTILINE)) for name in sorted(specifications())
    }
    assert len(stands) > 100
    assert {name: count for name, count in stands.items() if count != 1} == {}


def test_every_variable_is_explained_by_the_line_above_it():
    lines = VARIABLES.read_text(encoding="utf-8").splitlines()
    bare = [
        line
        for above, line in zip(["", *lines], lines, strict=False)
        if re.match(rf"(# )?({'|'.join(specifications())}):", line) and not above.startswith("## ")
    ]
    assert bare == []


def test_what_is_commented_out_shows_the_default_that_the_role_has():
    known = specifications()
    differing = {
        name: (value, known[name].get("default"))
        for name, value in commented(VARIABLES).items()
        if name in known and value != known[name].get("default")
    }
    assert differing == {}


def test_no_variable_is_unknown():
    """A name is a role's, or something else in this inventory or in a playbook refers to it."""
    readers = [VARIABLES, EXAMPLE / "hosts.yml", *sorted((ROOT / "playbooks").rglob("*.yml"))]
    text = "\n".join(
        re.sub(r"^##.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE) for path in readers
    )
    used = set(re.findall(r"[a-z][a-z0-9_]*", " ".join(re.findall(r"\{\{(.*?)\}\}", text))))
    names = set(load(VARIABLES)) | set(commented(VARIABLES))
    assert names - set(specifications()) - used == set()


def test_what_is_set_fits_the_specification():
    known = specifications()
    wrong = []
    for name, value in load(VARIABLES).items():
        specification = known.get(name, {})
        if isinstance(value, str) and "{{" in value:
            continue
        kind = specification.get("type", "raw")
        if kind != "raw" and (
            not isinstance(value, KINDS[kind]) or value not in specification.get("choices", [value])
        ):
            wrong.append(name)
    assert wrong == []


@pytest.fixture(scope="module")
def resolved():
    """Every set variable of the example with its templates resolved by Ansible, on the example's host."""
    names = sorted(load(VARIABLES))
    wanted = "{{ {" + ", ".join(f"'{name}': {name}" for name in names) + "} | to_json }}"
    printed = command(
        "ansible",
        "-i",
        str(EXAMPLE),
        "servers",
        "-m",
        "ansible.builtin.debug",
        "-a",
        json.dumps({"msg": wanted}),
    )
    return json.loads(json.loads(printed[printed.index("{") :])["msg"])


def test_references_resolve_and_the_product_is_said_once(resolved):
    services, modules = resolved["product_services"], resolved["product_modules"]
    for name in ("preflight_services", "ai_admin_cutover_services"):
        assert resolved[name] == services
    for name in ("preflight_pm2_modules", "ai_admin_cutover_without_sdk"):
        assert resolved[name] == modules
    for name in ("parallel_run_pm2_services", "monitoring_pm2_services"):
        assert resolved[name] == services + modules
    assert resolved["ai_admin_cutover_canary"] in services
    assert resolved["preflight_port"] == resolved["glitchtip_port"] == 8080
    assert resolved["ai_admin_cutover_env_file"] == resolved["preflight_env_file"] == "/opt/ai-admin/.env"
    assert resolved["migration_state_dir"].endswith("/" + resolved["migration_id"])


def test_the_example_differs_from_the_roles_only_where_an_operator_decides(resolved):
    """What is set without being asked for would hide a default that changes later."""
    differing = {
        name
        for name, specification in specifications().items()
        if name in resolved and "{{" not in str(specification.get("default"))
        if resolved[name] != specification.get("default")
    }
    assert differing == {
        "ai_admin_cutover_old_api_url",
        "ai_admin_cutover_old_organization",
        "ai_admin_cutover_old_project",
        "ai_admin_cutover_old_token",
        "ai_admin_cutover_window",
        "ops_sentry_url",
        "ops_sentry_organization",
        "ops_sentry_project",
        "ops_sentry_token",
        "parallel_run_pm2_services",
        "monitoring_pm2_services",
    }


@pytest.mark.parametrize("name", ["demo", "example"])
@pytest.mark.slow
def test_the_inventory_parses_and_has_a_server(name):
    assert len(hosts(ROOT / "inventory" / name)) == 1


def test_only_the_demo_switches_the_check_of_host_keys_off():
    paths = [
        path
        for folder in ("inventory", "playbooks", "roles")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and path.suffix in {".yml", ".yaml", ".j2", ".ini", ".cfg"}
    ]
    assert len(paths) > 20
    found = {
        path.relative_to(ROOT).parts[:2]
        for path in paths
        if SWITCHED_OFF.search(path.read_text(encoding="utf-8"))
    }
    assert found == {("inventory", "demo")}
    settings = (ROOT / "ansible.cfg").read_text(encoding="utf-8")
    assert [line for line in settings.splitlines() if SWITCHED_OFF.search(line)] == [
        "host_key_checking = true"
    ]


def test_secrets_come_from_the_vault_and_each_is_in_its_example():
    variables = load(VARIABLES)
    secret = {name for name, specification in specifications().items() if specification.get("no_log")}
    assert "ai_admin_cutover_old_token" in secret
    plain = {
        name
        for name in secret & set(variables)
        if not re.fullmatch(r"\{\{ vault_[a-z_]+ \}\}", variables[name])
    }
    assert plain == set()
    text = VARIABLES.read_text(encoding="utf-8") + (EXAMPLE / "hosts.yml").read_text(encoding="utf-8")
    referred = set(re.findall(r"\{\{ (vault_[a-z_]+) \}\}", text))
    assert referred == set(load(VAULT)) | set(commented(VAULT))
    needed = set(re.findall(r"^ *[a-z][a-z_]*: \"\{\{ (vault_[a-z_]+) \}\}\"", text, re.MULTILINE))
    assert needed == set(load(VAULT))


def test_no_value_of_the_vault_example_could_be_taken_for_a_secret():
    values = load(VAULT) | commented(VAULT)
    assert [name for name, value in values.items() if "replace-me" not in value] == []


@pytest.mark.parametrize("name", ["demo/group_vars/all/main.yml", "demo/hosts.yml", "example"])
def test_no_file_of_an_inventory_holds_a_key_or_a_token(name):
    place = ROOT / "inventory" / name
    files = sorted(place.rglob("*.yml")) if place.is_dir() else [place]
    assert files
    for path in files:
        text = re.sub(r"sha256:[0-9a-f]{64}", "", path.read_text(encoding="utf-8"))
        long = [
            word
            for word in re.findall(r"[A-Za-z0-9+=]{24,}", text)
            if re.search(r"[0-9]", word) and re.search(r"[A-Za-z]", word)
        ]
        assert long == [], path
        assert not re.search(r"PRIVATE KEY|//[^/\s@:]+:(?!replace-me)[^/\s@]+@", text), path


def test_addresses_of_the_example_belong_to_nobody():
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(EXAMPLE.rglob("*.yml")))
    addresses = set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text))
    assert {address for address in addresses if not address.startswith(("192.0.2.", "127."))} == set()
    mail_hosts = set(re.findall(r"[a-z]+@([a-z][a-z.]+)", text))
    assert {host for host in mail_hosts if not host.endswith("example.org")} == set()
