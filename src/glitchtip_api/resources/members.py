"""Members and invitations of an organization, and whose token this is.

A member: ``{"id": "7", "email", "role", "pending": False, "isOwner": True, "user": {"id": "1", ...}}``. An
invitation is a member without a user (``"user": None, "pending": True``). A single one also has its `teams`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..errors import InvalidError
from .base import Objects, Requests, Resource, one, path_of

_INVITATION = frozenset({"inviteLink", "invite_link"})
ROLES = ("member", "admin", "manager", "owner")  # the least first


class Account(NamedTuple):
    """Whose token it is: number and e-mail address of the user, label and scopes of the token."""

    user_id: str
    email: str
    label: str
    scopes: tuple[str, ...]

    def is_member(self, member: Mapping[str, Any]) -> bool:
        """Whether a member, as a list shows it, is this account: by the user's number, else by its address."""
        user = member.get("user") or {}
        return str(user.get("id")) == self.user_id or (
            bool(self.email) and str(member.get("email") or "").lower() == self.email.lower()
        )


def whoami(client: Requests) -> Account | None:
    """The account of the client's token, read from GET /api/0/ (both lines); None when it has no valid one.

    The root needs no scope. It knows tokens only: a session is nobody there.
    """
    path = path_of()
    root = one(client.get(path), path)
    user, auth = root.get("user"), root.get("auth") or {}
    if not user:
        return None
    scopes = tuple(str(scope) for scope in auth.get("scopes") or [])
    return Account(str(user.get("id")), str(user.get("email") or ""), str(auth.get("label") or ""), scopes)


def check_role(role: str) -> str:
    """Return the role. Raises InvalidError unless it is one of `ROLES`."""
    if role not in ROLES:
        raise InvalidError(code="bad_role", detail=f"a role is one of {', '.join(ROLES)}, not {role!r}")
    return role


class Members(Resource):
    """/api/0/organizations/{organization}/members/. Reading needs the scope member:read; org:* will not do.

    Teams are changed under team:write. Inviting and roles need member:write, removing member:admin, and all
    three the role manager or owner.
    """

    def list(self, organization: str) -> Objects:
        """All members and invitations, newest first. Empty when there is no such organization (200)."""
        return list(self._client.paginate(path_of("organizations", organization, "members")))

    def list_with_teams(self, organization: str) -> Objects:
        """The same, each with `teams` (slugs). One request a team, because the list does not tell them."""
        members = self.list(organization)
        teams: dict[str, list[str]] = {str(member["id"]): [] for member in members}
        for team in self._client.paginate(path_of("organizations", organization, "teams")):
            slug = str(team["slug"])
            for member in self._client.paginate(path_of("teams", organization, slug, "members")):
                teams.setdefault(str(member["id"]), []).append(slug)
        return [{**member, "teams": sorted(teams[str(member["id"])])} for member in members]

    def get(self, organization: str, member_id: str | int) -> dict[str, Any] | None:
        """One member by number, or by "me" the one of the token's user; with its `teams`. None: not there.

        The server takes numbers only (``me`` is 404 in HTML), so "me" is looked up by the user's number.
        """
        if member_id == "me":
            account = whoami(self._client)
            mine = [
                member
                for member in self.list(organization)
                if account and str((member.get("user") or {}).get("id")) == account.user_id
            ]
            if not mine:
                return None
            member_id = str(mine[0]["id"])
        return self._client.get_or_none(path_of("organizations", organization, "members", member_id))

    def invite(
        self,
        organization: str,
        email: str,
        *,
        role: str = "member",
        teams: Iterable[str] = (),
        reinvite: bool = False,
    ) -> dict[str, Any]:
        """Invite by e-mail: a member that is `pending` until the person follows the link in the mail.

        The server sends the mail in each case; without a mail server it answers 201 all the same and the mail
        is lost without a word. An invitation that is there already is a 409, with `reinvite` another mail
        (its role stays). Slugs of `teams` that do not exist are ignored by the server. The `inviteLink` that 6.x
        adds (from its source) is taken out of the answer: whoever has it becomes a member.
        """
        path = path_of("organizations", organization, "members")
        body = {
            "email": email,
            "orgRole": check_role(role),
            "teamRoles": [{"teamSlug": team} for team in teams],
            "reinvite": reinvite,
        }
        answer = one(self._client.post(path, body), path)
        return {name: value for name, value in answer.items() if name not in _INVITATION}

    def update(self, organization: str, member_id: str | int, *, role: str) -> dict[str, Any]:
        """Change the role of a member or of an invitation; its teams stay. Returns it with `teams`."""
        path = path_of("organizations", organization, "members", member_id)
        return one(self._client.put(path, {"orgRole": check_role(role)}), path)

    def delete(self, organization: str, member_id: str | int) -> bool:
        """Remove a member, or withdraw an invitation. False when it was not there.

        Never remove the primary owner (`isOwner`): the server refuses that (400) to the primary owner only.
        To a manager it answers 204, and from then on every answer about members of the organization is a 500
        (5.2 line, measured).
        """
        return self._client.remove(path_of("organizations", organization, "members", member_id))

    def add_to_team(self, organization: str, member_id: str | int, team: str) -> None:
        """Put a member ("me" or a number) into a team. May be repeated."""
        self._client.post(path_of("organizations", organization, "members", member_id, "teams", team))

    def remove_from_team(self, organization: str, member_id: str | int, team: str) -> bool:
        """Take a member ("me" or a number) out of a team. May be repeated. False: no such member or team."""
        return self._client.remove(
            path_of("organizations", organization, "members", member_id, "teams", team)
        )
