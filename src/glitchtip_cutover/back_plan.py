"""What a rollback would do: services, files and lines with masked DSNs. Reads only; no tracker is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from glitchtip_core.dsn import parse_dsn, shown

from .errors import CutoverError
from .manager import Process
from .rows import one_per_service
from .targets import Target, to_before

if TYPE_CHECKING:
    from .transaction import Cutover

BEFORE = "before"


def plan_rollback(cutover: Cutover, service: str | None = None) -> dict[str, Any]:
    """The plan of ``rollback``, for all services or for one; what keeps it from running are ``problems``."""
    config = cutover.config
    problems: list[str] = []
    if service is not None:
        config.service(service)
    names = (service,) if service is not None else config.services
    target = cutover.collect(problems, lambda: to_before(config, cutover.snapshots.before()))
    listed: list[Process] = []
    if not cutover.host.manager.running:
        problems.append("the services' manager does not run: the files are restored, services read them at their next start")
    else:
        listed = cutover.collect(problems, cutover.services.processes) or []
    state = cutover.state()
    files = _files(cutover, names, target)
    rows = [
        _row(cutover, process, target, keeps_file=service is not None and not files)
        for process in listed
        if process.name in names
    ]
    rows += [
        {"name": name, "status": "-", "old": "-", "new": "-", "action": "none: it is not running here"}
        for name in names
        if listed and name not in {process.name for process in listed}
    ]
    diff = []
    for path in files:
        if target is not None and path in target.files:
            value = target.files[path].value
            row = cutover.collect(problems, cutover.env_diff, path, value)
            diff += [row] if row else []
    own = [row for row in rows if row["action"] != "none: it is on its original DSN"]
    return {
        "changed": False,
        "would_change": bool(diff or own or state.open or state.phase == "confirmed"),
        "state": state.phase,
        "stands": state.stands,
        "target": BEFORE,
        "new": target.label if target else "-",
        "services": one_per_service(rows),
        "diff": diff,
        "problems": list(dict.fromkeys(problems)),
    }


def _files(cutover: Cutover, names: tuple[str, ...], target: Target | None) -> list[Path]:
    """The files that would be edited: of one service only a file that it has to itself."""
    config = cutover.config
    if target is None:
        return []
    return [path for path in config.env_files if set(config.sharing(path)) <= set(names)]


def _row(cutover: Cutover, process: Process, target: Target | None, *, keeps_file: bool) -> dict[str, Any]:
    """``keeps_file``: its ``.env`` belongs to others too and stays, so that it gets its DSN in its environment."""
    config = cutover.config
    carried = process.environment.get(config.env_key)
    current = carried or _value(cutover, process.name)
    wanted = target.services.get(process.name) if target is not None else None
    if wanted is None:
        action = "none: its original DSN is not known"
    elif current == wanted.value:
        action = "none: it is on its original DSN"
    elif process.idle_job and not carried and not keeps_file:
        action = "none: the job reads .env at its next run"
    elif carried or keeps_file:
        action = f"restart with its original {config.env_key} in its environment"
    else:
        action = "restart"
    return {
        "name": process.name,
        "status": process.status,
        "old": _project(current),
        "new": "-" if wanted is None else str(wanted),
        "action": action,
    }


def _project(value: str | None) -> str:
    """Host and project of a DSN, without its key."""
    try:
        return str(parse_dsn(value or ""))
    except CutoverError:
        return shown(value)


def _value(cutover: Cutover, name: str) -> str | None:
    try:
        return cutover.env(cutover.config.service(name).env_file).value()
    except CutoverError:
        return None
