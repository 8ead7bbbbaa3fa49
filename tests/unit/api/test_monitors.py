"""Monitors: refused before they harm the instance, written whole, found again, and never doubled."""

from __future__ import annotations

import pytest
from fake_api import FakeApi

from glitchtip_api import AmbiguousError, Client, GlitchTipError, MissingError
from glitchtip_api.ensure import ensure_monitor, ensure_organization
from glitchtip_api.ensure.monitor import predicted_monitor, view_monitor
from glitchtip_api.errors import InvalidError

ORGANIZATION = {"id": "1", "slug": "acme", "name": "Acme"}
ENDPOINT_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
ENDPOINT = f"https://errors.example.org/api/0/organizations/acme/heartbeat_check/{ENDPOINT_ID}/"
LIST = "/api/0/organizations/acme/monitors/"
SITE = {"type": "GET", "url": "https://www.example.org/", "expected_status": 200}


def stored(**changes):
    found = {
        "id": 7,
        "monitorType": "GET",
        "name": "site",
        "url": "https://www.example.org/",
        "expectedStatus": 200,
        "expectedBody": "",
        "interval": 60,
        "timeout": None,
        "projectID": "10",
        "projectName": "Shop",
        "heartbeatEndpoint": None,
        "isUp": True,
        "checks": [],
    }
    return {**found, **changes}


def asked(server):
    return [line.replace("?limit=100", "") for line in server.lines]


# Refused before anything is sent


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"type": None}, "it needs a type: Ping, GET, POST, TCP Port, SSL, Heartbeat"),
        ({"type": "ICMP"}, "the type is one of Ping, GET, POST, TCP Port, SSL, Heartbeat, not 'ICMP'"),
        ({"type": "get"}, "the type is one of Ping, GET, POST, TCP Port, SSL, Heartbeat, not 'get'"),
        (
            {"interval": 0},
            "interval 0 would stop the checks of every monitor of the instance; give 1 to 32767 seconds",
        ),
        ({"interval": -5}, "interval is 1 to 32767 seconds"),
        ({"timeout": 0}, "timeout is 1 to 60 seconds"),
        ({"timeout": 61}, "timeout is 1 to 60 seconds"),
        ({"expected_status": None}, "type GET needs expected_status, for example 200"),
        ({"type": "POST", "expected_status": None}, "type POST needs expected_status, for example 200"),
        ({"expected_status": 99}, "expected_status is an HTTP status, 100 to 599"),
        ({"expected_status": 600}, "expected_status is an HTTP status, 100 to 599"),
        ({"expected_body": "x" * 2001}, "expected_body has at most 2000 characters"),
        ({"url": None}, "type GET needs a url of 1 to 2000 characters"),
        ({"url": "https://www.example.org/" + "x" * 2000}, "type GET needs a url of 1 to 2000 characters"),
        (
            {"url": "http://web:8080/health?token=canary"},
            (
                "the server refuses the host 'web', a name without a dot: give its full name or IP address,"
                " or type TCP Port with the url web:8080"
            ),
        ),
        (
            {"url": "https://web/"},
            (
                "the server refuses the host 'web', a name without a dot: give its full name or IP address,"
                " or type TCP Port with the url web:443"
            ),
        ),
        (
            {"url": "http://my_api.example.org/"},
            (
                "the server refuses the host 'my_api.example.org': a host is an IP address or a domain name of letters,"
                " digits and hyphens"
            ),
        ),
        *(
            ({"url": url}, "the url of type GET is a complete http:// or https:// address")
            for url in (
                "www.example.org",
                "127.0.0.1:80",
                "ftp://www.example.org/",
                "http://www.example.org/a b",
                "http://",
                "http://www.example.org:99999/",
                "http://www.example.org:0/",
                "http://[::1/",
            )
        ),
        *(
            (
                {"type": "TCP Port", "url": url},
                "the url of type TCP Port is a host name or IPv4 address and a port, such as db.example.org:5432",
            )
            for url in ("db", "db:", "db:0", "db:99999", "https://db:443", "[::1]:80", "user@db:80")
        ),
        (
            {"type": "Heartbeat", "expected_status": None},
            "type Heartbeat takes no url; its service calls the server",
        ),
        (
            {"type": "SSL", "url": "www.example.org"},
            "the url of type SSL is a complete http:// or https:// address",
        ),
    ],
)
def test_what_harms_the_server_is_refused_in_one_sentence(client, server, given, sentence):
    with pytest.raises(InvalidError) as refused:
        ensure_monitor(client, "acme", "site", listed=[], **{**SITE, **given})
    assert str(refused.value) == f"monitor 'site': {sentence}"
    assert "canary" not in str(refused.value)
    assert server.lines == []


