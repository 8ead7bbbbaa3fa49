"""Pages of soaks that went well and badly, and one browser for all tests."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from integration.report.browser import Browser, chromium
from unit.ops_soak import MIB, PM2, START, long_run, make_plan

from glitchtip_core.files import write_object
from glitchtip_ops.report import html_report, read_report
from glitchtip_ops.soak.running import conclude
from glitchtip_ops.soak.store import SoakFiles

HOSTILE = '<img src=x onerror="alert(1)"><script>console.error("ran")</script>&amp;\u202egnp.exe'
TAG = "</td></table></svg><style>*{display:none}</style>"


@dataclass
class Door:
    """The proxy that the browser is given: it lets nothing out and notes every attempt."""

    port: int
    attempts: list[bytes] = field(default_factory=list)

    def of_pages(self) -> list[bytes]:
        """First lines of what was asked but for the browser's own errands (time, updates) at its maker's."""
        lines = [attempt.split(b"\r\n")[0] for attempt in self.attempts]
        return [line for line in lines if not re.search(rb"\.(google|googleapis|gvt1)\.com[:/]", line)]


@pytest.fixture(scope="session")
def door() -> Iterator[Door]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Door(listener.getsockname()[1])

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(2)
                    found.attempts.append(connection.recv(300))

        threading.Thread(target=answer, daemon=True).start()
        yield found


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory, door: Door) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("browser"), f"http://127.0.0.1:{door.port}") as found:
        yield found


def made(
    directory: Path, samples: list[dict[str, Any]], parity: dict[str, Any] | None = None, **plan: Any
) -> Path:
    """The page of a soak that had these samples."""
    files = SoakFiles(directory)
    ordered = make_plan(mode="mirror", host="vps-1", versions={"GlitchTip": "5.2.0"}, **plan)
    files.write_plan(ordered)
    for sample in samples:
        files.add(sample)
    if parity:
        write_object(files.parity, parity)
    now = START + timedelta(seconds=ordered.duration + 1)
    conclude(files, ordered, now)
    page = directory / "report.html"
    page.write_text(html_report(read_report(files, ordered, now)))
    return page


@pytest.fixture(scope="session")
def good_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hours that went well."""
    samples = list(long_run(7200, 60))
    return made(tmp_path_factory.mktemp("good"), samples, duration=7200.0, interval=60.0)


def parity_of(title: str) -> dict[str, Any]:
    """A comparison with one issue of that title."""
    fields = [{"field": "exception_type", "result": "equal"}, {"field": title, "result": "different"}]
    row = {
        "title": title,
        "sentry": {"issues": ["1"], "events": 10},
        "glitchtip": {"issues": ["2"], "events": 9},
        "missing_in_glitchtip": 1,
        "grouping": "one_to_one",
        "fields": fields,
    }
    side = {"project": f"ai-admin/{title}", "issues": 1, "events": 10}
    return {
        "migration_id": "m1",
        "verdict": "different",
        "compared_at": (START + timedelta(hours=2)).isoformat(),
        "ratio": 0.9,
        "window": {"since": "2026-01-10T06:00:00Z", "until": "2026-01-10T08:00:00Z"},
        "sentry": side,
        "glitchtip": side,
        "issues": [row],
        "not_comparable": [{"field": "fingerprint", "why": "hashes"}],
    }


@pytest.fixture(scope="session")
def bad_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hours in which everything went wrong, on a host whose names are hostile."""
    services = ("postgres", "valkey", "web", "worker", HOSTILE)
    samples = list(long_run(7200, 60, (*PM2, TAG)))
    for number, sample in enumerate(samples):
        extra = {**sample["containers"][0], "service": HOSTILE, "id": "x", "memory": 10 * MIB}
        sample["containers"].append(extra)
        if number >= 60:
            sample["containers"][3].update(restarts=number // 40, state="running", health=HOSTILE)
            sample["pm2"][0].update(restarts=5)
        if number == 70:
            sample["containers"][2].update(state="restarting", well=False, memory=None)
            sample["errors"] = [f"PM2: {HOSTILE}"]
        if 80 <= number < 84:
            sample["probe"].update(captured=False, error=HOSTILE)
        sample["disk"].append({"path": TAG, "percent": 93.0, "free": 1})
    del samples[20:30]
    directory = tmp_path_factory.mktemp("bad")
    names = {"services": services, "pm2_services": (*PM2, TAG), "migration_id": "m1"}
    return made(directory, samples, parity_of(HOSTILE), duration=7200.0, interval=60.0, **names)
