"""A GlitchTip in memory, just large enough for the modules; its oddities are those of the real server."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest

PASSWORD = "canary-password-77"
PUBLIC = "http://localhost:9090"


class FakeGlitchTip:
    """Answers requests of the scripted server. `writes` lists the requests that were no GET."""

    def __init__(self, script: Any) -> None:
        self.script = script
        self.reply = type(script.then().replies.pop())
        script.answer = self.answer
        self.url = script.url
        self.tokens: list[dict[str, Any]] = []
        self.organizations: list[dict[str, Any]] = []
        self.teams: list[dict[str, Any]] = []
        self.projects: list[dict[str, Any]] = []
        self.keys: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        self.events: set[str] = set()
        self.worker = True
        self.extra_routes: list[tuple[str, str, Callable[..., Any]]] = []
        self._number = 0
        self.token = self.add_token("provisioning", ["org:admin"])["token"]

    @property
    def writes(self) -> list[str]:
        return [line for line in self.script.lines if not line.startswith("GET")]

    def number(self) -> int:
        self._number += 1
        return self._number

    def add_token(self, label: str, scopes: list[str]) -> dict[str, Any]:
        token = {
            "id": self.number(),
            "label": label,
            "scopes": scopes,
            "token": "canary" + uuid.uuid4().hex * 2,
        }
        self.tokens.insert(0, token)
        return token

    def answer(self, asked: Any) -> Any:
        path, _, _query = asked.path.partition("?")
        for method, pattern, handler in self.routes():
            found = re.fullmatch(pattern, path)
            if found and method == asked.method:
                if not self.allowed(asked, path):
                    return self.reply(401, {"detail": "Unauthorized"})
                try:
                    return self.done(handler(asked, *found.groups()), asked.method)
                except StopIteration:  # next() found nothing
                    return self.reply(404, {"detail": "Not Found"})
        return self.reply(200, raw=b"<!doctype html>", content_type="text/html")

    def done(self, data: Any, method: str) -> Any:
        if isinstance(data, self.reply):
            return data
        return self.reply({"POST": 201, "DELETE": 204}.get(method, 200), None if method == "DELETE" else data)

    def allowed(self, asked: Any, path: str) -> bool:
        if (
            path.startswith(("/_allauth/", "/api/settings/"))
            or path.endswith("/envelope/")
            or path == "/api/0/"
        ):
            return True
        if path.startswith("/api/0/api-tokens/"):
            return "sessionid=s1" in asked.headers.get("cookie", "")
        return self.bearer(asked) is not None

    def bearer(self, asked: Any) -> dict[str, Any] | None:
        given = asked.headers.get("authorization", "").removeprefix("Bearer ")
        return next((token for token in self.tokens if token["token"] == given), None)

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        org, project = r"/api/0/organizations/([^/]+)", r"/api/0/projects/([^/]+)/([^/]+)"
        return [
            *self.extra_routes,
            ("GET", "/api/settings/", lambda _a: {"version": "6.2.6"}),
            ("GET", "/api/0/", self.root),
            ("GET", "/_allauth/browser/v1/config", self.csrf),
            ("POST", "/_allauth/browser/v1/auth/login", self.login),
            ("DELETE", "/_allauth/browser/v1/auth/session", lambda _a: self.reply(401, {"status": 401})),
            ("GET", "/api/0/api-tokens/", lambda _a: self.tokens),
            ("POST", "/api/0/api-tokens/", self.create_token),
            ("DELETE", r"/api/0/api-tokens/(\d+)/", lambda _a, i: self.drop(self.tokens, id=int(i))),
            ("GET", "/api/0/organizations/", lambda _a: self.organizations),
            ("POST", "/api/0/organizations/", self.create_organization),
            ("DELETE", f"{org}/", lambda _a, o: self.drop(self.organizations, slug=o)),
            ("GET", f"{org}/teams/", lambda _a, o: self.under(o, self.teams)),
            ("POST", f"{org}/teams/", self.create_team),
            ("GET", "/api/0/teams/([^/]+)/([^/]+)/", lambda _a, o, t: self.one(self.teams, org=o, slug=t)),
            (
                "DELETE",
                "/api/0/teams/([^/]+)/([^/]+)/",
                lambda _a, o, t: self.drop(self.teams, org=o, slug=t),
            ),
            ("GET", f"{org}/projects/", lambda _a, o: self.under(o, self.projects)),
            ("POST", "/api/0/teams/([^/]+)/([^/]+)/projects/", self.create_project),
            ("GET", f"{project}/", lambda _a, o, p: self.one(self.projects, org=o, slug=p)),
            ("PUT", f"{project}/", self.put_project),
            ("DELETE", f"{project}/", lambda _a, o, p: self.drop(self.projects, org=o, slug=p)),
            ("GET", f"{project}/keys/", lambda _a, o, p: self.of_project(o, p, self.keys)),
            ("POST", f"{project}/keys/", self.create_key),
            ("DELETE", f"{project}/keys/([^/]+)/", lambda _a, _o, _p, k: self.drop(self.keys, id=k)),
            ("GET", f"{project}/alerts/", lambda _a, _o, p: [a for a in self.alerts if a["project"] == p]),
            ("POST", f"{project}/alerts/", self.create_alert),
            ("PUT", rf"{project}/alerts/(\d+)/", self.put_alert),
            ("DELETE", rf"{project}/alerts/(\d+)/", lambda _a, _o, _p, i: self.drop(self.alerts, id=int(i))),
            ("GET", f"{project}/events/([0-9a-f]+)/", self.event),
            ("POST", r"/api/(\d+)/envelope/", self.envelope),
        ]

    @staticmethod
    def one(things: list[dict[str, Any]], **want: Any) -> dict[str, Any]:
        return next(thing for thing in things if all(thing.get(key) == value for key, value in want.items()))

    def drop(self, things: list[dict[str, Any]], **want: Any) -> None:
        things.remove(self.one(things, **want))

    def under(self, organization: str, things: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.one(self.organizations, slug=organization)
        return [thing for thing in things if thing["org"] == organization]

    def of_project(
        self, organization: str, project: str, things: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        self.one(self.projects, org=organization, slug=project)
        return [thing for thing in things if thing["project"] == project]

    def free_slug(self, name: str, things: list[dict[str, Any]]) -> str:
        slug = name.lower().replace(" ", "-")
        return slug if all(thing["slug"] != slug for thing in things) else f"{slug}-2"

    def root(self, asked: Any) -> dict[str, Any]:
        token = self.bearer(asked)
        return {"version": "0", "user": token and {"id": "1"}, "auth": token}

    def csrf(self, _asked: Any) -> Any:
        return self.reply(200, {"status": 200}, headers={"Set-Cookie": "csrftoken=c1; Path=/"})

    def login(self, asked: Any) -> Any:
        if asked.headers.get("x-csrftoken") != "c1" or not asked.headers.get("referer"):
            return self.reply(403, raw=b"<h1>CSRF</h1>", content_type="text/html")
        if asked.json["password"] != PASSWORD:
            return self.reply(
                400, {"errors": [{"code": "email_password_mismatch", "message": "not correct"}]}
            )
        return self.reply(200, {"status": 200}, headers={"Set-Cookie": "sessionid=s1; Path=/"})

    def create_token(self, asked: Any) -> Any:
        from glitchtip_api.validate import SCOPES

        names = [scope for bit, scope in enumerate(SCOPES) if asked.json["scopes"] >> bit & 1]
        return self.add_token(asked.json["label"], names)

    def create_organization(self, asked: Any) -> dict[str, Any]:
        name = asked.json["name"]
        made = {"id": str(self.number()), "name": name, "slug": self.free_slug(name, self.organizations)}
        self.organizations.append(made)
        return made

    def create_team(self, asked: Any, organization: str) -> dict[str, Any]:
        self.under(organization, self.teams)
        made = {"id": str(self.number()), "slug": asked.json["slug"], "org": organization}
        self.teams.append(made)
        return made

    def create_project(self, asked: Any, organization: str, team: str) -> dict[str, Any]:
        self.one(self.teams, org=organization, slug=team)
        name = asked.json["name"]
        made = {"id": str(self.number()), "name": name, "slug": self.free_slug(name, self.projects)}
        made |= {"org": organization, "platform": asked.json.get("platform"), "eventThrottleRate": 0}
        self.projects.append({**made, "teams": [{"slug": team}]})
        self.add_key(made, "")
        return made

    def put_project(self, asked: Any, organization: str, slug: str) -> dict[str, Any]:
        project = self.one(self.projects, org=organization, slug=slug)
        assert "name" in asked.json
        project.update(asked.json)
        return {key: value for key, value in project.items() if key != "teams"}

    def add_key(self, project: dict[str, Any], name: str) -> dict[str, Any]:
        key = uuid.uuid4()
        made = {"id": str(key), "name": name, "public": str(key), "project": project["slug"]}
        made["dsn"] = {
            "public": f"{PUBLIC.replace('://', f'://{key.hex}@')}/{project['id']}",
            "security": key.hex,
        }
        self.keys.append(made)
        return made

    def create_key(self, asked: Any, organization: str, project: str) -> dict[str, Any]:
        return self.add_key(self.one(self.projects, org=organization, slug=project), asked.json["name"])

    def stored(self, body: dict[str, Any]) -> dict[str, Any]:
        from glitchtip_api.validate import normal_url

        recipients = [
            {
                "id": self.number(),
                "recipientType": r["recipientType"],
                "url": normal_url(r["url"]) if r["url"] else "",
            }
            for r in body.get("alertRecipients", [])
        ]
        scalars = {key: body[key] for key in ("name", "quantity", "timespanMinutes", "uptime") if key in body}
        return {**scalars, "alertRecipients": recipients}

    def create_alert(self, asked: Any, organization: str, project: str) -> dict[str, Any]:
        self.one(self.projects, org=organization, slug=project)
        empty = {"quantity": None, "timespanMinutes": None, "uptime": False}
        made = {"id": self.number(), "project": project, **empty, **self.stored(asked.json)}
        self.alerts.append(made)
        return made

    def put_alert(self, asked: Any, _organization: str, _project: str, number: str) -> dict[str, Any]:
        alert = self.one(self.alerts, id=int(number))
        alert.update(self.stored(asked.json))
        return alert

    def envelope(self, asked: Any, project: str) -> Any:
        key = re.search(r"sentry_key=([0-9a-f]{32})", asked.headers.get("x-sentry-auth", ""))
        known = [k for k in self.keys if key and k["dsn"]["security"] == key.group(1)]
        if not known or not known[0]["dsn"]["public"].endswith(f"/{project}"):
            return self.reply(403, {"detail": "Denied"})
        event_id = json.loads(asked.body.split(b"\n")[0])["event_id"]
        if self.worker:
            self.events.add(event_id)
        return self.reply(200, {"id": event_id})

    def event(self, _asked: Any, _organization: str, _project: str, event_id: str) -> Any:
        return {"eventID": event_id} if event_id in self.events else self.reply(404, {"detail": "Not Found"})


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules in this process repeat a refused connection without waiting."""
    monkeypatch.setattr("ansible.module_utils.glitchtip_api.transport.BACKOFF_SECONDS", 0.001)


@pytest.fixture
def glitchtip(scripted_server: Any) -> FakeGlitchTip:
    return FakeGlitchTip(scripted_server)


@pytest.fixture
def provisioned(glitchtip: FakeGlitchTip) -> FakeGlitchTip:
    """With organization acme, team backend and project shop."""
    glitchtip.organizations.append({"id": "11", "slug": "acme", "name": "Acme"})
    glitchtip.teams.append({"id": "12", "slug": "backend", "org": "acme"})
    project = {
        "id": "13",
        "name": "Shop",
        "slug": "shop",
        "org": "acme",
        "platform": "node",
        "eventThrottleRate": 0,
    }
    glitchtip.projects.append({**project, "teams": [{"slug": "backend"}]})
    glitchtip.add_key(project, "")
    return glitchtip
