"""Organizations: ``{"id": "1", "slug", "name", "dateCreated", ...}``. Names are not unique; slugs are."""

from __future__ import annotations

from typing import Any

from .base import Objects, Resource, one, path_of


class Organizations(Resource):
    """/api/0/organizations/"""

    def list(self) -> Objects:
        """All organizations of the token's user, by name."""
        return list(self._client.paginate(path_of("organizations")))

    def get(self, organization: str) -> dict[str, Any] | None:
        """One organization by slug, None when there is none or the user is no member."""
        return self._client.get_or_none(path_of("organizations", organization))

    def create(self, name: str) -> dict[str, Any]:
        """Create one. The server makes the slug from the name and ignores a given one; names may repeat."""
        path = path_of("organizations")
        return one(self._client.post(path, {"name": name}), path)

    def update(self, organization: str, *, name: str) -> dict[str, Any]:
        """Rename; the slug stays."""
        path = path_of("organizations", organization)
        return one(self._client.put(path, {"name": name}), path)

    def delete(self, organization: str) -> bool:
        """Delete with all that is in it. False when it was not there."""
        return self._client.remove(path_of("organizations", organization))
