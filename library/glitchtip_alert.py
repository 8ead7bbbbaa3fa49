#!/usr/bin/python
"""Keep an alert rule of a GlitchTip project as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: glitchtip_alert
short_description: Create, change or delete an alert rule of a GlitchTip project
description:
  - Finds the rule by its name within the project, and fails when two have the name.
  - A rule fires when one issue got O(quantity) events within O(timespan_minutes), once for each issue until
    it regresses; and, with O(uptime), when a monitor of the project goes down or comes back.
  - The server does not retry a delivery. Give each recipient its own rule, because one that refuses the
    connection makes the server skip the later ones.
options:
  organization:
    description: Slug of the organization.
    type: str
    required: true
  project:
    description: Slug of the project.
    type: str
    required: true
  name:
    description: Name of the rule.
    type: str
    required: true
  quantity:
    description: Number of events of one issue, 0 to 32767.
    type: int
  timespan_minutes:
    description: Length of the window, 0 to 32767. Windows under 5 minutes lose alerts; the module then warns.
    type: int
  uptime:
    description: Report the project's uptime monitors too.
    type: bool
  recipients:
    description:
      - All recipients of the rule; others are removed from it. Left out, the ones that are there stay.
      - A new rule needs at least one, because the server e-mails everyone in the project when there is none.
    type: list
    elements: dict
    suboptions:
      type:
        description:
          - Kind of recipient, one of V(email), V(webhook), V(discord), V(googlechat); since GlitchTip 6.0.7 also
            V(teams), V(ntfy) and V(zulip), since 6.1.7 V(feishu). An older server refuses those.
          - There is none for Slack or Telegram. Slack takes the body of a V(webhook) as it is, Telegram needs a
            bridge that is one.
        type: str
        required: true
      url:
        description: Address of a webhook, for V(zulip) of the server. Not for V(email).
        type: str
      config:
        description: What V(zulip) needs beside the address. Not for the others.
        type: dict
        suboptions:
          bot_email:
            description: E-mail address of the bot that writes.
            type: str
          api_key:
            description: API key of that bot.
            type: str
          channel:
            description: Channel to write to.
            type: str
          topic:
            description: Topic to write under; the server takes V(GlitchTip Alerts) without one.
            type: str
      tags:
        description: Tags of the event that the message should hold.
        type: list
        elements: str
  update_tags:
    description:
      - GlitchTip 5.2 never returns a recipient's tags, so they cannot be compared there.
      - V(on_create) writes them together with a new recipient only. V(always) writes them each time and
        always reports a change.
      - GlitchTip 6 returns them; they are compared and written when they differ, whatever is chosen here.
    type: str
    choices: [on_create, always]
    default: on_create
extends_documentation_fragment: [glitchtip, glitchtip.state]
"""

EXAMPLES = r"""
- name: Tell the receiver about each new issue
  glitchtip_alert:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    organization: ai-admin
    project: ai-admin
    name: receiver
    quantity: 1
    timespan_minutes: 5
    recipients:
      - type: webhook
        url: "https://hooks.example.org/glitchtip?token={{ glitchtip_hook_token }}"
        tags: [component, service]

- name: Tell a channel of Zulip when a monitor goes down
  glitchtip_alert:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    organization: ai-admin
    project: ai-admin
    name: zulip
    uptime: true
    recipients:
      - type: zulip
        url: https://zulip.example.org
        config:
          bot_email: glitchtip-bot@zulip.example.org
          api_key: "{{ zulip_api_key }}"
          channel: operations
"""

RETURN = r"""
alert:
  description: The rule, null when it is absent. Of a webhook's address only the host is shown.
  returned: success
  type: dict
  sample:
    id: 1
    name: receiver
    quantity: 1
    timespanMinutes: 5
    uptime: false
    recipients:
      - type: webhook
        url: https://hooks.example.org/***
predicted:
  description: True in check mode when the object was not read but foreseen; unknown values are empty then.
  returned: success
  type: bool
msg:
  description: In check mode, why the change was foreseen without reading.
  returned: in check mode, when the server, the token or the parent is not there yet
  type: str
failure:
  description: The parts of a refusal, status, code, detail, method, path and hint.
  returned: failure
  type: dict
"""

from ansible.module_utils.glitchtip_api.ansible_support import run, without_addresses
from ansible.module_utils.glitchtip_api.ensure import ensure_alert
from ansible.module_utils.glitchtip_api.ensure.alert import predicted_alert
from ansible.module_utils.glitchtip_api.validate import check_recipients

CONFIG = {
    "bot_email": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "channel": {"type": "str"},
    "topic": {"type": "str"},
}
RECIPIENT = {
    "type": {"type": "str", "required": True},
    "url": {"type": "str", "no_log": True},
    "tags": {"type": "list", "elements": "str"},
    "config": {"type": "dict", "options": CONFIG},
}


def main() -> None:
    run(
        "alert",
        {
            "organization": {"type": "str", "required": True},
            "project": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "quantity": {"type": "int"},
            "timespan_minutes": {"type": "int"},
            "uptime": {"type": "bool"},
            "recipients": {"type": "list", "elements": "dict", "options": RECIPIENT},
            "update_tags": {"type": "str", "choices": ["on_create", "always"], "default": "on_create"},
        },
        lambda client, p, dry_run: ensure_alert(
            client,
            p["organization"],
            p["project"],
            p["name"],
            quantity=p["quantity"],
            timespan_minutes=p["timespan_minutes"],
            uptime=p["uptime"],
            recipients=p["recipients"],
            update_tags=p["update_tags"],
            state=p["state"],
            dry_run=dry_run,
        ),
        lambda p: predicted_alert(
            p["name"],
            {"quantity": p["quantity"], "timespanMinutes": p["timespan_minutes"], "uptime": p["uptime"]},
            check_recipients(p["recipients"] or []),
        ),
        returned=without_addresses,
    )


if __name__ == "__main__":
    main()
