"""Members, invitations and roles.

An invitation is accepted with the link that was mailed. Rules that need one read it from the server's log:
``GLITCHTIP_MAIL_LOG`` names the files (separated as in PATH) that a server with ``EMAIL_URL=consolemail://``
writes its mails to. Rules that need a second person sign one up, and are destructive for that; the person is
deleted at the end.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import struct
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest
from contract.server import Server, wait_until

PASSWORD = "C0ntract-Passw0rd!"
ALLAUTH = "/_allauth/browser/v1"
ROLES = ("member", "admin", "manager")
NOT_FOUND = (404, {"detail": "Not Found"})


def address():
    return f"contract-{uuid.uuid4().hex[:10]}@example.org"


def said(answer):
    """Status and body of a JSON answer."""
    return answer.status_code, answer.json()


def page(answer):
    """Status and kind of an answer in HTML."""
    return answer.status_code, answer.headers["Content-Type"][:9]


@pytest.fixture(scope="module")
def mailed():
    """``mailed(pattern)``: the first group of the last match in the server's mails, as soon as there is one."""
    logs = [Path(name) for name in os.environ.get("GLITCHTIP_MAIL_LOG", "").split(os.pathsep) if name]
    if not logs:
        pytest.skip("GLITCHTIP_MAIL_LOG does not name the log that holds the server's mails")

    def search(pattern):
        def probe():
            texts = [log.read_text(errors="replace") for log in logs if log.exists()]
            found = [match for text in texts for match in re.findall(pattern, text.replace("=\n", ""))]
            return found[-1] if found else None

        found = wait_until(probe, 20)
        assert found, f"no mail with {pattern}"
        return found

    return search


def as_listed(invitation):
    """An invitation without its link, which on the 6.2 line is in the 201 only, signed with the time."""
    return {key: value for key, value in invitation.items() if key != "inviteLink"}


@dataclass
class Organization:
    """An organization of one test module, with the teams ``crew`` and ``ops``; the run's account owns it."""

    server: Server
    slug: str

    @property
    def path(self):
        return f"/api/0/organizations/{self.slug}/"

    @property
    def members(self):
        return f"{self.path}members/"

    def everybody(self):
        return self.server.get(f"{self.members}?limit=100")

    def me(self):
        """The member that the run's account is."""
        return next(member for member in self.everybody() if member["email"] == self.server.email)

    def invite(self, email, role="member", *, status=201, **more):
        if not self.server.get("/api/settings/", anonymous=True)["enableUserRegistration"]:
            pytest.skip("registration is closed on this server: nobody new can be invited")
        return self.server.post(self.members, {"email": email, "orgRole": role, **more}, status)


def make_organization(server):
    slug = server.post("/api/0/organizations/", {"name": f"People {uuid.uuid4().hex[:8]}"})["slug"]
    for team in ("crew", "ops"):
        server.post(f"/api/0/organizations/{slug}/teams/", {"slug": team})
    return Organization(server, slug)


@pytest.fixture(scope="module")
def acme(server):
    made = make_organization(server)
    yield made
    server.call("DELETE", made.path)


@pytest.fixture
def own(server):
    """An organization of its own, for what harms one."""
    made = make_organization(server)
    yield made
    server.call("DELETE", made.path)


@pytest.fixture
def invitation(server, acme):
    """An invitation that waits."""
    made = acme.invite(address())
    yield made
    server.call("DELETE", f"{acme.members}{made['id']}/")


def test_a_member_has_these_fields_and_one_alone_has_its_teams(server, acme):
    me = acme.me()
    assert set(me) == {"id", "role", "roleName", "dateCreated", "email", "user", "pending", "isOwner"}
    assert me["user"] == {
        key: value for key, value in server.get("/api/0/users/me/").items() if key != "chatwootIdentifierHash"
    }
    one = server.get(f"{acme.members}{me['id']}/")
    assert {key: value for key, value in one.items() if key != "teams"} == me
    assert sorted(one["teams"]) == ["crew", "ops"]


def test_a_member_is_addressed_by_number_and_me_is_no_path(server, acme):
    assert server.has_no_path(server.call("GET", f"{acme.members}me/"), 404)
    assert said(server.call("GET", f"{acme.members}999999999/")) == NOT_FOUND


