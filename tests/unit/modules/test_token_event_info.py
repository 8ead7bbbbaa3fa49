"""Tokens by login, events that are read back, and reading without writing."""

from __future__ import annotations

import json

import pytest

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


@pytest.mark.slow
def test_an_event_that_the_worker_does_not_store_is_a_failure(run_module, provisioned):
    provisioned.worker = False
    failed = run_module("glitchtip_event", **event_options(provisioned, timeout=1))
    assert failed["failure"]["code"] == "not_stored"
    assert "the worker is not processing" in failed["msg"]


def test_check_mode_sends_no_event(run_module, provisioned):
    assert run_module("glitchtip_event", _check=True, **event_options(provisioned))["event_id"] == ""
    assert provisioned.script.asked == []


@pytest.mark.slow
def test_an_event_module_prints_neither_dsn_nor_token(run_module_process, provisioned):
    options = event_options(provisioned)
    key = provisioned.keys[0]["dsn"]["security"]
    for wanted in (options, {**options, "dsn": options["dsn"].replace("/13", "/14")}):
        _, printed = run_module_process("glitchtip_event", **wanted)
        assert key not in printed
        assert "canary" not in printed
    assert "wait 31 s" in printed


PARENTS = {"organization": "acme", "project": "shop"}
NO_SLUG = (
    "is no slug: that has letters, digits, hyphens and underscores only"
    " (the slug is the last part of its address, and what the modules return)"
)
NOBODY = ", or the token's user is no member"


@pytest.fixture
def info(run_module, provisioned):
    """Read a kind with the token of the provisioned server."""

    def run(kind, **options):
        return run_module(
            "glitchtip_info", kind=kind, **{"url": provisioned.url, "token": provisioned.token, **options}
        )

    return run


@pytest.fixture
def monitored(provisioned):
    """Two lists that the server answers with 200 whoever asks, and the organization itself."""
    monitors = [
        {
            "id": 7,
            "name": "beat",
            "monitorType": "Heartbeat",
            "url": "https://user:canary@shop.example.org/health?token=canary",
            "heartbeatEndpoint": "http://h/api/0/organizations/acme/heartbeat_check/canary/",
            "endpointID": "canary",
        }
    ]
    org = "/api/0/organizations/([^/]+)"
    provisioned.extra_routes += [
        ("GET", f"{org}/", lambda _a, o: provisioned.one(provisioned.organizations, slug=o)),
        ("GET", f"{org}/monitors/", lambda _a, o: monitors if o == "acme" else []),
        ("GET", f"{org}/monitors/7/checks/", lambda _a, _o: [{"isUp": True}] * 3),
        ("GET", f"{org}/environments/", lambda _a, _o: []),
    ]
    provisioned.monitors = monitors
    return provisioned


@pytest.mark.parametrize(
    ("kind", "where", "count"),
    [
        ("instance", (), 1),
        ("account", (), 1),
        ("organization", (), 1),
        ("team", ("organization",), 1),
        ("project", ("organization",), 1),
        ("key", ("organization", "project"), 1),
        ("alert", ("organization", "project"), 0),
    ],
)
def test_info_reads_and_masks(info, provisioned, kind, where, count):
    found = info(kind, **{name: PARENTS[name] for name in where})
    assert (found["changed"], len(found["objects"]), provisioned.writes) == (False, count, [])
    assert found["truncated"] is False
    key = provisioned.keys[0]
    for secret in (key["id"], key["dsn"]["security"], provisioned.token):
        assert secret not in str(found)


@pytest.mark.usefixtures("monitored")
def test_info_shows_what_a_monitor_asks_and_not_who_may_report_life(info):
    found = info("monitor", organization="acme")
    assert "canary" not in str(found)
    assert found["objects"][0]["url"] == "https://***@shop.example.org/health?***"


@pytest.mark.usefixtures("monitored")
def test_info_says_when_there_is_more_than_the_limit(info):
    where = {"organization": "acme", "monitor": "beat"}
    assert [info("monitor_check", **where, limit=limit)["truncated"] for limit in (2, 3)] == [True, False]
    assert len(info("monitor_check", **where, limit=2)["objects"]) == 2


