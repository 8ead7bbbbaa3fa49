"""Tokens by login, events that are read back, and reading without writing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = "canary-password-77"
ACCOUNT = {"email": "admin@example.org", "password": PASSWORD, "label": "ops"}
SCOPES = ["org:read", "event:read"]


@pytest.fixture
def options(provisioned):
    return {**ACCOUNT, "scopes": SCOPES, "url": provisioned.url}


def test_a_token_is_created_then_known_then_adopted(run_module, provisioned, options):
    foreseen = run_module("glitchtip_token", _check=True, **options)
    assert (foreseen["changed"], foreseen["token"], provisioned.writes) == (True, "", [])

    made = run_module("glitchtip_token", **options)
    assert made["changed"] is True
    assert sorted(provisioned.tokens[0]["scopes"]) == sorted(SCOPES)
    provisioned.script.asked.clear()

    for check in (True, False):
        known = run_module("glitchtip_token", _check=check, current=made["token"], **options)
        assert (known["changed"], known["token"]) == (False, made["token"])
    assert provisioned.script.lines == ["GET /api/0/"] * 2

    adopted = run_module("glitchtip_token", current="stale", **options)
    assert (adopted["changed"], adopted["token"]) == (False, made["token"])
    assert len([token for token in provisioned.tokens if token["label"] == "ops"]) == 1


def test_other_scopes_replace_the_token(run_module, provisioned, options):
    first = run_module("glitchtip_token", **options)
    second = run_module("glitchtip_token", **{**options, "scopes": ["org:read"], "current": first["token"]})
    assert second["changed"] is True
    assert second["token"] != first["token"]
    assert [token["token"] for token in provisioned.tokens if token["label"] == "ops"] == [second["token"]]
    assert len(provisioned.tokens) == 2, "the token of another label stays"


def test_absent_revokes_the_label(run_module, provisioned, options):
    run_module("glitchtip_token", **options)
    gone = {key: value for key, value in options.items() if key != "scopes"} | {"state": "absent"}
    assert run_module("glitchtip_token", **gone)["changed"] is True
    assert run_module("glitchtip_token", **gone)["changed"] is False
    assert [token["label"] for token in provisioned.tokens] == ["provisioning"]


def test_the_current_token_is_returned_whole_by_a_real_process_and_hidden_elsewhere(
    run_module_process, provisioned, options
):
    current = provisioned.add_token("ops", SCOPES)["token"]
    result, printed = run_module_process("glitchtip_token", current=current, **options)
    assert result["token"] == current
    assert printed.count(current) == 1
    assert PASSWORD not in printed
    assert result["invocation"]["module_args"]["current"] is None


def test_a_failed_login_hides_password_and_token(run_module_process, options):
    _, printed = run_module_process(
        "glitchtip_token", **{**options, "password": "canary-wrong", "current": "canary-current"}
    )
    assert "not correct" in printed
    assert "canary" not in printed


def test_check_mode_on_a_bare_host_foresees_a_token(run_module, options):
    foreseen = run_module("glitchtip_token", _check=True, **{**options, "url": "http://127.0.0.1:1"})
    assert (foreseen["changed"], foreseen["token"]) == (True, "")
    assert "not there yet" in foreseen["msg"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"email": "admin@corp.local"}, "makes GlitchTip fail"),
        ({"scopes": ["org:integrations"]}, "unknown scope"),
    ],
)
def test_bad_input_fails_before_anything_is_sent(run_module, provisioned, options, wrong, said):
    failed = run_module("glitchtip_token", _check=True, **{**options, **wrong})
    assert said in failed["msg"]
    assert provisioned.script.asked == []


def event_options(provisioned, **more):
    key = provisioned.keys[0]["dsn"]["security"]
    dsn = f"{provisioned.url.replace('://', f'://{key}@')}/13"
    where = {"organization": "acme", "project": "shop", "url": provisioned.url, "token": provisioned.token}
    return {"dsn": dsn, "message": "probe", "tags": {"service": "x", "n": 1}, **where, **more}


def test_an_event_is_sent_and_read_back_without_counting_as_a_change(run_module, provisioned):
    sent = run_module("glitchtip_event", **event_options(provisioned))
    assert sent["changed"] is False
    assert sent["event_id"] in provisioned.events
    assert sent["seconds"] >= 0
    body = next(asked.body for asked in provisioned.script.asked if asked.method == "POST")
    assert json.loads(body.split(b"\n")[2])["tags"] == {"service": "x", "n": "1"}


def test_an_event_that_the_worker_does_not_store_is_a_failure(run_module, provisioned):
    provisioned.worker = False
    failed = run_module("glitchtip_event", **event_options(provisioned, timeout=1))
    assert failed["failure"]["code"] == "not_stored"
    assert "the worker is not processing" in failed["msg"]


def test_check_mode_sends_no_event(run_module, provisioned):
    assert run_module("glitchtip_event", _check=True, **event_options(provisioned))["event_id"] == ""
    assert provisioned.script.asked == []


def test_an_event_module_prints_neither_dsn_nor_token(run_module_process, provisioned):
    options = event_options(provisioned)
    key = provisioned.keys[0]["dsn"]["security"]
    for wanted in (options, {**options, "dsn": options["dsn"].replace("/13", "/14")}):
        _, printed = run_module_process("glitchtip_event", **wanted)
        assert key not in printed
        assert "canary" not in printed
    assert "wait 31 s" in printed


@pytest.mark.parametrize(
    ("kind", "count"),
    [("instance", 1), ("organization", 1), ("team", 1), ("project", 1), ("key", 1), ("alert", 0)],
)
def test_info_reads_and_masks(run_module, provisioned, kind, count):
    where = {"organization": "acme", "project": "shop", "url": provisioned.url, "token": provisioned.token}
    found = run_module("glitchtip_info", kind=kind, **where)
    assert (found["changed"], len(found["objects"]), provisioned.writes) == (False, count, [])
    key = provisioned.keys[0]
    assert key["id"] not in str(found)
    assert key["dsn"]["security"] not in str(found)


def test_info_needs_no_token_for_the_version(run_module, provisioned):
    found = run_module("glitchtip_info", kind="instance", url=provisioned.url)
    assert found["objects"] == [{"version": "6.2.6"}]


def test_info_on_a_bare_host_is_empty_in_check_mode(run_module):
    found = run_module(
        "glitchtip_info", _check=True, kind="organization", url="http://127.0.0.1:1", token="t"
    )
    assert (found["objects"], found["failed"]) == ([], False)


MODULES = sorted(path.stem for path in (ROOT / "library").glob("glitchtip_*.py"))


def all_options(options, above=""):
    """Options and suboptions with their full names, from an argument_spec or from documentation."""
    for name, option in options.items():
        yield above + name, option
        yield from all_options(option.get("options") or option.get("suboptions") or {}, f"{above}{name}.")


def argument_spec(monkeypatch, name):
    """The argument_spec that a module hands to AnsibleModule."""
    import importlib

    from ansible.module_utils import basic

    seen = {}

    class CaughtError(Exception):
        pass

    def catch(_self, argument_spec, **_more):
        seen.update(argument_spec)
        raise CaughtError

    monkeypatch.setattr(basic.AnsibleModule, "__init__", catch)
    with pytest.raises(CaughtError):
        importlib.import_module(name).main()
    return seen


@pytest.fixture(scope="module")
def documentation():
    said = subprocess.run(
        [sys.executable, "-m", "ansible", "doc", "-t", "module", "--json", *MODULES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(said.stdout)


@pytest.mark.parametrize("name", MODULES)
def test_documentation_and_options_agree(monkeypatch, documentation, name):
    doc = documentation[name]
    spec = argument_spec(monkeypatch, name)
    documented = dict(all_options(doc["doc"]["options"]))
    declared = dict(all_options(spec))
    assert documented.keys() == declared.keys()
    for option, value in declared.items():
        for part in ("type", "default", "choices", "elements"):
            assert documented[option].get(part) == value.get(part), (option, part)
        assert bool(documented[option].get("required")) == bool(value.get("required")), option
    assert {"check_mode", "diff_mode"} <= doc["doc"]["attributes"].keys()
    assert doc["examples"]
    assert "failure" in doc["return"]


@pytest.mark.parametrize("name", MODULES)
def test_every_option_that_holds_a_secret_is_hidden(monkeypatch, name):
    for option, value in all_options(argument_spec(monkeypatch, name)):
        secret = option in {"token", "password", "current", "dsn", "recipients.url"}
        assert bool(value.get("no_log")) is secret, option


@pytest.mark.parametrize("name", MODULES)
def test_a_module_stays_small(name):
    """Logic lives in the shared client; a module declares."""
    tree = ast.parse((ROOT / "library" / f"{name}.py").read_text())
    lines = sum(
        node.end_lineno - node.lineno + 1
        for node in tree.body
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant))
        and not isinstance(node, ast.Expr)
    )
    assert lines <= 85
