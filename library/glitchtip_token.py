#!/usr/bin/python
"""Keep an API token of a GlitchTip account as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: glitchtip_token
short_description: Create, adopt or revoke an API token of a GlitchTip account
description:
  - GlitchTip lists and creates tokens only for a logged-in session, so the module logs in with e-mail and
    password, and logs out again.
  - A token of the O(label) with exactly the O(scopes) is adopted. One of the label with other scopes cannot
    be changed by the server, so a new one is created first and the old one revoked after.
  - With O(current) a repeated run asks the server once whether that token still fits and does not log in.
  - An account that asks for a second factor is refused with a clear message, because nobody is there to
    give the code. Its tokens work without one, so a token made by hand can be given wherever one is needed.
  - Of several tokens that fit, the newest is adopted and the others are left alone.
  - A session that the server ends before the work is done is a failure with the code V(session_expired).
    The run may be repeated; it goes on where it stopped.
options:
  email:
    description:
      - E-mail address of the account. Addresses in a reserved top-level domain (V(.test), V(.local),
        V(.localhost), V(.invalid)) or without a dot are refused, because GlitchTip fails with such accounts.
    type: str
    required: true
  password:
    description: Password of the account.
    type: str
    required: true
  label:
    description: Label of the token, by which it is found.
    type: str
    required: true
  scopes:
    description: All scopes of the token. Needed for O(state=present).
    type: list
    elements: str
  current:
    description: The token of an earlier run, if there is one. May be empty.
    type: str
  url:
    description: Address of the server as this module reaches it.
    type: str
    required: true
  timeout:
    description: Seconds to wait for each answer.
    type: int
    default: 30
  ca_path:
    description:
      - PEM file, where the module runs, with the certificates of the authorities that the server's
        certificate may be signed by. Without it the usual authorities are trusted, or those of the
        environment variable E(REQUESTS_CA_BUNDLE).
    type: path
  validate_certs:
    description: Whether the server's certificate must be valid. V(false) lets anyone between read the password.
    type: bool
    default: true
  state:
    description: Whether a token of this label should exist. V(absent) revokes every token of the label.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description:
      - Makes no write. Without a fitting O(current) a login would be needed to know more, and a login is a
        write, so the module then reports a change.
    support: partial
    details: Cannot tell in check mode whether a token could be adopted.
  diff_mode:
    description: Shows label and scopes, never the token.
    support: full
requirements:
  - python >= 3.11
  - requests >= 2.32
  - urllib3 >= 2.0
author:
  - The maintainers of this repository (@maintainers)
"""

EXAMPLES = r"""
- name: Token of the operator tools
  glitchtip_token:
    url: http://127.0.0.1:8080
    email: admin@example.org
    password: "{{ glitchtip_admin_password }}"
    label: glitchtip-ops
    scopes: [org:read, project:read, event:read, event:write]
    current: "{{ glitchtip_kept_token | default('') }}"
  register: made
  no_log: true
"""

RETURN = r"""
token:
  description: The token, empty when absent or not known in check mode. A secret; use C(no_log) on the task.
  returned: success
  type: str
msg:
  description: What was done.
  returned: success
  type: str
failure:
  description: The parts of a refusal, status, code, detail, method, path and hint.
  returned: failure
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.glitchtip_api import Client, GlitchTipError
from ansible.module_utils.glitchtip_api.ansible_support import (
    SERVER,
    STATE,
    fail,
    not_there_yet,
    transport_options,
)
from ansible.module_utils.glitchtip_api.session import login, token_fits
from ansible.module_utils.glitchtip_api.validate import check_email, scope_bits

OPTIONS = {
    **SERVER,
    "email": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
    "label": {"type": "str", "required": True},
    "scopes": {"type": "list", "elements": "str"},
    "current": {"type": "str", "no_log": True},
    **STATE,
}


def take_current(module: AnsibleModule) -> str:
    """The option `current`, hidden from the invocation but not struck from the result.

    Ansible would blank a returned `token` that equals an option with no_log, and the caller would store
    the blank.
    """
    current = module.params["current"] or ""
    module.params["current"] = None
    module.no_log_values.discard(current)
    return current


def keep(module: AnsibleModule, current: str) -> dict[str, object]:
    """Do what was asked for and return the result."""
    p = module.params
    present, scopes = p["state"] == "present", p["scopes"] or []
    options = transport_options(module)
    check_email(p["email"])
    scope_bits(scopes)
    after = (
        {"state": "present", "label": p["label"], "scopes": sorted(scopes)}
        if present
        else {"state": "absent"}
    )
    change = {"changed": True, "diff": {"before": {}, "after": after}}
    try:
        if present and current:
            with Client(p["url"], current, **{**options, "read_only": True}) as client:
                if token_fits(client, p["label"], scopes):
                    return {"changed": False, "token": current, "msg": "the current token fits"}
        if module.check_mode:
            with Client(p["url"], **options) as client:
                client.root()
            return {**change, "token": "", "msg": "would log in, and create or revoke what is needed"}
        with login(p["url"], p["email"], p["password"], **options) as session:
            if not present:
                revoked = session.remove_token(p["label"])
                result = {"token": "", "msg": f"{revoked} revoked"}
                return {**change, **result} if revoked else {"changed": False, **result}
            made = session.ensure_token(p["label"], scopes)
    except GlitchTipError as error:
        if not not_there_yet(module, error):
            raise
        return {**change, "token": "", "msg": f"the server at {p['url']} is not there yet: would log in"}
    message = "created" if made.created else "adopted by its label"
    if made.revoked:
        message += f", and {made.revoked} with other scopes revoked"
    return {**(change if made.changed else {"changed": False}), "token": made.token, "msg": message}


def main() -> None:
    module = AnsibleModule(
        argument_spec=OPTIONS, supports_check_mode=True, required_if=[("state", "present", ["scopes"])]
    )
    current = take_current(module)
    try:
        result = keep(module, current)
    except GlitchTipError as error:
        fail(module, error)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
