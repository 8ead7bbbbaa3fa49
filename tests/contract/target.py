"""Before the first rule: is there a GlitchTip that the suite can be held to, and what is on it; after the last:
is everything gone again that the run made.

Everything that can be wrong with what the user gave ends in one sentence (:class:`Refused`).
"""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from . import lines
from .receiver import Listener, Receiver, ReceiverError, address
from .server import (
    ALL_SCOPES,
    LOGIN,
    ORGANIZATIONS,
    SESSION,
    TOKENS,
    VISIBLE_SECONDS,
    Journal,
    Project,
    Server,
    wait_until,
)

SETTINGS = "/api/settings/"


class Refused(Exception):  # noqa: N818 - it is an answer to the user
    """The suite cannot be held to what was given; its text is one sentence: what is wrong and what to do."""


@dataclass
class Target:
    """The server of a run, what is known of it, and the run's own directory.

    ``version`` is what the server says of itself (it may be empty); ``line_source`` how the line was found.
    """

    server: Server
    version: str
    line_source: str
    directory: Path
    run: str
    receiver: Receiver | None = None
    token_id: str = ""
    before: dict[str, set[str]] = field(default_factory=dict)
    listener: Listener | None = None

    def for_worker(self) -> dict[str, Any]:
        """What another process of this run needs; the password travels in the environment."""
        return {
            "url": self.server.url,
            "email": self.server.email,
            "line": self.server.line,
            "token": self.server.token,
            "cookies": self.server.cookies,
            "version": self.version,
            "line_source": self.line_source,
            "directory": str(self.directory),
            "run": self.run,
            "receiver": self.receiver.url if self.receiver else "",
        }

    @classmethod
    def of_leader(cls, given: Mapping[str, Any], password: str) -> Target:
        """The counterpart of :meth:`for_worker`."""
        directory = Path(given["directory"])
        server = Server(
            given["url"],
            given["email"],
            password,
            given["line"],
            given["token"],
            dict(given["cookies"]),
            Journal(directory / "journal"),
        )
        receiver = Receiver(given["receiver"], directory) if given["receiver"] else None
        return cls(server, given["version"], given["line_source"], directory, given["run"], receiver)


