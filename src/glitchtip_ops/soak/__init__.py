"""``glitchtip-ops soak``: prove GlitchTip beside Sentry for a while, then say GO or NO_GO.

A soak is a plan (``plan.json``), samples (``soak.jsonl``, one line each, fsynced) and a verdict
(``verdict.json``) in ``<state_dir>/<migration_id>/``. A systemd timer starts ``soak sample`` for each sample, so
that it outlives the operator's session and goes on after a reboot; the verdict is a pure function of the plan,
the samples and the parity comparison. See docs/soak.md.
"""

from .commands import register
from .config import SoakConfig
from .plan import GO, NO_GO, Plan, Thresholds
from .store import SoakFiles
from .verdict import judge

__all__ = ["GO", "NO_GO", "Plan", "SoakConfig", "SoakFiles", "Thresholds", "judge", "register"]