@pytest.mark.parametrize(
    ("version", "interval", "sentence"),
    [
        ("5.2.0", 32768, "interval is 1 to 32767 seconds"),
        ("5.2.0", 86400, "interval is 1 to 32767 seconds"),
        ("6.2.6", 86400, None),
        ("6.2.6", 86401, "interval is 1 to 86400 seconds"),
    ],
)
def test_the_longest_interval_is_that_of_the_servers_line(client, server, version, interval, sentence):
    """The version is read only where it decides; nothing else is sent."""
    server.then(200, {"version": version})

    def ensure():
        return ensure_monitor(
            client, "acme", "site", **{**SITE, "interval": interval}, listed=[stored()], dry_run=True
        )

    if sentence:
        with pytest.raises(InvalidError, match=sentence):
            ensure()
    else:
        assert ensure().after["interval"] == interval
    assert server.lines == ["GET /api/settings/"]


@pytest.mark.parametrize("interval", [32768, 86400])
def test_a_monitor_of_6_with_a_long_interval_can_be_changed(client, server, interval):
    """Its own interval travels with every write."""
    found = stored(interval=interval, confirmationThreshold=3)
    server.then(200, {"version": "6.2.6"}).then(200, {**found, "timeout": 9})
    ensure_monitor(client, "acme", "site", timeout=9, listed=[found])
    sent = server.asked[-1].json
    assert (sent["interval"], sent["confirmationThreshold"], sent["timeout"]) == (interval, 3, 9)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8080/",
        "HTTPS://WWW.Example.org",
        "http://127.0.0.1/",
        "http://[::1]:8080/x?y=z",
        "http://bücher.example/",
        "http://shop.xn--p1ai/",
        "http://www.example.org.:8080/",
    ],
)
def test_what_the_server_takes_is_not_refused(client, server, url):
    assert (
        ensure_monitor(client, "acme", "site", **{**SITE, "url": url}, listed=[], dry_run=True).after["url"]
        == url
    )
    assert server.lines == []


@pytest.mark.parametrize("name", ["", " ", "x" * 201])
def test_a_name_has_1_to_200_characters(client, server, name):
    with pytest.raises(InvalidError, match="the name of a monitor has 1 to 200 characters"):
        ensure_monitor(client, "acme", name, **SITE)
    assert server.lines == []


# Creating


def test_a_new_monitor_is_sent_whole_with_the_id_of_its_project_as_text(client, server):
    server.then(200, []).then(200, ORGANIZATION).then(200, {"id": 10, "slug": "shop"}).then(201, stored())
    outcome = ensure_monitor(client, "acme", "site", **SITE, project="shop")
    assert (outcome.changed, outcome.predicted, outcome.warnings) == (True, False, ())
    assert outcome.after == view_monitor(stored())
    assert server.asked[-1].json == {
        "monitorType": "GET",
        "name": "site",
        "url": "https://www.example.org/",
        "expectedStatus": 200,
        "expectedBody": "",
        "interval": 60,
        "timeout": None,
        "project": "10",
    }


def test_a_dry_run_foresees_a_new_monitor_and_sends_nothing(client, server):
    server.then(200, []).then(200, ORGANIZATION)
    outcome = ensure_monitor(
        client, "acme", "site", **SITE, project="shop", projects={"shop": "10"}, dry_run=True
    )
    assert (outcome.changed, outcome.predicted) == (True, True)
    assert outcome.after == {**view_monitor(stored()), "id": ""}
    assert asked(server) == [f"GET {LIST}", "GET /api/0/organizations/acme/"]


def test_a_project_that_the_same_run_will_make_is_foreseen_but_not_written(client, server):
    options = {**SITE, "project": "new", "projects": {"shop": "10"}, "listed": []}
    assert ensure_monitor(client, "acme", "site", **options, dry_run=True).after["projectID"] == ""
    with pytest.raises(MissingError, match="there is no project 'new' in organization 'acme'"):
        ensure_monitor(client, "acme", "site", **options)
    assert server.lines == []


