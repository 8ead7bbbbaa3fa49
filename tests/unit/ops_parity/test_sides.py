"""Reading a tracker: settings, paging, and one sentence for everything that can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from unit.ops.test_core import write_settings
from unit.ops_parity.support import START, WINDOW, event
from werkzeug import Request, Response

from glitchtip_ops import parity
from glitchtip_ops.parity import sides
from glitchtip_ops.parity.sides import SentrySettings, Side, load_sentry_settings, plain_http, sentry_client
from glitchtip_ops.process import OpsError

TOKEN = "sntryu_" + "c" * 64
PROJECT = "/api/0/projects/acme/shop/"


def write_sentry(directory: Path, token: str | None = TOKEN, **changes: Any) -> Path:
    """The files that role ops writes."""
    document = {"url": "https://sentry.example.org", "organization": "acme", "project": "shop", **changes}
    (directory / "sentry.json").write_text(json.dumps(document))
    if token is not None:
        (directory / "sentry-token").write_text(token)
    return directory


def side(server: HTTPServer, name: str = "Sentry") -> Side:
    """A side on a server of the test."""
    settings = SentrySettings(server.url_for("").rstrip("/"), "acme", "shop", token=TOKEN)
    client = sentry_client(settings)
    client.transport.sleep = lambda _seconds: None
    return Side(name, client, "acme", "shop")


# --- settings ---------------------------------------------------------------------------------------------


def test_settings_are_read_and_hide_the_token(tmp_path: Path) -> None:
    """The token has a file of its own."""
    found = load_sentry_settings(write_sentry(tmp_path, plan_ends="2026-12-31", cost_per_year=348))
    assert (found.url, found.organization, found.plan_ends) == (
        "https://sentry.example.org",
        "acme",
        "2026-12-31",
    )
    assert (found.token, found.cost_per_year) == (TOKEN, 348.0)
    assert TOKEN not in repr(found)


def test_missing_settings_say_which_variables_to_set(tmp_path: Path) -> None:
    """Nothing there at all, then no token, then an empty one."""
    with pytest.raises(OpsError, match=r"sentry\.json is missing.*ops_sentry_url"):
        load_sentry_settings(tmp_path)
    with pytest.raises(OpsError, match=r"sentry-token is missing.*ops_sentry_token"):
        load_sentry_settings(write_sentry(tmp_path, token=None))
    with pytest.raises(OpsError, match="sentry-token is empty"):
        load_sentry_settings(write_sentry(tmp_path, token="\n"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "one JSON object"),
        ('{"url": "https://x.example"}', "lacks organization, project"),
    ],
)
def test_damaged_settings_are_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    """Not a traceback."""
    (tmp_path / "sentry.json").write_text(content)
    with pytest.raises(OpsError, match=sentence):
        load_sentry_settings(tmp_path)


@pytest.mark.parametrize(
    ("url", "token"), [("sentry.example.org", TOKEN), ("https://x.example", "two words")]
)
def test_an_address_or_token_that_is_none_is_one_sentence(url: str, token: str) -> None:
    """And never shows the token."""
    with pytest.raises(OpsError, match="Sentry cannot be read") as caught:
        sentry_client(SentrySettings(url, "acme", "shop", token=token))
    assert token not in str(caught.value)


def test_plain_http_is_told_unless_it_stays_on_the_host() -> None:
    """A token on the wire."""
    assert plain_http("http://sentry.example.org:9000")
    assert not plain_http("https://sentry.example.org")
    assert not plain_http("http://127.0.0.1:9000")


def test_the_client_only_reads(httpserver: HTTPServer) -> None:
    """A write is refused before a socket is opened."""
    with pytest.raises(Exception, match="only reads"):
        side(httpserver).client.post(PROJECT, {})
    assert not httpserver.log


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "sentence"),
    [
        (401, {}, "Sentry refused the token in sentry-token .*wrong, revoked or expired"),
        (403, {}, "does not let this token read .*project:read, event:read and org:read"),
        (404, {}, "knows no project acme/shop"),
        (302, {"Location": "https://de.sentry.io/api/0/projects/acme/shop/"}, "redirects .*de.sentry.io"),
        (429, {"Retry-After": "1"}, "come back later"),
        (503, {}, "could not be read"),
    ],
)
def test_a_refusal_is_one_sentence(
    httpserver: HTTPServer, status: int, headers: dict[str, str], sentence: str
) -> None:
    """What was refused and what to do."""
    answer = Response(json.dumps({"detail": f"no {TOKEN}"}), status, headers, content_type="application/json")
    httpserver.expect_request(PROJECT).respond_with_response(answer)
    with pytest.raises(OpsError, match=sentence) as caught:
        side(httpserver).check()
    assert TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_redirect_is_not_followed_with_the_token(httpserver: HTTPServer) -> None:
    """The other host never hears of it."""
    httpserver.expect_request(PROJECT).respond_with_response(
        Response("{}", 302, {"Location": httpserver.url_for("/elsewhere/")}, content_type="application/json")
    )
    with pytest.raises(OpsError, match="not followed"):
        side(httpserver).check()
    assert [request.path for request, _ in httpserver.log] == [PROJECT]


def test_a_page_instead_of_json_is_no_project(httpserver: HTTPServer) -> None:
    """The address of the web pages, not of the API."""
    httpserver.expect_request(PROJECT).respond_with_data("<html>", content_type="text/html")
    with pytest.raises(OpsError, match="could not be read"):
        side(httpserver).check()


# --- lists ------------------------------------------------------------------------------------------------


def serve(
    server: HTTPServer, pages: list[list[dict[str, Any]]], headers: dict[str, str] | None = None
) -> list[Request]:
    """Pages with Sentry's own form of cursors; the requests that came."""
    seen: list[Request] = []

    def answer(request: Request) -> Response:
        seen.append(request)
        number = int(request.args.get("cursor", "0:0:0").split(":")[1]) // 100
        more = "true" if number + 1 < len(pages) else "false"
        link = (
            f'<https://sentry.example.org{request.path}?&cursor=0:0:1>; rel="previous"; results="false"; cursor="0:0:1",'
            f' <https://sentry.example.org{request.path}?&cursor=0:{(number + 1) * 100}:0>; rel="next";'
            f' results="{more}"; cursor="0:{(number + 1) * 100}:0"'
        )
        body = json.dumps(pages[number])
        return Response(body, 200, {"Link": link, **(headers or {})}, content_type="application/json")

    server.expect_request(f"{PROJECT}events/").respond_with_handler(answer)
    return seen


