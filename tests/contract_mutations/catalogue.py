"""The mutations: small ways in which a server could differ from the contract. Each has a rule that must notice.

A mutation is a function of a request (``on="request"``: it returns True after a change, or an answer of its
own) or of a request and its answer. ``first`` names where in the suite a rule is expected, so that this part
runs first; what goes unnoticed there is held against the whole suite.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from contract_mutations.proxy import Answer, Asked, OnAnswer, OnRequest

ENVELOPE = re.compile(r"/api/\d+/envelope/")
STORE = re.compile(r"/api/\d+/store/")
KEYS = re.compile(r"/api/0/projects/[^/]+/[^/]+/keys/")
KEY = re.compile(r"/api/0/projects/[^/]+/[^/]+/keys/[^/]+/")
PROJECT = re.compile(r"/api/0/projects/[^/]+/[^/]+/")
ALERTS = re.compile(r"/api/0/projects/[^/]+/[^/]+/alerts/(\d+/)?")
TEAMS = re.compile(r"/api/0/organizations/[^/]+/teams/")
MONITORS = re.compile(r"/api/0/organizations/[^/]+/monitors/(\d+/)?")
ISSUES = re.compile(r"/api/0/(projects|organizations)/.*/issues/")
ISSUE = re.compile(r"/api/0/issues/\d+/")
COMMENTS = re.compile(r"/api/0/issues/\d+/comments/")
TOKENS = "/api/0/api-tokens/"
LOGIN = "/_allauth/browser/v1/auth/login"
SESSION = "/_allauth/browser/v1/auth/session"


@dataclass(frozen=True)
class Mutation:
    """One way to be wrong. ``first`` are pytest's arguments for the part of the suite that should notice.

    ``short``: one of the few of the short form. ``destructive``: the rule that should notice is marked so.
    """

    name: str
    sentence: str
    first: tuple[str, ...]
    on_request: OnRequest | None = None
    on_answer: OnAnswer | None = None
    keep: bool = False
    short: bool = False
    destructive: bool = False


MUTATIONS: list[Mutation] = []


def mutation(
    file: str, rules: str = "", *, short: bool = False, keep: bool = False, destructive: bool = False
) -> Callable[[OnAnswer], OnAnswer]:
    """Register a change of answers; ``rules`` is an expression for ``pytest -k``."""

    def register(function: OnAnswer) -> OnAnswer:
        MUTATIONS.append(_mutation(function, file, rules, short, keep, destructive, on_answer=function))
        return function

    return register


def mutation_of_requests(
    file: str, rules: str = "", *, short: bool = False, destructive: bool = False
) -> Callable[[OnRequest], OnRequest]:
    """Register a change of requests, or an answer in the server's place."""

    def register(function: OnRequest) -> OnRequest:
        MUTATIONS.append(_mutation(function, file, rules, short, False, destructive, on_request=function))
        return function

    return register


def _mutation(
    function: Callable[..., Any],
    file: str,
    rules: str,
    short: bool,
    keep: bool,
    destructive: bool,
    **hook: Any,
) -> Mutation:
    name = function.__name__.replace("_", "-")
    sentence = (function.__doc__ or "").split("\n")[0].rstrip(".")
    arguments = (f"tests/contract/test_{file}.py", *(("-k", rules) if rules else ()))
    return Mutation(name, sentence, arguments, keep=keep, short=short, destructive=destructive, **hook)


def _is(asked: Asked, method: str, path: re.Pattern[str] | str) -> bool:
    matches = asked.path == path if isinstance(path, str) else path.fullmatch(asked.path)
    return asked.method == method and bool(matches)


