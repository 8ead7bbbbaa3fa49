"""Holding what is stored to what was expected: every function here is pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ..docker_stack import Container
from .expectations import ENVIRONMENT, RELEASE, Crumb, Expectation

NOT_SENT = -1  # instead of a status: the SDK's process ended before it was answered


@dataclass(frozen=True)
class Raised:
    """Where an SDK's own process says that an error was raised, and that line of its script, stripped."""

    file: str
    function: str
    line: int
    source: str


@dataclass(frozen=True)
class Field:
    """One asserted field of one event: what had to be there and what was."""

    name: str
    expected: Any
    found: Any

    @property
    def ok(self) -> bool:
        """Whether both are the same, to the innermost value and its type."""
        return _same(self.expected, self.found)

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return {"name": self.name, "expected": self.expected, "found": self.found, "ok": self.ok}

    def problem(self) -> str:
        """One clause."""
        return f"{self.name} is {self.found!r}, not {self.expected!r}"


def _same(expected: Any, found: Any) -> bool:
    """Deep equality in which True is not 1 and a list is no object; 12 and 12.0 are one number in JSON."""
    if isinstance(expected, Mapping):
        return (
            isinstance(found, Mapping)
            and expected.keys() == found.keys()
            and all(_same(value, found[key]) for key, value in expected.items())
        )
    if isinstance(expected, list | tuple):
        return (
            isinstance(found, list | tuple)
            and len(expected) == len(found)
            and all(map(_same, expected, found))
        )
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    return bool(expected == found)


def judge_event(
    expected: Expectation, sdk: str, event: Mapping[str, Any], level: object, raised: Raised | None
) -> list[Field]:
    """Every asserted field of one stored event.

    Args:
        sdk: ``node`` or ``python``, the tag that the sender put on it.
        event: what the project's event endpoint answers; it has no level, and the SDK's extra as ``context``.
        level: of the event, from its raw form.
        raised: where the sender says the error was raised; None for a message.
    """
    fields = [Field("title", expected.title, event.get("title")), Field("level", expected.level, level)]
    tags = {tag.get("key"): tag.get("value") for tag in event.get("tags") or []}
    own = {"local_test": expected.scenario, "local_test_sdk": sdk}
    fields += [
        Field("environment", ENVIRONMENT, tags.get("environment")),
        Field("release", RELEASE, tags.get("release")),
    ]
    fields += [Field(f"tag {key}", value, tags.get(key)) for key, value in {**own, **expected.tags}.items()]
    user = event.get("user") or {}
    for key, value in expected.user.items():
        shown = user.get(key)
        fields.append(Field(f"user {key}", value, str(shown) if isinstance(shown, int) else shown))
    extra = event.get("context") or {}
    fields += [Field(f"extra {key}", value, extra.get(key)) for key, value in expected.extra.items()]
    entries = {entry.get("type"): entry.get("data") or {} for entry in event.get("entries") or []}
    fields += _judge_crumbs(expected.breadcrumbs, (entries.get("breadcrumbs") or {}).get("values") or [])
    if expected.stack:
        fields += _judge_stack(entries.get("exception") or {}, raised)
    return fields


def _judge_crumbs(expected: Sequence[Crumb], found: Sequence[Mapping[str, Any]]) -> list[Field]:
    """Each expected breadcrumb whole, and their order; an SDK may have put its own between them."""
    if not expected:
        return []
    by_message = {crumb.get("message"): crumb for crumb in found}
    fields = []
    for crumb in expected:
        there = by_message.get(crumb.message) or {}
        fields += [
            Field(f"breadcrumb {crumb.message!r} category", crumb.category, there.get("category")),
            Field(f"breadcrumb {crumb.message!r} level", crumb.level, there.get("level")),
        ]
    wanted = [crumb.message for crumb in expected]
    order = [message for crumb in found if (message := crumb.get("message")) in wanted]
    return [*fields, Field("order of the breadcrumbs", wanted, order)]


