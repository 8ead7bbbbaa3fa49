"""Members: found by address, invited once, and what must not happen to the own account and the owner."""

from __future__ import annotations

import pytest

from glitchtip_api import AmbiguousError, Client, GlitchTipError, MissingError
from glitchtip_api.ensure import ensure_member
from glitchtip_api.ensure.member import predicted_member
from glitchtip_api.errors import InvalidError
from glitchtip_api.resources.members import Account, whoami

ORG = "/api/0/organizations/acme"
OWNER = {
    "id": "1",
    "email": "owner@example.org",
    "role": "owner",
    "pending": False,
    "isOwner": True,
    "user": {"id": "11"},
}
ME = {
    **OWNER,
    "id": "2",
    "email": "me@example.org",
    "role": "manager",
    "isOwner": False,
    "user": {"id": "12"},
}
DEV = {**ME, "id": "3", "email": "Dev@example.org", "role": "member", "user": {"id": "13"}}
INVITED = {**DEV, "id": "4", "email": "new@example.org", "user": None, "pending": True}
ROOT = {
    "user": {"id": "12", "email": "me@example.org"},
    "auth": {"label": "ops", "scopes": ["member:admin"], "token": "canary-token-0001"},
}
EVERYBODY = [INVITED, DEV, ME, OWNER]


def writes(server):
    return [line for line in server.lines if not line.startswith("GET")]


def view(member, teams=None, **changes):
    keys = ("id", "email", "role", "pending", "isOwner")
    return {**{key: member[key] for key in keys}, "teams": teams, **changes}


def test_a_new_address_is_invited_once_without_a_second_mail(client, server):
    teams = [{"slug": "backend"}, {"slug": "ops"}]
    server.then(200, EVERYBODY[1:]).then(200, teams).then(201, INVITED)
    server.then(200, {**INVITED, "teams": ["backend"]})
    outcome = ensure_member(client, "acme", "new@example.org", teams=["backend"])
    assert (outcome.changed, outcome.before) == (True, None)
    assert outcome.after == view(INVITED, ["backend"])
    assert writes(server) == [f"POST {ORG}/members/"]
    assert server.asked[2].json == {
        "email": "new@example.org",
        "orgRole": "member",
        "teamRoles": [{"teamSlug": "backend"}],
        "reinvite": False,
    }


@pytest.mark.parametrize("email", ["new@example.org", "NEW@example.org", "dev@EXAMPLE.org"])
def test_a_member_and_an_invitation_are_found_in_either_case(client, server, email):
    server.then(200, EVERYBODY)
    outcome = ensure_member(client, "acme", email)
    assert outcome.changed is False
    assert outcome.after["pending"] is email.lower().startswith("new")
    assert len(server.lines) == 1


def test_what_was_just_listed_costs_no_request(client, server):
    listed = [{**DEV, "teams": ["ops", "backend"]}]
    outcome = ensure_member(
        client, "acme", "dev@example.org", role="member", teams=["backend", "ops"], listed=listed
    )
    assert (outcome.changed, outcome.after["teams"]) == (False, ["backend", "ops"])
    assert server.asked == []


def test_a_role_is_written_alone(client, server):
    server.then(200, EVERYBODY).then(200, {**DEV, "role": "admin", "teams": []})
    outcome = ensure_member(client, "acme", "dev@example.org", role="admin")
    assert outcome.diff() == {"before": {"role": "member"}, "after": {"role": "admin"}}
    assert server.lines[1:] == [f"PUT {ORG}/members/3/"]
    assert server.asked[1].json == {"orgRole": "admin"}


def test_exactly_the_named_teams_are_kept(client, server):
    server.then(200, EVERYBODY).then(200, {**DEV, "teams": ["old", "kept"]}).then(201, {}).then(200, {})
    outcome = ensure_member(client, "acme", "dev@example.org", teams=["new", "kept", "new"])
    assert outcome.after["teams"] == ["kept", "new"]
    assert server.lines[1:] == [
        f"GET {ORG}/members/3/",
        f"POST {ORG}/members/3/teams/new/",
        f"DELETE {ORG}/members/3/teams/old/",
    ]


def test_an_empty_list_of_teams_is_not_the_same_as_none(client, server):
    listed = [{**DEV, "teams": ["ops"]}]
    assert ensure_member(client, "acme", "dev@example.org", listed=listed).changed is False
    server.then(200, {})
    assert ensure_member(client, "acme", "dev@example.org", teams=[], listed=listed).after["teams"] == []
    assert server.lines == [f"DELETE {ORG}/members/3/teams/ops/"]


