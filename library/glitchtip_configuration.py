#!/usr/bin/python
"""Keep a whole GlitchTip server as one desired state declares it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: glitchtip_configuration
short_description: Keep organizations of a GlitchTip server, with everything in them, as declared
description:
  - Takes one structure, reads what the server has, makes a plan of everything that differs (also inside of
    what does not exist yet) and carries it out in the right order, several requests at once.
  - A list that is left out is not managed and not read. A list that is given, also an empty one, is; what the
    server has besides it is reported as RV(unmanaged) and only removed when O(purge) names its kind.
  - Of the things that are named only the values that are given are compared.
  - The account that the token belongs to is never removed, and never loses its role.
  - When a step fails, no further one is begun, nothing is undone, and the module fails with what was made and
    what was not. Applied again, the same structure goes on from there.
options:
  organizations:
    description: The desired state.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the organization, by which it is found.
        type: str
        required: true
      teams:
        description: Slugs of the teams.
        type: list
        elements: str
      members:
        description:
          - Members, by e-mail. One who is not there is invited, and GlitchTip sends a mail; where no mail
            server is set up the mail is lost without a word.
        type: list
        elements: dict
        suboptions:
          email:
            description: E-mail address.
            type: str
            required: true
          role:
            description: Role in the organization.
            type: str
            choices: [member, admin, manager, owner]
            default: member
          teams:
            description: Exactly the teams of the member; left out, they stay as they are.
            type: list
            elements: str
      projects:
        description:
          - Projects, by slug where one is given, else by name. Several may have one name when each gives its slug.
        type: list
        elements: dict
        suboptions:
          name:
            description: Name of the project.
            type: str
            required: true
          slug:
            description:
              - Slug of the project. A project that is found by it gets the name; one that is made gets the slug.
            type: str
          platform:
            description: Platform, free text, for example V(node).
            type: str
          event_throttle_rate:
            description: Percent of events that the server refuses, 0 to 100.
            type: int
          teams:
            description:
              - Exactly the teams of the project. Left out, they stay as they are, and a new project comes into
                the first team of the organization.
            type: list
            elements: str
          keys:
            description:
              - Names of DSN keys. The nameless key that comes with every project is never touched.
            type: list
            elements: str
          alerts:
            description: Alert rules, by name; the values are those of M(glitchtip_alert).
            type: list
            elements: dict
            suboptions:
              name:
                description: Name of the rule.
                type: str
                required: true
              quantity:
                description: Fires when one issue got that many events within O(organizations[].projects[].alerts[].timespan_minutes).
                type: int
              timespan_minutes:
                description: Minutes. Less than 5 loses alerts.
                type: int
              uptime:
                description: Also tell when a monitor of the project goes down or comes back.
                type: bool
              recipients:
                description: The whole list of recipients. Left out, the ones that are there stay.
                type: list
                elements: dict
                suboptions:
                  type:
                    description:
                      - Kind of the recipient, V(email), V(webhook), V(discord) or V(googlechat); V(teams), V(ntfy) and
                        V(zulip) since GlitchTip 6.0.7, V(feishu) since 6.1.7.
                    type: str
                    required: true
                  url:
                    description: Address, for every type but V(email).
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
                    description: Tags to show, written together with a new recipient only.
                    type: list
                    elements: str
              incomplete:
                description:
                  - Also take a rule without recipients, about which the server e-mails everyone in the project, and a new
                    one that never fires. Else both are refused. An export sets it for the rules that are so.
                type: bool
                default: false
          left_out:
            description:
              - What the server has and this structure cannot name, as an export lists it, with the reason. Nothing of that
                kind and name is made, changed or removed here.
            type: list
            elements: dict
            suboptions:
              kind:
                description: What it is.
                type: str
                choices: [organization, team, member, project, key, alert, monitor, status_page]
                required: true
              name:
                description: Its name, which may be empty.
                type: str
                default: ''
              id:
                description: Its id on the server of the export.
                type: str
              why:
                description: Why it is left out.
                type: str
      monitors:
        description: Uptime monitors, by name; the values are those of M(glitchtip_monitor).
        type: list
        elements: dict
        suboptions:
          name:
            description: Name of the monitor.
            type: str
            required: true
          type:
            description: What is checked, V(Ping), V(GET), V(POST), V(TCP Port), V(SSL) or V(Heartbeat).
            type: str
            required: true
          url:
            description: What is asked, or V(host:port) for V(TCP Port). Not for V(Heartbeat).
            type: str
          project:
            description: Slug of the project whose alert rules tell of it, or its name when only one has that name.
            type: str
          interval:
            description: Seconds between checks, 1 to 32767, on 6.x to 86400.
            type: int
          timeout:
            description: Seconds to wait, 1 to 60.
            type: int
          expected_status:
            description: HTTP status of success.
            type: int
          expected_body:
            description: Text that the answer has to contain.
            type: str
      status_pages:
        description: Status pages, by name.
        type: list
        elements: dict
        suboptions:
          name:
            description: Name of the page.
            type: str
            required: true
          public:
            description: Whether it is shown to everyone.
            type: bool
      left_out:
        description:
          - What the server has and this structure cannot name, as an export lists it, with the reason. Nothing of that
            kind and name is made, changed or removed here.
        type: list
        elements: dict
        suboptions:
          kind:
            description: What it is.
            type: str
            choices: [organization, team, member, project, key, alert, monitor, status_page]
            required: true
          name:
            description: Its name, which may be empty.
            type: str
            default: ''
          id:
            description: Its id on the server of the export.
            type: str
          why:
            description: Why it is left out.
            type: str
  purge:
    description:
      - Kinds of which everything is removed that a given list does not name. Removing an organization or a
        project removes its events for good.
    type: list
    elements: str
    choices: [organization, team, member, project, key, alert, monitor]
    default: []
  concurrency:
    description: Requests at once, 1 to 16.
    type: int
    default: 4
  verify:
    description: After changes read everything again and fail when something still differs.
    type: bool
    default: true
  return_dsns:
    description: Also return the DSNs of the named keys. They are secrets; set C(no_log) on the task then.
    type: bool
    default: false
  ingest_url:
    description: Address that the returned DSNs should have, for services on the server's own host.
    type: str
attributes:
  check_mode:
    description:
      - Returns the plan and makes no write; the client refuses every method but GET and HEAD. Where the server
        or the token is not there yet, everything is planned as new.
    support: full
  diff_mode:
    description: Shows the plan, a line a change. Secrets and the paths of webhook addresses are masked.
    support: full
extends_documentation_fragment: [glitchtip]
"""

