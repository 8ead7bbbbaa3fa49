"""Every kind of create, answered by nobody and carried out late: one object, and a next run without changes."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_api import FakeApi

from glitchtip_api import AmbiguousError, Client, GlitchTipError, late_answers
from glitchtip_api.ensure import (
    ensure_alert,
    ensure_key,
    ensure_member,
    ensure_monitor,
    ensure_organization,
    ensure_project,
    ensure_status_page,
    ensure_team,
)
from glitchtip_api.late_answers import LONGEST_REQUEST_SECONDS

SOURCE = Path(__file__).parents[3] / "src" / "glitchtip_api"
HOOK = {"type": "webhook", "url": "https://hooks.example.org/a"}


@dataclass(frozen=True)
class Kind:
    """How one kind is created, how many of it there are, and the path that its POST goes to."""

    make: Callable[[FakeApi], Any]
    count: Callable[[FakeApi], int]
    path: str
    twins: bool = True


def by_client(make: Callable[[Client], Any]) -> Callable[[FakeApi], Any]:
    return lambda api: make(api.client())


def amount(kind: str, **fields: Any) -> Callable[[FakeApi], int]:
    return lambda api: sum(
        all(thing.get(key) == value for key, value in fields.items()) for thing in api.data[kind]
    )


def rule(client: Client) -> Any:
    return ensure_alert(client, "acme", "shop", "chat", quantity=1, timespan_minutes=5, recipients=[HOOK])


def watch(client: Client) -> Any:
    return ensure_monitor(client, "acme", "site", type="Ping", url="https://a.example.org/", project="shop")


def teams_of(api: FakeApi, slug: str) -> int:
    return sum(team["slug"] == slug for project in api.data["projects"] for team in project["teams"])


KINDS = {
    "organization": Kind(
        by_client(lambda c: ensure_organization(c, "New")), amount("orgs", name="New"), r"organizations/$"
    ),
    "team": Kind(
        by_client(lambda c: ensure_team(c, "acme", "new")), amount("teams", slug="new"), "teams/$", False
    ),
    "project": Kind(
        by_client(lambda c: ensure_project(c, "acme", "crew", "New")),
        amount("projects", name="New"),
        "projects/$",
    ),
    "key": Kind(
        by_client(lambda c: ensure_key(c, "acme", "shop", "new")), amount("keys", name="new"), "keys/$"
    ),
    "alert": Kind(by_client(rule), amount("alerts", name="chat"), "alerts/$"),
    "monitor": Kind(by_client(watch), amount("monitors", name="site"), "monitors/$"),
    "status page": Kind(
        by_client(lambda c: ensure_status_page(c, "acme", "Status")),
        amount("pages", name="Status"),
        "status-pages/$",
    ),
    "member": Kind(
        by_client(lambda c: ensure_member(c, "acme", "new@example.org")),
        amount("members", email="new@example.org"),
        "members/$",
        False,
    ),
    "token": Kind(
        lambda api: api.session().ensure_token("ops", ["org:read"]),
        amount("tokens", label="ops"),
        "api-tokens/$",
    ),
    "second team of a project": Kind(
        by_client(lambda c: ensure_project(c, "acme", None, "Shop", teams=["crew", "ops"])),
        lambda api: teams_of(api, "ops"),
        r"projects/acme/shop/teams/ops/$",
        False,
    ),
    "second team of a member": Kind(
        by_client(lambda c: ensure_member(c, "acme", "dev@example.org", teams=["crew", "ops"])),
        lambda api: len([t for t in api.data["teams"] if t["slug"] == "ops" and len(t["people"]) == 2]),
        r"teams/ops/$",
        False,
    ),
    "release": Kind(
        by_client(lambda c: c.releases.create("acme", "1.0", ["shop"])),
        amount("releases", version="1.0"),
        "releases/$",
        False,
    ),
}
EVERY = {
    **KINDS,
    "comment": Kind(by_client(lambda c: c.issues.add_comment("7", "seen")), amount("comments"), "comments/$"),
}


@pytest.fixture
def api() -> FakeApi:
    """A server with an organization, two teams, a project and a member of one of the teams."""
    fake = FakeApi()
    client = fake.client()
    ensure_organization(client, "Acme")
    for team in ("crew", "ops"):
        ensure_team(client, "acme", team)
    ensure_project(client, "acme", "crew", "Shop")
    ensure_member(client, "acme", "dev@example.org", teams=["crew"])
    fake.asked.clear()
    return fake


def posts(api: FakeApi, kind: Kind) -> list[str]:
    return [line for line in api.asked if line.startswith("POST") and re.search(kind.path, line)]


@pytest.mark.parametrize(
    ("how", "delay"),
    [
        (502, 5.0),
        (503, 0.0),
        (504, 0.0),
        (504, 5.0),
        (504, 30.0),
        (504, 60.0),
        ("timeout", 60.0),
        ("broken", 5.0),
    ],
)
@pytest.mark.parametrize("name", EVERY)
def test_what_is_carried_out_late_is_adopted(api: FakeApi, name: str, how: int | str, delay: float) -> None:
    kind = EVERY[name]
    api.lose(kind.path, how, delay)
    kind.make(api)
    api.sleep(200)
    assert kind.count(api) == 1
    if not name.startswith("second team"):  # adding a team may be repeated, and is
        assert len(posts(api, kind)) == 1


@pytest.mark.parametrize("name", KINDS)
def test_the_next_run_after_a_late_answer_changes_nothing(api: FakeApi, name: str) -> None:
    kind = KINDS[name]
    api.lose(kind.path, 504, 5.0)
    kind.make(api)
    api.sleep(200)
    before = len(api.writes())
    kind.make(api)
    assert len(api.writes()) == before


@pytest.mark.parametrize("name", EVERY)
def test_what_never_happened_is_made_by_a_second_request_after_the_first_cannot_live(
    api: FakeApi, name: str
) -> None:
    kind = EVERY[name]
    begin = api.now
    api.lose(kind.path, 504, None)
    kind.make(api)
    assert (kind.count(api), len(posts(api, kind))) == (1, 2)
    if not name.startswith("second team"):
        assert api.now - begin >= LONGEST_REQUEST_SECONDS


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_sent_again_while_nobody_can_look(api: FakeApi, name: str, monkeypatch: Any) -> None:
    """The server is down after the lost answer: whether it was made is not known, so it is not made twice."""
    kind = EVERY[name]
    lost, exchange = [], api.exchange

    def fall_silent(method: str, path: str, **parts: Any) -> Any:
        if lost:
            return api._reply(502, "<h1>Bad Gateway</h1>", "text/html")
        if method == "POST" and re.search(kind.path, path):
            lost.append(path)
            exchange(method, path, **parts)
            return api._reply(504, "<h1>Gateway Time-out</h1>", "text/html")
        return exchange(method, path, **parts)

    monkeypatch.setattr(api, "exchange", fall_silent)
    with pytest.raises(GlitchTipError, match="run it again when the server answers"):
        kind.make(api)
    assert kind.count(api) == 1
    monkeypatch.undo()
    if name in KINDS:
        kind.make(api)
    assert kind.count(api) == 1


@pytest.mark.parametrize(
    "name", [name for name, kind in EVERY.items() if kind.twins and name != "status page"]
)
def test_an_unused_twin_that_is_the_same_is_removed(api: FakeApi, name: str) -> None:
    """Both requests were lost, and both were carried out after their time."""
    kind = EVERY[name]
    api.lose(kind.path, 504, LONGEST_REQUEST_SECONDS + 5)
    api.lose(kind.path, "broken", 20)
    done = kind.make(api)
    assert len(posts(api, kind)) == 2
    assert kind.count(api) == 1
    if name not in ("token", "comment"):
        assert any("was made twice" in warning for warning in done.warnings)


def test_a_twin_project_that_has_events_stays_and_both_are_named(api: FakeApi) -> None:
    kind = EVERY["project"]
    api.lose(kind.path, 504, LONGEST_REQUEST_SECONDS + 5)
    api.lose(kind.path, 504, 20)
    fresh = api._new

    def with_events(kind: str, thing: dict[str, Any], **more: Any) -> dict[str, Any]:
        return fresh(kind, {**thing, "firstEvent": "2026-11-01"} if kind == "projects" else thing, **more)

    api._new = with_events  # type: ignore[method-assign]
    with pytest.raises(AmbiguousError) as failure:
        kind.make(api)
    ids = [project["id"] for project in api.data["projects"] if project["name"] == "New"]
    assert len(ids) == 2
    assert all(number in str(failure.value) for number in ids)
    assert "delete the other, then run it again" in str(failure.value)


def _used_by_events(api: FakeApi) -> None:
    api.data["events"].append({"id": "e" * 32, "project": api.data["projects"][-1]["id"]})


def _used_by_a_rule(api: FakeApi) -> None:
    slug = api.data["projects"][-1]["slug"]
    ensure_alert(api.client(), "acme", slug, "theirs", quantity=1, timespan_minutes=5, recipients=[HOOK])


def _used_by_a_key(api: FakeApi) -> None:
    ensure_key(api.client(), "acme", api.data["projects"][-1]["slug"], "theirs")


def _used_by_a_team(api: FakeApi) -> None:
    ensure_team(api.client(), api.data["orgs"][-1]["slug"], "theirs")


def _used_by_a_member(api: FakeApi) -> None:
    ensure_member(api.client(), api.data["orgs"][-1]["slug"], "they@example.org")


def _unreadable(api: FakeApi) -> None:
    exchange = api.exchange

    def refuse(method: str, path: str, **parts: Any) -> Any:
        if method == "GET" and path.endswith(("/events/", "/teams/")):
            return api._reply(403, {"detail": "Forbidden"})
        return exchange(method, path, **parts)

    api.exchange = refuse  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("project", _used_by_events),
        ("project", _used_by_a_rule),
        ("project", _used_by_a_key),
        ("project", _unreadable),
        ("organization", _used_by_a_team),
        ("organization", _used_by_a_member),
        ("organization", _unreadable),
    ],
)
def test_a_twin_that_somebody_uses_is_never_removed(
    api: FakeApi, name: str, use: Callable[[FakeApi], None]
) -> None:
    """The server is asked just before; what the list says of a project may be older."""
    kind = EVERY[name]
    api.lose(kind.path, 504, LONGEST_REQUEST_SECONDS + 5)
    api.lose(kind.path, 504, 20)
    place, used = {"project": "projects", "organization": "orgs"}[name], []
    only_one = late_answers._only_one

    def used_first(*arguments: Any) -> Any:
        if not used:
            used.append(use(api))
        return only_one(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(late_answers, "_only_one", used_first)
        with pytest.raises(AmbiguousError, match="exists twice"):
            kind.make(api)
    assert len([thing for thing in api.data[place] if thing["name"] == "New"]) == 2


def test_a_twin_that_differs_stays_and_both_are_named(api: FakeApi) -> None:
    """Somebody changed the one that had appeared."""
    kind = EVERY["alert"]
    api.lose(kind.path, 504, LONGEST_REQUEST_SECONDS + 5)
    api.lose(kind.path, 504, 20)
    fresh = api._new

    def changed(kind: str, thing: dict[str, Any], **more: Any) -> dict[str, Any]:
        more_often = {"quantity": 9} if api.data["alerts"] else {}
        return fresh(kind, {**thing, **more_often}, **more)

    api._new = changed  # type: ignore[method-assign]
    with pytest.raises(AmbiguousError, match=r"exists twice, ids \d+ and \d+"):
        kind.make(api)
    assert kind.count(api) == 2


def test_a_twin_that_the_api_cannot_remove_is_named(api: FakeApi) -> None:
    kind = EVERY["status page"]
    api.lose(kind.path, 504, LONGEST_REQUEST_SECONDS + 5)
    api.lose(kind.path, 504, 20)
    with pytest.raises(AmbiguousError, match=r"ids status and status-2.*administration"):
        kind.make(api)


def test_the_twin_of_a_key_is_named_without_its_secret(api: FakeApi) -> None:
    kind = EVERY["key"]
    api.lose(kind.path, 504, LONGEST_REQUEST_SECONDS + 5)
    api.lose(kind.path, 504, 20)
    done = kind.make(api)
    for key in api.data["keys"]:
        assert key["id"] not in str(done.warnings)
        assert key["id"].replace("-", "") not in str(done.warnings)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.twins and name != "token"])
def test_a_request_that_lives_longer_than_expected_ends_in_a_message_with_both(
    api: FakeApi, name: str
) -> None:
    kind = KINDS[name]
    api.lose(kind.path, 504, LONGEST_REQUEST_SECONDS + 60)
    kind.make(api)
    api.sleep(200)
    assert kind.count(api) == 2
    before = len(api.writes())
    with pytest.raises(AmbiguousError, match=r"2 .* are called"):
        kind.make(api)
    assert len(api.writes()) == before


def test_an_older_comment_of_the_same_text_is_not_taken_for_the_new_one(api: FakeApi) -> None:
    client = api.client()
    client.issues.add_comment("7", "seen")
    api.sleep(60)
    api.lose("comments/$", 504, 5.0)
    assert client.issues.add_comment("7", "seen")["id"] == api.data["comments"][1]["id"]
    assert len(api.data["comments"]) == 2


@pytest.mark.parametrize("delay", [5.0, None])
def test_a_masked_token_whose_creation_was_lost_is_replaced(api: FakeApi, delay: float | None) -> None:
    """Its value was in the lost answer only."""
    api.masked = True
    api.lose("api-tokens/$", 504, delay)
    made = api.session().ensure_token("ops", ["org:read"])
    assert [token["token"] for token in api.data["tokens"]] == [made.token]


def test_every_post_of_the_client_is_in_the_sweep() -> None:
    """A new kind of create needs a line in `EVERY`, or a reason here why its answer may get lost."""
    harmless = {"alerts.send_test", "monitors.heartbeat"}  # nothing is created
    found = set()
    for file in (SOURCE / "resources").glob("*.py"):
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef) and any(
                isinstance(node, ast.Attribute) and node.attr == "post" for node in ast.walk(function)
            ):
                found.add(f"{file.stem}.{function.name}")
    swept = {
        *("organizations.create", "teams.create", "projects.create", "projects.add_team", "keys.create"),
        *("alerts.create", "monitors.create", "status_pages.create", "members.invite", "members.add_to_team"),
        *("releases.create", "issues.add_comment", "base.post", "issues.create"),
    }
    assert found - harmless <= swept


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("name", EVERY)
def test_a_page_instead_of_an_answer_is_not_waited_for(api: FakeApi, name: str, status: int) -> None:
    """The request has ended: nothing is there after a few looks, and the same body would fail again."""
    kind = EVERY[name]
    begin = api.now
    for _ in range(9):  # adding a team is tried again at each look
        api.lose(kind.path, status, None)
    with pytest.raises(GlitchTipError, match=str(status)):
        kind.make(api)
    assert api.now - begin < 10
    assert kind.count(api) == 0
    assert len(posts(api, kind)) == 1 or name.startswith("second team")


@pytest.mark.parametrize("status", [520, 522, 524])
def test_what_other_proxies_answer_is_no_answer(api: FakeApi, status: int) -> None:
    api.lose("alerts/$", status, 30.0)
    KINDS["alert"].make(api)
    api.sleep(200)
    assert KINDS["alert"].count(api) == 1
