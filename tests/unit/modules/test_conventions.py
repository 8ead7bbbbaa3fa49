"""What every glitchtip module keeps to, whoever wrote it and whenever: a new one is covered by its file name."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.module_utils import basic

ROOT = Path(__file__).resolve().parents[3]
MODULES = sorted(path.stem for path in (ROOT / "library").glob("glitchtip_*.py"))
EACH = pytest.mark.parametrize("name", MODULES)

SECRET_LIKE = re.compile(r"token|passw|secret|key|dsn|hook|credential|auth|current")
#: Options that hold a secret, by their full name: hidden from logs, in each module that has one.
HIDDEN = {
    "token": "lets in",
    "password": "lets in",
    "current": "a token of an earlier run",
    "dsn": "whoever has it may send events, and one wrong key blocks its project",
    "recipients.url": "the path of a webhook is its secret",
    "recipients.config.api_key": "the key of a Zulip bot",
    "organizations.projects.alerts.recipients.url": "the path of a webhook is its secret",
    "organizations.projects.alerts.recipients.config.api_key": "the key of a Zulip bot",
}
#: Options that look like a secret, or may hold one, and are shown all the same.
SHOWN = {
    "organizations.projects.keys": "names of keys",
    "return_dsns": "a switch",
    "target": "what a monitor asks is in the server's pages for everyone; a diff masks its user and query",
    "expected_body": "part of a public answer",
}


def all_options(options, above=""):
    """Options and suboptions with their full names, from an argument_spec or from documentation."""
    for name, option in options.items():
        yield above + name, option
        yield from all_options(option.get("options") or option.get("suboptions") or {}, f"{above}{name}.")


@pytest.fixture
def handed_over(monkeypatch):
    """handed_over(name) -> what a module hands to AnsibleModule."""

    class CaughtError(Exception):
        pass

    def of(name):
        seen = {}

        def catch(_self, **arguments):
            seen.update(arguments)
            raise CaughtError

        monkeypatch.setattr(basic.AnsibleModule, "__init__", catch)
        with pytest.raises(CaughtError):
            importlib.import_module(name).main()
        return seen

    return of


@pytest.fixture(scope="module")
def documentation():
    """What ansible-doc says of all modules, with the fragments in their places."""
    said = subprocess.run(
        [sys.executable, "-m", "ansible", "doc", "-t", "module", "--json", *MODULES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


def examples(name):
    """The tasks of a module's EXAMPLES."""
    return yaml.safe_load(importlib.import_module(name).EXAMPLES)


def test_there_are_modules():
    assert len(MODULES) >= 12


@EACH
def test_what_is_documented_is_what_it_takes(handed_over, documentation, name):
    documented = dict(all_options(documentation[name]["doc"]["options"]))
    declared = dict(all_options(handed_over(name)["argument_spec"]))
    assert documented.keys() == declared.keys()
    for option, value in declared.items():
        for part in ("type", "default", "choices", "elements"):
            assert documented[option].get(part) == value.get(part), (option, part)
        assert bool(documented[option].get("required")) == bool(value.get("required")), option
        assert set(documented[option].get("aliases") or []) == set(value.get("aliases") or []), option
        assert documented[option]["description"], option


@EACH
def test_its_documentation_is_whole(documentation, name):
    doc, returned = documentation[name]["doc"], documentation[name]["return"]
    assert doc["module"] == name
    assert doc["short_description"]
    assert doc["author"]
    assert doc["requirements"]
    for attribute in ("check_mode", "diff_mode"):
        assert doc["attributes"][attribute]["support"] in ("full", "partial", "none")
        assert doc["attributes"][attribute]["description"]
    assert {"failure", "msg"} <= returned.keys()
    for key, value in returned.items():
        assert value["description"], key
        assert value["returned"], key
        assert value["type"], key


@EACH
def test_it_supports_check_mode(handed_over, name):
    assert handed_over(name)["supports_check_mode"] is True


def undecided(options):
    """Names of options of which nobody has said whether they are secrets, or of which the code says the other."""
    wrong = []
    for option, value in all_options(options):
        no_log = value.get("no_log")
        if option in HIDDEN or option in SHOWN:
            if no_log is not (option in HIDDEN):
                wrong.append(option)
        elif no_log is not None or SECRET_LIKE.search(option.rpartition(".")[2]):
            wrong.append(option)
    return wrong


@EACH
def test_of_each_option_that_may_be_a_secret_it_is_decided(handed_over, name):
    assert undecided(handed_over(name)["argument_spec"]) == []


@pytest.mark.parametrize(
    "options",
    [
        {"signing_key": {"type": "str"}},
        {"signing_key": {"type": "str", "no_log": True}},
        {"token": {"type": "str"}},
        {"token": {"type": "str", "no_log": False}},
        {"recipients": {"type": "list", "options": {"url": {"type": "str"}}}},
        {"target": {"type": "str"}},
    ],
)
def test_an_undecided_secret_is_noticed(options):
    assert len(undecided(options)) == 1


def test_every_decision_is_about_an_option_that_exists(handed_over):
    known = {option for name in MODULES for option, _ in all_options(handed_over(name)["argument_spec"])}
    assert HIDDEN.keys() | SHOWN.keys() <= known


@EACH
def test_its_examples_are_tasks_that_it_takes(handed_over, name):
    spec = handed_over(name)["argument_spec"]
    tasks = examples(name)
    assert any(name in task for task in tasks)
    for task in tasks:
        assert task.get("name"), task
        (action,) = [key for key in task if key.startswith(("glitchtip_", "ansible.builtin."))]
        if action == name:
            given, known = task[action], spec
        elif action in MODULES:
            given, known = task[action], handed_over(action)["argument_spec"]
        else:
            continue
        assert given.keys() <= known.keys()
        assert {option for option, value in known.items() if value.get("required")} <= given.keys()
        for option, value in given.items():
            choices = known[option].get("choices")
            assert not choices or set(value if isinstance(value, list) else [value]) <= set(choices), option


@EACH
def test_an_example_holds_no_secret(name):
    """A secret comes from a variable."""
    for task in examples(name):
        for module in MODULES:
            for option in HIDDEN:
                value = (task.get(module) or {}).get(option)
                assert value is None or "{{" in value, (task["name"], option)


@EACH
def test_it_stays_small(name):
    """Logic lives in the shared client; a module declares."""
    tree = ast.parse((ROOT / "library" / f"{name}.py").read_text())
    lines = sum(
        node.end_lineno - node.lineno + 1
        for node in tree.body
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant))
        and not isinstance(node, ast.Expr)
    )
    assert lines <= 85


@EACH
def test_it_starts_as_ansible_wants_it(name):
    assert (ROOT / "library" / f"{name}.py").read_text().startswith("#!/usr/bin/python\n")


@EACH
def test_it_stands_in_the_table_of_modules(name):
    assert f"| [{name}](../library/{name}.py) |" in (ROOT / "docs/modules.md").read_text()
