#!/usr/bin/python
"""Read objects of a GlitchTip server."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: glitchtip_info
short_description: Read objects of a GlitchTip server
description:
  - Reads, and never writes. The objects are returned as the server gives them, without secrets.
options:
  kind:
    description:
      - V(instance) is the server itself with its version; it needs no token.
      - V(organization) lists all organizations of the token's user.
      - V(team) and V(project) need O(organization); V(key) and V(alert) need O(project) too.
    type: str
    required: true
    choices: [instance, organization, team, project, key, alert]
  organization:
    description: Slug of the organization.
    type: str
  project:
    description: Slug of the project.
    type: str
attributes:
  check_mode:
    description: Runs the same, because it only reads. A server that is not there yet gives an empty list.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
extends_documentation_fragment: [glitchtip]
"""

EXAMPLES = r"""
- name: Projects of the organization
  glitchtip_info:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    kind: project
    organization: ai-admin
  register: found

- name: Version of the server
  glitchtip_info:
    url: http://127.0.0.1:8080
    kind: instance
"""

RETURN = r"""
objects:
  description:
    - The objects, one for V(instance). The DSN of a key and the path of a webhook's address are masked.
  returned: success
  type: list
  elements: dict
msg:
  description: Why the list is empty in check mode.
  returned: when the server is not there yet
  type: str
failure:
  description: The parts of a refusal, status, code, detail, method, path and hint.
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.glitchtip_api import GlitchTipError
from ansible.module_utils.glitchtip_api.ansible_support import (
    CONNECTION,
    client_for,
    fail,
    not_there_yet,
    without_addresses,
)

READERS = {
    "instance": lambda client, _p: [client.settings()],
    "organization": lambda client, _p: client.organizations.list(),
    "team": lambda client, p: client.teams.list(p["organization"]),
    "project": lambda client, p: client.projects.list(p["organization"]),
    "key": lambda client, p: client.keys.list(p["organization"], p["project"]),
    "alert": lambda client, p: client.alerts.list(p["organization"], p["project"]),
}
OPTIONS = {
    **CONNECTION,
    "kind": {"type": "str", "required": True, "choices": list(READERS)},
    "organization": {"type": "str"},
    "project": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=OPTIONS,
        supports_check_mode=True,
        required_if=[
            ("kind", "team", ["organization"]),
            ("kind", "project", ["organization"]),
            ("kind", "key", ["organization", "project"]),
            ("kind", "alert", ["organization", "project"]),
        ],
    )
    kind = module.params["kind"]
    try:
        with client_for(module, needs_token=kind != "instance") as client:
            objects = READERS[kind](client, module.params)
    except GlitchTipError as error:
        if not not_there_yet(module, error):
            fail(module, error)
        module.exit_json(changed=False, objects=[], msg=f"nothing to read yet: {error}")
    module.exit_json(changed=False, objects=without_addresses(objects))


if __name__ == "__main__":
    main()
