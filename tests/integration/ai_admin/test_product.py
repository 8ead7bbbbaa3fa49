"""The sample product on its real SDK, against an ingest endpoint that the tests script (node, npm)."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ai_admin.ledger import Ledger, read_ledger

ROOT = Path(__file__).parents[3]
PRODUCT = ROOT / "tests/ai_admin"
SCENARIOS = ROOT / "roles/local_test/files/scenarios.cjs"
KEY = "0123456789abcdef0123456789abcdef"
EMITTING = {
    "src/index.js": "database",
    "src/workers/index-v2.js": "repository",
    "src/services/telegram-bot.js": "yclients",
    "src/services/booking-monitor.js": "booking-monitor",
    "src/services/baileys-whatsapp.js": "whatsapp",
}
SILENT = ("src/services/whatsapp-backup.js", "src/services/whatsapp-safe-monitor.js")


class Ingest:
    """Takes envelopes; ``answer`` decides the status, ``before`` sees each event before it is answered."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.types: list[str] = []
        self.answer: Callable[[dict[str, Any]], int] = lambda _: 200
        self.before: Callable[[dict[str, Any]], None] = lambda _: None
        ingest = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                status = ingest.take(self.body())
                answer = b"{}"
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def body(self) -> bytes:
                """The SDK streams its envelope: chunked, and compressed when it is large."""
                body = b""
                if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.dsn = f"http://{KEY}@127.0.0.1:{self.server.server_port}/1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, body: bytes) -> int:
        lines = body.split(b"\n")
        kinds = [json.loads(item)["type"] for item in lines[1::2] if item.startswith(b'{"type"')]
        self.types += kinds
        if "event" not in kinds:
            return 200
        event = json.loads(lines[2])
        self.before(event)
        self.events.append(event)
        return self.answer(event)


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    server = Ingest()
    yield server
    server.server.shutdown()
    server.server.server_close()


class Product:
    """Services of one installed product, each a process as PM2 would start it."""

    def __init__(self, app: Path, state: Path, dsn: str) -> None:
        self.app = app
        self.ledger_file = state / "ledger.jsonl"
        self.processes: list[subprocess.Popen[str]] = []
        (app / ".env").write_text(
            f"SENTRY_DSN={dsn}\nSENTRY_ENABLED=true\nNODE_ENV=production\nSENTRY_TRACES_SAMPLE_RATE=1\n"
            "SENTRY_PROFILES_SAMPLE_RATE=1\nDATABASE_PORT=1\nPORT=0\nAI_ADMIN_EVENT_INTERVAL_MS=100\n"
            f"AI_ADMIN_LEDGER={self.ledger_file}\nAI_ADMIN_SPOOL={state / 'spool'}\n"
        )

    def start(self, script: str, service: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["node", script],
            cwd=self.app,
            env={"PATH": os.environ["PATH"], "name": service, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def ledger(self) -> Ledger:
        return read_ledger(self.ledger_file)

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def product(installed: Path, tmp_path: Path, ingest: Ingest) -> Iterator[Product]:
    running = Product(installed, tmp_path, ingest.dsn)
    yield running
    running.stop()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} within {seconds} s"
        time.sleep(0.05)


def test_the_lock_file_names_no_registry() -> None:
    """Exact versions, and no host that a package was fetched from."""
    package = json.loads((PRODUCT / "package.json").read_text())
    lock = json.loads((PRODUCT / "package-lock.json").read_text())
    assert all(version[0].isdigit() for version in package["dependencies"].values())
    assert package["dependencies"]["@sentry/node"] == "10.24.0"
    assert all("resolved" not in entry for entry in lock["packages"].values())
    for name, version in package["dependencies"].items():
        assert lock["packages"][f"node_modules/{name}"]["version"] == version


def test_an_id_is_in_the_ledger_before_the_tracker_hears_of_it(product: Product, ingest: Ingest) -> None:
    """For every event of every emitting service; with its tags, its own context, and the service's name."""
    unknown: list[str] = []

    def look(event: dict[str, Any]) -> None:
        if event["event_id"] not in product.ledger().captured:
            unknown.append(event["event_id"])

    ingest.before = look
    processes = [product.start(script, f"svc-{part}") for script, part in EMITTING.items()]
    expected = {f"svc-{part}" for part in EMITTING.values()}
    wait_until(
        lambda: {event["tags"]["service"] for event in list(ingest.events)} >= expected, "every service emits"
    )
    for process in processes:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(10) for process in processes] == [0] * len(processes)
    assert unknown == []
    for event in ingest.events:
        assert set(event["tags"]) >= {"service", "component", "operation", "backend"}
        assert event["extra"]
        frames = event["exception"]["values"][-1]["stacktrace"]["frames"]
        assert frames[-1]["lineno"] > 0
    assert {event["tags"]["component"] for event in ingest.events} >= set(EMITTING.values())
    assert "transaction" in ingest.types
    ledger = product.ledger()
    assert ledger.unanswered == set()
    assert ledger.acknowledged_by("127.0.0.1") == {event["event_id"] for event in ingest.events}


def test_only_2xx_is_an_acknowledgement(product: Product, ingest: Ingest) -> None:
    """Every other answer is refused, with its status."""
    statuses = iter([200, 500, 403] * 1000)
    answers: dict[str, int] = {}

    def answer(event: dict[str, Any]) -> int:
        answers[event["event_id"]] = next(statuses)
        return answers[event["event_id"]]

    ingest.answer = answer
    process = product.start("src/services/booking-monitor.js", "ai-admin-booking-monitor")
    wait_until(lambda: len(answers) >= 9, "nine answers")
    process.terminate()
    assert process.wait(10) == 0
    ledger = product.ledger()
    assert ledger.acknowledged.keys() == {key for key, status in answers.items() if status == 200}
    assert {key: entry.status for key, entry in ledger.refused.items()} == {
        key: status for key, status in answers.items() if status != 200
    }


