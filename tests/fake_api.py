"""An in-memory GlitchTip for tests of the client alone: no socket, a clock of its own, and answers that get lost.

It answers as FACTS of the 5.2 line were measured, and as the 6.x source has it, for what a configuration makes.
The stand-in (tests/standin) is the whole server, held to the contract suite; this is for thousands of cases.
"""

from __future__ import annotations

import copy
import datetime as dt
import email.utils
import json as jsonlib
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from glitchtip_api import Client
from glitchtip_api.connections import Answer
from glitchtip_api.ensure.outcome import slugify
from glitchtip_api.errors import UnreachableError
from glitchtip_api.session import Session
from glitchtip_api.transport import Transport
from glitchtip_api.validate import SCOPES, normal_url

Thing = dict[str, Any]
URL = "https://tracker.example.org"
OWNER = "owner@example.org"
TOKEN = "a" * 64
_BEGIN = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
_ROUTES: list[tuple[str, re.Pattern[str], str]] = []


def _route(method: str, path: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path) + r"\Z")

    def keep(function: Callable[..., Any]) -> Callable[..., Any]:
        _ROUTES.append((method, pattern, function.__name__))
        return function

    return keep


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """An answer other than success."""

    def __init__(self, status: int, detail: str = "") -> None:
        self.status, self.detail = status, detail
        super().__init__(f"{status} {detail}")


@dataclass
class Loss:
    """What becomes of the next write whose path matches: the answer is lost and the write is done later.

    `how`: an HTTP status of a proxy, or ``timeout`` or ``broken``. `delay`: seconds until it is done; None never.
    """

    path: re.Pattern[str]
    how: int | str
    delay: float | None


