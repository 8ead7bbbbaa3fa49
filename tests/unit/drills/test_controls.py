"""Each protection that a drill switches off is there under the name that the drill says, or the control would be none."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

DRILLS = Path(__file__).resolve().parents[2] / "drills"
Off = tuple[str, str, str]


def switched_off() -> list[Off]:
    """(file, module, attribute) of each ``off.patched`` of the drills, found in their code."""
    found: list[Off] = []
    for path in sorted(DRILLS.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "off.patched":
                module, attribute = (ast.literal_eval(argument) for argument in node.args[:2])
                found.append((path.name, module, attribute))
    return found


def is_there(module: str, attribute: str) -> bool:
    """Whether the module of the switch, or of another package that travels with it, has something callable of that name."""
    name = module.replace("/", ".") if "/" in module else f"glitchtip_cutover.{module}"
    try:
        part = importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    for word in attribute.split("."):
        if not hasattr(part, word):
            return False
        part = getattr(part, word)
    return callable(part) or isinstance(part, property)


def test_the_drills_switch_protections_off() -> None:
    assert len(switched_off()) > 20


@pytest.mark.parametrize(("file", "module", "attribute"), switched_off())
def test_what_a_drill_switches_off_is_there(file: str, module: str, attribute: str) -> None:
    assert is_there(module, attribute), f"{file}: {module} has no {attribute}"


def test_a_name_that_moved_is_found() -> None:
    assert is_there("applying", "Applying._gate")
    assert not is_there("transaction", "verify_dsn")
    assert not is_there("store", "Store.lock")
    assert not is_there("applying", "Applying._moved")
