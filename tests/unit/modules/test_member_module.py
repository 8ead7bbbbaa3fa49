"""The module glitchtip_member: check, do, check, do again; the refusals; and a host without a server."""

from __future__ import annotations

import pytest

EMAIL = "dev@example.org"


@pytest.fixture
def people(provisioned):
    """Members of acme: the token's user, who is the primary owner, and a manager. Teams are kept by slug."""
    owner = {"id": "1", "email": "owner@example.org", "role": "owner", "pending": False, "isOwner": True}
    members = [{**owner, "user": {"id": "1"}, "teams": ["backend"]}]
    if all(team["slug"] != "ops" for team in provisioned.teams):
        provisioned.teams.append({"id": "90", "slug": "ops", "org": "acme"})

    def public(member):
        return {key: value for key, value in member.items() if key != "teams"}

    def find(number):
        return provisioned.one(members, id=number)

    def invite(asked, _org):
        body = asked.json
        made = {"id": str(provisioned.number()), "email": body["email"], "role": body["orgRole"]}
        made |= {"pending": True, "isOwner": False, "user": None}
        members.insert(0, {**made, "teams": [role["teamSlug"] for role in body["teamRoles"]]})
        return made

    def put(asked, _org, number):
        find(number)["role"] = asked.json["orgRole"]
        return find(number)

    def join(_asked, _org, number, team):
        find(number)["teams"].append(provisioned.one(provisioned.teams, slug=team)["slug"])
        return {}

    def leave(_asked, _org, number, team):
        find(number)["teams"].remove(team)

    path = "/api/0/organizations/([^/]+)/members"
    provisioned.extra_routes += [
        ("GET", f"{path}/", lambda _a, _o: [public(member) for member in members]),
        ("POST", f"{path}/", invite),
        ("GET", rf"{path}/(\d+)/", lambda _a, _o, number: find(number)),
        ("PUT", rf"{path}/(\d+)/", put),
        ("DELETE", rf"{path}/(\d+)/", lambda _a, _o, number: provisioned.drop(members, id=number)),
        ("POST", rf"{path}/(\d+)/teams/([^/]+)/", join),
        ("DELETE", rf"{path}/(\d+)/teams/([^/]+)/", leave),
    ]
    provisioned.members = members
    return provisioned


@pytest.fixture
def options(people):
    return {"organization": "acme", "email": EMAIL, "url": people.url, "token": people.token}


def test_check_do_check_do(run_module, people, options):
    options |= {"role": "admin", "teams": ["backend", "ops"]}
    foreseen = run_module("glitchtip_member", _check=True, **options)
    assert (foreseen["changed"], foreseen["predicted"], people.writes) == (True, True, [])

    done = run_module("glitchtip_member", **options)
    assert (done["changed"], done["predicted"]) == (True, False)
    assert done["member"] == {**foreseen["member"], "id": people.members[0]["id"]}
    assert done["member"]["pending"] is True
    assert done["diff"]["before"] == {"state": "absent"}

    for check in (True, False):
        again = run_module("glitchtip_member", _check=check, **{**options, "email": EMAIL.upper()})
        assert (again["changed"], again["member"]) == (False, done["member"])
    assert len(people.writes) == 1


def test_role_and_teams_follow_and_what_is_left_out_stays(run_module, people, options):
    run_module("glitchtip_member", **options, role="admin", teams=["backend"])
    kept = run_module("glitchtip_member", **options)
    assert (kept["changed"], kept["member"]["role"], kept["member"]["teams"]) == (False, "admin", None)
    foreseen = run_module("glitchtip_member", _check=True, **options, role="manager", teams=["ops"])
    changed = run_module("glitchtip_member", **options, role="manager", teams=["ops"])
    assert foreseen["member"] == changed["member"]
    assert foreseen["diff"] == changed["diff"]
    assert changed["diff"]["after"] == {"role": "manager", "teams": ["ops"]}
    assert (people.members[0]["role"], people.members[0]["teams"]) == ("manager", ["ops"])


def test_absent_removes_the_person_once(run_module, people, options):
    run_module("glitchtip_member", **options)
    foreseen = run_module("glitchtip_member", _check=True, state="absent", **options)
    assert (foreseen["changed"], foreseen["member"], len(people.members)) == (True, None, 2)
    assert run_module("glitchtip_member", state="absent", **options)["changed"] is True
    assert run_module("glitchtip_member", state="absent", **options)["changed"] is False
    assert [member["role"] for member in people.members] == ["owner"]


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        (
            {"email": "owner@example.org", "state": "absent"},
            "primary_owner",
            "is the primary owner of 'acme'",
        ),
        ({"email": "dev@corp.local"}, "bad_email", "makes GlitchTip fail"),
        ({"teams": ["nope"]}, "missing", "there is no team 'nope' in organization 'acme'"),
    ],
)
def test_each_refusal_is_one_sentence_and_writes_nothing(run_module, people, options, wrong, code, said):
    failed = run_module("glitchtip_member", **{**options, **wrong})
    assert (failed["failed"], failed["failure"]["code"]) == (True, code)
    assert said in failed["msg"]
    assert people.writes == []


def test_the_own_account_stays(run_module, people, options):
    people.members[0].update({"isOwner": False, "role": "manager"})
    failed = run_module("glitchtip_member", **{**options, "email": "owner@example.org", "state": "absent"})
    assert failed["failure"]["code"] == "own_account"
    assert people.writes == []


def test_check_mode_foresees_an_invitation_where_server_or_team_are_not_there_yet(
    run_module, people, options
):
    for more in ({"url": "http://127.0.0.1:1"}, {"teams": ["later"]}):
        foreseen = run_module("glitchtip_member", _check=True, **{**options, **more})
        assert (foreseen["changed"], foreseen["predicted"]) == (True, True)
        assert foreseen["member"]["email"] == EMAIL
        assert "would be created" in foreseen["msg"]
    assert people.writes == []


def test_a_real_process_shows_no_token(run_module_process, options):
    result, printed = run_module_process("glitchtip_member", **options)
    assert (result["changed"], result["member"]["email"]) == (True, EMAIL)
    assert "canary" not in printed
