"""What was ordered: duration, interval, mode, what is watched, and the thresholds of the verdict."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from ..process import OpsError

GO, NO_GO = "GO", "NO_GO"
#: ``probe``: Sentry's DSN untouched, only test events reach GlitchTip. ``mirror``: a copy of every real
#: envelope reaches it. ``after``: the cutover is done, real events reach GlitchTip alone.
MODES = ("probe", "mirror", "after")
SHORTEST, LONGEST = 60.0, 7 * 86400.0
SHORTEST_INTERVAL = 10.0
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


@dataclass(frozen=True)
class Thresholds:
    """What a soak must keep to. Percentages are 0 to 100, times are seconds, counts are of the whole soak."""

    max_memory_percent: float = 80.0
    max_stack_percent: float = 95.0
    max_disk_percent: float = 90.0
    #: 95th percentile of the load average (5 minutes) divided by the number of cores.
    max_load_per_core: float = 4.0
    max_container_restarts: int = 0
    max_pm2_restarts: int = 0
    max_missed_probes: int = 0
    #: The slowest test event, and the 95th percentile of all.
    max_probe_seconds: float = 30.0
    max_probe_p95_seconds: float = 15.0
    #: Judged no longer (a log is evidence, no outcome); still read, so that older inventories and plans are good.
    max_worker_errors: int = 0
    #: Events that wait for the worker, and the age of the oldest of them (seconds).
    max_queued_events: int = 2000
    max_queue_seconds: float = 300.0
    #: Messages in the hands of a worker process that is gone (5.2); dead letters that came up during the soak (6.x).
    max_abandoned_events: int = 0
    max_dead_letters: int = 0
    max_failed_readings: int = 0
    #: Mode mirror: what GlitchTip took of what Sentry took, and what either refused of what it was sent.
    min_mirror_percent: float = 99.0
    max_sentry_failed_percent: float = 1.0
    max_glitchtip_failed_percent: float = 1.0
    #: Share of Sentry's events that the parity comparison found in GlitchTip.
    min_parity_percent: float = 99.0
    #: Modes mirror and after: issues with events of the product itself.
    min_real_issues: int = 1


def _judge_threshold(name: str, value: Any, whole: bool) -> str | None:
    """What is wrong with one threshold; None when nothing is."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return f"threshold {name} is {value!r}, which is not a number"
    if value < 0:
        return f"threshold {name} is {value:g}; it cannot be negative"
    if name.endswith("_percent") and value > 100:
        return f"threshold {name} is {value:g}; a percentage ends at 100"
    if whole and value != int(value):
        return f"threshold {name} is {value:g}, which is not a whole number"
    upper = (
        "max_memory_percent",
        "max_stack_percent",
        "max_disk_percent",
        "max_load_per_core",
        "max_queued_events",
    )
    if value == 0 and (name in upper or name.endswith("_seconds")):
        return f"threshold {name} is 0, which no host can keep to"
    return None


def check_thresholds(given: Any) -> Thresholds:
    """Thresholds from ``{name: number}``; what is not named keeps its default.

    Raises OpsError, one sentence, for an unknown name, no number, a negative one, more than 100 percent,
    or a 95th percentile above the slowest.
    """
    advice = "; see parallel_run_thresholds in the inventory"
    if not isinstance(given, Mapping):
        raise OpsError(f"the thresholds of the soak are not a mapping of names to numbers{advice}")
    known = {each.name: each for each in fields(Thresholds)}
    unknown = sorted(str(name) for name in given if name not in known)
    if unknown:
        raise OpsError(f"there is no threshold {', '.join(unknown)} (known: {', '.join(known)}){advice}")
    values: dict[str, Any] = {}
    for name, value in given.items():
        whole = isinstance(known[name].default, int)
        problem = _judge_threshold(name, value, whole)
        if problem:
            raise OpsError(problem + advice)
        values[name] = int(value) if whole else float(value)
    if "max_probe_seconds" in values and "max_probe_p95_seconds" not in values:
        values["max_probe_p95_seconds"] = min(values["max_probe_seconds"], Thresholds.max_probe_p95_seconds)
    result = Thresholds(**values)
    if result.max_probe_p95_seconds > result.max_probe_seconds:
        raise OpsError(
            f"threshold max_probe_p95_seconds ({result.max_probe_p95_seconds:g}) is above max_probe_seconds "
            f"({result.max_probe_seconds:g}), which already bounds every test event{advice}"
        )
    return result


@dataclass(frozen=True)
class Plan:
    """A soak as it was ordered. ``duration``, ``interval`` and ``valid_for`` in seconds.

    ``name`` is empty for the soak whose verdict opens the cutover. ``require_parity``: without a parity
    comparison there is no GO (it never counts in mode ``probe``: nothing real reached GlitchTip then).
    ``stack_id`` is that of the stack that is judged: its samples and its verdict say nothing about another one.
    ``run_id`` names the run of the migration that ordered it.
    """

    migration_id: str
    started_at: str
    duration: float
    interval: float
    services: tuple[str, ...]
    pm2_services: tuple[str, ...]
    thresholds: Thresholds = field(default_factory=Thresholds)
    name: str = ""
    mode: str = "probe"
    require_parity: bool = False
    valid_for: float = 7 * 86400.0
    host: str = ""
    stack_id: str = ""
    run_id: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Plan:
        """Back from ``to_json``. Raises OpsError when a field is missing or unknown."""
        try:
            values = dict(data)
            values["thresholds"] = Thresholds(**values["thresholds"])
            values["services"] = tuple(values["services"])
            values["pm2_services"] = tuple(values["pm2_services"])
            return Plan(**values)
        except (KeyError, TypeError) as error:
            raise OpsError(f"the plan of the soak is not one ({error})") from None


def parse_duration(text: str) -> float:
    """Seconds of ``60``, ``60s``, ``15m``, ``48h`` or ``2d``. Raises OpsError for anything else, or zero."""
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:], 0)
    number = text[:-1] if unit else text
    if not number.isascii() or not number.isdigit() or len(number) > 9 or int(number) == 0:
        raise OpsError(f"{text!r} is not a duration; write for example 60s, 15m, 48h or 2d")
    return float(int(number) * (unit or 1))


def span_text(seconds: float) -> str:
    """A duration for people: ``48 h``, ``15 min``, ``2 min 5 s``, ``90 s``."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    parts = [(whole // 3600, "h"), (whole % 3600 // 60, "min"), (whole % 60, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


def time_text(iso: str) -> str:
    """A moment for people, in UTC; what is none as it is."""
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def check_times(duration: float, interval: float) -> None:
    """Refuse a soak that cannot prove anything, or that never ends. Raises OpsError."""
    if not SHORTEST <= duration <= LONGEST:
        raise OpsError(f"a soak lasts between 60 s and 7 days, not {duration:.0f} s")
    if interval < SHORTEST_INTERVAL:
        raise OpsError(f"samples are at least {SHORTEST_INTERVAL:.0f} s apart, not {interval:.0f} s")
    if interval > duration:
        raise OpsError("the interval between samples is longer than the soak")


def check_name(name: str) -> str:
    """The name of a further soak, or "". Raises OpsError when it cannot be part of a file name."""
    if name and not _NAME.fullmatch(name):
        raise OpsError(f"{name[:40]!r} is no name of a soak: lower-case letters, digits and hyphens, up to 32")
    return name


def check_mode(mode: str) -> str:
    """One of MODES. Raises OpsError for anything else."""
    if mode not in MODES:
        raise OpsError(f"{mode!r} is no mode of a soak; it is one of {', '.join(MODES)}")
    return mode
