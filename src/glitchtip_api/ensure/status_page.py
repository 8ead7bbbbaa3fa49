"""Status pages, by name within an organization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..client import Client
from ..errors import AmbiguousError, UnsupportedError
from ..late_answers import Wanted, create_once
from ..resources.base import Objects
from ..resources.status_pages import IN_THE_ADMINISTRATION
from ..validate import check_name
from .outcome import Outcome, missing, named, only, within


def ensure_status_page(
    client: Client,
    organization: str,
    name: str,
    *,
    public: bool | None = None,
    listed: Objects | None = None,
    state: str = "present",
    dry_run: bool = False,
) -> Outcome:
    """Make sure that a status page of this name exists in an organization.

    Args:
        public: readable without logging in (new: false).
        listed: the organization's pages as `StatusPages.list` just read them; None reads them.

    The API can neither change nor delete a page; what would need that is an UnsupportedError, in a dry run too.
    The server does not tell whose a private page is, so a token whose user is a member of several
    organizations cannot look after private ones: AmbiguousError.

    Raises MissingError when the organization is not there, InvalidError for a name that the server would cut.
    """
    check_name(name, "a status page", 200)

    pages = client.status_pages.list(organization) if listed is None else listed
    found = only(pages, "name", name, "status pages")
    if state == "absent":
        if found:
            raise _unsupported(organization, name, "deleted")
        return Outcome(False, None, None)
    if found:
        view = view_status_page(found)
        if public is not None and public != view["isPublic"]:
            raise _unsupported(organization, name, "made public" if public else "made private")
        return Outcome(False, view, view)
    where = f"organization {organization!r}"
    if listed is None and client.organizations.get(organization) is None:
        raise missing(where)  # the list takes no notice of it
    _refuse_what_cannot_be_told_apart(client, organization, name, bool(public))
    if dry_run:
        return Outcome(True, None, predicted_status_page(name, public), predicted=True)
    made = create_once(
        client.transport,
        lambda: within(lambda: client.status_pages.create(organization, name, public=bool(public)), where),
        Wanted(
            f"status page {name!r} in {where}",
            lambda: named(client.status_pages.list(organization), "name", name, pages),
            advice=f"remove one of them: {IN_THE_ADMINISTRATION}",
        ),
    )
    return Outcome(True, None, view_status_page(made.thing), warnings=made.warnings)


def _unsupported(organization: str, name: str, done: str) -> UnsupportedError:
    return UnsupportedError(
        code="unsupported",
        detail=f"the status page {name!r} of {organization!r} cannot be {done} over the API",
        hint=IN_THE_ADMINISTRATION,
    )


def _refuse_what_cannot_be_told_apart(client: Client, organization: str, name: str, public: bool) -> None:
    """A new page must be found again by the next run, and must not be one that is there already."""
    private = [
        page
        for page in client.status_pages.all(organization)
        if page["name"] == name and not page.get("isPublic")
    ]
    if public and not private:
        return
    if not client.status_pages.is_only_organization(organization):
        reason = f"a private page called {name!r} exists" if private else f"{name!r} would be private"
        raise AmbiguousError(
            code="ambiguous",
            detail=f"{reason}, but the server does not tell in which of the user's organizations",
            hint=f"make it public, or use a token of a user who is a member of {organization!r} only",
        )


def predicted_status_page(name: str, public: bool | None = None) -> dict[str, Any]:
    """The page that would be created; its slug is not known yet."""
    return {"name": name, "slug": "", "isPublic": bool(public)}


def view_status_page(page: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared and returned of a status page as the server lists it."""
    return {"name": page.get("name"), "slug": page.get("slug"), "isPublic": bool(page.get("isPublic"))}
