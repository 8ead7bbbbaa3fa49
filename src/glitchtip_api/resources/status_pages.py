"""Status pages: ``{"name", "slug", "isPublic", "monitors": [...]}``. They have no id.

The API makes and lists them. It can neither change nor delete one, nor put a monitor on one (5.2 line; 6.2.6 has
the same endpoints): that is done in the administration of the server (``/admin/``).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from ..errors import GlitchTipError, NotJsonError, UnsupportedError
from .base import Objects, Resource, one, path_of

IN_THE_ADMINISTRATION = "a superuser can do it in the administration of the server, /admin/uptime/statuspage/"


class StatusPages(Resource):
    """/api/0/organizations/{organization}/status-pages/. A token needs no scope for it (5.2 line)."""

    def all(self, organization: str) -> Objects:
        """What the server lists: the pages of **all** organizations of the token's user, newest first.

        It ignores the organization in the path, even one that does not exist (measured on 5.2).
        """
        return list(self._client.paginate(path_of("organizations", organization, "status-pages")))

    def list(self, organization: str) -> Objects:
        """The organization's pages, as far as the server tells whose they are.

        All of them when the user is a member of this organization only. Otherwise the public ones, which are
        found at their address; the server never says whose a private page is, so those are left out.
        """
        pages = self.all(organization)
        if not pages or self.is_only_organization(organization):
            return pages
        found = {}
        for page in pages:
            identity = page["slug"], page["name"]  # another organization may have the very same
            if page.get("isPublic") and identity not in found and self.is_shown(organization, page["slug"]):
                found[identity] = page
        return list(found.values())

    def is_only_organization(self, organization: str) -> bool:
        """Whether the token's user is a member of this organization and of no other."""
        slugs = [found["slug"] for found in self._client.paginate(path_of("organizations"))]
        return slugs == [organization]

    def is_shown(self, organization: str, slug: str) -> bool:
        """Whether the organization has a public page at this slug (the server caches it for 60 s)."""
        path = f"/status-pages/{quote(organization, safe='')}/{quote(slug, safe='')}/"
        try:
            self._client.get(path)
        except NotJsonError as error:
            if error.status != 200:
                raise
            return True
        except GlitchTipError as error:
            if error.status != 404:
                raise
        return False

    def create(self, organization: str, name: str, *, public: bool = False) -> dict[str, Any]:
        """Create a page. The server makes the slug from the name; names may repeat."""
        path = path_of("organizations", organization, "status-pages")
        return one(self._client.post(path, {"name": name, "isPublic": public}), path)

    def delete(self, organization: str, slug: str) -> bool:
        """Always raises UnsupportedError: no server line can delete a status page over its API."""
        raise UnsupportedError(
            code="unsupported",
            detail=f"the status page {slug!r} of {organization!r} cannot be deleted over the API",
            hint=IN_THE_ADMINISTRATION,
        )