def test_nobody_there_is_refused_without_a_status(product: Product, ingest: Ingest) -> None:
    """A tracker that cannot be reached neither stops the service nor counts as an answer."""
    process = product.start(
        "src/services/booking-monitor.js",
        "ai-admin-booking-monitor",
        SENTRY_DSN=f"http://{KEY}@127.0.0.1:1/1",
    )
    wait_until(lambda: product.ledger_file.exists() and len(product.ledger().refused) >= 2, "two refusals")
    process.terminate()
    assert process.wait(10) == 0
    assert {entry.status for entry in product.ledger().refused.values()} == {None}
    assert product.ledger().acknowledged == {}
    assert ingest.events == []


def test_the_environment_wins_over_the_env_file(product: Product, ingest: Ingest) -> None:
    """dotenv does not override: what PM2 carries in its environment stays in force, whatever .env says."""
    other = Ingest()
    process = product.start(
        "src/services/booking-monitor.js", "ai-admin-booking-monitor", SENTRY_DSN=other.dsn
    )
    wait_until(lambda: len(other.events) > 0, "an event at the other tracker")
    process.terminate()
    assert process.wait(10) == 0
    assert ingest.events == []


def test_silent_services_emit_nothing_and_end_well(product: Product, ingest: Ingest) -> None:
    """Two wait, the job ends by itself; none writes the ledger."""
    job = product.start("src/services/batch-processor.js", "ai-admin-batch-processor")
    waiting = [product.start(script, "silent") for script in SILENT]
    assert job.wait(20) == 0
    for process in waiting:
        assert process.stdout is not None
        assert "running" in process.stdout.readline()
        process.terminate()
        assert process.wait(10) == 0
    assert ingest.events == []
    assert not product.ledger_file.exists()


def test_the_job_reports_what_it_cannot_read(product: Product, ingest: Ingest, tmp_path: Path) -> None:
    """Even a job that is over in a second sends its error before it ends."""
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "1.json").write_text("{")
    assert product.start("src/services/batch-processor.js", "ai-admin-batch-processor").wait(20) == 1
    assert [event["tags"]["component"] for event in ingest.events] == ["batch-processor"]
    assert product.ledger().acknowledged.keys() == {ingest.events[0]["event_id"]}


def test_tracking_can_be_off(product: Product, ingest: Ingest) -> None:
    """SENTRY_ENABLED=false: the service works, nothing is sent, nothing is written down."""
    process = product.start("src/services/booking-monitor.js", "x", SENTRY_ENABLED="false")
    assert process.stdout is not None
    assert process.stderr is not None
    assert "running" in process.stdout.readline()
    assert "BookingMonitorError" in process.stderr.readline()
    process.terminate()
    assert process.wait(10) == 0
    assert (ingest.events, product.ledger_file.exists()) == ([], False)


@pytest.mark.usefixtures("product")
def test_the_ecosystem_has_the_eight_services(installed: Path, ingest: Ingest) -> None:
    """Their scripts, the job that ends, and the DSN in PM2's environment for the asked one alone."""
    code = "console.log(JSON.stringify(require('./ecosystem.config.js').apps))"

    def apps(carrier: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "AI_ADMIN_DSN_IN_PM2_ENV": carrier}
        return subprocess.run(
            ["node", "-e", code], cwd=installed, env=environment, capture_output=True, text=True, check=False
        )

    plain = {app["name"]: app for app in json.loads(apps("").stdout)}
    assert len(plain) == 8
    assert all((installed / app["script"]).is_file() for app in plain.values())
    assert not any("env" in app for app in plain.values())
    jobs = {name for name, app in plain.items() if app.get("cron_restart")}
    assert jobs == {"ai-admin-batch-processor"}
    assert plain["ai-admin-batch-processor"]["autorestart"] is False
    carrying = {app["name"]: app.get("env") for app in json.loads(apps("whatsapp-safe-monitor").stdout)}
    assert carrying.pop("whatsapp-safe-monitor") == {"SENTRY_DSN": ingest.dsn}
    assert set(carrying.values()) == {None}
    assert "is not a service" in apps("nobody").stderr


def test_the_scenarios_of_the_local_test_keep_their_ids(installed: Path, ingest: Ingest) -> None:
    """Messages too; nested context leaves the SDK whole; a burst larger than the SDK's buffer is not cut."""
    names = ["sdk-level-warning", "sdk-extra", "pattern-booking-monitor"]
    items = [{"scenario": name, "event_id": uuid.uuid4().hex} for name in names]
    burst = [uuid.uuid4().hex for _ in range(150)]
    order = json.dumps({"app_dir": str(installed), "items": items, "burst": burst})
    done = subprocess.run(
        ["node", str(SCENARIOS)],
        input=order,
        env={"PATH": os.environ["PATH"], "LOCAL_TEST_DSN": ingest.dsn},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    events = {event["event_id"]: event for event in ingest.events}
    assert events.keys() == {item["event_id"] for item in items} | set(burst)
    warning, extra, booking = (events[item["event_id"]] for item in items)
    assert warning["level"] == "warning"
    assert extra["extra"]["order"]["lines"][0]["price"] == {"amount": 12.5, "currency": "EUR"}
    assert booking["extra"]["booking"]["client"]["visits"][0]["services"][0]["price"] == {"amount": 1500}
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(1 for line in printed if line.get("status") == 200) == len(events)
    assert printed[-1]["transaction_status"] == 200
