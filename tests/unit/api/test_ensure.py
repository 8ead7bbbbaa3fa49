"""Create once, never double, send whole objects, refuse what harms the server."""

from __future__ import annotations

import pytest

from glitchtip_api import AmbiguousError, Client, GlitchTipError, MissingError
from glitchtip_api.ensure import (
    ensure_alert,
    ensure_key,
    ensure_organization,
    ensure_project,
    ensure_team,
    slugify,
)
from glitchtip_api.ensure.outcome import Outcome
from glitchtip_api.errors import InvalidError
from glitchtip_api.validate import check_recipients, normal_url

ORGANIZATION = {"id": "1", "slug": "acme", "name": "Acme"}
HOOK = {"type": "webhook", "url": "https://h.example.org?token=a"}
STORED_HOOK = {"id": 3, "recipientType": "webhook", "url": "https://h.example.org/?token=a"}
RULE = {
    "id": 5,
    "name": "hook",
    "quantity": 1,
    "timespanMinutes": 5,
    "uptime": False,
    "alertRecipients": [STORED_HOOK],
}


def writes(server):
    return [line for line in server.lines if not line.startswith("GET")]


@pytest.fixture
def hasty(server, pauses):
    """A client that gives up waiting after a tenth of a second."""
    return Client(server.url, "t", timeout=(1, 0.1), retries=0, sleep=pauses.append, jitter=lambda: 1.0)


def test_a_create_that_timed_out_but_happened_is_adopted(hasty, server):
    server.then(200, []).then(201, ORGANIZATION, delay=0.3).then(200, [ORGANIZATION])
    outcome = ensure_organization(hasty, "Acme")
    assert (outcome.changed, outcome.after) == (True, ORGANIZATION)
    assert writes(server) == ["POST /api/0/organizations/"]


def test_a_create_that_timed_out_and_happens_late_is_looked_for_more_than_once(hasty, server, pauses):
    server.then(200, []).then(201, ORGANIZATION, delay=0.3).then(200, []).then(200, [ORGANIZATION])
    assert ensure_organization(hasty, "Acme").after == ORGANIZATION
    assert pauses == [1.0]
    assert writes(server) == ["POST /api/0/organizations/"]


def test_a_create_that_was_lost_is_made_again_after_looking(client, server):
    server.then(200, []).then(drop=True)
    for _ in range(3):
        server.then(200, [])
    server.then(201, ORGANIZATION)
    assert ensure_organization(client, "Acme").after == ORGANIZATION
    assert writes(server) == ["POST /api/0/organizations/"] * 2


def test_a_team_that_someone_else_made_meanwhile_is_adopted_after_the_500(client, server):
    server.then(200, []).html(500).then(200, [{"id": "1", "slug": "backend"}])
    assert ensure_team(client, "acme", "backend").after == {"id": "1", "slug": "backend"}


def test_a_create_that_really_fails_with_500_is_reported_and_not_repeated(client, server):
    server.then(200, []).html(500).then(200, []).then(200, []).then(200, [])
    with pytest.raises(GlitchTipError, match="500"):
        ensure_team(client, "acme", "backend")
    assert len(writes(server)) == 1


def test_a_refused_create_is_not_looked_after(client, server):
    server.then(200, []).then(403, {"detail": "Permission denied"})
    with pytest.raises(GlitchTipError, match="Permission denied"):
        ensure_organization(client, "Acme")
    assert len(server.asked) == 2


def test_two_organizations_of_one_name_are_a_failure_that_lists_them(client, server):
    server.then(200, [ORGANIZATION, {**ORGANIZATION, "id": "2", "slug": "acme-bg"}])
    with pytest.raises(AmbiguousError, match="acme, acme-bg"):
        ensure_organization(client, "Acme")


def test_a_missing_organization_is_named(client, server):
    server.then(404, {"detail": "Not Found"})
    with pytest.raises(MissingError, match="no organization 'nope'"):
        ensure_team(client, "nope", "backend")


@pytest.mark.parametrize("slug", ["", "has space", "x" * 51, "ümlaut"])
def test_a_team_slug_that_the_server_refuses_is_refused_first(client, server, slug):
    with pytest.raises(InvalidError):
        ensure_team(client, "acme", slug)
    assert server.asked == []