def test_members_of_a_missing_organization_or_team_are_an_empty_list(server, acme):
    for path in (
        "organizations/no-such-organization/members/",
        "organizations/no-such-organization/teams/",
        "teams/no-such-organization/crew/members/",
        f"teams/{acme.slug}/no-such-team/members/",
    ):
        assert server.get(f"/api/0/{path}") == [], path


def test_changes_in_a_missing_organization_are_404(server):
    path = "/api/0/organizations/no-such-organization/members/"
    invited = server.call("POST", path, {"email": address(), "orgRole": "member"})
    assert said(invited) == NOT_FOUND
    assert said(server.call("PUT", f"{path}1/", {"orgRole": "member"})) == NOT_FOUND
    assert said(server.call("DELETE", f"{path}1/")) == NOT_FOUND
    assert said(server.call("POST", f"{path}me/teams/crew/")) == NOT_FOUND


def test_an_invitation_is_a_member_without_a_user_and_is_listed_first(acme, invitation):
    assert (invitation["pending"], invitation["user"], invitation["isOwner"]) == (True, None, False)
    assert (invitation["role"], invitation["roleName"]) == ("member", "Member")
    assert acme.everybody()[0] == as_listed(invitation)


@pytest.mark.line("6.2", provenance="document: generated client of 6.2.6 (AndreyBegma); source c23a0ec")
def test_the_201_of_an_invitation_carries_its_link_and_the_list_does_not(acme, invitation):
    assert "/accept/" in invitation["inviteLink"]
    assert "inviteLink" not in acme.everybody()[0]


def test_an_invitation_holds_the_teams_that_exist_and_drops_the_others(server, acme):
    made = acme.invite(address(), teamRoles=[{"teamSlug": "crew"}, {"teamSlug": "no-such-team"}])
    assert server.get(f"{acme.members}{made['id']}/")["teams"] == ["crew"]
    assert made["id"] in [member["id"] for member in server.get(f"/api/0/teams/{acme.slug}/crew/members/")]
    server.call("DELETE", f"{acme.members}{made['id']}/")


def test_inviting_again_is_the_same_invitation_with_the_role_of_the_first(acme, invitation):
    again = acme.invite(invitation["email"], "admin")
    assert as_listed(again) == as_listed(invitation)


def test_inviting_again_without_reinvite_is_409(acme, invitation):
    answer = acme.invite(invitation["email"], status=409, reinvite=False)
    assert answer == {"detail": f"The user {invitation['email']} is already invited"}


def test_addresses_of_invitations_differ_in_upper_and_lower_case_but_for_the_domain(server, acme, invitation):
    other = acme.invite(invitation["email"].upper(), reinvite=False)
    assert other["id"] != invitation["id"]
    assert other["email"] == invitation["email"].partition("@")[0].upper() + "@example.org"
    server.call("DELETE", f"{acme.members}{other['id']}/")


def test_inviting_a_member_is_409_in_upper_and_lower_case(server, acme):
    name, _, domain = server.email.partition("@")
    for email in (server.email, f"{name.upper()}@{domain}"):
        answer = acme.invite(email, status=409, reinvite=True)
        assert answer == {"detail": f"The user {email} is already a member"}


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_role_is_one_of_four_words(server, acme, invitation, method):
    path = acme.members if method == "POST" else f"{acme.members}{invitation['id']}/"
    for role in ("boss", "Owner", "", None):
        answer = server.call(method, path, {"email": address(), "orgRole": role})
        assert answer.status_code == 422
        error = answer.json()["detail"][0]
        assert error["msg"] == "Input should be 'member', 'admin', 'manager' or 'owner'"
        assert (error["type"], error["loc"]) == ("literal_error", ["body", "payload", "orgRole"])
    answer = server.call(method, path, {"email": address()})
    assert answer.json()["detail"][0]["type"] == "missing"


@pytest.mark.parametrize(
    ("email", "reason"),
    [
        ("nobody", "An email address must have an @-sign."),
        ("nobody@corp", "The part after the @-sign is not valid. It should have a period."),
        (
            "nobody@corp.local",
            "The part after the @-sign is a special-use or reserved name that cannot be used with email.",
        ),
    ],
)
def test_an_address_that_is_none_is_refused_with_the_reason(server, acme, email, reason):
    answer = server.call("POST", acme.members, {"email": email, "orgRole": "member"})
    assert answer.status_code == 422
    error = answer.json()["detail"][0]
    assert error["loc"] == ["body", "payload", "email"]
    assert error["msg"] == f"value is not a valid email address: {reason}"


