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
from glitchtip_api.errors import InvalidError, UnsupportedError
from glitchtip_api.late_answers import LONGEST_REQUEST_SECONDS
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
    """A client that gives up waiting soon, but not before a busy server has taken its request."""
    return Client(server.url, "t", timeout=(1, 0.5), retries=0, sleep=pauses.append, jitter=lambda: 1.0)


def test_a_create_that_timed_out_but_happened_is_adopted(hasty, server):
    server.then(200, []).then(201, ORGANIZATION, delay=0.9).then(200, [ORGANIZATION])
    outcome = ensure_organization(hasty, "Acme")
    assert (outcome.changed, outcome.after) == (True, ORGANIZATION)
    assert writes(server) == ["POST /api/0/organizations/"]


def test_a_create_that_timed_out_and_happens_late_is_looked_for_more_than_once(hasty, server, pauses):
    server.then(200, []).then(201, ORGANIZATION, delay=0.9).then(200, []).then(200, [ORGANIZATION])
    assert ensure_organization(hasty, "Acme").after == ORGANIZATION
    assert pauses == [1.0]
    assert writes(server) == ["POST /api/0/organizations/"]


def test_a_create_that_was_lost_is_made_again_when_the_request_cannot_live_any_more(client, server, pauses):
    empty, dropped, made = server.then(200, []).then(drop=True).then(201, ORGANIZATION).replies
    creates = iter([dropped, made])

    def answer(asked):
        return empty if asked.method == "GET" else next(creates)

    server.answer = answer
    assert ensure_organization(client, "Acme").after == ORGANIZATION
    assert writes(server) == ["POST /api/0/organizations/"] * 2
    assert sum(pauses) >= LONGEST_REQUEST_SECONDS


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


def test_a_recipient_that_is_there_is_sent_without_tags_because_other_tags_are_a_500(client, server):
    new = {"id": 4, "recipientType": "webhook", "url": "https://new.example.org/"}
    changed = {**RULE, "quantity": 2, "alertRecipients": [STORED_HOOK, new]}
    server.then(200, [RULE]).then(200, changed)
    recipients = [{**HOOK, "tags": ["a"]}, {"type": "webhook", "url": new["url"], "tags": ["b"]}]
    outcome = ensure_alert(client, "acme", "shop", "hook", quantity=2, recipients=recipients)
    sent = {item["url"]: item.get("tagsToAdd") for item in server.asked[-1].json["alertRecipients"]}
    assert sent == {STORED_HOOK["url"]: None, new["url"]: ["b"]}
    assert outcome.after["quantity"] == 2


def test_a_rule_whose_only_recipient_is_away_for_a_moment_is_silent_meanwhile(client, server):
    server.then(200, [RULE]).then(200, {**RULE, "alertRecipients": []}).then(200, RULE)
    ensure_alert(client, "acme", "shop", "hook", recipients=[{**HOOK, "tags": ["a"]}], update_tags="always")
    first, second = (request.json for request in server.asked[-2:])
    assert (first["alertRecipients"], first["quantity"], first["uptime"]) == ([], None, False)
    assert (second["quantity"], second["uptime"]) == (1, False)


SHOWN = {**RULE, "alertRecipients": [{**STORED_HOOK, "tagsToAdd": ["a"], "config": {}}]}


def test_tags_that_the_server_shows_are_compared(client, server):
    assert (
        ensure_alert(
            client,
            "acme",
            "shop",
            "hook",
            recipients=[{**HOOK, "tags": ["a"]}],
            update_tags="always",
            listed=[SHOWN],
        ).changed
        is False
    )
    changed = {**SHOWN, "alertRecipients": [{**STORED_HOOK, "tagsToAdd": ["b"], "config": {}}]}
    server.then(200, changed)
    outcome = ensure_alert(
        client, "acme", "shop", "hook", recipients=[{**HOOK, "tags": ["b"]}], listed=[SHOWN]
    )
    assert [item["tagsToAdd"] for item in server.asked[-1].json["alertRecipients"]] == [["b"]]
    assert outcome.diff()["after"]["recipients"][0]["tags"] == ["b"]
    foreseen = ensure_alert(
        client, "acme", "shop", "hook", recipients=[{**HOOK, "tags": ["b"]}], listed=[SHOWN], dry_run=True
    )
    assert (foreseen.after, len(server.asked)) == (outcome.after, 1)


