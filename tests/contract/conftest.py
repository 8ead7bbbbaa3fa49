"""The rules of a GlitchTip server that this repository relies on, one test a rule.

The suite speaks plain HTTP, one connection a request, so that it depends on no client of ours, and it runs
alike on the stand-in and on a real server::

    pytest tests/contract --url http://127.0.0.1:8080 --email admin@example.org --password ...
    GLITCHTIP_URL=... GLITCHTIP_EMAIL=... GLITCHTIP_PASSWORD=... GLITCHTIP_LINE=6.2 pytest tests/contract

It makes an organization with a name of its own and removes it; nothing else is touched. The account must be
a superuser or may create organizations. Rules whose proof disturbs others (a project blocked for 30 s, a
login that is throttled) run with ``CONTRACT_DESTRUCTIVE=1`` only. Deliveries of alerts are checked when
``GLITCHTIP_RECEIVER`` names an address of this machine that the worker can reach.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests

LOGIN = "/_allauth/browser/v1/auth/login"
SESSION = "/_allauth/browser/v1/auth/session"
ALL_SCOPES = 65535
#: An event is visible within the 2 s batch of the worker; much more than that is a worker that does not work.
VISIBLE_SECONDS = 30.0


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("contract")
    group.addoption(
        "--url", default=os.environ.get("GLITCHTIP_URL"), help="the server, e.g. http://127.0.0.1:8080"
    )
    group.addoption(
        "--email", default=os.environ.get("GLITCHTIP_EMAIL"), help="account that may create organizations"
    )
    group.addoption(
        "--password", default=os.environ.get("GLITCHTIP_PASSWORD"), help="its password (better: environment)"
    )
    group.addoption("--line", default=os.environ.get("GLITCHTIP_LINE", "5.2"), choices=("5.2", "6.2"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "destructive: disturbs others for a while; needs CONTRACT_DESTRUCTIVE=1"
    )
    config.addinivalue_line("markers", "line(name): the rule holds on this line only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = config.getoption("--line")
    for item in items:
        wanted = item.get_closest_marker("line")
        if wanted and wanted.args[0] != here:
            item.add_marker(pytest.mark.skip(reason=f"a rule of the {wanted.args[0]} line"))
        if item.get_closest_marker("destructive") and os.environ.get("CONTRACT_DESTRUCTIVE") != "1":
            item.add_marker(pytest.mark.skip(reason="disturbs others; set CONTRACT_DESTRUCTIVE=1"))


@dataclass
class Server:
    """The server under test, asked with one connection a request and never following redirects."""

    url: str
    email: str
    password: str
    line: str
    token: str = ""
    cookies: dict[str, str] = field(default_factory=dict)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        anonymous: bool = False,
        headers: dict[str, str] | None = None,
        cookies: dict[str, str] | None = None,
        data: bytes | str | None = None,
    ) -> requests.Response:
        """One request; with the run's token unless it is anonymous or has cookies."""
        sent = dict(headers or {})
        if not anonymous and cookies is None:
            sent.setdefault("Authorization", f"Bearer {token or self.token}")
        return requests.request(
            method,
            self.url + path,
            json=body,
            data=data,
            headers=sent,
            cookies=cookies,
            timeout=40,
            allow_redirects=False,
        )

    def get(self, path: str, **options: Any) -> Any:
        """The JSON of a GET that must succeed."""
        answer = self.call("GET", path, **options)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:300])
        assert answer.headers["Content-Type"].startswith("application/json"), path
        return answer.json()

    def post(self, path: str, body: Any, status: int = 201, **options: Any) -> Any:
        """The JSON of a POST that must succeed."""
        answer = self.call("POST", path, body, **options)
        assert answer.status_code == status, (path, answer.status_code, answer.text[:300])
        return answer.json()

    def csrf(self) -> dict[str, str]:
        """Fresh cookies with a CSRF token."""
        return dict(requests.get(self.url + SESSION, timeout=40).cookies)

    def write(
        self, method: str, path: str, body: Any, cookies: dict[str, str], **headers: str
    ) -> requests.Response:
        """A session's write, with its CSRF header."""
        sent = {"X-CSRFToken": cookies.get("csrftoken", ""), **headers}
        return self.call(method, path, body, cookies=cookies, headers=sent)

    def login(self, email: str | None = None, password: str | None = None) -> requests.Response:
        """Log in, by default with the account of the run."""
        body = {"email": email or self.email, "password": password or self.password}
        return self.write("POST", LOGIN, body, self.csrf())

    def session(self) -> dict[str, str]:
        """Cookies of a logged-in session."""
        answer = self.login()
        assert answer.status_code == 200, answer.text[:300]
        return dict(answer.cookies)

    def make_token(self, cookies: dict[str, str], scopes: Any, label: str = "contract") -> dict[str, Any]:
        """A token; on the 6.x line scopes go in as the bit field."""
        answer = self.write("POST", "/api/0/api-tokens/", {"label": label, "scopes": scopes}, cookies)
        assert answer.status_code == 201, answer.text[:300]
        made: dict[str, Any] = answer.json()
        return made