def test_info_fails_for_two_monitors_of_one_name_and_names_their_ids(info, monitored):
    monitored.monitors.append({**monitored.monitors[0], "id": 8})
    failed = info("monitor_check", organization="acme", monitor="beat")
    assert failed["msg"] == "2 monitors are called 'beat': 7, 8 (rename or delete all but one)"


@pytest.mark.usefixtures("monitored")
@pytest.mark.parametrize(
    ("kind", "where", "lacks"),
    [
        ("team", {"organization": "ghost"}, "organization 'ghost'"),
        ("monitor", {"organization": "ghost"}, "organization 'ghost'"),
        ("alert", {"organization": "acme", "project": "ghost"}, "project 'ghost' in organization 'acme'"),
        ("key", {"organization": "ghost", "project": "shop"}, "organization 'ghost'"),
        (
            "monitor_check",
            {"organization": "acme", "monitor": "ghost"},
            "monitor 'ghost' in organization 'acme'",
        ),
        ("monitor_check", {"organization": "ghost", "monitor": "beat"}, "organization 'ghost'"),
    ],
)
def test_info_takes_no_empty_list_for_an_answer_when_the_parent_is_not_there(info, kind, where, lacks):
    failed = info(kind, **where)
    assert (failed["failed"], failed["failure"]["code"]) == (True, "missing")
    assert failed["msg"] == f"there is no {lacks}{NOBODY}"
    foreseen = info(kind, **where, _check=True)
    assert (foreseen["failed"], foreseen["objects"]) == (False, [])
    assert foreseen["msg"].startswith("nothing to read yet: there is no")


@pytest.mark.usefixtures("monitored")
def test_info_believes_an_empty_list_of_a_parent_that_is_there(info):
    found = info("environment", organization="acme")
    assert (found["objects"], found["warnings"]) == ([], [])


def test_info_warns_where_the_token_may_not_look_for_the_parent(info, monitored):
    refusal = monitored.reply(403, {"detail": "Permission denied"})
    monitored.extra_routes.insert(0, ("GET", "/api/0/organizations/([^/]+)/", lambda _a, _o: refusal))
    found = info("environment", organization="acme")
    assert found["objects"] == []
    assert "could not be seen" in found["warnings"][0]
    assert "org:read" in found["warnings"][0]
    failed = info("team", organization="ghost")
    assert failed["msg"] == f"there is no organization 'ghost'{NOBODY}", "a 404 says it without looking"


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("monitor", {**PARENTS}, "project says nothing about the kind monitor"),
        ("project", {"organization": "acme", "query": "x"}, "query says nothing about the kind project"),
        ("team", {"organization": "acme", "limit": 0}, "limit is a number from 1, not 0"),
        (
            "team",
            {"organization": "AI Admin"},
            f"organization 'AI Admin' {NO_SLUG}",
        ),
        ("team", {}, "kind is team but all of the following are missing: organization"),
        ("key", {"organization": "acme"}, "kind is key but all of the following are missing: project"),
        (
            "monitor_check",
            {"organization": "acme"},
            "kind is monitor_check but all of the following are missing: monitor",
        ),
        ("event", {**PARENTS, "event_id": "x"}, "an event id is 32 hexadecimal digits"),
    ],
)
def test_info_refuses_what_cannot_be_asked_for(info, provisioned, kind, options, said):
    assert info(kind, **options)["msg"] == said
    assert provisioned.script.asked == []


def test_info_refuses_a_search_that_the_server_would_misread(info):
    assert "seen_since=" in info("issue", organization="acme", query="lastSeen:-1h")["msg"]


def test_info_knows_a_token_that_is_none(info):
    failed = info("account", token="canary-wrong")
    assert (failed["failed"], failed["failure"]["code"]) == (True, "unauthorized")
    assert "the token is wrong, revoked or expired" in failed["msg"]


def test_info_needs_no_token_for_the_version(run_module, provisioned):
    found = run_module("glitchtip_info", kind="instance", url=provisioned.url)
    assert found["objects"] == [{"version": "6.2.6"}]


def test_info_on_a_bare_host_is_empty_in_check_mode(run_module):
    found = run_module(
        "glitchtip_info", _check=True, kind="organization", url="http://127.0.0.1:1", token="t"
    )
    assert (found["objects"], found["truncated"], found["failed"]) == ([], False, False)
