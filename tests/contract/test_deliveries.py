"""Alert rules: which issues they fire for, and what the receivers get.

One story is told for the whole file: all rules are made and all events are sent at once, and each test looks at
its own part of what was delivered at the next tick (5 s to a minute, as the server is set). The parts that wait
for more begin at once and wait side by side.
"""

from __future__ import annotations

import base64
import json
import socket
import time
import uuid
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import pytest

SIX = "source: 6.2 line, apps/alerts (webhooks.py, models.py)"
PINNED = "document: webhook payload contract of app-sre/glitchtip at 6.2.3, apps/alerts/webhooks.py"
TAGS = {"component": "database", "db_host": "db-1", "server_name": "web-1"}
#: The issues of one message are called by their levels; their order in it is not fixed.
COLORS = {"error": "#e52b50", "warning": None, "info": "#4b60b4", "fatal": "#e52b50"}
#: Deliveries of one tick are made side by side; what is not there so long after its neighbours does not come.
NEIGHBOURS_SECONDS = 2
#: How often the story is told at most until no tick comes in the middle of it.
TELLINGS = 3


def recipient(url, kind="webhook", **more):
    return {"recipientType": kind, "url": url, **more}


def make_rule(project, *recipients, **more):
    body = {"name": "rule", "quantity": 1, "timespanMinutes": 5, "alertRecipients": list(recipients), **more}
    return project.server.post(f"{project.path}alerts/", body)


def titles(message):
    return [item["title"].removeprefix("ValueError: ") for item in message["body"]["attachments"]]


@dataclass
class Story:
    """What was set up: ``mark`` ends every path of it; the projects and issues by name."""

    receiver: object
    mark: str
    projects: dict = field(default_factory=dict)
    issues: dict = field(default_factory=dict)

    def path(self, name):
        return f"/{name}-{self.mark}"

    def url(self, name):
        return f"{self.receiver.url}{self.path(name)}"

    def on(self, name):
        return self.receiver.on(self.path(name))

    def nth(self, name, count):
        return self.receiver.nth(self.path(name), count)

    def first(self, name):
        return self.receiver.first(self.path(name))

    def issue(self, project, title):
        listed = self.projects[project].server.get(f"{self.projects[project].path}issues/?limit=100")
        return next(item for item in listed if item["title"] == f"ValueError: {title}")


@pytest.fixture(scope="module")
def story(server, new_project, receiver):
    """The story, told again when a tick came in the middle of it: a slow worker stores a few events a second."""
    for _ in range(TELLINGS):
        told = tell(server, new_project, receiver)
        if in_one_tick(told):
            break
    return told


def in_one_tick(told):
    """Whether what belongs into one message came in one."""
    time.sleep(NEIGHBOURS_SECONDS)
    counts = {"one": 2, "pair": 2, "webhook": 4}
    return all(
        told.on(name) and told.on(name)[0]["body"]["text"] == f"GlitchTip Alert ({count} issues)"
        for name, count in counts.items()
    )


