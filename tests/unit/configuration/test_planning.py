"""A plan for what does not exist yet is complete, ordered, and costs no request."""

from __future__ import annotations

import pytest

from glitchtip_api import Client
from glitchtip_api.configuration import ConfigurationError, Snapshot, Where, plan


def test_everything_is_planned_from_nothing_in_the_order_in_which_it_can_be_made(nobody, whole):
    planned = plan(nobody, Snapshot([]), whole, ())
    assert [line.partition(":")[0] for line in map(str, (step.line() for step in planned.steps))] == [
        "+ organization 'AI Admin'",
        "+ team 'backend' (organization 'AI Admin')",
        "+ team 'ops' (organization 'AI Admin')",
        "+ member 'dev@example.org' (organization 'AI Admin')",
        "+ project 'Shop API' (organization 'AI Admin')",
        "+ key 'production' (organization 'AI Admin', project 'Shop API')",
        "+ alert 'chat' (organization 'AI Admin', project 'Shop API')",
        "+ monitor 'site' (organization 'AI Admin')",
        "+ status page 'Status' (organization 'AI Admin')",
    ]
    assert {step.verb for step in planned.steps} == {"create"}


def test_no_secret_is_in_a_plan(nobody, whole):
    planned = plan(nobody, Snapshot([]), whole, ())
    assert "canary" not in str([step.as_dict() for step in planned.steps])
    assert "canary" not in str([step.line() for step in planned.steps])


def there(**lists):
    """A snapshot of the organization Acme."""
    return Snapshot(
        [{"id": "1", "slug": "acme", "name": "Acme"}],
        {(kind, Where("Acme")): things for kind, things in lists.items()},
    )


def test_what_is_as_declared_needs_no_step_and_no_request(nobody, fill):
    entries = fill(
        [{"name": "Acme", "teams": ["backend"], "projects": [{"name": "Shop", "teams": ["backend"]}]}]
    )
    project = {"id": "3", "slug": "shop", "name": "Shop", "teams": [{"slug": "backend"}]}
    planned = plan(nobody, there(team=[{"id": "2", "slug": "backend"}], project=[project]), entries, ())
    assert (planned.steps, planned.unmanaged, planned.warnings) == ((), (), ())


def test_teams_of_a_project_that_names_none_stay(nobody, fill):
    entries = fill([{"name": "Acme", "teams": ["new"], "projects": [{"name": "Shop"}]}])
    project = {"id": "3", "slug": "shop", "name": "Shop", "teams": [{"slug": "old"}]}
    planned = plan(nobody, there(team=[{"id": "2", "slug": "new"}], project=[project]), entries, ())
    assert planned.steps == ()


def test_a_new_project_that_names_no_team_comes_into_the_first(nobody, fill):
    entries = fill([{"name": "Acme", "teams": ["one", "two"], "projects": [{"name": "Shop"}]}])
    planned = plan(nobody, there(), entries, ())
    project = planned.steps[-1]
    assert project.foreseen.after["teams"] == ["one"]


def test_a_change_is_shown_from_what_to_what(nobody, fill):
    entries = fill([{"name": "Acme", "projects": [{"name": "Shop", "platform": "node"}]}])
    project = {"id": "3", "slug": "shop", "name": "Shop", "platform": None, "teams": []}
    planned = plan(nobody, there(project=[project]), entries, ())
    assert [step.line() for step in planned.steps] == [
        "~ project 'Shop' (organization 'Acme'): platform nothing -> node"
    ]


def test_lists_that_are_left_out_are_not_managed_and_empty_ones_are(nobody, fill):
    snapshot = there(team=[{"id": "2", "slug": "theirs"}])
    assert plan(nobody, snapshot, fill([{"name": "Acme"}]), ("team",)).steps == ()
    planned = plan(nobody, snapshot, fill([{"name": "Acme", "teams": []}]), ())
    assert planned.unmanaged == (
        {"kind": "team", "name": "theirs", "organization": "Acme", "project": None, "id": "2"},
    )
    planned = plan(nobody, snapshot, fill([{"name": "Acme", "teams": []}]), ("team",))
    assert [step.line() for step in planned.steps] == ["- team 'theirs' (organization 'Acme')"]


