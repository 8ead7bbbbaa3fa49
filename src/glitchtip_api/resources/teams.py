"""Teams: ``{"id": "1", "slug", "memberCount", "projects": [...]}``. The slug is the only name and unique."""

from __future__ import annotations

from typing import Any

from .base import Objects, Resource, one, path_of


class Teams(Resource):
    """/api/0/organizations/{organization}/teams/"""

    def list(self, organization: str) -> Objects:
        """All teams of an organization."""
        return list(self._client.paginate(path_of("organizations", organization, "teams")))

    def get(self, organization: str, team: str) -> dict[str, Any] | None:
        """One team by slug, or None."""
        return self._client.get_or_none(path_of("teams", organization, team))

    def create(self, organization: str, slug: str) -> dict[str, Any]:
        """Create one. GlitchTip 5.2 answers a slug that exists already with 500."""
        path = path_of("organizations", organization, "teams")
        return one(self._client.post(path, {"slug": slug}), path)

    def update(self, organization: str, team: str, *, slug: str) -> dict[str, Any]:
        """Rename a team."""
        path = path_of("teams", organization, team)
        return one(self._client.put(path, {"slug": slug}), path)

    def delete(self, organization: str, team: str) -> bool:
        """Delete a team. False when it was not there."""
        return self._client.remove(path_of("teams", organization, team))
