#!/usr/bin/python
"""Keep a team of a GlitchTip organization as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: glitchtip_team
short_description: Create or delete a team of a GlitchTip organization
description:
  - The slug is the only name of a team, and unique within its organization.
options:
  organization:
    description: Slug of the organization.
    type: str
    required: true
  slug:
    description: Slug of the team, 1 to 50 letters, digits, hyphens or underscores.
    type: str
    required: true
extends_documentation_fragment: [glitchtip, glitchtip.state]
"""

EXAMPLES = r"""
- name: Team of the developers
  glitchtip_team:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    organization: ai-admin
    slug: backend

- name: Team that is called at night
  glitchtip_team:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    organization: ai-admin
    slug: on-call
"""

RETURN = r"""
team:
  description: The team, null when it is absent.
  returned: success
  type: dict
  sample: {"id": "1", "slug": "backend"}
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
from ansible.module_utils.glitchtip_api.ensure import ensure_team
from ansible.module_utils.glitchtip_api.ensure.team import predicted_team


def main() -> None:
    run(
        "team",
        {"organization": {"type": "str", "required": True}, "slug": {"type": "str", "required": True}},
        lambda client, p, dry_run: ensure_team(
            client, p["organization"], p["slug"], state=p["state"], dry_run=dry_run
        ),
        lambda p: predicted_team(p["slug"]),
    )


if __name__ == "__main__":
    main()