def test_a_team_of_an_invitation_is_named_by_its_slug(server, acme):
    answer = server.call(
        "POST", acme.members, {"email": address(), "orgRole": "member", "teamRoles": [{"role": "x"}]}
    )
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "payload", "teamRoles", 0, "teamSlug"]


def test_a_change_of_role_leaves_the_teams_also_when_it_names_some(server, acme, invitation):
    path = f"{acme.members}{invitation['id']}/"
    server.post(f"{path}teams/ops/", None)
    changed = server.call("PUT", path, {"orgRole": "owner", "teamRoles": [{"teamSlug": "crew"}]}).json()
    assert (changed["role"], changed["roleName"], changed["isOwner"]) == ("owner", "Owner", False)
    assert changed["teams"] == ["ops"]


def test_the_last_owner_stays_one(server, acme):
    for role in ROLES:
        answer = server.call("PUT", f"{acme.members}{acme.me()['id']}/", {"orgRole": role})
        assert said(answer) == (422, {"detail": "Organization must have at least one owner"})


def test_an_invitation_is_withdrawn_once(server, acme):
    path = f"{acme.members}{acme.invite(address())['id']}/"
    assert server.call("DELETE", path).status_code == 204
    assert said(server.call("DELETE", path)) == NOT_FOUND


def test_a_member_cannot_be_posted_to(server, acme):
    assert server.call("POST", f"{acme.members}{acme.me()['id']}/", {"orgRole": "owner"}).status_code == 405


def test_joining_and_leaving_answer_the_count_of_before_and_may_be_repeated(server, acme):
    path = f"{acme.members}me/teams/ops/"

    def ask(method):
        answer = server.call(method, path)
        team = answer.json()
        return answer.status_code, team["isMember"], team["memberCount"]

    assert [ask(method) for method in ("DELETE", "DELETE", "POST", "POST")] == [
        (200, True, 1),
        (200, False, 0),
        (201, True, 0),
        (201, True, 1),
    ]
    assert server.get(f"/api/0/teams/{acme.slug}/ops/")["memberCount"] == 1


def test_an_invitation_joins_teams_like_a_member(server, acme, invitation):
    path = f"{acme.members}{invitation['id']}/"
    assert server.call("POST", f"{path}teams/crew/").status_code == 201
    assert server.get(path)["teams"] == ["crew"]
    assert server.call("DELETE", f"{path}teams/crew/").status_code == 200
    assert server.get(path)["teams"] == []


def test_who_joins_a_team_is_me_or_the_number_of_a_member_and_the_team_exists(server, acme):
    assert said(server.call("POST", f"{acme.members}999999999/teams/crew/")) == NOT_FOUND
    assert said(server.call("POST", f"{acme.members}me/teams/no-such-team/")) == NOT_FOUND
    assert said(server.call("DELETE", f"{acme.members}me/teams/no-such-team/")) == NOT_FOUND
    answer = server.call("POST", f"{acme.members}somebody/teams/crew/")
    assert answer.status_code == 422
    assert [error["type"] for error in answer.json()["detail"]] == ["literal_error", "int_parsing"]


def test_a_link_of_an_invitation_is_signed(server, invitation):
    path = f"/api/0/accept/{invitation['id']}/didflm-ad2d745fb04e33ef5ef87de1fcbdb467/"
    assert said(server.call("GET", path, anonymous=True)) == (403, {"detail": "Invalid invite token"})
    answer = server.write("POST", path, {"acceptInvite": True}, server.cookies)
    assert said(answer) == (403, {"detail": "Invalid invite token"})
    gone = server.call("GET", path.replace(invitation["id"], "999999999"), anonymous=True)
    assert said(gone) == NOT_FOUND


@pytest.fixture
def accept(mailed):
    """Where an invitation is accepted, once its mail is there."""

    def path(made):
        link = mailed(rf"/accept/{made['id']}/([0-9a-z]+-[0-9a-f]+)")
        return f"/api/0/accept/{made['id']}/{link}/"

    return path


