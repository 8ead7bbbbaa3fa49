"""A whole server as one desired state: read it, plan, apply, export.

Every comparison is that of the single `ensure_*` functions, so a configuration and the modules agree on what
is the same. The lists are read once and given to them; in a run without changes nothing else is asked.
"""

from __future__ import annotations

from .applying import Applied, apply
from .exporting import Export, export
from .planning import Plan, Step, plan
from .reconciling import Reconciled, reconcile
from .snapshot import Snapshot, read
from .structure import KINDS, PURGEABLE, ConfigurationError, Entry, Where

__all__ = [
    "KINDS",
    "PURGEABLE",
    "Applied",
    "ConfigurationError",
    "Entry",
    "Export",
    "Plan",
    "Reconciled",
    "Snapshot",
    "Step",
    "Where",
    "apply",
    "export",
    "plan",
    "read",
    "reconcile",
]