def tell(server, new_project, receiver):
    told = Story(receiver, uuid.uuid4().hex[:8])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}/"
    names = ("clock", "kinds", "refused", "redirects", "slow", "ignored", "numbers", "late", "kept", "pair")
    told.projects = {name: new_project(f"{name.capitalize()} {told.mark}") for name in names}
    at = told.projects
    kinds = ["webhook", "discord", "googlechat"]
    if server.line == "6.2":
        kinds += ["teams", "ntfy", "feishu"]
    all_kinds = [recipient(told.url(kind), kind, tagsToAdd=["component", "db_host"]) for kind in kinds]
    if server.line == "6.2":
        login = {"botEmail": "bot@example.com", "apiKey": "key", "channel": "operations"}
        all_kinds.append(recipient(told.url("zulip"), "zulip", **login))
    make_rule(at["kinds"], *all_kinds)
    make_rule(at["refused"], recipient(nobody), recipient(told.url("after-nobody")))
    make_rule(at["refused"], recipient(told.url("fail")), recipient(told.url("after-fail")))
    for status in (302, 307):
        receiver.answer(told.path(f"moved-{status}"), status, location=told.path(f"landed-{status}"))
        make_rule(at["redirects"], recipient(told.url(f"moved-{status}")))
    receiver.answer(told.path("slow"), 200, seconds=12)
    make_rule(at["slow"], recipient(told.url("slow")), recipient(told.url("after-slow")))
    make_rule(at["ignored"], recipient(told.url("ignored")))
    for name, more in {
        "one": {},
        "two": {"quantity": 2},
        "zero": {"quantity": 0},
        "no-time": {"timespanMinutes": 0},
        "no-quantity": {"quantity": None},
        "no-timespan": {"timespanMinutes": None},
    }.items():
        make_rule(at["numbers"], recipient(told.url(name)), **more)
    kept = make_rule(at["kept"], recipient(told.url("kept"), tagsToAdd=["component"]))
    again = {"alertRecipients": [recipient(told.url("kept"))]}
    assert server.call("PUT", f"{at['kept'].path}alerts/{kept['id']}/", again).status_code == 200
    make_rule(at["pair"], recipient(told.url("pair")))

    # Right after a tick, and after a batch was stored: what belongs into one message is stored before the next.
    make_rule(at["clock"], recipient(told.url("clock")))
    at["clock"].sent_and_stored("tick")
    told.first("clock")
    at["late"].sent_and_stored("now")
    more = {"tags": TAGS, "environment": "production", "release": "shop@1.0.0", "transaction": "app.checkout"}
    sent = [(at["ignored"], at["ignored"].send("ignored"))]
    sent += [(at["kinds"], at["kinds"].send(level, level=level, **more)) for level in COLORS]
    sent += [(at["numbers"], at["numbers"].send(text)) for text in ("often", "seldom", "often")]
    sent += [(at["pair"], at["pair"].send(text)) for text in ("resolved", "untouched")]
    for name in ("refused", "redirects", "slow", "late", "kept"):
        sent.append((at[name], at[name].send("boom", tags=TAGS)))
    for project, event in sent:
        found = project.await_event(event)
        if project is at["ignored"]:
            path = f"/api/0/issues/{found['groupID']}/"
            assert server.call("PUT", path, {"status": "ignored"}).json()["status"] == "ignored"
    told.first("one")
    return told


@pytest.fixture(scope="module")
def first_part(story):
    """Everything that the first tick delivers at once is there."""
    for name in ("webhook", "discord", "googlechat", "fail", "after-fail", "ignored", "one", "kept", "pair"):
        story.first(name)
    time.sleep(NEIGHBOURS_SECONDS)
    return story


@pytest.fixture(scope="module")
def second_part(server, first_part):
    """The same issues again, a new rule in "late", and a new issue where nobody was there."""
    story = first_part
    at = story.projects
    number = story.issue("pair", "resolved")["id"]
    assert server.call("PUT", f"/api/0/issues/{number}/", {"status": "resolved"}).status_code == 200
    make_rule(at["late"], recipient(story.url("late")))
    make_rule(at["late"], recipient(story.url("late-again")))
    sent = [(at["pair"], at["pair"].send("resolved")), (at["refused"], at["refused"].send("boom"))]
    sent += [(at["numbers"], at["numbers"].send(text)) for text in ("often", "seldom", "new")]
    sent += [(at["late"], at["late"].send("other"))]
    for project, event in sent:
        project.await_event(event)
    story.nth("one", 2)
    story.nth("pair", 2)
    time.sleep(NEIGHBOURS_SECONDS)
    return story


def fields_of(story):
    return [
        ("Project", story.projects["kinds"].name, True),
        ("Environment", "production", True),
        ("Server Name", "web-1", True),
        ("Release", "shop@1.0.0", False),
        ("Component", "database", False),
        ("Db_host", "db-1", False),
    ]


