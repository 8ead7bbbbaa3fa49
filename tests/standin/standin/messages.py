"""The messages of alert rules: one body a kind of recipient, and how each is sent.

Bodies of the 5.2 line as they were received from a real server; ``teams``, ``ntfy``, ``zulip``, ``feishu`` and
the differences of the 6.2 line by its source (apps/alerts/webhooks.py) and the payload contract of app-sre/glitchtip.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import state
from .urls import is_private

log = logging.getLogger("glitchtip.worker")

TIMEOUT_SECONDS = 10
#: The library that the 5.2 line sends with; our own version of requests does not matter to a receiver.
USER_AGENT_OF_5 = "python-requests/2.32.4"
#: What a level looks like. The others have no colour (warning by a slip of the server: it compares by identity).
COLORS = {"info": "#4b60b4", "error": "#e52b50", "fatal": "#e52b50"}
TEST_TITLE = "GlitchTip Test Notification"
UPTIME_TITLE = "GlitchTip Uptime Alert"


@dataclass(frozen=True)
class Tag:
    """A tag of an issue that a message shows."""

    key: str
    label: str
    value: str


@dataclass(frozen=True)
class Part:
    """What every kind of message tells about one issue."""

    title: str
    url: str
    culprit: str | None
    short_id: str
    project: str
    level: str
    tags: tuple[Tag, ...]

    @property
    def color(self) -> str | None:
        """The colour of its level, None for those that have none."""
        return COLORS.get(self.level)


Body = dict[str, Any]


def headline(total: int) -> str:
    """The first words of a message about so many issues."""
    return "GlitchTip Alert" if total == 1 else f"GlitchTip Alert ({total} issues)"


def send(recipient: Mapping[str, Any], parts: list[Part], total: int) -> None:
    """Send a message about ``parts`` of ``total`` issues to a recipient that is no e-mail.

    Raises what requests raises when the receiver cannot be reached.
    """
    kind, url = recipient["recipient_type"], recipient["url"]
    if kind == "ntfy":
        click = parts[0].url
        _ntfy(url, headline(total), _lines(parts), {"Click": click, "Tags": "warning"})
    elif kind == "zulip":
        _zulip(recipient, f"## {headline(total)}\n\n{_zulip_lines(parts)}")
    else:
        post(url, BODIES[kind](parts, total), kind)


def send_test(recipient: Mapping[str, Any], project: str) -> None:
    """Send what the test of a rule says in a project that has no issue yet (6.2 line)."""
    kind, url = recipient["recipient_type"], recipient["url"]
    text = f"Test notification for project {project}. Your alert recipient is configured correctly."
    if kind == "ntfy":
        _ntfy(url, TEST_TITLE, text, {"Tags": "white_check_mark"})
    elif kind == "zulip":
        _zulip(recipient, f"## {TEST_TITLE}\n\n{text}")
    else:
        post(url, TESTS.get(kind, _test_webhook)(text, project), kind)


def send_uptime(recipient: Mapping[str, Any], name: str, url: str, text: str) -> None:
    """Send that a monitor (its name, where it is shown) went down or came back."""
    kind, where = recipient["recipient_type"], recipient["url"]
    if kind == "ntfy":
        _ntfy(where, UPTIME_TITLE, f"**{name}**\n{text}", {"Click": url, "Tags": "warning"})
    elif kind == "zulip":
        _zulip(recipient, f"## {UPTIME_TITLE}\n\n**{name}**\n{text}\n\n[View Monitor]({url})")
    else:
        post(where, UPTIME.get(kind, _uptime_webhook)(name, url, text), kind)


def post(url: str, body: Body, kind: str) -> None:
    """Deliver one message as JSON; see :func:`_request`."""
    _request(kind, url, data=json.dumps(body), headers={"Content-Type": "application/json"})


def _request(kind: str, url: str, headers: Mapping[str, str] | None = None, **content: Any) -> None:
    """POST once. Any answer counts as delivered, redirects are followed (as GET after 301, 302 and 303).

    A receiver that takes the message but does not answer within 10 s counts as delivered, too, except that on
    the 5.2 line this is so for the general webhook only. Otherwise raises what requests raises.
    """
    import requests  # only the worker needs it

    current = state.get().settings
    if not current.allow_private_ips and is_private(url):
        log.warning("webhook delivery blocked: URL resolves to a private/internal IP")
        return
    agent = USER_AGENT_OF_5 if current.line == "5.2" else f"GlitchTip/{current.version}"
    sent = {"User-Agent": agent, **(headers or {})}
    try:
        reply = requests.post(url, headers=sent, timeout=TIMEOUT_SECONDS, **content)
    except requests.ReadTimeout:
        if current.line == "5.2" and kind != "webhook":
            raise
        return
    log.info("%s alert sent, answer %d", kind, reply.status_code)


def _ntfy(url: str, title: str, text: str, headers: Mapping[str, str]) -> None:
    _request("ntfy", url, {"Title": title, "Markdown": "yes", **headers}, data=text.encode())


def _zulip(recipient: Mapping[str, Any], text: str) -> None:
    config = recipient["config"]
    _request(
        "zulip",
        f"{recipient['url'].rstrip('/')}/api/v1/messages",
        data={
            "type": "channel",
            "to": config.get("channel", ""),
            "topic": config.get("topic", "GlitchTip Alerts"),
            "content": text,
        },
        auth=(config.get("bot_email", ""), config.get("api_key", "")),
    )


def _lines(parts: list[Part]) -> str:
    """The text of ntfy."""
    lines = []
    for part in parts:
        lines += [f"**{part.title}**", *_about(part), f"[View Issue {part.short_id}]({part.url})", ""]
    return "\n".join(lines).rstrip()


def _zulip_lines(parts: list[Part]) -> str:
    lines = []
    for part in parts:
        lines += [f"**[{part.title}]({part.url})**", *_about(part), ""]
    return "\n".join(lines).rstrip()


def _about(part: Part) -> list[str]:
    culprit = [f"Culprit: {part.culprit}"] if part.culprit else []
    return [f"Project: {part.project}", *culprit, *(f"{tag.label}: {tag.value}" for tag in part.tags)]


def _webhook(parts: list[Part], total: int) -> Body:
    attachments = [
        {
            "title": part.title,
            "title_link": part.url,
            "text": part.culprit,
            "image_url": None,
            "color": part.color,
            "fields": [
                {"title": "Project", "value": part.project, "short": True},
                *(
                    {
                        "title": tag.label,
                        "value": tag.value,
                        "short": tag.key in {"environment", "server_name"},
                    }
                    for tag in part.tags
                ),
            ],
            "mrkdown_in": ["text"],
        }
        for part in parts
    ]
    return _slack_like(headline(total), attachments, parts)


def _slack_like(text: str, attachments: list[Body], parts: list[Part]) -> Body:
    """The 6.2 line leaves out what is null, the alias and the sections (since 6.0.7 and 6.2.3)."""
    if state.get().settings.line == "6.2":
        bare = [{key: value for key, value in item.items() if value is not None} for item in attachments]
        return {"text": text, "attachments": bare}
    sections = [
        {"activityTitle": part.title, "activitySubtitle": f"[View Issue {part.short_id}]({part.url})"}
        for part in parts
    ]
    return {"alias": "GlitchTip", "text": text, "attachments": attachments, "sections": sections}


def _discord(parts: list[Part], total: int) -> Body:
    embeds = []
    for part in parts:
        fields = [{"name": "Project", "value": part.project, "inline": True}]
        fields += [
            {"name": tag.label, "value": tag.value, "inline": tag.key == "environment"}
            for tag in _discord_order(part.tags)
        ]
        color = None if part.color is None else int(part.color[1:], 16)
        embeds.append(
            {
                "title": part.title,
                "description": part.culprit,
                "color": color,
                "url": part.url,
                "fields": fields,
            }
        )
    return {"content": headline(total), "embeds": embeds}


def _discord_order(tags: tuple[Tag, ...]) -> list[Tag]:
    """On the 5.2 line the server's name comes after the release and is written otherwise."""
    if state.get().settings.line == "6.2":
        return list(tags)
    named = [Tag(tag.key, "Server name", tag.value) if tag.label == "Server Name" else tag for tag in tags]
    order = {"Environment": 0, "Release": 1, "Server name": 2}
    return sorted(named, key=lambda tag: order.get(tag.label, 3))