CONFIG = {
    "bot_email": "bot@z.example.org",
    "api_key": "canary-key",
    "channel": "ops",
    "topic": "GlitchTip Alerts",
}
ZULIP = {"type": "zulip", "url": "https://z.example.org", "config": {**CONFIG, "topic": None}}
STORED_ZULIP = {
    "id": 7,
    "recipientType": "zulip",
    "url": "https://z.example.org/",
    "tagsToAdd": [],
    "config": CONFIG,
}


def test_a_zulip_recipient_is_sent_flat_and_compared_as_its_config(client, server):
    rule = {**RULE, "alertRecipients": [STORED_ZULIP]}
    server.then(201, rule)
    options = {"quantity": 1, "timespan_minutes": 5, "recipients": [ZULIP]}
    ensure_alert(client, "acme", "shop", "hook", **options, listed=[], parent_known=True)
    assert server.asked[-1].json["alertRecipients"] == [
        {
            "recipientType": "zulip",
            "url": "https://z.example.org/",
            "botEmail": "bot@z.example.org",
            "apiKey": "canary-key",
            "channel": "ops",
            "topic": "GlitchTip Alerts",
        }
    ]
    assert ensure_alert(client, "acme", "shop", "hook", **options, listed=[rule]).changed is False
    other = {**ZULIP, "config": {**CONFIG, "api_key": "canary-new"}}
    foreseen = ensure_alert(client, "acme", "shop", "hook", recipients=[other], listed=[rule], dry_run=True)
    assert foreseen.changed is True
    assert "canary" not in str(foreseen.diff())


def test_recipients_that_stay_are_sent_back_whole(client, server):
    rule = {**RULE, "alertRecipients": [STORED_ZULIP, *SHOWN["alertRecipients"]]}
    server.then(200, {**rule, "quantity": 9})
    ensure_alert(client, "acme", "shop", "hook", quantity=9, listed=[rule])
    hook, zulip = sorted(server.asked[-1].json["alertRecipients"], key=lambda item: item["recipientType"])
    assert hook["tagsToAdd"] == ["a"]
    assert (zulip["apiKey"], zulip["topic"]) == ("canary-key", "GlitchTip Alerts")


def test_a_kind_that_the_server_is_too_old_for_is_named_with_its_version(client, server):
    refused = [{"loc": ["body", "payload", "alertRecipients", 0], "msg": "Input tag 'teams' found using 'x'"}]
    server.then(422, {"detail": refused}).then(200, {"version": "5.2.1"})
    recipients = [{"type": "teams", "url": "https://t.example.org"}]
    with pytest.raises(InvalidError) as failure:
        ensure_alert(
            client,
            "acme",
            "shop",
            "hook",
            uptime=True,
            recipients=recipients,
            listed=[],
            parent_known=True,
        )
    assert str(failure.value) == (
        "this server, GlitchTip 5.2.1, has no recipients of type 'teams'; they came with 6.0.7 "
        "(use type webhook, or upgrade the server)"
    )


@pytest.mark.parametrize(
    ("recipient", "sentence"),
    [
        (
            {"type": "telegram", "url": "https://t.example.org"},
            (
                "GlitchTip has no recipients of type 'telegram'; use type webhook with the address of a bridge that "
                "passes the message on (types: email, webhook, discord, googlechat, teams, ntfy, zulip, feishu)"
            ),
        ),
        (
            {"type": "slack", "url": "https://s.example.org"},
            (
                "GlitchTip has no recipients of type 'slack'; use type webhook with the address of its incoming "
                "webhook, which takes the same body (types: email, webhook, discord, googlechat, teams, ntfy, zulip, "
                "feishu)"
            ),
        ),
        (
            {"type": "zulip", "url": "https://z.example.org", "config": {"channel": "ops"}},
            "the config of a zulip recipient lacks bot_email, api_key; it has bot_email, api_key, channel, topic",
        ),
        (
            {**ZULIP, "config": {**CONFIG, "stream": "x"}},
            "the config of a zulip recipient has unknown stream; it has bot_email, api_key, channel, topic",
        ),
        ({**HOOK, "config": {"channel": "x"}}, "a webhook recipient takes no config; it is for zulip"),
        (
            {"type": "webhook", "url": "https://h.example.org/" + "x" * 1979},
            "a recipient's URL has at most 2000 characters",
        ),
    ],
)
def test_a_recipient_that_cannot_work_is_refused_with_a_sentence(recipient, sentence):
    with pytest.raises(InvalidError) as failure:
        check_recipients([recipient])
    assert str(failure.value) == sentence


