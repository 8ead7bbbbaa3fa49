"""Uptime monitors: how they are kept, what is checked, heartbeats, and what is told to whom.

The monitors watch a site that the test runs beside the receiver. A monitor is checked about a second after it was
made or written, so most rules wait for that and not for the dispatcher.
"""

from __future__ import annotations

import datetime as dt
import itertools
import threading
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
import requests
from contract.server import wait_until

#: The first check comes after a second; a busy worker takes longer.
CHECK_SECONDS = 30
#: The dispatcher of the 5.2 line runs every ten seconds.
DISPATCH_SECONDS = 40
UPTIME = "source: 6.x, apps/uptime (67164191684)"
#: Nobody listens there.
NOBODY = "127.0.0.1:1"
HOUR = 3600


@dataclass
class Site:
    """What the monitors watch: ``/up`` says "all is well", ``/down-..`` and ``/slow`` what their names say."""

    url: str
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    latest: dict[str, float] = field(default_factory=dict)

    def idle(self, path):
        """Seconds since the latest request for a path."""
        return time.monotonic() - self.latest[path]

    def methods(self, path):
        return [method for method, where, _ in self.asked if where == path]


@pytest.fixture(scope="session")
def site(receiver):
    class Handler(BaseHTTPRequestHandler):
        def serve(self):
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            found.asked.append((self.command, self.path, dict(self.headers.items())))
            found.latest[self.path] = time.monotonic()
            if self.path == "/dropped":
                return
            if self.path == "/slow":
                time.sleep(3)
            body = b"all is well"
            self.send_response(302 if self.path == "/moved" else 500 if self.path in found.down else 200)
            self.send_header("Location", "/up")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = serve  # noqa: N815 - the names that the base class looks for

        def handle(self):
            try:
                super().handle()
            except OSError:  # a check that timed out has hung up
                self.close_connection = True

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    found = Site(f"http://{urlsplit(receiver.url).hostname}:{httpd.server_address[1]}", down={"/broken"})
    yield found
    httpd.shutdown()


@pytest.fixture(scope="session")
def path(organization):
    """Where the API has the monitors of the run's organization."""
    return f"/api/0/organizations/{organization}/monitors/"


def monitor(**changes):
    """A complete body; by default of a heartbeat, which checks nothing."""
    body = {
        "monitorType": "Heartbeat",
        "name": f"m {uuid.uuid4().hex[:6]}",
        "url": "",
        "expectedStatus": None,
    }
    return {**body, "expectedBody": "", "interval": HOUR, "timeout": None, **changes}


def watching(url, **changes):
    return monitor(**{"monitorType": "GET", "url": url, "expectedStatus": 200, "timeout": 2, **changes})


def remove(server, where):
    """Delete a monitor; repeated while a check of it is being stored."""
    return wait_until(lambda: server.call("DELETE", where).status_code in {204, 404}, 10)


@pytest.fixture
def make(server, path):
    """Make a monitor that is gone after the test."""
    made = []

    def create(body=None, **changes):
        made.append(server.post(path, body or monitor(**changes)))
        return made[-1]

    yield create
    for item in made:
        remove(server, f"{path}{item['id']}/")


@pytest.fixture
def local(server, make, site):
    """Make a monitor of the site, unless the server refuses private addresses."""

    def create(where="/up", **changes):
        body = watching(site.url + where, **changes)
        if server.line == "6.2":
            answer = server.call("POST", f"/api/0/organizations/{'nope-nope'}/monitors/", body)
            if answer.status_code == 422:
                pytest.skip(
                    "the server refuses private targets (GLITCHTIP_UPTIME_ALLOW_PRIVATE_IPS is off there)"
                )
        return make(body)

    return create


def refused(server, path, body, status, method="POST"):
    answer = server.call(method, path, body)
    assert answer.status_code == status, (body, answer.status_code, answer.text[:300])
    return answer.json()["detail"] if status == 422 else None


def checks(server, path, number, more=""):
    return server.get(f"{path}{number}/checks/{more}")


