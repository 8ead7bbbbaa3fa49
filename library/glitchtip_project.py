#!/usr/bin/python
"""Keep a project of a GlitchTip organization as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: glitchtip_project
short_description: Create, change or delete a project of a GlitchTip organization
description:
  - Finds the project by its O(slug) where that is given, else by its O(name), within the organization, and
    fails when two have the name (the server does not keep names unique).
  - A change is one write of the whole project as it was just read; omitted options stay as they are.
  - The server makes the slug of a new project from its name, and ignores a given one; O(slug) is written
    after that. Right after a project was deleted its slug is still taken for a while. Then a new one of the
    same name gets a suffix, and the module warns; with O(slug) it fails and leaves nothing behind.
options:
  organization:
    description: Slug of the organization.
    type: str
    required: true
  team:
    description:
      - Slug of a team that the project belongs to. A project that is there already is added to it and keeps
        its other teams.
      - A new project needs this or O(teams). Given both, it must be one of O(teams); the project is created
        in it.
    type: str
  teams:
    description:
      - Slugs of the teams that the project belongs to, exactly these; it is taken from others.
      - Left out, the teams stay as they are. A project without any team e-mails nobody.
    type: list
    elements: str
  name:
    description: Name of the project, 1 to 64 characters. With O(slug), a project of another name is renamed.
    type: str
    required: true
  slug:
    description:
      - Slug of the project, 1 to 50 letters, digits, hyphens or underscores; the part of its address that
        finds it again when it is renamed.
    type: str
  platform:
    description: Platform, for example V(node). The server takes any text.
    type: str
  event_throttle_rate:
    description: Percent of the events that are refused, 0 to 100.
    type: int
extends_documentation_fragment: [glitchtip, glitchtip.state]
"""

EXAMPLES = r"""
- name: Project of the product
  glitchtip_project:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    organization: ai-admin
    team: backend
    name: ai-admin
    platform: node
  register: made

- name: Project with a fixed address, of two teams and no other
  glitchtip_project:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    organization: ai-admin
    name: Shop, production
    slug: shop
    teams: [backend, on-call]
"""

RETURN = r"""
project:
  description: The project, null when it is absent.
  returned: success
  type: dict
  sample:
    id: "1"
    slug: ai-admin
    name: ai-admin
    platform: node
    eventThrottleRate: 0
    teams: [backend]
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
from ansible.module_utils.glitchtip_api.ensure import ensure_project
from ansible.module_utils.glitchtip_api.ensure.project import predicted_project


def main() -> None:
    run(
        "project",
        {
            "organization": {"type": "str", "required": True},
            "team": {"type": "str"},
            "teams": {"type": "list", "elements": "str"},
            "name": {"type": "str", "required": True},
            "slug": {"type": "str"},
            "platform": {"type": "str"},
            "event_throttle_rate": {"type": "int"},
        },
        lambda client, p, dry_run: ensure_project(
            client,
            p["organization"],
            p["team"],
            p["name"],
            slug=p["slug"],
            teams=p["teams"],
            platform=p["platform"],
            event_throttle_rate=p["event_throttle_rate"],
            state=p["state"],
            dry_run=dry_run,
        ),
        lambda p: predicted_project(
            p["name"],
            p["teams"] or ([p["team"]] if p["team"] else []),
            {"platform": p["platform"], "eventThrottleRate": p["event_throttle_rate"]},
            slug=p["slug"],
        ),
    )


if __name__ == "__main__":
    main()
