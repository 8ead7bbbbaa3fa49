"""The modules that keep one object: check, do, check again, do again; on a bare host; and back to absent."""

from __future__ import annotations

import socket

import pytest

HOOK = "https://hooks.example.org/canary-path?token=canary-hook"
WHERE = {"organization": "acme", "project": "shop"}
CASES = {
    "glitchtip_organization": ("organization", {"name": "New One"}, "slug", "new-one"),
    "glitchtip_team": ("team", {"organization": "acme", "slug": "ops"}, "slug", "ops"),
    "glitchtip_project": (
        "project",
        {"organization": "acme", "team": "backend", "name": "AI Admin", "platform": "node"},
        "slug",
        "ai-admin",
    ),
    "glitchtip_project_key": ("key", {**WHERE, "name": "ai-admin"}, "name", "ai-admin"),
    "glitchtip_alert": (
        "alert",
        {
            **WHERE,
            "name": "hook",
            "quantity": 1,
            "timespan_minutes": 5,
            "recipients": [{"type": "webhook", "url": HOOK, "tags": ["service"]}],
        },
        "quantity",
        1,
    ),
}
EACH = pytest.mark.parametrize("name", CASES)


@pytest.fixture
def nobody():
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@EACH
def test_check_do_check_do(run_module, provisioned, name):
    result, options, field, value = CASES[name]
    options = {**options, "url": provisioned.url, "token": provisioned.token}

    foreseen = run_module(name, _check=True, **options)
    assert (foreseen["changed"], foreseen["predicted"]) == (True, True)
    assert provisioned.writes == []

    done = run_module(name, **options)
    assert (done["changed"], done["predicted"]) == (True, False)
    assert done[result][field] == foreseen[result][field] == value
    assert len(provisioned.writes) == 1

    for check in (True, False):
        again = run_module(name, _check=check, **options)
        assert again["changed"] is False
        assert "diff" not in again
        assert again[result] == done[result]
    assert len(provisioned.writes) == 1


@EACH
def test_absent_removes_the_named_object_once(run_module, provisioned, name):
    result, options, _, _ = CASES[name]
    options = {**options, "url": provisioned.url, "token": provisioned.token}
    kept = [len(things) for things in (provisioned.organizations, provisioned.teams, provisioned.keys)]
    run_module(name, **options)
    provisioned.script.asked.clear()

    foreseen = run_module(name, _check=True, state="absent", **options)
    assert (foreseen["changed"], foreseen[result], provisioned.writes) == (True, None, [])
    assert foreseen["diff"]["after"] == {"state": "absent"}
    assert run_module(name, state="absent", **options)["changed"] is True
    assert [line.split()[0] for line in provisioned.writes] == ["DELETE"]
    assert run_module(name, state="absent", **options)["changed"] is False
    now = [len(things) for things in (provisioned.organizations, provisioned.teams, provisioned.keys)]
    assert now == kept or name == "glitchtip_project"  # a project goes with its keys


@EACH
def test_check_mode_on_a_bare_host_foresees_a_change(run_module, nobody, name):
    result, options, field, value = CASES[name]
    foreseen = run_module(name, _check=True, url=nobody, token="t", **options)
    assert foreseen["changed"] is True
    assert "is not there yet" in foreseen["msg"]
    assert foreseen[result][field] == value


@EACH
def test_outside_check_mode_a_bare_host_is_a_failure(run_module, nobody, name):
    failed = run_module(name, url=nobody, token="t", **CASES[name][1])
    assert failed["failed"] is True
    assert failed["failure"]["code"] == "refused"


@EACH
def test_check_mode_before_the_token_exists_foresees_a_change(run_module, glitchtip, name):
    foreseen = run_module(name, _check=True, url=glitchtip.url, token="", **CASES[name][1])
    assert (foreseen["changed"], foreseen["failed"]) == (True, False)
    assert run_module(name, url=glitchtip.url, token="", **CASES[name][1])["msg"].startswith("no API token")