def checked(server, path, number, count=1, seconds=CHECK_SECONDS):
    """The checks of a monitor, newest first, as soon as there are so many."""
    found = wait_until(lambda: len(checks(server, path, number)) >= count, seconds)
    assert found, f"monitor {number} was not checked {count} times in {seconds} s"
    return checks(server, path, number)


def became(server, path, number, up, seconds=CHECK_SECONDS):
    where = f"{path}{number}/"
    assert wait_until(lambda: server.get(where)["isUp"] is up, seconds), (
        f"did not become {'up' if up else 'down'}"
    )
    return server.get(where)


# What is kept


def test_a_monitor_is_returned_with_everything_that_is_known_of_it(server, path, make, project):
    body = watching("https://www.example.org/", interval=HOUR, timeout=5, project=project.id)
    made = make(body)
    unknown = dict.fromkeys(
        ("environmentID", "isUp", "lastChange", "heartbeatEndpoint", "envName", "endpointID")
    )
    sent = {key: value for key, value in body.items() if key != "project"}
    project_keys = {"projectID": project.id, "projectName": project.name, "checks": []}
    own = {key: made[key] for key in ("id", "organizationID", "created")}
    extra = (
        {"confirmationThreshold": made["confirmationThreshold"]} if "confirmationThreshold" in made else {}
    )
    assert made == {**sent, **unknown, **project_keys, **own, **extra}
    assert isinstance(made["id"], int)
    assert isinstance(made["organizationID"], int)
    assert server.get(f"{path}{made['id']}/")["name"] == body["name"]


def test_the_same_name_twice_is_two_monitors_newest_first(server, path, make):
    ids = [make(name="twin")["id"] for _ in range(2)]
    assert [item["id"] for item in server.get(path) if item["name"] == "twin"] == ids[::-1]


def test_status_body_and_timeout_must_be_sent_though_they_may_be_empty(server, path, make):
    for method, where in (("POST", path), ("PUT", f"{path}{make()['id']}/")):
        detail = refused(server, where, {"name": "x"}, 422, method)
        assert [(item["type"], item["loc"][-1]) for item in detail] == [
            ("missing", "expectedBody"),
            ("missing", "expectedStatus"),
            ("missing", "timeout"),
        ]


def test_put_without_project_unlinks_it_and_without_interval_is_60(server, path, make, project):
    made = make(project=project.id)
    assert (made["projectID"], made["projectName"]) == (project.id, project.name)
    body = {key: value for key, value in monitor(name="less").items() if key not in {"interval", "project"}}
    changed = server.call("PUT", f"{path}{made['id']}/", body).json()
    assert (changed["projectID"], changed["projectName"], changed["interval"]) == (None, None, 60)
    assert changed["name"] == "less"


def test_patch_is_405(server, path, make):
    answer = server.call("PATCH", f"{path}{make()['id']}/", {"name": "x"})
    assert (answer.status_code, answer.text) == (405, "Method not allowed")


def test_a_missing_monitor_is_404_and_has_no_checks(server, path, make):
    where = f"{path}{make()['id']}/"
    assert remove(server, where)
    for method, body in (("GET", None), ("PUT", monitor()), ("DELETE", None)):
        answer = server.call(method, where, body)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"}), method
    assert server.get(f"{where}checks/") == []


def test_a_missing_organization_has_an_empty_list_but_takes_no_monitor(server):
    where = "/api/0/organizations/nope-nope/monitors/"
    assert server.get(where) == []
    assert server.call("POST", where, monitor()).status_code == 404


def test_monitors_need_no_scope_but_a_user(server, path, scoped):
    token = scoped("member:read")
    made = server.post(path, monitor(), token=token)
    assert server.call("PUT", f"{path}{made['id']}/", monitor(), token=token).status_code == 200
    assert server.call("DELETE", f"{path}{made['id']}/", token=token).status_code == 204
    assert server.call("GET", path, anonymous=True).status_code == 401