def test_the_general_webhook_lists_three_of_the_issues_of_a_tick_and_counts_all(first_part):
    message = first_part.first("webhook")
    body = message["body"]
    assert message["headers"]["content-type"] == "application/json"
    assert body["text"] == "GlitchTip Alert (4 issues)"
    assert len(set(titles(message)) & set(COLORS)) == len(titles(message)) == 3
    for level, attachment in zip(titles(message), body["attachments"], strict=True):
        number = first_part.issue("kinds", level)["id"]
        assert attachment["title_link"].endswith(
            f"/{first_part.projects['kinds'].organization}/issues/{number}"
        )
        assert attachment.get("color") == COLORS[level]
        shown = [(item["title"], item["value"], item["short"]) for item in attachment["fields"]]
        assert shown == fields_of(first_part)
        assert attachment["mrkdown_in"] == ["text"]
    assert len(first_part.on("webhook")) == 1


@pytest.mark.line("5.2")
def test_the_general_webhook_has_an_alias_sections_and_nulls(first_part):
    body = first_part.first("webhook")["body"]
    assert set(body) == {"alias", "text", "attachments", "sections"}
    assert body["alias"] == "GlitchTip"
    for attachment, section in zip(body["attachments"], body["sections"], strict=True):
        assert (attachment["text"], attachment["image_url"]) == (None, None)
        number = first_part.issue("kinds", attachment["title"].removeprefix("ValueError: "))["shortId"]
        assert section == {
            "activityTitle": attachment["title"],
            "activitySubtitle": f"[View Issue {number}]({attachment['title_link']})",
        }


@pytest.mark.line("6.2", provenance=PINNED)
def test_the_general_webhook_has_neither_alias_nor_sections_nor_nulls(first_part):
    body = first_part.first("webhook")["body"]
    assert set(body) == {"text", "attachments"}
    for attachment in body["attachments"]:
        assert not {"text", "image_url"} & set(attachment)
        assert None not in attachment.values()


@pytest.mark.line("5.2")
def test_the_sender_names_itself_as_a_library(first_part):
    assert first_part.first("webhook")["headers"]["user-agent"].startswith("python-requests/")


@pytest.mark.line("6.2", provenance="source: 6.x, apps/alerts/webhooks.py (d981936)")
def test_the_sender_names_itself_with_its_version(server, first_part):
    version = server.get("/api/settings/", anonymous=True)["version"]
    assert first_part.first("webhook")["headers"]["user-agent"] == f"GlitchTip/{version}"


def test_discord_has_its_own_body(server, first_part):
    body = first_part.first("discord")["body"]
    assert body["content"] == "GlitchTip Alert (4 issues)"
    assert len(body["embeds"]) == 3
    colors = {"error": 15018832, "warning": None, "info": 4939956, "fatal": 15018832}
    for embed in body["embeds"]:
        level = embed["title"].removeprefix("ValueError: ")
        number = first_part.issue("kinds", level)["id"]
        assert (embed["color"], embed["description"]) == (colors[level], None)
        assert embed["url"].endswith(f"/{first_part.projects['kinds'].organization}/issues/{number}")
    shown = [(item["name"], item["value"], item["inline"]) for item in body["embeds"][0]["fields"]]
    project, environment, host, release, *tags = fields_of(first_part)
    host = (host[0], host[1], False)
    if server.line == "5.2":
        assert shown == [project, environment, release, ("Server name", *host[1:]), *tags]
    else:
        assert shown == [project, environment, host, release, *tags]


def test_google_chat_has_a_card_an_issue_and_no_count(first_part):
    body = first_part.first("googlechat")["body"]
    assert [item["cardId"] for item in body["cardsV2"]] == ["createCardMessage"] * 3
    card = body["cardsV2"][0]["card"]
    assert card["header"] == {"title": "GlitchTip Alert", "subtitle": first_part.projects["kinds"].name}
    heads = [item["card"]["sections"][0]["header"] for item in body["cardsV2"]]
    known = {f"<font color='{color}'>ValueError: {level}</font>": level for level, color in COLORS.items()}
    assert len(set(heads) & set(known)) == 3
    *pairs, button = card["sections"][0]["widgets"]
    shown = [(item["decoratedText"]["topLabel"], item["decoratedText"]["text"]) for item in pairs]
    assert shown == [("Culprit", None), *(pair[:2] for pair in fields_of(first_part)[1:])]
    issue = first_part.issue("kinds", known[heads[0]])
    link = button["buttonList"]["buttons"][0]["onClick"]["openLink"]["url"]
    assert link.endswith(f"/{first_part.projects['kinds'].organization}/issues/{issue['id']}")
    assert button["buttonList"]["buttons"] == [
        {"text": f"View Issue {issue['shortId']}", "onClick": {"openLink": {"url": link}}}
    ]


