"""What is given wrong, and what a server answers wrong: one sentence each, nothing written, no secret in it.

The sentences are whole, because a person has nothing else. What else is refused stands beside each module's tests.
"""

from __future__ import annotations

import pytest

HOOK = "https://hooks.example.org/canary-path?token=canary-hook"
ACME = {"organization": "acme"}
SHOP = {**ACME, "project": "shop"}
RULE = {**SHOP, "name": "hook", "quantity": 1, "timespan_minutes": 5}
SITE = {**ACME, "name": "site", "type": "GET", "target": "https://www.example.org/", "expected_status": 200}
ACCOUNT = {"email": "admin@example.org", "password": "canary", "label": "ops", "scopes": ["org:read"]}


def hook(**recipient):
    """A rule with one recipient."""
    return {**RULE, "recipients": [recipient]}


VALUES = [
    ("glitchtip_organization", {"name": " "}, "the name of an organization has 1 to 200 characters"),
    ("glitchtip_organization", {"name": "x" * 201}, "the name of an organization has 1 to 200 characters"),
    (
        "glitchtip_team",
        {**ACME, "slug": "two words"},
        "a team's slug has 1 to 50 letters, digits, hyphens or underscores",
    ),
    (
        "glitchtip_team",
        {"organization": "ghost", "slug": "ops"},
        "there is no organization 'ghost', or the token's user is no member",
    ),
    (
        "glitchtip_project",
        {**ACME, "team": "ghost", "name": "New"},
        "there is no team 'ghost' in organization 'acme', or the token's user is no member",
    ),
    (
        "glitchtip_project",
        {**ACME, "team": "backend", "name": "x" * 65},
        "the name of a project has 1 to 64 characters",
    ),
    (
        "glitchtip_project",
        {**ACME, "team": "backend", "name": "New", "slug": "has space"},
        "a project's slug has 1 to 50 letters, digits, hyphens or underscores",
    ),
    (
        "glitchtip_project",
        {**ACME, "team": "backend", "name": "New", "event_throttle_rate": 101},
        "the throttle rate is a number from 0 to 100",
    ),
    (
        "glitchtip_project_key",
        {**ACME, "project": "ghost", "name": "app"},
        "there is no project 'ghost' in organization 'acme', or the token's user is no member",
    ),
    (
        "glitchtip_project_key",
        {**SHOP, "name": "app", "rate_limit": {"count": 0, "window": 1}},
        "a rate limit has a count and a window, both from 1 to 32767",
    ),
    (
        "glitchtip_project_key",
        {**SHOP, "name": "app", "ingest_url": "127.0.0.1:8080"},
        "an address starts with http:// or https:// and names a host",
    ),
    (
        "glitchtip_member",
        {**ACME, "email": "dev@corp.local"},
        "an e-mail address ending in .test, .local, .localhost, .invalid makes GlitchTip fail with 500",
    ),
    ("glitchtip_member", {**ACME, "email": "nobody"}, "an e-mail address needs a domain with a dot"),
    (
        "glitchtip_alert",
        {**RULE, "project": "ghost", "recipients": [{"type": "email"}]},
        "there is no project 'ghost' in organization 'acme', or the token's user is no member",
    ),
    (
        "glitchtip_alert",
        hook(type="slack", url=HOOK),
        (
            "GlitchTip has no recipients of type 'slack'; use type webhook with the address of its "
            "incoming webhook, which takes the same body (types: email, webhook, discord, googlechat, "
            "teams, ntfy, zulip, feishu)"
        ),
    ),
    (
        "glitchtip_alert",
        hook(type="webhook", url="hooks.example.org/canary"),
        "a webhook recipient needs a URL with http:// or https://",
    ),
    ("glitchtip_alert", hook(type="email", url=HOOK), "an email recipient takes no url"),
    ("glitchtip_alert", {**hook(type="email"), "quantity": 32768}, "quantity is a number from 0 to 32767"),
    (
        "glitchtip_alert",
        {**hook(type="email"), "timespan_minutes": -1},
        "timespan_minutes is a number from 0 to 32767",
    ),
    (
        "glitchtip_alert",
        {**RULE, "recipients": []},
        "an alert rule without recipients e-mails everyone in the project; name at least one",
    ),
    (
        "glitchtip_alert",
        {**RULE, "recipients": [{"type": "webhook", "url": HOOK}] * 2},
        "the same webhook recipient is given twice",
    ),
    (
        "glitchtip_monitor",
        {**SITE, "interval": 0},
        (
            "monitor 'site': interval 0 would stop the checks of every monitor of the instance; give 1 "
            "to 32767 seconds"
        ),
    ),
    ("glitchtip_monitor", {**SITE, "interval": 86401}, "monitor 'site': interval is 1 to 86400 seconds"),
    (
        "glitchtip_monitor",
        {**SITE, "type": "Pong"},
        "value of type must be one of: Ping, GET, POST, TCP Port, SSL, Heartbeat, got: Pong",
    ),
    (
        "glitchtip_monitor",
        {**SITE, "target": "http://web:8080/"},
        (
            "monitor 'site': the server refuses the host 'web', a name without a dot: give its full "
            "name or IP address, or type TCP Port with the url web:8080"
        ),
    ),
    (
        "glitchtip_monitor",
        {**SITE, "target": "www.example.org"},
        "monitor 'site': the url of type GET is a complete http:// or https:// address",
    ),
    ("glitchtip_monitor", {**SITE, "check_timeout": 61}, "monitor 'site': timeout is 1 to 60 seconds"),
    ("glitchtip_status_page", {**ACME, "name": ""}, "the name of a status page has 1 to 200 characters"),
    (
        "glitchtip_token",
        {**ACCOUNT, "email": "admin@localhost"},
        "an e-mail address needs a domain with a dot",
    ),
    ("glitchtip_token", {**ACCOUNT, "scopes": ["org:everything"]}, "unknown scope: org:everything"),
    (
        "glitchtip_event",
        {"dsn": "https://canary.example.org/1", "wait": False},
        "not a DSN: the key before @ must be 32 hexadecimal digits",
    ),
]