def test_a_missing_organization_is_said_though_its_list_is_empty(client, server):
    server.then(200, []).then(404, {"detail": "Not Found"})
    with pytest.raises(MissingError, match="there is no organization 'acme'"):
        ensure_monitor(client, "acme", "site", **SITE, dry_run=True)


def test_an_organization_that_went_away_is_missing(client, server):
    server.then(404, {"detail": "Not Found"})
    with pytest.raises(MissingError, match="there is no organization 'acme'"):
        ensure_monitor(client, "acme", "site", **SITE, listed=[])


def test_a_create_that_timed_out_but_happened_is_adopted(server, pauses):
    hasty = Client(server.url, "t", timeout=(1, 0.5), retries=0, sleep=pauses.append, jitter=lambda: 1.0)
    made = stored(projectID=None)
    server.then(201, made, delay=0.9).then(200, [made])
    outcome = ensure_monitor(hasty, "acme", "site", **SITE, listed=[])
    assert (outcome.changed, outcome.after["id"]) == (True, 7)
    assert [line for line in server.lines if line.startswith("POST")] == [f"POST {LIST}"]


def test_a_project_that_the_server_drops_silently_is_an_error(client, server):
    server.then(201, stored(projectID=None))
    with pytest.raises(GlitchTipError, match="not as it was written; was its project deleted"):
        ensure_monitor(client, "acme", "site", **SITE, project="shop", projects={"shop": "10"}, listed=[])


# Changing


def test_what_is_as_wanted_costs_no_request(client, server):
    outcome = ensure_monitor(
        client, "acme", "site", **SITE, project="shop", projects={"shop": "10"}, listed=[stored()]
    )
    assert (outcome.changed, outcome.before, outcome.predicted) == (False, outcome.after, False)
    assert server.lines == []


def test_what_is_left_out_stays_and_is_sent_along(client, server):
    found = stored(timeout=5, expectedBody="ok", confirmationThreshold=3)
    server.then(200, {**found, "interval": 30})
    outcome = ensure_monitor(client, "acme", "site", interval=30, listed=[found])
    assert outcome.diff() == {"before": {"interval": 60}, "after": {"interval": 30}}
    assert asked(server) == [f"PUT {LIST}7/"]
    assert server.asked[0].json == {
        "monitorType": "GET",
        "name": "site",
        "url": "https://www.example.org/",
        "expectedStatus": 200,
        "expectedBody": "ok",
        "interval": 30,
        "timeout": 5,
        "project": "10",
        "confirmationThreshold": 3,
    }


def test_a_dry_run_of_a_change_sends_nothing(client, server):
    outcome = ensure_monitor(client, "acme", "site", interval=30, listed=[stored()], dry_run=True)
    assert (outcome.changed, outcome.predicted, outcome.after["interval"]) == (True, True, 30)
    assert server.lines == []


def test_an_empty_project_unlinks_and_an_omitted_one_does_not(client, server):
    server.then(200, stored(projectID=None, projectName=None))
    outcome = ensure_monitor(client, "acme", "site", project="", listed=[stored()])
    assert (outcome.after["projectID"], server.asked[0].json["project"]) == (None, None)
    assert ensure_monitor(client, "acme", "site", listed=[stored()]).changed is False


def test_an_empty_expected_body_takes_the_text_away(client, server):
    server.then(200, stored())
    assert ensure_monitor(
        client, "acme", "site", expected_body="", listed=[stored(expectedBody="ok")]
    ).changed
    assert server.asked[0].json["expectedBody"] == ""


def test_a_port_is_compared_as_the_server_stores_it(client, server):
    found = stored(monitorType="TCP Port", url="db:5432", expectedStatus=None)
    assert (
        ensure_monitor(client, "acme", "site", type="TCP Port", url="DB:5432", listed=[found]).changed
        is False
    )
    assert server.lines == []


def test_a_change_that_the_server_does_not_make_is_an_error(client, server):
    server.then(200, stored())
    with pytest.raises(GlitchTipError, match="the monitor 'site' is not as it was written"):
        ensure_monitor(client, "acme", "site", interval=30, listed=[stored()])