@pytest.mark.parametrize("name", [name for name in CASES if name != "glitchtip_organization"])
def test_check_mode_before_the_parent_exists_foresees_a_change(run_module, glitchtip, name):
    options = {**CASES[name][1], "url": glitchtip.url, "token": glitchtip.token}
    foreseen = run_module(name, _check=True, **options)
    assert (foreseen["changed"], foreseen["predicted"], foreseen["failed"]) == (True, True, False)
    assert "there is no" in foreseen["msg"]
    assert run_module(name, **options)["failure"]["code"] == "missing"


@EACH
def test_a_wrong_token_is_a_failure_in_check_mode_too(run_module, provisioned, name):
    failed = run_module(name, _check=True, url=provisioned.url, token="canary-wrong", **CASES[name][1])
    assert (failed["failed"], failed["failure"]["status"]) == (True, 401)


@EACH
@pytest.mark.slow
def test_no_secret_is_printed_by_a_real_process(run_module_process, provisioned, name):
    """The key's own result is the one exception: its caller asked for the DSN and sets no_log."""
    _, options, _, _ = CASES[name]
    for check in (True, False, False):
        result, printed = run_module_process(
            name, _check=check, url=provisioned.url, token=provisioned.token, **options
        )
        assert "canary" not in printed, printed
        assert "failed" not in result
    for key in provisioned.keys:
        assert key["dsn"]["security"] not in str(result.get("diff", ""))


def test_a_key_has_the_address_for_ingest(run_module, provisioned):
    options = {**WHERE, "name": "app", "ingest_url": "http://127.0.0.1:8080"}
    made = run_module("glitchtip_project_key", url=provisioned.url, token=provisioned.token, **options)
    assert made["key"]["dsn"] == f"http://{made['key']['public']}@127.0.0.1:8080/13"
    assert made["diff"]["after"] == {
        "state": "present",
        "id": "***",
        "name": "app",
        "public": "***",
        "dsn": "***",
    }


def test_a_changed_platform_shows_only_itself_in_the_diff(run_module, provisioned):
    options = {"organization": "acme", "team": "backend", "name": "Shop", "platform": "python"}
    options |= {"url": provisioned.url, "token": provisioned.token}
    expected = {"before": {"platform": "node"}, "after": {"platform": "python"}}
    assert run_module("glitchtip_project", _check=True, **options)["diff"] == expected
    assert provisioned.projects[0]["platform"] == "node"
    assert run_module("glitchtip_project", **options)["diff"] == expected
    assert provisioned.projects[0]["platform"] == "python"


def test_a_changed_rule_keeps_its_recipients_and_warns(run_module, provisioned):
    options = {**CASES["glitchtip_alert"][1], "url": provisioned.url, "token": provisioned.token}
    run_module("glitchtip_alert", **options)
    options.pop("recipients")
    changed = run_module("glitchtip_alert", **{**options, "timespan_minutes": 1})
    assert changed["diff"] == {"before": {"timespanMinutes": 5}, "after": {"timespanMinutes": 1}}
    assert len(provisioned.alerts[0]["alertRecipients"]) == 1
    assert "use 5 or more" in changed["warnings"][0]


def test_two_projects_of_one_name_are_a_failure(run_module, provisioned):
    provisioned.projects.append({**provisioned.projects[0], "id": "99", "slug": "shop-2"})
    options = {"organization": "acme", "team": "backend", "name": "Shop"}
    failed = run_module("glitchtip_project", url=provisioned.url, token=provisioned.token, **options)
    assert failed["failure"]["code"] == "ambiguous"


CARELESS = """
from ansible.module_utils.glitchtip_api.ansible_support import run

def main():
    run("thing", {}, lambda client, p, dry_run: client.organizations.create("Careless"), lambda p: {})
"""


def test_in_check_mode_the_transport_stops_a_module_that_forgets_to(
    run_module, provisioned, tmp_path, monkeypatch
):
    (tmp_path / "careless_module.py").write_text(CARELESS)
    monkeypatch.syspath_prepend(tmp_path)
    options = {"url": provisioned.url, "token": provisioned.token}
    stopped = run_module("careless_module", _check=True, **options)
    assert stopped["failure"]["code"] == "read_only"
    assert provisioned.writes == []


