"""The few reads of a Sentry-compatible API that the switch needs, and one envelope sent.

One connection a request: GlitchTip's default web server closes connections without saying so (GlitchTip 5.2).
An answer counts only when it is JSON: unknown paths of GlitchTip answer 200 with a web page.
"""

from __future__ import annotations

import copy
import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from glitchtip_core.dsn import Dsn
from glitchtip_core.files import read_secret
from glitchtip_core.http import Answer, HttpError, request
from glitchtip_core.json_text import decode_json
from glitchtip_core.listener import ListenerError, require_expected

from .config import Side
from .errors import CutoverError

_TIMEOUT = 15.0
_ANSWER_LIMIT = 32 * 1024 * 1024
_TRIES = 3
_HURRIED_TIMEOUT = 5.0
_HURRIED_TRIES = 2
_CLIENT = "ai-admin-cutover/1.0"
#: The end of the year 9999 in epoch seconds, the last moment that a date of Python can show.
_LATEST = 253402300799.0
_RETRIED = frozenset({429, 500, 502, 503, 504})
PROBE_TAG = "cutover_probe"
#: What GlitchTip 6.x says of a path that it does not serve; of an object that is not there it says "Not Found" (from
#: the 6.x source). 5.2 and earlier answer such a path with a web page (measured on 5.2).
_UNKNOWN_ENDPOINT = "Not found"


@dataclass(frozen=True)
class Event:
    """A stored event: id as 32 hex digits, the sender's time of it in epoch seconds, tags.

    ``process_started``: when the process that sent it was started, as SDKs for Node.js report it; None where the
    event holds no such time. ``whole`` is False for an entry of a list that leaves contexts out.
    """

    event_id: str
    created: float
    tags: Mapping[str, str]
    process_started: float | None = None
    whole: bool = True


def _is_unknown_endpoint(body: bytes) -> bool:
    """Whether a 404 in JSON means the path, not the object."""
    try:
        document = decode_json(body)
    except ValueError:
        return True  # nobody knows what it means: not that an object is missing
    return isinstance(document, dict) and document.get("detail") == _UNKNOWN_ENDPOINT


def _exchange(
    url: str, what: str, headers: Mapping[str, str], timeout: float = _TIMEOUT, body: bytes | None = None
) -> Answer:
    """Send one request (a POST when there is a body); an HTTP error status is an answer. Raises CutoverError without one."""
    try:
        return request(
            url,
            what=what,
            timeout=timeout,
            limit=_ANSWER_LIMIT,
            method="GET" if body is None else "POST",
            headers={"User-Agent": _CLIENT, **headers},
            body=body,
            check=require_expected,
        )
    except ListenerError as error:
        raise CutoverError(f"{what} was not asked: {error}") from None
    except HttpError as error:
        raise CutoverError(str(error)) from None


