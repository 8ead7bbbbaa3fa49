"""The server under test in plain HTTP: one connection a request, no redirect followed, no client of ours."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

LOGIN = "/_allauth/browser/v1/auth/login"
SESSION = "/_allauth/browser/v1/auth/session"
ORGANIZATIONS = "/api/0/organizations/"
TOKENS = "/api/0/api-tokens/"
ALL_SCOPES = 65535
#: A user may send 50 invitations in 300 s; runs of the suite that follow each other share that.
THROTTLED_SECONDS = 320
#: An event is visible within the 2 s batch of a worker that keeps up; the shipped settings store four a second.
VISIBLE_SECONDS = float(os.environ.get("CONTRACT_VISIBLE_SECONDS", "90"))
#: A tick of the alerts (60 s as shipped), the one before it when it was just missed, and the worker's batch.
DELIVERY_SECONDS = float(os.environ.get("CONTRACT_DELIVERY_SECONDS", "150"))


@dataclass(frozen=True)
class Journal:
    """What a run made and deleted on the server, one JSON line each: ``[what, kind, id]``.

    Several processes append to one file. It holds ids and slugs, nothing secret.
    """

    path: Path

    def note(self, method: str, where: str, answer: requests.Response) -> None:
        """Remember an organization or token that this answer made or deleted."""
        if method == "POST" and answer.status_code == 201 and where in {ORGANIZATIONS, TOKENS}:
            made = _object(answer)
            if where == ORGANIZATIONS and "slug" in made:
                self._append("made", "organization", made["slug"])
            elif where == TOKENS and "id" in made:
                self._append("made", "token", made["id"])
        elif method == "DELETE":
            for kind, prefix in (("organization", ORGANIZATIONS), ("token", TOKENS)):
                rest = where.removeprefix(prefix).strip("/")
                if where.startswith(prefix) and rest and "/" not in rest:
                    self._append("deleted", kind, rest)

    def _append(self, what: str, kind: str, number: object) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps([what, kind, str(number)]) + "\n")

    def of(self, what: str, kind: str) -> set[str]:
        """The ids of what was ``made`` or ``deleted`` of a kind (``organization``, ``token``)."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        rows = [json.loads(line) for line in lines]
        return {row[2] for row in rows if row[:2] == [what, kind]}


def _object(answer: requests.Response) -> dict[str, Any]:
    """The JSON object of an answer; an empty one when it is none."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@dataclass
class Server:
    """The server under test, asked with one connection a request and never following redirects.

    ``line`` is ``5.2`` or ``6.2``; ``token`` has every scope; ``cookies`` are those of a logged-in session.
    """

    url: str
    email: str
    password: str = field(repr=False)
    line: str
    token: str = field(default="", repr=False)
    cookies: dict[str, str] = field(default_factory=dict, repr=False)
    journal: Journal | None = None

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
        """One request; with the run's token unless it is anonymous or has cookies.

        An invitation of the run's account that comes too soon (50 in 5 minutes, earlier runs count) is sent again.
        """
        own = not anonymous and cookies is None and token is None
        sent = dict(headers or {})
        if not anonymous and cookies is None:
            sent.setdefault("Authorization", f"Bearer {token or self.token}")
        end = time.monotonic() + THROTTLED_SECONDS
        while True:
            answer = requests.request(
                method,
                self.url + path,
                json=body,
                data=data,
                headers=sent,
                cookies=cookies,
                timeout=40,
                allow_redirects=False,
            )
            throttled = own and (method, answer.status_code) == ("POST", 429) and path.endswith("/members/")
            if not throttled or time.monotonic() > end:
                break
            time.sleep(5)
        if self.journal:
            self.journal.note(method, path, answer)
        return answer

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

    def has_no_path(self, answer: requests.Response, status: int) -> bool:
        """Whether an answer says that the API does not have the path: on 5.2 a page with this status (measured), on
        6.2 JSON 404 ``Not found`` (source of a 6.x that may be newer than 6.2.6)."""
        if self.line == "6.2":
            return answer.status_code == 404 and _object(answer) == {"detail": "Not found"}
        kind = answer.headers["Content-Type"]
        return answer.status_code == status and kind.startswith("text/html")

    def csrf(self) -> dict[str, str]:
        """Fresh cookies with a CSRF token."""
        return dict(requests.get(self.url + SESSION, timeout=40).cookies)

    def write(
        self, method: str, path: str, body: Any, cookies: dict[str, str], **headers: str
    ) -> requests.Response:
        """A session's write, with its CSRF header and the Referer that https asks for."""
        sent = {"X-CSRFToken": cookies.get("csrftoken", ""), "Referer": f"{self.url}/", **headers}
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
        answer = self.write("POST", TOKENS, {"label": label, "scopes": scopes}, cookies)
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
        return found  # type: ignore[no-any-return]

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
