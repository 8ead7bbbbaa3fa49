"""Members of an organization, by e-mail address."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..client import Client
from ..errors import AmbiguousError, GlitchTipError, InvalidError
from ..late_answers import Wanted, create_once, write_until_seen
from ..resources.base import Objects
from ..resources.members import ROLES, check_role, whoami
from ..validate import check_email, check_team_slug
from .outcome import Outcome, missing, within


def ensure_member(
    client: Client,
    organization: str,
    email: str,
    *,
    role: str | None = None,
    teams: Iterable[str] | None = None,
    teams_there: Collection[str] | None = None,
    listed: Objects | None = None,
    state: str = "present",
    dry_run: bool = False,
) -> Outcome:
    """Make sure that a person is a member of an organization, or invited to it, or is neither.

    Args:
        email: who; upper and lower case are the same person. An invitation that nobody has accepted counts
            as present, its view says `pending`.
        role: member, admin, manager or owner; None leaves it, and invites as member.
        teams: slugs of exactly the teams to be in; None leaves them as they are.
        teams_there: slugs of the organization's teams, as far as they matter; None asks the server, before it
            invites somebody into one.
        listed: all members of the organization as they were just read (`Members.list_with_teams` when teams
            are compared, else one more request asks for them); None reads them.

    An invitation sends a mail; on a server without a mail server it is lost without a word. Nobody is
    invited twice. The account that the client runs as is never removed nor lowered, and neither is the
    primary owner. Raises InvalidError for these and for values the server refuses, MissingError when the
    organization or a team is not there, AmbiguousError when two members have the address.
    """
    check_email(email)
    if role is not None:
        check_role(role)
    wanted = None if teams is None else sorted({check_team_slug(team) for team in teams})

    def find(known: Objects | None = None) -> dict[str, Any] | None:
        return _by_email(_members(client, organization) if known is None else known, email)

    found = find(listed)
    if state == "absent":
        if found is None:
            return Outcome(False, None, None)
        _refuse_harm(client, organization, found, "removed")
        if not dry_run:
            client.members.delete(organization, str(found["id"]))
        return Outcome(True, view_member(found), None)
    if found is None:
        if wanted:
            _teams_are_there(client, organization, wanted, teams_there)
        if dry_run:
            return Outcome(True, None, predicted_member(email, role, wanted), predicted=True)
        made = create_once(
            client.transport,
            lambda: _invite(client, organization, email, role, wanted, find),
            Wanted(
                f"member {email!r} in organization {organization!r}",
                lambda: [member] if (member := find()) is not None else [],
            ),
        )
        invited = _with_teams(client, organization, made.thing, wanted)
        after = _settle(client, organization, invited, role, wanted, dry_run)
        return Outcome(True, None, after, warnings=made.warnings)
    found = _with_teams(client, organization, found, wanted)
    before = view_member(found)
    after = _settle(client, organization, found, role, wanted, dry_run)
    changed = after != before
    return Outcome(changed, before, after, predicted=changed and dry_run)


def predicted_member(
    email: str, role: str | None = None, teams: Iterable[str] | None = None
) -> dict[str, Any]:
    """The invitation that would be sent; its id is not known yet."""
    wanted = None if teams is None else list(teams)
    return view_member({"id": "", "email": email, "role": role or ROLES[0], "pending": True, "teams": wanted})


def view_member(member: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared and returned of a member; `teams` is None where the server was not asked for them."""
    view = {key: member.get(key) for key in ("id", "email", "role")}
    teams = member.get("teams")
    return {
        **view,
        "pending": bool(member.get("pending")),
        "isOwner": bool(member.get("isOwner")),
        "teams": None if teams is None else sorted(teams),
    }


def _members(client: Client, organization: str) -> Objects:
    """All members. A missing organization is an empty list (5.2, measured): whoever reads is a member."""
    where = f"organization {organization!r}"
    members = within(lambda: client.members.list(organization), where)
    if not members:
        raise missing(where)
    return members


