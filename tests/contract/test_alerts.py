"""Alert rules: how they are kept, and what is delivered."""

from __future__ import annotations

import os
import time
import uuid

import pytest
from contract.server import DELIVERY_SECONDS

PUBLIC = "https://hooks.example.com"


def rule(url=f"{PUBLIC}/hook", **more):
    recipients = [{"recipientType": "webhook", "url": url, "tagsToAdd": ["component"]}]
    return {"name": "hook", "quantity": 1, "timespanMinutes": 5, "alertRecipients": recipients, **more}


@pytest.fixture
def alerts(new_project):
    """The path of the alerts of a fresh project."""
    return f"{new_project().path}alerts/"


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


def test_urls_are_normalised_when_saved(server, alerts):
    made = server.post(alerts, rule(f"{PUBLIC}?token=a"))
    assert made["alertRecipients"][0]["url"] == f"{PUBLIC}/?token=a"


def test_a_recipient_needs_a_known_type_and_an_absolute_url(server, alerts):
    for recipient, kind in (
        ({"recipientType": "slack", "url": PUBLIC}, "union_tag_invalid"),
        ({"recipientType": "webhook"}, "missing"),
        ({"recipientType": "webhook", "url": "not a url"}, "url_parsing"),
    ):
        answer = server.call("POST", alerts, {"alertRecipients": [recipient]})
        assert answer.status_code == 422, recipient
        assert answer.json()["detail"][0]["type"] == kind


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


def test_numbers_out_of_range_are_500(server, alerts):
    for number in (-1, 99999):
        assert server.call("POST", alerts, {"quantity": number, "timespanMinutes": 1}).status_code == 500


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


def test_the_general_webhook_has_its_documented_body(server, new_project, receiver):
    project = new_project()
    path = f"/hook-{uuid.uuid4().hex[:8]}"
    server.post(f"{project.path}alerts/", rule(f"{receiver.url}{path}"))
    event = project.sent_and_stored(
        "db connection lost", tags={"component": "database"}, environment="production", release="shop@1.0.0"
    )
    delivered = receiver.first(path, DELIVERY_SECONDS)
    body = delivered["body"]
    assert delivered["headers"]["content-type"] == "application/json"
    assert (body["alias"], body["text"]) == ("GlitchTip", "GlitchTip Alert")
    attachment = body["attachments"][0]
    assert attachment["title"] == "ValueError: db connection lost"
    assert attachment["title_link"].endswith(f"/{project.organization}/issues/{event['groupID']}")
    assert attachment["color"] == "#e52b50"
    assert [(item["title"], item["value"], item["short"]) for item in attachment["fields"]] == [
        ("Project", project.name, True),
        ("Environment", "production", True),
        ("Release", "shop@1.0.0", False),
        ("Component", "database", False),
    ]
    short = project.issue(event["groupID"])["shortId"]
    assert body["sections"] == [
        {
            "activityTitle": "ValueError: db connection lost",
            "activitySubtitle": f"[View Issue {short}]({attachment['title_link']})",
        }
    ]
    assert ("text" in attachment) == (server.line == "5.2")


def test_a_rule_fires_at_its_quantity_and_once_an_issue(server, new_project, receiver):
    project = new_project()
    path = f"/three-{uuid.uuid4().hex[:8]}"
    server.post(f"{project.path}alerts/", rule(f"{receiver.url}{path}", quantity=3))
    for text, times in (("often", 3), ("seldom", 2)):
        for _ in range(times):
            last = project.send(text)
    project.await_event(last)
    body = receiver.first(path, DELIVERY_SECONDS)["body"]
    assert [item["title"] for item in body["attachments"]] == ["ValueError: often"]
    project.sent_and_stored("often")
    later = project.send("trailing")
    project.await_event(later)
    project.sent_and_stored("seldom")
    receiver_sees = [item["title"] for item in wait_for_second(receiver, path)["body"]["attachments"]]
    assert receiver_sees == ["ValueError: seldom"]


def wait_for_second(receiver, path):
    end = time.monotonic() + DELIVERY_SECONDS
    while len(receiver.on(path)) < 2:
        assert time.monotonic() < end, "the second message did not come"
        time.sleep(0.2)
    return receiver.on(path)[1]


def test_an_answer_of_500_counts_as_delivered_and_the_next_recipient_still_gets_it(
    server, new_project, receiver
):
    project = new_project()
    mark = uuid.uuid4().hex[:8]
    urls = [f"{receiver.url}/fail-{mark}", f"{receiver.url}/after-{mark}"]
    body = rule()
    body["alertRecipients"] = [{"recipientType": "webhook", "url": url} for url in urls]
    server.post(f"{project.path}alerts/", body)
    project.sent_and_stored("boom")
    receiver.first(f"/after-{mark}", DELIVERY_SECONDS)
    assert len(receiver.on(f"/fail-{mark}")) == 1


def test_a_regression_alerts_again_and_looks_like_a_first_alert(server, new_project, receiver):
    project = new_project()
    path = f"/again-{uuid.uuid4().hex[:8]}"
    server.post(f"{project.path}alerts/", rule(f"{receiver.url}{path}"))
    number = project.sent_and_stored("comes back")["groupID"]
    first = receiver.first(path, DELIVERY_SECONDS)
    server.call("PUT", f"/api/0/issues/{number}/", {"status": "resolved"})
    project.sent_and_stored("comes back")
    assert wait_for_second(receiver, path)["body"] == first["body"]


def test_discord_and_google_chat_have_their_own_bodies(server, new_project, receiver):
    project = new_project()
    mark = uuid.uuid4().hex[:8]
    body = rule()
    body["alertRecipients"] = [
        {"recipientType": "discord", "url": f"{receiver.url}/discord-{mark}"},
        {"recipientType": "googlechat", "url": f"{receiver.url}/chat-{mark}"},
    ]
    server.post(f"{project.path}alerts/", body)
    project.sent_and_stored("two forms", environment="production")
    discord = receiver.first(f"/discord-{mark}", DELIVERY_SECONDS)["body"]
    assert discord["content"] == "GlitchTip Alert"
    assert discord["embeds"][0]["color"] == 15018832
    assert discord["embeds"][0]["fields"][0] == {"name": "Project", "value": project.name, "inline": True}
    chat = receiver.first(f"/chat-{mark}", DELIVERY_SECONDS)["body"]
    card = chat["cardsV2"][0]["card"]
    assert card["header"] == {"title": "GlitchTip Alert", "subtitle": project.name}
    assert card["sections"][0]["header"] == "<font color='#e52b50'>ValueError: two forms</font>"


@pytest.mark.line(
    "6.2", provenance="documented: operators' notes on GLITCHTIP_ALLOW_PRIVATE_IPS, and CHANGELOG 6.0.8"
)
def test_a_webhook_to_a_private_address_is_refused_unless_the_server_allows_them(server, alerts):
    answer = server.call("POST", alerts, rule("http://10.0.0.1/hook"))
    assert answer.status_code == (201 if os.environ.get("GLITCHTIP_ALLOW_PRIVATE_IPS") == "true" else 422)