def test_the_link_shows_the_invitation_and_its_organization_to_anybody(server, acme, invitation, accept):
    shown = server.get(accept(invitation), anonymous=True)
    assert shown["acceptInvite"] is False
    organization = shown["orgUser"].pop("organization")
    assert shown["orgUser"] == as_listed(invitation)
    assert organization["slug"] == acme.slug


def test_an_invitation_is_accepted_by_a_session_only(server, invitation, accept):
    path = accept(invitation)
    answer = server.call("POST", path, {"acceptInvite": True})
    assert page(answer) == (500, "text/html")
    answer = server.call("POST", path, {"acceptInvite": True}, anonymous=True)
    assert said(answer) == (403, {"detail": "CSRF check Failed"})
    answer = server.write("POST", path, {"acceptInvite": True}, server.csrf())
    assert said(answer) == (401, {"detail": "Unauthorized"})


def test_accepting_asks_whether_and_no_leaves_the_invitation(server, acme, invitation, accept):
    path = accept(invitation)
    answer = server.write("POST", path, {}, server.cookies)
    assert answer.json()["detail"][0]["loc"] == ["body", "payload", "acceptInvite"]
    left = server.write("POST", path, {"acceptInvite": False}, server.cookies).json()
    assert (left["acceptInvite"], left["orgUser"]["pending"]) == (False, True)
    assert as_listed(invitation) in acme.everybody()


# From here on with a second person.


@dataclass
class Person:
    """Somebody who signed up, with a session and a token of all scopes."""

    server: Server
    email: str
    cookies: dict[str, str]
    token: str = ""

    @classmethod
    def sign_up(cls, server):
        email, cookies = address(), server.csrf()
        answer = server.write(
            "POST", f"{ALLAUTH}/auth/signup", {"email": email, "password": PASSWORD}, cookies
        )
        if answer.status_code == 403:
            pytest.skip("registration is closed on this server")
        assert answer.status_code == 200, answer.text[:300]
        found = cls(server, email, {**cookies, **dict(answer.cookies)})
        found.token = server.make_token(found.cookies, 65535)["token"]
        return found

    def join(self, organization, accept, role="member", **more):
        """Become a member; the number of the membership."""
        made = organization.invite(self.email, role, reinvite=False, **more)
        answer = self.server.write("POST", accept(made), {"acceptInvite": True}, self.cookies)
        assert answer.status_code == 200, answer.text[:300]
        return made["id"]

    def call(self, method, path, body=None):
        return self.server.call(method, path, body, token=self.token)

    def leave(self):
        return self.server.write("DELETE", "/api/0/users/me/", None, self.cookies)


@pytest.fixture
def person(server, mailed):  # noqa: ARG001 - nobody signs up where the link cannot be read
    found = Person.sign_up(server)
    yield found
    found.leave()


@pytest.fixture
def other(server):
    found = Person.sign_up(server)
    yield found
    found.leave()


@pytest.mark.destructive
def test_whoever_accepts_becomes_the_member_and_the_next_who_has_the_link_takes_it_over(
    server, own, person, other, accept
):
    made = own.invite(address(), "admin", teamRoles=[{"teamSlug": "crew"}])
    path = accept(made)
    for who in (person, other, person):
        answer = server.write("POST", path, {"acceptInvite": True}, who.cookies).json()
        assert answer["acceptInvite"] is True
        assert (answer["orgUser"]["email"], answer["orgUser"]["pending"]) == (who.email, False)
    member = server.get(f"{own.members}{made['id']}/")
    assert (member["email"], member["role"], member["teams"]) == (person.email, "admin", ["crew"])
    assert server.get(path, anonymous=True)["orgUser"]["email"] == person.email


@pytest.mark.destructive
def test_who_is_no_member_sees_nothing(own, person):
    assert said(person.call("GET", own.path)) == NOT_FOUND
    assert said(person.call("GET", own.members)) == (200, [])
    assert said(person.call("DELETE", f"{own.members}{own.me()['id']}/")) == NOT_FOUND


