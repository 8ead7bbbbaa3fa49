"""Entries of the desired state, with every key present as the modules give them."""

from __future__ import annotations

from typing import Any

import pytest
from desired_state import filled


class Nobody:
    """A client that must not be asked anything."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the client was asked for {name}")


@pytest.fixture
def nobody() -> Any:
    return Nobody()


WHOLE = [
    {
        "name": "AI Admin",
        "teams": ["backend", "ops"],
        "members": [{"email": "dev@example.org", "role": "admin", "teams": ["ops"]}],
        "projects": [
            {
                "name": "Shop API",
                "platform": "node",
                "teams": ["backend"],
                "keys": ["production"],
                "alerts": [
                    {
                        "name": "chat",
                        "quantity": 1,
                        "timespan_minutes": 5,
                        "uptime": True,
                        "recipients": [
                            {"type": "webhook", "url": "https://hooks.example.org/canary-path?token=canary"}
                        ],
                    }
                ],
            }
        ],
        "monitors": [
            {
                "name": "site",
                "type": "GET",
                "url": "https://www.example.org/",
                "expected_status": 200,
                "interval": 60,
                "timeout": 10,
                "project": "Shop API",
            }
        ],
        "status_pages": [{"name": "Status", "public": True}],
    }
]


@pytest.fixture
def whole() -> list[dict[str, Any]]:
    return filled(WHOLE)


@pytest.fixture
def fill() -> Any:
    """What Ansible makes of the option `organizations`."""
    return filled
