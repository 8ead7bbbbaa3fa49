"""Events of a project. Ids are 32 hexadecimal digits (uuid4 on the 5.2 line, uuid7 on 6.x)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from ..errors import InvalidError
from .base import Objects, Resource, path_of

_EVENT_ID = re.compile(r"[0-9a-fA-F]{32}")
_EVENT_KEYS = {
    "event_id": "eventID",
    "project_id": "projectID",
    "group_id": "groupID",
    "date_created": "dateCreated",
    "date_received": "dateReceived",
    "user_report": "userReport",
    "next_event_id": "nextEventID",
    "previous_event_id": "previousEventID",
}
_REQUEST_KEYS = {
    "api_target": "apiTarget",
    "body_size": "bodySize",
    "query_string": "query",
    "inferred_content_type": "inferredContentType",
}


def normal_event_id(event_id: str) -> str:
    """An event id as 32 lower-case hexadecimal digits. Raises InvalidError for anything else."""
    plain = event_id.replace("-", "")
    if not _EVENT_ID.fullmatch(plain):
        raise InvalidError(code="bad_event_id", detail="an event id is 32 hexadecimal digits")
    return plain.lower()


def normal_event(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event under its camelCase keys: the list of an issue's events has them in snake_case (5.2)."""
    shown = {_EVENT_KEYS.get(key, key): value for key, value in event.items()}
    if isinstance(shown.get("entries"), list):
        shown["entries"] = [_normal_entry(entry) for entry in shown["entries"]]
    return shown


def _normal_entry(entry: Any) -> Any:
    if (
        not isinstance(entry, Mapping)
        or entry.get("type") != "request"
        or not isinstance(entry.get("data"), Mapping)
    ):
        return entry
    return {**entry, "data": {_REQUEST_KEYS.get(key, key): value for key, value in entry["data"].items()}}


class Events(Resource):
    """/api/0/projects/{organization}/{project}/events/"""

    def get(self, organization: str, project: str, event_id: str) -> dict[str, Any] | None:
        """One event by its id, None as long as it is not stored."""
        path = path_of("projects", organization, project, "events", normal_event_id(event_id))
        return self._client.get_or_none(path)

    def iterate(self, organization: str, project: str) -> Iterator[dict[str, Any]]:
        """All events of a project, newest first. A project that is not there has none."""
        for event in self._client.paginate(path_of("projects", organization, project, "events")):
            yield normal_event(event)

    def list(self, organization: str, project: str, limit: int | None = 100) -> Objects:
        """The newest events of a project, `limit` at most."""
        return list(islice(self.iterate(organization, project), limit))