def test_the_nameless_key_is_neither_purged_nor_reported(nobody, fill):
    entries = fill([{"name": "Acme", "projects": [{"name": "Shop", "keys": []}]}])
    snapshot = there(project=[{"id": "3", "slug": "shop", "name": "Shop", "teams": []}])
    key = {"id": "0" * 32, "name": "", "dsn": {"public": "http://k@h/1"}}
    snapshot.lists[("key", Where("Acme", "Shop"))] = [key]
    planned = plan(nobody, snapshot, entries, ("key",))
    assert (planned.steps, planned.unmanaged) == ((), ())


def test_the_primary_owner_is_never_purged(fill, monkeypatch):
    own = {"id": "12", "email": "me@example.org"}
    client = Client("http://127.0.0.1:1")
    monkeypatch.setattr(client, "get", lambda _path: {"user": own})
    members = [
        {"id": "1", "email": "owner@example.org", "isOwner": True, "user": {"id": "11"}},
        {"id": "2", "email": "me@example.org", "isOwner": False, "user": own},
        {"id": "3", "email": "former@example.org", "isOwner": False, "user": None},
    ]
    planned = plan(client, there(member=members), fill([{"name": "Acme", "members": []}]), ("member",))
    assert [step.line() for step in planned.steps] == ["- member 'former@example.org' (organization 'Acme')"]


def test_removals_come_last_and_children_first(nobody, fill):
    entries = fill([{"name": "Acme", "teams": ["new"], "projects": [], "monitors": []}])
    snapshot = there(
        team=[{"id": "2", "slug": "old"}],
        project=[{"id": "3", "slug": "shop", "name": "Shop", "teams": []}],
        monitor=[{"id": 4, "name": "site"}],
    )
    planned = plan(nobody, snapshot, entries, ("team", "project", "monitor"))
    assert [step.line().split(" (")[0] for step in planned.steps] == [
        "+ team 'new'",
        "- monitor 'site'",
        "- project 'Shop'",
        "- team 'old'",
    ]
    assert [warning.partition(":")[0] for warning in planned.warnings] == ["project 'Shop' is removed"]


@pytest.mark.parametrize(
    ("purge", "organizations", "sentence"),
    [
        (
            ("project", "status_page"),
            [{"name": "Acme"}],
            "purge takes organization, team, member, project, key, alert, monitor, not status_page",
        ),
        (
            ("organization",),
            [],
            "an empty configuration with purge of organizations would remove everything",
        ),
    ],
)
def test_purges_that_make_no_sense_are_refused(nobody, fill, purge, organizations, sentence):
    with pytest.raises(ConfigurationError) as caught:
        plan(nobody, Snapshot([]), fill(organizations), purge)
    assert str(caught.value) == sentence


def test_a_monitor_of_a_project_that_nobody_has_is_refused(nobody, fill):
    monitor = {"name": "site", "type": "Ping", "url": "https://www.example.org/", "project": "nowhere"}
    with pytest.raises(ConfigurationError) as caught:
        plan(nobody, there(project=[]), fill([{"name": "Acme", "monitors": [monitor]}]), ())
    assert str(caught.value) == (
        "monitor 'site' (organization 'Acme'): neither the configuration nor the server has the project "
        "'nowhere' that it names"
    )


def test_a_monitor_may_name_a_project_that_only_the_server_has(nobody, fill):
    monitor = {"name": "site", "type": "Ping", "url": "https://www.example.org/", "project": "Shop"}
    snapshot = there(project=[{"id": "33", "slug": "shop-2", "name": "Shop", "teams": []}])
    planned = plan(nobody, snapshot, fill([{"name": "Acme", "monitors": [monitor]}]), ())
    assert planned.steps[0].foreseen.after["projectID"] == "33"


