"""Which backups may go."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from .sets import Backup

_CLOCK_TOLERANCE = timedelta(hours=1)


def plan_prune(
    backups: Sequence[Backup], now: datetime, *, keep_days: int, keep_verified: int
) -> tuple[list[Backup], str]:
    """Which of ``backups`` (oldest first) may go, and one sentence about it.

    Never fewer than ``keep_verified`` verified ones stay; nothing goes when the newest backup is not verified
    or lies in the future (then the clock cannot be trusted).
    """
    if keep_days < 1 or keep_verified < 1:
        return [], "retention must keep at least one day and one verified backup: nothing pruned"
    if not backups:
        return [], "there is no backup: nothing pruned"
    newest = backups[-1]
    if newest.taken_at > now + _CLOCK_TOLERANCE:
        return [], f"backup {newest.name} lies in the future, the clock is not trusted: nothing pruned"
    if not newest.verified:
        return [], f"the newest backup {newest.name} is not verified: nothing pruned"
    kept = {backup.name for backup in [b for b in backups if b.verified][-keep_verified:]}
    limit = now - timedelta(days=keep_days)
    going = [backup for backup in backups if backup.taken_at < limit and backup.name not in kept]
    return going, f"{len(going)} of {len(backups)} backups are older than {keep_days} days and may go"
