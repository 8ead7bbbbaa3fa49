"""``glitchtip-ops local-test``: what the product's own SDK captures is read back, field by field.

Five SDK scenarios, five production patterns, one error repeated that must be grouped, and a burst that must
arrive whole. GlitchTip accepts the profiles of an SDK and drops them (measured on the 5.2 line); the report
says how many it dropped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glitchtip_api import Client

from .cli import BAD_ANSWER, Outcome
from .docker_stack import Container, Stack
from .files import write_json
from .process import OpsError, run
from .settings import Settings, load_settings

REPEATED = "sdk-basic-error"
_NODE_TIMEOUT = 120.0
_POLL = 0.3
_MIB = 1024**2


@dataclass(frozen=True)
class Expectation:
    """What the stored event of one scenario must show; what is empty is not asked."""

    scenario: str
    title: str
    level: str = "error"
    tags: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    user: Mapping[str, str] = field(default_factory=dict)
    breadcrumbs: tuple[str, ...] = ()
    stack: bool = True


_VISIT = {"at": "2026-01-01T10:00:00Z", "services": [{"id": 1, "price": {"amount": 1500}}]}

EXPECTATIONS = (
    Expectation(REPEATED, "LocalTestError: local test: basic error"),
    Expectation(
        "sdk-user",
        "LocalTestError: local test: with a user",
        user={"id": "4711", "email": "user@example.org", "username": "local-test-user"},
    ),
    Expectation(
        "sdk-breadcrumbs",
        "LocalTestError: local test: with breadcrumbs",
        breadcrumbs=("user signed in", "select bookings"),
    ),
    Expectation(
        "sdk-extra",
        "LocalTestError: local test: with nested extra",
        extra={"order": {"id": 7, "lines": [{"sku": "A-1", "price": {"amount": 12.5, "currency": "EUR"}}]}},
    ),
    Expectation("sdk-level-warning", "local test: a warning message", level="warning", stack=False),
    Expectation(
        "pattern-database",
        "Error: local test: connect ECONNREFUSED 192.0.2.10:5432",
        tags={"component": "database", "operation": "connect", "backend": "postgresql"},
        extra={"host": "192.0.2.10", "port": 5432, "database": "ai_admin", "attempt": 3},
    ),
    Expectation(
        "pattern-repository",
        'UniqueViolation: local test: duplicate key value violates unique constraint "clients_phone_key"',
        tags={"component": "repository", "operation": "insert", "backend": "postgresql"},
        extra={"filters": {"company_id": 12}, "data": {"name": "Example", "visits": 3}},
    ),
    Expectation(
        "pattern-whatsapp",
        "SessionError: local test: WhatsApp session expired",
        tags={"component": "whatsapp", "subcomponent": "session", "companyId": "12"},
        extra={"session": {"state": "expired", "reconnects": 4}},
    ),
    Expectation(
        "pattern-booking-monitor",
        "ServiceError: local test: booking could not be synchronised",
        tags={"component": "booking-monitor", "operation": "synchronise"},
        extra={"booking": {"id": 99, "client": {"name": "Example", "visits": [_VISIT]}}},
    ),
    Expectation(
        "pattern-queue-job",
        "JobError: local test: job failed, will be retried",
        tags={"component": "queue", "queue": "messages"},
        extra={"jobId": "job-31", "queue": "messages", "retry": {"attempt": 2, "of": 5, "delayMs": 4000}},
    ),
)


def judge_event(expected: Expectation, event: Mapping[str, Any], level: str) -> list[str]:
    """What the stored event lacks, one clause each.

    ``event`` is what the project's event endpoint answers (it has no level), ``level`` that of its issue.
    """
    problems: list[str] = []
    if event.get("title") != expected.title:
        problems.append(f"title is {event.get('title')!r}, not {expected.title!r}")
    if level != expected.level:
        problems.append(f"level is {level}, not {expected.level}")
    tags = {tag["key"]: tag["value"] for tag in event.get("tags") or []}
    wanted = {**expected.tags, "local_test": expected.scenario, "environment": "local-test"}
    problems += _differences("tag", wanted, tags)
    problems += _differences("extra", expected.extra, event.get("context") or {})
    user = {key: str(value) for key, value in (event.get("user") or {}).items()}
    problems += _differences("user", expected.user, user)
    entries = {entry.get("type"): entry.get("data") or {} for entry in event.get("entries") or []}
    messages = {crumb.get("message") for crumb in (entries.get("breadcrumbs") or {}).get("values") or []}
    problems += [f"breadcrumb {text!r} is missing" for text in expected.breadcrumbs if text not in messages]
    if expected.stack and not _has_lines(entries.get("exception") or {}):
        problems.append("there is no stack trace with file names and line numbers")
    return problems


def _differences(kind: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    return [
        f"{kind} {key} is {found.get(key)!r}, not {value!r}"
        for key, value in wanted.items()
        if found.get(key) != value
    ]


def _has_lines(exception: Mapping[str, Any]) -> bool:
    """Whether an exception has frames that all name their file, and the innermost its line."""
    for value in exception.get("values") or []:
        frames = (value.get("stacktrace") or {}).get("frames") or []
        if frames and all(frame.get("filename") for frame in frames) and frames[-1].get("lineNo"):
            return True
    return False


@dataclass(frozen=True)
class Sent:
    """What the SDK's process told: when each event was captured (wall time, s) and how it was answered."""

    at: Mapping[str, float]
    status: Mapping[str, int | None]
    profiles: int = 0
    transaction_status: int | None = None

    @property
    def accepted(self) -> int:
        """Number of events that the tracker answered with 2xx."""
        return sum(1 for status in self.status.values() if _accepted(status))


