"""Alert rules: how they are kept. What is delivered: test_deliveries.py."""

from __future__ import annotations

import os

import pytest

SIX = "source: 6.2 line, apps/alerts (schema.py, api.py)"
PUBLIC = "https://hooks.example.com"


def rule(url=f"{PUBLIC}/hook", **more):
    recipients = [{"recipientType": "webhook", "url": url, "tagsToAdd": ["component"]}]
    return {"name": "hook", "quantity": 1, "timespanMinutes": 5, "alertRecipients": recipients, **more}


@pytest.fixture
def alerts(new_project):
    """The path of the alerts of a fresh project."""
    return f"{new_project().path}alerts/"


@pytest.mark.line("5.2")
def test_a_rule_is_returned_without_the_tags_to_add(server, alerts):
    made = server.post(alerts, rule(uptime=True))
    recipient = made["alertRecipients"][0]
    assert recipient == {"id": recipient["id"], "recipientType": "webhook", "url": f"{PUBLIC}/hook"}
    assert (made["name"], made["quantity"], made["timespanMinutes"], made["uptime"]) == ("hook", 1, 5, True)
    assert server.get(alerts) == [made]


def test_every_field_is_optional(server, alerts):
    made = server.post(alerts, {})
    expected = {"alertRecipients": [], "name": "", "timespanMinutes": None, "quantity": None, "uptime": False}
    assert made == {**expected, "id": made["id"]}


def test_snake_case_is_accepted(server, alerts):
    recipients = [{"recipient_type": "webhook", "url": f"{PUBLIC}/snake"}]
    made = server.post(alerts, {"timespan_minutes": 5, "quantity": 3, "alert_recipients": recipients})
    assert (made["timespanMinutes"], len(made["alertRecipients"])) == (5, 1)


def test_the_same_rule_twice_is_two_rules_newest_first(server, alerts):
    ids = [server.post(alerts, rule())["id"] for _ in range(2)]
    assert [item["id"] for item in server.get(alerts)] == ids[::-1]


@pytest.mark.line("6.2", provenance=SIX)
def test_a_rule_is_returned_with_the_tags_and_the_config_of_its_recipients(server, alerts):
    made = server.post(alerts, rule())
    recipient = made["alertRecipients"][0]
    shown = {"recipientType": "webhook", "url": f"{PUBLIC}/hook", "config": {}, "tagsToAdd": ["component"]}
    assert recipient == {**shown, "id": recipient["id"]}
    assert server.get(alerts) == [made]


#: As it is sent, and as it is stored.
URLS = {
    "https://h1.example.com?token=a": "https://h1.example.com/?token=a",
    "HTTPS://H2.Example.COM:443/Path": "https://h2.example.com/Path",
    "http://h3.example.com:80": "http://h3.example.com/",
    "http://h3.example.com:8080": "http://h3.example.com:8080/",
    "https://h.example.com/a b": "https://h.example.com/a%20b",
    "https://h.example.com/c/../d/./e": "https://h.example.com/d/e",
    "https://h.example.com/f/%2e%2e/g": "https://h.example.com/g",
    "https://h.example.com/\u00e4?\u00f6=\u00fc": "https://h.example.com/%C3%A4?%C3%B6=%C3%BC",
    "https://b\u00fccher.example/x": "https://xn--bcher-kva.example/x",
    "https://\u00df.example/": "https://xn--zca.example/",
    "https://h.example.com/%7ekept/%C3%A4": "https://h.example.com/%7ekept/%C3%A4",
    "https://h.example.com\\back\\slash": "https://h.example.com/back/slash",
    " https://h.example.com/trimmed ": "https://h.example.com/trimmed",
    "https://user:word@h.example.com/x": "https://user:word@h.example.com/x",
    "https://h.example.com/?q=\"a\"<b>'c'": "https://h.example.com/?q=%22a%22%3Cb%3E%27c%27",
    "https://h.example.com/|x{y}^`": "https://h.example.com/|x%7By%7D^%60",
    "http://[2001:4860:4860::8888]:80/x": "http://[2001:4860:4860::8888]/x",
    "https:h.example.com/scheme": "https://h.example.com/scheme",
    "https://h.example.com//double//slash": "https://h.example.com//double//slash",
    "https://h.example.com/empty?": "https://h.example.com/empty?",
    "https://h.example.com/empty#": "https://h.example.com/empty#",
    "https://h.example.com/part#of": "https://h.example.com/part#of",
    "https://h.example.com./dot": "https://h.example.com./dot",
}