@pytest.mark.line("6.2", provenance=SIX)
def test_teams_gets_an_adaptive_card_with_facts_and_a_button_an_issue(first_part):
    body = first_part.first("teams")["body"]
    assert body["type"] == "message"
    content = body["attachments"][0]["content"]
    assert (content["type"], content["version"]) == ("AdaptiveCard", "1.4")
    assert content["body"][0]["text"] == "GlitchTip Alert (4 issues)"
    facts = [(item["title"], item["value"]) for item in content["body"][2]["facts"]]
    assert facts == [pair[:2] for pair in fields_of(first_part)]
    texts = [item["text"].removeprefix("ValueError: ") for item in content["body"] if item.get("color")]
    numbers = [first_part.issue("kinds", level)["shortId"] for level in texts]
    assert [item["title"] for item in content["actions"]] == [f"View Issue {number}" for number in numbers]


@pytest.mark.line("6.2", provenance=SIX)
def test_ntfy_gets_markdown_with_its_title_and_its_link_in_headers(first_part):
    message = first_part.first("ntfy")
    headers = message["headers"]
    assert (headers["title"], headers["markdown"]) == ("GlitchTip Alert (4 issues)", "yes")
    lines = message["body"].splitlines()
    issue = first_part.issue("kinds", lines[0].strip("*").removeprefix("ValueError: "))
    assert headers["click"].endswith(f"/issues/{issue['id']}")
    assert headers["tags"] == "warning"
    assert lines[1:7] == [f"{title}: {value}" for title, value, _ in fields_of(first_part)]
    assert lines[7] == f"[View Issue {issue['shortId']}]({headers['click']})"


@pytest.mark.line("6.2", provenance=SIX)
def test_feishu_gets_an_interactive_card(first_part):
    body = first_part.first("feishu")["body"]
    assert body["msg_type"] == "interactive"
    head = body["card"]["header"]
    assert (head["title"]["content"], head["template"]) == ("GlitchTip Alert (4 issues)", "red")
    assert [item["tag"] for item in body["card"]["elements"]] == ["div", "action", "hr"] * 3
    fields = [item["text"]["content"] for item in body["card"]["elements"][0]["fields"]]
    assert fields == [f"**{title}**\n{value}" for title, value, _ in fields_of(first_part)]


@pytest.mark.line("6.2", provenance=SIX)
def test_zulip_gets_a_form_at_its_messages_with_the_bots_login(first_part):
    message = first_part.receiver.first(f"{first_part.path('zulip')}/api/v1/messages")
    form = {name: values[0] for name, values in parse_qs(message["body"]).items()}
    assert (form["type"], form["to"], form["topic"]) == ("channel", "operations", "GlitchTip Alerts")
    assert form["content"].startswith("## GlitchTip Alert (4 issues)\n\n**[ValueError: ")
    login = base64.b64encode(b"bot@example.com:key").decode()
    assert message["headers"]["authorization"] == f"Basic {login}"


def test_tags_stay_when_a_recipient_is_sent_without_them(first_part):
    fields = first_part.first("kept")["body"]["attachments"][0]["fields"]
    assert [(item["title"], item["value"]) for item in fields][-1] == ("Component", "database")


def test_an_answer_of_500_counts_as_delivered_and_the_next_recipient_still_gets_it(first_part):
    assert len(first_part.on("fail")) == len(first_part.on("after-fail")) == 1


@pytest.mark.line("5.2")
def test_a_refused_connection_skips_the_recipients_after_it_for_good(second_part):
    assert second_part.on("after-nobody") == []


@pytest.mark.line("6.2", provenance=SIX)
def test_a_refused_connection_skips_nobody_else(first_part):
    assert titles(first_part.first("after-nobody")) == ["boom"]


