"""A server that runs only the product gets its own health checks in phase 5, and an uninstall removes all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import StrictUndefined
from jinja2.nativetypes import NativeEnvironment

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles" / "monitoring"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def evaluate(text: str, **variables: Any) -> Any:
    environment = NativeEnvironment(undefined=StrictUndefined)
    environment.filters["bool"] = bool
    return environment.from_string(text).render(**variables)


def timers(*, stack: bool) -> list[str]:
    return list(evaluate(read(ROLE / "vars/main.yml")["__monitoring_timers"], monitoring_stack=stack))


def is_watched(host: str, groups: dict[str, list[str]]) -> bool:
    """Whether the second play of phase 5 sets up the checks of the product on this host."""
    (_, play) = read(ROOT / "playbooks/phase5_operate.yml")
    assert play["hosts"] == "servers"
    (task,) = play["tasks"]
    assert task["ansible.builtin.include_tasks"] == "tasks/watch_product.yml"
    return bool(evaluate("{{ " + task["when"] + " }}", inventory_hostname=host, groups=groups))


def test_the_products_servers_are_watched_where_glitchtip_has_its_own() -> None:
    groups = {
        "servers": ["app1", "app2", "tracker"],
        "app_servers": ["app1", "app2"],
        "glitchtip_servers": ["tracker"],
    }
    assert [host for host in groups["servers"] if is_watched(host, groups)] == ["app1", "app2"]


@pytest.mark.parametrize(
    "groups",
    [{"servers": ["one"]}, {"servers": ["one"], "glitchtip_servers": ["one"], "app_servers": ["one"]}],
)
def test_one_server_is_set_up_once(groups: dict[str, list[str]]) -> None:
    assert not is_watched("one", groups)


def test_they_are_set_up_after_the_switch_of_this_run_and_without_the_stack() -> None:
    gate, role, evidence = read(ROOT / "playbooks/tasks/watch_product.yml")
    assert gate["vars"]["gate_requires"] == ["phase4"]
    assert role["vars"] == {"monitoring_stack": False}
    assert evidence["migration_evidence"]["phase"] == "phase5"


def test_the_checks_of_the_queue_are_glitchtips() -> None:
    assert timers(stack=True) == ["glitchtip-monitor", "glitchtip-queue"]
    assert timers(stack=False) == ["glitchtip-monitor"]


@pytest.mark.parametrize("stack", [True, False])
def test_uninstall_stops_and_removes_each_unit_that_the_role_installs(stack: bool) -> None:
    tasks = {task["name"]: task for task in read(ROOT / "playbooks/uninstall.yml")[0]["tasks"]}
    removed = tasks["Remove what the migration installed"]["loop"]
    for timer in timers(stack=stack):
        assert f"{timer}.timer" in tasks["Stop the timers"]["loop"]
        assert {f"/etc/systemd/system/{timer}.{kind}" for kind in ("service", "timer")} <= set(removed)
        assert all((ROLE / "templates" / f"{timer}.{kind}.j2").is_file() for kind in ("service", "timer"))
