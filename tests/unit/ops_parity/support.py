"""Two sides that are lists of events, and events as the API shows them."""

from __future__ import annotations

import copy
import uuid
from typing import Any

from glitchtip_ops.parity.comparing import Wanted, compare
from glitchtip_ops.parity.window import Window, iso

START = 1_700_000_000
WINDOW = Window(START, START + 3600)
NOW = float(START + 4000)


def event(
    number: int = 0, *, issue: str = "1", second: int = 10, title: str = "TypeError: x", **changes: Any
) -> dict[str, Any]:
    """One whole event, newest first by `second` after START."""
    found: dict[str, Any] = {
        "id": uuid.uuid5(uuid.NAMESPACE_OID, str(number)).hex,
        "groupID": issue,
        "dateCreated": iso(START + second),
        "title": title,
        "culprit": "app/orders.js in pay",
        "type": "error",
        "tags": [
            {"key": "component", "value": "database"},
            {"key": "environment", "value": "production"},
            {"key": "release", "value": "shop@1.0.0"},
        ],
        "level": "error",
        "user": {"id": "7", "email": "anna@example.org", "username": "anna", "ip_address": None},
        "context": {"attempt": 3, "nested": {"host": "db-1"}},
        "entries": [
            {
                "type": "exception",
                "data": {
                    "values": [
                        {
                            "type": "TypeError",
                            "value": "x is undefined",
                            "stacktrace": {
                                "frames": [
                                    {
                                        "filename": "node:internal",
                                        "function": "run",
                                        "lineNo": 1,
                                        "inApp": False,
                                    },
                                    {
                                        "filename": "app/orders.js",
                                        "function": "pay",
                                        "lineNo": 42,
                                        "inApp": True,
                                    },
                                ]
                            },
                        }
                    ]
                },
            },
            {
                "type": "breadcrumbs",
                "data": {
                    "values": [
                        {
                            "category": "db",
                            "message": "connect",
                            "level": "info",
                            "type": "default",
                            "data": {"n": 1},
                        },
                        {
                            "category": "db",
                            "message": "query",
                            "level": "info",
                            "type": "default",
                            "data": None,
                        },
                    ]
                },
            },
        ],
    }
    found["eventID"] = found["id"]
    found.update(changes)
    return copy.deepcopy(found)


class FakeSide:
    """A side whose events stand in a list. ``asked`` holds the ids that were asked for whole."""

    def __init__(self, name: str, events: list[dict[str, Any]]) -> None:
        self.name = name
        self.organization, self.project = "acme", "shop"
        self.client = type("Client", (), {"url": "http://192.0.2.1"})()
        self.all = sorted(events, key=lambda item: item["dateCreated"], reverse=True)
        self.asked: list[str] = []

    def check(self) -> None:
        pass

    def events(self, _window: Window) -> Any:
        yield from self.all

    def event(self, event_id: str) -> dict[str, Any] | None:
        self.asked.append(event_id)
        return next((copy.deepcopy(item) for item in self.all if item["id"] == event_id), None)


def compared(
    sentry: list[dict[str, Any]], glitchtip: list[dict[str, Any]], window: Window = WINDOW, **wanted: Any
) -> dict[str, Any]:
    """The report over two lists."""
    sides = FakeSide("Sentry", sentry), FakeSide("GlitchTip", glitchtip)
    return compare(*sides, window, Wanted(**wanted), lambda: NOW)  # type: ignore[arg-type]


def field(report: dict[str, Any], name: str, row: int = 0) -> dict[str, Any]:
    """What was found for one field of an issue."""
    return next(item for item in report["issues"][row]["fields"] if item["field"] == name)
