"""Issues: ``{"id": "1", "shortId", "title", "status", "level", "count": "2", "project": {...}, ...}``."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from ..errors import InvalidError
from .base import Objects, Resource, one, path_of

STATUSES = ("unresolved", "resolved", "ignored")


class Issues(Resource):
    """/api/0/issues/ and /api/0/organizations/{organization}/issues/"""

    def list(
        self,
        organization: str,
        project: str | None = None,
        params: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> Objects:
        """Issues of an organization, or of one of its projects, newest `lastSeen` first.

        `params` are the server's (``query``, ``sort``, ``start`` ...); `limit` ends the reading early.
        """
        path = (
            path_of("organizations", organization, "issues")
            if project is None
            else path_of("projects", organization, project, "issues")
        )
        return list(islice(self._client.paginate(path, params), limit))

    def get(self, issue_id: str | int) -> dict[str, Any] | None:
        """One issue, or None."""
        return self._client.get_or_none(path_of("issues", issue_id))

    def latest_event(self, issue_id: str | int) -> dict[str, Any] | None:
        """The newest event of an issue, or None (also when an issue has lost its events)."""
        return self._client.get_or_none(path_of("issues", issue_id, "events", "latest"))

    def update(self, issue_id: str | int, *, status: str) -> dict[str, Any]:
        """Set the status: unresolved, resolved or ignored. Raises InvalidError for anything else."""
        if status not in STATUSES:
            raise InvalidError(code="bad_status", detail=f"a status is one of {', '.join(STATUSES)}")
        path = path_of("issues", issue_id)
        return one(self._client.put(path, {"status": status}), path)

    def comments(self, issue_id: str | int) -> Objects:
        """Comments, newest first: ``{"id": 1, "data": {"text"}, "user": {...}, "dateCreated"}``."""
        return list(self._client.paginate(path_of("issues", issue_id, "comments")))

    def add_comment(self, issue_id: str | int, text: str) -> dict[str, Any]:
        """Write a comment. The server does not notice duplicates."""
        path = path_of("issues", issue_id, "comments")
        return one(self._client.post(path, {"data": {"text": text}}), path)
