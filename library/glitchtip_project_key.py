#!/usr/bin/python
"""Keep a DSN key of a GlitchTip project as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: glitchtip_project_key
short_description: Create or delete a DSN key of a GlitchTip project
description:
  - Finds the key by its name within the project, and fails when two have the name.
  - A key cannot be changed or switched off, only deleted; its DSN stops working then.
  - The key without a name that the server makes with each project is left alone.
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
    description: Name of the key, 1 to 64 characters.
    type: str
    required: true
  rate_limit:
    description:
      - Events in so many seconds. Written when the key is created and never after, because a key cannot be
        changed.
      - The server stores it and does not enforce it; the module says so in a warning.
    type: dict
    suboptions:
      count:
        description: Number of events, 1 to 32767.
        type: int
        required: true
      window:
        description: Length of the window in seconds, 1 to 32767.
        type: int
        required: true
  ingest_url:
    description:
      - Address under which the services reach the server. The returned DSN points there.
      - Without it the DSN holds the server's public address.
    type: str
extends_documentation_fragment: [glitchtip, glitchtip.state]
"""

EXAMPLES = r"""
- name: Key of the product, for services on the same host
  glitchtip_project_key:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    organization: ai-admin
    project: ai-admin
    name: ai-admin
    ingest_url: http://127.0.0.1:8080
  register: made
  no_log: true
"""

RETURN = r"""
key:
  description: The key with its DSN, null when it is absent. The DSN is a secret; use C(no_log) on the task.
  returned: success
  type: dict
  sample:
    id: 9193e83c-80dc-4292-b568-632c3b3c23c6
    name: ai-admin
    public: 9193e83c80dc4292b568632c3b3c23c6
    dsn: http://9193e83c80dc4292b568632c3b3c23c6@127.0.0.1:8080/1
    rateLimit:
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
from ansible.module_utils.glitchtip_api.ensure import ensure_key
from ansible.module_utils.glitchtip_api.ensure.key import predicted_key

RATE_LIMIT = {"count": {"type": "int", "required": True}, "window": {"type": "int", "required": True}}


def main() -> None:
    run(
        "key",
        {
            "organization": {"type": "str", "required": True},
            "project": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "ingest_url": {"type": "str"},
            "rate_limit": {"type": "dict", "options": RATE_LIMIT},
        },
        lambda client, p, dry_run: ensure_key(
            client,
            p["organization"],
            p["project"],
            p["name"],
            ingest_url=p["ingest_url"],
            rate_limit=p["rate_limit"],
            state=p["state"],
            dry_run=dry_run,
        ),
        lambda p: predicted_key(p["name"], p["rate_limit"]),
    )


if __name__ == "__main__":
    main()
