"""Every module that keeps an object: check, do, check, do again, read back; then a change; then absent.

What the server was asked to write stands in its own log: nothing in check mode, and what is needed else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

LIBRARY = Path(__file__).resolve().parents[3] / "library"
HOOK = "https://hooks.example.org/canary-path?token=canary-hook"
PARENT = {"organization": "{slug}"}
PROJECT = {**PARENT, "project": "shop"}


@dataclass(frozen=True)
class Case:
    """One module: how to keep an object with it, how to find it again, and the writes that it takes.

    `made`, `updated` and `removed` are the methods of the writes, in their order.
    """

    result: str
    options: dict[str, Any]
    kind: str
    found_by: str
    change: dict[str, Any] = field(default_factory=dict)
    parents: dict[str, Any] = field(default_factory=lambda: PARENT)
    made: tuple[str, ...] = ("POST",)
    updated: tuple[str, ...] = ("PUT",)
    removed: tuple[str, ...] = ("DELETE",)
    hidden: tuple[str, ...] = ()


CASES = {
    "glitchtip_organization": Case(
        "organization", {"name": "Own {slug}"}, "organization", "slug", parents={}
    ),
    "glitchtip_team": Case("team", {**PARENT, "slug": "ops"}, "team", "slug"),
    "glitchtip_project": Case(
        "project",
        {**PARENT, "teams": ["crew", "second"], "name": "API", "slug": "the-api", "platform": "node"},
        "project",
        "slug",
        {"name": "API, renamed", "platform": "python", "teams": ["second"]},
        made=("POST", "PUT", "POST"),
        updated=("PUT", "DELETE"),
    ),
    "glitchtip_project_key": Case(
        "key", {**PROJECT, "name": "services"}, "key", "name", parents=PROJECT, hidden=("id", "public", "dsn")
    ),
    "glitchtip_member": Case(
        "member",
        {**PARENT, "email": "Dev@example.org", "role": "member", "teams": ["crew"]},
        "member",
        "id",
        {"role": "manager", "teams": ["second"]},
        updated=("PUT", "POST", "DELETE"),
    ),
    "glitchtip_alert": Case(
        "alert",
        {
            **PROJECT,
            "name": "hook",
            "quantity": 1,
            "timespan_minutes": 5,
            "recipients": [{"type": "webhook", "url": HOOK, "tags": ["service"]}],
        },
        "alert",
        "id",
        {"quantity": 3, "uptime": True},
        parents=PROJECT,
        hidden=("recipients",),
    ),
    "glitchtip_monitor": Case(
        "monitor",
        {
            **PROJECT,
            "name": "site",
            "type": "GET",
            "target": "https://www.example.org/health",
            "expected_status": 200,
            "interval": 300,
        },
        "monitor",
        "id",
        {"interval": 60, "expected_body": "ok"},
    ),
    "glitchtip_status_page": Case(
        "status_page", {**PARENT, "name": "Status", "public": True}, "status_page", "slug"
    ),
}


@pytest.fixture
def place(server, name):
    """An organization of the test's own with two teams and a project."""
    client = server.client
    slug = client.organizations.create(name)["slug"]
    for team in ("crew", "second"):
        client.teams.create(slug, team)
    client.projects.create(slug, "crew", name="Shop")
    yield slug
    client.organizations.delete(slug)


@pytest.fixture
def asked(run_module, server, place):
    """Run a module: its result, and the methods of the writes that the server logged meanwhile."""

    def run(module, check=False, **options):
        given = {
            key: value.format(slug=place) if isinstance(value, str) else value
            for key, value in options.items()
        }
        before = len(server.writes())
        if module != "glitchtip_token":
            given = {"token": server.full_token, **given}
        result = run_module(module, _check=check, url=server.url, **given)
        return result, tuple(line.split()[0] for line in server.writes()[before:])

    return run


@pytest.mark.parametrize("module", CASES)
def test_check_do_check_do_again_change_and_remove(asked, module):
    case = CASES[module]

    def found(there):
        objects = asked("glitchtip_info", kind=case.kind, **case.parents)[0]["objects"]
        return [each for each in objects if each[case.found_by] == there[case.found_by]]

    def keep(options, writes):
        foreseen, none = asked(module, check=True, **options)
        assert (foreseen["failed"], foreseen["changed"], none) == (False, True, ()), foreseen
        done, written = asked(module, **options)
        assert (done["failed"], done["changed"], written) == (False, True, writes), done
        assert done["diff"].keys() == foreseen["diff"].keys()
        there = done[case.result]
        (read,) = found(there)
        for key, value in there.items():
            if key in read and key not in (*case.hidden, "teams"):
                assert read[key] == value, key
        for check in (True, False):
            again, none = asked(module, check=check, **options)
            assert (again["changed"], none) == (False, ()), again
            assert again[case.result] == there
            assert "diff" not in again
        return there

    there = keep(case.options, case.made)
    if case.change:
        now = keep({**case.options, **case.change}, case.updated)
        assert now[case.found_by] == there[case.found_by], "it is still the same object"
    options = {**case.options, **case.change, "state": "absent"}
    if module == "glitchtip_status_page":
        for check in (True, False):
            refused, none = asked(module, check=check, **options)
            assert (refused["failure"]["code"], none) == ("unsupported", ())
        return
    foreseen, none = asked(module, check=True, **options)
    assert (foreseen["changed"], foreseen[case.result], none) == (True, None, ())
    assert len(found(there)) == 1
    gone, written = asked(module, **options)
    assert (gone["changed"], written) == (True, case.removed)
    assert found(there) == []
    for check in (True, False):
        again, none = asked(module, check=check, **options)
        assert (again["changed"], none) == (False, ())


