"""What reached both trackers: the mirror's counts, real errors, the comparison with Sentry."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .criteria import Criterion
from .criteria import judged as _judged
from .criteria import unjudged as _open
from .plan import Plan, time_text
from .store import Sample


class Legs:
    """Both legs of the mirror, summed over the samples."""

    def __init__(self) -> None:
        self.sums = {leg: {"sent": 0, "ok": 0, "failed": 0} for leg in ("sentry", "glitchtip")}
        self.measured = False

    def add(self, sample: Sample) -> None:
        """One sample."""
        mirror = sample.get("mirror") or {}
        for leg, sums in self.sums.items():
            counts = mirror.get(leg)
            if counts:
                self.measured = True
                for name in sums:
                    sums[name] += int(counts.get(name) or 0)


class Mirror:
    """GlitchTip took what Sentry took, and neither destination failed."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.legs = Legs()

    def add(self, sample: Sample) -> None:
        """One sample."""
        self.legs.add(sample)

    def judge(self) -> list[Criterion]:
        """Lines of the verdict."""
        limits = self.plan.thresholds
        lines = (
            (
                "mirror_delivery",
                "GlitchTip took what Sentry took",
                f"at least {limits.min_mirror_percent:g} %",
            ),
            ("mirror_sentry", "Sentry's leg failed", f"at most {limits.max_sentry_failed_percent:g} %"),
            (
                "mirror_glitchtip",
                "GlitchTip's leg failed",
                f"at most {limits.max_glitchtip_failed_percent:g} %",
            ),
        )
        if self.plan.mode != "mirror":
            return [_open(*line, note=f"no mirror in mode {self.plan.mode}") for line in lines]
        if not self.legs.measured:
            return [_judged(id_, name, "-", wanted, ["the mirror was never counted"]) for id_, name, wanted in lines]
        sentry, glitchtip = self.legs.sums["sentry"], self.legs.sums["glitchtip"]
        return [
            self._delivered(lines[0], sentry["ok"], glitchtip["ok"], limits.min_mirror_percent),
            self._failed(lines[1], sentry, limits.max_sentry_failed_percent),
            self._failed(lines[2], glitchtip, limits.max_glitchtip_failed_percent),
        ]

    @staticmethod
    def _delivered(line: tuple[str, str, str], taken: int, copied: int, least: float) -> Criterion:
        if not taken:
            return _judged(*line[:2], "-", line[2], ["Sentry took no envelope through the mirror"])
        percent = 100.0 * copied / taken
        reasons = []
        if percent < least:
            reasons.append(
                f"GlitchTip took {copied} envelopes, {percent:.2f} % of the {taken} that Sentry took "
                f"(wanted: {least:g} %)"
            )
        return _judged(*line[:2], f"{percent:.2f} % ({copied} of {taken})", line[2], reasons)

    @staticmethod
    def _failed(line: tuple[str, str, str], counts: Mapping[str, int], most: float) -> Criterion:
        sent, failed = counts["sent"], counts["failed"]
        percent = 100.0 * failed / sent if sent else 0.0
        reasons = []
        if percent > most:
            reasons.append(f"{line[1]} {failed} of {sent} times, {percent:.2f} % (allowed: {most:g} %)")
        return _judged(*line[:2], f"{percent:.2f} % ({failed} of {sent})", line[2], reasons)


class RealEvents:
    """Errors of the product itself are seen in GlitchTip."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.issues, self.more, self.measured = 0, False, False

    def add(self, sample: Sample) -> None:
        """One sample."""
        real = sample.get("real")
        if real:
            self.measured = True
            self.issues = max(self.issues, int(real["issues"]))
            self.more = self.more or bool(real.get("more"))

    def judge(self) -> list[Criterion]:
        """Lines of the verdict."""
        wanted = self.plan.thresholds.min_real_issues
        line = "real_events", "real errors appear", f"at least {wanted} issue(s)"
        if self.plan.mode == "probe":
            return [_open(*line, note="mode probe: the product's own events go to Sentry only")]
        if not self.measured and wanted:
            return [_judged(*line[:2], "-", line[2], ["real events were never looked for"])]
        reasons = []
        if self.issues < wanted:
            reasons.append(
                f"{self.issues} issue(s) with events of the product itself appeared in GlitchTip (wanted: {wanted})"
            )
        value = f"{self.issues}{' or more' if self.more else ''} issues"
        return [_judged(*line[:2], value, line[2], reasons)]


def judge_parity(plan: Plan, parity: Mapping[str, Any] | None) -> Criterion:
    """The comparison of ``glitchtip-ops parity`` (parity.json), when there is one of this soak."""
    least = plan.thresholds.min_parity_percent
    line = "parity", "parity with Sentry", f"at least {least:g} %"
    if plan.mode != "mirror":
        return _open(*line, note=f"not judged in mode {plan.mode}: the product's events reach one tracker only")
    why = _why_not_measured(plan, parity)
    if why or parity is None:
        if plan.require_parity:
            return _judged(*line[:2], "-", line[2], [f"parity is required and was not measured: {why}"])
        return _open(*line, note=f"not measured: {why}")
    ratio = float(parity["ratio"])
    reasons = []
    if 100.0 * ratio < least:
        reasons.append(
            f"GlitchTip has {100.0 * ratio:.2f} % of Sentry's events (wanted: {least:g} %), "
            f"compared {time_text(str(parity['compared_at']))}"
        )
    note = f"compared {time_text(str(parity['compared_at']))}: {parity.get('verdict', 'no verdict')}"
    return _judged(*line[:2], f"{100.0 * ratio:.2f} %", line[2], reasons, note)


def _why_not_measured(plan: Plan, parity: Mapping[str, Any] | None) -> str:
    if parity is None:
        return "glitchtip-ops parity has not run"
    if parity.get("migration_id") != plan.migration_id:
        return "the comparison is of another migration"
    if str(parity.get("stack_id") or "") != plan.stack_id:
        return "the comparison is of another stack"
    try:
        compared = datetime.fromisoformat(str(parity["compared_at"]))
        if compared < datetime.fromisoformat(plan.started_at):
            return f"the comparison of {parity['compared_at']} is older than this soak"
    except (KeyError, ValueError, TypeError):
        return "the comparison tells no time"
    ratio = parity.get("ratio")
    if isinstance(ratio, bool) or not isinstance(ratio, int | float):
        return "the comparison found no event in Sentry"
    return ""
