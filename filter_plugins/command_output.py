"""Filter of all roles: why a command failed, for the sentence that the play ends with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_PROGRAM = re.compile(r"^(?:glitchtip-ops|ai-admin-cutover): ")
_OWN_WORDS = "non-zero return code"


def command_reason(result: Mapping[str, Any]) -> str:
    """Why a command failed, as one line without anything that acts on a terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in _reason(result))


def _reason(result: Mapping[str, Any]) -> str:
    """What a registered command printed last, without its program's name and the full stop; else its exit code.

    Ansible's own "non-zero return code" is never the answer.
    """
    if told := _from_document(str(result.get("stdout") or "")):
        return told
    for name in ("stderr", "stdout"):
        lines = [line.strip() for line in str(result.get(name) or "").splitlines() if line.strip(" {}[],")]
        if lines:
            return _PROGRAM.sub("", lines[-1])[:500].rstrip(".")
    message = str(result.get("msg") or "").strip().rstrip(".")
    if message and message != _OWN_WORDS:
        return message[:500]
    return f"it printed nothing and ended with code {result.get('rc', 'unknown')}"


def _from_document(text: str) -> str:
    """The reasons that a program gave in its JSON document; empty where it printed none."""
    try:
        document = json.loads(text)
    except ValueError:
        return ""
    if not isinstance(document, dict):
        return ""
    for key in ("reason", "problems", "reasons", "detail"):
        if value := document.get(key):
            return ("; ".join(map(str, value)) if isinstance(value, list) else str(value))[:500].rstrip(".")
    return ""


class FilterModule:
    """The filters, by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """For Ansible."""
        return {"command_reason": command_reason}