EXAMPLES = r"""
- name: Everything that the team has in GlitchTip
  glitchtip_configuration:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    organizations:
      - name: AI Admin
        teams: [backend]
        projects:
          - name: API
            platform: node
            teams: [backend]
            keys: [production]
            alerts:
              - name: receiver
                quantity: 1
                timespan_minutes: 5
                uptime: true
                recipients:
                  - type: webhook
                    url: "https://hooks.example.org/glitchtip?token={{ glitchtip_hook_token }}"
        monitors:
          - name: site
            type: GET
            url: https://www.example.org/
            expected_status: 200
            interval: 60
            timeout: 10
            project: API

- name: The people of the organization, and nobody else
  glitchtip_configuration:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    purge: [member]
    organizations:
      - name: AI Admin
        members:
          - email: admin@example.org
            role: owner
          - email: dev@example.org
"""

RETURN = r"""
plan:
  description: The changes in their order, made or (in check mode) to be made. Secrets are masked.
  returned: always, when the server could be read
  type: list
  elements: dict
  sample:
    - action: create
      kind: project
      name: API
      organization: AI Admin
      project: null
      before: {state: absent}
      after: {state: present, name: API, slug: api, platform: node}
plan_text:
  description: The same, a line each.
  returned: always, when the server could be read
  type: list
  elements: str
  sample: ["+ project 'API' (organization 'AI Admin'): slug api, platform node, teams [backend]"]
counts:
  description: How many changes of each sort.
  returned: always, when the server could be read
  type: dict
  sample: {"create": 3, "update": 1, "delete": 0}
unmanaged:
  description: What the managed lists of the server have besides what is named.
  returned: always, when the server could be read
  type: list
  elements: dict
  sample: [{"kind": "alert", "name": "old", "organization": "AI Admin", "project": "API", "id": 7}]
dsns:
  description: The DSNs of the named keys.
  returned: with O(return_dsns), not in check mode
  type: list
  elements: dict
  sample: [{"organization": "AI Admin", "project": "API", "key": "production", "dsn": "http://...@127.0.0.1:8080/1"}]
applied:
  description: The lines of O(ignore:plan_text) that were made before the failure.
  returned: failure of a step
  type: list
  elements: str
pending:
  description: The lines that were not begun.
  returned: failure of a step
  type: list
  elements: str
failure:
  description: The parts of a refusal, status, code, detail, method, path and hint.
  returned: failure
  type: dict
msg:
  description: What was done, in a sentence.
  returned: always
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.glitchtip_api.ansible_support import CONNECTION
from ansible.module_utils.glitchtip_api.configuration.ansible_module import configure
from ansible.module_utils.glitchtip_api.configuration.options import ORGANIZATIONS
from ansible.module_utils.glitchtip_api.configuration.structure import PURGEABLE

OPTIONS = {
    **CONNECTION,
    "organizations": ORGANIZATIONS,
    "purge": {"type": "list", "elements": "str", "choices": list(PURGEABLE), "default": []},
    "concurrency": {"type": "int", "default": 4},
    "verify": {"type": "bool", "default": True},
    "return_dsns": {"type": "bool", "default": False, "no_log": False},
    "ingest_url": {"type": "str"},
}


def main() -> None:
    configure(AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True))


if __name__ == "__main__":
    main()
