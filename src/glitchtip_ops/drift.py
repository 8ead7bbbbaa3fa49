"""What the cutover's program says of drift: does every settings file and process still name the active target?

The program is asked through its command line (``ai-admin-cutover drift --json``): it knows the target, the files and
the services' manager, and masks keys itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from glitchtip_api.errors import scrub

from .process import OpsError, run

#: As role monitoring sets it by default.
DEFAULT_COMMAND = ("/usr/local/sbin/ai-admin-cutover", "drift", "--json")
_TIMEOUT = 180.0
_SHOWN = 3


@dataclass(frozen=True)
class Drift:
    """``compared`` is False where no switch is in effect; ``target`` is before, mirror or glitchtip."""

    compared: bool
    target: str
    hosts: str
    files: int
    processes: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """One sentence for an alert: the first problems, or what was compared."""
        if self.problems:
            more = len(self.problems) - _SHOWN
            return "; ".join(self.problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        if not self.compared:
            return "; ".join(self.notes) or "no switch is in effect"
        return f"{self.files} settings files and {self.processes} processes agree with {self.target} ({self.hosts})"


def read_drift(command: Sequence[str]) -> Drift:
    """Ask the cutover's program. Raises OpsError when it cannot be run or fails."""
    done = run(list(command), timeout=_TIMEOUT)
    try:
        document = json.loads(done.stdout)
    except ValueError:
        document = None
    if not isinstance(document, dict) or done.code not in (0, 1):
        raise OpsError(f"{command[0]} drift failed with exit code {done.code}: {done.reason}")
    if document.get("failed"):
        raise OpsError(f"{command[0]} drift failed: {scrub(str(document.get('reason')))}")
    return Drift(
        compared=document.get("compared") is True,
        target=str(document.get("target")),
        hosts=str(document.get("target_hosts", "-")),
        files=int(document.get("files") or 0),
        processes=int(document.get("processes") or 0),
        problems=tuple(scrub(str(text)) for text in document.get("problems") or []),
        notes=tuple(scrub(str(text)) for text in document.get("notes") or []),
    )
