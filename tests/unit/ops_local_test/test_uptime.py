"""The monitor's part: a real target and receiver, a server that checks and alerts, and everything is removed."""

from __future__ import annotations

import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from unit.ops_local_test.support import Clock, Stack, refused

from glitchtip_api import GlitchTipError
from glitchtip_ops.local_test.target import Target, gateway, listening_address
from glitchtip_ops.local_test.uptime import STEPS, Site, UptimeLimits, UptimeResult, UptimeTest
from glitchtip_ops.process import OpsError


def ask(url: str, body: bytes | None = None) -> int:
    """The status of a GET, or of a POST with a body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


class Server:
    """A GlitchTip that checks the monitor whenever it is asked about it, and alerts when it changes."""

    def __init__(self) -> None:
        self.monitor: dict[str, Any] | None = None
        self.rules: list[dict[str, Any]] = []
        self.silent = False
        self.checking = True
        self.reason: int | None = None
        self.fails: dict[str, GlitchTipError] = {}
        self.alerts = SimpleNamespace(create=self._rule, list=self._rules, delete=self._delete_rule)
        self.monitors = SimpleNamespace(
            create=self._create, get=self._get, list=self._list, delete=self._delete_monitor
        )

    def _may(self, what: str) -> None:
        if what in self.fails:
            raise self.fails[what]

    def _rule(self, _: str, __: str, body: dict[str, Any]) -> dict[str, Any]:
        self._may("before rule")
        self.rules.append({**body, "id": 3})
        self._may("rule")
        return self.rules[-1]

    def _rules(self, *_: str) -> list[dict[str, Any]]:
        return [{"id": 1, "name": "the team's own"}, *self.rules]

    def _delete_rule(self, _: str, __: str, rule: int) -> None:
        self._may("delete rule")
        self.rules = [entry for entry in self.rules if entry["id"] != rule]

    def _create(self, _: str, body: dict[str, Any]) -> dict[str, Any]:
        self._may("before monitor")
        self.monitor = {**body, "id": 5, "isUp": None, "checks": []}
        self._may("monitor")
        return self.monitor

    def _list(self, _: str) -> list[dict[str, Any]]:
        return [{"id": 2, "name": "the team's own"}, *([self.monitor] if self.monitor else [])]

    def _delete_monitor(self, _: str, monitor: int) -> None:
        self._may("delete monitor")
        assert monitor == 5
        self.monitor = None

    def _get(self, _: str, __: int) -> dict[str, Any] | None:
        if self.monitor is None or not self.checking:
            return self.monitor
        before = self.monitor["isUp"]
        up = self.reason is None and ask(self.monitor["url"]) == 200
        self.monitor = {**self.monitor, "isUp": up, "checks": [{"isUp": up, "reason": self.reason}]}
        if before not in (None, up) and not self.silent:
            text = "is back up" if up else "has gone down"
            told = f'{{"attachments": [{{"title": "{self.monitor["name"]}", "text": "The site {text}."}}]}}'
            assert ask(self.rules[0]["alertRecipients"][0]["url"], told.encode()) == 200
        return self.monitor


@pytest.fixture
def site() -> Iterator[Site]:
    served = Site("127.0.0.1")
    yield served
    served.close()


def walk(
    server: Server, site: Site, wait: float = 3.0, stopped: threading.Event | None = None
) -> UptimeResult:
    return UptimeTest(
        server,  # type: ignore[arg-type]
        "o",
        "p",
        "1",
        site,
        UptimeLimits(5, wait),
        stopped=stopped,
    ).run()


def test_a_whole_walk(site: Site) -> None:
    """Up, broken, alert, recovered, alert; the rule and the monitor bear one name, and both are gone."""
    server = Server()
    result = walk(server, site)
    assert (result.status, result.reason) == ("passed", "")
    assert tuple(step["step"] for step in result.steps) == STEPS
    assert result.problems() == []
    assert (server.monitor, server.rules) == (None, [])
    assert [server.reason, site.broken] == [None, False]
    assert result.as_dict(5)["interval_seconds"] == 5


def test_without_an_alert_it_fails_and_is_removed(site: Site) -> None:
    """The negative control: a server that notices but tells nobody."""
    server = Server()
    server.silent = True
    result = walk(server, site, wait=0.5)
    assert (result.status, result.reason) == ("failed", "step 'alert down' was not reached within 0.5 s")
    assert result.problems() == ["uptime failed: step 'alert down' was not reached within 0.5 s"]
    assert (server.monitor, server.rules) == (None, [])


def test_a_server_that_does_not_reach_us_is_not_run(site: Site) -> None:
    """Its checks say network error, and nobody ever came."""
    server = Server()
    server.reason = 5
    result = walk(server, site, wait=0.5)
    assert result.status == "not run"
    assert f"did not reach {site.base_url} within 0.5 s (network error): a firewall" in result.reason
    assert site.target_url not in result.reason
    assert (server.monitor, server.rules) == (None, [])


def test_no_check_at_all_is_a_failure_of_the_server(site: Site) -> None:
    """Then no beat runs there, and monitors watch nothing."""
    server = Server()
    server.checking = False
    result = walk(server, site, wait=0.3)
    assert result.status == "failed"
    assert "no check was made within 0.3 s" in result.reason


@pytest.mark.parametrize("what", ["rule", "monitor"])
@pytest.mark.parametrize("when", ["before ", ""])
@pytest.mark.parametrize(("status", "told"), [(403, "not run"), (422, "not run"), (500, "failed")])
def test_whatever_creation_answers_nothing_is_left(
    site: Site, what: str, when: str, status: int, told: str
) -> None:
    """Creation is not atomic: what was made in spite of an error is found by its name."""
    server = Server()
    server.fails[when + what] = refused(status)
    result = walk(server, site)
    assert result.status == told
    assert (server.monitor, server.rules, result.left_behind) == (None, [], [])


def test_what_cannot_be_removed_is_named(site: Site) -> None:
    """Both are tried, and neither is silently left."""
    server = Server()
    server.fails = {"delete monitor": refused(500), "delete rule": refused(403)}
    result = walk(server, site)
    assert result.status == "passed"
    assert len(result.left_behind) == 2
    assert [problem.split()[1:3] for problem in result.problems()] == [["the", "monitor"], ["the", "alert"]]


def test_a_stopped_test_removes_its_monitor(site: Site) -> None:
    """The run that failed elsewhere does not wait for the next check."""
    server = Server()
    server.checking = False
    stopped = threading.Event()
    stopped.set()
    result = walk(server, site, wait=60, stopped=stopped)
    assert result.reason == "the test was stopped"
    assert (server.monitor, server.rules) == (None, [])


def test_somebody_deletes_the_monitor_meanwhile(site: Site) -> None:
    """It is said, and the rule is removed all the same."""
    server = Server()
    server.monitors.get = lambda *_: None
    result = walk(server, site)
    assert "deleted by somebody else" in result.reason
    assert server.rules == []


def test_the_site_answers_only_on_its_secret_paths(site: Site) -> None:
    """Others get 404 and are counted neither as checks nor as alerts; a body without a length is refused."""
    assert (ask(site.base_url + "/"), ask(site.base_url + "/hook", b"x")) == (404, 404)
    assert (site.visits, site.alerts) == (0, [])
    assert ask(site.target_url) == 200
    site.broken = True
    assert ask(site.target_url) == 503
    assert site.visits == 2
    connection = http.client.HTTPConnection(urlsplit(site.hook_url).netloc, timeout=5)
    connection.putrequest("POST", urlsplit(site.hook_url).path)
    connection.putheader("Content-Length", "9999999999")
    connection.endheaders()
    assert connection.getresponse().status == 400
    assert site.alerts == []


@pytest.mark.parametrize(
    ("text", "up"),
    [
        ("N: The monitored site has gone down.", False),
        ("N: The monitored site is back up.", True),
        ("N: something else", None),
        ("M: The monitored site is back up.", None),
    ],
)
def test_an_alert_says_down_or_up(text: str, up: bool | None) -> None:
    """Of this monitor, in this direction, since then."""
    clock = Clock()
    site = Site("127.0.0.1", clock=clock)
    try:
        assert ask(site.hook_url, text.encode()) == 200
        assert [site.alert("N", direction, 999) is not None for direction in (True, False)] == [
            up is True,
            up is False,
        ]
        assert site.alert("N", bool(up), 1001) is None
    finally:
        site.close()


def test_a_port_that_is_taken_or_an_address_of_somebody_else_is_one_sentence(site: Site) -> None:
    """And says what to give instead."""
    with pytest.raises(OpsError, match=r"192.0.2.1 is no address of this machine .*\(--bind\)"):
        Site("192.0.2.1")
    with pytest.raises(OpsError, match="Address already in use"):
        Site("127.0.0.1", port=int(urlsplit(site.base_url).port or 0))


def test_behind_nat_the_server_gets_the_outer_name() -> None:
    """The address to listen on and the one to be reached are two things."""
    site = Site("127.0.0.1", reach="proof.example.org")
    try:
        assert site.target_url.startswith("http://proof.example.org:")
    finally:
        site.close()


@pytest.mark.parametrize(
    ("url", "asked", "address"),
    [
        ("http://127.0.0.1:8080", "", "127.0.0.1"),
        ("http://localhost:8080", "", "127.0.0.1"),
        ("https://errors.example.org", "", ""),
        ("https://errors.example.org", "198.51.100.7", "198.51.100.7"),
    ],
)
def test_where_to_listen_without_a_stack(url: str, asked: str, address: str) -> None:
    """A server of this machine comes over the loopback; another one only to an address that was given."""
    assert listening_address(Target(url, "o", "p", "t", "d"), None, asked) == address


def test_a_stack_reaches_the_gateway_of_its_network(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Docker tells it; a stack without containers has none."""
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "172.18.0.1 172.19.0.1 "\n')
    docker.chmod(0o755)
    stack = Stack()
    stack.docker = str(docker)
    assert gateway(stack) == "172.18.0.1"  # type: ignore[arg-type]
    target = Target("http://127.0.0.1:8081", "o", "p", "t", "d")
    assert listening_address(target, stack, "") == "172.18.0.1"  # type: ignore[arg-type]
    monkeypatch.setattr(Stack, "containers", lambda _: [])
    assert gateway(stack) == ""  # type: ignore[arg-type]
