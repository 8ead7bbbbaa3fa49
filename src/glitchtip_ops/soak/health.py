"""What ``glitchtip-ops monitor`` reports of soaks that run."""

from __future__ import annotations

from datetime import datetime

from ..pipeline import Check
from ..settings import Settings
from .running import kept_reasons, migration_directory, stalled
from .store import SoakFiles


def check_soaks(settings: Settings, now: datetime) -> list[Check]:
    """One check over all soaks that run (none: no check): GO can still be reached, and samples come.

    Raises OpsError when a file of a soak cannot be read.
    """
    running = 0
    troubles: list[str] = []
    for files in SoakFiles.all_of(migration_directory(settings)):
        plan = files.read_plan()
        if plan is None or files.verdict.exists():
            continue
        running += 1
        which = f"soak {files.name}" if files.name else "the soak"
        reasons = kept_reasons(files)
        if reasons:
            more = f" (and {len(reasons) - 1} more)" if reasons[1:] else ""
            troubles.append(f"{which} cannot end with GO: {reasons[0]}{more}")
        silence = stalled(files, plan, now)
        if silence:
            troubles.append(f"{which}: {silence}")
    if not running:
        return []
    good = f"{running} soak(s) run, GO can be reached"
    return [Check("soak", not troubles, "; ".join(troubles) or good)]