@dataclass
class Project:
    """A project with its first key, and ways to send it events."""

    server: Server
    organization: str
    slug: str
    id: str
    name: str
    key: str

    @property
    def path(self) -> str:
        """Where the API has this project."""
        return f"/api/0/projects/{self.organization}/{self.slug}/"

    def event(self, text: str = "boom", **more: Any) -> dict[str, Any]:
        """An exception event with a unique id, in the shape that SDKs send."""
        frame = {
            "filename": "app/views.py",
            "function": "checkout",
            "module": "app.views",
            "lineno": 42,
            "context_line": "    raise ValueError()",
            "in_app": True,
        }
        return {
            "event_id": uuid.uuid4().hex,
            "timestamp": time.time(),
            "platform": "python",
            "level": "error",
            "exception": {
                "values": [{"type": "ValueError", "value": text, "stacktrace": {"frames": [frame]}}]
            },
            **more,
        }

    def envelope(
        self, event: dict[str, Any], *, header: dict[str, Any] | None = None, length: bool = True
    ) -> bytes:
        """An envelope with this event; ``header`` replaces the envelope header."""
        payload = json.dumps(event).encode()
        item: dict[str, Any] = {"type": "event"}
        if length:
            item["length"] = len(payload)
        first = {"event_id": event["event_id"]} if header is None else header
        return b"\n".join([json.dumps(first).encode(), json.dumps(item).encode(), payload, b""])

    def post(
        self, body: bytes | str, *, kind: str = "envelope", key: str | None = None, **headers: str
    ) -> requests.Response:
        """A raw ingest request with the key in the usual header."""
        auth = f"Sentry sentry_version=7, sentry_client=contract/1, sentry_key={key or self.key}"
        sent = {"X-Sentry-Auth": auth, **headers}
        return self.server.call("POST", f"/api/{self.id}/{kind}/", anonymous=True, headers=sent, data=body)

    def send(self, text: str = "boom", **more: Any) -> str:
        """Send an event by envelope; its id."""
        event = self.event(text, **more)
        answer = self.post(self.envelope(event))
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"id": event["event_id"]}
        return str(event["event_id"])

    def find(self, event_id: str) -> dict[str, Any] | None:
        """The stored event, or None."""
        answer = self.server.call("GET", f"{self.path}events/{event_id}/")
        assert answer.status_code in {200, 404}, answer.text[:300]
        return answer.json() if answer.status_code == 200 else None

    def await_event(self, event_id: str, seconds: float = VISIBLE_SECONDS) -> dict[str, Any]:
        """The event as soon as it is stored; fails when it is not in time."""
        found = wait_until(lambda: self.find(event_id), seconds)
        assert found is not None, f"event {event_id} is not visible after {seconds:.0f} s"
        return found

    def sent_and_stored(self, text: str = "boom", **more: Any) -> dict[str, Any]:
        """One event, as it was read back."""
        return self.await_event(self.send(text, **more))

    def all_stored(self, *texts: str, **more: Any) -> list[dict[str, Any]]:
        """Several events sent in one go, as they were read back."""
        return [self.await_event(number) for number in [self.send(text, **more) for text in texts]]

    def issue(self, number: str) -> dict[str, Any]:
        """An issue by its id."""
        found: dict[str, Any] = self.server.get(f"/api/0/issues/{number}/")
        return found


