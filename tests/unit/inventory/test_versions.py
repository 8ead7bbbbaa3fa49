"""Every inventory of a walk says which GlitchTip it walks, and its version is one that the role accepts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
#: Scenarios that deploy a GlitchTip, with where they say its version.
SCENARIOS = {
    "demo": "inventory/demo/group_vars/all/main.yml",
    "example": "inventory/example/group_vars/all/main.yml",
    "molecule default": "molecule/default/inventory/group_vars/all/main.yml",
    "molecule glitchtip": "molecule/glitchtip/inventory/hosts.yml",
    "molecule topology": "molecule/topology/inventory/group_vars/all/topology.yml",
}


def versions(value):
    """The values of every glitchtip_version in a document."""
    if isinstance(value, dict):
        own = [value["glitchtip_version"]] if "glitchtip_version" in value else []
        return own + [found for entry in value.values() for found in versions(entry)]
    return []


def walked(name):
    texts = versions(yaml.safe_load((ROOT / SCENARIOS[name]).read_text(encoding="utf-8")))
    return [re.search(r"\d+\.\d+\.\d+", text)[0] for text in texts]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_says_which_version_it_walks(name):
    found = walked(name)
    assert found
    for version in found:
        numbers = tuple(map(int, version.split(".")))
        assert (5, 1, 0) <= numbers < (6, 0, 0) or (6, 1, 7) <= numbers < (7, 0, 0)


def test_no_scenario_with_an_inventory_is_forgotten():
    deploying = {
        path.parent.name for path in (ROOT / "molecule").glob("*/inventory") if path.parent.name != "docker"
    }
    assert {f"molecule {name}" for name in deploying} <= set(SCENARIOS)


def test_both_lines_and_both_process_models_are_walked():
    found = {version for name in SCENARIOS if name.startswith("molecule") for version in walked(name)}
    assert {version[0] for version in found} == {"5", "6"}
    models = (ROOT / SCENARIOS["molecule glitchtip"]).read_text(encoding="utf-8")
    assert "glitchtip_process_model: all_in_one" in models
    assert "glitchtip_process_model: split" in models
