"""Members and invitations of an organization.

What the real server does not do is imitated, too: addresses of invitations are compared with upper and lower
case, the link of an invitation works for whoever has it and as often as they like, a missing organization is
an empty list, and an organization whose primary owner was removed (a manager may) answers 500 from then on.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Any

from . import auth, db, mail, state
from .auth import api
from .http import (
    Request,
    Response,
    Row,
    answer,
    fail,
    no_content,
    not_found,
    router,
    server_error,
    stamp,
)
from .pagination import paginate
from .users import user_json
from .validation import Field, missing, payload, unprocessable

READ = ("member:read", "member:write", "member:admin")
WRITE = ("member:write", "member:admin")
ADMIN = ("member:admin",)
INVITES, INVITE_WINDOW = 50, 300  # invitations of one user, seconds
LINK_SECONDS = 15 * 86400
_EPOCH = 978_307_200  # 2001, where Django's tokens begin
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_ROLE = Field("orgRole", kind="any", required=True)
_VISIBLE = (
    "SELECT m.* FROM organizations_ext_organizationuser m"
    " JOIN organizations_ext_organization o ON o.id = m.organization_id"
    " WHERE o.slug = %s AND NOT o.is_deleted AND EXISTS (SELECT FROM organizations_ext_organizationuser mine"
    " WHERE mine.organization_id = o.id AND mine.user_id = %s)"
)


def member_json(row: Row) -> dict[str, Any]:
    """A member, or an invitation that waits (``pending``); 500 where there is no primary owner any more."""
    if not db.one(
        "SELECT 1 AS one FROM organizations_ext_organizationuser WHERE organization_id = %s AND is_owner",
        [row["organization_id"]],
    ):
        raise server_error()
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


def _find(request: Request, org: str, member: str) -> Row:
    row = db.one(f"{_VISIBLE} AND m.id = %s", [org, auth.user_id(request), member])
    if row is None:
        raise not_found()
    return row


def _asking(request: Request, row: Row) -> Row:
    """The member that asks, in the organization of another."""
    return db.must(
        "SELECT * FROM organizations_ext_organizationuser WHERE organization_id = %s AND user_id = %s",
        [row["organization_id"], auth.user_id(request)],
    )


def _page(request: Request, sql: str, params: list[Any]) -> Response:
    return paginate(
        request, sql, params, "created", lambda rows: [member_json(row) for row in rows], descending=True
    )


def _role(body: dict[str, Any]) -> int:
    if body["orgRole"] not in auth.ROLES:
        expected = "'member', 'admin', 'manager' or 'owner'"
        raise unprocessable(
            [
                {
                    "type": "literal_error",
                    "loc": ["body", "payload", "orgRole"],
                    "msg": f"Input should be {expected}",
                    "ctx": {"expected": expected},
                }
            ]
        )
    return auth.ROLES[body["orgRole"]]


def _address(email: str) -> str:
    """The address as it is stored, the domain in lower case; 422 for one that the real server refuses."""
    name, at, domain = email.rpartition("@")
    if not at or not name:
        reason = "An email address must have an @-sign."
    elif "." not in domain:
        reason = "The part after the @-sign is not valid. It should have a period."
    elif auth.email_breaks_answers(email):
        reason = "The part after the @-sign is a special-use or reserved name that cannot be used with email."
    else:
        return f"{name}@{domain.lower()}"
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


def _team_slugs(roles: list[Any]) -> list[str]:
    wrong = [
        missing("body", "payload", "teamRoles", place, "teamSlug")
        for place, role in enumerate(roles)
        if not isinstance(role, dict) or "teamSlug" not in role
    ]
    if wrong:
        raise unprocessable(wrong)
    return [str(role["teamSlug"]) for role in roles]


@api("/api/0/organizations/{org}/members/", "GET", scopes=READ)
def list_members(request: Request, org: str) -> Response:
    """Newest first; nothing, and 200, where there is no such organization."""
    return _page(request, _VISIBLE, [org, auth.user_id(request)])


@api("/api/0/teams/{org}/{team}/members/", "GET", scopes=READ)
def list_team_members(request: Request, org: str, team: str) -> Response:
    """The members of a team; nothing, and 200, where there is none."""
    sql = (
        f"{_VISIBLE} AND EXISTS (SELECT FROM teams_team_members tm JOIN teams_team t ON t.id = tm.team_id"
        " WHERE tm.organizationuser_id = m.id AND t.slug = %s)"
    )
    return _page(request, sql, [org, auth.user_id(request), team])


@api("/api/0/organizations/{org}/members/", "POST", scopes=WRITE)
def invite(request: Request, org: str) -> Response:
    """Invite by e-mail. Again: the same invitation (mail again), or 409 with ``reinvite: false``."""
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
    role, email, teams = _role(body), _address(body["email"]), _team_slugs(body.get("teamRoles") or [])
    owner = auth.organization(request, org)
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
    _throttle(auth.user_id(request))
    row = db.one(
        "SELECT * FROM organizations_ext_organizationuser WHERE organization_id = %s AND email = %s",
        [owner["id"], email],
    )
    if row and body.get("reinvite") is False:
        raise fail(409, f"The user {email} is already invited")
    with db.transaction():
        if row is None:
            row = db.must(
                "INSERT INTO organizations_ext_organizationuser (organization_id, email, role)"
                " VALUES (%s, %s, %s) RETURNING *",
                [owner["id"], email, role],
            )
        db.execute(
            "INSERT INTO teams_team_members SELECT id, %s FROM teams_team"
            " WHERE organization_id = %s AND slug = ANY(%s) ON CONFLICT DO NOTHING",
            [row["id"], owner["id"], teams],
        )
    link = f"{state.get().settings.domain}/accept/{row['id']}/{_sign(row['id'], int(time.time()) - _EPOCH)}"
    mail.send([email], f"You have been invited to join {owner['name']}", link=link)
    invited = member_json(row)
    return answer(invited if state.get().settings.line == "5.2" else {**invited, "inviteLink": link}, 201)


def _throttle(user: int) -> None:
    """429 from the 51st invitation within five minutes on, also for those that end in 409."""
    key, cache = f"email_invite_throttle_{user}", state.get().cache
    if int(cache.get(key) or 0) >= INVITES:
        raise fail(429, "Too many requests.")
    cache.increase(key, INVITE_WINDOW)


@api("/api/0/organizations/{org}/members/{member:int}/", "GET", scopes=READ)
def get_member(request: Request, org: str, member: str) -> Response:
    """By number, with the teams. ``me`` is an unknown path."""
    return answer(_detail(_find(request, org, member)))


@api("/api/0/organizations/{org}/members/{member:int}/", "PUT", scopes=WRITE)
def update_member(request: Request, org: str, member: str) -> Response:
    """Changes the role. The last owner stays one; that the primary owner stays one is not looked at."""
    role = _role(payload(request, [_ROLE]))
    row = _find(request, org, member)
    if _asking(request, row)["role"] < auth.ROLES["manager"]:
        raise fail(403, "Forbidden")
    if role < auth.ROLES["owner"] and not db.one(
        "SELECT 1 AS one FROM organizations_ext_organizationuser"
        " WHERE organization_id = %s AND id <> %s AND role >= %s",
        [row["organization_id"], row["id"], auth.ROLES["owner"]],
    ):
        raise unprocessable("Organization must have at least one owner")
    updated = db.must(
        "UPDATE organizations_ext_organizationuser SET role = %s WHERE id = %s RETURNING *", [role, row["id"]]
    )
    return answer(_detail(updated))


@api("/api/0/organizations/{org}/members/{member:int}/", "DELETE", scopes=ADMIN)
def delete_member(request: Request, org: str, member: str) -> Response:
    """204. The primary owner cannot leave, yet a manager may remove him; everybody else may leave."""
    row = _find(request, org, member)
    asking = _asking(request, row)
    itself = asking["id"] == row["id"]
    if itself and row["is_owner"]:
        raise fail(400, "User is organization owner. Transfer ownership first.")
    if asking["role"] < auth.ROLES["manager"] and not itself:
        raise fail(403, "Forbidden")
    member_json(row)
    db.execute("DELETE FROM organizations_ext_organizationuser WHERE id = %s", [row["id"]])
    return no_content()


@api("/api/0/organizations/{org}/members/{member:int}/set_owner/", "POST", scopes=ADMIN)
def set_owner(request: Request, org: str, member: str) -> Response:
    """Makes a member the primary owner; the roles stay. Needs the role owner."""
    row = _find(request, org, member)
    member_json(row)
    if _asking(request, row)["role"] < auth.ROLES["owner"]:
        raise fail(403, "Only owner may set organization owner.")
    db.execute(
        "UPDATE organizations_ext_organizationuser SET is_owner = (id = %s) WHERE organization_id = %s",
        [row["id"], row["organization_id"]],
    )
    return answer(_detail({**row, "is_owner": True}))


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = _DIGITS[rest] + digits
    return digits or "0"


def _sign(member: int, moment: int) -> str:
    """What the link of an invitation ends in: seconds since 2001 and a signature with the secret key."""
    key = state.get().settings.secret_key.encode()
    digest = hmac.new(key, f"invite:{member}:{moment}".encode(), hashlib.sha256).hexdigest()
    return f"{_base36(moment)}-{digest[:32]}"


def _signed(member: int, link: str) -> bool:
    try:
        moment = int(link.partition("-")[0], 36)
    except ValueError:
        return False
    young = time.time() - _EPOCH - moment <= LINK_SECONDS
    return young and hmac.compare_digest(_sign(member, moment), link)


def _accept_json(row: Row, accepted: bool) -> dict[str, Any]:
    from .organizations import organization_json

    owner = db.must("SELECT * FROM organizations_ext_organization WHERE id = %s", [row["organization_id"]])
    return {
        "acceptInvite": accepted,
        "orgUser": {**member_json(row), "organization": organization_json(owner)},
    }


@router.route("/api/0/accept/{member:int}/{link}/", "GET", "POST")
def accept(request: Request, member: str, link: str) -> Response:
    """The invitation (GET, open) and its acceptance (POST with a session; a token breaks the server)."""
    accepting = False
    if request.method == "POST":
        if not auth.authenticate(request):
            raise fail(401, "Unauthorized")
        body = payload(request, [Field("acceptInvite", kind="bool", required=True)])
        accepting = bool(body["acceptInvite"])
    row = db.one("SELECT * FROM organizations_ext_organizationuser WHERE id = %s", [member])
    if row is None:
        raise not_found()
    if not _signed(row["id"], link):
        raise fail(403, "Invalid invite token")
    if accepting:
        if request.token is not None:
            raise server_error()
        row = db.must(
            "UPDATE organizations_ext_organizationuser SET user_id = %s, email = NULL WHERE id = %s"
            " RETURNING *",
            [auth.user_id(request), row["id"]],
        )
    return answer(_accept_json(row, accepting))
