"""Environments: ``{"id": 3, "name": "production"}``. They appear by themselves, from events.

They can be neither made nor deleted, only hidden in a project: ``{"id", "name", "isHidden"}``.
"""

from __future__ import annotations

from typing import Any

from ..errors import InvalidError
from .base import Objects, Resource, one, path_of

VISIBILITIES = ("visible", "hidden", "all")


class Environments(Resource):
    """/api/0/organizations/{organization}/environments/ (org:read) and those of a project (project:read)."""

    def list(self, organization: str, project: str | None = None, *, visibility: str = "visible") -> Objects:
        """Environments of an organization, or of one project; each once, newest first.

        `visibility` is visible, hidden or all. The server lists an environment of an organization once for
        each project that has it; here it is there once. Empty when there is no such organization (200).
        """
        if visibility not in VISIBILITIES:
            raise InvalidError(
                code="bad_visibility", detail=f"a visibility is one of {', '.join(VISIBILITIES)}"
            )
        where = ("organizations", organization) if project is None else ("projects", organization, project)
        found = self._client.paginate(path_of(*where, "environments"), {"visibility": visibility})
        return list({environment["id"]: environment for environment in found}.values())

    def hide(self, organization: str, project: str, name: str, *, hidden: bool = True) -> dict[str, Any]:
        """Hide an environment in a project, or show it again; needs project:write.

        Raises InvalidError for a name with a slash, which the server cannot find (403 in HTML).
        """
        if "/" in name:
            raise InvalidError(
                code="bad_name", detail=f"the server cannot reach the environment {name!r}: it has a slash"
            )
        path = path_of("projects", organization, project, "environments", name)
        return one(self._client.put(path, {"name": name, "isHidden": hidden}), path)