def wait_until(probe: Callable[[], Any], seconds: float = VISIBLE_SECONDS) -> Any:
    """The first truthy result of the probe, or the last one when the time is over."""
    end = time.monotonic() + seconds
    while True:
        found = probe()
        if found or time.monotonic() > end:
            return found
        time.sleep(0.2)


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> Iterator[Server]:
    """The server, with a session and a token that has every scope."""
    options = {name: pytestconfig.getoption(f"--{name}") for name in ("url", "email", "password")}
    missing = [f"--{name}" for name, value in options.items() if not value]
    if missing:
        pytest.exit(f"contract: {', '.join(missing)} (or GLITCHTIP_URL, _EMAIL, _PASSWORD) must be given", 2)
    url, line = options["url"].rstrip("/"), pytestconfig.getoption("--line")
    found = Server(url, options["email"], options["password"], line)
    found.cookies = found.session()
    token = found.make_token(found.cookies, ALL_SCOPES)
    found.token = token["token"]
    yield found
    found.write("DELETE", f"/api/0/api-tokens/{token['id']}/", None, found.cookies)


@pytest.fixture(scope="session")
def cookies(server: Server) -> dict[str, str]:
    """A logged-in session."""
    return server.cookies


@pytest.fixture(scope="session")
def organization(server: Server) -> Iterator[str]:
    """The slug of an organization that exists for this run only, with the team ``crew``."""
    slug = server.post("/api/0/organizations/", {"name": f"Contract {uuid.uuid4().hex[:8]}"})["slug"]
    server.post(f"/api/0/organizations/{slug}/teams/", {"slug": "crew"})
    yield str(slug)
    server.call("DELETE", f"/api/0/organizations/{slug}/")


@pytest.fixture(scope="session")
def new_project(server: Server, organization: str) -> Callable[..., Project]:
    """Make a project of the run's organization."""

    def make(name: str | None = None, platform: str | None = "python") -> Project:
        name = name or f"P {uuid.uuid4().hex[:8]}"
        made = server.post(
            f"/api/0/teams/{organization}/crew/projects/", {"name": name, "platform": platform}
        )
        keys = server.get(f"/api/0/projects/{organization}/{made['slug']}/keys/")
        key = uuid.UUID(keys[0]["public"]).hex
        return Project(server, organization, made["slug"], made["id"], made["name"], key)

    return make


@pytest.fixture(scope="session")
def project(new_project: Callable[..., Project]) -> Project:
    """The project that most rules share."""
    return new_project()


@pytest.fixture(scope="session")
def scoped(server: Server) -> Iterator[Callable[..., str]]:
    """Make a token with these scopes only."""
    made: dict[tuple[str, ...], dict[str, Any]] = {}
    levels = ("read", "write", "admin")
    order = [*(f"project:{level}" for level in levels), "project:releases"]
    order += [f"{kind}:{level}" for kind in ("team", "event", "org", "member") for level in levels]

    def make(*scopes: str) -> str:
        if scopes not in made:
            bits = sum(1 << order.index(scope) for scope in scopes)
            made[scopes] = server.make_token(server.cookies, bits, "scoped")
        return str(made[scopes]["token"])

    yield make
    for token in made.values():
        server.write("DELETE", f"/api/0/api-tokens/{token['id']}/", None, server.cookies)


@dataclass
class Receiver:
    """A webhook receiver: what came, by path; paths with ``fail`` answer 500."""

    url: str
    received: list[dict[str, Any]] = field(default_factory=list)

    def on(self, path: str) -> list[dict[str, Any]]:
        """What came to this path."""
        return [item for item in self.received if item["path"] == path]

    def first(self, path: str, seconds: float) -> dict[str, Any]:
        """The first message to this path; fails when none comes in time."""
        assert wait_until(lambda: self.on(path), seconds), (
            f"nothing was delivered to {path} in {seconds:.0f} s"
        )
        return self.on(path)[0]


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    address = os.environ.get("GLITCHTIP_RECEIVER")
    if not address:
        pytest.skip("GLITCHTIP_RECEIVER (an address of this machine that the worker reaches) is not set")
    found = Receiver("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            found.received.append({"path": self.path, "headers": headers, "body": json.loads(body)})
            self.send_response(500 if "fail" in self.path else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    found.url = f"http://{address}:{httpd.server_address[1]}"
    yield found
    httpd.shutdown()