@dataclass
class FakeApi:
    """One server. `line` is "5.2" or "6.2"; `masked` hides the values of tokens in their list (later 6.x)."""

    line: str = "6.2"
    masked: bool = False
    now: float = 0.0
    losses: list[Loss] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        kinds = ("orgs", "teams", "members", "projects", "keys", "alerts", "monitors", "pages")
        self.data: dict[str, list[Thing]] = {kind: [] for kind in (*kinds, "comments", "events", "tokens", "releases")}
        self._pending: list[tuple[float, str, str, Any]] = []
        self._number = 0
        self._lock = threading.RLock()

    def client(self) -> Client:
        """A client of it, with its clock."""
        client = Client(URL, TOKEN, per_second=None, concurrent=16, clock=self.clock, sleep=self.sleep)
        client.transport.connections = self  # type: ignore[assignment]
        return client

    def session(self) -> Session:
        """A session that is logged in."""
        transport = Transport(URL, per_second=None, clock=self.clock, sleep=self.sleep)
        transport.connections = self  # type: ignore[assignment]
        return Session(transport)

    def clock(self) -> float:
        """Seconds since the test began."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass, and what was to be done in it be done."""
        self.now += seconds
        self._carry_out()

    def lose(self, path: str, how: int | str = 504, delay: float | None = 5.0) -> None:
        """Lose the answer to the next write to this path (a regular expression)."""
        self.losses.append(Loss(re.compile(path), how, delay))

    def writes(self) -> list[str]:
        """What was asked and was no read."""
        return [line for line in self.asked if not line.startswith("GET")]

    def close(self) -> None:
        """Nothing is open."""

    def exchange(
        self,
        method: str,
        path: str,
        *,
        seconds: float | None = None,
        json: Any = None,
        body: bytes | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer | UnreachableError:
        """What `Connections.exchange` does."""
        del seconds, body, params, headers
        with self._lock:
            self.now += 0.01
            self._carry_out()
            self.asked.append(f"{method} {path}")
            loss = next((loss for loss in self.losses if method == "POST" and loss.path.search(path)), None)
            if loss is None:
                return self._answer(method, path, json)
            self.losses.remove(loss)
            if loss.delay is not None:
                self._pending.append((self.now + loss.delay, method, path, copy.deepcopy(json)))
            if isinstance(loss.how, int):
                return self._reply(loss.how, "<h1>Gateway Time-out</h1>", "text/html")
            return UnreachableError(method, path, None, loss.how, "no answer", maybe_applied=True)

    def _carry_out(self) -> None:
        due = sorted((one for one in self._pending if one[0] <= self.now), key=lambda one: one[0])
        for one in due:
            self._pending.remove(one)
            self._answer(*one[1:])

    def _answer(self, method: str, path: str, json: Any) -> Answer:
        for verb, pattern, name in _ROUTES:
            found = pattern.match(urlsplit(path).path)
            if found and verb == method:
                parts = {key: unquote(value) for key, value in found.groupdict().items()}
                try:
                    done = getattr(self, name)(*(() if method in ("GET", "DELETE") else (json,)), **parts)
                except Refused as refused:
                    if refused.status == 500:
                        return self._reply(500, "<h1>Server Error (500)</h1>", "text/html")
                    return self._reply(refused.status, {"detail": refused.detail})
                if isinstance(done, str):
                    return self._reply(200, done, "text/html")
                return self._reply(201 if method == "POST" else 204 if method == "DELETE" else 200, done)
        if self.line == "6.2" and path.startswith("/api/0/"):
            return self._reply(404, {"detail": "Not found"})
        return self._reply(404, "<h1>Not Found</h1>", "text/html")

    def _reply(self, status: int, data: Any, kind: str = "application/json") -> Answer:
        text = data if kind != "application/json" else "" if status == 204 else jsonlib.dumps(data)
        date = email.utils.format_datetime(
            (_BEGIN + dt.timedelta(seconds=self.now)).replace(microsecond=0), True
        )
        return Answer(status, {"content-type": kind, "date": date}, text.encode(), {})

    # What the routes share.

    def _new(self, kind: str, thing: Thing, *, text_id: bool = True) -> Thing:
        self._number += 1
        created = (_BEGIN + dt.timedelta(seconds=self.now, microseconds=self._number)).isoformat()
        number: Any = str(self._number) if text_id else self._number
        made = {"id": number, "dateCreated": created, **thing}
        self.data[kind].append(made)
        return made

    def _org(self, org: str) -> Thing:
        return self._only("orgs", slug=org)

    def _project(self, org: str, project: str) -> Thing:
        return self._only("projects", org=self._org(org)["id"], slug=project)

    def _only(self, kind: str, **fields: Any) -> Thing:
        found = self._all(kind, **fields)
        if not found:
            raise Refused(404, "Not Found")
        return found[0]

    def _all(self, kind: str, **fields: Any) -> list[Thing]:
        return [t for t in self.data[kind] if all(t.get(key) == value for key, value in fields.items())]

    def _drop(self, kind: str, **fields: Any) -> None:
        thing = self._only(kind, **fields)
        self.data[kind] = [other for other in self.data[kind] if other is not thing]

    def _free(self, kind: str, base: str, **scope: Any) -> str:
        taken = {thing["slug"] for thing in self._all(kind, **scope)}
        slug, number = base[:50], 2
        while not slug or slug in taken:
            end = f"-{number}"
            slug, number = base[: 50 - len(end)] + end, number + 1
        return slug

    # Open endpoints, and who is asking.

    @_route("GET", "/api/settings/")
    def settings(self) -> Thing:
        return {"version": "5.2.0" if self.line == "5.2" else "6.2.6"}

    @_route("GET", "/api/0/")
    def root(self) -> Thing:
        user = {"id": "1", "email": OWNER}
        return {"version": "0", "user": user, "auth": {"label": "all", "scopes": list(SCOPES)}}

    @_route("GET", "/api/0/projects/{org}/{project}/events/")
    def list_events(self, org: str, project: str) -> list[Thing]:
        return self._all("events", project=self._project(org, project)["id"])

    # Organizations, teams, members.

    @_route("GET", "/api/0/organizations/")
    def list_orgs(self) -> list[Thing]:
        return list(self.data["orgs"])

    @_route("POST", "/api/0/organizations/")
    def create_org(self, json: Thing) -> Thing:
        base = slugify(json["name"])
        slug = base if base and not self._all("orgs", slug=base) else f"{base}-{uuid.uuid4().hex[:4]}"
        made = self._new("orgs", {"name": json["name"], "slug": slug})
        owner = {"email": OWNER, "role": "owner", "user": {"id": "1", "email": OWNER}, "isOwner": True}
        self._new("members", {**owner, "pending": False, "org": made["id"]})
        return made

    @_route("GET", "/api/0/organizations/{org}/")
    def get_org(self, org: str) -> Thing:
        return self._org(org)

    @_route("DELETE", "/api/0/organizations/{org}/")
    def delete_org(self, org: str) -> None:
        number = self._org(org)["id"]
        self._drop("orgs", id=number)
        for kind in ("teams", "members", "projects", "monitors", "pages"):
            self.data[kind] = [thing for thing in self.data[kind] if thing["org"] != number]

    @_route("GET", "/api/0/organizations/{org}/teams/")
    def list_teams(self, org: str) -> list[Thing]:
        return self._all("teams", org=self._org(org)["id"])

    @_route("POST", "/api/0/organizations/{org}/teams/")
    def create_team(self, json: Thing, org: str) -> Thing:
        number = self._org(org)["id"]
        if self._all("teams", org=number, slug=json["slug"]):
            raise Refused(500)
        me = self._only("members", org=number, email=OWNER)["id"]
        return self._new("teams", {"slug": json["slug"], "org": number, "people": [me]})

    @_route("GET", "/api/0/teams/{org}/{team}/")
    def get_team(self, org: str, team: str) -> Thing:
        return self._only("teams", org=self._org(org)["id"], slug=team)

    @_route("DELETE", "/api/0/teams/{org}/{team}/")
    def delete_team(self, org: str, team: str) -> None:
        number = self._org(org)["id"]
        self._drop("teams", org=number, slug=team)
        for project in self._all("projects", org=number):
            project["teams"] = [one for one in project["teams"] if one["slug"] != team]

    @_route("GET", "/api/0/teams/{org}/{team}/members/")
    def list_team_members(self, org: str, team: str) -> list[Thing]:
        people = self.get_team(org, team)["people"]
        return [one for one in self._all("members", org=self._org(org)["id"]) if one["id"] in people]

    @_route("GET", "/api/0/organizations/{org}/members/")
    def list_members(self, org: str) -> list[Thing]:
        return self._all("members", org=self._org(org)["id"])

    @_route("POST", "/api/0/organizations/{org}/members/")
    def invite(self, json: Thing, org: str) -> Thing:
        number = self._org(org)["id"]
        if self._all("members", org=number, email=json["email"]):
            raise Refused(409, "The user is already invited")
        plain = {"email": json["email"], "role": json["orgRole"], "user": None, "isOwner": False}
        made = self._new("members", {**plain, "pending": True, "org": number})
        for wanted in json.get("teamRoles") or []:
            for team in self._all("teams", org=number, slug=wanted["teamSlug"]):
                team["people"].append(made["id"])
        link = {} if self.line == "5.2" else {"inviteLink": f"{URL}/accept/{made['id']}/canary-invite-link/"}
        return {**made, **link}

    @_route("GET", "/api/0/organizations/{org}/members/{member}/")
    def get_member(self, org: str, member: str) -> Thing:
        number = self._org(org)["id"]
        found = self._only("members", org=number, id=member)
        teams = [team["slug"] for team in self._all("teams", org=number) if member in team["people"]]
        return {**found, "teams": teams}

    @_route("PUT", "/api/0/organizations/{org}/members/{member}/")
    def update_member(self, json: Thing, org: str, member: str) -> Thing:
        self._only("members", org=self._org(org)["id"], id=member)["role"] = json["orgRole"]
        return self.get_member(org, member)

    @_route("DELETE", "/api/0/organizations/{org}/members/{member}/")
    def delete_member(self, org: str, member: str) -> None:
        self._drop("members", org=self._org(org)["id"], id=member)

    @_route("POST", "/api/0/organizations/{org}/members/{member}/teams/{team}/")
    def join(self, json: Any, org: str, member: str, team: str) -> Thing:
        del json
        found = self.get_team(org, team)
        found["people"] = [*(one for one in found["people"] if one != member), member]
        return found

    @_route("DELETE", "/api/0/organizations/{org}/members/{member}/teams/{team}/")
    def leave(self, org: str, member: str, team: str) -> None:
        found = self.get_team(org, team)
        found["people"] = [one for one in found["people"] if one != member]

    # Projects, keys, releases.

    @_route("GET", "/api/0/organizations/{org}/projects/")
    def list_projects(self, org: str) -> list[Thing]:
        return self._all("projects", org=self._org(org)["id"])

    @_route("POST", "/api/0/teams/{org}/{team}/projects/")
    def create_project(self, json: Thing, org: str, team: str) -> Thing:
        number, base = self._org(org)["id"], slugify(json["name"])
        self.get_team(org, team)
        slug = self._free("projects", "new-1" if base == "new" else base, org=number)
        plain = {
            "name": json["name"],
            "slug": slug,
            "platform": json.get("platform") or "",
            "firstEvent": None,
        }
        plain["eventThrottleRate"] = json.get("eventThrottleRate") or 0
        made = self._new("projects", {**plain, "org": number, "teams": [{"slug": team}]})
        self.create_key({"name": ""}, org, slug)
        return made

    @_route("GET", "/api/0/projects/{org}/{project}/")
    def get_project(self, org: str, project: str) -> Thing:
        return self._project(org, project)

    @_route("PUT", "/api/0/projects/{org}/{project}/")
    def update_project(self, json: Thing, org: str, project: str) -> Thing:
        found = self._project(org, project)
        others = [one["slug"] for one in self._all("projects", org=found["org"]) if one is not found]
        if json.get("slug") in others:
            raise Refused(500)
        known = ("name", "slug", "platform", "eventThrottleRate")
        found.update({key: json[key] for key in known if json.get(key) is not None})
        return found

    @_route("DELETE", "/api/0/projects/{org}/{project}/")
    def delete_project(self, org: str, project: str) -> None:
        self._drop("projects", id=self._project(org, project)["id"])

    @_route("GET", "/api/0/projects/{org}/{project}/teams/")
    def list_project_teams(self, org: str, project: str) -> list[Thing]:
        return list(self._project(org, project)["teams"])

    @_route("POST", "/api/0/projects/{org}/{project}/teams/{team}/")
    def add_project_team(self, json: Any, org: str, project: str, team: str) -> Thing:
        del json
        self.get_team(org, team)
        found = self._project(org, project)
        found["teams"] = [*(one for one in found["teams"] if one["slug"] != team), {"slug": team}]
        return found

    @_route("DELETE", "/api/0/projects/{org}/{project}/teams/{team}/")
    def remove_project_team(self, org: str, project: str, team: str) -> None:
        found = self._project(org, project)
        found["teams"] = [one for one in found["teams"] if one["slug"] != team]

    @_route("GET", "/api/0/projects/{org}/{project}/keys/")
    def list_keys(self, org: str, project: str) -> list[Thing]:
        return self._all("keys", project=self._project(org, project)["id"])

    @_route("POST", "/api/0/projects/{org}/{project}/keys/")
    def create_key(self, json: Thing, org: str, project: str) -> Thing:
        number, key = self._project(org, project)["id"], uuid.uuid4()
        dsn = {"public": f"https://{key.hex}@tracker.example.org/{number}"}
        made = {"id": str(key), "public": str(key), "name": json["name"], "rateLimit": json.get("rateLimit")}
        return self._new("keys", {**made, "dsn": dsn, "project": number})

    @_route("DELETE", "/api/0/projects/{org}/{project}/keys/{key}/")
    def delete_key(self, org: str, project: str, key: str) -> None:
        self._drop("keys", project=self._project(org, project)["id"], id=key)

    @_route("GET", "/api/0/organizations/{org}/releases/{version}/")
    def get_release(self, org: str, version: str) -> Thing:
        return self._only("releases", org=self._org(org)["id"], version=version)

    @_route("POST", "/api/0/organizations/{org}/releases/")
    def create_release(self, json: Thing, org: str) -> Thing:
        number = self._org(org)["id"]
        if self._all("releases", org=number, version=json["version"]):
            raise Refused(500)
        projects = [{"slug": slug} for slug in json["projects"]]
        return self._new("releases", {"version": json["version"], "org": number, "projects": projects})

    # Alert rules.

    @_route("GET", "/api/0/projects/{org}/{project}/alerts/")
    def list_alerts(self, org: str, project: str) -> list[Thing]:
        return [self._shown(rule) for rule in self._all("alerts", project=self._project(org, project)["id"])]

    @_route("POST", "/api/0/projects/{org}/{project}/alerts/")
    def create_alert(self, json: Thing, org: str, project: str) -> Thing:
        number = self._project(org, project)["id"]
        plain = {"name": "", "quantity": None, "timespanMinutes": None, "uptime": False}
        sent = {key: json[key] for key in plain if key in json}
        recipients = [self._recipient(one) for one in json.get("alertRecipients") or []]
        rule = {**plain, **sent, "project": number, "alertRecipients": recipients}
        return self._shown(self._new("alerts", rule, text_id=False))

    @_route("PUT", "/api/0/projects/{org}/{project}/alerts/{alert}/")
    def update_alert(self, json: Thing, org: str, project: str, alert: str) -> Thing:
        rule = self._only("alerts", project=self._project(org, project)["id"], id=int(alert))
        rule.update(
            {key: json[key] for key in ("name", "quantity", "timespanMinutes", "uptime") if key in json}
        )
        there = {(one["recipientType"], one["url"]): one for one in rule["alertRecipients"]}
        rule["alertRecipients"] = []
        for sent in json.get("alertRecipients") or []:
            new = self._recipient(sent)
            old = there.get((new["recipientType"], new["url"]))
            if old and self.line == "5.2" and "tagsToAdd" in sent and old["tagsToAdd"] != new["tagsToAdd"]:
                raise Refused(500)
            kept = {**new, **({} if old is None or "tagsToAdd" in sent else {"tagsToAdd": old["tagsToAdd"]})}
            rule["alertRecipients"].append(kept)
        return self._shown(rule)

    @_route("DELETE", "/api/0/projects/{org}/{project}/alerts/{alert}/")
    def delete_alert(self, org: str, project: str, alert: str) -> None:
        self._drop("alerts", project=self._project(org, project)["id"], id=int(alert))

    def _recipient(self, sent: Thing) -> Thing:
        kind, url = sent["recipientType"], sent.get("url") or ""
        if self.line == "5.2" and kind not in ("email", "webhook", "discord", "googlechat"):
            raise Refused(422, f"Input tag '{kind}' found using 'recipientType'")
        names = {"bot_email": "botEmail", "api_key": "apiKey", "channel": "channel", "topic": "topic"}
        config = {column: sent[name] for column, name in names.items() if name in sent}
        self._number += 1
        plain = {"id": self._number, "recipientType": kind, "url": normal_url(url) if url else ""}
        return {**plain, "tagsToAdd": list(sent.get("tagsToAdd") or []), "config": config}

    def _shown(self, rule: Thing) -> Thing:
        hidden = ("tagsToAdd", "config") if self.line == "5.2" else ()
        recipients = [
            {key: value for key, value in one.items() if key not in hidden} for one in rule["alertRecipients"]
        ]
        return {**rule, "alertRecipients": recipients}

    # Monitors and status pages.

    @_route("GET", "/api/0/organizations/{org}/monitors/")
    def list_monitors(self, org: str) -> list[Thing]:
        return self._all("monitors", org=self._org(org)["id"])

    @_route("POST", "/api/0/organizations/{org}/monitors/")
    def create_monitor(self, json: Thing, org: str) -> Thing:
        number = self._org(org)["id"]
        endpoint = None
        if json["monitorType"] == "Heartbeat":
            endpoint = f"{URL}/api/0/organizations/{org}/heartbeat_check/{uuid.uuid4()}/"
        plain = {"org": number, "heartbeatEndpoint": endpoint, "checks": []}
        return self._new("monitors", {**plain, **self._monitor(json, number)}, text_id=False)

    @_route("PUT", "/api/0/organizations/{org}/monitors/{monitor}/")
    def update_monitor(self, json: Thing, org: str, monitor: str) -> Thing:
        number = self._org(org)["id"]
        found = self._only("monitors", org=number, id=int(monitor))
        found.update(self._monitor(json, number))
        return found

    @_route("DELETE", "/api/0/organizations/{org}/monitors/{monitor}/")
    def delete_monitor(self, org: str, monitor: str) -> None:
        self._drop("monitors", org=self._org(org)["id"], id=int(monitor))

    def _monitor(self, json: Thing, org: str) -> Thing:
        if not 1 <= json.get("interval", 60) <= (32767 if self.line == "5.2" else 86400):
            raise Refused(500 if self.line == "5.2" else 422, "interval")
        known = {project["id"] for project in self._all("projects", org=org)}
        names = ("monitorType", "name", "url", "expectedStatus", "expectedBody", "timeout")
        project = json.get("project")
        made = {key: json[key] for key in names} | {"interval": json.get("interval", 60)}
        threshold = (
            {} if self.line == "5.2" else {"confirmationThreshold": json.get("confirmationThreshold", 1)}
        )
        return {**made, **threshold, "projectID": project if project in known else None}

    @_route("GET", "/api/0/organizations/{org}/status-pages/")
    def list_pages(self, org: str) -> list[Thing]:
        del org  # the server takes no notice of it
        return [{key: page[key] for key in ("name", "slug", "isPublic")} for page in self.data["pages"]]

    @_route("POST", "/api/0/organizations/{org}/status-pages/")
    def create_page(self, json: Thing, org: str) -> Thing:
        number = self._org(org)["id"]
        slug = self._free("pages", slugify(json["name"]), org=number)
        page = {"name": json["name"], "slug": slug, "isPublic": json.get("isPublic", False), "org": number}
        self._new("pages", page)
        return {key: page[key] for key in ("name", "slug", "isPublic")}

    @_route("GET", "/status-pages/{org}/{page}/")
    def show_page(self, org: str, page: str) -> str:
        if not self._all("pages", org=self._org(org)["id"], slug=page, isPublic=True):
            raise Refused(404, "Not Found")
        return "<h1>Status</h1>"

    # Comments and tokens.

    @_route("GET", "/api/0/issues/{issue}/comments/")
    def list_comments(self, issue: str) -> list[Thing]:
        return self._all("comments", issue=issue)

    @_route("POST", "/api/0/issues/{issue}/comments/")
    def create_comment(self, json: Thing, issue: str) -> Thing:
        return self._new(
            "comments", {"data": json["data"], "issue": issue, "user": {"id": "1"}}, text_id=False
        )

    @_route("DELETE", "/api/0/issues/{issue}/comments/{comment}/")
    def delete_comment(self, issue: str, comment: str) -> None:
        self._drop("comments", issue=issue, id=int(comment))

    @_route("GET", "/api/0/api-tokens/")
    def list_tokens(self) -> list[Thing]:
        return [
            {**token, "token": f"...{token['token'][-8:]}" if self.masked else token["token"]}
            for token in reversed(self.data["tokens"])
        ]

    @_route("POST", "/api/0/api-tokens/")
    def create_token(self, json: Thing) -> Thing:
        scopes = [scope for bit, scope in enumerate(SCOPES) if json["scopes"] >> bit & 1]
        value = uuid.uuid4().hex + uuid.uuid4().hex
        return self._new("tokens", {"label": json["label"], "scopes": scopes, "token": value}, text_id=False)

    @_route("DELETE", "/api/0/api-tokens/{token}/")
    def delete_token(self, token: str) -> None:
        self._drop("tokens", id=int(token))