def test_pages_follow_sentrys_cursors_on_the_own_host(httpserver: HTTPServer) -> None:
    """Only the cursor of a link is taken, never its host; the window is asked for in UTC."""
    pages = [[event(number, second=900 - number) for number in range(part, part + 3)] for part in (0, 3, 6)]
    seen = serve(httpserver, pages, {"X-Sentry-Rate-Limit-Remaining": "1"})
    found = list(side(httpserver).events(WINDOW))
    assert [item["id"] for item in found] == [item["id"] for page in pages for item in page]
    assert [request.args.get("cursor") for request in seen] == [None, "0:100:0", "0:200:0"]
    assert seen[0].args["start"] == "2023-11-14T22:08:20"
    assert seen[0].args["end"] == "2023-11-14T23:18:20"
    assert all(request.headers["Authorization"] == f"Bearer {TOKEN}" for request in seen)


def test_reading_ends_with_the_first_event_before_the_window(httpserver: HTTPServer) -> None:
    """GlitchTip ignores start and end: older pages are not asked for."""
    pages = [[event(1), event(2, second=-100_000)], [event(3, second=-100_001)]]
    seen = serve(httpserver, pages)
    assert [item["id"] for item in side(httpserver).events(WINDOW)] == [event(1)["id"]]
    assert len(seen) == 1


def test_an_event_of_an_old_time_that_came_now_does_not_end_the_reading(httpserver: HTTPServer) -> None:
    """GlitchTip orders by the time of receipt; a clock that is wrong must not hide what follows."""
    late = event(1, second=-100_000, dateReceived=event(9, second=50)["dateCreated"])
    serve(httpserver, [[late, event(2, second=20)]])
    assert [item["id"] for item in side(httpserver).events(WINDOW)] == [event(2)["id"]]


def test_a_list_that_fails_half_way_is_no_short_list(httpserver: HTTPServer) -> None:
    """A comparison of half the events would be wrong."""
    pages = [[event(1)], [event(2)]]

    def answer(request: Request) -> Response:
        if "cursor" in request.args:
            return Response("{}", 403, content_type="application/json")
        link = '<https://s.example/?cursor=0:100:0>; rel="next"; results="true"'
        return Response(json.dumps(pages[0]), 200, {"Link": link}, content_type="application/json")

    httpserver.expect_request(f"{PROJECT}events/").respond_with_handler(answer)
    with pytest.raises(OpsError, match="list of events"):
        list(side(httpserver).events(WINDOW))


