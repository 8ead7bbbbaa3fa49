"""What the contract suite says to what it was given, before the first rule."""

from __future__ import annotations

import json

import pytest
from conftest import Reply
from contract import lines
from contract.receiver import ReceiverError, address
from contract.target import Refused, close_target, find_line, open_target, settings_of

SETTINGS = {"enableOrganizationCreation": False, "version": "5.2.0"}


def given(url, **more):
    return {
        "GLITCHTIP_URL": url,
        "GLITCHTIP_EMAIL": "a@example.org",
        "GLITCHTIP_PASSWORD": "s3cret-word",
        **more,
    }


def refusal(environment, directory):
    with pytest.raises(Refused) as refused:
        open_target(environment, directory)
    text = str(refused.value)
    assert "s3cret-word" not in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("errors.example.org", "must be the address of a server"),
        ("ftp://errors.example.org", "must be the address of a server"),
        ("http://admin:word@127.0.0.1", "must hold no user, password"),
        (
            "http://127.0.0.1:9",
            "cannot be reached (Failed to establish a new connection: [Errno 111] Connection refused)",
        ),
    ],
)
def test_an_address_that_is_none_or_does_not_answer_is_one_sentence(url, part, tmp_path):
    assert part in refusal(given(url), tmp_path)


def test_what_is_missing_is_named(tmp_path):
    assert (
        refusal({"GLITCHTIP_URL": "http://x"}, tmp_path)
        == "GLITCHTIP_EMAIL, GLITCHTIP_PASSWORD must be given"
    )


def test_a_page_is_not_a_glitchtip(scripted_server):
    scripted_server.html()
    with pytest.raises(Refused, match=r"is not a GlitchTip: /api/settings/ answers 200 with text/html"):
        settings_of(scripted_server.url)


@pytest.mark.parametrize("data", [{"version": "5.2.0"}, [], {"detail": "Not Found"}])
def test_other_json_is_not_a_glitchtip(scripted_server, data):
    scripted_server.then(200, data)
    with pytest.raises(Refused, match="is not a GlitchTip"):
        settings_of(scripted_server.url)


def test_a_redirect_names_the_address_to_give(scripted_server):
    scripted_server.then(301, headers={"Location": "https://errors.example.org/api/settings/"})
    with pytest.raises(Refused, match=r"redirects to https://errors\.example\.org; give that"):
        settings_of(scripted_server.url)


def test_a_server_without_its_database_is_said_to_be_out_of_order(scripted_server):
    scripted_server.html(500)
    with pytest.raises(Refused, match="is not in order"):
        settings_of(scripted_server.url)


COOKIE = {"Set-Cookie": "csrftoken=abc; Path=/"}


@pytest.mark.parametrize(
    ("status", "body", "part"),
    [
        (400, {"errors": [{"code": "email_password_mismatch"}]}, "GLITCHTIP_PASSWORD) is wrong"),
        (401, {"data": {"flows": [{"id": "mfa_authenticate", "is_pending": True}]}}, "second factor"),
        (400, {"errors": [{"code": "too_many_login_attempts"}]}, "wait five minutes"),
        (503, None, "refuses the login of a@example.org with 503"),
    ],
)
def test_a_login_that_fails_says_why(scripted_server, tmp_path, status, body, part):
    scripted_server.then(200, SETTINGS).then(401, {}, headers=COOKIE).then(status, body)
    assert part in refusal(given(scripted_server.url), tmp_path)


def logged_in(script):
    """Everything up to the token; the account has token 1 and organization ``theirs`` before."""
    script.then(200, SETTINGS).then(401, {}, headers=COOKIE)
    script.then(200, {}, headers={"Set-Cookie": "sessionid=s; Path=/"})
    script.then(200, [{"id": 1}]).then(201, {"id": 2, "token": "t" * 64})
    return script.then(200, [{"slug": "theirs"}]).then(200, [{"id": 1}, {"id": 2}])


