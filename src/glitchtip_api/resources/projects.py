"""Projects: ``{"id": "1", "slug", "name", "platform", "eventThrottleRate": 0, ...}``. Names may repeat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Objects, Resource, one, path_of


class Projects(Resource):
    """/api/0/projects/{organization}/{project}/. Lists need the scope project:read, no other will do."""

    def list(self, organization: str) -> Objects:
        """All projects of an organization, each with its `teams`."""
        return list(self._client.paginate(path_of("organizations", organization, "projects")))

    def get(self, organization: str, project: str) -> dict[str, Any] | None:
        """One project by slug, or None."""
        return self._client.get_or_none(path_of("projects", organization, project))

    def create(
        self,
        organization: str,
        team: str,
        *,
        name: str,
        platform: str | None = None,
        event_throttle_rate: int | None = None,
    ) -> dict[str, Any]:
        """Create one. The server makes the slug from the name; one key with the name "" comes with it."""
        path = path_of("teams", organization, team, "projects")
        body = {"name": name, "platform": platform, "eventThrottleRate": event_throttle_rate}
        return one(
            self._client.post(path, {key: given for key, given in body.items() if given is not None}), path
        )

    def update(self, organization: str, project: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Write the whole project; `name` is required. A changed `slug` renames its address.

        A slug that another project has, also a deleted one that the worker did not remove yet, is a 500.
        """
        path = path_of("projects", organization, project)
        return one(self._client.put(path, dict(body)), path)

    def delete(self, organization: str, project: str) -> bool:
        """Delete one. The worker removes it later, until then its slug stays taken. False: was not there."""
        return self._client.remove(path_of("projects", organization, project))

    def teams(self, organization: str, project: str) -> Objects:
        """The teams of a project."""
        return list(self._client.paginate(path_of("projects", organization, project, "teams")))

    def add_team(self, organization: str, project: str, team: str) -> None:
        """Give a team access. May be repeated."""
        self._client.post(path_of("projects", organization, project, "teams", team))

    def remove_team(self, organization: str, project: str, team: str) -> bool:
        """Take access from a team. False when it had none, or is not there."""
        return self._client.remove(path_of("projects", organization, project, "teams", team))