def test_a_rule_is_tested_where_the_server_can(client, server):
    server.then(200, [{"recipientType": "webhook", "status": "sent", "message": None}])
    assert client.alerts.send_test("acme", "shop", 5, 3)[0]["status"] == "sent"
    assert server.lines == ["POST /api/0/projects/acme/shop/alerts/5/test/?recipient_id=3"]
    server.html(403)
    with pytest.raises(UnsupportedError, match=r"6\.0\.7 and later can"):
        client.alerts.send_test("acme", "shop", 5)


@pytest.mark.parametrize(("status", "detail"), [(403, "Permission denied"), (404, "Not Found")])
def test_a_refused_test_of_a_rule_is_not_taken_for_an_old_server(client, server, status, detail):
    server.then(status, {"detail": detail})
    with pytest.raises(GlitchTipError, match=detail):
        client.alerts.send_test("acme", "shop", 5)


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
        ("https://H.Example.com", "https://h.example.com/"),
        ("https://h.example.com:443/x", "https://h.example.com/x"),
        ("http://h.example.com:80?a=b", "http://h.example.com/?a=b"),
        ("https://h.example.com/a b", "https://h.example.com/a%20b"),
        ("https://h.example.com/a/../b/./c", "https://h.example.com/b/c"),
        ("https://h.example.com/ä?ö=ü", "https://h.example.com/%C3%A4?%C3%B6=%C3%BC"),
        ("https://bücher.example/x", "https://xn--bcher-kva.example/x"),
        ("https://h.example.com/x#frag", "https://h.example.com/x#frag"),
        ("https://h.example.com/%7euser/%C3%A4", "https://h.example.com/%7euser/%C3%A4"),
        ("https://h.example.com\\back\\s", "https://h.example.com/back/s"),
        (" https://h.example.com/trim ", "https://h.example.com/trim"),
        ("https://user:p@h.example.com/x", "https://user:p@h.example.com/x"),
        ('https://h.example.com/?q="a"<b>', "https://h.example.com/?q=%22a%22%3Cb%3E"),
        ("https://h.example.com/|x{y}^`", "https://h.example.com/|x%7By%7D^%60"),
        ("http://[2001:DB8::1]:80/x", "http://[2001:db8::1]/x"),
        ("http:h.example.com/x", "http://h.example.com/x"),
        ("https://h.example.com//a//b", "https://h.example.com//a//b"),
        ("https://h.example.com/x?", "https://h.example.com/x?"),
        ("https://h.example.com/x#", "https://h.example.com/x#"),
        ("https://h.example.com./x", "https://h.example.com./x"),
        ("http://h_x.example.com/", "http://h_x.example.com/"),
        ("https://h.example.com/a%zz", "https://h.example.com/a%zz"),
        ("https://h.example.com/?a=%41&b='c'", "https://h.example.com/?a=%41&b=%27c%27"),
        ("https://h.example.com/a;b=c", "https://h.example.com/a;b=c"),
        ("http://localhost:8080", "http://localhost:8080/"),
        ("https://u@h.example.com", "https://u@h.example.com/"),
        ("https://@h.example.com/", "https://h.example.com/"),
        ("https://h.example.com:/x", "https://h.example.com/x"),
        ("https://h.example.com/..", "https://h.example.com/"),
        ("https://h.example.com/a/%2e%2e/b", "https://h.example.com/b"),
        ("https:///h.example.com/x", "https://h.example.com/x"),
        ("https://ß.example/", "https://xn--zca.example/"),
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
    known = {"parent_known": True} if kind in ("project", "key", "alert") else {}
    assert ensure(client, *where, **options, listed=[], **known).changed is True
    assert [line.split()[0] for line in server.lines] == ["POST"]


