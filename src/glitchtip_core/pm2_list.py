"""PM2's process list (``pm2 jlist``) as typed values. Every field of it is input.

PM2 puts the variables of the shell that started a process beside its own settings: with ``env=production`` in that
shell, the field ``env`` is a text and not the mapping that PM2 keeps there otherwise. So no field is trusted to have
a type; one that has another than it should counts as not given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import CoreError
from .json_text import decode_beginning

_LIST_BEGINS = re.compile(r"^\[", re.MULTILINE)
_LARGEST = 2**63 - 1


def as_text(value: object, default: str = "") -> str:
    """A text, number or truth value as text; ``default`` for anything else. Always encodable as UTF-8."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return str(value) if isinstance(value, (int, float)) else default


def as_number(value: object, default: float = 0.0) -> float:
    """A finite number, also one written as text; ``default`` for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return default
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return default
    return number if math.isfinite(number) and abs(number) <= _LARGEST else default


def as_whole(value: object, default: int = 0) -> int:
    """A whole number that fits into 64 bits, also one written as text; ``default`` for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) <= _LARGEST else default
    return int(as_number(value, float(default)))


def as_mapping(value: object) -> dict[str, Any]:
    """A mapping; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class Pm2Entry:
    """One process. ``started_at`` in epoch seconds (0: not known), ``memory`` in bytes, ``cpu`` in percent of a core.

    ``environment`` is what PM2 gives to the next process of that name (secrets among it); ``node_args`` and ``args``
    are as PM2 keeps them, a list or a text, and so is ``watch``. ``job``: ``cron_restart`` is set and
    ``autorestart`` is off, so that it may be stopped.
    """

    name: str
    pm_id: int
    pid: int
    status: str
    restarts: int
    started_at: float
    cwd: str
    script: str
    exec_mode: str
    interpreter: str
    cron: str
    autorestart: bool
    module: bool
    username: str
    memory: int
    cpu: float
    node_args: object = field(repr=False, default=None)
    args: object = field(repr=False, default=None)
    watch: object = None
    environment: Mapping[str, str] = field(repr=False, default_factory=dict)

    @property
    def job(self) -> bool:
        """Whether it runs at certain times and is stopped in between."""
        return bool(self.cron) and not self.autorestart

    @property
    def healthy(self) -> bool:
        """Online with a process, or a job that waits for its next run."""
        return (self.status == "online" and self.pid > 0) or (self.job and self.status == "stopped")


def environment_of(entry: Mapping[str, Any]) -> dict[str, str]:
    """Variables that PM2 gives to the next process of that name: its own settings, over those of ``env``.

    What no process can be given (mappings, a name with ``=``, a NUL, a text that cannot be encoded) is left out.
    """
    details = as_mapping(entry.get("pm2_env"))
    merged = {**as_mapping(details.get("env")), **details}
    return {name: as_text(value) for name, value in merged.items() if _is_variable(name, value)}


def _is_variable(name: str, value: object) -> bool:
    if not name or "=" in name or not isinstance(value, (str, int, float)):
        return False
    text = as_text(value)
    return "\x00" not in name + text and as_text(name) == name and (text == value or not isinstance(value, str))


def read_entry(entry: Mapping[str, Any]) -> Pm2Entry:
    """One entry of the list. Raises CoreError when it has no name or no settings."""
    details, measured = entry.get("pm2_env"), as_mapping(entry.get("monit"))
    name = as_text(entry.get("name"))
    if not isinstance(details, dict) or not name:
        raise CoreError("PM2's process list has an entry without a name or settings")
    return Pm2Entry(
        name=name,
        pm_id=as_whole(entry.get("pm_id"), as_whole(details.get("pm_id"), -1)),
        pid=max(as_whole(entry.get("pid")), 0),
        status=as_text(details.get("status"), "unknown"),
        restarts=max(as_whole(details.get("restart_time")), 0),
        started_at=max(as_number(details.get("pm_uptime")), 0.0) / 1000,
        cwd=as_text(details.get("pm_cwd")) or as_text(details.get("cwd")) or "/",
        script=as_text(details.get("pm_exec_path")),
        exec_mode=as_text(details.get("exec_mode")),
        interpreter=as_text(details.get("exec_interpreter")) or "node",
        cron=_cron(details.get("cron_restart")),
        autorestart=details.get("autorestart") not in (False, "false"),
        module=bool(details.get("pmx_module")),
        username=as_text(details.get("username")),
        memory=max(as_whole(measured.get("memory")), 0),
        cpu=max(as_number(measured.get("cpu")), 0.0),
        node_args=details.get("node_args"),
        args=details.get("args"),
        watch=details.get("watch"),
        environment=environment_of(entry),
    )


def _cron(value: object) -> str:
    """The schedule; PM2 takes 0 as "none any more"."""
    return "" if value in (0, "0", False, True) else as_text(value)


def read_list(text: str) -> list[Any]:
    """The elements of the list that ``pm2 jlist`` printed, also behind the notices that PM2 prints before it.

    Raises CoreError when there is no list. The text itself, which holds environments, is never quoted.
    """
    for match in _LIST_BEGINS.finditer(text):
        try:
            data = decode_beginning(text[match.start() :])
        except ValueError:
            continue
        if isinstance(data, list):
            return data
    raise CoreError("PM2 did not print its process list as JSON")


def read_entries(text: str, configured: Collection[str] | None = None) -> list[Pm2Entry]:
    """``pm2 jlist`` as typed values.

    ``configured`` names the processes that the caller works with: their entries are read strictly, and whatever PM2
    says of other processes fails nothing; an element without a name or settings is left out. Without it all entries
    need a name and settings, and fields that cannot be used count as not given.

    Raises CoreError when there is no list, or an entry that is wanted cannot be used.
    """
    listed = read_list(text)
    if configured is None:
        if not all(isinstance(entry, dict) for entry in listed):
            raise CoreError("PM2 did not print its process list as JSON")
        return [read_entry(entry) for entry in listed]
    found: list[Pm2Entry] = []
    for entry in listed:
        name = as_text(entry.get("name")) if isinstance(entry, dict) else ""
        if name in configured:
            _check_configured(name, entry)
            found.append(read_entry(entry))
        elif name and isinstance(entry.get("pm2_env"), dict):
            found.append(read_entry(entry))
    return found


def _check_configured(name: str, entry: Mapping[str, Any]) -> None:
    """Raise CoreError when an entry lacks settings, or a field that decides about the process cannot be used."""
    details = entry.get("pm2_env")
    if not isinstance(details, dict):
        raise CoreError(f"PM2's process list has no settings for the service {name}")
    fields = {
        "pid": entry.get("pid"),
        "pm_id": entry.get("pm_id", details.get("pm_id")),
        "pm_uptime": details.get("pm_uptime"),
        "restart_time": details.get("restart_time"),
    }
    for field_name, value in fields.items():
        if value is not None and math.isnan(as_number(value, math.nan)):
            raise CoreError(
                f"PM2's process list gives the service {name} a {field_name} that is no usable number; "
                f"see `pm2 describe {name}`"
            )
    if not isinstance(details.get("status"), str):
        raise CoreError(f"PM2's process list gives no status for the service {name}; see `pm2 describe {name}`")