def test_the_project_is_an_id_as_text_and_an_unknown_one_is_dropped_silently(server, path, make, project):
    assert refused(server, path, monitor(project=int(project.id)), 422)[0]["type"] == "string_type"
    refused(server, path, monitor(project=project.slug), 500)
    assert make(project="999999999")["projectID"] is None


def test_an_empty_project_is_none_at_first_and_500_later(server, path, make):
    made = make(project="")
    assert made["projectID"] is None
    refused(server, f"{path}{made['id']}/", monitor(project=""), 500, "PUT")


def test_a_deleted_project_leaves_its_monitors_without_one(server, path, make, new_project):
    project = new_project()
    where = f"{path}{make(project=project.id)['id']}/"
    assert server.call("DELETE", project.path).status_code == 204
    assert wait_until(lambda: server.get(where)["projectID"] is None, 30)


@pytest.mark.line("6.2", provenance="document: notes on a live 6.2.6 (AndreyBegma); migration 0017")
def test_the_interval_is_1_to_86400(server, path, make):
    assert [make(interval=seconds)["interval"] for seconds in (1, 32768, 86400)] == [1, 32768, 86400]
    for interval in (0, -5, 86401):
        answer = server.call("POST", path, monitor(name="out of range", interval=interval))
        assert answer.status_code >= 400, interval
    assert "out of range" not in [item["name"] for item in server.get(path)]


@pytest.mark.line("6.2", provenance=f"{UPTIME}; seen on a live 6.2.6 by the pulumi provider's author")
def test_a_put_without_confirmation_threshold_sets_it_to_1(server, path, make):
    made = make(confirmationThreshold=3)
    where = f"{path}{made['id']}/"
    assert server.get(where)["confirmationThreshold"] == 3
    kept = server.call("PUT", where, monitor(confirmationThreshold=3)).json()
    lost = server.call("PUT", where, monitor()).json()
    assert [item["confirmationThreshold"] for item in (made, kept, lost)] == [3, 3, 1]


@pytest.mark.line("5.2")
def test_the_interval_is_at_most_32767_and_never_negative_else_500_and_nothing_is_stored(server, path, make):
    assert make(interval=32767)["interval"] == 32767
    for interval in (32768, 86400, -5):
        refused(server, path, monitor(name="out of range", interval=interval), 500)
    assert "out of range" not in [item["name"] for item in server.get(path)]


def test_the_timeout_is_1_to_60_or_null(server, path, make):
    assert [make(timeout=seconds)["timeout"] for seconds in (1, 60, None)] == [1, 60, None]
    for seconds, kind, limit in ((0, "greater_than_equal", {"ge": 1}), (61, "less_than_equal", {"le": 60})):
        detail = refused(server, path, monitor(timeout=seconds), 422)
        assert (detail[0]["type"], detail[0]["ctx"]) == (kind, limit)


def test_get_and_post_need_an_expected_status_and_ping_does_not(server, path, make):
    for kind in ("GET", "POST"):
        body = watching("https://www.example.org/", monitorType=kind, expectedStatus=None)
        assert refused(server, path, body, 422) == f"Expected status is required for {kind}"
    assert make(watching("https://www.example.org/", monitorType="Ping", expectedStatus=None))["id"]


def test_a_status_out_of_range_and_a_long_body_are_500_a_long_name_is_422(server, path):
    for changes in ({"expectedStatus": 99999}, {"expectedStatus": -1}, {"expectedBody": "x" * 2001}):
        refused(server, path, monitor(**changes), 500)
    detail = refused(server, path, monitor(name="x" * 201), 422)
    assert (detail[0]["type"], detail[0]["ctx"]) == ("string_too_long", {"max_length": 200})


@pytest.mark.parametrize(
    "url",
    [
        "http://web:8080/",
        "http://my_host.example.org/",
        "http://web.:80/",
        "http://a.b/",
        "http://1.2.3/",
        "http://192.0.2.256/",
        "127.0.0.1:80",
        "www.example.org",
        " http://www.example.org/",
        "http://www.example.org/a b",
    ],
)
def test_a_host_without_a_dot_or_with_an_underscore_and_an_incomplete_url_are_422(server, path, url):
    for kind in ("Ping", "GET", "POST"):
        assert refused(server, path, watching(url, monitorType=kind), 422) == "Invalid Url"


