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
        description: Kind of recipient.
        type: str
        required: true
        choices: [email, webhook, discord, googlechat]
      url:
        description: Address of a webhook. Not for V(email).
        type: str
      tags:
        description: Tags of the event that the message should hold.
        type: list
        elements: str
  update_tags:
    description:
      - The server never returns a recipient's tags, so they cannot be compared.
      - V(on_create) writes them together with a new recipient only. V(always) writes them each time and
        always reports a change.
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
failure:
  description: The parts of a refusal, status, code, detail, method, path and hint.
  returned: failure
  type: dict
"""

from ansible.module_utils.glitchtip_api.ansible_support import run, without_addresses
from ansible.module_utils.glitchtip_api.ensure import ensure_alert
from ansible.module_utils.glitchtip_api.ensure.alert import predicted_alert
from ansible.module_utils.glitchtip_api.validate import check_recipients

RECIPIENT = {
    "type": {"type": "str", "required": True, "choices": ["email", "webhook", "discord", "googlechat"]},
    "url": {"type": "str", "no_log": True},
    "tags": {"type": "list", "elements": "str"},
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
