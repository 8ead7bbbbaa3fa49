"""``glitchtip-ops local-test``: what the product's own SDK captures is sent to a GlitchTip and read back, field by field.

Five SDK scenarios, five production patterns, a repetition that must be grouped, and a burst that must arrive whole. GlitchTip drops
profiles that an SDK sends (measured on the 5.2 line); the report says so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glitchtip_api import Client

from .cli import BAD_ANSWER, Outcome
from .docker_stack import Stack
from .files import write_json
from .process import OpsError, run
from .settings import Settings, load_settings

REPEATED = "sdk-basic-error"
PROFILES = "profiles of an SDK are accepted and dropped by GlitchTip; traces are kept"
_NODE_TIMEOUT = 120.0
_POLL = 0.3


@dataclass(frozen=True)
class Expectation:
    """What the stored event of one scenario must show; ``None`` and empty mean that nothing is asked."""

    scenario: str
    title: str
    level: str = "error"
    tags: Mapping[str, str] | None = None
    extra: Mapping[str, Any] | None = None
    user: Mapping[str, str] | None = None
    breadcrumbs: tuple[str, ...] = ()
    stack: bool = True


EXPECTATIONS = (
    Expectation(REPEATED, "LocalTestError: local test: basic error"),
    Expectation(
        "sdk-user",
        "LocalTestError: local test: with a user",
        user={"id": "4711", "email": "user@example.org", "username": "local-test-user"},
    ),
    Expectation("sdk-breadcrumbs", "LocalTestError: local test: with breadcrumbs", breadcrumbs=("user signed in", "select bookings")),
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
        tags={"component": "repository", "operation": "insert"},
        extra={"filters": {"company_id": 12}, "data": {"phone": "+00000000000"}},
    ),
    Expectation(
        "pattern-whatsapp",
        "SessionError: local test: WhatsApp session expired",
        tags={"component": "whatsapp", "subcomponent": "session", "companyId": "12"},
    ),
    Expectation(
        "pattern-booking-monitor",
        "ServiceError: local test: booking could not be synchronised",
        tags={"component": "booking-monitor"},
    ),
    Expectation(
        "pattern-queue-job",
        "JobError: local test: job failed, will be retried",
        tags={"component": "queue", "queue": "messages"},
        extra={"jobId": "job-31", "queue": "messages", "retry": {"attempt": 2, "of": 5, "delayMs": 4000}},
    ),
)


def judge_event(expected: Expectation, event: Mapping[str, Any], level: str) -> list[str]:
    """What the stored event lacks, one clause each; ``event`` as the project's event endpoint gives it, ``level`` of its issue."""
    problems: list[str] = []
    if event.get("title") != expected.title:
        problems.append(f"title is {event.get('title')!r}, not {expected.title!r}")
    if level != expected.level:
        problems.append(f"level is {level}, not {expected.level}")
    tags = {tag["key"]: tag["value"] for tag in event.get("tags") or []}
    for key, value in {**(expected.tags or {}), "local_test": expected.scenario, "environment": "local-test"}.items():
        if tags.get(key) != value:
            problems.append(f"tag {key} is {tags.get(key)!r}, not {value!r}")
    extra = event.get("context") or {}
    for key, value in (expected.extra or {}).items():
        if extra.get(key) != value:
            problems.append(f"extra {key} is {extra.get(key)!r}, not {value!r}")
    user = event.get("user") or {}
    for key, value in (expected.user or {}).items():
        if str(user.get(key)) != value:
            problems.append(f"user {key} is {user.get(key)!r}, not {value!r}")
    entries = {entry.get("type"): entry.get("data") or {} for entry in event.get("entries") or []}
    messages = {crumb.get("message") for crumb in (entries.get("breadcrumbs") or {}).get("values") or []}
    problems += [f"breadcrumb {text!r} is missing" for text in expected.breadcrumbs if text not in messages]
    if expected.stack and not _has_lines(entries.get("exception") or {}):
        problems.append("there is no stack trace with file names and line numbers")
    return problems