@pytest.mark.parametrize(
    "wanted",
    [
        {"email": "new2@example.org", "role": "admin", "teams": ["ops"]},
        {"email": "dev@example.org", "role": "owner", "teams": ["ops"]},
        {"email": "dev@example.org", "state": "absent"},
    ],
)
def test_a_dry_run_only_reads_and_foresees(client, server, wanted):
    def answer(asked):
        path = asked.path.partition("?")[0]
        data = {
            "/api/0/": ROOT,
            f"{ORG}/members/": EVERYBODY,
            f"{ORG}/teams/": [{"slug": "ops"}],
            f"{ORG}/members/3/": {**DEV, "teams": []},
        }[path]
        return reply(200, data)

    reply = type(server.then().replies.pop())
    server.answer = answer
    outcome = ensure_member(client, "acme", dry_run=True, **wanted)
    assert outcome.changed is True
    assert writes(server) == []
    if wanted.get("state") != "absent":
        assert (outcome.predicted, outcome.after["role"], outcome.after["teams"]) == (
            True,
            wanted["role"],
            ["ops"],
        )


def test_absent_withdraws_an_invitation_and_is_content_the_second_time(client, server):
    server.then(200, EVERYBODY).then(200, ROOT).then(204)
    outcome = ensure_member(client, "acme", "new@example.org", state="absent")
    assert (outcome.changed, outcome.before, outcome.after) == (True, view(INVITED), None)
    assert writes(server) == [f"DELETE {ORG}/members/4/"]
    server.then(200, EVERYBODY[1:])
    assert ensure_member(client, "acme", "new@example.org", state="absent").changed is False


@pytest.mark.parametrize("wanted", [{"state": "absent"}, {"role": "admin"}])
@pytest.mark.parametrize("dry_run", [False, True])
def test_the_own_account_is_neither_removed_nor_lowered(client, server, wanted, dry_run):
    server.then(200, EVERYBODY).then(200, ROOT)
    with pytest.raises(InvalidError) as refused:
        ensure_member(client, "acme", "Me@example.org", dry_run=dry_run, **wanted)
    how = "removed" if "state" in wanted else "lowered to admin"
    assert str(refused.value) == (
        f"me@example.org is this token's own account, so it is not {how} (use the token of another account)"
    )
    assert refused.value.code == "own_account"
    assert writes(server) == []


def test_the_own_account_is_known_by_its_address_too(client, server):
    root = {**ROOT, "user": {"id": "99", "email": "NEW@example.org"}}
    server.then(200, EVERYBODY).then(200, root)
    with pytest.raises(InvalidError, match="this token's own account"):
        ensure_member(client, "acme", "new@example.org", state="absent")


def test_the_own_account_may_be_raised(client, server):
    server.then(200, EVERYBODY).then(200, {**ME, "role": "owner"})
    assert ensure_member(client, "acme", "me@example.org", role="owner").changed is True
    assert "GET /api/0/" not in server.lines


@pytest.mark.parametrize("wanted", [{"state": "absent"}, {"role": "member"}])
def test_the_primary_owner_is_neither_removed_nor_lowered_though_a_manager_could(client, server, wanted):
    server.then(200, EVERYBODY)
    with pytest.raises(InvalidError) as refused:
        ensure_member(client, "acme", "owner@example.org", **wanted)
    how = "removed" if "state" in wanted else "lowered to member"
    assert str(refused.value) == (
        f"owner@example.org is the primary owner of 'acme', so it is not {how}"
        " (transfer the ownership to another member first)"
    )
    assert len(server.lines) == 1


