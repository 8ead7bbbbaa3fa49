"""The verdict of the parallel run, without which services are not moved to the new tracker.

``glitchtip-ops soak`` writes it: ``{"verdict": "GO"|"NO_GO", "migration_id", "stack_id", "judged_at", ...}``; times are ISO 8601.
"""

from __future__ import annotations

from datetime import UTC, datetime

from glitchtip_core.json_text import decode_json

from .config import VerdictSettings

# Clocks of one host may be set back a little between two runs.
_AHEAD = 300.0


def _age(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172800:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"


def verdict_problem(settings: VerdictSettings, migration_id: str, now: float) -> str | None:
    """Why the verdict does not allow a switch at ``now`` (epoch seconds), as one sentence; None when it does."""
    path = settings.file
    try:
        data = decode_json(path.read_bytes())
    except FileNotFoundError:
        return f"there is no verdict of the parallel run in {path}; run phase 3 first"
    except (OSError, ValueError) as error:
        return f"the verdict {path} cannot be read: {type(error).__name__}"
    if not isinstance(data, dict) or not isinstance(data.get("verdict"), str):
        return f"the verdict {path} holds no verdict"
    if data["verdict"] != "GO":
        reasons = data.get("reasons")
        why = (
            f": {reasons[0]}" if isinstance(reasons, list) and reasons and isinstance(reasons[0], str) else ""
        )
        return f"the verdict of the parallel run is NO_GO{why}"
    if data.get("migration_id") != migration_id:
        return f"the verdict {path} is not of this migration ({migration_id})"
    if settings.stack_id and data.get("stack_id") != settings.stack_id:
        return f"the verdict {path} is of another GlitchTip stack than the one deployed now; run phase 3 again"
    try:
        judged = datetime.fromisoformat(data["judged_at"])
    except (KeyError, TypeError, ValueError):
        return f"the verdict {path} does not say when it was given"
    age = now - (judged if judged.tzinfo else judged.replace(tzinfo=UTC)).timestamp()
    if age < -_AHEAD:
        return (
            f"the verdict {path} is from the future ({data['judged_at']}): is the clock of this host right?"
        )
    if age > settings.max_age:
        return f"the verdict of the parallel run is too old: {_age(age)}, at most {_age(settings.max_age)} are allowed"
    return None
