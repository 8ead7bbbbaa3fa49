"""The EXAMPLES of the glitchtip modules as tasks in an order that works, and a way to run them without a play."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

#: In this order each finds what it needs.
MODULES = [
    "glitchtip_organization",
    "glitchtip_team",
    "glitchtip_project",
    "glitchtip_project_key",
    "glitchtip_member",
    "glitchtip_monitor",
    "glitchtip_alert",
    "glitchtip_status_page",
    "glitchtip_event",
    "glitchtip_token",
    "glitchtip_info",
    "glitchtip_configuration",
    "glitchtip_configuration_info",
]
#: Examples that need a newer server than 5.2.
ONLY_6 = frozenset({"Tell a channel of Zulip when a monitor goes down"})
SECRETS = {"glitchtip_hook_token": "canary-hook-token", "zulip_api_key": "canary-zulip-key"}
_ENVIRONMENT = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701 - values for modules


def tasks() -> Iterator[dict[str, Any]]:
    """The tasks of all EXAMPLES; the address in them is ``{{ server_url }}``, and the DSN of the key is kept."""
    for module in MODULES:
        given = json.dumps(yaml.safe_load(importlib.import_module(module).EXAMPLES))
        yield from json.loads(given.replace("http://127.0.0.1:8080", "{{ server_url }}"))
        if module == "glitchtip_project_key":
            fact = {"ansible.builtin.set_fact": {"glitchtip_dsn": "{{ made.key.dsn }}"}}
            yield {"name": "Keep the DSN", **fact, "no_log": True}


def run_tasks(
    run_module: Callable[..., dict[str, Any]],
    variables: Mapping[str, Any],
    *,
    check: bool = False,
    without: frozenset[str] = frozenset(),
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Run every example in this process: the module and its result by the name of the task.

    Raises AssertionError for one that fails.
    """
    known = {**SECRETS, **variables}
    results: dict[str, tuple[str, dict[str, Any]]] = {}
    for task in tasks():
        if task["name"] in without:
            continue
        module = next(key for key in task if key in MODULES or key.startswith("ansible.builtin."))
        options = rendered(task[module], known)
        if module == "ansible.builtin.set_fact":
            known.update(options)
        if module not in MODULES:
            continue
        result = run_module(module, _check=check, **options)
        assert not result["failed"], (task["name"], result)
        results[task["name"]] = module, result
        if "register" in task:
            known[task["register"]] = result
    return results


def rendered(value: Any, known: Mapping[str, Any]) -> Any:
    """A value with its expressions in place; one that is a single expression keeps the type of its result."""
    if isinstance(value, Mapping):
        return {name: rendered(inner, known) for name, inner in value.items()}
    if isinstance(value, list):
        return [rendered(inner, known) for inner in value]
    if not isinstance(value, str):
        return value
    inside = value.strip().removeprefix("{{").removesuffix("}}")
    if value.strip() == "{{" + inside + "}}" and "{{" not in inside:
        return _ENVIRONMENT.compile_expression(inside, undefined_to_none=False)(**known)
    return _ENVIRONMENT.from_string(value).render(known)
