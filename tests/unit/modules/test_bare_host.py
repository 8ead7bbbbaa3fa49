"""Check mode where nothing is there yet: every example of every module foresees its change instead of failing."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from module_examples import MODULES, SECRETS, rendered, run_tasks, tasks

LIBRARY = Path(__file__).resolve().parents[3] / "library"
#: Modules that only read or only prove.
READ_ONLY = {"glitchtip_info", "glitchtip_configuration_info", "glitchtip_event"}


def test_the_examples_of_every_module_are_run():
    assert sorted(MODULES) == sorted(path.stem for path in LIBRARY.glob("glitchtip_*.py"))


@pytest.fixture
def nobody():
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def assert_every_change_is_foreseen(run_module, url, token):
    variables = {"server_url": url, "glitchtip_token": token, "glitchtip_admin_password": "canary"}
    for name, (module, result) in run_tasks(run_module, variables, check=True).items():
        # nobody is a member of what is not there, and an empty structure has nothing to change
        same = module in READ_ONLY or name in ("Nobody of that address", "The same again changes nothing")
        assert result["changed"] is not same, name
        assert "canary" not in str(result), name


@pytest.mark.parametrize("token", ["", "canary-token"])
def test_check_mode_on_a_bare_host_foresees_every_change(run_module, nobody, token):
    assert_every_change_is_foreseen(run_module, nobody, token)


def test_check_mode_foresees_every_change_on_a_server_for_which_there_is_no_token_yet(run_module, glitchtip):
    assert_every_change_is_foreseen(run_module, glitchtip.url, "")
    assert glitchtip.writes == []


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"glitchtip_event"}))
def test_a_server_that_answers_nonsense_is_a_failure_in_check_mode_too(run_module, scripted_server, name):
    """Only what is not there yet is forgiven."""
    scripted_server.answer = lambda _asked: type(scripted_server.then().replies.pop())(
        200, raw=b"<!doctype html><h1>Welcome</h1>", content_type="text/html"
    )
    variables = {
        **SECRETS,
        "server_url": scripted_server.url,
        "glitchtip_token": "canary-token",
        "glitchtip_admin_password": "canary",
    }
    first = next(task for task in tasks() if name in task)
    failed = run_module(name, _check=True, **rendered(first[name], variables))
    assert failed["failed"] is True
    assert "text/html where JSON was due" in failed["msg"]
    assert "canary" not in str(failed)
    assert {asked.method for asked in scripted_server.asked} == {"GET"}
