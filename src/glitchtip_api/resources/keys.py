"""DSN keys: ``{"id": uuid, "name", "public": uuid, "dsn": {"public": "http://<32 hex>@host/1", ...}}``.

A key cannot be changed: PUT answers 200 and changes nothing. Names are not unique.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Objects, Resource, one, path_of


class Keys(Resource):
    """/api/0/projects/{organization}/{project}/keys/"""

    def list(self, organization: str, project: str) -> Objects:
        """All keys of a project. The list of a project that is not there is empty, not 404."""
        return list(self._client.paginate(path_of("projects", organization, project, "keys")))

    def get(self, organization: str, project: str, key_id: str) -> dict[str, Any] | None:
        """One key by its UUID *with dashes* (without them the server answers HTML), or None."""
        return self._client.get_or_none(path_of("projects", organization, project, "keys", key_id))

    def create(
        self, organization: str, project: str, *, name: str, rate_limit: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """Create one; a name is required (500 without). `rate_limit` is ``{"count", "window"}`` (seconds)."""
        path = path_of("projects", organization, project, "keys")
        body: dict[str, Any] = {"name": name}
        return one(
            self._client.post(path, {**body, "rateLimit": dict(rate_limit)} if rate_limit else body), path
        )

    def delete(self, organization: str, project: str, key_id: str) -> bool:
        """Delete a key; its DSN stops working. False when it was not there."""
        return self._client.remove(path_of("projects", organization, project, "keys", key_id))
