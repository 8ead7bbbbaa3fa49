#!/usr/bin/python
"""Keep an organization of a GlitchTip server as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: glitchtip_organization
short_description: Create or delete an organization of a GlitchTip server
description:
  - Finds the organization by its name. The server does not keep names unique, so the module fails when two
    organizations have the name.
  - The slug is made by the server from the name and cannot be chosen; use the returned one.
options:
  name:
    description: Name of the organization, 1 to 200 characters.
    type: str
    required: true
extends_documentation_fragment: [glitchtip, glitchtip.state]
"""

EXAMPLES = r"""
- name: Organization of the team
  glitchtip_organization:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    name: AI Admin
  register: made

- name: Its slug
  ansible.builtin.debug:
    var: made.organization.slug
"""

RETURN = r"""
organization:
  description: The organization, null when it is absent.
  returned: success
  type: dict
  sample: {"id": "1", "slug": "ai-admin", "name": "AI Admin"}
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

from ansible.module_utils.glitchtip_api.ansible_support import run
from ansible.module_utils.glitchtip_api.ensure import ensure_organization
from ansible.module_utils.glitchtip_api.ensure.organization import predicted_organization


def main() -> None:
    run(
        "organization",
        {"name": {"type": "str", "required": True}},
        lambda client, p, dry_run: ensure_organization(client, p["name"], state=p["state"], dry_run=dry_run),
        lambda p: predicted_organization(p["name"]),
    )


if __name__ == "__main__":
    main()
