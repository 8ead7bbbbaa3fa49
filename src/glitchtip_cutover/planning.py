"""Judging the host before anything changes: what stands in the way, and what would be done, in its order."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from glitchtip_core.dsn import shown

from .config import Config
from .envfile import EnvFile, find_assignment
from .manager import Process, manager_label
from .services import of
from .targets import GLITCHTIP, Target
from .verdict import verdict_problem

Row = dict[str, Any]


def is_mine(config: Config, process: Process) -> bool:
    """Whether the configuration names this process."""
    return process.name in config.services or process.name in config.without_sdk


def service_problems(config: Config, listed: list[Process]) -> list[str]:
    """What is wrong with the configured services."""
    problems: list[str] = []
    for name in config.services:
        instances = of(listed, name)
        if not instances:
            problems.append(f"{manager_label(config)} knows no service {name}")
            continue
        for process in instances:
            if not process.healthy:
                problems.append(f"the service {name} is {process.status}, not online")
            if process.environment.get(config.env_key) == "":
                problems.append(
                    f"the service {name} carries an empty {config.env_key} in the environment that "
                    f"{manager_label(config)} gives it: list it in without_sdk or remove the variable"
                )
        if len({process.environment.get(config.env_key) for process in instances}) > 1:
            problems.append(f"the instances of {name} carry different values of {config.env_key}")
    return problems


def strangers(config: Config, listed: list[Process], problems: list[str]) -> list[str]:
    """Processes that nobody named: a problem when they use the product's DSN, else a note."""
    notes: list[str] = []
    for process in listed:
        if is_mine(config, process):
            continue
        inside = Path(process.cwd).is_relative_to(config.app_dir) and not process.module
        if inside or config.env_key in process.environment:
            problems.append(
                f"{manager_label(config)} also runs {process.name}, "
                "which stands neither in services nor in without_sdk"
            )
        else:
            notes.append(f"{process.name} is none of the product's services and is left alone")
    return notes


def gate_problems(config: Config, target: str, now: float) -> dict[str, str]:
    """What the window and the verdict say against a change at ``now``; the way back never asks them."""
    found: dict[str, str] = {}
    if config.window is not None and (problem := config.window.problem(now)):
        found["window"] = problem
    if config.verdict is not None and target == GLITCHTIP:
        problem = verdict_problem(config.verdict, config.migration_id, now)
        if problem:
            found["verdict"] = problem
    return found


def plan_row(
    config: Config, process: Process, env_value: str | None, target: Target | None, done: bool
) -> Row:
    """One service's row of the plan."""
    carried = process.environment.get(config.env_key)
    new = target.services.get(process.name) if target is not None else None
    if process.name in config.without_sdk:
        action = "none: it has no SDK"
    elif done:
        action = "none: it is on the new DSN"
    elif carried is not None and (new is None or carried != new.value):
        action = f"restart with {config.env_key} set anew in its {config.manager.upper()} environment"
        action = action.replace("SYSTEMD", "systemd").replace("COMPOSE", "Compose")
    elif process.idle_job:
        action = "none: the job reads .env at its next run"
    else:
        action = "restart"
    old = "-" if process.name in config.without_sdk else shown(carried or env_value)
    return {"name": process.name, "status": process.status, "old": old, "action": action}


def order(config: Config, services: Sequence[str], talking: Collection[str] = ()) -> list[Row]:
    """The acts of a change in their order: what is written, what is restarted when, and how it is proven.

    ``services`` are in the order in which they are restarted; those ``talking`` have to be heard themselves.
    """

    def proof(names: Sequence[str]) -> str:
        text = f"own event within {config.own_event_wait:g} s, else a probe; read back by its id"
        heard = [name for name in names if name in talking and name not in config.accept_unproven]
        return text + (f"; before confirm an own event of {', '.join(heard)}" if heard else "")

    steps: list[Row] = [
        {"act": f"write {path}", "services": list(config.sharing(path)), "proof": "reads back"}
        for path in config.env_files
    ]
    others = [name for name in services if name != config.canary]
    if config.canary:
        steps.append({"act": "restart the canary", "services": [config.canary], "proof": proof([config.canary])})
    if config.strategy == "all_at_once" and others:
        steps.append({"act": "restart together", "services": others, "proof": proof(others)})
    elif others:
        steps += [{"act": "restart", "services": [name], "proof": proof([name])} for name in others]
    steps.append(
        {"act": "save the manager's list", "services": list(config.services), "proof": "all run steadily"}
    )
    return [{"step": number, **step} for number, step in enumerate(steps, start=1)]


def env_diff(env: EnvFile, value: str) -> Row | None:
    """The changed line of one ``.env`` before and after, without secrets; None when the file stays as it is.

    Raises CutoverError as the edit itself would.
    """
    name, key = str(env.path), env.key
    data = env.read()
    edited = env.rehearse(value)
    if edited == data:
        return None
    return {"path": name, "before": _line(data, key, name), "after": _line(edited, key, name)}


def _line(data: bytes, key: str, name: str) -> str:
    """The line of ``key`` with the DSN's key, and whatever stands behind the value, hidden."""
    found = find_assignment(data, key, name)
    begin = data.rfind(b"\n", 0, found.start) + 1
    end = data.find(b"\n", found.end)
    head = data[begin : found.start].decode("utf-8", "replace").lstrip("\ufeff")
    tail = data[found.end : len(data) if end == -1 else end].decode("utf-8", "replace").rstrip("\r")
    hidden = re.sub(r"#.*", "# ***", tail)
    masked, count = re.subn(r"//[^@]*@", "//***@", found.value)
    return head + (masked if count == 1 and shown(found.value) != "invalid" else "***") + hidden
