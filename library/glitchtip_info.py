#!/usr/bin/python
"""Read objects of a GlitchTip server."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: glitchtip_info
short_description: Read objects of a GlitchTip server
description:
  - Reads, and never writes. The objects are returned as the server gives them, without secrets.
  - The server answers many lists of an organization or a project that is not there with an empty one. The module
    looks for the parent then and fails when it is not there. Where the token may not look, it warns.
options:
  kind:
    description:
      - V(instance) is the server itself with its RV(ignore:objects[].version); it needs no token.
      - V(account) is whose token it is, and the scopes of the token.
      - V(organization) lists all organizations of the token's user.
      - V(team), V(member) (each with C(teams)), V(project), V(monitor) and V(status_page) need O(organization). Of
        the status pages those are listed of which the server tells whose they are, see M(glitchtip_status_page).
      - V(key) and V(alert) need O(organization) and O(project).
      - V(monitor_check) lists the checks of one O(monitor), newest first, and needs O(organization) too.
      - V(release) and V(environment) need O(organization) and may have O(project).
      - V(issue) needs O(organization), and may have O(project) and O(query); the last one seen comes first.
      - V(event) needs O(organization) and O(project), and may have O(event_id); newest first.
    type: str
    required: true
    choices:
      - instance
      - account
      - organization
      - team
      - member
      - project
      - key
      - alert
      - monitor
      - monitor_check
      - status_page
      - release
      - environment
      - issue
      - event
  organization:
    description: Slug of the organization (not its name).
    type: str
  project:
    description: Slug of the project (not its name). Refused for kinds that it says nothing about.
    type: str
  monitor:
    description: Name of the monitor whose checks to read; fails when two have the name.
    type: str
  query:
    description:
      - Search text for issues in the server's own language, for example V(is:unresolved level:error) or
        V(environment:production timeout).
      - Terms that the server would misread as a tag and answer with an empty list (C(age:), C(lastSeen:),
        negations, comparisons) are refused with what to write instead.
    type: str
  event_id:
    description: Read this event only, 32 hexadecimal digits. One that is not stored yet gives an empty list.
    type: str
  limit:
    description:
      - How many objects to read at most, from 1. RV(truncated) says whether there are more.
      - Left out, 100 for V(issue), V(event) and V(monitor_check), and all of the other kinds.
    type: int
attributes:
  check_mode:
    description:
      - Runs the same, because it only reads. A server, token or parent that is not there yet gives an empty list.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
extends_documentation_fragment: [glitchtip]
"""

EXAMPLES = r"""
- name: Version of the server
  glitchtip_info:
    url: http://127.0.0.1:8080
    kind: instance

- name: Whether the token is valid, and its scopes
  glitchtip_info:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    kind: account

- name: Projects of the organization
  glitchtip_info:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    kind: project
    organization: ai-admin
  register: found

- name: The ten unresolved errors of production that were seen last
  glitchtip_info:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    kind: issue
    organization: ai-admin
    project: ai-admin
    query: "is:unresolved level:error environment:production"
    limit: 10
  register: errors

- name: When the database was down and came back
  glitchtip_info:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    kind: monitor_check
    organization: ai-admin
    monitor: database
"""

RETURN = r"""
objects:
  description:
    - The objects, one for V(instance) and V(account). Masked are DSNs, ids of keys, tokens, heartbeat endpoints, all of
      a webhook's address but its host, user and query of a monitor's address, and in the texts of issues and
      events whatever looks like a secret.
  returned: success
  type: list
  elements: dict
truncated:
  description: Whether there are more objects than O(limit).
  returned: success
  type: bool
msg:
  description: Why the list is empty in check mode.
  returned: when the server, the token or the parent is not there yet
  type: str
failure:
  description: The parts of a refusal, status, code, detail, method, path and hint.
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.glitchtip_api import GlitchTipError
from ansible.module_utils.glitchtip_api.ansible_support import CONNECTION, client_for, fail, not_there_yet
from ansible.module_utils.glitchtip_api.reading import KINDS, read

OPTIONS = {
    **CONNECTION,
    "kind": {"type": "str", "required": True, "choices": list(KINDS)},
    "organization": {"type": "str"},
    "project": {"type": "str"},
    "monitor": {"type": "str"},
    "query": {"type": "str"},
    "event_id": {"type": "str"},
    "limit": {"type": "int"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=OPTIONS,
        supports_check_mode=True,
        required_if=[("kind", kind, list(how.needs)) for kind, how in KINDS.items() if how.needs],
    )
    kind = module.params["kind"]
    try:
        with client_for(module, needs_token=kind != "instance") as client:
            found = read(client, kind, module.params, module.params["limit"])
    except GlitchTipError as error:
        if not not_there_yet(module, error):
            fail(module, error)
        module.exit_json(changed=False, objects=[], truncated=False, msg=f"nothing to read yet: {error}")
    for warning in found.warnings:
        module.warn(warning)
    module.exit_json(changed=False, objects=found.objects, truncated=found.truncated)


if __name__ == "__main__":
    main()
