"""The strategy of repeats and refusals sends a module all that its module_utils import, relatively or not."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_mitogen import module_finder
from rig.strategy_plugins import fast

ROOT = Path(__file__).resolve().parents[3]
PREFIX = "ansible.module_utils."
PACKAGES = ("glitchtip_api", "glitchtip_api.ensure", "glitchtip_api.resources")


def sent(monkeypatch, walk):
    monkeypatch.setattr(module_finder, "walk_imports", walk)
    found = module_finder.scan("glitchtip_project", str(ROOT / "library/glitchtip_project.py"), [str(ROOT / "src")])
    return {name.removeprefix(PREFIX) for name, _, _ in found}


@pytest.mark.parametrize("name", ["transport", "errors", "paging", "ensure.project", "ensure.outcome", "resources.keys"])
def test_what_is_imported_relatively_is_sent(monkeypatch, name):
    assert {*PACKAGES, f"glitchtip_api.{name}"} <= sent(monkeypatch, fast.walk_imports)


def test_mitogen_alone_leaves_it_out(monkeypatch):
    """Else the strategy is not needed any more."""
    assert "glitchtip_api.transport" not in sent(monkeypatch, fast._absolute)
