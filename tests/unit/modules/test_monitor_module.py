"""Module glitchtip_monitor: check, do, check again, do again; absent; bare host; what is printed."""

from __future__ import annotations

import socket
import uuid

import pytest

OPTIONS = {
    "organization": "acme",
    "name": "site",
    "type": "GET",
    "target": "https://www.example.org/health",
    "expected_status": 200,
    "project": "shop",
}
HEARTBEAT = {"organization": "acme", "name": "job", "type": "Heartbeat", "interval": 5400, "project": "shop"}


@pytest.fixture
def monitors(glitchtip):
    """The monitors of the fake server, with the rules of the real one."""
    kept = []

    def written(asked, found):
        body = asked.json
        assert {"expectedBody", "expectedStatus", "timeout"} <= body.keys()
        project = body.get("project")
        found |= {key: value for key, value in body.items() if key != "project"}
        found["projectID"] = project if any(p["id"] == project for p in glitchtip.projects) else None
        if body["monitorType"] == "Heartbeat" and not found["heartbeatEndpoint"]:
            number = uuid.uuid4()
            found["heartbeatEndpoint"] = (
                f"https://e.example.org/api/0/organizations/acme/heartbeat_check/{number}/"
            )
        return found

    def create(asked, organization):
        glitchtip.one(glitchtip.organizations, slug=organization)
        kept.append(written(asked, {"id": glitchtip.number(), "heartbeatEndpoint": None}))
        return kept[-1]

    path = r"/api/0/organizations/([^/]+)/monitors/"
    glitchtip.extra_routes += [
        ("GET", path, lambda _a, _o: kept),
        ("POST", path, create),
        ("PUT", rf"{path}(\d+)/", lambda a, _o, i: written(a, glitchtip.one(kept, id=int(i)))),
        ("DELETE", rf"{path}(\d+)/", lambda _a, _o, i: glitchtip.drop(kept, id=int(i))),
        (
            "GET",
            "/api/0/organizations/([^/]+)/",
            lambda _a, o: glitchtip.one(glitchtip.organizations, slug=o),
        ),
    ]
    return kept


@pytest.fixture
def run(run_module, provisioned, monitors):
    """Run the module against the fake server with organization acme and project shop."""
    assert monitors == []

    def call(options, _check=False, **more):
        return run_module(
            "glitchtip_monitor",
            _check=_check,
            url=provisioned.url,
            token=provisioned.token,
            **{**options, **more},
        )

    return call


@pytest.mark.parametrize("options", [OPTIONS, HEARTBEAT], ids=["GET", "Heartbeat"])
def test_check_do_check_do(run, provisioned, options):
    foreseen = run(options, _check=True)
    assert (foreseen["changed"], foreseen["predicted"], provisioned.writes) == (True, True, [])
    done = run(options)
    assert (done["changed"], done["predicted"], done["warnings"]) == (True, False, [])
    known = {key: value for key, value in done["monitor"].items() if key not in {"id", "heartbeatEndpoint"}}
    assert known.items() <= foreseen["monitor"].items()
    for check in (True, False):
        again = run(options, _check=check)
        assert (again["changed"], "diff" in again, again["monitor"]) == (False, False, done["monitor"])
    assert len(provisioned.writes) == 1


def test_one_changed_value_keeps_the_others_and_shows_only_itself(run, monitors):
    run(OPTIONS, check_timeout=5, expected_body="ok")
    changed = run({"organization": "acme", "name": "site", "interval": 30})
    assert changed["diff"] == {"before": {"interval": 60}, "after": {"interval": 30}}
    assert (monitors[0]["timeout"], monitors[0]["expectedBody"], monitors[0]["projectID"]) == (5, "ok", "13")


def test_absent_removes_it_once(run, provisioned, monitors):
    run(OPTIONS)
    provisioned.script.asked.clear()
    foreseen = run(OPTIONS, _check=True, state="absent")
    assert (foreseen["changed"], foreseen["monitor"], provisioned.writes) == (True, None, [])
    assert run(OPTIONS, state="absent")["changed"] is True
    assert monitors == []
    assert run(OPTIONS, state="absent")["changed"] is False


def test_a_missing_project_is_foreseen_in_check_mode_and_fails_outside(run):
    foreseen = run(OPTIONS, _check=True, project="later")
    assert (foreseen["changed"], foreseen["predicted"], foreseen["monitor"]["projectID"]) == (True, True, "")
    assert "there is no project 'later'" in foreseen["msg"]
    assert run(OPTIONS, project="later")["failure"]["code"] == "missing"


def test_a_bare_host_is_foreseen_and_bad_values_are_refused_there_too(run_module, closed):
    foreseen = run_module("glitchtip_monitor", _check=True, url=closed, token="t", **OPTIONS)
    assert (foreseen["changed"], foreseen["monitor"]["interval"]) == (True, 60)
    assert "is not there yet" in foreseen["msg"]
    failed = run_module("glitchtip_monitor", url=closed, token="t", **OPTIONS)
    assert failed["failure"]["code"] == "refused"


@pytest.fixture
def closed():
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_an_interval_of_0_is_refused_before_anything_is_written(run, provisioned):
    failed = run(OPTIONS, interval=0)
    assert failed["failed"] is True
    assert "interval 0 would stop the checks of every monitor of the instance" in failed["msg"]
    assert provisioned.writes == []


def test_a_monitor_without_project_is_warned_about(run):
    options = {key: value for key, value in OPTIONS.items() if key != "project"}
    assert ["nobody is told" in warning for warning in run(options)["warnings"]] == [True]


def test_the_endpoint_of_a_heartbeat_is_in_the_result_and_nowhere_else(run, monitors):
    result = run(HEARTBEAT)
    endpoint = monitors[0]["heartbeatEndpoint"]
    assert result["monitor"]["heartbeatEndpoint"] == endpoint
    assert endpoint not in str({key: value for key, value in result.items() if key != "monitor"})
    assert result["diff"]["after"]["heartbeatEndpoint"] == "***"


def test_a_password_in_the_watched_address_is_not_in_the_diff(run_module_process, provisioned, monitors):
    target = "https://user:canary-word@www.example.org/health?key=canary-key"
    result, printed = run_module_process(
        "glitchtip_monitor", url=provisioned.url, token=provisioned.token, **{**OPTIONS, "target": target}
    )
    assert result["changed"] is True
    assert monitors[0]["url"] == target
    assert result["diff"]["after"]["url"] == "https://***@www.example.org/health?***"
    assert provisioned.token not in printed