def test_a_stored_interval_of_0_is_named_and_can_be_put_right(client, server):
    with pytest.raises(InvalidError, match="interval 0 would stop"):
        ensure_monitor(client, "acme", "site", listed=[stored(interval=0)])
    server.then(200, stored(interval=20))
    assert ensure_monitor(client, "acme", "site", interval=20, listed=[stored(interval=0)]).changed is True


def test_two_monitors_of_the_name_are_never_guessed_between(client, server):
    with pytest.raises(AmbiguousError, match="2 monitors are called 'site': 7, 8"):
        ensure_monitor(client, "acme", "site", listed=[stored(), stored(id=8)])
    assert server.lines == []


def test_the_diff_shows_the_path_of_the_watched_url_but_no_password_and_no_query(client):
    old, new = "https://u:canary1@h.example.org/a?t=canary2", "https://u:canary1@h.example.org/b?t=canary2"
    diff = ensure_monitor(client, "acme", "site", url=new, listed=[stored(url=old)], dry_run=True).diff()
    assert diff["before"] == {"url": "https://***@h.example.org/a?***"}
    assert diff["after"] == {"url": "https://***@h.example.org/b?***"}
    port = stored(monitorType="TCP Port", url="db:1")
    diff = ensure_monitor(client, "acme", "site", url="db:2", listed=[port], dry_run=True).diff()
    assert (diff["before"]["url"], diff["after"]["url"]) == ("db:1", "db:2")


# Heartbeats, warnings


def test_the_endpoint_of_a_heartbeat_is_returned_and_masked_in_the_diff(client, server):
    made = stored(monitorType="Heartbeat", url="", expectedStatus=None, heartbeatEndpoint=ENDPOINT)
    server.then(201, made)
    outcome = ensure_monitor(
        client, "acme", "site", type="Heartbeat", project="shop", projects={"shop": "10"}, listed=[]
    )
    assert outcome.after["heartbeatEndpoint"] == ENDPOINT
    assert outcome.diff()["after"]["heartbeatEndpoint"] == "***"
    assert ENDPOINT_ID not in str(outcome.diff())


def test_a_monitor_that_becomes_a_heartbeat_loses_its_url(client, server):
    server.then(200, stored(monitorType="Heartbeat", url="", heartbeatEndpoint=ENDPOINT))
    outcome = ensure_monitor(client, "acme", "site", type="Heartbeat", listed=[stored()])
    assert (server.asked[0].json["url"], outcome.after["heartbeatEndpoint"]) == ("", ENDPOINT)


def test_a_monitor_without_project_and_one_of_type_ssl_are_warned_about(client):
    plain = ensure_monitor(client, "acme", "site", **SITE, listed=[], dry_run=True)
    assert len(plain.warnings) == 1
    assert "without a project nobody is told" in plain.warnings[0]
    found = stored(monitorType="SSL")
    assert [
        "as down always" in text for text in ensure_monitor(client, "acme", "site", listed=[found]).warnings
    ] == [True]


def test_the_prediction_is_what_a_dry_run_foresees(client):
    foreseen = ensure_monitor(client, "acme", "site", **SITE, listed=[], dry_run=True).after
    wanted = {"monitorType": "GET", "url": SITE["url"], "expectedStatus": 200, "interval": None}
    assert predicted_monitor("site", wanted) == foreseen
    assert predicted_monitor("site", wanted, "shop")["projectID"] == ""
    with pytest.raises(InvalidError):
        predicted_monitor("site", {**wanted, "interval": 0})


# Deleting


def test_absent_deletes_the_named_monitor_only(client, server):
    server.then(204)
    outcome = ensure_monitor(
        client, "acme", "site", state="absent", listed=[stored(), stored(id=8, name="other")]
    )
    assert (outcome.changed, outcome.after, asked(server)) == (True, None, [f"DELETE {LIST}7/"])
    assert ensure_monitor(client, "acme", "gone", state="absent", listed=[stored()]).changed is False
    assert (
        ensure_monitor(client, "acme", "site", state="absent", listed=[stored()], dry_run=True).changed
        is True
    )
    assert len(server.lines) == 1


