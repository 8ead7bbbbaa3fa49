"""Judging the host before anything changes: what stands in the way, and what would be done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .config import Config
from .dsn import Dsn, shown
from .pm2 import Process
from .services import of


def is_mine(config: Config, process: Process) -> bool:
    """Whether the configuration names this process."""
    return process.name in config.services or process.name in config.without_sdk


def service_problems(config: Config, listed: list[Process]) -> list[str]:
    """What is wrong with the configured services."""
    problems: list[str] = []
    for name in config.services:
        instances = of(listed, name)
        if not instances:
            problems.append(f"PM2 of user {config.pm2.user} knows no service {name}")
            continue
        for process in instances:
            if not process.healthy:
                problems.append(f"the service {name} is {process.status}, not online")
            if process.environment.get(config.env_key) == "":
                problems.append(
                    f"the service {name} carries an empty {config.env_key} in its PM2 environment: "
                    "list it in without_sdk or remove the variable"
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
                f"PM2 also runs {process.name}, which stands neither in services nor in without_sdk"
            )
        else:
            notes.append(f"{process.name} is none of the product's services and is left alone")
    return notes


def plan_row(
    config: Config, process: Process, env_value: str | None, new: Dsn | None, done: bool
) -> dict[str, Any]:
    """One service's row of the plan."""
    carried = process.environment.get(config.env_key)
    if process.name in config.without_sdk:
        action = "none: it has no SDK"
    elif done:
        action = "none: it is on the new DSN"
    elif carried is not None and (new is None or carried != new.value):
        action = f"restart with {config.env_key} set anew in its PM2 environment"
    elif process.idle_job:
        action = "none: the job reads .env at its next run"
    else:
        action = "restart"
    old = "-" if process.name in config.without_sdk else shown(carried or env_value)
    return {"name": process.name, "status": process.status, "old": old, "action": action}