def test_the_level_is_a_tag_in_sentry_and_in_the_raw_form_in_glitchtip(httpserver: HTTPServer) -> None:
    """The raw form is asked for only where the tag is missing."""
    told, quiet = event(1), event(2)
    told["tags"].append({"key": "level", "value": "fatal"})
    for item in (told, quiet):
        item.pop("level")
        httpserver.expect_request(f"{PROJECT}events/{item['id']}/").respond_with_json(item)
    raw = f"/api/0/organizations/acme/issues/1/events/{quiet['id']}/json/"
    httpserver.expect_request(raw).respond_with_json({"level": "warning"})
    one = side(httpserver)
    assert (one.event(told["id"]) or {}).get("level") is None
    assert (one.event(quiet["id"]) or {})["level"] == "warning"
    assert [request.path for request, _ in httpserver.log].count(raw) == 1
    httpserver.expect_request(f"{PROJECT}events/{'0' * 32}/").respond_with_json({"detail": "Not Found"}, 404)
    assert one.event("0" * 32) is None


# --- the command ------------------------------------------------------------------------------------------


class Answers:
    """Both trackers on one server, told apart by the token."""

    def __init__(self, server: HTTPServer, mine: list[Any], other: list[Any]) -> None:
        self.mine, self.other = mine, other
        server.expect_request(PROJECT).respond_with_json({"id": "1"})
        server.expect_request(f"{PROJECT}events/").respond_with_handler(self.events)
        for item in mine:
            server.expect_request(f"{PROJECT}events/{item['id']}/").respond_with_json(item)

    def events(self, request: Request) -> Response:
        found = self.mine if TOKEN in request.headers["Authorization"] else self.other
        return Response(json.dumps(found), content_type="application/json")


@pytest.fixture
def settings(tmp_path: Path, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose two trackers are the test's server."""
    url = httpserver.url_for("").rstrip("/")
    write_settings(tmp_path, url=url, organization="acme", project="shop", state_dir=str(tmp_path / "state"))
    write_sentry(tmp_path, url=url)
    monkeypatch.setenv("GLITCHTIP_OPS_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr(parity, "now", lambda: float(START + 4000))
    return tmp_path


def run(*arguments: str) -> Any:
    """The command as the program runs it."""
    import argparse

    parser = argparse.ArgumentParser()
    parity.register(parser.add_subparsers())
    options = parser.parse_args(["parity", *arguments])
    return options.handler(options)


def test_the_command_keeps_its_result_beside_the_soaks(httpserver: HTTPServer, settings: Path) -> None:
    """JSON and Markdown, for its owner only; exit code 0 when equal."""
    found = event(1)
    found["tags"].append({"key": "level", "value": "error"})
    Answers(httpserver, [found], [found])
    outcome = run("--since", "2h")
    assert outcome.code == 0, outcome.lines
    kept = settings / "state" / "m1" / "parity.json"
    assert json.loads(kept.read_text()) == outcome.document
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.with_suffix(".md").read_text().startswith("# Parity")
    assert outcome.document["migration_id"] == "m1"
    assert TOKEN not in kept.read_text() + kept.with_suffix(".md").read_text() + "\n".join(outcome.lines)


def test_a_difference_and_an_empty_window_are_bad_answers(
    httpserver: HTTPServer, settings: Path, tmp_path: Path
) -> None:
    """Exit code 3 and one sentence; --result writes elsewhere."""
    answers = Answers(httpserver, [event(1)], [])
    outcome = run("--since", "2h", "--result", str(tmp_path / "out" / "x.json"))
    assert outcome.code == 3
    assert outcome.lines[0].startswith("different: 0.00 % of Sentry's events")
    assert (tmp_path / "out" / "x.md").exists()
    assert not (settings / "state" / "m1" / "parity.json").exists()
    answers.mine = []
    outcome = run("--since", "2h")
    assert (outcome.code, outcome.document["verdict"]) == (3, "empty")
    assert outcome.lines[0].startswith("empty: neither")


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("wrong", [("--top", "0"), ("--samples", "99"), ("--max-events", "1")])
def test_figures_that_make_no_sense_are_refused_before_anything_is_read(
    httpserver: HTTPServer, wrong: tuple[str, str]
) -> None:
    """One sentence with the bounds."""
    with pytest.raises(OpsError, match=f"{wrong[0]} is a number from"):
        run(*wrong)
    assert not httpserver.log


def test_a_failed_comparison_leaves_the_last_result_alone(httpserver: HTTPServer, settings: Path) -> None:
    """Nothing half-written."""
    kept = settings / "state" / "m1" / "parity.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    httpserver.expect_request(PROJECT).respond_with_json({}, 401)
    with pytest.raises(OpsError, match="refused"):
        run()
    assert kept.read_text() == "{}"


def test_requests_stay_below_what_sentry_allows() -> None:
    """60 a minute and one at a time for its list of events."""
    assert sides.REQUESTS_A_MINUTE is not None
    assert sides.REQUESTS_A_SECOND is not None
    assert (sides.REQUESTS_A_MINUTE < 60, sides.REQUESTS_A_SECOND < 5) == (True, True)