def test_a_project_is_changed_by_one_write_of_the_whole(client, server):
    listed = {"id": "1", "slug": "shop", "name": "Shop", "platform": "python", "eventThrottleRate": 5}
    listed["teams"] = [{"slug": "backend"}]
    server.then(200, [listed]).then(200, listed).then(200, {**listed, "platform": "node"})
    outcome = ensure_project(client, "acme", "backend", "Shop", platform="node")
    assert server.asked[-1].json == {
        "name": "Shop",
        "slug": "shop",
        "platform": "node",
        "eventThrottleRate": 5,
    }
    assert outcome.diff() == {"before": {"platform": "python"}, "after": {"platform": "node"}}


def test_a_project_joins_the_team_and_keeps_its_others(client, server):
    listed = {"id": "1", "slug": "shop", "name": "Shop", "platform": "node", "eventThrottleRate": 0}
    server.then(200, [{**listed, "teams": [{"slug": "ops"}]}]).then(201, {"id": "2"})
    outcome = ensure_project(client, "acme", "backend", "Shop", platform="node")
    assert writes(server) == ["POST /api/0/projects/acme/shop/teams/backend/"]
    assert outcome.after["teams"] == ["backend", "ops"]


def test_omitted_options_of_a_project_stay(client, server):
    listed = {"id": "1", "slug": "shop", "name": "Shop", "platform": "node", "eventThrottleRate": 9}
    server.then(200, [{**listed, "teams": [{"slug": "backend"}]}])
    assert ensure_project(client, "acme", "backend", "Shop").changed is False


def test_a_slug_with_a_suffix_is_warned_about(client, server):
    created = {"id": "9", "slug": "shop-2", "name": "Shop", "platform": None, "eventThrottleRate": 0}
    server.then(200, []).then(200, {"slug": "backend"}).then(201, created)
    assert "shop-2" in ensure_project(client, "acme", "backend", "Shop").warnings[0]


def test_a_key_gets_the_address_for_ingest(client, server):
    key = {
        "id": "9193e83c-80dc-4292-b568-632c3b3c23c6",
        "name": "app",
        "dsn": {"public": "http://9193e83c80dc4292b568632c3b3c23c6@localhost:9090/1"},
    }
    server.then(200, [{**key, "name": ""}, key])
    outcome = ensure_key(client, "acme", "shop", "app", ingest_url="http://127.0.0.1:8080")
    assert outcome.after["dsn"] == "http://9193e83c80dc4292b568632c3b3c23c6@127.0.0.1:8080/1"
    assert outcome.changed is False


def test_a_rule_is_unchanged_when_the_server_normalised_its_address(client, server):
    server.then(200, [RULE])
    outcome = ensure_alert(
        client, "acme", "shop", "hook", quantity=1, timespan_minutes=5, uptime=False, recipients=[HOOK]
    )
    assert outcome.changed is False
    assert writes(server) == []


def test_recipients_are_compared_as_a_set(client, server):
    mail = {"id": 1, "recipientType": "email", "url": ""}
    server.then(200, [{**RULE, "alertRecipients": [STORED_HOOK, mail]}])
    assert ensure_alert(client, "acme", "shop", "hook", recipients=[{"type": "email"}, HOOK]).changed is False


def test_a_changed_number_still_sends_every_recipient(client, server):
    server.then(200, [RULE]).then(200, {**RULE, "quantity": 3})
    ensure_alert(client, "acme", "shop", "hook", quantity=3)
    body = server.asked[-1].json
    assert body["alertRecipients"] == [{"recipientType": "webhook", "url": STORED_HOOK["url"]}]
    assert (body["name"], body["quantity"], body["timespanMinutes"]) == ("hook", 3, 5)


def test_changed_tags_are_written_by_two_puts(client, server):
    server.then(200, [RULE]).then(200, {**RULE, "alertRecipients": []}).then(200, RULE)
    tagged = {**HOOK, "tags": ["service"]}
    outcome = ensure_alert(client, "acme", "shop", "hook", recipients=[tagged], update_tags="always")
    first, second = (request.json["alertRecipients"] for request in server.asked[-2:])
    assert first == []
    assert [recipient["tagsToAdd"] for recipient in second] == [["service"]]
    assert outcome.changed is True