def test_a_rate_limit_that_does_nothing_is_warned_about(run_module, provisioned):
    options = {"url": provisioned.url, "token": provisioned.token, **WHERE, "name": "app"}
    made = run_module("glitchtip_project_key", **options, rate_limit={"count": 5, "window": 60})
    assert made["warnings"] == ["key 'app': the server stores a rate limit but does not enforce it"]


def test_the_key_that_came_with_the_project_cannot_be_named(run_module, provisioned):
    options = {"url": provisioned.url, "token": provisioned.token, **WHERE, "name": "", "state": "absent"}
    assert run_module("glitchtip_project_key", **options)["failure"]["code"] == "bad_name"
    assert [key["name"] for key in provisioned.keys] == [""]


def test_a_project_is_renamed_where_its_slug_is_given(run_module, provisioned):
    options = {"url": provisioned.url, "token": provisioned.token, "organization": "acme", "slug": "shop"}
    expected = {"before": {"name": "Shop"}, "after": {"name": "Shop, production"}}
    foreseen = run_module("glitchtip_project", _check=True, **options, name="Shop, production")
    assert (foreseen["diff"], provisioned.writes) == (expected, [])
    assert run_module("glitchtip_project", **options, name="Shop, production")["diff"] == expected
    assert [project["name"] for project in provisioned.projects] == ["Shop, production"]


def test_a_new_project_has_the_slug_that_is_wanted(run_module, provisioned):
    options = {"url": provisioned.url, "token": provisioned.token, "organization": "acme", "team": "backend"}
    options |= {"name": "Shop", "slug": "store"}
    foreseen = run_module("glitchtip_project", _check=True, **options)
    done = run_module("glitchtip_project", **options)
    assert done["project"]["slug"] == foreseen["project"]["slug"] == "store"
    assert "'shop' has the name 'Shop', too" in done["warnings"][0]
    assert run_module("glitchtip_project", **options)["changed"] is False


def test_a_new_project_without_a_team_is_refused(run_module, provisioned):
    options = {"url": provisioned.url, "token": provisioned.token, "organization": "acme", "name": "New"}
    assert run_module("glitchtip_project", **options)["msg"] == "the new project 'New' needs a team"


def test_an_unknown_kind_of_recipient_is_refused_with_the_way_that_works(run_module, provisioned):
    options = {**CASES["glitchtip_alert"][1], "recipients": [{"type": "telegram", "url": HOOK}]}
    failed = run_module("glitchtip_alert", url=provisioned.url, token=provisioned.token, **options)
    assert failed["msg"].startswith("GlitchTip has no recipients of type 'telegram'; use type webhook")


def test_the_key_of_a_zulip_bot_is_sent_and_never_shown(run_module_process, provisioned):
    config = {"bot_email": "bot@z.example.org", "api_key": "canary-zulip-key", "channel": "operations"}
    zulip = {"type": "zulip", "url": "https://z.example.org", "config": config}
    options = {**CASES["glitchtip_alert"][1], "recipients": [zulip]}
    result, printed = run_module_process(
        "glitchtip_alert", url=provisioned.url, token=provisioned.token, **options
    )
    sent = provisioned.script.asked[-1].json["alertRecipients"][0]
    assert (sent["apiKey"], sent["topic"]) == ("canary-zulip-key", "GlitchTip Alerts")
    assert "canary" not in printed
    assert "failed" not in result


@pytest.mark.parametrize(
    ("name", "kind"), [("glitchtip_organization", "organization"), ("glitchtip_project", "project")]
)
def test_who_removes_what_still_gets_events_is_warned(run_module, provisioned, name, kind):
    _, options, _, _ = CASES[name]
    options = {**options, "url": provisioned.url, "token": provisioned.token}
    run_module(name, **options)
    sentence = (
        f"{kind} {options['name']!r} is removed: stop what still sends to it first, because an event on its way can "
        "take up to a hundred events of other projects with it"
    )
    assert sentence in run_module(name, _check=True, state="absent", **options)["warnings"]
    assert sentence in run_module(name, state="absent", **options)["warnings"]
    assert sentence not in run_module(name, state="absent", **options)["warnings"]
