"""What a role says that it takes is what it takes: argument specifications, defaults and tasks agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if (path / "tasks").is_dir())
NAMES = [role.name for role in ROLES]
KINDS = {"str": str, "path": str, "int": int, "bool": bool, "list": list, "dict": dict, "float": (int, float)}

by_role = pytest.mark.parametrize("role", ROLES, ids=NAMES)


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def defaults(role):
    path = role / "defaults" / "main.yml"
    return load(path) if path.exists() else {}


def entry_points(role):
    return load(role / "meta" / "argument_specs.yml")["argument_specs"]


def options(role):
    """Each (entry point, name, specification) of a role."""
    return [
        (entry, name, specification)
        for entry, body in entry_points(role).items()
        for name, specification in (body.get("options") or {}).items()
    ]


def prefix(role):
    return role.name.replace("-", "_") + "_"


def test_there_are_roles():
    assert {"preflight", "docker"} <= set(NAMES)


@by_role
def test_every_default_is_specified_and_every_optional_argument_has_a_default(role):
    specified = {name for _, name, specification in options(role) if not specification.get("required")}
    assert specified == set(defaults(role))


@by_role
def test_the_defaults_are_the_same_in_both_places(role):
    values = defaults(role)
    differing = {
        f"{entry}: {name}": (specification.get("default"), values[name])
        for entry, name, specification in options(role)
        if name in values and specification.get("default") != values[name]
    }
    assert differing == {}


@by_role
def test_defaults_have_the_type_that_is_specified(role):
    wrong = []
    for _, name, specification in options(role):
        value = specification.get("default")
        templated = isinstance(value, str) and "{{" in value
        kind = specification.get("type", "str")
        if value is None or templated or kind == "raw":
            continue
        if not isinstance(value, KINDS[kind]) or (kind != "bool" and isinstance(value, bool)):
            wrong.append(name)
    assert wrong == []


@by_role
def test_every_argument_is_described_and_carries_the_name_of_its_role(role):
    poor = [
        name
        for _, name, specification in options(role)
        if not specification.get("description") or not name.startswith(prefix(role))
    ]
    assert poor == []


@by_role
def test_every_argument_is_used_by_its_role(role):
    text = "\n".join(
        path.read_text(encoding="utf-8", errors="replace")
        for folder in ("tasks", "templates", "vars", "handlers", "files", "action_plugins", "defaults")
        for path in sorted((role / folder).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    )
    unused = {name for _, name, _ in options(role) if len(re.findall(rf"\b{name}\b", text)) < 2}
    assert unused == set()


@by_role
def test_every_entry_point_is_a_file(role):
    missing = [
        entry
        for entry in entry_points(role)
        if not any((role / "tasks" / f"{entry}{suffix}").exists() for suffix in (".yml", ".yaml"))
    ]
    assert missing == []
