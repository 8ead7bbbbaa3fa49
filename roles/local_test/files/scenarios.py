"""Captures test errors with Sentry's SDK for Python: the scenarios of scenarios.cjs, word for word.

In: on standard input one JSON object {"items": [{"scenario", "event_id"}], "burst": [event ids]}; the DSN in the
environment as LOCAL_TEST_DSN. Out: the JSON lines that scenarios.cjs describes. Exit code 1 with one sentence
where the SDK cannot be loaded.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import sentry_sdk
    import sentry_sdk.serializer
    from sentry_sdk.transport import HttpTransport
except ImportError as missing:
    sys.exit(f"No module named {missing.name!r}: install sentry-sdk into the Python {sys.executable}")

CLOSE_TIMEOUT = 120.0
_LOCK = threading.Lock()


class LocalTestError(Exception):
    """An error of the SDK scenarios."""


class Error(Exception):
    """What Node.js calls every plain error."""


class UniqueViolation(Exception):  # noqa: N818 - the name that PostgreSQL's drivers give it
    """A row that is there already."""


class SessionError(Exception):
    """A session that ended."""


class ServiceError(Exception):
    """A service that did not do what it was asked."""


class JobError(Exception):
    """A job of the queue that failed."""


class BurstError(Exception):
    """One of many."""


Scope = Any


def tell(line: dict[str, Any]) -> None:
    """Print one line of JSON at once; the transport's thread tells too."""
    with _LOCK:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def basic_error(_: Scope) -> str:
    """Nothing but an error."""
    raise LocalTestError("local test: basic error")


def with_user(scope: Scope) -> str:
    """An error of a user."""
    scope.set_user({"id": "4711", "email": "user@example.org", "username": "local-test-user"})
    raise LocalTestError("local test: with a user")


def with_breadcrumbs(scope: Scope) -> str:
    """An error after three steps."""
    scope.add_breadcrumb({"category": "auth", "message": "user signed in", "level": "info"})
    scope.add_breadcrumb({"category": "query", "message": "select bookings", "level": "debug"})
    scope.add_breadcrumb({"category": "queue", "message": "reminder queued", "level": "warning"})
    raise LocalTestError("local test: with breadcrumbs")


def with_nested_extra(scope: Scope) -> str:
    """An error with an object in a list in an object."""
    price = {"amount": 12.5, "currency": "EUR"}
    scope.set_extra("order", {"id": 7, "lines": [{"sku": "A-1", "price": price}]})
    raise LocalTestError("local test: with nested extra")


def warning_message(scope: Scope) -> str:
    """No error: the text of a message, of level warning."""
    scope.set_level("warning")
    return "local test: a warning message"


def connect_database(scope: Scope) -> str:
    """The database refuses the connection."""
    scope.set_tags({"component": "database", "operation": "connect", "backend": "postgresql"})
    for key, value in {"host": "192.0.2.10", "port": 5432, "database": "ai_admin", "attempt": 3}.items():
        scope.set_extra(key, value)
    raise Error("local test: connect ECONNREFUSED 192.0.2.10:5432")


def insert_client(scope: Scope) -> str:
    """A repository inserts what is there already."""
    scope.set_tags({"component": "repository", "operation": "insert", "backend": "postgresql"})
    scope.set_extra("filters", {"company_id": 12})
    scope.set_extra("data", {"name": "Example", "visits": 3})
    raise UniqueViolation('local test: duplicate key value violates unique constraint "clients_phone_key"')


def send_whatsapp(scope: Scope) -> str:
    """The WhatsApp session has ended."""
    scope.set_tags({"component": "whatsapp", "subcomponent": "session", "companyId": "12"})
    scope.set_extra("connection", {"state": "expired", "reconnects": 4})
    raise SessionError("local test: WhatsApp session expired")


def synchronise_booking(scope: Scope) -> str:
    """The booking monitor fails, with a booking many levels deep."""
    scope.set_tags({"component": "booking-monitor", "operation": "synchronise"})
    services = [{"id": 1, "price": {"amount": 1500}}]
    visits = [{"at": "2026-01-01T10:00:00Z", "services": services}]
    scope.set_extra("booking", {"id": 99, "client": {"name": "Example", "visits": visits}})
    raise ServiceError("local test: booking could not be synchronised")


