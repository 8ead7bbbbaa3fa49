"""A GlitchTip in this process, and SDKs that send to it: time is a number that waiting moves on."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from unit.ops_support import container

from glitchtip_api import GlitchTipError
from glitchtip_ops.docker_stack import Container, parse_container
from glitchtip_ops.local_test.expectations import EXPECTATIONS, Expectation
from glitchtip_ops.local_test.judging import Raised
from glitchtip_ops.local_test.running import LocalTest, Uptime
from glitchtip_ops.local_test.sending import Sent
from glitchtip_ops.local_test.target import Limits, Target

SCRIPTS = Path(__file__).parents[3] / "roles/local_test/files"
KEY = "d" * 32
TARGET = Target("http://127.0.0.1:9", "ai-admin", "ai-admin", "t" * 64, f"http://{KEY}@127.0.0.1:9/1")
RAISED = Raised("scenarios.cjs", "make", 30, "throw new Error('x');")


def by_name(scenario: str) -> Expectation:
    return next(item for item in EXPECTATIONS if item.scenario == scenario)


def stored(expected: Expectation, sdk: str = "node", event_id: str = "", group: str = "7") -> dict[str, Any]:
    """An event as ``/api/0/projects/{org}/{project}/events/{id}/`` answers it when everything was kept."""
    frame = {
        "filename": "/tmp/local-test-1/scenarios.cjs",
        "function": "make",
        "lineNo": 30,
        "colNo": 3,
        "inApp": True,
        "context": [[29, "function make() {"], [30, "  throw new Error('x');"], [31, "}"]],
    }
    loader = {"filename": "node:internal/main", "function": "load", "lineNo": 1, "colNo": 1, "inApp": False}
    exception = {"values": [{"type": "Error", "stacktrace": {"frames": [loader, frame]}}]}
    crumbs = [{"category": "console", "message": "the SDK's own", "level": "log"}]
    crumbs += [
        {"category": item.category, "message": item.message, "level": item.level}
        for item in expected.breadcrumbs
    ]
    tags = {
        **expected.tags,
        "local_test": expected.scenario,
        "local_test_sdk": sdk,
        "environment": "local-test",
        "release": "local-test@1",
    }
    return copy.deepcopy(
        {
            "eventID": event_id,
            "title": expected.title,
            "groupID": group,
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
            "context": {**expected.extra, "sys.argv": ["x"]},
            "user": dict(expected.user) or None,
            "entries": [
                {"type": "breadcrumbs", "data": {"values": crumbs}},
                *([{"type": "exception", "data": exception}] if expected.stack else []),
            ],
        }
    )


class Clock:
    """Wall time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Immediate:
    """An executor that does at once what it is given: time stands still while an SDK sends."""

    def __init__(self, max_workers: int = 1) -> None:
        assert max_workers > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(self, call: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return [call(item) for item in items]


class Tracker:
    """Shows an event ``delay`` seconds after it was sent; those in ``lost`` never. ``requests`` counts the API's."""

    def __init__(self, clock: Clock, delay: float = 2.0) -> None:
        self.clock = clock
        self.delay = delay
        self.delays: dict[str, float] = {}
        self.sent: dict[str, tuple[float, dict[str, Any]]] = {}
        self.lost: set[str] = set()
        self.levels: dict[str, str] = {}
        self.requests: list[str] = []
        self.projects = SimpleNamespace(get=lambda *_: {"id": "1"})
        self.keys = SimpleNamespace(list=lambda *_: [{"public": KEY}])
        self.issues = SimpleNamespace(get=lambda _: {"level": "info"})
        self.events = SimpleNamespace(get=self._get, iterate=self._iterate)
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def version(self) -> str:
        return "5.2.0"

    def take(self, event_id: str, scenario: str, sdk: str, group: str = "") -> None:
        expected = by_name(scenario) if scenario != "burst" else EXPECTATIONS[0]
        event = stored(expected, sdk, event_id, group or f"{sdk} {scenario}")
        self.levels[event_id] = expected.level
        with self.lock:
            self.sent[event_id] = (self.clock(), event)

    def _visible(self) -> list[dict[str, Any]]:
        with self.lock:
            there = list(self.sent.items())
        return [
            event
            for event_id, (at, event) in there
            if event_id not in self.lost and self.clock() >= at + self.delays.get(event_id, self.delay)
        ]

    def _get(self, _: str, __: str, event_id: str) -> dict[str, Any] | None:
        self.requests.append("one")
        return next((event for event in self._visible() if event["eventID"] == event_id), None)

    def _iterate(self, *_: str) -> Iterator[dict[str, Any]]:
        for number, event in enumerate(reversed(self._visible())):
            if number % 100 == 0:
                self.requests.append("page")
            yield event

    def get(self, path: str, params: Any = None) -> Any:
        if params:
            return self._visible()[-1:]
        return {"level": self.levels[path.rstrip("/").split("/")[-2]]}


class Sdk:
    """An SDK in this process. ``lose`` picks positions of a burst to lose, ``refuse`` those answered by nothing."""

    def __init__(self, tracker: Tracker, name: str = "node", **options: Any) -> None:
        self.tracker = tracker
        self.name = name
        self.lose: Sequence[int] = options.get("lose", ())
        self.refuse: Sequence[int] = options.get("refuse", ())
        self.delayed: dict[int, float] = options.get("delayed", {})
        self.trace: int | None = options.get("trace", 200)
        self.complete: bool = options.get("complete", True)
        self.split: bool = options.get("split", False)
        self.merge: bool = options.get("merge", False)
        self.error: Exception | None = options.get("error")
        self.checked = False

    def check(self) -> None:
        self.checked = True

    def send(self, items: Any, burst: Sequence[str]) -> Sent:
        if self.error:
            raise self.error
        tracker, now = self.tracker, self.tracker.clock()
        status: dict[str, int | None] = {}
        for number, item in enumerate(items):
            group = f"{self.name} {number}" if self.split else "all" if self.merge else ""
            tracker.take(item["event_id"], item["scenario"], self.name, group)
            status[item["event_id"]] = 200
        for position, event_id in enumerate(burst):
            status[event_id] = None if position in self.refuse else 200
            if position in self.refuse:
                continue
            if position in self.delayed:
                tracker.delays[event_id] = self.delayed[position]
            if position in self.lose:
                tracker.lost.add(event_id)
            tracker.take(event_id, "burst", self.name)
        at = dict.fromkeys(status, now)
        answered = dict.fromkeys(status, now + 1.0)
        raised = dict.fromkeys(status, RAISED)
        return Sent(
            self.name, "1.0", at, status, answered, raised, int(bool(items)), self.trace, self.complete
        )


class Stack:
    """Containers without an engine; ``mib`` what they use, sample after sample (the last one stays)."""

    docker = "docker"

    def __init__(self, *mib: float) -> None:
        self.mib = list(mib) or [300.0]
        self.listed = 0
        self.restart_after = 10**9

    def containers(self) -> list[Container]:
        self.listed += 1
        changes = {"RestartCount": 1} if self.listed > self.restart_after else {}
        return [parse_container(container("web", **changes))]

    def memory_used(self, _: Sequence[Container]) -> dict[str, int]:
        mib = self.mib.pop(0) if len(self.mib) > 1 else self.mib[0]
        return {"glitchtip-web-1": int(mib * 2**20)}


class Run(LocalTest):
    """The whole test against a Tracker."""

    def __init__(
        self,
        tracker: Tracker,
        senders: Sequence[Sdk],
        stack: Stack | None = None,
        uptime: Uptime | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(
            TARGET,
            senders,
            stack=stack,  # type: ignore[arg-type]
            uptime=uptime,
            limits=limits or Limits(latency=5, stack_mib=500, patience=20, grace=10),
            clock=tracker.clock,
            sleep=tracker.clock.sleep,
        )
        self.tracker = tracker

    def client(self) -> Any:
        return self.tracker


def refused(status: int, detail: str = "no") -> GlitchTipError:
    return GlitchTipError("POST", "/api/0/x/", status, "refused", detail)