def test_a_redirect_is_followed_as_get_or_after_307_as_the_same_post(first_part):
    landed = [item for item in first_part.receiver.received if "/landed-" in item["path"]]
    ours = {item["path"]: item for item in landed if item["path"].endswith(first_part.mark)}
    found, kept = ours[first_part.path("landed-302")], ours[first_part.path("landed-307")]
    assert (found["method"], found["body"]) == ("GET", None)
    assert (kept["method"], kept["body"]) == ("POST", first_part.first("moved-307")["body"])


@pytest.mark.line("5.2")
@pytest.mark.long
def test_a_receiver_that_does_not_answer_holds_the_next_one_up_for_ten_seconds(story):
    after, slow = story.first("after-slow"), story.first("slow")
    assert 9.5 < after["time"] - slow["time"] < 12
    assert len(story.on("slow")) == 1


@pytest.mark.line("6.2", provenance=SIX)
def test_a_receiver_that_does_not_answer_holds_nobody_up(story):
    assert abs(story.first("after-slow")["time"] - story.first("slow")["time"]) < 5


def test_an_ignored_issue_alerts_too(first_part):
    assert titles(first_part.first("ignored")) == ["ignored"]


def test_a_rule_fires_for_the_issues_that_reached_its_quantity(first_part):
    assert sorted(titles(first_part.first("one"))) == ["often", "seldom"]
    assert titles(first_part.first("two")) == ["often"]
    assert sorted(titles(first_part.first("zero"))) == ["often", "seldom"]


def test_a_rule_without_quantity_or_timespan_or_with_no_time_never_fires(second_part):
    assert [second_part.on(name) for name in ("no-time", "no-quantity", "no-timespan")] == [[], [], []]


def test_an_issue_alerts_once_a_rule_however_often_it_comes_back(second_part):
    assert titles(second_part.nth("one", 2)) == ["new"]


def test_events_of_earlier_ticks_count_towards_the_quantity(second_part):
    assert titles(second_part.nth("two", 2)) == ["seldom"]


def test_a_new_rule_does_not_fire_for_events_before_it(second_part):
    assert titles(second_part.first("late")) == ["other"]


def test_every_rule_of_a_project_sends_its_own_message(second_part):
    bodies = [json.dumps(second_part.first(name)["body"]) for name in ("late", "late-again")]
    assert bodies[0] == bodies[1]


def test_a_regression_alerts_again_and_looks_like_a_first_alert(second_part):
    again = second_part.nth("pair", 2)["body"]
    before = second_part.nth("pair", 1)["body"]
    assert before["text"] == "GlitchTip Alert (2 issues)"
    first = next(item for item in before["attachments"] if item["title"] == "ValueError: resolved")
    assert (again["text"], again["attachments"]) == ("GlitchTip Alert", [first])


def test_after_a_regression_the_other_issues_of_the_message_alert_again_too(second_part):
    project = second_part.projects["pair"]
    project.await_event(project.send("untouched"))
    assert titles(second_part.nth("pair", 3)) == ["untouched"]


@pytest.mark.line("6.2", provenance="source: 6.2 line, apps/alerts/api.py")
def test_a_rule_is_tested_with_the_newest_issue_or_without_one(server, new_project, receiver):
    project, mark = new_project(), uuid.uuid4().hex[:8]
    made = make_rule(project, recipient(f"{receiver.url}/test-{mark}"), {"recipientType": "email"})
    path = f"{project.path}alerts/{made['id']}/test/"
    results = [
        {"recipientType": "webhook", "status": "sent", "message": None},
        {"recipientType": "email", "status": "skipped", "message": None},
    ]
    assert server.post(path, None, 200) == results
    body = receiver.first(f"/test-{mark}")["body"]
    assert body["text"] == body["attachments"][0]["title"] == "GlitchTip Test Notification"
    assert f"Test notification for project {project.name}." in body["attachments"][0]["text"]
    project.sent_and_stored("newest")
    number = made["alertRecipients"][0]["id"]
    assert server.post(f"{path}?recipient_id={number}", None, 200) == results[:1]
    assert titles(receiver.nth(f"/test-{mark}", 2)) == ["newest"]