def _google_chat(parts: list[Part], _: int) -> Body:
    cards = []
    for part in parts:
        pairs = [("Culprit", part.culprit), *((tag.label, tag.value) for tag in part.tags)]
        widgets: list[Body] = [{"decoratedText": {"topLabel": label, "text": text}} for label, text in pairs]
        link = {"text": f"View Issue {part.short_id}", "onClick": {"openLink": {"url": part.url}}}
        widgets.append({"buttonList": {"buttons": [link]}})
        section = {"header": f"<font color='{part.color}'>{part.title}</font>", "widgets": widgets}
        cards.append(_card({"title": "GlitchTip Alert", "subtitle": part.project}, section))
    return {"cardsV2": cards}


def _card(header: Body, section: Body) -> Body:
    return {"cardId": "createCardMessage", "card": {"header": header, "sections": [section]}}


def _teams(parts: list[Part], total: int) -> Body:
    body = [_large(headline(total))]
    for part in parts:
        title = {"type": "TextBlock", "weight": "Bolder", "color": "Attention", "text": part.title}
        body.append({**title, "wrap": True})
        if part.culprit:
            body.append(_text(part.culprit))
        facts = [{"title": "Project", "value": part.project}]
        facts += [{"title": tag.label, "value": tag.value} for tag in part.tags]
        body.append({"type": "FactSet", "facts": facts})
    actions = [
        {"type": "Action.OpenUrl", "title": f"View Issue {part.short_id}", "url": part.url} for part in parts
    ]
    return _adaptive(body, actions)


