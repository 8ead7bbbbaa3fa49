"""Whether GO can still be reached by a soak that runs: reasons against it that no later sample takes away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .plan import Plan
from .store import Sample
from .verdict import Parts

#: Criteria that count, or keep the worst of all samples: what is against them once is against them at the end.
LASTING = frozenset(
    {
        "coverage",
        "uptime",
        "crashes",
        "memory",
        "stack_memory",
        "disk",
        "pm2_online",
        "pm2_restarts",
        "probes",
        "probe_max",
        "queue",
        "unacked",
        "dead_letters",
        "readings",
    }
)
#: Criteria that later samples, or the comparison with Sentry, may still meet: shares, percentiles, what must be seen once.
OPEN = frozenset(
    {
        "cpu",
        "probe_p95",
        "mirror_delivery",
        "mirror_sentry",
        "mirror_glitchtip",
        "real_events",
        "parity",
        "worker_log",
    }
)


#: Counts of which some may be allowed.
_ALLOWANCES = (
    "max_container_restarts",
    "max_pm2_restarts",
    "max_missed_probes",
    "max_abandoned_events",
    "max_dead_letters",
    "max_failed_readings",
)


def reasons_against(plan: Plan, samples: Iterable[Sample]) -> list[str]:
    """Why GO is out of reach after ``samples`` (oldest first); empty while it is not."""
    parts = Parts(plan)
    for sample in samples:
        parts.add(sample)
    measured = [each for each in parts.criteria() if each.id in LASTING - {"coverage"} and each.value != "-"]
    return [*parts.coverage.lasting_reasons(), *(reason for each in measured for reason in each.reasons)]


def is_suspicious(plan: Plan, before: Sample | None, sample: Sample) -> bool:
    """Whether ``sample`` may have brought GO out of reach; the samples before it are not read for this.

    Counts of which some are allowed are taken as if none were.
    """
    strict = replace(plan.thresholds, **dict.fromkeys(_ALLOWANCES, 0))
    started_at = plan.started_at if before is None else str(before["at"])
    samples = [sample] if before is None else [before, sample]
    return bool(reasons_against(replace(plan, thresholds=strict, started_at=started_at), samples))