@pytest.mark.parametrize(
    "url",
    [
        "https://www.example.org",
        "HTTP://WWW.Example.org/",
        "http://www.example.org.:8080/",
        "https://user:word@www.example.org/a?b=c",
        "http://xn--bcher-kva.example.org/",
    ],
)
def test_a_url_is_kept_as_it_is(make, url):
    assert make(watching(url))["url"] == url


def test_http_and_ssl_need_a_url_and_a_heartbeat_takes_none(server, path, make):
    for kind in ("Ping", "GET", "POST", "SSL"):
        body = watching("", monitorType=kind)
        assert refused(server, path, body, 422) == f"URL is required for {kind}"
    assert make(monitorType="Heartbeat", url=None)["url"] == ""


def test_a_port_is_kept_as_host_and_port_in_lower_case(server, path, make):
    for given, kept in (("DB:5432", "db:5432"), ("http://db:5432/x", "db:5432"), ("//db:80", "db:80")):
        assert make(monitorType="TCP Port", url=given)["url"] == kept
    for url in ("db", "db:", "db:0", "db:99999", "https://db:443"):
        body = monitor(monitorType="TCP Port", url=url)
        assert refused(server, path, body, 422) == "Invalid Port URL, expected hostname and port"


@pytest.mark.line(
    "6.2",
    provenance="source: apps/uptime/schema.py of a 6.x fork of the backend (creator-signal, 16ee1b5c)",
)
@pytest.mark.parametrize("kind", ["GET", "TCP Port"])
def test_a_private_target_is_refused_unless_the_server_allows_them(server, path, kind):
    body = watching("10.0.0.1:80" if kind == "TCP Port" else "http://10.0.0.1/", monitorType=kind)
    answer = server.call("POST", path, body)
    if answer.status_code == 201:
        remove(server, f"{path}{answer.json()['id']}/")
        pytest.skip("this server allows private targets (GLITCHTIP_UPTIME_ALLOW_PRIVATE_IPS)")
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "URLs targeting private/internal IPs are not allowed",
    )


# Checks


def test_a_new_monitor_is_checked_within_seconds_and_again_when_it_is_written(server, path, local, site):
    made = local("/up")
    first = checked(server, path, made["id"])[0]
    assert {key: first[key] for key in ("isUp", "reason")} == {"isUp": True, "reason": None}
    assert isinstance(first["responseTime"], int)
    assert server.call("PUT", f"{path}{made['id']}/", watching(f"{site.url}/up")).status_code == 200
    assert len(checked(server, path, made["id"], 2)) == 2


def test_a_monitor_shows_its_state_since_when_and_its_checks(server, path, local):
    made = local("/up")
    check = checked(server, path, made["id"])[0]
    alone = server.get(f"{path}{made['id']}/")
    among = next(item for item in server.get(path) if item["id"] == made["id"])
    assert (alone["isUp"], alone["checks"]) == (True, [check])
    assert among["checks"] == [{key: check[key] for key in ("isUp", "startCheck", "reason")}]
    since = dt.datetime.fromisoformat(alone["lastChange"])
    assert alone["lastChange"].endswith("Z")
    assert abs(since - dt.datetime.fromisoformat(check["startCheck"])) < dt.timedelta(milliseconds=1)


FAILURES = [
    ("a wrong status", "/broken", {}, 2),
    ("a body without the text", "/up", {"expectedBody": "all is lost"}, 3),
    ("a refused connection", f"http://{NOBODY}/", {}, 5),
    ("an answer after the timeout", "/slow", {"timeout": 1}, 1),
    ("no TLS where https was said", "https", {}, 4),
    ("a port where nobody listens", NOBODY, {"monitorType": "TCP Port"}, 0),
]


