"""Check the operator's variables on the controller: no host is asked, nothing is written.

Returns ``problems``, a sentence each, and ``blocking``, those of them that keep the host from being asked.
``scope``: ``all`` (phase 0), ``names`` (later phases: misspelt variables alone) or ``command_line`` (misspelt variables given
with ``-e``: for playbooks that a fault in a file must not stop).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible import context
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

ROOT = Path(__file__).resolve().parents[3]
if str(ROOT / "src") not in sys.path:
    sys.path.append(str(ROOT / "src"))

# Ansible loads this file by its path: the package is found from here on.
from glitchtip_inventory.names import read_known, unknown_names  # noqa: E402
from glitchtip_inventory.sources import COMMAND_LINE, read_given  # noqa: E402
from glitchtip_inventory.specifications import read_specifications, wrong_values  # noqa: E402
from glitchtip_inventory.values import mail_url_problem, placeholders, plain_secrets  # noqa: E402

_MAIL_URL = "glitchtip_email_url"


class ActionModule(ActionBase):
    """``preflight_inventory: {scope: all}``."""

    _VALID_ARGS = frozenset({"scope"})
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Collect every problem; the caller fails with all of them at once."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        scope = self._task.args.get("scope", "all")
        sources = [str(source) for source in context.CLIARGS.get("inventory") or ()]
        playbooks = Path(variables.get("playbook_dir") or ROOT / "playbooks")
        known = read_known(ROOT)
        given = read_given(
            sources,
            load_extra_vars(self._loader),
            lambda path: self._loader.load_from_file(str(path)),
            playbooks,
        )
        problems = [
            sentence
            for sentence in unknown_names(given, known)
            if scope != "command_line" or sentence.startswith(COMMAND_LINE)
        ]
        if scope != "all":
            return result | {"changed": False, "problems": problems, "blocking": []}
        unfilled = list(placeholders(given, known, variables))
        problems += [sentence for _, sentence in unfilled]
        problems += plain_secrets(sources, playbooks)
        hollow = {name for name, _ in unfilled}
        specifications = read_specifications(ROOT / "roles")
        wrong = {
            one.name: list(wrong_values([one], specifications, variables, self._templar.template, _validate))
            for one in given
            if one.name not in hollow
        }
        problems += [sentence for sentences in wrong.values() for sentence in sentences]
        problems += self._mail_url(variables, hollow)
        blocking = [sentence for name, sentence in unfilled if self._feeds_the_connection(name, variables)]
        blocking += [sentence for name, sentences in wrong.items() if name.startswith("preflight_") for sentence in sentences]
        return result | {"changed": False, "problems": list(dict.fromkeys(problems)), "blocking": blocking}

    def _mail_url(self, variables: dict[str, Any], hollow: set[str]) -> list[str]:
        """What is wrong with the mail server's address, unless that is a placeholder anyway."""
        if _MAIL_URL not in variables or hollow & {_MAIL_URL, f"vault_{_MAIL_URL}"}:
            return []
        try:
            url = str(self._templar.template(variables[_MAIL_URL]) or "")
        except Exception:  # undefined: told by the check of values
            return []
        problem = mail_url_problem(url)
        return [f"{_MAIL_URL} {problem}."] if problem else []

    @staticmethod
    def _feeds_the_connection(name: str, variables: dict[str, Any]) -> bool:
        """Whether it is one of Ansible's own connection variables, or one of those refers to it."""
        return name.startswith("ansible_") or any(
            key.startswith("ansible_") and isinstance(value, str) and name in value for key, value in variables.items()
        )


def _validate(specification: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """Error messages of Ansible's own validator of role arguments."""
    messages: list[str] = ArgumentSpecValidator(specification).validate(values).error_messages
    return messages