def test_urls_are_stored_as_a_browser_reads_them(server, alerts):
    recipients = [{"recipientType": "webhook", "url": url} for url in URLS]
    made = server.post(alerts, {"alertRecipients": recipients})
    assert [item["url"] for item in made["alertRecipients"]] == list(URLS.values())


def test_a_url_of_more_than_2000_characters_is_500_and_of_more_than_2083_is_422(server, alerts):
    for length, status in ((2000, 201), (2001, 500), (2083, 500), (2084, 422)):
        url = f"{PUBLIC}/".ljust(length, "x")
        assert server.call("POST", alerts, rule(url)).status_code == status, length


def test_a_recipient_needs_a_known_type_and_an_absolute_url(server, alerts):
    for recipient, kind in (
        ("webhook", "model_attributes_type"),
        ({}, "union_tag_not_found"),
        ({"recipientType": "slack", "url": PUBLIC}, "union_tag_invalid"),
        ({"recipientType": "telegram", "url": PUBLIC}, "union_tag_invalid"),
        ({"recipientType": "webhook"}, "missing"),
        ({"recipientType": "webhook", "url": None}, "url_type"),
        ({"recipientType": "webhook", "url": "not a url"}, "url_parsing"),
        ({"recipientType": "webhook", "url": "http://"}, "url_parsing"),
        ({"recipientType": "webhook", "url": "ftp://example.com/x"}, "url_scheme"),
        ({"recipientType": "email", "url": "not a url"}, "url_parsing"),
        ({"recipientType": "webhook", "url": PUBLIC, "tagsToAdd": "x"}, "list_type"),
        ({"recipientType": "webhook", "url": PUBLIC, "tagsToAdd": [1]}, "string_type"),
    ):
        answer = server.call("POST", alerts, {"alertRecipients": [recipient]})
        assert answer.status_code == 422, recipient
        assert answer.json()["detail"][0]["type"] == kind, recipient
    assert server.get(alerts) == []


@pytest.mark.line("5.2")
@pytest.mark.parametrize("kind", ["teams", "ntfy", "zulip", "feishu"])
def test_the_kinds_of_the_6_line_are_refused_with_those_that_are_known(server, alerts, kind):
    recipient = {"recipientType": kind, "url": PUBLIC}
    answer = server.call("POST", alerts, {"alertRecipients": [recipient]})
    message = answer.json()["detail"][0]["msg"]
    assert answer.status_code == 422
    assert message.startswith(f"Input tag '{kind}' found using")
    assert message.endswith(
        "RecipientType.EMAIL, RecipientType.DISCORD, RecipientType.GENERAL_WEBHOOK, RecipientType.GOOGLE_CHAT"
    )


ZULIP = {"recipientType": "zulip", "url": f"{PUBLIC}/zulip", "botEmail": "bot@example.com", "apiKey": "k"}


@pytest.mark.line("6.2", provenance=SIX)
def test_teams_ntfy_zulip_and_feishu_are_recipients_too(server, alerts):
    kinds = ("teams", "ntfy", "feishu")
    recipients = [{"recipientType": kind, "url": f"{PUBLIC}/{kind}"} for kind in kinds]
    made = server.post(alerts, {"alertRecipients": [*recipients, {**ZULIP, "channel": "ops", "topic": "t"}]})
    assert [item["recipientType"] for item in made["alertRecipients"]] == [*kinds, "zulip"]
    config = {"bot_email": "bot@example.com", "api_key": "k", "channel": "ops", "topic": "t"}
    assert [item["config"] for item in made["alertRecipients"]] == [{}, {}, {}, config]