TWINS = [
    {"id": "3", "slug": "shop", "name": "Shop", "teams": []},
    {"id": "4", "slug": "shop-2", "name": "Shop", "teams": []},
]


@pytest.mark.parametrize("wanted", ["shop", "Shop"])
def test_a_monitor_finds_a_project_of_nothing_by_slug_and_by_name(nobody, fill, wanted):
    """A project entry without a slug gets the one that the server makes of its name."""
    monitor = {"name": "site", "type": "Heartbeat", "project": wanted}
    entries = fill([{"name": "Acme", "teams": ["crew"], "projects": [{"name": "Shop"}], "monitors": [monitor]}])
    assert [step.kind for step in plan(nobody, Snapshot([]), entries, ()).steps][-1] == "monitor"


def test_a_monitor_that_names_one_of_two_is_told_to_give_the_slug(nobody, fill):
    monitor = {"name": "site", "type": "Heartbeat", "project": "Shop"}
    projects = [{"name": "Shop", "slug": "shop"}, {"name": "Shop", "slug": "shop-2"}]
    entries = fill([{"name": "Acme", "projects": projects, "monitors": [monitor]}])
    with pytest.raises(ConfigurationError, match="2 projects of the configuration are called 'Shop'; name it by its slug"):
        plan(nobody, there(project=TWINS), entries, ())


def test_the_slug_wins_over_the_name_of_another_project(nobody, fill):
    projects = [{"name": "www", "slug": "shop"}, {"name": "Shop", "slug": "www"}]
    there_now = [
        {"id": "3", "slug": "shop", "name": "www", "teams": []},
        {"id": "4", "slug": "www", "name": "Shop", "teams": []},
    ]
    beat = {"id": 9, "name": "site", "monitorType": "Heartbeat", "interval": 60, "projectID": "4", "heartbeatEndpoint": "x"}
    monitor = {"name": "site", "type": "Heartbeat", "project": "www"}
    entries = fill([{"name": "Acme", "projects": projects, "monitors": [monitor]}])
    assert plan(nobody, there(project=there_now, monitor=[beat]), entries, ()).steps == ()


def test_what_is_left_out_is_reported_and_never_purged(nobody, fill):
    rules = [{"id": 7, "name": ""}, {"id": 8, "name": "twin"}, {"id": 9, "name": "twin"}, {"id": 10, "name": "old"}]
    notes = [{"kind": "alert", "name": ""}, {"kind": "alert", "name": "twin", "why": "2 have this name"}]
    shop = {"name": "Shop", "slug": "shop", "alerts": [], "left_out": notes}
    lost = [{"kind": "project", "name": "Lost"}, {"kind": "monitor", "name": "two"}]
    entries = fill([{"name": "Acme", "projects": [shop], "monitors": [], "left_out": lost}])
    snapshot = there(
        project=[TWINS[0], {"id": "5", "slug": "has space", "name": "Lost"}, {"id": "6", "slug": "x", "name": "Gone"}],
        monitor=[{"id": 1, "name": "two"}, {"id": 2, "name": "two"}, {"id": 3, "name": "gone"}],
    )
    snapshot.lists[("alert", Where("Acme", "Shop", "shop"))] = rules
    planned = plan(nobody, snapshot, entries, ("alert", "monitor", "project"))
    assert [(step.verb, step.kind, step.name) for step in planned.steps] == [
        ("delete", "monitor", "gone"),
        ("delete", "alert", "old"),
        ("delete", "project", "Gone"),
    ]
    assert [thing["id"] for thing in planned.unmanaged] == ["5", 7, 8, 9, 1, 2]


def test_organizations_that_no_name_tells_apart_are_neither_touched_nor_purged(nobody, fill):
    two = [{"id": "1", "slug": "acme", "name": "Acme"}, {"id": "2", "slug": "acme-bg", "name": "Acme"}]
    entries = fill([{"name": "Acme", "left_out": [{"kind": "organization", "name": "Acme", "why": "2 have this name"}]}])
    assert plan(nobody, Snapshot(two), entries, ("organization",)).steps == ()