def test_an_account_that_may_not_create_organizations_is_told_and_its_token_removed(
    scripted_server, tmp_path
):
    logged_in(scripted_server).then(403, {"detail": "Organization creation is not open"})
    scripted_server.then(200, [{"slug": "theirs"}]).then(
        200, [{"id": 1}, {"id": 2}]
    )  # what is there at the end
    scripted_server.then(204).then(200, [{"id": 1}]).then(200, [{"slug": "theirs"}]).then(401, {})
    assert "may not create organizations" in refusal(given(scripted_server.url), tmp_path)
    assert "DELETE /api/0/api-tokens/2/" in scripted_server.lines
    assert not [line for line in scripted_server.lines if line.startswith("DELETE /api/0/organizations")]


def as_it_is(asked, lines_so_far):
    """A server that has more than the run made; it takes the run's last event and shows it."""
    gone = "DELETE /api/0/organizations/forgotten/" in lines_so_far
    slugs = ["theirs", "new-of-others", *([] if gone else ["forgotten"])]
    answers = {
        "/api/0/organizations/?limit=100": (200, [{"slug": slug} for slug in slugs]),
        "/api/0/api-tokens/": (200, [{"id": 1}, {"id": 7}, {"id": 9}]),
        "/api/0/organizations/forgotten/teams/": (201, {"slug": "last"}),
        "/api/0/teams/forgotten/last/projects/": (201, {"slug": "last", "id": "3", "name": "last"}),
        "/api/0/projects/forgotten/last/keys/": (200, [{"public": "0" * 32}]),
    }
    if asked.method == "DELETE":
        return 204, None
    if asked.path == "/api/3/envelope/":
        return 200, {"id": json.loads(asked.body.split(b"\n")[0])["event_id"]}
    return answers.get(asked.path, (200, {"eventID": "stored"}))


def test_what_a_run_left_is_removed_and_said_and_what_others_have_is_left_alone(scripted_server, tmp_path):
    logged_in(scripted_server).then(201, {"slug": "contract-trial"}).then(204)
    target = open_target(given(scripted_server.url, CONTRACT_RECEIVER="none"), tmp_path)
    before = len(scripted_server.asked)
    rows = [
        ["made", "organization", "forgotten"],
        ["made", "token", "7"],
        ["deleted", "organization", "theirs"],
    ]
    with target.server.journal.path.open("a") as journal:
        journal.writelines(json.dumps(row) + "\n" for row in rows)
    scripted_server.answer = lambda asked: Reply(*as_it_is(asked, scripted_server.lines))
    sentences = close_target(target)
    deleted = [line for line in scripted_server.lines[before:] if line.startswith("DELETE")]
    assert "DELETE /api/0/organizations/forgotten/" in deleted
    assert "DELETE /api/0/api-tokens/7/" in deleted
    assert not [line for line in deleted if "others" in line or "theirs" in line or "/9/" in line]
    text = "; ".join(sentences)
    assert "organization forgotten was left" in text
    assert "token 7 was left" in text
    assert "organization theirs was deleted although the run had not made it" in text


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("5.2.0", "5.2"),
        ("v5.2.1", "5.2"),
        ("5.1.0", "5.2"),
        ("6.2.6", "6.2"),
        ("6.1.7", "6.2"),
        ("", None),
        ("0.0.0-unknown", None),
    ],
)
def test_a_version_tells_the_line_or_nothing(version, line):
    assert lines.of_version(version) == line


@pytest.mark.parametrize("version", ["4.2.0", "6.0.3", "7.0.0"])
def test_a_version_of_no_known_line_is_refused_unless_a_line_is_given(version):
    with pytest.raises(Refused, match=rf"is GlitchTip {version}, which this suite does not know"):
        find_line("http://x", version, None)
    assert find_line("http://x", version, "6.2") == ("6.2", "GLITCHTIP_LINE")