@pytest.mark.line("6.2", provenance=SIX)
def test_zulip_needs_its_bot_its_key_and_its_channel(server, alerts):
    answer = server.call("POST", alerts, {"alertRecipients": [ZULIP]})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][-1] == "channel"


@pytest.mark.line("6.2", provenance=SIX)
def test_other_tags_and_another_key_are_saved_for_the_same_recipient(server, alerts):
    body = rule()
    body["alertRecipients"].append({**ZULIP, "channel": "ops"})
    made = server.post(alerts, body)
    body["alertRecipients"][0]["tagsToAdd"] = ["region"]
    body["alertRecipients"][1]["apiKey"] = "new"
    changed = server.call("PUT", f"{alerts}{made['id']}/", body).json()["alertRecipients"]
    assert [item["id"] for item in changed] == [item["id"] for item in made["alertRecipients"]]
    assert (changed[0]["tagsToAdd"], changed[1]["config"]["api_key"]) == (["region"], "new")


def test_email_discord_and_google_chat_are_recipients_too(server, alerts):
    recipients = [
        {"recipientType": "discord", "url": f"{PUBLIC}/discord"},
        {"recipientType": "googlechat", "url": f"{PUBLIC}/chat"},
        {"recipientType": "email"},
    ]
    made = server.post(alerts, {"alertRecipients": recipients})
    assert [(item["recipientType"], item["url"]) for item in made["alertRecipients"]] == [
        ("discord", f"{PUBLIC}/discord"),
        ("googlechat", f"{PUBLIC}/chat"),
        ("email", ""),
    ]


def test_two_identical_recipients_are_500_yet_the_rule_exists(server, alerts):
    recipient = {"recipientType": "webhook", "url": f"{PUBLIC}/x"}
    assert server.call("POST", alerts, {"name": "dup", "alertRecipients": [recipient] * 2}).status_code == 500
    assert [item["name"] for item in server.get(alerts)] == ["dup"]


@pytest.mark.parametrize(
    "recipients", [None, [{"recipientType": "email", "url": None}]], ids=["null", "null url"]
)
def test_recipients_of_null_and_a_url_of_null_are_500_yet_the_rule_exists(server, alerts, recipients):
    assert server.call("POST", alerts, {"name": "half", "alertRecipients": recipients}).status_code == 500
    assert [(item["name"], item["alertRecipients"]) for item in server.get(alerts)] == [("half", [])]


def test_an_email_recipient_keeps_a_url_that_it_is_given(server, alerts):
    made = server.post(alerts, {"alertRecipients": [{"recipientType": "email", "url": f"{PUBLIC}/mail"}]})
    assert made["alertRecipients"][0]["url"] == f"{PUBLIC}/mail"


def test_what_does_not_fit_a_column_is_500_and_makes_no_rule(server, alerts):
    for body in (
        {"quantity": -1},
        {"quantity": 32768},
        {"timespanMinutes": -1},
        {"timespanMinutes": 99999},
        {"name": None},
        {"name": "x" * 256},
    ):
        assert server.call("POST", alerts, body).status_code == 500, body
    assert server.get(alerts) == []
    largest = {"name": "x" * 255, "quantity": 32767, "timespanMinutes": 32767}
    assert server.call("POST", alerts, largest).status_code == 201


def test_a_rule_cannot_be_read_alone(server, alerts):
    made = server.post(alerts, rule())
    assert server.call("GET", f"{alerts}{made['id']}/").status_code == 405


def test_put_without_recipients_deletes_them_and_keeps_the_scalars(server, alerts):
    made = server.post(alerts, rule(uptime=True))
    changed = server.call("PUT", f"{alerts}{made['id']}/", {"name": "renamed"}).json()
    assert changed == {**made, "name": "renamed", "alertRecipients": []}


def test_identical_recipients_keep_their_ids(server, alerts):
    made = server.post(alerts, rule())
    again = server.call("PUT", f"{alerts}{made['id']}/", rule())
    assert (again.status_code, again.json()) == (200, made)


