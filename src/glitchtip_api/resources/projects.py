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
        self, organization: str, team: str, *, name: str, platform: str | None = None
    ) -> dict[str, Any]:
        """Create one. The server makes the slug from the name; one key with the name "" comes with it."""
        path = path_of("teams", organization, team, "projects")
        body = {"name": name} if platform is None else {"name": name, "platform": platform}
        return one(self._client.post(path, body), path)

    def update(self, organization: str, project: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Write the whole project; `name` is required. A changed `slug` renames its address."""
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