@pytest.fixture
def monitored(provisioned):
    """With an empty list of monitors."""
    org = "/api/0/organizations/([^/]+)"
    provisioned.extra_routes += [
        ("GET", f"{org}/", lambda _a, o: provisioned.one(provisioned.organizations, slug=o)),
        ("GET", f"{org}/monitors/", lambda _a, _o: []),
    ]
    return provisioned


@pytest.fixture
def run(run_module, monitored):
    """Run a module with what it needs to find the server."""

    def of(module, **options):
        where = {} if module == "glitchtip_event" else {"url": monitored.url}
        if module not in ("glitchtip_token", "glitchtip_event"):
            where["token"] = monitored.token
        result = run_module(module, **{**where, **options})
        assert "canary" not in str(result)
        return result

    return of


@pytest.mark.parametrize(("module", "options", "said"), VALUES)
def test_a_value_is_refused_in_one_sentence_before_anything_is_written(
    run, provisioned, module, options, said
):
    failed = run(module, **options)
    assert (failed["failed"], failed["msg"]) == (True, said)
    assert provisioned.writes == []


TEAM = {**ACME, "slug": "ops"}
TEAMS = "/api/0/organizations/acme/teams/"
SETTINGS = "/api/settings/"
ANSWERS = [
    (
        "HTML of the server's own pages",
        TEAMS,
        {"raw": b"<!doctype html>", "content_type": "text/html"},
        (
            "GET /api/0/organizations/acme/teams/ answered 200: text/html where JSON was due (no such "
            "endpoint on this server, or the address is not a GlitchTip)"
        ),
    ),
    (
        "empty",
        TEAMS,
        {"raw": b""},
        (
            "GET /api/0/organizations/acme/teams/ answered 200: an empty answer where JSON was due "
            "(look at what stands in front of it)"
        ),
    ),
    (
        "cut",
        TEAMS,
        {"data": [], "cut": 50},
        "GET /api/0/organizations/acme/teams/: {url} broke the answer off",
    ),
    (
        "cut and yet of the announced length",
        TEAMS,
        {"raw": b'[{"slug": "op'},
        (
            "GET /api/0/organizations/acme/teams/ answered 200: the answer calls itself JSON but cannot "
            "be read as JSON (it was cut or changed on its way: look at what stands in front of the "
            "server)"
        ),
    ),
    (
        "slow",
        TEAMS,
        {"data": [], "delay": 3},
        "GET /api/0/organizations/acme/teams/: {url} took the request but did not answer in time",
    ),
    (
        "an object in place of a list",
        TEAMS,
        {"data": {"detail": "canary"}},
        "GET /api/0/organizations/acme/teams/ answered 200: the answer is no list",
    ),
    (
        "a scope is missing",
        TEAMS,
        {"status": 403, "data": {"detail": "Permission denied"}},
        (
            "GET /api/0/organizations/acme/teams/ answered 403: Permission denied (the token needs one "
            "of team:read, team:write, team:admin, org:read, org:write, org:admin; if it has that, its "
            "user lacks the role)"
        ),
    ),
    (
        "the token is revoked",
        TEAMS,
        {"status": 401, "data": {"detail": "Unauthorized"}},
        (
            "GET /api/0/organizations/acme/teams/ answered 401: Unauthorized (the token is wrong, "
            "revoked or expired: make a new one)"
        ),
    ),
    (
        "the server fails",
        TEAMS,
        {"status": 500, "raw": b"<h1>Server Error (500)</h1>", "content_type": "text/html"},
        "GET /api/0/organizations/acme/teams/ answered 500 (the server failed: its log says why)",
    ),
    (
        "older than supported",
        SETTINGS,
        {"data": {"version": "4.1.5"}},
        "GET /api/settings/: the server is GlitchTip 4.1.5: this needs 5.0 or newer (upgrade it)",
    ),
    (
        "much older",
        SETTINGS,
        {"data": {"version": "3.4.0"}},
        (
            "GET /api/settings/: the server is GlitchTip 3.4.0: this needs 5.0 or newer (upgrade it "
            "(from 3.x by way of 4.x))"
        ),
    ),
    (
        "a version that loses events",
        SETTINGS,
        {"data": {"version": "4.2.0"}},
        (
            "GET /api/settings/: the server is GlitchTip 4.2.0: upstream calls it broken: it accepts "
            "events and throws them away (upgrade it)"
        ),
    ),
    (
        "no GlitchTip",
        SETTINGS,
        {"status": 404, "raw": b"<h1>Not Found</h1>", "content_type": "text/html"},
        "GET /api/settings/ answered 404 (no such endpoint on this server, or the address is not a GlitchTip)",
    ),
]


