"""Outcomes of the event pipeline: what waits, what was left, what was given up. A log is shown and never judged.

GlitchTip 5.2 writes a traceback at every check of a monitor whose name cannot be resolved, and writes errors of
its database without any level (measured): counted lines say neither that events are lost nor that none is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .criteria import Criterion, judged, unjudged
from .plan import Plan, span_text, time_text
from .store import Sample

_ELSEWHERE = "no container is named: the stack is on another host"
_NOT_MEASURED = "not measured: the samples hold no state of the queue"


class Queue:
    """Events are taken from the queue in time, none is left in dead hands, none is given up."""

    def __init__(self, plan: Plan) -> None:
        self.limits, self.stacked = plan.thresholds, bool(plan.services)
        self.measured, self.lines = False, set[str]()
        self.most: tuple[int, str] = (0, "")
        self.oldest: tuple[float, str] = (0.0, "")
        self.abandoned: tuple[int, str] = (0, "")
        self.left_behind = 0
        self.letters: int | None = None
        self.new_letters = 0

    def add(self, sample: Sample) -> None:
        """One sample."""
        state: Mapping[str, Any] | None = sample.get("queue_state")
        if not state:
            return
        self.measured, at = True, str(sample["at"])
        if state.get("line"):
            self.lines.add(str(state["line"]))
        self.most = max(self.most, (int(state["waiting"]), at))
        self.oldest = max(self.oldest, (float(state.get("oldest") or 0.0), at))
        self.abandoned = max(self.abandoned, (int(state.get("abandoned") or 0), at))
        self.left_behind = max(self.left_behind, int(state.get("left_behind") or 0))
        letters = int(state.get("dead_letters") or 0)
        if self.letters is not None:
            self.new_letters += max(letters - self.letters, 0)
        self.letters = letters

    def judge(self) -> list[Criterion]:
        """Three lines of the verdict."""
        limits = self.limits
        lines = (
            (
                "queue",
                "events taken from the queue",
                f"at most {limits.max_queued_events} waiting, for {limits.max_queue_seconds:g} s",
            ),
            ("unacked", "no event left by a dead worker", f"at most {limits.max_abandoned_events}"),
            ("dead_letters", "no event given up", f"at most {limits.max_dead_letters} new dead letters"),
        )
        if not self.stacked or not self.measured:
            note = _NOT_MEASURED if self.stacked else _ELSEWHERE
            return [unjudged(*line, note=note) for line in lines]
        result = [self._waiting(lines[0])]
        left, at = self.abandoned
        reasons = []
        if left > limits.max_abandoned_events:
            reasons.append(
                f"{left} messages were left unacknowledged by a worker that is gone at {time_text(at)}; "
                "bring them back with: glitchtip-ops queue recover"
            )
        result.append(judged(*lines[1][:2], f"{left} at most", lines[1][2], reasons))
        if "6.x" not in self.lines:
            result.append(unjudged(*lines[2], note="this server line keeps no dead letters"))
            return result
        reasons = []
        if self.new_letters > limits.max_dead_letters:
            reasons.append(
                f"{self.new_letters} events or tasks were given up (allowed: {limits.max_dead_letters}); "
                "bring them back with: glitchtip-ops queue recover"
            )
        result.append(judged(*lines[2][:2], f"{self.new_letters} new", lines[2][2], reasons))
        return result

    def _waiting(self, line: tuple[str, str, str]) -> Criterion:
        (most, at), (oldest, then), limits = self.most, self.oldest, self.limits
        reasons = []
        if most > limits.max_queued_events:
            reasons.append(f"{most} events waited at {time_text(at)} (allowed: {limits.max_queued_events})")
        if oldest > limits.max_queue_seconds:
            reasons.append(
                f"an event had waited for {oldest:.0f} s at {time_text(then)} (allowed: {limits.max_queue_seconds:g} s)"
            )
        if self.left_behind:
            reasons.append(f"{self.left_behind} events wait in the list of the 5.2 line, which this server never reads")
        return judged(*line[:2], f"{most} waiting at most, oldest {span_text(oldest)}", line[2], reasons)


class WorkerLog:
    """Lines of the worker's log that look like errors: shown, never judged."""

    def __init__(self, plan: Plan) -> None:
        self.stacked, self.count = bool(plan.services), 0

    def add(self, sample: Sample) -> None:
        """One sample."""
        self.count += int(sample.get("worker_errors") or 0)

    def judge(self) -> list[Criterion]:
        """One line of the verdict."""
        note = "evidence only, never judged: docker logs shows them" if self.stacked else _ELSEWHERE
        value = f"{self.count} lines look like errors" if self.stacked else "-"
        return [unjudged("worker_log", "lines of the worker's log", "shown only", note, value)]