def test_without_a_version_the_line_shows_in_a_path_that_only_6_has(scripted_server):
    scripted_server.html().then(401, {"detail": "Unauthorized"})
    assert find_line(scripted_server.url, "", None) == ("5.2", "behaviour")
    assert find_line(scripted_server.url, "0.0.0-unknown", None) == ("6.2", "behaviour")


def test_an_unknown_line_is_refused():
    with pytest.raises(Refused, match=r"GLITCHTIP_LINE must be one of 5\.2, 6\.2, not '7'"):
        find_line("http://x", "5.2.0", "7")


def test_where_deliveries_come_to():
    assert address(None, "http://127.0.0.1:8080") == ("127.0.0.1", "127.0.0.1", 0)
    assert address("", "http://localhost:8080") == ("127.0.0.1", "127.0.0.1", 0)
    assert address(None, "https://errors.example.org") is None
    assert address("none", "http://127.0.0.1:8080") is None
    assert address("10.0.0.7:9000", "https://errors.example.org") == ("0.0.0.0", "10.0.0.7", 9000)


@pytest.mark.parametrize(
    "setting", ["host", "host:", ":80", "host:0", "host:70000", "http://host:80", "host:80/x"]
)
def test_a_receiver_that_makes_no_sense_is_one_sentence(setting):
    with pytest.raises(ReceiverError, match="CONTRACT_RECEIVER must be host:port"):
        address(setting, "https://errors.example.org")


@pytest.mark.parametrize(
    ("line", "provenance", "part"),
    [
        ("6.2", None, "must say where it is known from"),
        ("6.2", "somewhere", "must say where it is known from"),
        ("6.2", "documented: ", "must say where it is known from"),
        ("7.0", None, "names no line"),
        ("6.2", "source: ", "must say where it is known from"),
        ("6.2", "measured: 6.2.6", "must say where it is known from"),
        ("5.2", "document: README", "must say where it is known from"),
        ("6.2", "document: CHANGELOG 6.0.7", None),
        ("6.2", "source: 6.x, apps/uptime", None),
        ("5.2", "measured: c264800f", None),
        ("5.2", None, None),
    ],
)
def test_a_rule_of_one_line_says_where_it_is_known_from(line, provenance, part):
    found = lines.problem(line, provenance)
    assert (part in found) if part else found is None


class Mark:
    """A mark as pytest keeps it."""

    def __init__(self, name, *args, **kwargs):
        self.name, self.args, self.kwargs = name, args, kwargs


class Item:
    """A rule as pytest collects it, with these marks."""

    nodeid = "rule"

    def __init__(self, *marks):
        self._marks = {mark.name: mark for mark in marks}

    def get_closest_marker(self, name):
        return self._marks.get(name)

    def iter_markers(self, name):
        return [mark for mark in self._marks.values() if mark.name == name]


@pytest.mark.parametrize(
    ("marks", "line", "known"),
    [
        ([], "5.2", "measured"),
        ([], "6.2", lines.CARRIED_OVER),
        ([Mark("line", "5.2")], "5.2", "measured"),
        ([Mark("line", "6.2", provenance="source: 6.x, apps")], "6.2", "source"),
        ([Mark("line", "6.2", provenance="document: CHANGELOG")], "6.2", "document"),
        ([Mark("six", "source: 6.x, apps")], "6.2", "source"),
        ([Mark("six", "source: 6.x, apps")], "5.2", "measured"),
    ],
)
def test_a_rule_is_called_measured_on_5_2_alone(marks, line, known):
    lines.check([Item(*marks)])
    assert lines.provenance_of(Item(*marks), line) == known


@pytest.mark.parametrize("said", ["measured: 6.2.6", "somewhere", "source:"])
def test_what_is_said_of_a_rule_of_both_lines_is_source_or_document(said):
    with pytest.raises(pytest.UsageError, match="must say where it is known from"):
        lines.check([Item(Mark("six", said))])
