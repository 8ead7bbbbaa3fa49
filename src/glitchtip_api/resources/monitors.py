"""Uptime monitors of an organization, their checks and heartbeats.

A monitor: ``{"id": 1, "monitorType", "name", "url", "expectedStatus", "expectedBody", "interval", "timeout",
"projectID": "10" or null, "projectName", "organizationID", "isUp": null before the first check, "lastChange",
"heartbeatEndpoint", "endpointID", "checks": [...], "created"}``. A check: ``{"isUp", "startCheck", "reason",
"responseTime"}`` with milliseconds, and as reason one of `REASONS` or null.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import GlitchTipError, InvalidError
from .base import Objects, Resource, one, path_of

REASONS = {
    0: "unknown",
    1: "timeout",
    2: "wrong status code",
    3: "expected body not found",
    4: "TLS error",
    5: "network error",
}
_ENDPOINT = re.compile(
    r"(?:https?://[^/?#]+.*?/organizations/(?P<organization>[^/]+)/heartbeat_check/)?"
    r"(?P<id>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})/?"
)
_DELETES = 4


class Monitors(Resource):
    """/api/0/organizations/{organization}/monitors/. A token needs no scope for it (5.2 line)."""

    def list(self, organization: str) -> Objects:
        """All monitors, newest first. Names may repeat. An organization that is not there has none.

        Raises GlitchTipError with a hint for 500: one stored monitor of an unknown type makes the server fail
        here for everyone (5.2 line).
        """
        path = path_of("organizations", organization, "monitors")
        try:
            return list(self._client.paginate(path))
        except GlitchTipError as error:
            if error.status != 500:
                raise
            raise GlitchTipError(
                error.method,
                error.path,
                500,
                error.code,
                error.detail,
                "a monitor of an unknown type breaks the list; delete it by its id, which works",
            ) from None

    def get(self, organization: str, monitor_id: int) -> dict[str, Any] | None:
        """One monitor, its checks with response times; None when it is not there."""
        return self._client.get_or_none(path_of("organizations", organization, "monitors", monitor_id))

    def create(self, organization: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create a monitor; it is checked about a second later. Names may repeat.

        The body needs `name`, `monitorType`, `url`, `expectedStatus`, `expectedBody`, `timeout`; `project` is
        the id of a project as a string. Not safe to send unchecked, see `validate_monitor`.
        """
        path = path_of("organizations", organization, "monitors")
        return one(self._client.post(path, dict(body)), path)

    def update(self, organization: str, monitor_id: int, body: Mapping[str, Any]) -> dict[str, Any]:
        """Write a monitor whole: what is left out gets its default, and the project is unlinked."""
        path = path_of("organizations", organization, "monitors", monitor_id)
        return one(self._client.put(path, dict(body)), path)

    def delete(self, organization: str, monitor_id: int) -> bool:
        """Delete a monitor with its checks. False when it was not there.

        The server answers 500 when a check is stored at that very moment (5.2 line), so that is repeated.
        """
        path = path_of("organizations", organization, "monitors", monitor_id)
        for attempt in range(_DELETES):
            try:
                return self._client.remove(path) or attempt > 0
            except GlitchTipError as error:
                if error.status != 500 or attempt == _DELETES - 1:
                    raise
        return False

    def checks(
        self, organization: str, monitor_id: int, *, is_change: bool | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the checks, newest first; with `is_change` only those that found (or did not find) another state.

        A monitor that is not there has none.
        """
        path = path_of("organizations", organization, "monitors", monitor_id, "checks")
        params = None if is_change is None else {"is_change": "true" if is_change else "false"}
        return self._client.paginate(path, params)

    def heartbeat(self, endpoint: str, organization: str | None = None) -> dict[str, Any]:
        """Tell a heartbeat monitor that its service is alive: ``{"is_up": true, "start_check", "reason"}``.

        Args:
            endpoint: the monitor's `heartbeatEndpoint`, or its `endpointID` together with `organization`. Of
                an address only organization and id are used: the request goes to this client's server.
                Anyone who knows it may report life, so it is to be kept like a password.

        No token is needed. Raises InvalidError when the endpoint is neither, GlitchTipError (`not_found`) for
        an unknown one.
        """
        found = _ENDPOINT.fullmatch(endpoint.strip())
        owner = organization or (found["organization"] if found else None)
        if found is None or owner is None:
            raise InvalidError(
                code="bad_endpoint",
                detail="a heartbeat endpoint is the address that the monitor shows, or its UUID with the organization",
            )
        path = path_of("organizations", owner, "heartbeat_check", found["id"])
        return one(self._client.post(path), path)