def settings_of(url: str) -> dict[str, Any]:
    """The answer of ``/api/settings/``; the proof that there is a GlitchTip.

    Raises :class:`Refused`.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Refused(
            f"GLITCHTIP_URL must be the address of a server, such as https://errors.example.org, not {url!r}"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise Refused(
            "GLITCHTIP_URL must hold no user, password, query or fragment; the account has variables of its own"
        )
    try:
        answer = requests.get(url + SETTINGS, timeout=20, allow_redirects=False)
    except requests.exceptions.SSLError as error:
        raise Refused(
            f"{url} cannot be reached: its certificate is not trusted ({_short(error)}); REQUESTS_CA_BUNDLE=FILE names a CA"
        ) from error
    except requests.RequestException as error:
        raise Refused(
            f"{url} cannot be reached ({_short(error)}); check the address and that the server runs"
        ) from error
    if answer.is_redirect:
        where = answer.headers["Location"].removesuffix(SETTINGS)
        raise Refused(f"{url} redirects to {where}; give that address as GLITCHTIP_URL")
    if answer.status_code >= 500:
        raise Refused(
            f"{url} answers {answer.status_code} on {SETTINGS}; the server is not in order (is its database up?)"
        )
    try:
        found = answer.json()
    except ValueError:
        found = None
    if answer.status_code != 200 or not isinstance(found, dict) or "enableOrganizationCreation" not in found:
        kind = answer.headers.get("Content-Type", "no content type").split(";")[0]
        raise Refused(
            f"{url} is not a GlitchTip: {SETTINGS} answers {answer.status_code} with {kind}, not with GlitchTip's settings"
        )
    return found


def _short(error: Exception) -> str:
    """The innermost reason of a chain of errors of requests and urllib3, without names of objects."""
    cause: BaseException = error
    while True:
        within = [getattr(cause, "reason", None), *cause.args]
        found = [item for item in within if isinstance(item, BaseException)]
        if not found:
            break
        cause = found[0]
    return re.sub(r"^<?HTTPS?Connection[^:]*?(\(.*?\)|object at 0x\w+)?>?: ", "", str(cause))


def find_line(url: str, version: str, wanted: str | None) -> tuple[str, str]:
    """The line of a server and how it was found: ``GLITCHTIP_LINE``, its version, or its behaviour.

    Raises :class:`Refused` for a version of a line that the suite does not know.
    """
    if wanted:
        if wanted not in lines.LINES:
            raise Refused(f"GLITCHTIP_LINE must be one of {', '.join(lines.LINES)}, not {wanted!r}")
        return wanted, "GLITCHTIP_LINE"
    try:
        line = lines.of_version(version)
    except ValueError as error:
        known = " and ".join(lines.LINES)
        raise Refused(
            f"{url} is GlitchTip {version}, which this suite does not know: it holds the lines {known};"
            " GLITCHTIP_LINE=LINE holds it to one of them all the same"
        ) from error
    if line:
        return line, "version"
    answer = requests.get(url + lines.ONLY_ON_6, timeout=20, allow_redirects=False)
    is_json = answer.headers.get("Content-Type", "").startswith("application/json")
    return ("6.2" if is_json else "5.2"), "behaviour"


def _log_in(server: Server) -> None:
    """Set ``server.cookies``; raises :class:`Refused` with the reason why the account cannot be used."""
    # Without the CSRF cookie there is no way in; a GlitchTip always sends it.
    cookies = server.csrf()
    if "csrftoken" not in cookies:
        raise Refused(
            f"{server.url} is no GlitchTip that one can log in to: {SESSION} sends no csrftoken cookie"
        )
    answer = server.write("POST", LOGIN, {"email": server.email, "password": server.password}, cookies)
    if answer.status_code == 200:
        server.cookies = dict(answer.cookies)
        return
    try:
        body = answer.json()
    except ValueError:
        body = {}
    flows = [flow.get("id", "") for flow in body.get("data", {}).get("flows", []) if flow.get("is_pending")]
    codes = [error.get("code") for error in body.get("errors", [])]
    if any(flow.startswith("mfa") for flow in flows):
        raise Refused(
            f"{server.email} logs in with a second factor, which the suite cannot give; use an account without one"
        )
    if "too_many_login_attempts" in codes:
        raise Refused(
            f"{server.email} had too many failed logins on {server.url}; wait five minutes, then run again"
        )
    if {"email_password_mismatch", "invalid"} & set(codes):
        raise Refused(
            f"{server.url} refuses the login of {server.email}: e-mail or password (GLITCHTIP_PASSWORD) is wrong"
        )
    raise Refused(
        f"{server.url} refuses the login of {server.email} with {answer.status_code} ({codes or flows or 'no reason'})"
    )


def _may_create_organizations(server: Server, name: str) -> None:
    answer = server.call("POST", ORGANIZATIONS, {"name": name})
    if answer.status_code == 403:
        raise Refused(
            f"{server.email} may not create organizations on {server.url}: use a superuser, or set"
            " ENABLE_ORGANIZATION_CREATION=true there"
        )
    if answer.status_code != 201:
        raise Refused(
            f"{server.url} answers {answer.status_code} when {server.email} creates an organization"
        )
    server.call("DELETE", f"{ORGANIZATIONS}{answer.json()['slug']}/")


def _have(server: Server) -> dict[str, set[str]]:
    """The account's organizations (slugs) and tokens (ids); at most 100 organizations a page are read on."""
    slugs: set[str] = set()
    path = f"{ORGANIZATIONS}?limit=100"
    for _ in range(100):
        answer = server.call("GET", path)
        slugs |= {item["slug"] for item in answer.json()}
        following = [
            part for part in answer.headers.get("Link", "").split("<") if 'rel="next"; results="true"' in part
        ]
        if not following:
            break
        where = urlsplit(following[0].split(">")[0])
        path = f"{ORGANIZATIONS}?{where.query}"
    tokens = {str(token["id"]) for token in server.get(TOKENS, cookies=server.cookies)}
    return {"organization": slugs, "token": tokens}