@pytest.mark.parametrize(
    ("where", "changes", "reason"), [case[1:] for case in FAILURES], ids=[c[0] for c in FAILURES]
)
def test_a_failed_check_says_why(server, path, local, make, site, where, changes, reason):
    if where.startswith("/"):
        made = local(where, **changes)
    else:
        local()  # tells whether the server takes private targets
        made = make(watching(site.url.replace("http", "https", 1) if where == "https" else where, **changes))
    check = checked(server, path, made["id"])[0]
    assert (check["isUp"], check["reason"]) == (False, reason)
    assert (check["responseTime"] is None) == (reason not in {2, 3})


@pytest.mark.line("5.2")
def test_a_connection_that_is_dropped_without_an_answer_has_no_known_reason(server, path, local):
    check = checked(server, path, local("/dropped")["id"])[0]
    assert (check["isUp"], check["reason"]) == (False, 0)


def test_a_body_with_the_text_is_up(server, path, local):
    assert checked(server, path, local("/up", expectedBody="is well")["id"])[0]["isUp"] is True


def test_ping_sends_head_and_takes_any_answer_for_up(server, path, local, site):
    site.down.add("/any")
    made = local("/any", monitorType="Ping")
    assert checked(server, path, made["id"])[0]["isUp"] is True
    assert site.methods("/any") == ["HEAD"]


def test_post_sends_post_and_says_who_asks(server, path, local, site):
    made = local("/posted", monitorType="POST")
    assert checked(server, path, made["id"])[0]["isUp"] is True
    assert site.methods("/posted") == ["POST"]
    headers = next(headers for _, where, headers in site.asked if where == "/posted")
    assert headers["User-Agent"].startswith("GlitchTip/")


def test_get_follows_a_redirect(server, path, local):
    assert checked(server, path, local("/moved")["id"])[0]["isUp"] is True


def test_an_open_port_is_up(server, path, local, make, site):
    local()
    made = make(watching(site.url.removeprefix("http://"), monitorType="TCP Port"))
    assert checked(server, path, made["id"])[0]["isUp"] is True


def test_ssl_is_always_down_and_gives_no_reason(server, path, make):
    made = make(watching("https://www.example.org/", monitorType="SSL"))
    check = checked(server, path, made["id"])[0]
    assert (check["isUp"], check["reason"]) == (False, None)


def test_is_change_picks_the_checks_that_found_another_state(server, path, local, site):
    where = f"/changes-{uuid.uuid4().hex[:6]}"
    made = local(where)
    checked(server, path, made["id"])
    for count, down in ((2, False), (3, True)):
        (site.down.add if down else site.down.discard)(where)
        server.call("PUT", f"{path}{made['id']}/", watching(site.url + where))
        checked(server, path, made["id"], count)
    assert [item["isUp"] for item in checks(server, path, made["id"], "?is_change=true")] == [False, True]
    assert [item["isUp"] for item in checks(server, path, made["id"], "?is_change=false")] == [True]
    answer = server.call("GET", f"{path}{made['id']}/checks/?is_change=maybe")
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "bool_parsing")


def test_an_interval_of_a_second_is_kept_to_the_second(server, path, local):
    made = local("/often", interval=1)
    found = checked(server, path, made["id"], 6, DISPATCH_SECONDS)[:4]
    times = [dt.datetime.fromisoformat(item["startCheck"]) for item in found]
    gaps = [(later - earlier).total_seconds() for later, earlier in itertools.pairwise(times)]
    assert all(0.3 < gap < 2.6 for gap in gaps), gaps


# Heartbeats


def test_a_heartbeat_monitor_has_an_address_that_takes_a_post_from_everyone(server, path, make, organization):
    made = make()
    endpoint = urlsplit(made["heartbeatEndpoint"])
    assert endpoint.path == f"/api/0/organizations/{organization}/heartbeat_check/{made['endpointID']}/"
    answer = requests.post(server.url + endpoint.path, timeout=40)
    assert (answer.status_code, set(answer.json())) == (200, {"is_up", "start_check", "reason"})
    assert (answer.json()["is_up"], answer.json()["reason"]) == (True, None)
    shown = server.get(f"{path}{made['id']}/")
    assert shown["isUp"] is True
    assert [item["startCheck"] for item in shown["checks"]] == [answer.json()["start_check"]]