def _judge_stack(exception: Mapping[str, Any], raised: Raised | None) -> list[Field]:
    """The innermost frame is the line that raised, with its source; no frame lacks its file or, if ours, its line."""
    values = exception.get("values") or [{}]
    frames = (values[-1].get("stacktrace") or {}).get("frames") or []
    inner = frames[-1] if frames else {}
    line = inner.get("lineNo")
    shown = inner.get("filename")
    source = next((row[1] for row in inner.get("context") or [] if len(row) == 2 and row[0] == line), None)
    whole = [bool(f.get("filename") and (f.get("lineNo") or not f.get("inApp"))) for f in frames]
    where = raised or Raised("?", "?", 0, "?")
    return [
        Field("stack file", where.file, PurePosixPath(shown).name if isinstance(shown, str) else shown),
        Field("stack function", where.function, inner.get("function")),
        Field("stack line", where.line, line),
        Field("stack source line", where.source, source.strip() if isinstance(source, str) else source),
        Field("stack frames with file and line", [True] * max(2, len(whole)), whole),
    ]


@dataclass(frozen=True)
class Grouped:
    """The issues (ids) of one SDK's events: by scenario, of the repeated error, and of its bursts."""

    sdk: str
    first: Mapping[str, str | None]
    again: str | None
    repeated: str


def judge_grouping(grouped: Grouped) -> list[Field]:
    """The same error twice is one issue; ten different ones are ten."""
    issues = Counter(issue for issue in grouped.first.values() if issue is not None)
    shared = sorted(
        scenario for scenario, issue in grouped.first.items() if issue is not None and issues[issue] > 1
    )
    first = grouped.first.get(grouped.repeated)
    return [
        Field(
            f"{grouped.sdk}: the same error twice in one issue",
            True,
            first is not None and first == grouped.again,
        ),
        Field(f"{grouped.sdk}: scenarios that share an issue", [], shared),
        Field(
            f"{grouped.sdk}: scenarios with an issue",
            len(grouped.first),
            sum(issue is not None for issue in grouped.first.values()),
        ),
    ]


def across_sdks(groups: Sequence[Grouped]) -> dict[str, str]:
    """Scenario -> whether the SDKs' events of it form one issue. Nothing is asked here: culprits differ."""
    if len(groups) < 2:
        return {}
    return {
        scenario: "one issue" if len({group.first.get(scenario) for group in groups}) == 1 else "one each"
        for scenario in groups[0].first
    }


@dataclass(frozen=True)
class Burst:
    """What became of one burst; the four numbers after ``accepted`` and ``refused`` add up to ``sent``."""

    sent: int
    accepted: int
    stored: int
    late: int
    lost: int
    refused: int
    answers: str
    issues: int
    sending_seconds: float
    drained_seconds: float
    latency_p50: float | None
    latency_p95: float | None

    def as_dict(self) -> dict[str, Any]:
        """For the report; ``accepted_per_second`` from the first capture to the last answer."""
        rate = round(self.accepted / self.sending_seconds, 1) if self.sending_seconds > 0 else None
        return {
            "sent": self.sent,
            "accepted": self.accepted,
            "accepted_per_second": rate,
            "stored": self.stored,
            "late": self.late,
            "lost": self.lost,
            "refused": self.refused,
            "answers": self.answers,
            "issues": self.issues,
            "sending_seconds": round(self.sending_seconds, 2),
            "drained_seconds": round(self.drained_seconds, 2),
            "latency_p50": self.latency_p50,
            "latency_p95": self.latency_p95,
        }