def _changed(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """JSON with every object in it changed, the inner ones first."""
    if isinstance(value, dict):
        return change({key: _changed(inner, change) for key, inner in value.items()})
    if isinstance(value, list):
        return [_changed(inner, change) for inner in value]
    return value


# Conventions


@mutation("structure", "team", short=True)
def created_is_200(asked: Asked, answer: Answer) -> None:
    """A team is created with 200 instead of 201."""
    if _is(asked, "POST", TEAMS) and answer.status == 201 and "crew" not in asked.body.decode():
        answer.status = 200


@mutation("structure", "deleted")
def deleted_is_200(asked: Asked, answer: Answer) -> None:
    """Deleting answers 200 instead of 204."""
    if asked.method == "DELETE" and answer.status == 204:
        answer.status = 200
        answer.set("Content-Length", "0")


@mutation("conventions", "422")
def invalid_is_400(asked: Asked, answer: Answer) -> None:
    """A value that is refused answers 400 instead of 422."""
    if answer.status == 422 and asked.path.startswith("/api/0/"):
        answer.status = 400


@mutation("structure", "second_team")
def a_second_team_is_409(asked: Asked, answer: Answer) -> None:
    """A team slug that exists answers 409 instead of 500."""
    if _is(asked, "POST", TEAMS) and answer.status == 500:
        answer.status = 409


@mutation("conventions", "link", short=True)
def the_link_header_is_mended(_: Asked, answer: Answer) -> None:
    """The Link header is as RFC 8288 wants it."""
    link = answer.header("Link")
    if link.startswith("{'"):
        answer.set_header("Link", link.removeprefix("{'").removesuffix("'}"))


@mutation("conventions", "hits")
def no_hits(_: Asked, answer: Answer) -> None:
    """Lists come without X-Hits."""
    answer.set_header("X-Hits", None)


@mutation_of_requests("conventions", "cursor")
def the_cursor_is_ignored(asked: Asked) -> bool:
    """Every page is the first one."""
    kept = [pair for pair in asked.query if pair[0] != "cursor"]
    changed = kept != asked.query
    if changed:
        asked.query = kept
    return changed


@mutation_of_requests("conventions", "slash")
def a_missing_slash_is_forgiven(asked: Asked) -> bool:
    """A path without its slash is served as if it had one."""
    missing = asked.path.startswith("/api/0/org") and not asked.path.endswith("/")
    if missing:
        asked.target = asked.target.replace(asked.path, f"{asked.path}/", 1)
    return missing


@mutation_of_requests("conventions", "verb")
def patch_is_allowed(asked: Asked) -> Answer | None:
    """PATCH answers 200 with an empty object."""
    return Answer.of(200, {}) if asked.method == "PATCH" else None


@mutation("conventions", "unknown")
def unknown_paths_are_json(asked: Asked, answer: Answer) -> None:
    """A path that the API does not have answers 404 JSON instead of the app's page."""
    is_page = answer.status == 200 and answer.header("Content-Type").startswith("text/html")
    if asked.path.startswith("/api/0/") and is_page:
        answer.status = 404
        answer.set_json({"detail": "Not Found"})


@mutation("conventions", "401")
def nobody_is_403(asked: Asked, answer: Answer) -> None:
    """A request without a valid token answers 403 instead of 401."""
    if asked.path.startswith("/api/0/") and answer.status == 401:
        answer.status = 403


@mutation("alerts")
def answers_in_snake_case(asked: Asked, answer: Answer) -> None:
    """Answers about alert rules have snake_case keys."""
    if ALERTS.fullmatch(asked.path) and answer.status < 300 and answer.body:
        answer.set_json(
            _changed(answer.json(), lambda found: {_snake(key): value for key, value in found.items()})
        )


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", lambda match: f"_{match[1].lower()}", name)


@mutation("issues", "snake_case")
def event_lists_in_camel_case(asked: Asked, answer: Answer) -> None:
    """The list of an issue's events has camelCase keys."""
    if re.fullmatch(r"/api/0/issues/\d+/events/", asked.path) and answer.status == 200:
        answer.set_json(
            _changed(answer.json(), lambda found: {_camel(key): value for key, value in found.items()})
        )


def _camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


@mutation("connection", keep=True)
def some_connections_stay_open(_: Asked, answer: Answer) -> None:
    """Every second connection takes any number of requests, the others end after one."""
    answer.altered = True


# Login and tokens


@mutation("login", "second_login")
def a_second_login_is_200(asked: Asked, answer: Answer) -> None:
    """Logging in when one is logged in already answers 200 instead of 409."""
    if asked.path == LOGIN and answer.status == 409:
        answer.status = 200


@mutation("login", "logout")
def logout_is_200(asked: Asked, answer: Answer) -> None:
    """Logging out answers 200 instead of 401."""
    if _is(asked, "DELETE", SESSION):
        answer.status = 200


@mutation("login", "csrf")
def csrf_is_not_checked(asked: Asked, answer: Answer) -> None:
    """A session's write without a CSRF token answers 200."""
    if asked.path.startswith("/api/0/org") and answer.status == 403 and b"CSRF" in answer.body:
        answer.status = 200


@mutation("login", "list")
def tokens_are_listed_without_their_values(asked: Asked, answer: Answer) -> None:
    """The list of tokens does not show the tokens."""
    if _is(asked, "GET", TOKENS) and answer.status == 200:
        answer.set_json(
            [{key: value for key, value in token.items() if key != "token"} for token in answer.json()]
        )


@mutation("login", "scope or bit")
def scopes_in_another_order(asked: Asked, answer: Answer) -> None:
    """A new token shows its scopes in the opposite order."""
    if _is(asked, "POST", TOKENS) and answer.status == 201:
        made = answer.json()
        answer.set_json({**made, "scopes": made["scopes"][::-1]})


@mutation("login", "bearer")
def a_bearer_may_list_tokens(asked: Asked, answer: Answer) -> None:
    """A bearer token may list the account's tokens."""
    if _is(asked, "GET", TOKENS) and asked.header("Authorization") and answer.status == 401:
        answer.status = 200
        answer.set_json([])


# Structure


@mutation("structure", "dsn")
def the_dsn_names_another_project(asked: Asked, answer: Answer) -> None:
    """DSNs end in another project's number."""
    if KEYS.fullmatch(asked.path) and asked.method == "GET" and answer.status == 200:
        answer.set_json(_changed(answer.json(), lambda found: _with_dsn(found, lambda dsn: f"{dsn}0")))


@mutation("structure", "dsn")
def the_dsn_has_another_host(asked: Asked, answer: Answer) -> None:
    """The public DSN names another host."""
    if KEYS.fullmatch(asked.path) and asked.method == "GET" and answer.status == 200:

        def elsewhere(dsn: str) -> str:
            return re.sub(r"@[^/]+", "@elsewhere.example.org", dsn)

        answer.set_json(_changed(answer.json(), lambda found: _with_dsn(found, elsewhere)))


def _with_dsn(found: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    return {**found, "public": change(found["public"])} if "secret" in found else found


@mutation("structure", "key")
def changing_a_key_takes_effect(asked: Asked, answer: Answer) -> None:
    """PUT of a key changes its name."""
    names = asked.memory.setdefault("names", {})
    if _is(asked, "PUT", KEY):
        names[asked.path] = (asked.json() or {}).get("name")
    elif _is(asked, "GET", KEY) and asked.path in names and answer.status == 200:
        answer.set_json({**answer.json(), "name": names[asked.path]})


@mutation("structure", "deleted_project")
def a_deleted_project_stays_readable(asked: Asked, answer: Answer) -> None:
    """A deleted project can still be read."""
    gone = asked.memory.setdefault("gone", set())
    if _is(asked, "DELETE", PROJECT) and answer.status == 204:
        gone.add(asked.path)
    elif _is(asked, "GET", PROJECT) and asked.path in gone:
        answer.status = 200


@mutation("issues", "merge or shape")
def ids_are_numbers(asked: Asked, answer: Answer) -> None:
    """Ids that are texts come as numbers."""
    if (
        asked.path.startswith("/api/0/")
        and asked.method == "GET"
        and answer.body
        and answer.json() is not None
    ):
        answer.set_json(_changed(answer.json(), _with_number))


def _with_number(found: dict[str, Any]) -> dict[str, Any]:
    number = found.get("id")
    return {**found, "id": int(number)} if isinstance(number, str) and number.isdigit() else found


@mutation("structure", "scopes")
def scopes_are_not_checked(_: Asked, answer: Answer) -> None:
    """A token may do what it has no scope for."""
    if answer.status == 403 and b"Permission denied" in answer.body:
        answer.status = 200


@mutation("structure", "embed")
def projects_without_their_organization(asked: Asked, answer: Answer) -> None:
    """The list of all projects does not tell their organizations."""
    if _is(asked, "GET", "/api/0/projects/") and answer.status == 200:
        answer.set_json(
            [{key: value for key, value in item.items() if key != "organization"} for item in answer.json()]
        )


# Alerts


@mutation_of_requests("alerts", "identical_recipients or put")
def put_drops_the_recipients(asked: Asked) -> bool:
    """Recipients of a PUT are ignored, and the rule loses those that it has."""
    body = asked.json()
    drops = _is(asked, "PUT", ALERTS) and isinstance(body, dict) and bool(body.pop("alertRecipients", None))
    if drops:
        asked.set_body(json.dumps(body).encode())
    return drops


@mutation_of_requests("alerts", "put")
def put_keeps_the_recipients(asked: Asked) -> bool:
    """PUT without recipients keeps them."""
    lists = asked.memory.setdefault("lists", [])
    body = asked.json()
    if _is(asked, "POST", ALERTS) and isinstance(body, dict):
        lists.append(body.get("alertRecipients", []))
    keeps = (
        _is(asked, "PUT", ALERTS) and isinstance(body, dict) and "alertRecipients" not in body and bool(lists)
    )
    if keeps:
        asked.set_body(json.dumps({**body, "alertRecipients": lists[-1]}).encode())
    return keeps


@mutation("alerts", "tags_to_add", short=True)
def tags_to_add_are_returned(asked: Asked, answer: Answer) -> None:
    """Recipients are returned with their tagsToAdd."""
    if ALERTS.fullmatch(asked.path) and answer.status < 300 and answer.body:
        answer.set_json(
            _changed(
                answer.json(), lambda found: {**found, "tagsToAdd": []} if "recipientType" in found else found
            )
        )


@mutation("alerts", "tags")
def other_tags_are_taken(asked: Asked, answer: Answer) -> None:
    """Changing the tags of a recipient answers 200 instead of 500."""
    if _is(asked, "PUT", ALERTS) and answer.status == 500:
        answer.status = 200


@mutation("alerts", "newest")
def rules_oldest_first(asked: Asked, answer: Answer) -> None:
    """Alert rules are listed oldest first."""
    if _is(asked, "GET", ALERTS) and answer.status == 200:
        answer.set_json(answer.json()[::-1])


@mutation_of_requests("deliveries", "general_webhook", short=True)
def the_message_of_an_alert_is_altered(asked: Asked) -> Answer | bool | None:
    """Webhooks lose the colour of their attachments."""
    if asked.path.startswith("/relay/"):
        return _relayed(asked)
    changed = asked.body.replace(b'"url": "http://127.0.0.1:', f'"url": "{asked.own}/relay/'.encode())
    if b"alertRecipients" in asked.body and changed != asked.body:
        asked.set_body(changed)
        return True
    return None


def _relayed(asked: Asked) -> Answer:
    _, _, port, path = asked.path.split("/", 3)
    body = _changed(
        asked.json(), lambda found: {key: value for key, value in found.items() if key != "color"}
    )
    headers = {"Content-Type": asked.header("Content-Type")}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return Answer.of(answer.status, {})
    except urllib.error.HTTPError as error:
        return Answer.of(error.code, {})


# Issues


@mutation_of_requests("search", "search_language")
def the_query_is_ignored(asked: Asked) -> bool:
    """Lists of issues ignore what is searched for."""
    kept = [pair for pair in asked.query if pair[0] != "query"]
    ignored = bool(ISSUES.fullmatch(asked.path)) and asked.method == "GET" and kept != asked.query
    if ignored:
        asked.query = kept
    return ignored


@mutation_of_requests("search", "sort")
def the_order_is_ignored(asked: Asked) -> bool:
    """Lists of issues ignore how they shall be sorted."""
    kept = [pair for pair in asked.query if pair[0] != "sort"]
    ignored = bool(ISSUES.fullmatch(asked.path)) and kept != asked.query
    if ignored:
        asked.query = kept
    return ignored


@mutation("issues", "group or shape")
def counts_are_numbers(asked: Asked, answer: Answer) -> None:
    """The count of an issue is a number instead of a text."""
    if asked.method == "GET" and "/issues/" in asked.path and answer.json() is not None:
        answer.set_json(
            _changed(
                answer.json(),
                lambda found: (
                    {**found, "count": int(found["count"])} if isinstance(found.get("count"), str) else found
                ),
            )
        )


@mutation("issues", "comment", short=True)
def comments_oldest_first(asked: Asked, answer: Answer) -> None:
    """Comments are listed oldest first."""
    if _is(asked, "GET", COMMENTS) and answer.status == 200:
        answer.set_json(answer.json()[::-1])


@mutation_of_requests("issues", "status")
def a_status_is_not_kept(asked: Asked) -> Answer | None:
    """Resolving an issue answers 200 and changes nothing."""
    if _is(asked, "PUT", ISSUE) and (asked.json() or {}).get("status") == "resolved":
        return Answer.of(200, {"status": "resolved"})
    return None


@mutation("issues", "tags")
def tags_are_lost(asked: Asked, answer: Answer) -> None:
    """Events are shown without their tags."""
    if "/events/" in asked.path and answer.status == 200 and isinstance(answer.json(), dict):
        answer.set_json({**answer.json(), "tags": []})


@mutation("issues", "missing")
def a_missing_issue_is_empty(asked: Asked, answer: Answer) -> None:
    """An issue that does not exist answers 200 with an empty object."""
    if _is(asked, "GET", ISSUE) and answer.status == 404:
        answer.status = 200
        answer.set_json({})


# Ingest


@mutation_of_requests("ingest", "burst", short=True)
def one_event_in_fifty_is_lost(asked: Asked) -> Answer | None:
    """One event in fifty is answered 200 and thrown away."""
    if not (_is(asked, "POST", ENVELOPE) and asked.body.startswith(b'{"event_id"')):
        return None
    asked.memory["events"] = asked.memory.get("events", 0) + 1
    if asked.memory["events"] % 50:
        return None
    return Answer.of(200, {"id": json.loads(asked.body.split(b"\n")[0])["event_id"]})


@mutation("ingest", "key or dsn")
def a_wrong_key_is_401(asked: Asked, answer: Answer) -> None:
    """An envelope with a wrong key answers 401 instead of 403."""
    if ENVELOPE.fullmatch(asked.path) and answer.status == 403:
        answer.status = 401


def _refused_without_a_block(asked: Asked) -> Answer | None:
    """A wrong key is refused, but the project is not blocked for 30 s."""
    key = re.search(r"sentry_key=([0-9a-f]{32})", asked.header("X-Sentry-Auth"))
    is_wrong = ENVELOPE.fullmatch(asked.path) and key and key[1] not in asked.memory.setdefault("keys", set())
    return Answer.of(403, {"detail": "Denied"}) if is_wrong else None


def _keys_are_learnt(asked: Asked, answer: Answer) -> None:
    """Which keys are right, the server has told before."""
    if KEYS.fullmatch(asked.path) and answer.status < 300:
        found = re.findall(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", answer.body)
        asked.memory.setdefault("keys", set()).update(uuid.UUID(key.decode()).hex for key in found)


MUTATIONS.append(
    Mutation(
        "a-wrong-key-blocks-nobody",
        "A wrong key is refused, but the project is not blocked for 30 s",
        ("tests/contract/test_ingest.py", "-k", "blocks_the_project"),
        on_request=_refused_without_a_block,
        on_answer=_keys_are_learnt,
    )
)


@mutation("ingest", "four_forms")
def envelopes_are_answered_without_an_id(asked: Asked, answer: Answer) -> None:
    """An envelope is answered with an empty object."""
    if ENVELOPE.fullmatch(asked.path) and answer.status == 200 and asked.header("Authorization"):
        answer.set_json({})


@mutation_of_requests("issues", "level")
def levels_are_altered(asked: Asked) -> bool:
    """Warnings are stored as errors."""
    changed = asked.body.replace(b'"level": "warning"', b'"level": "error"  ')
    altered = _is(asked, "POST", ENVELOPE) and changed != asked.body
    if altered:
        asked.body = changed
    return altered


@mutation_of_requests("ingest", "stored_once")
def a_repeated_event_is_counted(asked: Asked) -> bool:
    """An event that comes twice by envelope is stored twice."""
    found = re.match(rb'\{"event_id": "([0-9a-f]{32})"\}', asked.body)
    if not (found and _is(asked, "POST", ENVELOPE)):
        return False
    seen = asked.memory.setdefault("seen", set())
    again = found[1] in seen
    seen.add(found[1])
    if again:
        asked.body = asked.body.replace(found[1], uuid.uuid4().hex.encode())
    return again


@mutation("ingest", "throttle")
def no_word_when_to_come_again(asked: Asked, answer: Answer) -> None:
    """A throttled request is refused without Retry-After."""
    if answer.status == 429 and ENVELOPE.fullmatch(asked.path):
        answer.set_header("Retry-After", None)


@mutation("ingest", "browser")
def browsers_are_not_let_in(asked: Asked, answer: Answer) -> None:
    """Ingest sends no header for browsers of other sites."""
    if ENVELOPE.fullmatch(asked.path):
        answer.set_header("Access-Control-Allow-Origin", None)


@mutation_of_requests("ingest", "compressed")
def compressed_events_are_lost(asked: Asked) -> Answer | None:
    """Compressed envelopes are answered 200 and thrown away."""
    is_lost = ENVELOPE.fullmatch(asked.path) and asked.header("Content-Encoding") == "deflate"
    return Answer.of(200, {}) if is_lost else None


@mutation("ingest", "number")
def a_project_that_is_no_number_is_json(asked: Asked, answer: Answer) -> None:
    """Ingest answers a project id that is no number with JSON instead of a page."""
    if asked.path == "/api/abc/envelope/":
        answer.set_json({"detail": "Not Found"})


# Uptime


@mutation_of_requests("monitors", "interval_of_0", destructive=True)
def an_interval_of_0_is_refused(asked: Asked) -> Answer | None:
    """A monitor with an interval of 0 is refused with 422."""
    if MONITORS.fullmatch(asked.path) and (asked.json() or {}).get("interval") == 0:
        return Answer.of(
            422, {"detail": [{"type": "greater_than", "loc": ["body", "payload", "interval"], "msg": ""}]}
        )
    return None


@mutation("monitors", "same_name or returned")
def monitors_oldest_first(asked: Asked, answer: Answer) -> None:
    """Monitors are listed oldest first."""
    if _is(asked, "GET", MONITORS) and answer.status == 200 and isinstance(answer.json(), list):
        answer.set_json(answer.json()[::-1])


@mutation_of_requests("monitors", "put")
def a_monitor_keeps_its_project(asked: Asked) -> bool:
    """PUT of a monitor without a project keeps it."""
    body = asked.json()
    if not (MONITORS.fullmatch(asked.path) and isinstance(body, dict)):
        return False
    if asked.method == "POST" and body.get("project"):
        asked.memory["project"] = body["project"]
    keeps = asked.method == "PUT" and "project" not in body and "project" in asked.memory
    if keeps:
        asked.set_body(json.dumps({**body, "project": asked.memory["project"]}).encode())
    return keeps
