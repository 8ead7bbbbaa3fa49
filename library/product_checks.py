#!/usr/bin/python
"""What keeps the switch of the DSN from succeeding, found on the product's host before anything is changed."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: product_checks
short_description: Find every reason against a switch of the DSN before anything is changed
description:
  - Reads the product's C(.env) files, its services and its instrument files as the program C(ai-admin-cutover) will
    read them in later phases, with the same code and as the same users; writes nothing and restarts nothing.
  - Asks the old tracker with the tokens of the inventory, before they are written anywhere.
  - Returns a sentence for each problem; it does not fail, so that the caller can report all problems at once.
options:
  config:
    description: The configuration of C(ai-admin-cutover), as the role writes it.
    type: dict
    required: true
  offline_reported:
    description: Services that are missing or not online are reported elsewhere.
    type: bool
    default: false
  notify:
    description: The document of the notifications, as the role writes it. Holds secrets.
    type: dict
  trackers:
    description: Trackers that later phases read with a token of the inventory.
    type: list
    elements: dict
    default: []
    suboptions:
      variables:
        description: Prefix of the variables that describe it, for messages.
        type: str
        required: true
      address_variable:
        description: Name of the variable with its address, for messages.
        type: str
        required: true
      address:
        description: Its address; empty means that it is not read.
        type: str
        default: ''
      organization:
        description: Slug of the organization.
        type: str
        default: ''
      project:
        description: Slug of the project.
        type: str
        default: ''
      token:
        description: API token.
        type: str
        default: ''
attributes:
  check_mode:
    description: Runs the same, because it only reads.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
author:
  - The maintainers of this repository (@maintainers)
"""

EXAMPLES = r"""
- name: Find what keeps the switch from succeeding
  product_checks:
    config: "{{ cutover_configuration }}"
    trackers:
      - variables: ai_admin_cutover_old
        address_variable: ai_admin_cutover_old_api_url
        address: https://sentry.example.org
        organization: example
        project: shop
        token: "{{ vault_sentry_token }}"
  register: product
"""

RETURN = r"""
problems:
  description: What has to be corrected first, a sentence each.
  returned: always
  type: list
  elements: str
  sample: ["shop-api: there is no instrument file src/instrument.js in /opt/shop."]
notes:
  description: Advice that keeps nothing from beginning, a sentence each.
  returned: always
  type: list
  elements: str
  sample: []
env_files_read:
  description: Whether the C(.env) files were judged.
  returned: always
  type: bool
"""

import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.glitchtip_core.text import printable_module

IMPORT_PROBLEM = ""
try:
    # The managers are imported where they are used; named here, they are sent along by whatever reads only this file.
    from ansible.module_utils.glitchtip_cutover import compose as _compose  # noqa: F401
    from ansible.module_utils.glitchtip_cutover import pm2 as _pm2  # noqa: F401
    from ansible.module_utils.glitchtip_cutover import systemd as _systemd  # noqa: F401
    from ansible.module_utils.glitchtip_cutover.manager import manager_for
    from ansible.module_utils.glitchtip_cutover.prechecks import (
        Findings,
        check_migrated_project,
        check_notifications,
        check_product,
        read_config,
    )
    from ansible.module_utils.glitchtip_cutover.token_check import Given, tracker_problems
except (ImportError, SyntaxError, AttributeError):  # a Python that is older than the switch needs; phase 0 says so
    IMPORT_PROBLEM = traceback.format_exc(limit=0).strip()


def collect(options: dict[str, Any]) -> dict[str, Any]:
    """Every problem and note; what cannot be judged is a problem itself."""
    findings = Findings()
    config = read_config(options["config"], findings)
    if options["notify"]:
        check_notifications(options["notify"], findings)
    known: dict[str, str] = {}
    for tracker in options["trackers"]:
        if tracker["address"]:
            problems, number = tracker_problems(Given(**tracker))
            findings.problems += problems
            known[tracker["variables"]] = number
    if config is not None:
        check_product(config, manager_for(config), findings, known_offline=options["offline_reported"])
        check_migrated_project(config, known.get("ai_admin_cutover_old", ""), findings)
    return {**findings.result(), "env_files_read": config is not None}


def main() -> None:
    """Run the module."""
    text = {"type": "str", "default": ""}
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "dict", "required": True},
            "offline_reported": {"type": "bool", "default": False},
            "notify": {"type": "dict", "no_log": True},
            "trackers": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "variables": {"type": "str", "required": True},
                    "address_variable": {"type": "str", "required": True},
                    "address": text,
                    "organization": text,
                    "project": text,
                    "token": {**text, "no_log": True},
                },
            },
        },
        supports_check_mode=True,
    )
    printable_module(module)
    if IMPORT_PROBLEM:
        module.exit_json(
            changed=False,
            problems=[
                f"The product cannot be checked with this host's Python, the switch needs 3.11 or newer ({IMPORT_PROBLEM})."
            ],
            notes=[],
            env_files_read=False,
        )
        return
    module.exit_json(changed=False, **collect(module.params))


if __name__ == "__main__":
    main()