def judge_burst(
    at: Mapping[str, float],
    status: Mapping[str, int | None],
    answered: Mapping[str, float],
    seen: Mapping[str, float],
    issues: Mapping[str, str],
    on_time_until: float,
) -> Burst:
    """Sort the events of a burst, all by id and all times in wall seconds.

    stored: seen until ``on_time_until``; late: seen afterwards; lost: accepted (2xx) and never seen; refused:
    not accepted and never seen. One that was not accepted but is there counts as stored: only its answer was lost.
    """
    stored = {event_id for event_id in at if event_id in seen and seen[event_id] <= on_time_until}
    late = {event_id for event_id in at if event_id in seen} - stored
    taken = {event_id for event_id in at if accepted(status.get(event_id))}
    missing = at.keys() - stored - late
    waits = sorted(seen[event_id] - at[event_id] for event_id in stored | late)
    begun = min(at.values(), default=0.0)
    return Burst(
        sent=len(at),
        accepted=len(taken),
        stored=len(stored),
        late=len(late),
        lost=len(missing & taken),
        refused=len(missing - taken),
        answers=refusals([status.get(event_id, NOT_SENT) for event_id in at]),
        issues=len({issues[event_id] for event_id in at if event_id in issues}),
        sending_seconds=max(answered.values(), default=begun) - begun,
        drained_seconds=max((seen[event_id] for event_id in stored | late), default=begun) - begun,
        latency_p50=percentile(waits, 50),
        latency_p95=percentile(waits, 95),
    )


def burst_problems(burst: Burst, patience: float, by_sdk: Mapping[str, Burst]) -> list[str]:
    """What is wrong with a burst, one clause each; each of the SDKs may have one issue of its own."""
    name = f"burst of {burst.sent}"
    problems = []
    if burst.late:
        problems.append(f"{name}: {burst.late} events came later than {patience:g} s after they were sent")
    if burst.lost:
        problems.append(f"{name}: {burst.lost} events were accepted and never seen")
    if burst.refused:
        answers = "; ".join(f"{sdk}: {part.answers}" for sdk, part in by_sdk.items() if part.refused)
        problems.append(
            f"{name}: {burst.refused} events were not accepted and not stored ({answers}){_hint(answers)}"
        )
    problems += [
        f"{name}: equal errors of one SDK ({sdk}) became {part.issues} issues"
        for sdk, part in by_sdk.items()
        if part.issues > 1
    ]
    return problems


def _hint(answers: str) -> str:
    """No answer from a server that answers others: most likely it closes kept connections without a word."""
    if "no answer" not in answers:
        return ""
    return (
        "; a web server that closes connections without saying so does that: "
        "UWSGI_ADD_HEADER=Connection: close in its container, or a proxy without upstream keepalive"
    )


def accepted(status: int | None) -> bool:
    """Whether an answer is 2xx."""
    return status is not None and 200 <= status < 300


def refusals(statuses: Sequence[int | None]) -> str:
    """How those that were not accepted were answered: ``38 got no answer, 2 got 429, 1 did not leave the SDK``."""
    counts = Counter(status for status in statuses if not accepted(status))
    return ", ".join(
        f"{count} did not leave the SDK" if status == NOT_SENT else f"{count} got {status or 'no answer'}"
        for status, count in counts.most_common()
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile of sorted ``values``, with two digits; None of nothing."""
    if not values:
        return None
    return round(values[max(0, math.ceil(share / 100 * len(values)) - 1)], 2)


def judge_containers(before: Sequence[Container], after: Sequence[Container]) -> list[str]:
    """No container may have restarted, been replaced, gone or fallen ill meanwhile."""
    if not after:
        return ["the stack has no containers"]
    now = {item.name: item for item in after}
    problems = [f"container {item.name} is gone" for item in before if item.name not in now]
    for item in before:
        same = now.get(item.name)
        if same is not None and (same.id, same.restarts, same.started_at) != (
            item.id,
            item.restarts,
            item.started_at,
        ):
            problems.append(f"container {item.name} was restarted during the test")
    problems += [
        f"container {item.name} is not well ({item.state}, {item.health or 'no health check'})"
        for item in after
        if not item.well
    ]
    return problems
