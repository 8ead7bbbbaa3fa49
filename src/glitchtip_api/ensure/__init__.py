"""Wanted state to fact: find by the natural key, compare, create or change, once.

Every function takes ``state`` ("present" or "absent") and ``dry_run``, and returns an `Outcome`. Only the
named object is touched.
"""

from __future__ import annotations

from .alert import ensure_alert
from .key import ensure_key
from .member import ensure_member
from .monitor import ensure_monitor
from .organization import ensure_organization
from .outcome import Outcome, slugify
from .project import ensure_project
from .status_page import ensure_status_page
from .team import ensure_team

__all__ = [
    "Outcome",
    "ensure_alert",
    "ensure_key",
    "ensure_member",
    "ensure_monitor",
    "ensure_organization",
    "ensure_project",
    "ensure_status_page",
    "ensure_team",
    "slugify",
]