def _epoch(value: object) -> float | None:
    """Epoch seconds of a number or an ISO 8601 text; None for anything else, and for a time that no clock shows."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds <= _LATEST else None


def _tags(value: object) -> dict[str, str]:
    """Tags as ``[{"key", "value"}]`` (GlitchTip, Sentry), pairs, or an object."""
    pairs: list[tuple[object, object]] = []
    if isinstance(value, dict):
        pairs += value.items()
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict) and "key" in item:
            pairs.append((item["key"], item.get("value")))
        elif isinstance(item, list) and len(item) == 2:
            pairs.append((item[0], item[1]))
    # A list or an object is no name or value of a tag, and may be nested too deeply to be shown.
    return {str(key): str(item) for key, item in pairs if not isinstance(key, list | dict) and not isinstance(item, list | dict)}


def parse_event(data: object) -> Event | None:
    """One event of a list or a detail; both key styles occur. None when it is no event."""
    if not isinstance(data, dict):
        return None
    raw_id = data.get("eventID") or data.get("event_id") or data.get("id")
    created = _epoch(data.get("dateCreated") or data.get("date_created"))
    if created is None:
        created = _epoch(data.get("dateReceived") or data.get("date_received"))
    if not isinstance(raw_id, str) or created is None:
        return None
    contexts = data.get("contexts")
    app = contexts.get("app") if isinstance(contexts, dict) else None
    return Event(
        raw_id.replace("-", "").lower(),
        created,
        _tags(data.get("tags")),
        _epoch(app.get("app_start_time")) if isinstance(app, dict) else None,
        isinstance(contexts, dict),
    )


class Tracker:
    """Reads of one project through the API."""

    def __init__(self, side: Side, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.side = side
        self._sleep = sleep
        self._left: Callable[[], float] | None = None
        self._project = f"/api/0/projects/{quote(side.organization, safe='')}/{quote(side.project, safe='')}"

    def within(self, left: Callable[[], float]) -> Tracker:
        """The same, but with no more time for all its reads together than ``left()`` seconds."""
        hurried = copy.copy(self)
        hurried._left = left
        return hurried

    def _time(self) -> float:
        """Seconds for the next request."""
        return _TIMEOUT if self._left is None else max(0.5, min(_HURRIED_TIMEOUT, self._left()))

    @property
    def _token_place(self) -> str:
        """How messages call the token."""
        return f"the token in {self.side.token_file}"

    @property
    def label(self) -> str:
        """How messages call this project."""
        return f"project {self.side.organization}/{self.side.project} at {self.side.api_url}"

    def _token(self) -> str:
        return read_secret(self.side.token_file, f"the API token of the {self.side.name} tracker")

    def _get(self, path: str, missing: bool = False) -> tuple[Any, str]:
        """JSON and the ``Link`` header of a GET; with ``missing`` an object that is not there gives None."""
        token = self._token()
        what = f"the API of the {self.side.name} tracker at {self.side.api_url}"
        failure = CutoverError(f"{what} does not answer")
        for attempt in range(_TRIES if self._left is None else _HURRIED_TRIES):
            if attempt:
                if self._left is not None and self._left() <= attempt:
                    break
                self._sleep(float(attempt))
            headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
            try:
                answer = _exchange(self.side.api_url + path, what, headers, self._time())
            except CutoverError as error:
                failure = error
                continue
            status = answer.status
            if status == 404 and (not answer.is_json or _is_unknown_endpoint(answer.body)):
                raise CutoverError(
                    f"{what} does not serve {path}: see whether this address is the tracker's, and its version"
                )
            if status == 404 and missing:
                return None, ""
            if status in _RETRIED:
                failure = CutoverError(f"{what} answered {status}")
                continue
            if status in (401, 403):
                raise CutoverError(f"{what} refused {self._token_place} ({status})")
            if status == 404:
                raise CutoverError(f"{what} knows no {self.label.split(' at ')[0]}")
            if status != 200:
                raise CutoverError(f"{what} answered {status}")
            if not answer.is_json:
                raise CutoverError(f"{what} answered with a web page where JSON was due")
            try:
                return decode_json(answer.body), answer.headers.get("link", "")
            except ValueError:
                failure = CutoverError(f"{what} answered with broken JSON")
        raise failure

    def project_id(self) -> str:
        """Numeric id of the project, as text."""
        data, _ = self._get(f"{self._project}/")
        if not isinstance(data, dict) or not isinstance(data.get("id"), str | int):
            raise CutoverError(f"the API of the {self.side.name} tracker described the project without an id")
        return str(data["id"])

    def public_keys(self) -> set[str]:
        """Public parts (hex, no dashes) of all keys of the project."""
        keys: set[str] = set()
        path = f"{self._project}/keys/"
        for _ in range(20):
            data, link = self._get(path)
            for item in data if isinstance(data, list) else []:
                if isinstance(item, dict) and isinstance(item.get("public"), str):
                    keys.add(item["public"].replace("-", "").lower())
            cursor = re.search(r'<[^>]*[?&]cursor=([^&>]+)[^>]*>; rel="next"; results="true"', link)
            if cursor is None:
                break
            path = f"{self._project}/keys/?cursor={cursor[1]}"
        return keys

    def event(self, event_id: str) -> Event | None:
        """The stored event of that id; None when it is not (yet) there. Raises CutoverError when it is no event."""
        data, _ = self._get(f"{self._project}/events/{event_id}/", missing=True)
        event = parse_event(data)
        if data is not None and event is None:
            raise CutoverError(
                f"the API of the {self.side.name} tracker answered with an event that has no id or no usable time"
            )
        return event

    def recent_events(self) -> list[Event]:
        """The newest page of the project's events, newest first."""
        data, _ = self._get(f"{self._project}/events/")
        return [event for item in data if (event := parse_event(item))] if isinstance(data, list) else []

    def events_since(self, since: float, pages: int) -> tuple[list[Event], float]:
        """Events that were sent after ``since`` (epoch seconds), newest first, of at most so many pages of the list.

        The second value is since when the list is complete.
        """
        found: list[Event] = []
        path = f"{self._project}/events/"
        for _ in range(pages):
            data, link = self._get(path)
            page = [event for item in data if (event := parse_event(item))] if isinstance(data, list) else []
            found += [event for event in page if event.created >= since]
            cursor = re.search(r'<[^>]*[?&]cursor=([^&>]+)[^>]*>; rel="next"; results="true"', link)
            if cursor is None or not page or page[-1].created < since:
                return found, since
            if self._left is not None and self._left() <= 0:
                break
            path = f"{self._project}/events/?cursor={cursor[1]}"
        return found, min((event.created for event in found), default=since)