@pytest.mark.parametrize(
    ("email", "more", "said"),
    [
        ("dev@corp.local", {}, "an e-mail address ending in .test, .local, .localhost, .invalid"),
        ("dev@localhost", {}, "an e-mail address needs a domain with a dot"),
        (
            "dev@example.org",
            {"role": "boss"},
            "a role is one of member, admin, manager, owner, not 'boss'",
        ),
        ("dev@example.org", {"teams": ["no good"]}, "a team's slug has 1 to 50 letters"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(client, server, email, more, said):
    with pytest.raises(InvalidError) as refused:
        ensure_member(client, "acme", email, **more)
    assert str(refused.value).startswith(said)
    assert server.asked == []


def test_closed_registration_names_the_setting(client, server):
    server.then(200, EVERYBODY).then(403, {"detail": "Only existing users may be invited"})
    with pytest.raises(GlitchTipError) as refused:
        ensure_member(client, "acme", "stranger@example.org")
    assert refused.value.code == "registration_closed"
    assert "stranger@example.org has no account on this server, and registration is closed" in str(
        refused.value
    )
    assert "ENABLE_USER_REGISTRATION=true" in str(refused.value)


def test_a_missing_right_is_told_as_it_is(client, server):
    server.then(200, EVERYBODY).then(403, {"detail": "forbidden"})
    with pytest.raises(GlitchTipError, match="its user lacks the role"):
        ensure_member(client, "acme", "stranger@example.org")


def test_a_person_whom_somebody_invited_meanwhile_is_adopted(client, server):
    server.then(200, EVERYBODY[1:]).then(409, {"detail": "The user is already invited"}).then(200, EVERYBODY)
    server.then(200, {**INVITED, "role": "admin"})
    assert ensure_member(client, "acme", "new@example.org", role="admin").after["role"] == "admin"
    assert writes(server) == [f"POST {ORG}/members/", f"PUT {ORG}/members/4/"]


def test_a_conflict_that_nobody_explains_is_reported(client, server):
    server.then(200, EVERYBODY[1:]).then(409, {"detail": "The user is already invited"})
    server.then(200, EVERYBODY[1:])
    with pytest.raises(GlitchTipError, match="already invited"):
        ensure_member(client, "acme", "new@example.org")


def test_an_invitation_whose_answer_was_lost_is_looked_for(client, server):
    server.then(200, EVERYBODY[1:]).then(200, [{"slug": "ops"}]).then(drop=True).then(200, EVERYBODY)
    server.then(200, {**INVITED, "teams": []}).then(201, {})
    outcome = ensure_member(client, "acme", "new@example.org", teams=["ops"])
    assert outcome.after == view(INVITED, ["ops"])
    assert writes(server) == [f"POST {ORG}/members/", f"POST {ORG}/members/4/teams/ops/"]


def test_a_team_that_is_not_there_is_named_before_the_mail_goes_out(client, server):
    server.then(200, EVERYBODY[1:]).then(200, [{"slug": "ops"}])
    with pytest.raises(MissingError, match="no team 'nope' in organization 'acme'"):
        ensure_member(client, "acme", "new@example.org", teams=["nope"])
    assert writes(server) == []


def test_joining_a_team_that_is_not_there_names_it(client, server):
    server.then(404, {"detail": "Not Found"})
    with pytest.raises(MissingError, match="no team 'nope' in organization 'acme'"):
        ensure_member(client, "acme", "dev@example.org", teams=["nope"], listed=[{**DEV, "teams": []}])


def test_two_members_of_one_address_are_never_guessed_between(client, server):
    server.then(200, [*EVERYBODY, {**INVITED, "id": "9", "email": "New@example.org"}])
    with pytest.raises(AmbiguousError, match=r"2 members have the address 'new@example\.org': 4, 9"):
        ensure_member(client, "acme", "new@example.org", state="absent")


@pytest.mark.parametrize(("status", "data"), [(200, []), (404, {"detail": "Not Found"})])
def test_a_missing_organization_is_told_although_its_list_is_empty(client, server, status, data):
    server.then(status, data)
    with pytest.raises(MissingError, match="no organization 'acme'"):
        ensure_member(client, "acme", "dev@example.org")


def test_a_member_that_vanishes_meanwhile_is_told(client, server):
    server.then(200, EVERYBODY).then(404, {"detail": "Not Found"})
    with pytest.raises(MissingError, match=r"Dev@example\.org"):
        ensure_member(client, "acme", "dev@example.org", teams=["ops"])


def test_the_prediction_is_the_view_of_what_will_be():
    assert predicted_member("new@example.org", teams=["ops", "backend"]) == {
        **view(INVITED, ["backend", "ops"]),
        "id": "",
    }


def test_the_list_with_teams_asks_once_for_each_team(client, server):
    server.then(200, [DEV, ME]).then(200, [{"slug": "ops"}, {"slug": "backend"}])
    server.then(200, [DEV, ME]).then(200, [DEV])
    members = client.members.list_with_teams("acme")
    assert [member["teams"] for member in members] == [["backend", "ops"], ["ops"]]
    assert len(server.lines) == 4


def test_me_is_looked_up_because_the_server_takes_numbers_only(client, server):
    server.then(200, ROOT).then(200, EVERYBODY).then(200, {**ME, "teams": ["ops"]})
    assert client.members.get("acme", "me")["teams"] == ["ops"]
    assert server.lines[-1] == f"GET {ORG}/members/2/"
    server.then(200, {"user": None, "auth": None}).then(200, EVERYBODY)
    assert client.members.get("acme", "me") is None


def test_whoami_tells_user_and_scopes_and_never_the_token(client, server):
    server.then(200, ROOT).then(200, {"version": "0", "user": None, "auth": None})
    found = whoami(client)
    assert found == Account("12", "me@example.org", "ops", ("member:admin",))
    assert "canary" not in repr(found)
    assert whoami(Client(server.url)) is None


@pytest.mark.parametrize("part", ["", ".", ".."])
def test_a_name_that_would_lead_to_another_path_is_refused(client, server, part):
    with pytest.raises(InvalidError):
        client.members.delete("acme", part)
    assert server.asked == []