@pytest.mark.line("5.2")
def test_other_tags_for_the_same_recipient_are_500(server, alerts):
    made = server.post(alerts, rule())
    body = rule()
    body["alertRecipients"][0]["tagsToAdd"] = ["component", "region"]
    assert server.call("PUT", f"{alerts}{made['id']}/", body).status_code == 500
    without = server.call("PUT", f"{alerts}{made['id']}/", {**body, "alertRecipients": []})
    assert without.status_code == 200
    assert server.call("PUT", f"{alerts}{made['id']}/", body).status_code == 200


def test_a_missing_rule_is_404(server, alerts):
    assert server.call("PUT", f"{alerts}999999999/", {"name": "x"}).status_code == 404
    made = server.post(alerts, {})
    assert server.call("DELETE", f"{alerts}{made['id']}/").status_code == 204
    assert server.call("DELETE", f"{alerts}{made['id']}/").status_code == 404


def test_rules_of_a_missing_project_are_an_empty_list_but_cannot_be_made(server, organization):
    path = f"/api/0/projects/{organization}/nope/alerts/"
    assert server.get(path) == []
    assert server.call("POST", path, {"name": "x"}).status_code == 404


@pytest.mark.line("5.2")
def test_a_change_that_breaks_is_saved_up_to_there(server, alerts):
    made = server.post(alerts, rule())
    body = rule(name="half")
    body["alertRecipients"][0]["tagsToAdd"] = ["region"]
    body["alertRecipients"].insert(0, {"recipientType": "webhook", "url": f"{PUBLIC}/new"})
    assert server.call("PUT", f"{alerts}{made['id']}/", body).status_code == 500
    left = server.get(alerts)[0]
    assert left["name"] == "half"
    assert {item["url"] for item in left["alertRecipients"]} == {f"{PUBLIC}/hook", f"{PUBLIC}/new"}


def test_a_change_to_recipients_of_null_saves_the_rest_and_is_500(server, alerts):
    made = server.post(alerts, rule())
    body = {"name": "half", "alertRecipients": None}
    assert server.call("PUT", f"{alerts}{made['id']}/", body).status_code == 500
    assert server.get(alerts) == [{**made, "name": "half"}]


def test_a_recipient_that_is_there_may_be_sent_without_its_tags(server, alerts):
    made = server.post(alerts, rule())
    recipients = [{"recipientType": "webhook", "url": f"{PUBLIC}/hook"}]
    answer = server.call("PUT", f"{alerts}{made['id']}/", {"alertRecipients": recipients})
    assert (answer.status_code, answer.json()) == (200, made)


@pytest.mark.line("5.2")
def test_a_rule_cannot_be_tested(server, alerts):
    made = server.post(alerts, rule())
    answer = server.call("POST", f"{alerts}{made['id']}/test/")
    assert (answer.status_code, answer.headers["Content-Type"].partition(";")[0]) == (403, "text/html")


def test_rules_are_written_with_project_write_and_deleted_with_project_admin_only(server, scoped, alerts):
    assert server.call("POST", alerts, rule(), token=scoped("project:read")).status_code == 403
    made = server.post(alerts, rule(), token=scoped("project:write"))
    path = f"{alerts}{made['id']}/"
    assert server.call("PUT", path, rule(), token=scoped("project:read")).status_code == 403
    assert server.call("PUT", path, rule(), token=scoped("project:admin")).status_code == 200
    assert server.call("DELETE", path, token=scoped("project:write")).status_code == 403
    assert server.call("DELETE", path, token=scoped("project:admin")).status_code == 204


@pytest.mark.line("6.2", provenance=f"{SIX}; glitchtip/url_validation.py")
def test_a_webhook_to_a_private_address_is_refused_unless_the_server_allows_them(server, alerts):
    answer = server.call("POST", alerts, rule("http://10.0.0.1/hook"))
    if os.environ.get("GLITCHTIP_ALLOW_PRIVATE_IPS") == "true":
        assert answer.status_code == 201
    else:
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["msg"].endswith(
            "URLs targeting private or internal IPs are not allowed"
        )
