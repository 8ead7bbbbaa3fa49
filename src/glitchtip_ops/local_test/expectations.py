"""What the stored event of each scenario must show: the same for every SDK."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

REPEATED = "sdk-basic-error"
ENVIRONMENT = "local-test"
RELEASE = "local-test@1"


@dataclass(frozen=True)
class Crumb:
    """One breadcrumb."""

    category: str
    message: str
    level: str


@dataclass(frozen=True)
class Expectation:
    """One scenario. What is empty is not asked; the order of ``breadcrumbs`` is."""

    scenario: str
    title: str
    level: str = "error"
    tags: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    user: Mapping[str, str] = field(default_factory=dict)
    breadcrumbs: tuple[Crumb, ...] = ()
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
        breadcrumbs=(
            Crumb("auth", "user signed in", "info"),
            Crumb("query", "select bookings", "debug"),
            Crumb("queue", "reminder queued", "warning"),
        ),
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
        extra={"connection": {"state": "expired", "reconnects": 4}},
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
