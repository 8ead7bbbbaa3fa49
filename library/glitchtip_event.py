#!/usr/bin/python
"""Send an event to a GlitchTip project and read it back."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: glitchtip_event
short_description: Send an event to a GlitchTip project and read it back
description:
  - Sends one event with a DSN, as an SDK does, and waits until the API returns it by its id. That the server
    answered 200 proves nothing; only an event that was read back proves that the DSN works.
  - A probe does not count as a change.
  - Never give a guessed DSN. One wrong key makes the server refuse the project's right ones for 30 seconds.
options:
  dsn:
    description: The DSN to send with.
    type: str
    required: true
  message:
    description: Text of the event. Events with the same text form one issue.
    type: str
    default: Test event
  level:
    description: Level of the event.
    type: str
    choices: [debug, info, warning, error, fatal]
    default: info
  tags:
    description: Tags of the event.
    type: dict
    default: {}
  wait:
    description: Read the event back. Needs O(url), O(token), O(organization) and O(project).
    type: bool
    default: true
  organization:
    description: Slug of the organization.
    type: str
  project:
    description: Slug of the project that the DSN belongs to.
    type: str
  url:
    description: Address of the server's API, for reading back.
    type: str
  token:
    description: API token with the scopes for reading events. May be empty in check mode.
    type: str
  timeout:
    description: Seconds to wait for the event.
    type: int
    default: 30
  ca_path:
    description:
      - PEM file, where the module runs, with the certificates of the authorities that the server's
        certificate may be signed by. Without it the usual authorities are trusted, or those of the
        environment variable E(REQUESTS_CA_BUNDLE).
    type: path
  validate_certs:
    description: Whether the server's certificate must be valid. V(false) lets anyone between read the event and the token.
    type: bool
    default: true
attributes:
  check_mode:
    description: Sends nothing.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
requirements:
  - python >= 3.11
  - requests >= 2.32
  - urllib3 >= 2.0
author:
  - The maintainers of this repository (@maintainers)
"""

EXAMPLES = r"""
- name: Prove the DSN
  glitchtip_event:
    url: http://127.0.0.1:8080
    token: "{{ glitchtip_token }}"
    dsn: "{{ glitchtip_dsn }}"
    organization: ai-admin
    project: ai-admin
    message: Deployment probe
    tags:
      service: deployment
  register: probe
"""

RETURN = r"""
event_id:
  description: Id of the event, 32 hexadecimal digits; empty in check mode.
  returned: success
  type: str
seconds:
  description: Seconds from sending until the event was read back (or accepted, without O(wait)).
  returned: success
  type: float
msg:
  description: That nothing was sent.
  returned: in check mode
  type: str
failure:
  description: The parts of a refusal, status, code, detail, method, path and hint.
  returned: failure
  type: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.glitchtip_api import Client, GlitchTipError, parse_dsn
from ansible.module_utils.glitchtip_api.ansible_support import TLS, fail
from ansible.module_utils.glitchtip_api.ingest import await_event, send_event

OPTIONS = {
    "dsn": {"type": "str", "required": True, "no_log": True},
    "message": {"type": "str", "default": "Test event"},
    "level": {"type": "str", "choices": ["debug", "info", "warning", "error", "fatal"], "default": "info"},
    "tags": {"type": "dict", "default": {}},
    "wait": {"type": "bool", "default": True},
    "organization": {"type": "str"},
    "project": {"type": "str"},
    "url": {"type": "str"},
    "token": {"type": "str", "no_log": True},
    "timeout": {"type": "int", "default": 30},
    **TLS,
}


def main() -> None:
    module = AnsibleModule(
        argument_spec=OPTIONS,
        supports_check_mode=True,
        required_if=[("wait", True, ["url", "token", "organization", "project"])],
    )
    p = module.params
    if module.check_mode:
        module.exit_json(changed=False, event_id="", seconds=0.0, msg="check mode: nothing was sent")
    tags = {str(name): str(value) for name, value in p["tags"].items()}
    began = time.monotonic()
    try:
        event = {"message": p["message"], "level": p["level"], "tags": tags}
        tls = {name: p[name] for name in TLS}
        event_id = send_event(parse_dsn(p["dsn"]), event, **tls)
        if p["wait"]:
            # patience is for this module to have, not for the circuit breaker to end
            with Client(p["url"], p["token"], open_after=None, **tls) as client:
                await_event(client, p["organization"], p["project"], event_id, p["timeout"])
    except GlitchTipError as error:
        fail(module, error)
    module.exit_json(changed=False, event_id=event_id, seconds=round(time.monotonic() - began, 3))


if __name__ == "__main__":
    main()
