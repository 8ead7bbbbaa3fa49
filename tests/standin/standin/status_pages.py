"""Status pages: made and listed over the API, and nothing more; the page itself is HTML.

The list takes no notice of the organization in its path: it has the pages of all organizations of the user.
No monitor can be put on a page over the API.
"""

from __future__ import annotations

import html as markup

from . import auth, db
from .auth import api
from .http import NOT_FOUND_PAGE, Request, Response, Row, answer, html, router
from .pagination import paginate
from .validation import Field, payload

PATH = "/api/0/organizations/{org}/status-pages/"
_FIELDS = (Field("isPublic", kind="bool"), Field("name", required=True, max_length=200))
PAGE = """
<style>
  .content {{
    margin: auto;
    width: fit-content;
  }}
</style>

<div class="content">
  <h1>{name}</h1>

  <div>
  </div>
</div>
"""


def _json(row: Row) -> dict[str, object]:
    return {"isPublic": row["is_public"], "name": row["name"], "monitors": [], "slug": row["slug"]}


def _free_slug(organization: int, name: str) -> str:
    """The slug of the name, with the first free number from 2 on when it is taken or empty."""
    base = auth.slugify(name)
    taken = {
        row["slug"]
        for row in db.rows("SELECT slug FROM uptime_statuspage WHERE organization_id = %s", [organization])
    }
    if base and base not in taken:
        return base
    number = 2
    while f"{base}-{number}" in taken:
        number += 1
    return f"{base}-{number}"


@api(PATH, "POST")
def create_status_page(request: Request, org: str) -> Response:
    """201; names may repeat, slugs are counted up within the organization."""
    body = payload(request, _FIELDS)
    owner = auth.organization(request, org)
    row = db.must(
        "INSERT INTO uptime_statuspage (organization_id, name, slug, is_public) VALUES (%s, %s, %s, %s) RETURNING *",
        [owner["id"], body["name"], _free_slug(owner["id"], body["name"]), body.get("isPublic", False)],
    )
    return answer(_json(row), 201)


@api(PATH, "GET")
def list_status_pages(request: Request, org: str) -> Response:  # noqa: ARG001 - the real server ignores it, too
    """Newest first, of all organizations of the user, whatever the path says."""
    return paginate(
        request,
        "SELECT s.* FROM uptime_statuspage s"
        " JOIN organizations_ext_organization o ON o.id = s.organization_id AND NOT o.is_deleted"
        " JOIN organizations_ext_organizationuser m ON m.organization_id = o.id WHERE m.user_id = %s",
        [auth.user_id(request)],
        "created",
        lambda rows: [_json(row) for row in rows],
        descending=True,
    )


@router.route("/status-pages/{org}/{slug}/", "GET", "HEAD")
def show_status_page(request: Request, org: str, slug: str) -> Response:
    """For people. A page that is not public needs the session of a member; a token does not count."""
    session = auth.session_data(request) or {}
    user = None if session.get("pending") else session.get("user_id")
    row = db.one(
        "SELECT s.* FROM uptime_statuspage s JOIN organizations_ext_organization o ON o.id = s.organization_id"
        " WHERE o.slug = %s AND s.slug = %s AND NOT o.is_deleted AND (s.is_public OR EXISTS"
        " (SELECT FROM organizations_ext_organizationuser m WHERE m.organization_id = o.id AND m.user_id = %s))",
        [org, slug, user],
    )
    if row is None:
        return html(NOT_FOUND_PAGE, 404)
    response = html(PAGE.format(name=markup.escape(row["name"])))
    response.headers.update({"Vary": "Cookie, Accept-Language, origin", "Cache-Control": "max-age=60"})
    return response
