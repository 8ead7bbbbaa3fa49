"""What the switch on the products' servers says against "every service reports to GlitchTip"."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_STATES = {
    "none": "was never switched: its services report to the original tracker",
    "rolled_back": "was rolled back: its services report to the original tracker",
    "applying": "is in the middle of a switch",
    "rolling_back": "is in the middle of a rollback",
    "applied": "was switched, but not confirmed",
}


def not_on_glitchtip(answers: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence for each server on which a service does not report to GlitchTip, or that does not say so.

    ``answers``: results of ``ai-admin-cutover plan --to=glitchtip --json``, each with ``switched_host`` (the server). Services that an
    operator put back alone are left out: the journal of the switch names them.
    """
    found = []
    for answer in answers:
        problem = _problem(answer)
        if problem:
            found.append(f"{answer.get('switched_host', 'a server')} {problem}.")
    return found


def _problem(answer: Mapping[str, Any]) -> str:
    """What one server's answer says against it; empty where nothing does."""
    try:
        plan = json.loads(answer.get("stdout") or "")
    except ValueError:
        plan = None
    if not isinstance(plan, dict):
        return "does not say where its services report to (the cutover program did not respond)"
    if "state" not in plan or "stands" not in plan:
        return f"does not say where its services report to ({plan.get('reason') or 'the cutover program failed'})"
    state, stands = str(plan["state"]), str(plan["stands"])
    if stands == "mirror":
        return "still reports through the mirror"
    if stands != "glitchtip" or state not in ("confirmed", "rolled_back"):
        return _STATES.get(state, f"is in the state {state}")
    return _unsettled(plan) if plan.get("would_change", True) else ""


def _unsettled(plan: Mapping[str, Any]) -> str:
    """What of a switched server is not on the current DSNs, apart from the services that were put back alone."""
    alone = set(plan.get("overrides") or [])
    rows = [row for row in plan.get("services") or [] if row.get("name") not in alone]
    given = [str(row["name"]) for row in rows if " set anew in " in str(row.get("action"))]
    if given:
        verb = "is" if len(given) == 1 else "are"
        return f"was switched, but {', '.join(given)} {verb} given another DSN by the process manager now"
    served = {str(step.get("act")): set(step.get("services") or []) for step in plan.get("order") or []}
    files = [str(row["path"]) for row in plan.get("diff") or []]
    files = [path for path in files if not alone or served.get(f"write {path}", set()) - alone]
    if files:
        return f"was switched, but {', '.join(files)} does not hold the DSN of the GlitchTip that is deployed now"
    if alone:
        return ""
    reasons = plan.get("problems") or ["its DSN is another one"]
    return f"was switched, but not to the GlitchTip that is deployed now ({reasons[0]})"


class FilterModule:
    """Ansible's way to find filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file by their names."""
        return {"not_on_glitchtip": not_on_glitchtip}
