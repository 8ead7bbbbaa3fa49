#!/usr/bin/python
"""Read a GlitchTip server as the structure that glitchtip_configuration takes."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: glitchtip_configuration_info
short_description: Read a GlitchTip server as the structure that glitchtip_configuration takes
description:
  - Reads organizations with their teams, members, projects, keys, alert rules, monitors and status pages.
    The result, given to M(glitchtip_configuration), changes nothing on that server, and rebuilds it on an empty one.
  - What the structure cannot name, or the module would refuse, is listed as C(left_out) beside what it belongs to, with
    the reason; M(glitchtip_configuration) never removes it.
  - The addresses of webhooks are complete, because applying them would otherwise change them. They often hold
    a token, so set C(no_log) on the task; C(playbooks/export.yml) puts them into a file of their own.
  - Tags of recipients are not there on the 5.2 line, which never returns them. Applying leaves them as they are.
options:
  organizations:
    description: Slugs of the organizations. Left out, all that the account sees.
    type: list
    elements: str
  concurrency:
    description: Requests at once, 1 to 16.
    type: int
    default: 4
attributes:
  check_mode:
    description:
      - Runs the same, because it only reads. A server, token or organization that is not there yet gives an empty
        list.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
extends_documentation_fragment: [glitchtip]
"""

EXAMPLES = r"""
- name: What is there
  glitchtip_configuration_info:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
  register: found
  no_log: true

- name: The same again changes nothing
  glitchtip_configuration:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    organizations: "{{ found.organizations }}"
  no_log: true
"""

RETURN = r"""
organizations:
  description: The structure, without what has its default value.
  returned: success
  type: list
  elements: dict
left_out:
  description: What is C(left_out) in the structure, a sentence each.
  returned: success
  type: list
  elements: str
msg:
  description: Why the list is empty in check mode.
  returned: when the server, the token or an organization is not there yet
  type: str
failure:
  description: The parts of a refusal, status, code, detail, method, path and hint.
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.glitchtip_api.ansible_support import CONNECTION
from ansible.module_utils.glitchtip_api.configuration.ansible_module import describe

OPTIONS = {
    **CONNECTION,
    "organizations": {"type": "list", "elements": "str"},
    "concurrency": {"type": "int", "default": 4},
}


def main() -> None:
    describe(AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True))


if __name__ == "__main__":
    main()
