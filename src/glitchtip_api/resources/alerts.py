"""Alert rules: ``{"id": 1, "name", "quantity", "timespanMinutes", "uptime", "alertRecipients": [...]}``.

A recipient is ``{"id": 1, "recipientType", "url"}``; its `tagsToAdd` can be written but is never returned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Objects, Resource, one, path_of


class Alerts(Resource):
    """/api/0/projects/{organization}/{project}/alerts/. The list of a project that is not there is empty."""

    def list(self, organization: str, project: str) -> Objects:
        """All rules of a project. A single rule cannot be read (405)."""
        return list(self._client.paginate(path_of("projects", organization, project, "alerts")))

    def create(self, organization: str, project: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create a rule. Not atomic: after a 500 the rule may exist. Names may repeat."""
        path = path_of("projects", organization, project, "alerts")
        return one(self._client.post(path, dict(body)), path)

    def update(
        self, organization: str, project: str, alert_id: int, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write a rule. Recipients that are not in the body are deleted; scalars that are not in it stay."""
        path = path_of("projects", organization, project, "alerts", alert_id)
        return one(self._client.put(path, dict(body)), path)

    def delete(self, organization: str, project: str, alert_id: int) -> bool:
        """Delete a rule. False when it was not there."""
        return self._client.remove(path_of("projects", organization, project, "alerts", alert_id))