def _by_email(members: Iterable[Mapping[str, Any]], email: str) -> dict[str, Any] | None:
    found = [dict(member) for member in members if _same(str(member.get("email") or ""), email)]
    if len(found) > 1:
        ids = ", ".join(str(member["id"]) for member in found)
        raise AmbiguousError(
            code="ambiguous",
            detail=f"{len(found)} members have the address {email!r}: {ids}",
            hint="remove all but one, for instance the invitation that nobody will accept",
        )
    return found[0] if found else None


def _same(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


def _with_teams(
    client: Client, organization: str, member: dict[str, Any], wanted: list[str] | None
) -> dict[str, Any]:
    """The member with its teams, where they are compared and not known yet."""
    if wanted is None or "teams" in member:
        return member
    found = client.members.get(organization, str(member["id"]))
    if found is None:
        raise missing(f"member {member.get('email')!r} in organization {organization!r} any more")
    return found


def _teams_are_there(
    client: Client, organization: str, wanted: Iterable[str], there: Collection[str] | None
) -> None:
    """Raises MissingError for the first team that is not there: an invitation drops it without a word."""
    known = {str(team["slug"]) for team in client.teams.list(organization)} if there is None else set(there)
    for team in wanted:
        if team not in known:
            raise missing(f"team {team!r} in organization {organization!r}")


def _invite(
    client: Client,
    organization: str,
    email: str,
    role: str | None,
    teams: list[str] | None,
    find: Any,
) -> dict[str, Any]:
    try:
        return client.members.invite(organization, email, role=role or ROLES[0], teams=teams or ())
    except GlitchTipError as error:
        if error.status == 409:  # somebody invited the person meanwhile
            found: dict[str, Any] | None = find()
            if found is not None:
                return found
        if error.status == 403 and "existing users" in error.detail:
            raise GlitchTipError(
                error.method,
                error.path,
                403,
                "registration_closed",
                f"{email} has no account on this server, and registration is closed",
                "set ENABLE_USER_REGISTRATION=true while people join, or make the account first",
            ) from None
        raise


def _settle(
    client: Client,
    organization: str,
    found: Mapping[str, Any],
    role: str | None,
    wanted: list[str] | None,
    dry_run: bool,
) -> dict[str, Any]:
    """Bring a member to the wanted role and into exactly the wanted teams; returns its view afterwards."""
    member_id, after = str(found["id"]), view_member(found)
    if role is not None and role != found.get("role"):
        if ROLES.index(role) < ROLES.index(check_role(str(found.get("role")))):
            _refuse_harm(client, organization, found, f"lowered to {role}")
        if not dry_run:
            role = str(client.members.update(organization, member_id, role=role).get("role"))
        after["role"] = role
    if wanted is not None:
        there = list(after["teams"] or [])
        where = f"organization {organization!r}"
        for team in wanted:
            if team not in there and not dry_run:
                _join(client, organization, member_id, team, where)
        for team in there:
            if team not in wanted and not dry_run:
                client.members.remove_from_team(organization, member_id, team)
        after["teams"] = wanted
    return after


def _join(client: Client, organization: str, member_id: str, team: str, where: str) -> None:
    def is_in_it() -> bool:
        member = client.members.get(organization, member_id)
        return member is not None and team in (member.get("teams") or [])

    write_until_seen(
        client.transport,
        lambda: within(
            lambda: client.members.add_to_team(organization, member_id, team), f"team {team!r} in {where}"
        ),
        is_in_it,
        f"member {member_id} with team {team!r} in {where}",
    )


def _refuse_harm(client: Client, organization: str, member: Mapping[str, Any], how: str) -> None:
    """Raises InvalidError for the primary owner, and for the account that the client runs as.

    A manager's token may remove the primary owner; after that every answer about the organization's members
    is a 500 (5.2, measured). The root document is asked only here, so a run without such a change costs
    nothing.
    """
    email = str(member.get("email") or "")
    if member.get("isOwner"):
        raise InvalidError(
            code="primary_owner",
            detail=f"{email} is the primary owner of {organization!r}, so it is not {how}",
            hint="transfer the ownership to another member first",
        )
    account = whoami(client)
    if account and account.is_member(member):
        raise InvalidError(
            code="own_account",
            detail=f"{email} is this token's own account, so it is not {how}",
            hint="use the token of another account",
        )