ROLE_TABLE = [
    # what is asked in this order, its body, and what it answers a member, an admin and a manager
    ("GET {members}", None, 200, 200, 200),
    ("POST {members}", {"email": "contract-nobody@example.org", "orgRole": "member"}, 403, 403, 201),
    ("PUT {members}{owner}/", {"orgRole": "owner"}, 403, 403, 200),
    ("DELETE {members}{invited}/", None, 403, 403, 204),
    ("POST {members}{id}/set_owner/", None, 403, 403, 403),
    ("POST {path}teams/", {"slug": "made"}, 404, 201, 201),
    ("POST {members}{owner}/teams/ops/", None, 403, 403, 201),
    ("POST {members}{owner}/teams/crew/", None, 403, 201, 201),
    ("DELETE {members}{owner}/teams/crew/", None, 403, 200, 200),
    ("POST {members}me/teams/ops/", None, 201, 201, 201),
    ("DELETE {members}me/teams/ops/", None, 200, 200, 200),
    ("POST /api/0/teams/{slug}/crew/projects/", {"name": "x"}, 404, 201, 201),
    ("POST {project}keys/", {"name": "x"}, 201, 201, 201),
    ("POST {path}releases/", {"version": "v1", "projects": ["shop"]}, 201, 201, 201),
    ("POST {project}teams/ops/", None, 404, 404, 201),
    ("DELETE {project}teams/ops/", None, 404, 404, 200),
    ("PUT {project}", {"name": "Shop"}, 200, 200, 200),
    ("DELETE {project}", None, 204, 204, 204),
    ("PUT /api/0/teams/{slug}/ops/", {"slug": "ops"}, 200, 200, 200),
    ("DELETE /api/0/teams/{slug}/ops/", None, 204, 204, 204),
    ("PUT {path}", {"name": "x"}, 403, 403, 200),
    ("DELETE {path}", None, 403, 403, 204),
]


@pytest.mark.six(
    "source: 6.x, apps/projects/api.py (6b9ad29): deleting a project takes role admin, the rest is as on 5.2"
)
@pytest.mark.destructive
@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_may_do_with_all_scopes_is_this_table(server, own, person, accept, role):
    """A plain member may rename and delete teams, and change and delete projects: the role is not asked."""
    server.post(f"/api/0/teams/{own.slug}/crew/projects/", {"name": "Shop"})
    where = {
        "members": own.members,
        "path": own.path,
        "slug": own.slug,
        "project": f"/api/0/projects/{own.slug}/shop/",
        "owner": own.me()["id"],
        "invited": own.invite(address())["id"],
        "id": person.join(own, accept, role, teamRoles=[{"teamSlug": "crew"}]),
    }
    found = {}
    for call, body, *_ in ROLE_TABLE:
        method, path = call.format(**where).split(" ")
        found[call] = person.call(method, path, body).status_code
    expected = {row[0]: row[2 + ROLES.index(role)] for row in ROLE_TABLE}
    if server.line == "6.2" and role == "member":
        assert found.pop("DELETE {project}") in {403, 404}  # the role is asked there; the answer is not known
        del expected["DELETE {project}"]
    assert found == expected


@pytest.mark.destructive
def test_the_words_of_a_refusal_differ_by_call(own, person, accept):
    mine = person.join(own, accept)
    me = own.me()["id"]
    invited = person.call("POST", own.members, {"email": address(), "orgRole": "member"})
    assert said(invited) == (403, {"detail": "forbidden"})
    assert said(person.call("PUT", f"{own.members}{mine}/", {"orgRole": "owner"})) == (
        403,
        {"detail": "Forbidden"},
    )
    assert said(person.call("DELETE", f"{own.members}{me}/")) == (403, {"detail": "Forbidden"})
    answer = person.call("POST", f"{own.members}{me}/teams/crew/")
    assert said(answer) == (403, {"detail": "Must be admin to modify teams"})
    answer = person.call("POST", f"{own.members}{mine}/set_owner/")
    assert said(answer) == (403, {"detail": "Only owner may set organization owner."})


@pytest.mark.destructive
def test_a_member_may_leave(own, person, accept):
    mine = person.join(own, accept)
    assert person.call("DELETE", f"{own.members}{mine}/").status_code == 204
    assert person.email not in [member["email"] for member in own.everybody()]