def test_every_module_that_keeps_an_object_is_here():
    """The others have tests of their own: tokens and a whole configuration are no single object of the API."""
    keeping = {path.stem for path in LIBRARY.glob("glitchtip_*.py") if "import run" in path.read_text()}
    assert keeping == set(CASES)


LOGIN, LOGOUT = "POST", "DELETE"


def test_a_token_is_made_adopted_replaced_and_revoked(asked, server):
    account = {"email": "admin@example.org", "password": server.password, "label": f"ops {server.line}"}

    def token(check=False, **options):
        return asked("glitchtip_token", check, **account, **options)

    foreseen, none = token(True, scopes=["org:read"])
    assert (foreseen["changed"], foreseen["token"], none) == (True, "", ())
    made, written = token(scopes=["org:read"])
    assert (made["changed"], written) == (True, (LOGIN, "POST", LOGOUT))
    for check in (True, False):
        known, none = token(check, scopes=["org:read"], current=made["token"])
        assert (known["changed"], known["token"], none) == (False, made["token"], ())
    adopted, written = token(scopes=["org:read"])
    assert (adopted["changed"], adopted["token"], written) == (False, made["token"], (LOGIN, LOGOUT))

    foreseen, none = token(True, scopes=["org:read", "event:read"], current=made["token"])
    assert (foreseen["changed"], none) == (True, ())
    other, written = token(scopes=["org:read", "event:read"], current=made["token"])
    assert (other["changed"], written) == (True, (LOGIN, "POST", "DELETE", LOGOUT))

    (seen,) = asked("glitchtip_info", kind="account", token=other["token"])[0]["objects"]
    assert (seen["auth"]["label"], sorted(seen["auth"]["scopes"])) == (
        account["label"],
        ["event:read", "org:read"],
    )
    assert other["token"] not in str(seen)

    foreseen, none = token(True, state="absent")
    assert (foreseen["changed"], none) == (True, ())
    gone, written = token(state="absent")
    assert (gone["changed"], written) == (True, (LOGIN, "DELETE", LOGOUT))
    assert token(state="absent")[0]["changed"] is False
    assert (
        asked("glitchtip_info", kind="account", token=other["token"])[0]["failure"]["code"] == "unauthorized"
    )


@pytest.fixture
def dsn(server, place):
    """That of the project shop."""
    return server.client.keys.list(place, "shop")[0]["dsn"]["public"]


def test_an_event_is_sent_once_outside_check_mode_and_can_be_read(asked, dsn):
    options = {**PROJECT, "dsn": dsn, "message": "Probe of {slug}", "level": "warning"}
    options |= {
        "tags": {"environment": "production", "release": "shop@1", "note": "token=canary-in-an-event"}
    }
    none_sent, none = asked("glitchtip_event", True, **options)
    assert (none_sent["changed"], none_sent["event_id"], none) == (False, "", ())
    sent, written = asked("glitchtip_event", **options)
    assert (sent["changed"], written) == (False, ("POST",))

    def info(kind, **more):
        found, none = asked("glitchtip_info", kind=kind, **{**PROJECT, **more})
        assert (found["failed"], found["changed"], none) == (False, False, ()), found
        assert "canary" not in str(found)
        return found["objects"]

    (event,) = info("event", event_id=sent["event_id"])
    assert event["eventID"] == sent["event_id"]
    assert [each["eventID"] for each in info("event")] == [sent["event_id"]]
    assert info("event", event_id="0" * 32) == []
    (issue,) = info("issue", query="is:unresolved level:warning")
    assert issue["title"].startswith("Probe of")
    assert info("issue", query="is:resolved") == []
    assert [each["version"] for each in info("release")] == ["shop@1"]
    assert [each["name"] for each in info("environment")] == ["production"]
    # the organization's own lists, without a project
    for kind, count in {"issue": 1, "release": 1, "environment": 1}.items():
        assert len(asked("glitchtip_info", kind=kind, **PARENT)[0]["objects"]) == count


NOWHERE = {"organization": "nowhere", "project": "shop", "monitor": "beat"}
NEEDS = {
    **dict.fromkeys(
        ("team", "member", "project", "monitor", "status_page", "release", "environment", "issue"),
        ("organization",),
    ),
    **dict.fromkeys(("key", "alert", "event"), ("organization", "project")),
    "monitor_check": ("organization", "monitor"),
}


@pytest.mark.parametrize("kind", NEEDS)
def test_no_list_of_a_missing_parent_is_an_empty_list(asked, kind):
    where = {name: NOWHERE[name] for name in NEEDS[kind]}
    failed, none = asked("glitchtip_info", kind=kind, **where)
    assert (failed["failed"], none) == (True, ())
    assert failed["msg"] == "there is no organization 'nowhere', or the token's user is no member"
    if "project" in where or kind in ("release", "environment", "issue"):
        failed, _ = asked("glitchtip_info", kind=kind, **{**PARENT, "project": "nowhere"})
        assert failed["msg"].startswith("there is no project 'nowhere' in organization 'org-")


@pytest.mark.parametrize("module", [name for name, case in CASES.items() if case.parents])
def test_a_module_names_the_parent_that_is_missing(asked, module):
    options = {**CASES[module].options, "organization": "nowhere"}
    foreseen, none = asked(module, check=True, **options)
    assert (foreseen["changed"], foreseen["failed"], none) == (True, False, ())
    failed, written = asked(module, **options)
    assert (failed["failed"], failed["changed"]) == (True, False)
    assert "there is no" in failed["msg"]
    assert "'nowhere'" in failed["msg"]
    assert written in ((), ("POST",)), "at most the one that was answered with 404"
