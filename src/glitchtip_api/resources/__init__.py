"""The resources of the API, one file each."""

from __future__ import annotations

from .alerts import Alerts
from .events import Events
from .issues import Issues
from .keys import Keys
from .organizations import Organizations
from .projects import Projects
from .teams import Teams

__all__ = ["Alerts", "Events", "Issues", "Keys", "Organizations", "Projects", "Teams"]