def test_a_delete_that_met_a_check_is_repeated(client, server):
    server.html(500).html(500).then(204)
    assert client.monitors.delete("acme", 7) is True
    assert asked(server) == [f"DELETE {LIST}7/"] * 3


def test_a_delete_that_failed_and_happened_counts_and_one_of_nothing_does_not(client, server):
    server.html(500).then(404, {"detail": "Not Found"}).then(404, {"detail": "Not Found"})
    assert client.monitors.delete("acme", 7) is True
    assert client.monitors.delete("acme", 7) is False


def test_a_delete_that_always_fails_is_reported(client, server):
    for _ in range(4):
        server.html(500)
    with pytest.raises(GlitchTipError, match="500"):
        client.monitors.delete("acme", 7)
    assert len(server.lines) == 4


# The resource


def test_a_list_that_a_monitor_of_an_unknown_type_breaks_says_the_way_out(client, server):
    server.html(500).html(500)
    with pytest.raises(
        GlitchTipError, match="a monitor of an unknown type breaks the list; delete it by its id"
    ):
        client.monitors.list("acme")


def test_another_failure_of_the_list_is_not_blamed_on_a_monitor(client, server):
    server.then(403, {"detail": "Permission denied"})
    with pytest.raises(GlitchTipError) as refused:
        client.monitors.list("acme")
    assert "unknown type" not in str(refused.value)


def test_checks_can_be_those_that_found_a_change(client, server):
    check = {"isUp": False, "startCheck": "2026-11-21T02:00:00.000Z", "reason": 2, "responseTime": 3}
    server.then(200, [check]).then(200, [])
    assert list(client.monitors.checks("acme", 7, is_change=True)) == [check]
    assert list(client.monitors.checks("acme", 7)) == []
    assert "is_change=true" in server.lines[0]
    assert "is_change" not in server.lines[1]


def test_a_missing_monitor_is_none(client, server):
    server.then(404, {"detail": "Not Found"})
    assert client.monitors.get("acme", 7) is None


@pytest.mark.parametrize(("endpoint", "owner"), [(ENDPOINT, None), (ENDPOINT_ID, "acme"), (ENDPOINT, "acme")])
def test_a_heartbeat_goes_to_this_server_and_needs_no_token(server, endpoint, owner):
    server.then(200, {"is_up": True, "start_check": "2026-11-21T02:00:00.000Z", "reason": None})
    assert Client(server.url).monitors.heartbeat(endpoint, owner)["is_up"] is True
    assert server.lines == [f"POST /api/0/organizations/acme/heartbeat_check/{ENDPOINT_ID}/"]
    assert "authorization" not in server.asked[0].headers


@pytest.mark.parametrize("endpoint", ["", "acme", ENDPOINT_ID, "https://errors.example.org/", ENDPOINT + "x"])
def test_what_is_no_heartbeat_endpoint_is_refused_and_not_repeated(client, server, endpoint):
    with pytest.raises(InvalidError, match="a heartbeat endpoint is the address") as refused:
        client.monitors.heartbeat(endpoint)
    assert ENDPOINT_ID not in str(refused.value)
    assert server.lines == []


def test_a_failed_heartbeat_does_not_tell_its_address(client, server):
    server.then(404, {"detail": "Not Found"})
    with pytest.raises(GlitchTipError) as failed:
        client.monitors.heartbeat(ENDPOINT)
    assert failed.value.status == 404
    assert ENDPOINT_ID not in str(failed.value) + str(failed.value.as_dict())


@pytest.mark.parametrize(("version", "longest"), [("5.2.0", 32767), ("6.2.6", 86400)])
def test_a_server_that_is_known_takes_the_intervals_of_its_line(version, longest):
    api = FakeApi("5.2" if version == "5.2.0" else "6.2")
    client = api.client()
    ensure_organization(client, "Acme")
    assert client.version() == version
    options = {"type": "Ping", "url": "https://www.example.org/"}
    made = ensure_monitor(client, "acme", "site", interval=longest, **options)
    assert made.after["interval"] == longest
    with pytest.raises(InvalidError, match=f"interval is 1 to {longest} seconds"):
        ensure_monitor(client, "acme", "other", interval=longest + 1, **options)
    assert ensure_monitor(api.client(), "acme", "site", timeout=7).after["interval"] == longest
