#!/usr/bin/python
"""Keep a member of a GlitchTip organization as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: glitchtip_member
short_description: Invite, change or remove a member of a GlitchTip organization
description:
  - Finds the person by e-mail address, upper and lower case alike, among the members and the invitations.
    An invitation that nobody has accepted yet counts as present and is not sent again.
  - An invitation sends a mail with a link, which the person follows while logged in. On a server without a
    mail server the invitation is made all the same, and the mail is lost without a word. The link stays
    valid for 15 days and for whoever has it, also after it was followed.
  - On a server with closed registration (C(ENABLE_USER_REGISTRATION=false)) only people who have an account
    can be invited; the module says so.
  - The account that the token belongs to is never removed and its role never lowered. Neither is the primary
    owner, because a GlitchTip without it answers 500 to every question about the members; transfer the
    ownership first.
  - The token needs member:read, member:write for invitations and roles, member:admin to remove, team:read
    and team:write for O(teams), and the role manager or owner.
options:
  organization:
    description: Slug of the organization.
    type: str
    required: true
  email:
    description:
      - E-mail address of the person. Addresses in a reserved top-level domain (V(.test), V(.local),
        V(.localhost), V(.invalid)) or without a dot are refused, because GlitchTip fails with them.
    type: str
    required: true
  role:
    description: Role in the organization. Left out, a role stays, and an invitation is for a V(member).
    type: str
    choices: [member, admin, manager, owner]
  teams:
    description:
      - Slugs of exactly the teams to be in; the person leaves the others. Left out, the teams stay as they
        are.
    type: list
    elements: str
extends_documentation_fragment: [glitchtip, glitchtip.state]
"""

EXAMPLES = r"""
- name: A developer of the backend team
  glitchtip_member:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    organization: ai-admin
    email: dev@example.org
    role: member
    teams: [backend]

- name: Nobody of that address
  glitchtip_member:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    organization: ai-admin
    email: former@example.org
    state: absent
"""

RETURN = r"""
member:
  description:
    - The member, null when absent. While C(pending) the invitation waits to be accepted. C(teams) is null
      when O(teams) was left out.
  returned: success
  type: dict
  sample: {"id": "7", "email": "dev@example.org", "role": "member", "pending": true, "isOwner": false,
           "teams": ["backend"]}
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
from ansible.module_utils.glitchtip_api.ensure import ensure_member
from ansible.module_utils.glitchtip_api.ensure.member import predicted_member


def main() -> None:
    run(
        "member",
        {
            "organization": {"type": "str", "required": True},
            "email": {"type": "str", "required": True},
            "role": {"type": "str", "choices": ["member", "admin", "manager", "owner"]},
            "teams": {"type": "list", "elements": "str"},
        },
        lambda client, p, dry_run: ensure_member(
            client,
            p["organization"],
            p["email"],
            role=p["role"],
            teams=p["teams"],
            state=p["state"],
            dry_run=dry_run,
        ),
        lambda p: predicted_member(p["email"], p["role"], p["teams"]),
    )


if __name__ == "__main__":
    main()
