"""The strategy of repeats and refusals sends a module all that its module_utils import, relatively or not."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_mitogen import module_finder
from rig.strategy_plugins import fast

ROOT = Path(__file__).resolve().parents[3]
PREFIX = "ansible.module_utils."
PACKAGES = ("glitchtip_api", "glitchtip_api.ensure", "glitchtip_api.resources")


def sent(monkeypatch, walk, module="glitchtip_project"):
    monkeypatch.setattr(module_finder, "walk_imports", walk)
    found = module_finder.scan(module, str(ROOT / f"library/{module}.py"), [str(ROOT / "src")])
    return {name.removeprefix(PREFIX) for name, _, _ in found}


@pytest.mark.parametrize(
    "name", ["transport", "errors", "paging", "ensure.project", "ensure.outcome", "resources.keys"]
)
def test_what_is_imported_relatively_is_sent(monkeypatch, name):
    assert {*PACKAGES, f"glitchtip_api.{name}"} <= sent(monkeypatch, fast.walk_imports)


def test_the_whole_shared_package_is_sent_with_pm2_info(monkeypatch):
    names = {f"glitchtip_core.{name}" for name in ("pm2", "pm2_list", "process", "errors")}
    assert {"glitchtip_core", *names} <= sent(monkeypatch, fast.walk_imports, "pm2_info")


def test_mitogen_alone_leaves_it_out(monkeypatch):
    """Else the strategy is not needed any more."""
    assert "glitchtip_api.transport" not in sent(monkeypatch, fast._absolute)


def test_the_checks_of_the_product_take_the_managers_of_services_along(monkeypatch):
    monkeypatch.setattr(module_finder, "walk_imports", fast.walk_imports)
    found = module_finder.scan("product_checks", str(ROOT / "library/product_checks.py"), [str(ROOT / "src")])
    sent_names = {name.removeprefix(f"{PREFIX}glitchtip_cutover.") for name, _, _ in found}
    assert {"prechecks", "pm2", "systemd", "compose", "announce", "token_check"} <= sent_names
    assert {f"{PREFIX}glitchtip_core.{name}" for name in ("pm2", "pm2_list", "process", "errors", "notify.notifier")} <= {
        name for name, _, _ in found
    }