def process_job(scope: Scope) -> str:
    """A job fails and will be tried again."""
    scope.set_tags({"component": "queue", "queue": "messages"})
    scope.set_extra("jobId", "job-31")
    scope.set_extra("queue", "messages")
    scope.set_extra("retry", {"attempt": 2, "of": 5, "delayMs": 4000})
    raise JobError("local test: job failed, will be retried")


def burst(_: Scope) -> str:
    """One of many."""
    raise BurstError("local test: burst")


SCENARIOS: dict[str, Callable[[Scope], str]] = {
    "sdk-basic-error": basic_error,
    "sdk-user": with_user,
    "sdk-breadcrumbs": with_breadcrumbs,
    "sdk-extra": with_nested_extra,
    "sdk-level-warning": warning_message,
    "pattern-database": connect_database,
    "pattern-repository": insert_client,
    "pattern-whatsapp": send_whatsapp,
    "pattern-booking-monitor": synchronise_booking,
    "pattern-queue-job": process_job,
}


class Telling(HttpTransport):  # type: ignore[misc]
    """The SDK's own transport, which also tells how each envelope was answered."""

    transaction_status: int | None = None

    def _handle_response(self, response: Any, envelope: Any) -> None:
        self._answered(envelope, response.status)
        super()._handle_response(response, envelope)

    def _send_request(self, *arguments: Any, **named: Any) -> None:
        try:
            super()._send_request(*arguments, **named)
        except Exception:
            self._answered(named.get("envelope"), None)
            raise

    def _answered(self, envelope: Any, status: int | None) -> None:
        for item in envelope.items if envelope is not None else ():
            if item.headers.get("type") == "transaction":
                self.transaction_status = status
            elif item.headers.get("type") == "event":
                event_id = envelope.headers["event_id"]
                tell({"event_id": event_id, "status": status, "answered_at": time.time() * 1000})


def origin(error: BaseException) -> dict[str, Any]:
    """Where the interpreter says that an error was raised: file (its last part), function and line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return {"file": Path(frame.filename).name, "function": frame.name, "line": frame.lineno}


def capture(scenario: str, event_id: str, make: Callable[[Scope], str]) -> None:
    """Run a scenario in a scope of its own and capture what it raises or returns under ``event_id``."""
    with sentry_sdk.new_scope() as scope:
        scope.set_tag("local_test", scenario)
        scope.set_tag("local_test_sdk", "python")
        # capture_exception takes no id; the last processor of the scope may give one.
        scope.add_event_processor(lambda event, _: {**event, "event_id": event_id})
        started = {"scenario": scenario, "event_id": event_id}
        try:
            message = make(scope)
        except Exception as error:
            tell({**started, "sent_at": time.time() * 1000})
            tell({"event_id": event_id, "raised": origin(error)})
            sentry_sdk.capture_exception(error)
        else:
            tell({**started, "sent_at": time.time() * 1000})
            sentry_sdk.capture_message(message)


def main() -> None:
    """Capture what standard input asks for and wait until the SDK has handed it over."""
    order = json.load(sys.stdin)
    tell({"sdk": "sentry-sdk", "version": sentry_sdk.VERSION})
    # The SDK cuts extra below its fifth level, without an option; here the tracker is to show what it keeps.
    sentry_sdk.serializer.MAX_DATABAG_DEPTH = 10
    sentry_sdk.init(
        dsn=os.environ["LOCAL_TEST_DSN"],
        environment="local-test",
        release="local-test@1",
        traces_sample_rate=1.0,
        transport=Telling,
        # The SDK drops what exceeds 100 waiting events by default; here each of the burst is to leave.
        transport_queue_size=10_000,
    )
    with sentry_sdk.start_transaction(name="local test", op="test"):
        for item in order["items"]:
            capture(item["scenario"], item["event_id"], SCENARIOS[item["scenario"]])
        for event_id in order["burst"]:
            capture("burst", event_id, burst)
    client = sentry_sdk.get_client()
    client.flush(timeout=CLOSE_TIMEOUT)
    transport = client.transport
    complete = transport._worker._queue.qsize() == 0
    tell({"profiles": 0, "transaction_status": transport.transaction_status, "complete": complete})
    # The SDK's thread would go on sending at the interpreter's end.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # one sentence, whatever the SDK raises
        sys.exit(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}")
