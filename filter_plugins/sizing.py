"""Memory of the GlitchTip stack, derived from the backlog that it must survive: limits, free memory that phase 0 demands, pool sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible.errors import AnsibleFilterError

MIB = 1024 * 1024

#: Versions on which celery's scheduler was seen to run and tick as a thread of the worker (a private name of celery is used for it).
#: A version that is not listed keeps the image's own command and takes about 70 MiB more.
BEAT_THREAD_VERSIONS = frozenset({"5.2.0"})

#: Bytes that one waiting event of 2 to 4 kB takes in Valkey: 8,500 to 12,600 measured on 5.2 (docs/sizing.md). Larger events take more.
QUEUED_EVENT_BYTES = 12_600
#: Valkey with an empty queue, in MiB; measured on 5.2.
VALKEY_IDLE_MIB = 16
#: What a fork that rewrites the log copies of the pages in use, and fragmentation while the queue drains.
VALKEY_HEADROOM = 1.3

#: A kill of the worker loses the batches in hand for good, so its limit holds batches of large events, whatever the mean is. On 5.2 events
#: that took 57 kB each in Valkey killed a worker of 192 MiB; with space it peaked at 233 MiB with 66 kB, at 353 MiB with 197 kB.
LARGE_EVENT_BYTES = 96 * 1024
#: Events that the 5.2 worker has in hand at most: two threads with a batch of 100 each.
EVENTS_IN_HAND = 200
#: What the worker needs for an event in hand, as a multiple of what it takes in Valkey: 6 to 8 measured.
HANDLING_FACTOR = 8

#: One PostgreSQL backend after thousands of events, in MiB: 12 to 25 measured on 5.2, the larger one counts.
BACKEND_MIB = 25
#: Of the template's command line, in MiB.
SHARED_BUFFERS_MIB = 24
#: Postmaster, checkpointer, WAL writer and autovacuum.
POSTGRES_OWN_MIB = 32
#: One-off containers and people: migrations, a dump, `psql`.
OTHER_BACKENDS = 1

#: Ceiling of each container. A lower one costs events even while nobody else wants the CPU (docs/sizing.md).
CPUS = "1.00"
#: Weights where the CPU is wanted by more than one; Docker's default is 1024. The stores come before those who wait for them.
PROCESS_SHARES, STORE_SHARES = "256", "512"

#: What ``glitchtip_resources`` may replace.
OVERRIDES = frozenset({"memory", "cpus", "shares", "reserve"})

#: Backlogs outside of these bounds are mistakes: less than a few batches, or more than a day at 20 events/s.
MIN_BACKLOG = 1_000
MAX_BACKLOG = 2_000_000

_MEMORY = re.compile(r"(\d+)([mg])")


@dataclass(frozen=True)
class Process:
    """One process of GlitchTip: highest use seen and use after 2,000 events in MiB, connections of one database pool."""

    peak: int
    working: int
    pool: int = 0
    in_hand: int = 0

    def limit(self, event_bytes: int) -> int:
        """Limit in MiB: a quarter above the highest use, that of batches of large events included."""
        batch = self.in_hand * max(LARGE_EVENT_BYTES, event_bytes) * HANDLING_FACTOR / MIB
        return limit((self.peak + batch) * 1.25)


@dataclass(frozen=True)
class Line:
    """Figures of one server line and process model, and where they are from."""

    basis: str
    processes: Mapping[str, Process]
    pool: int
    postgres_working: int
    postgres_extra: int = 0
    pools: int = 1

    @property
    def backends(self) -> int:
        """Connections that the pools of every process may open, and some for one-off containers."""
        return sum(process.pool for process in self.processes.values()) * self.pools + OTHER_BACKENDS


def line_of(version: str, process_model: str, worker_command: list[str]) -> Line:
    """The figures of a version (``5.2.0``, with or without ``v``), process model (``split``, ``all_in_one``) and worker command."""
    plain = str(version).removeprefix("v")
    if not re.fullmatch(r"\d+[.]\d+[.]\d+", plain):
        raise AnsibleFilterError(f"glitchtip_version must be a full version like 5.2.0, not {version!r}.")
    if int(plain.partition(".")[0]) < 6:
        thread = beat_of(plain, worker_command) == "thread"
        peak, working = (150, 140) if thread else (240, 209)
        worker = Process(peak, working, 4, EVENTS_IN_HAND)
        web = Process(160, 156, 4)
        return Line("measured on 5.2", {"web": web, "worker": worker}, 4, postgres_working=62)
    # Limits of published figures (an operator saw 231 MiB of one process at its start); 10 MiB are the larger table of locks.
    # Each process opens two pools, one for synchronous and one for asynchronous code.
    basis = "from the 6.x source and operators' figures, not measured"
    parts = {"web": Process(256, 190, 6), "worker": Process(256, 190, 6)}
    if process_model == "all_in_one":
        parts = {"web": Process(306, 231, 6)}
    return Line(basis, parts, 6, postgres_working=80, postgres_extra=10, pools=2)


def beat_of(version: str, worker_command: list[str]) -> str:
    """How the 5.2 line's scheduler runs: ``thread`` where that is known to work, ``process`` with the image's own or a given command."""
    known = version.removeprefix("v") in BEAT_THREAD_VERSIONS
    return "thread" if known and not worker_command else "process"


def limit(mib: float) -> int:
    """A limit in whole steps of 16 MiB."""
    return math.ceil(mib / 16) * 16


def mebibytes(text: Any) -> int:
    """``240m`` or ``1g`` in MiB; AnsibleFilterError for anything else."""
    found = _MEMORY.fullmatch(str(text).strip().lower())
    if found is None:
        raise AnsibleFilterError(
            f"glitchtip_resources: memory must be a number with m or g (240m, 1g), not {text!r}."
        )
    return int(found[1]) * (1024 if found[2] == "g" else 1)


def valkey_limit(backlog_events: int, event_bytes: int = QUEUED_EVENT_BYTES) -> int:
    """Limit in MiB of a Valkey that holds this many waiting events."""
    return limit(VALKEY_IDLE_MIB + VALKEY_HEADROOM * backlog_events * event_bytes / MIB)


def backlog_within(mib: float, event_bytes: int = QUEUED_EVENT_BYTES) -> int:
    """Largest backlog, in whole hundreds, whose events take at most ``mib``; 0 where there is no space."""
    return max(0, int(mib * MIB / event_bytes) // 100 * 100)


def backlog_of_valkey(mib: int, event_bytes: int = QUEUED_EVENT_BYTES) -> int:
    """Largest backlog, in whole hundreds, that a Valkey limited to ``mib`` survives."""
    return backlog_within((mib - VALKEY_IDLE_MIB) / VALKEY_HEADROOM, event_bytes)


def _whole(name: str, value: Any, low: int, high: int) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,12}", text) or not low <= int(text) <= high:
        raise AnsibleFilterError(f"{name} must be a whole number from {low} to {high}, not {value!r}.")
    return int(text)


def _override(service: str, given: Any) -> dict[str, str]:
    """The values of one service of ``glitchtip_resources``; AnsibleFilterError for what Compose would refuse, or take for something else."""
    where = f"glitchtip_resources: {service}"
    if not isinstance(given, Mapping) or set(given) - OVERRIDES:
        raise AnsibleFilterError(
            f"{where} must be a mapping of {', '.join(sorted(OVERRIDES))}, not {given!r}."
        )
    found = {key: str(value) for key, value in given.items()}
    if "cpus" in found and not (re.fullmatch(r"\d+(\.\d+)?", found["cpus"]) and float(found["cpus"]) >= 0.01):
        raise AnsibleFilterError(f"{where}.cpus must be a number of CPUs from 0.01, not {given['cpus']!r}.")
    if "shares" in found:
        found["shares"] = str(_whole(f"{where}.shares", given["shares"], 2, 262144))
    for key in {"memory", "reserve"} & set(found):
        mebibytes(found[key])
    return found


def glitchtip_sizing(
    version: str,
    process_model: str = "split",
    backlog_events: Any = 20_000,
    event_bytes: Any = QUEUED_EVENT_BYTES,
    resources: Mapping[str, Mapping[str, Any]] | None = None,
    worker_command: list[str] | None = None,
) -> dict[str, Any]:
    """Everything about memory that roles and tools need to know of one stack.

    ``services``: ``{name: {memory, cpus, shares, reserve}}``, limits (ceilings, none of it is reserved) with the overrides of ``resources``;
    ``required_mib``: free memory that the stack needs, the use seen under load (``working_mib``) and the waiting events
    (``backlog_mib``); ``pool``: connections of each database pool; ``beat``: thread or process (5.2 line); ``basis``: where the
    figures are from.

    Raises AnsibleFilterError for a backlog that is no sensible number, an unknown service or an override of Valkey's limit that does
    not hold the backlog.
    """
    events = _whole("glitchtip_backlog_events", backlog_events, MIN_BACKLOG, MAX_BACKLOG)
    each = _whole("glitchtip_queued_event_bytes", event_bytes, 1_000, 10 * MIB)
    command = list(worker_command or [])
    line = line_of(version, process_model, command)
    limits = {name: process.limit(each) for name, process in line.processes.items()}
    limits["postgres"] = limit(
        SHARED_BUFFERS_MIB + POSTGRES_OWN_MIB + line.postgres_extra + BACKEND_MIB * line.backends
    )
    limits["valkey"] = valkey_limit(events, each)
    working = {name: process.working for name, process in line.processes.items()}
    working |= {"postgres": line.postgres_working, "valkey": VALKEY_IDLE_MIB}
    services: dict[str, dict[str, str]] = {
        name: {
            "memory": f"{mib}m",
            "cpus": CPUS,
            "shares": PROCESS_SHARES if name in line.processes else STORE_SHARES,
            "reserve": f"{min(working[name], mib) // 2}m",
        }
        for name, mib in limits.items()
    }
    for name, override in (resources or {}).items():
        if name not in services:
            raise AnsibleFilterError(
                f"glitchtip_resources: there is no service {name!r}, only {', '.join(sorted(services))}."
            )
        services[name] |= _override(name, override)
        mib = mebibytes(services[name]["memory"])
        if "reserve" not in override:
            services[name]["reserve"] = f"{min(working[name], mib) // 2}m"
        elif mebibytes(services[name]["reserve"]) > mib:
            raise AnsibleFilterError(
                f"glitchtip_resources: {name} reserves {services[name]['reserve']} of a limit of {mib} MiB; "
                "the engine starts no such container. Raise memory or lower reserve."
            )
        if name == "valkey" and mib < limits["valkey"]:
            raise AnsibleFilterError(
                f"glitchtip_resources: a valkey of {mib} MiB holds {backlog_of_valkey(mib, each)} waiting events, "
                f"glitchtip_backlog_events is {events}, which needs {limits['valkey']}m; "
                "remove the override or lower glitchtip_backlog_events."
            )
    backlog = math.ceil(events * each / MIB)
    return {
        "services": services,
        "required_mib": sum(working.values()) + backlog,
        "working_mib": sum(working.values()),
        "backlog_mib": backlog,
        "backlog_events": events,
        "queued_event_bytes": each,
        "pool": line.pool,
        "beat": beat_of(version, command),
        "basis": line.basis,
    }


def glitchtip_backlog_within(free_mib: Any, sizing: Mapping[str, Any]) -> int:
    """Largest backlog (events) that a host with this much free memory holds beside the stack of ``sizing``; 0 where not even that fits."""
    return backlog_within(float(free_mib) - float(sizing["working_mib"]), int(sizing["queued_event_bytes"]))


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Name of each filter to its function."""
        return {
            "glitchtip_sizing": glitchtip_sizing,
            "glitchtip_backlog_within": glitchtip_backlog_within,
        }