def _large(text: str) -> Body:
    return {"type": "TextBlock", "size": "Large", "weight": "Bolder", "text": text}


def _text(text: str) -> Body:
    return {"type": "TextBlock", "text": text, "wrap": True}


def _adaptive(body: list[Body], actions: list[Body]) -> Body:
    content: Body = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
    }
    if actions:
        content["actions"] = actions
    kind = "application/vnd.microsoft.card.adaptive"
    return {"type": "message", "attachments": [{"contentType": kind, "contentUrl": None, "content": content}]}


def _feishu(parts: list[Part], total: int) -> Body:
    elements: list[Body] = []
    for part in parts:
        labels = [("Project", part.project), *((tag.label, tag.value) for tag in part.tags)]
        fields = [{"is_short": True, "text": _lark(f"**{label}**\n{value}")} for label, value in labels]
        text = _lark(f"**[{part.title}]({part.url})**\n{part.culprit or ''}")
        button = {"tag": "button", "text": _plain(f"View Issue {part.short_id}"), "url": part.url}
        elements += [
            {"tag": "div", "text": text, "fields": fields},
            {"tag": "action", "actions": [{**button, "type": "primary"}]},
            {"tag": "hr"},
        ]
    return _interactive(headline(total), "red", elements)


def _lark(text: str) -> Body:
    return {"tag": "lark_md", "content": text}


def _plain(text: str) -> Body:
    return {"tag": "plain_text", "content": text}


def _interactive(title: str, template: str, elements: list[Body]) -> Body:
    card = {"header": {"title": _plain(title), "template": template}, "elements": elements}
    return {"msg_type": "interactive", "card": card}


BODIES: dict[str, Callable[[list[Part], int], Body]] = {
    "webhook": _webhook,
    "discord": _discord,
    "googlechat": _google_chat,
    "teams": _teams,
    "feishu": _feishu,
}


def _test_webhook(text: str, _: str) -> Body:
    nothing = dict.fromkeys(("image_url", "color", "fields", "mrkdown_in"))
    return _slack_like(TEST_TITLE, [{"title": TEST_TITLE, "title_link": "", "text": text, **nothing}], [])


def _test_discord(text: str, _: str) -> Body:
    color = int(COLORS["info"][1:], 16)
    embed = {"title": TEST_TITLE, "description": text, "color": color, "url": "", "fields": []}
    return {"content": TEST_TITLE, "embeds": [embed]}


def _test_google_chat(text: str, project: str) -> Body:
    section = {"widgets": [{"decoratedText": {"text": text}}]}
    return {"cardsV2": [_card({"title": TEST_TITLE, "subtitle": project}, section)]}


def _test_feishu(text: str, _: str) -> Body:
    return _interactive(TEST_TITLE, "blue", [{"tag": "div", "text": _plain(text)}])


TESTS: dict[str, Callable[[str, str], Body]] = {
    "discord": _test_discord,
    "googlechat": _test_google_chat,
    "teams": lambda text, _: _adaptive([_large(TEST_TITLE), _text(text)], []),
    "feishu": _test_feishu,
}


def _uptime_webhook(name: str, url: str, text: str) -> Body:
    nothing = dict.fromkeys(("image_url", "color", "fields", "mrkdown_in"))
    body = _slack_like(UPTIME_TITLE, [{"title": name, "title_link": url, "text": text, **nothing}], [])
    if "sections" in body:
        body["sections"] = [{"activityTitle": name, "activitySubtitle": text}]
    return body


def _uptime_discord(name: str, url: str, text: str) -> Body:
    embed: Body = {"title": name, "description": text, "color": None, "url": url, "fields": []}
    return {"content": UPTIME_TITLE, "embeds": [embed]}


def _uptime_google_chat(name: str, url: str, text: str) -> Body:
    button = {"text": "View", "onClick": {"openLink": {"url": url}}}
    section = {"widgets": [{"decoratedText": {"text": text, "button": button}}]}
    return {"cardsV2": [_card({"title": UPTIME_TITLE, "subtitle": name}, section)]}


def _uptime_teams(name: str, url: str, text: str) -> Body:
    title = {"type": "TextBlock", "weight": "Bolder", "text": name}
    action = {"type": "Action.OpenUrl", "title": "View Monitor", "url": url}
    return _adaptive([_large(UPTIME_TITLE), title, _text(text)], [action])


UPTIME: dict[str, Callable[[str, str, str], Body]] = {
    "discord": _uptime_discord,
    "googlechat": _uptime_google_chat,
    "teams": _uptime_teams,
}
