"""What the mirror costs: latency of the product's envelopes in each state of both trackers, and nginx's memory.

    .venv/bin/python -m bench.mirror          (with PYTHONPATH=src:tests; nginx must be installed)

Prints a Markdown table. Each row is a fresh nginx with the product's own configuration between scripted trackers on
this machine; the client opens a connection where the server closed the one before, as the SDK does.
"""

from __future__ import annotations

import gzip
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from integration.mirror.bed import KEY, NEW_KEY, NGINX, Answer, Bed, Client, Tracker, quantile

PATH = f"/api/7/envelope/?sentry_version=7&sentry_key={KEY}"
BODY = b'{"event_id":"0"}\n{"type":"event"}\n' + os.urandom(1000).hex().encode()


@dataclass(frozen=True)
class Case:
    """A row: what is different in it, and how many envelopes of which body are sent."""

    name: str
    requests: int = 200
    body: bytes = BODY
    parallel: int = 1
    keepalive: int = 0
    prepare: Callable[[Tracker, Tracker], None] = lambda _old, _new: None
    encoding: str = ""


def _slow(seconds: float) -> Callable[[Tracker, Tracker], None]:
    def prepare(_old: Tracker, new: Tracker) -> None:
        new.delay = seconds

    return prepare


def _limited(old: Tracker, _new: Tracker) -> None:
    old.status, old.headers = 429, {"Retry-After": "60"}


CASES = (
    Case("both healthy, 2 kB", requests=500),
    Case("both healthy, gzip 20 kB", body=gzip.compress(os.urandom(20_000)), encoding="gzip"),
    Case("both healthy, 5 MB", requests=5, body=os.urandom(5_000_000)),
    Case("burst, 30 at the same time", requests=600, parallel=30),
    Case("GlitchTip down", prepare=lambda _old, new: new.stop()),
    Case("GlitchTip 1 s slow", prepare=_slow(1)),
    Case("GlitchTip 10 s slow (given up after 5 s)", prepare=_slow(10)),
    Case("GlitchTip hangs, 30 at the same time", requests=600, parallel=30, prepare=_slow(60)),
    Case("Sentry answers 429", prepare=_limited),
    Case("Sentry down", prepare=lambda old, _new: old.stop()),
    Case("protection off: connections kept, GlitchTip 1 s slow", requests=5, keepalive=60, prepare=_slow(1)),
)


def direct(requests: int = 500) -> str:
    """The same envelopes straight to a tracker, to compare with."""
    tracker = Tracker()
    try:
        client = Client(tracker.port)
        return _times([client.post(BODY, PATH).seconds for _ in range(requests)])
    finally:
        tracker.close()


def measure(case: Case) -> list[str]:
    """One row: name, what the SDK got, both legs, latency, memory."""
    with Bed() as bed:
        old, new = bed.tracker(), bed.tracker()
        bed.start([("api", old.dsn(KEY, "7"), new.dsn(NEW_KEY, "3"))], keepalive=case.keepalive)
        case.prepare(old, new)
        headers = {"Content-Encoding": case.encoding} if case.encoding else {}

        def send(part: int) -> list[Answer]:
            client = Client(bed.port, keep=True)
            return [client.post(case.body, PATH, headers) for _ in range(part)]

        with ThreadPoolExecutor(case.parallel) as pool:
            groups = list(pool.map(send, [case.requests // case.parallel] * case.parallel))
        answers = [answer for group in groups for answer in group]
        peak = bed.rss()
        lines = bed.settled(2 * len(answers))
        time.sleep(0.1)
        copies = [line for line in lines if line["leg"] == "glitchtip"]
        unsent = sum(line["status"] == "503" for line in copies)
        statuses = ", ".join(
            f"{sum(answer.status == status for answer in answers)} x {status}"
            for status in sorted({answer.status for answer in answers})
        )
        taken = f"{len(new.got)} of {len(answers)}" + (f" ({unsent} not sent)" if unsent else "")
        return [
            case.name,
            statuses,
            f"{len(old.got)} of {len(answers)}",
            taken,
            _times([answer.seconds for answer in answers]),
            f"{peak / 2**20:.1f}",
        ]


def _times(seconds: list[float]) -> str:
    return " / ".join(
        f"{value * 1000:.1f}" for value in (quantile(seconds, 0.5), quantile(seconds, 0.95), max(seconds))
    )


def main() -> int:
    """Print the table; 1 when nginx is missing."""
    if not os.path.exists(NGINX):
        print("nginx is not installed; run make setup", file=sys.stderr)
        return 1
    print(
        "| state | the SDK got | reached Sentry | reached GlitchTip | p50 / p95 / max, ms | nginx, MiB PSS |"
    )
    print("|---|---|---|---|---|---|")
    print(f"| no mirror, 2 kB |  |  |  | {direct()} |  |", flush=True)
    for case in CASES:
        print(f"| {' | '.join(measure(case))} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