def _has_lines(exception: Mapping[str, Any]) -> bool:
    for value in exception.get("values") or []:
        frames = (value.get("stacktrace") or {}).get("frames") or []
        if frames and all(frame.get("filename") for frame in frames) and any(frame.get("lineNo") for frame in frames):
            return True
    return False


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

    def run(self, *, burst: int, max_latency: float, max_stack_mib: float, patience: float) -> dict[str, Any]:
        """Capture, read back, judge; the report, whose ``problems`` is empty when all is well."""
        restarts_before = {item.name: item.restarts for item in self.stack.containers()}
        items = [{"scenario": expected.scenario, "event_id": uuid.uuid4().hex} for expected in EXPECTATIONS]
        again = {"scenario": REPEATED, "event_id": uuid.uuid4().hex}
        burst_ids = [uuid.uuid4().hex for _ in range(burst)]
        problems: list[str] = []
        with Client(self.settings.url, self.settings.token) as client:
            sent = self.capture([*items, again], [])
            events, latencies = self.read_back(client, sent, patience)
            scenarios = self.judge(client, items, events, problems)
            self.judge_grouping(items[0]["event_id"], again["event_id"], events, problems)
            burst_sent = self.capture([], burst_ids)
            began = min(burst_sent.values(), default=0.0)
            arrived, burst_latencies = self.read_back(client, burst_sent, patience)
        missing = len(burst_ids) - len(arrived)
        if missing:
            problems.append(f"{missing} of {burst} events of the burst did not arrive within {patience:.0f} s")
        containers = self.stack.containers()
        memory = sum(self.stack.memory_used(containers).values()) / 1048576
        median = statistics.median(latencies) if latencies else float("inf")
        if median > max_latency:
            problems.append(f"median latency from capture to read back is {median:.1f} s, more than {max_latency:.1f} s")
        if memory > max_stack_mib:
            problems.append(f"the stack uses {memory:.0f} MiB, more than {max_stack_mib:.0f} MiB")
        for item in containers:
            if item.restarts != restarts_before.get(item.name, item.restarts) or not item.well:
                problems.append(f"container {item.name} restarted or is not well ({item.state}, {item.health})")
        drained = max(burst_latencies, default=0.0)
        return {
            "passed": not problems,
            "problems": problems,
            "scenarios": scenarios,
            "latency_seconds": {"median": round(median, 2), "max": round(max(latencies, default=0.0), 2)},
            "burst": {"sent": burst, "stored": len(arrived), "drained_seconds": round(drained, 2), "began": round(began, 3)},
            "stack_memory_mib": round(memory, 1),
            "note": PROFILES,
        }

    def capture(self, items: Sequence[Mapping[str, str]], burst: Sequence[str]) -> dict[str, float]:
        """Run the script with the product's SDK; event id -> wall time of its capture in seconds."""
        order = json.dumps({"app_dir": str(self.app_dir), "items": list(items), "burst": list(burst)})
        done = run(
            [self.node, str(self.script)],
            timeout=_NODE_TIMEOUT,
            user=self.user,
            env={"LOCAL_TEST_DSN": self.settings.dsn},
            stdin=order,
            cwd=str(self.app_dir),
        )
        if done.code:
            raise OpsError(f"The product's SDK in {self.app_dir} could not send the test errors: {done.reason}")
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return {line["event_id"]: line["sent_at"] / 1000 for line in lines}

    def read_back(self, client: Client, sent: Mapping[str, float], patience: float) -> tuple[dict[str, dict[str, Any]], list[float]]:
        """Poll until every id is stored, at most ``patience`` seconds; the events by id and the seconds that each took."""
        organization, project = self.settings.organization, self.settings.project
        events: dict[str, dict[str, Any]] = {}
        latencies: list[float] = []
        deadline = self.clock() + patience
        while True:
            for event_id in [identifier for identifier in sent if identifier not in events]:
                event = client.events.get(organization, project, event_id)
                if event is None:
                    break  # they are stored in order, batch by batch: the rest is not there either, ask again later
                events[event_id] = event
                latencies.append(self.clock() - sent[event_id])
            if len(events) == len(sent) or self.clock() > deadline:
                return events, latencies
            self.sleep(_POLL)

    def judge(
        self, client: Client, items: Sequence[Mapping[str, str]], events: Mapping[str, Mapping[str, Any]], problems: list[str]
    ) -> list[dict[str, Any]]:
        """Hold each scenario's event to its expectation; a row each."""
        rows = []
        for expected, item in zip(EXPECTATIONS, items, strict=True):
            event = events.get(item["event_id"])
            if event is None:
                found = ["its event did not arrive"]
            else:
                issue = client.issues.get(str(event["groupID"])) or {}
                found = judge_event(expected, event, str(issue.get("level")))
            problems += [f"{expected.scenario}: {problem}" for problem in found]
            rows.append({"scenario": expected.scenario, "event_id": item["event_id"], "ok": not found})
        return rows

    def judge_grouping(self, first: str, second: str, events: Mapping[str, Mapping[str, Any]], problems: list[str]) -> None:
        """The same error twice must be one issue."""
        groups = [str(events[event_id]["groupID"]) for event_id in (first, second) if event_id in events]
        if len(groups) < 2 or groups[0] != groups[1]:
            problems.append(f"the same error twice is not one issue (issues {', '.join(groups) or 'none'})")


def register(subparsers: Any) -> None:
    """Add the command ``local-test``."""
    parser = subparsers.add_parser("local-test", help="read back what the product's own SDK sends")
    parser.add_argument("--app-dir", type=Path, required=True, help="directory of the product, with its node_modules")
    parser.add_argument("--script", type=Path, required=True, help="scenarios.cjs")
    parser.add_argument("--node", default="/usr/bin/node")
    parser.add_argument("--user", default="root", help="user that runs Node.js")
    parser.add_argument("--compose-project", default="glitchtip")
    parser.add_argument("--burst", type=int, default=100)
    parser.add_argument("--max-latency", type=float, default=5.0, help="seconds, median")
    parser.add_argument("--max-stack-mib", type=float, default=500.0)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds until an event must have been read back")
    parser.add_argument("--image", required=True, help="the image that is tested; part of the result")
    parser.add_argument("--result", type=Path, required=True, help="file that keeps the report")
    parser.set_defaults(handler=_handle)


def _handle(options: argparse.Namespace) -> Outcome:
    settings = load_settings()
    test = LocalTest(
        settings,
        app_dir=options.app_dir,
        script=options.script,
        node=options.node,
        user=options.user,
        stack=Stack(options.compose_project),
    )
    report = test.run(
        burst=options.burst, max_latency=options.max_latency, max_stack_mib=options.max_stack_mib, patience=options.patience
    )
    checksum = hashlib.sha256(options.script.read_bytes()).hexdigest()
    write_json(options.result, {"image": options.image, "scenarios_sha256": checksum, **report})
    lines = [f"{row['scenario']:24} {'ok' if row['ok'] else 'FAILED'}  {row['event_id']}" for row in report["scenarios"]]
    lines.append(f"burst                    {report['burst']['stored']} of {report['burst']['sent']} stored")
    lines.append(f"latency                  median {report['latency_seconds']['median']} s, max {report['latency_seconds']['max']} s")
    lines.append(f"stack                    {report['stack_memory_mib']} MiB")
    lines.append(f"note                     {report['note']}")
    lines += [f"problem: {problem}" for problem in report["problems"]]
    return Outcome(report, lines, 0 if report["passed"] else BAD_ANSWER)