def test_every_heartbeat_is_kept_and_only_the_first_is_a_change(server, path, make):
    made = make()
    endpoint = urlsplit(made["heartbeatEndpoint"]).path
    starts = [server.call("POST", endpoint, anonymous=True).json()["start_check"] for _ in range(2)]
    assert [item["startCheck"] for item in checks(server, path, made["id"])] == starts[::-1]
    assert [item["startCheck"] for item in checks(server, path, made["id"], "?is_change=true")] == starts[:1]


def test_a_heartbeat_by_get_is_405_and_an_unknown_one_404(server, make, organization):
    endpoint = urlsplit(make()["heartbeatEndpoint"]).path
    answer = server.call("GET", endpoint)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    unknown = f"/api/0/organizations/{organization}/heartbeat_check/{uuid.uuid4()}/"
    for where in (unknown, endpoint.replace(f"/{organization}/", "/nope-nope/")):
        answer = server.call("POST", where, anonymous=True)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_only_a_heartbeat_gets_an_address_and_keeps_it_when_it_becomes_something_else(server, path, make):
    assert make(watching("https://www.example.org/"))["heartbeatEndpoint"] is None
    made = make()
    body = watching("https://www.example.org/")
    changed = server.call("PUT", f"{path}{made['id']}/", body).json()
    assert (changed["monitorType"], changed["heartbeatEndpoint"]) == ("GET", made["heartbeatEndpoint"])


# What is told


def uptime_rule(server, project, *recipients, uptime=True):
    rows = [{"recipientType": kind, "url": url} for kind, url in recipients]
    more = {} if uptime else {"quantity": 1, "timespanMinutes": 5}
    body = {"name": "uptime", "uptime": uptime, "alertRecipients": rows, **more}
    return server.post(f"{project.path}alerts/", body)


DOWN, UP = "The monitored site has gone down.", "The monitored site is back up."


def texts(receiver, path):
    """What the messages on a path said, in the order in which they came."""
    return [item["body"]["attachments"][0]["text"] for item in receiver.on(path)]


def webhook_body(name, link, text):
    nothing = dict.fromkeys(("image_url", "color", "fields", "mrkdown_in"))
    return {
        "alias": "GlitchTip",
        "text": "GlitchTip Uptime Alert",
        "attachments": [{"title": name, "title_link": link, "text": text, **nothing}],
        "sections": [{"activityTitle": name, "activitySubtitle": text}],
    }


@pytest.mark.six("source: 6.x, apps/alerts/webhooks.py (d981936); payload contract of app-sre/glitchtip")
def test_going_down_and_coming_back_is_told_to_every_kind_of_recipient(
    server, path, local, site, new_project, receiver
):
    project, mark = new_project(), uuid.uuid4().hex[:8]
    kinds = {"webhook": f"/general-{mark}", "discord": f"/discord-{mark}", "googlechat": f"/chat-{mark}"}
    uptime_rule(server, project, *((kind, receiver.url + where) for kind, where in kinds.items()))
    where = f"/told-{mark}"
    made = local(where, name=f"site {mark}", project=project.id)
    became(server, path, made["id"], True)
    # The 6.2 line may report the first result, too.
    told = 1 if server.line == "6.2" and wait_until(lambda: receiver.on(kinds["webhook"]), 5) else 0
    for count, text in ((told + 1, DOWN), (told + 2, UP)):
        (site.down.add if text == DOWN else site.down.discard)(where)
        body = watching(site.url + where, name=f"site {mark}", project=project.id)
        server.call("PUT", f"{path}{made['id']}/", body)
        general = receiver.nth(kinds["webhook"], count, CHECK_SECONDS)
        link = general["body"]["attachments"][0]["title_link"]
        assert urlsplit(link).path == f"/{project.organization}/uptime-monitors/{made['id']}"
        expected = webhook_body(f"site {mark}", link, text)
        if server.line == "5.2":
            assert general["body"] == expected
        else:
            attachment = {"title": f"site {mark}", "title_link": link, "text": text}
            assert general["body"] == {"text": expected["text"], "attachments": [attachment]}
        discord = receiver.nth(kinds["discord"], count, CHECK_SECONDS)["body"]
        embed = {"title": f"site {mark}", "description": text, "color": None, "url": link, "fields": []}
        assert discord == {"content": "GlitchTip Uptime Alert", "embeds": [embed]}
        card = receiver.nth(kinds["googlechat"], count, CHECK_SECONDS)["body"]["cardsV2"][0]["card"]
        button = {"text": "View", "onClick": {"openLink": {"url": link}}}
        assert card == {
            "header": {"title": "GlitchTip Uptime Alert", "subtitle": f"site {mark}"},
            "sections": [{"widgets": [{"decoratedText": {"text": text, "button": button}}]}],
        }
    assert len(receiver.on(kinds["webhook"])) == told + 2