def _refusals(sent: Sent) -> str:
    """How the events that were not accepted were answered: ``, 38 got no answer, 2 got 429``."""
    counts = Counter(status for status in sent.status.values() if not _accepted(status))
    return "".join(f", {count} got {status or 'no answer'}" for status, count in counts.most_common())


def _accepted(status: int | None) -> bool:
    return status is not None and 200 <= status < 300


def parse_output(text: str) -> Sent:
    """Read what scenarios.cjs printed. Raises OpsError when that is not what it prints."""
    at: dict[str, float] = {}
    status: dict[str, int | None] = {}
    totals: dict[str, Any] = {}
    try:
        for line in text.splitlines():
            document = json.loads(line)
            if "sent_at" in document:
                at[document["event_id"]] = document["sent_at"] / 1000
            elif "status" in document:
                status[document["event_id"]] = document["status"]
            else:
                totals = document
        return Sent(at, status, int(totals["profiles"]), totals["transaction_status"])
    except (ValueError, KeyError, TypeError):
        raise OpsError("the script of the local test printed something else than its lines of JSON") from None


@dataclass(frozen=True)
class Found:
    """Events that could be read back, by id, and the wall time in seconds at which each was seen."""

    events: dict[str, dict[str, Any]]
    seen: dict[str, float]

    def latencies(self, sent: Sent) -> list[float]:
        """Seconds from capture to reading back, for each event that was found."""
        return [self.seen[event_id] - at for event_id, at in sent.at.items() if event_id in self.seen]


@dataclass(frozen=True)
class Limits:
    """What the test allows: seconds until an event is read back, MiB of the stack, seconds of patience."""

    latency: float = 5.0
    stack_mib: float = 500.0
    patience: float = 60.0


