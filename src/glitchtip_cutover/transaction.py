"""The switch and its way back: status, snapshot, plan, apply, confirm, rollback, recover.

Every act is journalled before it begins; whatever stops a run, the journal and the recorded states tell the next run what has to be
put back (``glitchtip_core.transaction``). What stands is before, mirror or glitchtip; a failed attempt restores what stood before it,
a rollback always leads to before the migration.
"""

from __future__ import annotations

from .confirming import Confirming
from .parts import Result as Result
from .rolling_back import RollingBack
from .status import Standing


class Cutover(Standing, Confirming, RollingBack):
    """All commands for one configuration. Each returns a result without secrets or raises CutoverError."""
