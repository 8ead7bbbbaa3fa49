"""Entries of the desired state, with every key present as the modules give them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from desired_state import filled

ROOT = Path(__file__).resolve().parents[3]


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


@pytest.fixture(scope="session")
def filters() -> Any:
    """The module of the role's filters."""
    path = ROOT / "filter_plugins/configuration.py"
    spec = importlib.util.spec_from_file_location("configuration_filters", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def loaded() -> Callable[[dict[str, str], Path], Any]:
    """What a playbook sees of the two files, which are written into a directory."""

    def of(files: dict[str, str], directory: Path) -> Any:
        loader, variables = DataLoader(), {}
        for name, text in files.items():
            (directory / f"{name}.yml").write_text(text)
            variables |= loader.load_from_file(str(directory / f"{name}.yml"), trusted_as_template=True)
        return Templar(loader=loader, variables=variables).template(variables["configuration_organizations"])

    return of
