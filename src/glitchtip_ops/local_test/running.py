"""One run: capture, read back, judge; scenarios first, then the bursts, the monitor beside them."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from glitchtip_api import Client, GlitchTipError

from ..docker_stack import Container, Stack
from ..process import OpsError
from .expectations import EXPECTATIONS, REPEATED
from .judging import (
    Burst,
    Field,
    Grouped,
    accepted,
    across_sdks,
    burst_problems,
    judge_burst,
    judge_containers,
    judge_event,
    judge_grouping,
    percentile,
)
from .memory import Sampler
from .reading import Found, Reader
from .sending import Sender, Sent
from .target import Limits, Target, check_target, listening_address
from .uptime import Site, UptimeLimits, UptimeResult, UptimeTest

_MIB = 1024**2
_READERS = 4
PROFILES = "GlitchTip accepts the profiles of an SDK and drops them"


@dataclass(frozen=True)
class Uptime:
    """How the monitor is tested: where it listens, and under which name the server reaches that."""

    bind: str = ""
    reach: str = ""
    port: int = 0
    limits: UptimeLimits = field(default_factory=UptimeLimits)


@dataclass(frozen=True)
class Exchange:
    """What each SDK sent at one go, what of it was read, and until when it is on time."""

    sent: Mapping[str, Sent]
    found: Found
    on_time: float


class LocalTest:
    """One run against ``target``. Without a ``stack`` neither memory nor containers are watched.

    ``uptime`` None: the monitor is not asked for. ``clock`` is wall time in seconds, ``sleep`` waits.
    """

    def __init__(
        self,
        target: Target,
        senders: Sequence[Sender],
        *,
        stack: Stack | None = None,
        uptime: Uptime | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.target = target
        self.senders = senders
        self.stack = stack
        self.uptime = uptime
        self.limits = limits or Limits()
        self.clock = clock
        self.sleep = sleep
        self.problems: list[str] = []

    def client(self) -> Client:
        """The API client of one run."""
        return Client(
            self.target.url,
            self.target.token,
            per_second=None,
            concurrent=8,
            open_after=None,
            ca_path=self.target.ca_path,
        )

    def run(self, bursts: Sequence[int]) -> dict[str, Any]:
        """Send, read back, judge; the report, whose ``problems`` is empty when all is well.

        Raises OpsError or GlitchTipError when the test itself could not be done.
        """
        self.problems = []
        began = self.clock()
        for sender in self.senders:
            sender.check()
        stopped = threading.Event()
        with self.client() as client, ThreadPoolExecutor(max_workers=1) as executor:
            project_id = check_target(client, self.target)
            version = client.version()
            before = self.stack.containers() if self.stack else []
            mib_before = self.memory(before)
            monitor = executor.submit(self.watch, client, project_id, stopped)
            reader = Reader(
                client, self.target.organization, self.target.project, clock=self.clock, sleep=self.sleep
            )
            try:
                scenarios = self.scenarios(reader)
                rows, sampler = self.bursts(reader, bursts)
                result = monitor.result()
            finally:
                stopped.set()  # whatever failed: the monitor is removed before this is left
        after = self.stack.containers() if self.stack else []
        memory = self.judge_memory(mib_before, sampler, self.memory(after))
        if self.stack:
            self.problems += judge_containers(before, after)
        self.problems += result.problems()
        return {
            "passed": not self.problems,
            "problems": self.problems,
            "server": {
                "url": self.target.url,
                "version": version,
                "organization": self.target.organization,
                "project": self.target.project,
            },
            "judged_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.clock())),
            "seconds": round(self.clock() - began, 1),
            **scenarios,
            "bursts": rows,
            "memory_mib": memory,
            "uptime": result.as_dict(self.uptime.limits.interval if self.uptime else 0),
        }

    def memory(self, containers: Sequence[Container]) -> float:
        """MiB that the containers use now; 0 without a stack. Raises OpsError."""
        return sum(self.stack.memory_used(containers).values()) / _MIB if self.stack else 0.0

    def judge_memory(self, before: float, sampler: Sampler | None, after: float) -> dict[str, Any] | None:
        """Before, peak and after in MiB; None without a stack."""
        if self.stack is None or sampler is None:
            return None
        peak = max(before, sampler.peak, after)
        if sampler.trouble:
            self.problems.append(f"the memory of the stack could not be sampled: {sampler.trouble}")
        if peak > self.limits.stack_mib:
            self.problems.append(f"the stack used {peak:.0f} MiB, more than {self.limits.stack_mib:g} MiB")
        figures = {"before": round(before, 1), "peak": round(peak, 1), "after": round(after, 1)}
        return {**figures, "samples": sampler.samples, "limit": self.limits.stack_mib}

    def watch(self, client: Client, project_id: str, stopped: threading.Event) -> UptimeResult:
        """The monitor's part, in a thread of its own; never raises for what can be said in the result."""
        if self.uptime is None:
            return UptimeResult()
        try:
            address = listening_address(self.target, self.stack, self.uptime.bind)
            if not address:
                reason = (
                    f"{self.target.url} is not on this machine, and nobody said under which address it reaches us "
                    "(--bind ADDRESS, behind NAT with --reach NAME; --no-uptime leaves the monitor out)"
                )
                return UptimeResult("not run", reason)
            site = Site(address, self.uptime.reach, self.uptime.port, clock=self.clock)
        except OpsError as error:
            return UptimeResult("not run", str(error))
        try:
            target = self.target
            test = UptimeTest(
                client,
                target.organization,
                target.project,
                project_id,
                site,
                self.uptime.limits,
                clock=self.clock,
                stopped=stopped,
            )
            return test.run()
        finally:
            site.close()

    def scenarios(self, reader: Reader) -> dict[str, Any]:
        """The ten scenarios of each SDK, one of them twice: their part of the report."""
        first = {s.name: {e.scenario: uuid.uuid4().hex for e in EXPECTATIONS} for s in self.senders}
        again = {sender.name: uuid.uuid4().hex for sender in self.senders}
        items = {
            name: [
                *({"scenario": scenario, "event_id": event_id} for scenario, event_id in ids.items()),
                {"scenario": REPEATED, "event_id": again[name]},
            ]
            for name, ids in first.items()
        }
        exchange = self.exchange(reader, items, {})
        found = exchange.found
        rows = self.rows(reader, exchange, first)
        groups = [
            Grouped(
                name,
                {scenario: found.issues.get(event_id) for scenario, event_id in ids.items()},
                found.issues.get(again[name]),
                REPEATED,
            )
            for name, ids in first.items()
        ]
        grouping = [field for group in groups for field in judge_grouping(group)]
        self.problems += [f"grouping: {field.problem()}" for field in grouping if not field.ok]
        for name, sent in exchange.sent.items():
            if not accepted(sent.transaction_status):
                answer = sent.transaction_status or "nothing"
                self.problems.append(f"{name}: a trace was answered with {answer}, not with 2xx")
        waits = sorted(
            found.seen[event_id] - at
            for sent in exchange.sent.values()
            for event_id, at in sent.at.items()
            if event_id in found.seen
        )
        p95 = percentile(waits, 95)
        if p95 is not None and p95 > self.limits.latency:
            self.problems.append(
                f"the scenarios were read back after {p95:g} s (95th percentile), more than {self.limits.latency:g} s"
            )
        return {
            "sdks": {n: {"name": s.sdk, "version": s.version} for n, s in exchange.sent.items()},
            "scenarios": rows,
            "grouping": [field.as_dict() for field in grouping],
            "across_sdks": across_sdks(groups),
            "latency_seconds": {
                "p50": percentile(waits, 50),
                "p95": p95,
                "max": round(waits[-1], 2) if waits else None,
                "limit": self.limits.latency,
            },
            "profiles_dropped": sum(sent.profiles for sent in exchange.sent.values()),
            "note": PROFILES,
        }

    def rows(
        self, reader: Reader, exchange: Exchange, first: Mapping[str, Mapping[str, str]]
    ) -> list[dict[str, Any]]:
        """A row for each scenario of each SDK, with every asserted field."""
        found = exchange.found
        asked = [
            (name, expected, first[name][expected.scenario]) for name in first for expected in EXPECTATIONS
        ]

        def fetch(event_id: str) -> tuple[dict[str, Any] | None, Any]:
            issue = found.issues.get(event_id)
            if issue is None:
                return None, None
            return reader.event(event_id), reader.level(event_id, issue)

        with ThreadPoolExecutor(max_workers=_READERS) as executor:
            fetched = list(executor.map(fetch, [event_id for _, _, event_id in asked]))
        rows = []
        for (name, expected, event_id), (event, level) in zip(asked, fetched, strict=True):
            fields: list[Field] = []
            if event is None:
                answer = exchange.sent[name].status.get(event_id)
                told = f"answered {answer}" if answer else "never answered"
                lacks = [f"its event did not arrive ({told})"]
            else:
                fields = judge_event(expected, name, event, level, exchange.sent[name].raised.get(event_id))
                lacks = [field.problem() for field in fields if not field.ok]
            late = found.seen.get(event_id, 0.0) > exchange.on_time
            lacks += [f"its event came later than {self.limits.patience:g} s"] if late else []
            self.problems += [f"{name} {expected.scenario}: {problem}" for problem in lacks]
            rows.append(
                {
                    "sdk": name,
                    "scenario": expected.scenario,
                    "event_id": event_id,
                    "issue": found.issues.get(event_id),
                    "ok": not lacks,
                    "problems": lacks,
                    "fields": [field.as_dict() for field in fields],
                }
            )
        return rows

    def bursts(self, reader: Reader, sizes: Sequence[int]) -> tuple[list[dict[str, Any]], Sampler | None]:
        """Every burst, shared by the SDKs, while the memory is sampled; a row each, and the sampler."""
        stack = self.stack
        if stack is None:
            return [self.burst(reader, size) for size in sizes], None
        sampler = Sampler(lambda: sum(stack.memory_used(stack.containers()).values()))
        with sampler:
            return [self.burst(reader, size) for size in sizes], sampler

    def burst(self, reader: Reader, size: int) -> dict[str, Any]:
        """One burst of ``size`` events: all SDKs at once, each with its share."""
        names = [sender.name for sender in self.senders]
        shares: dict[str, list[str]] = {name: [] for name in names}
        for number in range(size):
            shares[names[number % len(names)]].append(uuid.uuid4().hex)
        exchange = self.exchange(reader, {}, shares)
        found = exchange.found
        parts: dict[str, Burst] = {}
        at: dict[str, float] = {}
        status: dict[str, int | None] = {}
        answered: dict[str, float] = {}
        for name, sent in exchange.sent.items():
            at |= sent.at
            status |= sent.status
            answered |= sent.answered
            parts[name] = judge_burst(
                sent.at, sent.status, sent.answered, found.seen, found.issues, exchange.on_time
            )
            if not sent.complete:
                self.problems.append(
                    f"burst of {size}: the SDK ({name}) could not hand over every event in time"
                )
        whole = judge_burst(at, status, answered, found.seen, found.issues, exchange.on_time)
        self.problems += burst_problems(whole, self.limits.patience, parts)
        if whole.sent != size:
            self.problems.append(f"burst of {size}: the SDKs captured {whole.sent} events")
        return {**whole.as_dict(), "by_sdk": {name: part.as_dict() for name, part in parts.items()}}

    def exchange(
        self,
        reader: Reader,
        items: Mapping[str, Sequence[Mapping[str, str]]],
        bursts: Mapping[str, Sequence[str]],
    ) -> Exchange:
        """Capture with all SDKs at once while the API is asked: so that latency is that of the tracker.

        Raises OpsError when an SDK could not send, GlitchTipError when the API refuses.
        """
        busy = [s for s in self.senders if items.get(s.name) or bursts.get(s.name)]
        ids = [
            *(item["event_id"] for sender in busy for item in items.get(sender.name, ())),
            *(event_id for sender in busy for event_id in bursts.get(sender.name, ())),
        ]
        reader.mark()
        with ThreadPoolExecutor(max_workers=max(1, len(busy))) as executor:
            sending: dict[str, Future[Sent]] = {
                s.name: executor.submit(s.send, items.get(s.name, ()), bursts.get(s.name, ())) for s in busy
            }

            def going() -> bool:
                ended = [future for future in sending.values() if future.done()]
                for future in ended:
                    if (error := future.exception()) is not None:
                        raise error
                return len(ended) < len(sending)

            try:
                found, on_time = reader.await_all(ids, going, self.limits.patience, self.limits.grace)
            except GlitchTipError as error:
                raise OpsError(f"the events could not be read back: {error}") from None
            return Exchange({name: future.result() for name, future in sending.items()}, found, on_time)