@pytest.mark.parametrize("kind", [kind for kind in LISTED if kind != "organization"])
def test_a_parent_that_went_meanwhile_is_named_by_the_create(client, server, kind):
    ensure, where, options, _ = LISTED[kind]
    server.then(404, {"detail": "Not Found"})
    options = {"timespan_minutes": 5, **options} if kind == "alert" else options
    known = {"parent_known": True} if kind in ("project", "key", "alert") else {}
    with pytest.raises(MissingError, match=r"there is no (organization|team|project)"):
        ensure(client, *where, **options, listed=[], **known)


def test_a_project_is_found_by_its_slug_and_renamed(client, server):
    renamed = {**SHOP, "name": "Shop, production"}
    server.then(200, SHOP).then(200, renamed)
    options = {
        "slug": "shop",
        "listed": [SHOP, {**SHOP, "id": "2", "slug": "other", "name": "Shop, production"}],
    }
    outcome = ensure_project(client, "acme", None, "Shop, production", **options)
    assert server.asked[-1].json == {
        "name": "Shop, production",
        "slug": "shop",
        "platform": "node",
        "eventThrottleRate": 0,
    }
    assert outcome.diff() == {"before": {"name": "Shop"}, "after": {"name": "Shop, production"}}


def test_a_new_project_gets_its_slug_after_it_was_made(client, server):
    made = {**SHOP, "name": "Shop", "slug": "shop-2", "id": "9", "platform": None}
    server.then(201, made).then(200, {**made, "slug": "store"})
    outcome = ensure_project(
        client,
        "acme",
        "backend",
        "Shop",
        slug="store",
        event_throttle_rate=0,
        listed=[SHOP],
        parent_known=True,
    )
    assert writes(server) == ["POST /api/0/teams/acme/backend/projects/", "PUT /api/0/projects/acme/shop-2/"]
    assert server.asked[0].json == {"name": "Shop", "eventThrottleRate": 0}
    assert server.asked[1].json == {"name": "Shop", "slug": "store", "eventThrottleRate": 0}
    assert outcome.after["slug"] == "store"
    assert outcome.warnings == ("project 'store' is new although 'shop' has the name 'Shop', too",)


def test_a_slug_that_is_taken_leaves_no_half_project_behind(client, server):
    server.then(201, {**SHOP, "slug": "shop-2"}).html(500).then(204)
    with pytest.raises(GlitchTipError) as failure:
        ensure_project(client, "acme", "backend", "Shop", slug="store", listed=[], parent_known=True)
    assert writes(server)[-1] == "DELETE /api/0/projects/acme/shop-2/"
    assert str(failure.value) == (
        "PUT /api/0/projects/acme/shop-2/ answered 500: the slug 'store' is taken although no project shows it, so "
        "project 'Shop' was not made (a deleted project keeps its slug until the worker has removed it: try again "
        "in a minute)"
    )


def test_a_slug_that_the_server_changed_is_a_failure(client, server):
    server.then(201, {**SHOP, "slug": "shop-2"}).then(200, {**SHOP, "slug": "store-1"})
    with pytest.raises(GlitchTipError) as failure:
        ensure_project(client, "acme", "backend", "Shop", slug="store", listed=[], parent_known=True)
    assert str(failure.value) == (
        "PUT: the server made the slug 'store-1' where 'store' was wanted (delete that project, or ask for the slug "
        "that it has)"
    )


def test_a_create_by_slug_that_was_lost_does_not_adopt_another_of_the_name(hasty, server):
    made = {**SHOP, "id": "9", "slug": "shop-2"}
    server.then(201, made, delay=0.9).then(200, [SHOP, made]).then(200, {**made, "slug": "store"})
    outcome = ensure_project(hasty, "acme", "backend", "Shop", slug="store", listed=[SHOP], parent_known=True)
    assert (outcome.after["id"], outcome.after["slug"]) == ("9", "store")
    assert [line.split()[0] for line in server.lines] == ["POST", "GET", "PUT"]


@pytest.mark.parametrize(
    ("name", "made", "warned"),
    [("new", "new-1", False), ("x" * 64, "x" * 50, False), ("Shop", "shop-2", True), ("日本語", "-2", True)],
)
def test_the_slug_of_a_new_project_is_warned_about_when_it_is_not_the_plain_one(
    client, server, name, made, warned
):
    server.then(201, {**SHOP, "name": name, "slug": made})
    outcome = ensure_project(client, "acme", "backend", name, listed=[], parent_known=True)
    assert bool(outcome.warnings) is warned