@pytest.mark.destructive
def test_the_primary_owner_may_be_lowered_once_there_is_a_second_owner(own, person, accept):
    person.join(own, accept, "owner")
    me = own.me()["id"]
    lowered = person.call("PUT", f"{own.members}{me}/", {"orgRole": "member"}).json()
    assert (lowered["role"], lowered["isOwner"]) == ("member", True)
    person.call("PUT", f"{own.members}{me}/", {"orgRole": "owner"})


@pytest.mark.destructive
def test_ownership_moves_by_an_owner_and_a_primary_owner_cannot_delete_himself(server, own, person, accept):
    mine = person.join(own, accept)
    moved = server.post(f"{own.members}{mine}/set_owner/", None, 200)
    assert (moved["isOwner"], moved["role"]) == (True, "member")
    assert own.me()["isOwner"] is False
    answer = person.leave()
    assert said(answer) == (
        400,
        {"detail": "User is organization owner. Delete organization or transfer ownership first."},
    )
    server.post(f"{own.members}{own.me()['id']}/set_owner/", None, 200)


@pytest.mark.destructive
def test_a_manager_may_remove_the_primary_owner_and_then_every_answer_about_members_is_500(
    own, person, accept
):
    mine = person.join(own, accept, "manager", teamRoles=[{"teamSlug": "crew"}])
    assert person.call("DELETE", f"{own.members}{own.me()['id']}/").status_code == 204
    for path in (own.members, f"{own.members}{mine}/", f"/api/0/teams/{own.slug}/crew/members/"):
        assert page(person.call("GET", path)) == (500, "text/html"), path
    assert person.call("GET", own.path).status_code == 200
    assert person.call("DELETE", own.path).status_code == 204


@pytest.mark.destructive
def test_the_fifty_first_invitation_within_five_minutes_is_429(own, person, accept):
    person.join(own, accept, "manager")
    for _ in range(50):
        body = {"email": address(), "orgRole": "member"}
        assert person.call("POST", own.members, body).status_code == 201
    answer = person.call("POST", own.members, {"email": address(), "orgRole": "member"})
    assert said(answer) == (429, {"detail": "Too many requests."})


def code(secret):
    """The six digits of now (RFC 6238)."""
    padded = secret + "=" * (-len(secret) % 8)
    digest = hmac.new(base64.b32decode(padded), struct.pack(">Q", int(time.time()) // 30), "sha1").digest()
    start = digest[-1] & 15
    return f"{(int.from_bytes(digest[start : start + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06d}"


@pytest.mark.destructive
def test_an_account_with_a_second_factor_is_half_logged_in_until_the_code_and_its_tokens_need_none(
    server, person, mailed
):
    authenticator = f"{ALLAUTH}/account/authenticators/totp"
    early = server.call("GET", authenticator, cookies=person.cookies)
    assert (early.status_code, early.json()["errors"][0]["code"]) == (409, "unverified_email")
    # in the link of the page, or what our log has instead of it
    before = rf'To: {person.email}[\s\S]{{0,4000}}?confirm-email/|"{person.email}"[^\n]*verification_key": "'
    key = unquote(mailed(rf"(?:{before})([\w%:-]+)"))
    verified = server.write("POST", f"{ALLAUTH}/auth/email/verify", {"key": key}, person.cookies)
    assert verified.status_code in {200, 401}, verified.text[:300]
    offer = server.call("GET", authenticator, cookies=person.cookies)
    assert offer.status_code == 404
    secret = offer.json()["meta"]["secret"]
    server.write("POST", authenticator, {"code": code(secret)}, person.cookies)

    half = server.login(person.email, PASSWORD)
    assert half.status_code == 401
    pending = [flow for flow in half.json()["data"]["flows"] if flow.get("is_pending")]
    assert [flow["id"] for flow in pending] == ["mfa_authenticate"]
    assert "totp" in pending[0]["types"]
    session = {**server.csrf(), **dict(half.cookies)}
    assert server.call("GET", "/api/0/api-tokens/", cookies=session).status_code == 401
    assert person.call("GET", "/api/0/users/me/").status_code == 200
    wrong = server.write("POST", f"{ALLAUTH}/auth/2fa/authenticate", {"code": "000000"}, session)
    assert (wrong.status_code, wrong.json()["errors"][0]["code"]) == (400, "incorrect_code")
