"""Events for a load: a project, senders over loopback, and which of the accepted ids are stored."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import urlsplit

from rig.shell import RigError
from rig.trackers import SCOPES

from drills.role_stack import EMAIL, RoleStack
from glitchtip_api import Client
from glitchtip_api.session import login

#: Senders at the same time; one connection a request, as the 5.2 line closes each.
SENDERS = 8


def new_dsn(stack: RoleStack, name: str = "Load") -> str:
    """DSN of a new project in a new organization of this name."""
    with login(stack.url, EMAIL, stack.password) as session:
        token = session.ensure_token("load", SCOPES).token
    client = Client(stack.url, token)
    organization = client.organizations.create(name)["slug"]
    team = client.teams.create(organization, name.lower())["slug"]
    project = client.projects.create(organization, team, name=name.lower(), platform="node")["slug"]
    return str(client.keys.list(organization, project)[0]["dsn"]["public"])


def envelope(event_id: str, number: int, size: int) -> bytes:
    """An envelope with one error of about ``size`` bytes: 20 breadcrumbs, 2 tags, and frames with lines of source as @sentry/node sends them."""
    moment = time.time()
    frames: list[dict[str, object]] = []
    error = {
        "type": f"Error{number % 50}",
        "value": f"failure {number % 50}",
        "stacktrace": {"frames": frames},
    }
    event: dict[str, object] = {
        "event_id": event_id,
        "timestamp": moment,
        "platform": "node",
        "level": "error",
        "tags": {"service": f"service-{number % 8}", "region": "eu"},
        "breadcrumbs": [
            {"timestamp": moment, "category": "http", "message": f"GET /{n}", "level": "info"}
            for n in range(20)
        ],
        "exception": {"values": [error]},
    }
    source = "    const answer = await this.queue.take(message.id, { patience: 30 });"
    while len(json.dumps(event)) < size - 300:
        line = len(frames) + 1
        frames.append(
            {
                "filename": f"/app/src/module{line}.js",
                "function": f"handler{line}",
                "lineno": line,
                "colno": 17,
                "in_app": True,
                "pre_context": [source] * 3,
                "context_line": source,
                "post_context": [source] * 3,
            }
        )
    header = json.dumps({"event_id": event_id})
    return f'{header}\n{{"type":"event"}}\n{json.dumps(event)}\n'.encode()


class MissingError(RigError):
    """Accepted events are not stored."""


@dataclass
class Sent:
    """What a load came to: ids by the status that each was answered; ``seconds`` from the first to the last answer."""

    accepted: set[str] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Accepted events a second."""
        return len(self.accepted) / self.seconds if self.seconds else 0.0


def send(stack: RoleStack, dsn: str, events: int, *, size: int = 2000, give_up_after: int = 50) -> Sent:
    """Send this many events from SENDERS threads; stops early after ``give_up_after`` refusals or lost connections."""
    project = urlsplit(dsn).path.strip("/")
    key = urlsplit(dsn).username
    path = f"/api/{project}/envelope/?sentry_key={key}"
    sent = Sent()
    numbers: Iterator[int] = iter(count())

    def post(number: int) -> None:
        event_id = uuid.uuid4().hex
        connection = http.client.HTTPConnection("127.0.0.1", stack.published, timeout=30)
        try:
            connection.request("POST", path, envelope(event_id, number, size))
            status = str(connection.getresponse().status)
        except (OSError, http.client.HTTPException) as error:
            status = type(error).__name__
        finally:
            connection.close()
        if status == "200":
            sent.accepted.add(event_id)
        else:
            sent.refused[status] = sent.refused.get(status, 0) + 1

    def work(_: int) -> None:
        while next(numbers) < events and sum(sent.refused.values()) < give_up_after:
            post(len(sent.accepted))

    began = time.monotonic()
    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(work, range(SENDERS)))
    sent.seconds = time.monotonic() - began
    return sent


def stored(stack: RoleStack) -> set[str]:
    """Ids of all events in the database, which is asked itself."""
    return {
        line.replace("-", "")
        for line in stack.sql("SELECT id FROM issue_events_issueevent").splitlines()
        if line
    }


def drain(stack: RoleStack, accepted: set[str], *, seconds: float) -> float:
    """Wait until every accepted event is stored; the seconds it took. MissingError when some are not after ``seconds``."""
    began = time.monotonic()
    while True:
        missing = len(accepted - stored(stack))
        if not missing:
            return time.monotonic() - began
        if time.monotonic() - began > seconds:
            raise MissingError(
                f"{missing} of {len(accepted)} accepted events are not stored after {seconds:.0f} s."
            )
        time.sleep(2)
