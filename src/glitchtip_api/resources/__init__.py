"""The resources of the API, one file each."""

from __future__ import annotations

from .alerts import Alerts
from .environments import Environments
from .events import Events
from .issues import Issues
from .keys import Keys
from .members import Members
from .monitors import Monitors
from .organizations import Organizations
from .projects import Projects
from .releases import Releases
from .statistics import Statistics
from .status_pages import StatusPages
from .teams import Teams

__all__ = [
    "Alerts",
    "Environments",
    "Events",
    "Issues",
    "Keys",
    "Members",
    "Monitors",
    "Organizations",
    "Projects",
    "Releases",
    "Statistics",
    "StatusPages",
    "Teams",
]