def verify_dsn(tracker: Tracker, dsn: Dsn) -> None:
    """Check by reads alone that ``dsn`` belongs to the tracker's project.

    A wrong key is never tried out by posting: one such request makes GlitchTip refuse the whole project for
    30 s. Raises CutoverError with one sentence when it does not belong.
    """
    project_id = tracker.project_id()
    wanted = tracker.side.project_id or project_id
    if wanted != project_id:
        raise CutoverError(f"{tracker.label} has the id {project_id}, but the configuration says {wanted}")
    if dsn.project_id != project_id:
        raise CutoverError(
            f"the new DSN belongs to project {dsn.project_id}, but {tracker.label} has the id {project_id}"
        )
    if dsn.key.lower() not in tracker.public_keys():
        raise CutoverError(f"the key of the new DSN is none of the keys of {tracker.label}")


def send_test_event(dsn: Dsn, tags: Mapping[str, str], message: str, now: float) -> str:
    """Send one event with ``dsn`` and return its id. Raises CutoverError when it was not accepted."""
    event_id = uuid.uuid4().hex
    event = json.dumps(
        {
            "event_id": event_id,
            "timestamp": now,
            "platform": "other",
            "level": "info",
            "logger": "ai-admin-cutover",
            "message": {"formatted": message},
            "tags": {**tags, PROBE_TAG: "gate"},
        }
    ).encode()
    header = json.dumps({"event_id": event_id}).encode()
    item = json.dumps({"type": "event", "length": len(event)}).encode()
    headers = {
        "Content-Type": "application/x-sentry-envelope",
        "X-Sentry-Auth": f"Sentry sentry_version=7, sentry_client={_CLIENT}, sentry_key={dsn.key}",
    }
    body = b"\n".join((header, item, event, b""))
    status = _exchange(dsn.envelope_url, f"the tracker at {dsn.netloc}", headers, body=body).status
    if status != 200:
        raise CutoverError(
            f"the tracker at {dsn.netloc} answered {status} to a test event sent with the new DSN"
        )
    return event_id


def await_event(
    tracker: Tracker,
    event_id: str,
    timeout: float,
    *,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Event | None:
    """Ask for the event of that id until it is stored; None after ``timeout`` seconds."""
    deadline = monotonic() + timeout
    while True:
        event = tracker.event(event_id)
        if event is not None or monotonic() >= deadline:
            return event
        sleep(0.5)