def test_tags_of_an_unchanged_recipient_are_not_written_by_default(client, server):
    server.then(200, [RULE])
    assert ensure_alert(client, "acme", "shop", "hook", recipients=[{**HOOK, "tags": ["x"]}]).changed is False


def test_a_500_for_unknown_tags_is_explained(client, server):
    server.then(200, [RULE]).html(500)
    with pytest.raises(GlitchTipError, match="give tags for every recipient"):
        ensure_alert(client, "acme", "shop", "hook", quantity=2)


def test_a_500_for_known_tags_is_solved_by_two_puts(client, server):
    changed = {**RULE, "quantity": 2}
    server.then(200, [RULE]).html(500).then(200, {**changed, "alertRecipients": []}).then(200, changed)
    outcome = ensure_alert(client, "acme", "shop", "hook", quantity=2, recipients=[{**HOOK, "tags": ["a"]}])
    assert outcome.after["quantity"] == 2


def test_half_a_rule_left_by_a_500_is_completed(client, server):
    server.then(200, []).then(200, {"slug": "shop"}).html(500).then(200, [{**RULE, "alertRecipients": []}])
    server.then(200, RULE).then(200, RULE)
    outcome = ensure_alert(client, "acme", "shop", "hook", quantity=1, timespan_minutes=5, recipients=[HOOK])
    assert outcome.after["recipients"] == [{"type": "webhook", "url": STORED_HOOK["url"]}]
    assert len([line for line in writes(server) if line.startswith("POST")]) == 1


def test_a_rule_that_is_not_as_written_is_a_failure(client, server):
    server.then(200, [RULE]).then(200, {**RULE, "quantity": 7})
    with pytest.raises(GlitchTipError, match="not as it was written"):
        ensure_alert(client, "acme", "shop", "hook", quantity=2)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"quantity": -1}, "bad_number"),
        ({"quantity": 32768}, "bad_number"),
        ({"timespan_minutes": 99999}, "bad_number"),
        ({"recipients": []}, "no_recipients"),
        (
            {"recipients": [HOOK, {"type": "webhook", "url": "https://H.example.org:443/?token=a"}]},
            "bad_recipient",
        ),
        ({"recipients": [{"type": "slack", "url": "https://h.example.org"}]}, "bad_recipient"),
        ({"recipients": [{"type": "webhook", "url": "not a url"}]}, "bad_recipient"),
        ({"recipients": [{"type": "email", "url": "https://h.example.org"}]}, "bad_recipient"),
    ],
)
def test_what_harms_a_rule_is_refused_before_sending(client, server, options, code):
    with pytest.raises(InvalidError) as failure:
        ensure_alert(client, "acme", "shop", "hook", **options)
    assert (failure.value.code, server.asked) == (code, [])


@pytest.mark.parametrize(
    ("options", "code"), [({}, "no_recipients"), ({"recipients": [HOOK], "quantity": 1}, "never_fires")]
)
def test_a_new_rule_that_could_not_work_is_refused(client, server, options, code):
    server.then(200, [])
    with pytest.raises(InvalidError) as failure:
        ensure_alert(client, "acme", "shop", "hook", **options)
    assert failure.value.code == code
    assert writes(server) == []


def test_a_rule_for_a_missing_project_is_not_taken_for_an_empty_list(client, server):
    server.then(200, []).then(404, {"detail": "Not Found"})
    with pytest.raises(MissingError, match="no project 'shop'"):
        ensure_alert(client, "acme", "shop", "hook", quantity=1, timespan_minutes=5, recipients=[HOOK])


