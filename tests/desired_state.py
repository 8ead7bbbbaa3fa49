"""The desired state as the module gets it, for tests and benchmarks that call the client themselves."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from glitchtip_api.configuration.options import ORGANIZATIONS


def filled(organizations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What Ansible makes of the option `organizations`: every key present. Raises ValueError for a wrong one."""
    checked = ArgumentSpecValidator({"organizations": ORGANIZATIONS}).validate(
        {"organizations": organizations}
    )
    if checked.error_messages:
        raise ValueError("; ".join(checked.error_messages))
    entries: list[dict[str, Any]] = checked.validated_parameters["organizations"]
    return entries
