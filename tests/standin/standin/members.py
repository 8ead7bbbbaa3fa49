"""Members and invitations of an organization."""

from __future__ import annotations

import secrets
from typing import Any

from . import auth, db, mail, state
from .auth import api
from .http import Request, Response, Row, answer, fail, no_content, not_found, router, server_error, stamp
from .pagination import paginate
from .users import user_json
from .validation import Field, payload, unprocessable

READ = ("member:read", "member:write", "member:admin")
WRITE = ("member:write", "member:admin")
ADMIN = ("member:admin",)
_ROLE = Field("orgRole", required=True, choices=("member", "admin", "manager", "owner"))


def member_json(row: Row) -> dict[str, Any]:
    """A member, or an invitation that waits (``pending``)."""
    user = row["user_id"] and db.one("SELECT * FROM users_user WHERE id = %s", [row["user_id"]])
    role = auth.ROLE_NAMES[row["role"]]
    return {
        "id": str(row["id"]),
        "role": role,
        "roleName": role.capitalize(),
        "dateCreated": stamp(row["created"]),
        "email": auth.renderable(user["email"]) if user else row["email"],
        "user": user_json(user) if user else None,
        "pending": user is None,
        "isOwner": row["is_owner"],
    }


def _detail(row: Row) -> dict[str, Any]:
    teams = db.rows(
        "SELECT t.slug FROM teams_team t JOIN teams_team_members m ON m.team_id = t.id"
        " WHERE m.organizationuser_id = %s ORDER BY t.id",
        [row["id"]],
    )
    return {**member_json(row), "teams": [team["slug"] for team in teams]}


def _find(request: Request, org: str, member: str) -> tuple[Row, Row]:
    owner = auth.organization(request, org)
    number = owner["member_id"] if member == "me" else member
    row = (
        db.one(
            "SELECT * FROM organizations_ext_organizationuser WHERE id = %s AND organization_id = %s",
            [number, owner["id"]],
        )
        if str(number).isdigit()
        else None
    )
    if row is None:
        raise not_found()
    return owner, row


@api("/api/0/organizations/{org}/members/", "GET", scopes=READ)
def list_members(request: Request, org: str) -> Response:
    """Newest first."""
    return paginate(
        request,
        "SELECT * FROM organizations_ext_organizationuser WHERE organization_id = %s",
        [auth.organization(request, org)["id"]],
        "created",
        lambda rows: [member_json(row) for row in rows],
        descending=True,
    )


@api("/api/0/organizations/{org}/members/", "POST", scopes=WRITE)
def invite(request: Request, org: str) -> Response:
    """Invite by e-mail. Again: the same invitation (mail again), or 409 with ``reinvite: false``."""
    owner = auth.organization(request, org)
    body = payload(
        request,
        [
            Field("email", required=True),
            _ROLE,
            Field("teamRoles", kind="list"),
            Field("reinvite", kind="bool"),
            Field("sendInvite", kind="bool"),
        ],
    )
    email = body["email"]
    if auth.email_breaks_answers(email):
        reason = "The part after the @-sign is a special-use or reserved name that cannot be used with email."
        raise unprocessable(
            [
                {
                    "type": "value_error",
                    "loc": ["body", "payload", "email"],
                    "msg": f"value is not a valid email address: {reason}",
                    "ctx": {"reason": reason},
                }
            ]
        )
    if owner["role"] < auth.ROLES["manager"]:
        raise fail(403, "forbidden")
    user = db.one("SELECT id FROM users_user WHERE lower(email) = lower(%s)", [email])
    if user is None and not state.get().settings.user_registration:
        raise fail(403, "Only existing users may be invited")
    if user and db.one(
        "SELECT 1 AS one FROM organizations_ext_organizationuser WHERE organization_id = %s AND user_id = %s",
        [owner["id"], user["id"]],
    ):
        raise fail(409, f"The user {email} is already a member")
    row = db.one(
        "SELECT * FROM organizations_ext_organizationuser WHERE organization_id = %s AND email = %s",
        [owner["id"], email],
    )
    if row and body.get("reinvite") is False:
        raise fail(409, f"The user {email} is already invited")
    if row is None:
        with db.transaction():
            row = db.must(
                "INSERT INTO organizations_ext_organizationuser (organization_id, email, role, invite_token)"
                " VALUES (%s, %s, %s, %s) RETURNING *",
                [owner["id"], email, auth.ROLES[body["orgRole"]], secrets.token_hex(16)],
            )
            for role in body.get("teamRoles") or []:
                db.execute(
                    "INSERT INTO teams_team_members SELECT id, %s FROM teams_team"
                    " WHERE organization_id = %s AND slug = %s",
                    [row["id"], owner["id"], str(role.get("teamSlug"))],
                )
    link = f"{state.get().settings.domain}/accept/{row['id']}/{row['invite_token']}"
    mail.send([email], f"You have been invited to join {owner['name']}", link=link)
    return answer(member_json(row), 201)


@api("/api/0/organizations/{org}/members/{member}/", "GET", scopes=READ)
def get_member(request: Request, org: str, member: str) -> Response:
    """By id or ``me``; with the teams."""
    return answer(_detail(_find(request, org, member)[1]))


@api("/api/0/organizations/{org}/members/{member}/", "PUT", scopes=WRITE)
def update_member(request: Request, org: str, member: str) -> Response:
    """Changes the role."""
    owner, row = _find(request, org, member)
    body = payload(request, [_ROLE])
    if owner["role"] < auth.ROLES["manager"]:
        raise fail(403, "forbidden")
    updated = db.must(
        "UPDATE organizations_ext_organizationuser SET role = %s WHERE id = %s RETURNING *",
        [auth.ROLES[body["orgRole"]], row["id"]],
    )
    return answer(_detail(updated))


@api("/api/0/organizations/{org}/members/{member}/", "DELETE", scopes=ADMIN)
def delete_member(request: Request, org: str, member: str) -> Response:
    """204; not the primary owner."""
    owner, row = _find(request, org, member)
    if row["is_owner"]:
        raise fail(400, "User is organization owner. Transfer ownership first.")
    if owner["role"] < auth.ROLES["manager"]:
        raise fail(403, "forbidden")
    db.execute("DELETE FROM organizations_ext_organizationuser WHERE id = %s", [row["id"]])
    return no_content()


def _accept_json(row: Row, accepted: bool) -> dict[str, Any]:
    from .organizations import organization_json

    owner = db.must("SELECT * FROM organizations_ext_organization WHERE id = %s", [row["organization_id"]])
    return {
        "acceptInvite": accepted,
        "orgUser": {**member_json(row), "organization": organization_json(owner)},
    }


@router.route("/api/0/accept/{member:int}/{token}/", "GET", "POST")
def accept(request: Request, member: str, token: str) -> Response:
    """The invitation (GET, open) and its acceptance (POST with a session; a token breaks the server)."""
    row = db.one(
        "SELECT * FROM organizations_ext_organizationuser WHERE id = %s AND invite_token = %s",
        [member, token],
    )
    if row is None:
        raise not_found()
    if request.method == "GET":
        return answer(_accept_json(row, False))
    if not auth.authenticate(request):
        raise fail(401, "Unauthorized")
    if request.token is not None:
        raise server_error()
    body = payload(request, [Field("acceptInvite", kind="bool", required=True)])
    if body["acceptInvite"]:
        row = db.must(
            "UPDATE organizations_ext_organizationuser SET user_id = %s, email = NULL, invite_token = NULL"
            " WHERE id = %s RETURNING *",
            [auth.user_id(request), row["id"]],
        )
    return answer(_accept_json(row, bool(body["acceptInvite"])))