def open_target(environment: Mapping[str, str], directory: Path | None = None) -> Target:
    """Everything that must be true before the first rule; the server with a session and a token of all scopes.

    ``environment`` holds GLITCHTIP_URL, GLITCHTIP_EMAIL, GLITCHTIP_PASSWORD and perhaps GLITCHTIP_LINE and
    CONTRACT_RECEIVER. Raises :class:`Refused`; nothing is left on the server then.
    """
    missing = [
        name
        for name in ("GLITCHTIP_URL", "GLITCHTIP_EMAIL", "GLITCHTIP_PASSWORD")
        if not environment.get(name)
    ]
    if missing:
        raise Refused(f"{', '.join(missing)} must be given")
    url = environment["GLITCHTIP_URL"].rstrip("/")
    try:
        receiving = address(environment.get("CONTRACT_RECEIVER"), url)
    except ReceiverError as error:
        raise Refused(str(error)) from error
    version = str(settings_of(url).get("version") or "")
    line, source = find_line(url, version, environment.get("GLITCHTIP_LINE"))
    directory = directory or Path(tempfile.mkdtemp(prefix="contract-"))
    server = Server(url, environment["GLITCHTIP_EMAIL"], environment["GLITCHTIP_PASSWORD"], line)
    server.journal = Journal(directory / "journal")
    target = Target(server, version, source, directory, uuid.uuid4().hex[:8])
    _log_in(server)
    try:
        target.before = {"token": {str(token["id"]) for token in server.get(TOKENS, cookies=server.cookies)}}
        token = server.make_token(server.cookies, ALL_SCOPES, f"contract {target.run}")
        server.token, target.token_id = token["token"], str(token["id"])
        target.before["organization"] = _have(server)["organization"]
        _may_create_organizations(server, f"Contract {target.run} trial")
        if receiving:
            target.listener = Listener(*receiving, directory)
            target.receiver = Receiver(target.listener.url, directory)
    except (Refused, ReceiverError) as error:
        close_target(target)
        raise Refused(str(error)) from error
    return target


def _settled(server: Server, organization: str) -> bool:
    """Wait until the worker has taken every event of the run; False when it does not.

    The 5.2 line stores up to 100 events in one transaction. When a project of one of them is gone by then, the
    whole batch fails, and with it the events of everybody else (measured: IntegrityError of projectcounter). So
    nothing that events were sent to is removed before a last event was read back.
    """
    team = server.post(f"{ORGANIZATIONS}{organization}/teams/", {"slug": f"last-{uuid.uuid4().hex[:8]}"})[
        "slug"
    ]
    made = server.post(
        f"/api/0/teams/{organization}/{team}/projects/", {"name": "last", "platform": "python"}
    )
    key = server.get(f"/api/0/projects/{organization}/{made['slug']}/keys/")[0]["public"]
    project = Project(server, organization, made["slug"], made["id"], made["name"], uuid.UUID(key).hex)
    number = project.send("the last event of the run")
    return wait_until(lambda: project.find(number), VISIBLE_SECONDS) is not None


def close_target(target: Target) -> list[str]:
    """Remove what the run left, its token and its session; sentences about what was not as it should be.

    An empty list means: the account's organizations and tokens are those of before, as far as the run is
    concerned. What others did to the account in the meantime is not the run's and is left alone.
    """
    server, journal = target.server, target.server.journal
    assert journal is not None
    if target.listener:
        target.listener.close()
    found = []
    made = {kind: journal.of("made", kind) for kind in ("organization", "token")}
    left = sorted(made["organization"] & _have(server)["organization"]) if server.token else []
    if left and not _settled(server, left[0]):
        found.append(
            "the worker has not stored the run's last event, so others' events may have been lost with it"
        )
    for slug in left:
        server.call("DELETE", f"{ORGANIZATIONS}{slug}/")
        if not slug.startswith(f"contract-{target.run}"):
            found.append(f"organization {slug} was left and has been removed now")
    if target.token_id:
        server.write("DELETE", f"{TOKENS}{target.token_id}/", None, server.cookies)
    now = {str(token["id"]) for token in server.get(TOKENS, cookies=server.cookies)}
    for number in sorted(made["token"] & now):
        server.write("DELETE", f"{TOKENS}{number}/", None, server.cookies)
        found.append(f"token {number} was left and has been removed now")
    for kind in made:
        foreign = (journal.of("deleted", kind) - made[kind]) & target.before.get(kind, set())
        found += [
            f"{kind} {number} was deleted although the run had not made it" for number in sorted(foreign)
        ]
    # A last look, as another would have it: nothing of the run may be there.
    cookies = server.cookies
    slugs = {item["slug"] for item in server.get(f"{ORGANIZATIONS}?limit=100", cookies=cookies)}
    found += [f"organization {slug} cannot be removed" for slug in sorted(made["organization"] & slugs)]
    server.write("DELETE", SESSION, None, cookies)
    return found