def test_a_rule_without_uptime_and_a_rule_of_another_project_are_told_nothing(
    server, path, local, site, new_project, receiver
):
    project, other, mark = new_project(), new_project(), uuid.uuid4().hex[:8]
    uptime_rule(server, project, ("webhook", f"{receiver.url}/without-{mark}"), uptime=False)
    uptime_rule(server, other, ("webhook", f"{receiver.url}/other-{mark}"))
    uptime_rule(server, project, ("webhook", f"{receiver.url}/fence-{mark}"))
    where = f"/quiet-{mark}"
    made = local(where, project=project.id)
    became(server, path, made["id"], True)
    site.down.add(where)
    server.call("PUT", f"{path}{made['id']}/", watching(site.url + where, project=project.id))
    receiver.first(f"/fence-{mark}", CHECK_SECONDS)
    assert receiver.on(f"/without-{mark}") + receiver.on(f"/other-{mark}") == []


@pytest.mark.line("5.2")
def test_a_monitor_that_is_down_from_its_first_check_on_is_not_told_until_it_was_up(
    server, path, local, site, new_project, receiver
):
    project, mark = new_project(), uuid.uuid4().hex[:8]
    uptime_rule(server, project, ("webhook", f"{receiver.url}/first-{mark}"))
    where = f"/dead-{mark}"
    site.down.add(where)
    made = local(where, project=project.id)
    became(server, path, made["id"], False)
    server.call("PUT", f"{path}{made['id']}/", watching(site.url + where, project=project.id))
    checked(server, path, made["id"], 2)
    site.down.discard(where)
    server.call("PUT", f"{path}{made['id']}/", watching(site.url + where, project=project.id))
    first = receiver.first(f"/first-{mark}", CHECK_SECONDS)
    assert first["body"]["attachments"][0]["text"] == UP


@pytest.mark.line("6.2", provenance=f"{UPTIME}; perhaps newer than 6.2.6")
@pytest.mark.parametrize(("state", "text"), [("up", UP), ("down", DOWN)])
def test_the_first_result_of_a_monitor_is_reported(local, site, new_project, receiver, server, state, text):
    project, mark = new_project(), uuid.uuid4().hex[:8]
    uptime_rule(server, project, ("webhook", f"{receiver.url}/first-{mark}"))
    if state == "down":
        site.down.add(f"/began-{mark}")
    local(f"/began-{mark}", project=project.id)
    assert receiver.first(f"/first-{mark}", CHECK_SECONDS)["body"]["attachments"][0]["text"] == text