class LocalTest:
    """One run against the GlitchTip of ``settings``. ``clock`` is wall time in seconds, ``sleep`` waits."""

    def __init__(
        self,
        settings: Settings,
        *,
        app_dir: Path,
        script: Path,
        node: str,
        user: str,
        stack: Stack,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings
        self.app_dir = app_dir
        self.script = script
        self.node = node
        self.user = user
        self.stack = stack
        self.clock = clock
        self.sleep = sleep

    def run(self, burst: int, limits: Limits) -> dict[str, Any]:
        """Capture, read back, judge; the report, whose ``problems`` is empty when all is well.

        Raises OpsError or GlitchTipError when the test itself could not be done.
        """
        before = self.stack.containers()
        ids = [uuid.uuid4().hex for _ in EXPECTATIONS]
        again = uuid.uuid4().hex
        items = [
            {"scenario": item.scenario, "event_id": event_id}
            for item, event_id in zip(EXPECTATIONS, ids, strict=True)
        ]
        items.append({"scenario": REPEATED, "event_id": again})
        burst_ids = [uuid.uuid4().hex for _ in range(burst)]
        with Client(self.settings.url, self.settings.token, per_second=None) as client:
            sent, found = self.exchange(client, items, [], limits.patience)
            rows, problems = self.judge(client, ids, found)
            problems += judge_grouping(found.events.get(ids[0]), found.events.get(again))
            burst_sent, burst_found = self.exchange(client, [], burst_ids, limits.patience)
        for status in (sent.transaction_status, burst_sent.transaction_status):
            if not _accepted(status):
                problems.append(f"a trace was answered with {status or 'nothing'}, not with 2xx")
        latencies = found.latencies(sent)
        slowest = max(latencies, default=0.0)
        if slowest > limits.latency:
            problems.append(f"an event was read back after {slowest:.1f} s, more than {limits.latency:g} s")
        stored = len(burst_found.events)
        if stored < burst:
            problems.append(
                f"{burst - stored} of {burst} events of the burst did not arrive within "
                f"{limits.patience:g} s ({burst_sent.accepted} were accepted{_refusals(burst_sent)})"
            )
        after = self.stack.containers()
        memory = sum(self.stack.memory_used(after).values()) / _MIB
        if memory > limits.stack_mib:
            problems.append(f"the stack uses {memory:.0f} MiB, more than {limits.stack_mib:g} MiB")
        problems += judge_containers(before, after)
        return {
            "passed": not problems,
            "problems": problems,
            "scenarios": rows,
            "latency_seconds": {
                "median": round(statistics.median(latencies), 2) if latencies else None,
                "max": round(slowest, 2),
            },
            "burst": {
                "sent": burst,
                "accepted": burst_sent.accepted,
                "stored": stored,
                "drained_seconds": round(max(burst_found.latencies(burst_sent), default=0.0), 2),
            },
            "stack_memory_mib": round(memory, 1),
            "profiles_dropped": sent.profiles + burst_sent.profiles,
            "note": "GlitchTip accepts the profiles of an SDK and drops them",
        }

    def exchange(
        self, client: Client, items: Sequence[Mapping[str, str]], burst: Sequence[str], patience: float
    ) -> tuple[Sent, Found]:
        """Capture with the SDK while the API is asked for the ids: so that latency is that of the tracker."""
        ids = [item["event_id"] for item in items] + list(burst)
        with ThreadPoolExecutor(max_workers=1) as executor:
            capturing = executor.submit(self.capture, items, burst)
            found = self.read_back(client, ids, patience, capturing)
            return capturing.result(), found

    def capture(self, items: Sequence[Mapping[str, str]], burst: Sequence[str]) -> Sent:
        """Run the script with the product's SDK. Raises OpsError when it could not send."""
        done = run(
            [self.node, str(self.script)],
            timeout=_NODE_TIMEOUT,
            user=self.user,
            env={"LOCAL_TEST_DSN": self.settings.dsn},
            stdin=json.dumps({"app_dir": str(self.app_dir), "items": list(items), "burst": list(burst)}),
            cwd=str(self.app_dir),
        )
        if done.code:
            raise OpsError(
                f"The product's SDK in {self.app_dir} could not send the test errors: {done.reason}"
            )
        return parse_output(done.stdout)

    def read_back(
        self, client: Client, ids: Sequence[str], patience: float, capturing: Future[Sent]
    ) -> Found:
        """Ask for the ids until all are stored or the capture has failed.

        ``patience`` begins when the SDK's process has ended. Events are stored in batches, in order: a round
        ends with the first id that is not there, but for the last round, which asks for every id.
        """
        organization, project = self.settings.organization, self.settings.project
        found = Found({}, {})
        deadline: float | None = None
        while True:
            last = deadline is not None and self.clock() >= deadline
            for event_id in [event_id for event_id in ids if event_id not in found.events]:
                event = client.events.get(organization, project, event_id)
                if event is not None:
                    found.events[event_id] = event
                    found.seen[event_id] = self.clock()
                elif not last:
                    break
            failed = capturing.done() and capturing.exception() is not None
            if last or failed or len(found.events) == len(ids):
                return found
            if deadline is None and capturing.done():
                deadline = self.clock() + patience
            self.sleep(_POLL)

    def judge(
        self, client: Client, ids: Sequence[str], found: Found
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Hold each scenario's event to its expectation: a row each, and all problems."""
        rows: list[dict[str, Any]] = []
        problems: list[str] = []
        for expected, event_id in zip(EXPECTATIONS, ids, strict=True):
            event = found.events.get(event_id)
            if event is None:
                lacks = ["its event did not arrive"]
            else:
                issue = client.issues.get(str(event["groupID"])) or {}
                lacks = judge_event(expected, event, str(issue.get("level")))
            problems += [f"{expected.scenario}: {problem}" for problem in lacks]
            rows.append({"scenario": expected.scenario, "event_id": event_id, "ok": not lacks})
        return rows, problems


def judge_grouping(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> list[str]:
    """The same error twice must be one issue."""
    groups = [str(event["groupID"]) for event in (first, second) if event is not None]
    if len(groups) == 2 and groups[0] == groups[1]:
        return []
    return [f"the same error twice is not one issue (issues: {', '.join(groups) or 'none'})"]


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


def register(subparsers: Any) -> None:
    """Add the command ``local-test``."""
    parser = subparsers.add_parser("local-test", help="read back what the product's own SDK sends")
    parser.add_argument("--app-dir", type=Path, required=True, help="the product, with its node_modules")
    parser.add_argument("--script", type=Path, required=True, help="scenarios.cjs")
    parser.add_argument("--node", default="/usr/bin/node")
    parser.add_argument("--user", default="root", help="user that runs Node.js")
    parser.add_argument("--compose-project", default="glitchtip")
    parser.add_argument("--burst", type=int, default=100, help="number of events")
    parser.add_argument("--max-latency", type=float, default=Limits.latency, help="seconds to reading back")
    parser.add_argument("--max-stack-mib", type=float, default=Limits.stack_mib)
    parser.add_argument("--patience", type=float, default=Limits.patience, help="seconds to wait for events")
    parser.add_argument("--image", required=True, help="the image that is tested; part of the result")
    parser.add_argument("--result", type=Path, required=True, help="file that keeps the report")
    parser.set_defaults(handler=_handle)


def _handle(options: argparse.Namespace) -> Outcome:
    settings = load_settings()
    try:
        checksum = hashlib.sha256(options.script.read_bytes()).hexdigest()
    except OSError as error:
        raise OpsError(f"{options.script} cannot be read: {error.strerror}") from None
    test = LocalTest(
        settings,
        app_dir=options.app_dir,
        script=options.script,
        node=options.node,
        user=options.user,
        stack=Stack(options.compose_project),
    )
    report = test.run(options.burst, Limits(options.max_latency, options.max_stack_mib, options.patience))
    write_json(options.result, {"image": options.image, "scenarios_sha256": checksum, **report})
    return Outcome(report, describe(report), 0 if report["passed"] else BAD_ANSWER)


def describe(report: Mapping[str, Any]) -> list[str]:
    """The report for people, a line each."""
    burst, latency = report["burst"], report["latency_seconds"]
    lines = [
        f"{row['scenario']:24} {'ok' if row['ok'] else 'FAILED'}  {row['event_id']}"
        for row in report["scenarios"]
    ]
    lines += [
        f"burst                    {burst['stored']} of {burst['sent']} stored, {burst['accepted']} accepted",
        f"drained                  after {burst['drained_seconds']} s",
        f"latency                  median {latency['median']} s, max {latency['max']} s",
        f"stack                    {report['stack_memory_mib']} MiB",
        f"profiles                 {report['profiles_dropped']} sent; {report['note']}",
    ]
    return lines + [f"problem: {problem}" for problem in report["problems"]]