def test_a_project_has_exactly_the_teams_that_are_named(client, server):
    server.then(201, SHOP).then(200, SHOP)
    outcome = ensure_project(
        client,
        "acme",
        None,
        "Shop",
        teams=["ops", "web", "ops"],
        listed=[{**SHOP, "teams": [{"slug": "backend"}, {"slug": "web"}]}],
    )
    assert writes(server) == [
        "POST /api/0/projects/acme/shop/teams/ops/",
        "DELETE /api/0/projects/acme/shop/teams/backend/",
    ]
    assert outcome.after["teams"] == ["ops", "web"]


def test_teams_that_are_not_named_stay(client, server):
    assert ensure_project(client, "acme", None, "Shop", listed=[SHOP]).changed is False
    assert server.asked == []


def test_a_team_that_is_missing_is_named(client, server):
    server.then(404, {"detail": "Not Found"})
    with pytest.raises(MissingError, match="no team 'ops' in organization 'acme'"):
        ensure_project(client, "acme", "ops", "Shop", listed=[SHOP])


@pytest.mark.parametrize(
    ("team", "options", "sentence"),
    [
        (None, {}, "the new project 'Shop' needs a team"),
        (None, {"teams": []}, "the new project 'Shop' needs a team"),
        (
            "backend",
            {"teams": ["ops"]},
            "team 'backend' of project 'Shop' is not among its teams ['ops']",
        ),
        (
            "backend",
            {"slug": "has space"},
            "a project's slug has 1 to 50 letters, digits, hyphens or underscores",
        ),
        ("backend", {"platform": "p" * 65}, "a project's platform has at most 64 characters"),
        (
            "backend",
            {"event_throttle_rate": 101},
            "the throttle rate is a number from 0 to 100",
        ),
    ],
)
def test_a_project_that_cannot_be_made_is_refused_with_a_sentence(client, server, team, options, sentence):
    with pytest.raises(InvalidError) as failure:
        ensure_project(client, "acme", team, "Shop", **options, listed=[])
    assert (str(failure.value), server.asked) == (sentence, [])


IDLE = "key 'app': the server stores a rate limit but does not enforce it"
FIXED = "key 'app': its rate limit stays as it is, because the server changes no key"
LIMIT = {"count": 100, "window": 60}


def test_a_rate_limit_is_written_once_and_said_to_do_nothing(client, server):
    server.then(201, {**KEY, "rateLimit": {"window": 60, "count": 100}})
    made = ensure_key(client, "acme", "shop", "app", rate_limit=LIMIT, listed=[], parent_known=True)
    assert server.asked[0].json == {"name": "app", "rateLimit": LIMIT}
    assert (made.warnings, made.after["rateLimit"]) == ((IDLE,), LIMIT)


@pytest.mark.parametrize(
    ("stored", "warnings"),
    [
        (None, (IDLE, FIXED)),
        ({"window": 60, "count": 100}, (IDLE,)),
        ({"window": 1, "count": 1}, (IDLE, FIXED)),
    ],
)
def test_the_rate_limit_of_a_key_that_is_there_stays(client, server, stored, warnings):
    listed = [{**KEY, "rateLimit": stored}]
    outcome = ensure_key(client, "acme", "shop", "app", rate_limit=LIMIT, listed=listed)
    assert (outcome.changed, outcome.warnings, server.asked) == (False, warnings, [])


@pytest.mark.parametrize(
    "limit", [{}, {"count": 1}, {"count": 0, "window": 1}, {"count": 1, "window": 32768}]
)
def test_a_rate_limit_that_the_server_breaks_on_is_refused(client, limit):
    with pytest.raises(InvalidError, match="both from 1 to 32767"):
        ensure_key(client, "acme", "shop", "app", rate_limit=limit, listed=[])


def test_a_key_of_a_missing_project_is_not_taken_for_a_new_one(client, server):
    server.then(200, []).then(404, {"detail": "Not Found"})
    with pytest.raises(MissingError, match="no project 'shop'"):
        ensure_key(client, "acme", "shop", "app", dry_run=True)


def test_the_key_without_a_name_cannot_be_named(client, server):
    with pytest.raises(InvalidError):
        ensure_key(client, "acme", "shop", "", state="absent")
    assert server.asked == []
