"""Events of a project. Ids are 32 hexadecimal digits (uuid4 on the 5.2 line, uuid7 on 6.x)."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

from ..errors import InvalidError
from .base import Objects, Resource, path_of

_EVENT_ID = re.compile(r"[0-9a-fA-F]{32}")


def normal_event_id(event_id: str) -> str:
    """An event id as 32 lower-case hexadecimal digits. Raises InvalidError for anything else."""
    plain = event_id.replace("-", "")
    if not _EVENT_ID.fullmatch(plain):
        raise InvalidError(code="bad_event_id", detail="an event id is 32 hexadecimal digits")
    return plain.lower()


class Events(Resource):
    """/api/0/projects/{organization}/{project}/events/"""

    def get(self, organization: str, project: str, event_id: str) -> dict[str, Any] | None:
        """One event by its id, None as long as it is not stored."""
        path = path_of("projects", organization, project, "events", normal_event_id(event_id))
        return self._client.get_or_none(path)

    def list(self, organization: str, project: str, limit: int | None = 100) -> Objects:
        """The newest events of a project, `limit` at most."""
        return list(
            islice(self._client.paginate(path_of("projects", organization, project, "events")), limit)
        )
