#!/usr/bin/python
"""Keep a status page of a GlitchTip organization as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: glitchtip_status_page
short_description: Create a status page of a GlitchTip organization
description:
  - Finds the page by its name within the organization, and fails when two have the name.
  - The server's API can create and list pages, and nothing more. A page that is there with another O(public), or
    that should be absent, is a failure that says where a superuser can do it. Monitors are put on a page in the
    administration of the server, too.
  - The server lists the pages of all organizations of the token's user without saying whose they are. Public ones
    are found at their address. Private ones can be looked after only by a user who is a member of one
    organization; otherwise the module fails and says so.
options:
  organization:
    description: Slug of the organization.
    type: str
    required: true
  name:
    description: Name of the page. The server makes its slug from it.
    type: str
    required: true
  public:
    description:
      - Whether everybody can read the page. Left out, a page that is there stays as it is, and a new one is
        private.
    type: bool
  state:
    description:
      - Whether the page should be there. V(absent) fails for a page that is there, because no server can delete one
        over its API.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment: [glitchtip, glitchtip.state]
"""

EXAMPLES = r"""
- name: A page for the team's customers
  glitchtip_status_page:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    organization: ai-admin
    name: Service status
    public: true
  register: status_page

- name: Show where it is
  ansible.builtin.debug:
    msg: "https://errors.example.org/status-pages/ai-admin/{{ status_page.status_page.slug }}/"
"""

RETURN = r"""
status_page:
  description: The page, null when it is absent.
  returned: success
  type: dict
  sample:
    name: Service status
    slug: service-status
    isPublic: true
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
from ansible.module_utils.glitchtip_api.ensure import ensure_status_page
from ansible.module_utils.glitchtip_api.ensure.status_page import predicted_status_page


def main() -> None:
    run(
        "status_page",
        {
            "organization": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "public": {"type": "bool"},
        },
        lambda client, p, dry_run: ensure_status_page(
            client,
            p["organization"],
            p["name"],
            public=p["public"],
            state=p["state"],
            dry_run=dry_run,
        ),
        lambda p: predicted_status_page(p["name"], p["public"]),
    )


if __name__ == "__main__":
    main()
