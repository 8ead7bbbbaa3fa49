"""Alert rules: ``{"id": 1, "name", "quantity", "timespanMinutes", "uptime", "alertRecipients": [...]}``.

A recipient is ``{"id": 1, "recipientType", "url"}``; its `tagsToAdd` can be written but is never returned on the
5.2 line. 6.x returns `tagsToAdd` and `config` as well (schema of the 6.2 line, not measured); there the
`config` of a zulip recipient is written as `botEmail`, `apiKey`, `channel` and `topic` beside the URL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import GlitchTipError, UnsupportedError
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

    def send_test(
        self, organization: str, project: str, alert_id: int, recipient_id: int | None = None
    ) -> Objects:
        """Send a test message to the recipients of a rule, or to one; what became of each.

        ``[{"recipientType", "status": "sent" | "error" | "skipped", "message"}]``; e-mail is always skipped,
        and "sent" says that it was sent, not what the receiver answered. Since 6.0.7 (6.x source, not
        measured). Raises UnsupportedError on an older server.
        """
        path = path_of("projects", organization, project, "alerts", alert_id, "test")
        asked = path if recipient_id is None else f"{path}?recipient_id={recipient_id:d}"
        try:
            answer = self._client.post(asked)
        except GlitchTipError as error:
            if error.status not in (403, 404, 405) or (
                error.code in ("not_found", "forbidden") and error.detail
            ):
                raise
            raise UnsupportedError(
                "POST",
                path,
                error.status,
                "unsupported",
                "this server cannot test an alert rule; GlitchTip 6.0.7 and later can",
            ) from None
        return [dict(result) for result in answer or []]

    def delete(self, organization: str, project: str, alert_id: int) -> bool:
        """Delete a rule. False when it was not there."""
        return self._client.remove(path_of("projects", organization, project, "alerts", alert_id))
