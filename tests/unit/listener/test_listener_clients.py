"""Every client of root's tools asks who listens before it sends a token; with the check off the squatter hears it."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.listener.support import (
    ROOT,
    TOKEN,
    Squatter,
    needs_root,
)

import glitchtip_ops
from glitchtip_api import Client, GlitchTipError, connections
from glitchtip_cutover import api
from glitchtip_cutover.api import Tracker
from glitchtip_cutover.config import Side
from glitchtip_cutover.errors import CutoverError

pytestmark = needs_root


# --- every client of root's tools ---------------------------------------------------------------------------


def ask_api(port: int, _: Path) -> str:
    """The operator tools' client."""
    with (
        pytest.raises(GlitchTipError) as failed,
        Client(f"http://127.0.0.1:{port}", TOKEN, retries=0) as client,
    ):
        client.organizations.list()
    return str(failed.value)


def ask_cutover(port: int, root: Path) -> str:
    """The client of the switch."""
    (root / "token").write_text(TOKEN)
    (root / "token").chmod(0o600)
    side: Any = Side.__new__(Side)
    given = {"name": "new", "api_url": f"http://127.0.0.1:{port}", "organization": "o", "project": "p"}
    for name, value in {**given, "token_file": root / "token"}.items():
        object.__setattr__(side, name, value)
    with pytest.raises(CutoverError) as failed:
        Tracker(side, sleep=lambda _: None).project_id()
    return str(failed.value)


def ask_module(name: str) -> Callable[..., str]:
    """A module of ``library/``, as Ansible runs it: under the names of module_utils."""
    given: dict[str, dict[str, Any]] = {
        "glitchtip_info": {"kind": "organization", "token": TOKEN},
        "glitchtip_team": {"organization": "o", "slug": "s", "token": TOKEN},
        "glitchtip_token": {
            "email": "a@example.org",
            "password": TOKEN,
            "label": "x",
            "scopes": ["org:read"],
        },
        "glitchtip_event": {
            "token": TOKEN,
            "dsn": "http://" + TOKEN[:32] + "@127.0.0.1:{port}/1",
            "organization": "o",
            "project": "p",
            "message": "m",
        },
    }

    def ask(port: int, _: Path, run: Callable[..., Any]) -> str:
        options = {
            key: value.format(port=port) if isinstance(value, str) else value
            for key, value in given[name].items()
        }
        return str(run(name, url=f"http://127.0.0.1:{port}", timeout=3, **options)["msg"])

    return ask


MODULES = ("glitchtip_info", "glitchtip_team", "glitchtip_token", "glitchtip_event")
CLIENTS = {"operator tools": ask_api, "switch": ask_cutover}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_squatter_hears_nothing(squat: Callable[..., Squatter], tmp_path: Path, client: str) -> None:
    squatter = squat()
    said = CLIENTS[client](squatter.port, tmp_path)
    assert squatter.heard(0.3) == b""
    assert re.search(
        rf"127\.0\.0\.1:{squatter.port} is not served by GlitchTip: process {squatter.pid} \(\S+\) of user nobody \(uid 65534\) "
        r"listens there\. Nothing was sent",
        said,
    ), said
    assert TOKEN not in said


@pytest.mark.parametrize("client", CLIENTS)
def test_with_the_check_off_the_squatter_is_sent_the_token(
    squat: Callable[..., Squatter], tmp_path: Path, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above."""
    monkeypatch.setattr(connections, "guard", None)
    monkeypatch.setattr(api, "require_expected", lambda *_: None)
    squatter = squat()
    CLIENTS[client](squatter.port, tmp_path)
    assert TOKEN.encode() in squatter.heard()


@pytest.mark.parametrize("name", MODULES)
def test_a_module_of_ansible_sends_a_squatter_nothing(
    squat: Callable[..., Squatter], tmp_path: Path, name: str, run_host_module: Callable[..., Any]
) -> None:
    squatter = squat()
    said = ask_module(name)(squatter.port, tmp_path, run_host_module)
    assert squatter.heard(0.3) == b""
    assert "is not served by GlitchTip" in said


def test_with_the_check_off_a_module_sends_the_token(
    squat: Callable[..., Squatter],
    tmp_path: Path,
    run_host_module: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control of the test above."""
    importlib.import_module("glitchtip_info")
    there = importlib.import_module("ansible.module_utils.glitchtip_api.connections")
    assert there.guard is not None
    monkeypatch.setattr(there, "guard", None)
    squatter = squat()
    with contextlib.suppress(KeyError):
        ask_module("glitchtip_info")(squatter.port, tmp_path, run_host_module)
    assert TOKEN.encode() in squatter.heard()


def test_every_module_and_command_that_makes_a_client_has_the_check() -> None:
    """Where the check is set: with the package of the tools, and in what every module imports."""
    assert glitchtip_ops.connections.guard is not None
    makes = re.compile(r"\b(Client|Transport|login|log_in|configure|describe|client_for|run)\(")
    modules = [
        path for path in sorted((ROOT / "library").glob("glitchtip_*.py")) if makes.search(path.read_text())
    ]
    assert len(modules) > 8
    for path in modules:
        assert "glitchtip_api.ansible_support import" in path.read_text(), path.name
