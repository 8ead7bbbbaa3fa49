"""Releases: ``{"version", "ref", "dateReleased", "dateCreated", "projects": [{"name", "slug"}], ...}``.

They also appear by themselves, from events that name one. The version is unique in an organization.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import InvalidError
from ..late_answers import Wanted, create_once
from .base import Objects, Resource, one, path_of

_LONGEST_VERSION = 255  # a longer one is a 500


def check_version(version: str) -> str:
    """Return the version. Raises InvalidError for one that the server takes and can never find again."""
    if not version.strip() or len(version) > _LONGEST_VERSION or "/" in version or version in (".", ".."):
        raise InvalidError(
            code="bad_version",
            detail=f"a release's version has 1 to {_LONGEST_VERSION} characters and no slash, and is not a dot",
        )
    return version


class Releases(Resource):
    """/api/0/organizations/{organization}/releases/.

    Every call needs the scope project:releases; no other scope will do, not even project:admin.
    """

    def list(self, organization: str, project: str | None = None) -> Objects:
        """All releases of an organization, or of one project, newest first. Empty when that is not there."""
        where = ("organizations", organization) if project is None else ("projects", organization, project)
        return list(self._client.paginate(path_of(*where, "releases")))

    def get(self, organization: str, version: str) -> dict[str, Any] | None:
        """One release by its version, or None."""
        return self._client.get_or_none(self._path(organization, version))

    def create(
        self,
        organization: str,
        version: str,
        projects: Iterable[str],
        *,
        ref: str | None = None,
        date_released: str | None = None,
    ) -> dict[str, Any]:
        """Create a release of these projects (slugs), released now unless `date_released` says when (ISO).

        A version that exists is a 500 on the server, so it is looked for first. One that is there keeps its
        `ref` and date, and gets the projects that it lacks. Raises InvalidError when no project is named.
        """
        wanted = list(dict.fromkeys(projects))
        if not wanted:
            raise InvalidError(code="no_projects", detail=f"the release {version!r} needs a project")
        found = self.get(organization, version)
        if found is None:
            path = path_of("organizations", organization, "releases")
            body: dict[str, Any] = {"version": version, "projects": wanted, "ref": ref}
            if date_released is not None:
                body["dateReleased"] = date_released
            made = create_once(
                self._client.transport,
                lambda: one(self._client.post(path, body), path),
                Wanted(
                    f"release {version!r}",
                    lambda: [there] if (there := self.get(organization, version)) is not None else [],
                ),
            )
            return made.thing
        has = {str(project["slug"]) for project in found.get("projects") or []}
        for project in wanted:
            if project not in has:
                path = path_of("projects", organization, project, "releases")
                found = one(self._client.post(path, {"version": version}), path)
        return found

    def update(
        self, organization: str, version: str, *, ref: str | None = None, date_released: str | None = None
    ) -> dict[str, Any] | None:
        """Change `ref` (branch or tag) or the date (ISO); None leaves a value as it is. None: not there.

        The whole release is read and written: the server empties a `ref` that is not sent, and sets a date
        that is not sent to now.
        """
        found = self.get(organization, version)
        if found is None:
            return None
        path = self._path(organization, version)
        body = {
            "ref": found.get("ref") if ref is None else ref,
            "dateReleased": found.get("dateReleased") if date_released is None else date_released,
        }
        return one(self._client.put(path, body), path)

    def delete(self, organization: str, version: str) -> bool:
        """Delete a release; its events stay. False when it was not there."""
        return self._client.remove(self._path(organization, version))

    @staticmethod
    def _path(organization: str, version: str) -> str:
        return path_of("organizations", organization, "releases", check_version(version))