@pytest.mark.line("6.2", provenance=f"{UPTIME}; perhaps newer than 6.2.6")
def test_a_monitor_is_down_after_so_many_failures_in_a_row_and_up_at_once(
    server, path, local, site, new_project, receiver
):
    project, mark = new_project(), uuid.uuid4().hex[:8]
    uptime_rule(server, project, ("webhook", f"{receiver.url}/confirmed-{mark}"))
    where = f"/flaky-{mark}"
    body = watching(site.url + where, project=project.id, confirmationThreshold=2)
    made = local(where, project=project.id, confirmationThreshold=2)
    checked(server, path, made["id"])
    site.down.add(where)
    for count in (2, 3):
        assert DOWN not in texts(receiver, f"/confirmed-{mark}")
        server.call("PUT", f"{path}{made['id']}/", body)
        checked(server, path, made["id"], count)
    assert wait_until(lambda: texts(receiver, f"/confirmed-{mark}")[-1:] == [DOWN], CHECK_SECONDS)
    site.down.discard(where)
    server.call("PUT", f"{path}{made['id']}/", body)
    assert wait_until(lambda: texts(receiver, f"/confirmed-{mark}")[-2:] == [DOWN, UP], CHECK_SECONDS)


def test_a_heartbeat_that_stays_away_goes_down_and_its_next_one_brings_it_back(
    server, path, make, new_project, receiver
):
    project, mark = new_project(), uuid.uuid4().hex[:8]
    uptime_rule(server, project, ("webhook", f"{receiver.url}/beat-{mark}"))
    made = make(interval=2, project=project.id)
    endpoint = urlsplit(made["heartbeatEndpoint"]).path
    server.call("POST", endpoint, anonymous=True)
    down = became(server, path, made["id"], False, DISPATCH_SECONDS)
    assert down["checks"][0]["reason"] is None
    # The 6.2 line may have reported the first heartbeat, too.
    assert wait_until(lambda: texts(receiver, f"/beat-{mark}")[-1:] == [DOWN], CHECK_SECONDS)
    assert server.call("POST", endpoint, anonymous=True).status_code == 200
    assert wait_until(lambda: texts(receiver, f"/beat-{mark}")[-2:] == [DOWN, UP], CHECK_SECONDS)
    if server.line == "5.2":
        assert texts(receiver, f"/beat-{mark}") == [DOWN, UP]


# What breaks more than itself


@pytest.fixture
def scratch(server):
    """An organization of its own, so that its broken list breaks no other rule."""
    slug = server.post("/api/0/organizations/", {"name": f"Contract broken {uuid.uuid4().hex[:8]}"})["slug"]
    yield f"/api/0/organizations/{slug}/monitors/"
    server.call("DELETE", f"/api/0/organizations/{slug}/")


@pytest.mark.destructive
def test_an_unknown_type_is_500_yet_stored_and_breaks_the_list_until_it_is_deleted_by_its_id(server, scratch):
    before = server.post(scratch, monitor())["id"]
    refused(server, scratch, monitor(monitorType="ICMP", url="10.0.0.1"), 500)
    after = server.call("GET", scratch).status_code
    numbers = [
        n for n in range(before + 1, before + 200) if server.call("GET", f"{scratch}{n}/").status_code == 500
    ]
    deleted = [server.call("DELETE", f"{scratch}{number}/").status_code for number in numbers]
    assert (after, deleted) == (500, [204])
    assert [item["id"] for item in server.get(scratch)] == [before]
    remove(server, f"{scratch}{before}/")


@pytest.mark.line("5.2")
@pytest.mark.destructive
def test_an_interval_of_0_stops_every_check_of_the_instance_until_it_is_deleted(
    server, path, local, site, scratch
):
    watched = local("/watched", interval=1)["id"]
    checked(server, path, watched, 4, DISPATCH_SECONDS)
    poison = server.post(scratch, monitor(interval=0))
    assert poison["interval"] == 0
    try:
        assert wait_until(lambda: site.idle("/watched") > 6, 25), "the checks went on"
    finally:
        removed = remove(server, f"{scratch}{poison['id']}/")
    assert removed
    assert wait_until(lambda: site.idle("/watched") < 3, DISPATCH_SECONDS), "the checks did not come back"