@pytest.mark.parametrize(
    ("path", "answer", "said"), [case[1:] for case in ANSWERS], ids=[case[0] for case in ANSWERS]
)
def test_a_bad_answer_is_one_sentence(run, provisioned, path, answer, said):
    given = {"status": 200, **answer}
    reply = provisioned.reply(**given)
    provisioned.extra_routes.insert(0, ("GET", path, lambda _asked: reply))
    failed = run("glitchtip_team", **TEAM, timeout=1)
    assert failed["failed"] is True
    assert failed["msg"] == said.format(url=provisioned.url)
    assert provisioned.writes == []


def test_objects_of_one_name_are_named_by_what_tells_them_apart(run, provisioned):
    provisioned.organizations.append({"id": "21", "slug": "acme-bg", "name": "Acme"})
    provisioned.projects.append({**provisioned.projects[0], "id": "23", "slug": "shop-2"})
    for _ in range(2):
        provisioned.add_key(provisioned.projects[0], "app")
        provisioned.alerts.append(
            {"id": provisioned.number(), "project": "shop", "name": "hook", "alertRecipients": []}
        )
    first, second = provisioned.alerts
    keys = [key["id"] for key in provisioned.keys if key["name"] == "app"]
    way_out = "(rename or delete all but one)"
    for module, options, said in [
        ("glitchtip_organization", {"name": "Acme"}, "2 organizations are called 'Acme': acme, acme-bg"),
        ("glitchtip_project", {**ACME, "name": "Shop"}, "2 projects are called 'Shop': shop, shop-2"),
        ("glitchtip_alert", RULE, f"2 alert rules are called 'hook': {first['id']}, {second['id']}"),
        (
            "glitchtip_project_key",
            {**SHOP, "name": "app"},
            f"2 keys are called 'app': {keys[0][:8]}***, {keys[1][:8]}***",
        ),
    ]:
        for state in ("present", "absent"):
            failed = run(module, **options, state=state)
            assert (failed["failed"], failed["msg"]) == (True, f"{said} {way_out}")
            assert not [key for key in keys if key in str(failed)], "the id of a key is its secret"
    assert provisioned.writes == []


def test_a_slug_that_the_server_keeps_back_is_a_failure_that_leaves_nothing_behind(run, provisioned):
    refusal = provisioned.reply(500, raw=b"<h1>Server Error (500)</h1>", content_type="text/html")
    path = "/api/0/projects/acme/new/"
    provisioned.extra_routes.insert(0, ("PUT", path, lambda _asked: refusal))
    failed = run("glitchtip_project", **ACME, team="backend", name="New", slug="old")
    assert failed["msg"] == (
        "PUT /api/0/projects/acme/new/ answered 500: the slug 'old' is taken although no project shows it, so project"
        " 'New' was not made (a deleted project keeps its slug until the worker has removed it: try again in a minute)"
    )
    assert [project["slug"] for project in provisioned.projects] == ["shop"]


def test_a_slug_that_the_server_changed_is_warned_of(run, provisioned):
    provisioned.projects.append({**provisioned.projects[0], "id": "23", "slug": "new", "name": "Other"})
    made = run("glitchtip_project", **ACME, team="backend", name="New")
    assert made["project"]["slug"] == "new-2"
    (warning,) = made["warnings"]
    assert warning == (
        "the server made the slug 'new-2' of the name 'New', because that name has none or it is taken, perhaps by a"
        " deleted project that the worker has not removed yet; give a slug to choose another"
    )