def test_a_window_that_loses_alerts_is_warned_about(client, server):
    server.then(200, [{**RULE, "timespanMinutes": 1}])
    assert "use 5 or more" in ensure_alert(client, "acme", "shop", "hook").warnings[0]


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("https://h.example.org?token=a", "https://h.example.org/?token=a"),
        ("HTTPS://H.Example.ORG:443/Path", "https://h.example.org/Path"),
        ("http://h.example.org:8080", "http://h.example.org:8080/"),
        ("http://[2001:DB8::1]:80/x", "http://[2001:db8::1]/x"),
    ],
)
def test_addresses_are_compared_as_the_server_stores_them(given, stored):
    assert normal_url(given) == stored == normal_url(stored)


def test_recipients_without_tags_leave_them_out():
    assert "tagsToAdd" not in check_recipients([HOOK])[0]
    assert check_recipients([{**HOOK, "tags": []}])[0]["tagsToAdd"] == []


@pytest.mark.parametrize(
    ("name", "slug"),
    [("AI Admin", "ai-admin"), ("Żółw & Sons", "zow-sons"), (" a -- b_ ", "a-b"), ("12345", "12345")],
)
def test_slugs_are_foreseen_as_the_server_makes_them(name, slug):
    assert slugify(name) == slug


def test_a_diff_holds_changed_keys_only_and_no_secret():
    before = {"id": "9193e83c-80dc-4292-b568-632c3b3c23c6", "name": "a", "dsn": "http://k@h/1"}
    removed = Outcome(True, before, None).diff()
    assert removed == {
        "before": {"state": "present", "id": "***", "name": "a", "dsn": "***"},
        "after": {"state": "absent"},
    }
    rules = [
        {"recipients": [{"type": "webhook", "url": url}], "name": "n"}
        for url in ("https://h/a?s=1", "https://h/b")
    ]
    assert Outcome(True, *rules).diff()["after"] == {
        "recipients": [{"type": "webhook", "url": "https://h/***"}]
    }


KEY = {
    "id": "9193e83c-80dc-4292-b568-632c3b3c23c6",
    "name": "app",
    "dsn": {"public": "http://9193e83c80dc4292b568632c3b3c23c6@localhost:9090/1"},
}
SHOP = {
    "id": "1",
    "slug": "shop",
    "name": "Shop",
    "platform": "node",
    "eventThrottleRate": 0,
    "teams": [{"slug": "backend"}],
}
TEAM = {"id": "1", "slug": "backend"}
LISTED = {
    "organization": (ensure_organization, ("Acme",), {}, [ORGANIZATION]),
    "team": (ensure_team, ("acme", "backend"), {}, [TEAM]),
    "project": (ensure_project, ("acme", "backend", "Shop"), {"platform": "node"}, [SHOP]),
    "key": (ensure_key, ("acme", "shop", "app"), {}, [KEY]),
    "alert": (ensure_alert, ("acme", "shop", "hook"), {"quantity": 1, "recipients": [HOOK]}, [RULE]),
}


@pytest.mark.parametrize("kind", LISTED)
def test_with_the_siblings_given_an_object_as_wanted_costs_no_request(client, server, kind):
    ensure, where, options, listed = LISTED[kind]
    assert ensure(client, *where, **options, listed=listed).changed is False
    assert ensure(client, *where, **options, listed=[], state="absent").changed is False
    assert server.asked == []


@pytest.mark.parametrize("kind", LISTED)
def test_with_the_siblings_given_a_new_object_costs_one_request(client, server, kind):
    ensure, where, options, listed = LISTED[kind]
    server.then(201, listed[0])
    options = {"timespan_minutes": 5, **options} if kind == "alert" else options
    known = {"parent_known": True} if kind in ("project", "alert") else {}
    assert ensure(client, *where, **options, listed=[], **known).changed is True
    assert [line.split()[0] for line in server.lines] == ["POST"]


@pytest.mark.parametrize("kind", [kind for kind in LISTED if kind != "organization"])
def test_a_parent_that_went_meanwhile_is_named_by_the_create(client, server, kind):
    ensure, where, options, _ = LISTED[kind]
    server.then(404, {"detail": "Not Found"})
    options = {"timespan_minutes": 5, **options} if kind == "alert" else options
    known = {"parent_known": True} if kind in ("project", "alert") else {}
    with pytest.raises(MissingError, match=r"there is no (organization|team|project)"):
        ensure(client, *where, **options, listed=[], **known)
