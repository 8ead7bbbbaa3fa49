"""The two trackers as the comparison reads them: a project's events of a window, and one event whole.

Both speak the same paths. What differs on a real Sentry, from its API reference and its public source:

- ``GET projects/{o}/{p}/events/`` needs ``project:read``, takes ``start`` and ``end`` (only together), gives 100
  a page and no stack traces, and allows 60 requests a minute and one at a time for a caller. GlitchTip (5.2,
  measured) ignores ``start`` and ``end`` there, so that the window is applied here again, on both sides.
- Times in that list are whole seconds; GlitchTip's have milliseconds.
- ``GET projects/{o}/{p}/events/{id}/`` needs ``project:read``: 5 requests a second.
- A slug that was renamed answers 302; it is not followed, because the token would go along.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from glitchtip_api import Client, GlitchTipError
from glitchtip_api.errors import InvalidError
from glitchtip_api.resources.base import path_of
from glitchtip_api.resources.events import normal_event

from ..process import OpsError
from ..settings import Settings, settings_directory
from .window import PADDING, Window, epoch

SETTINGS_FILE = "sentry.json"
TOKEN_FILE = "sentry-token"  # noqa: S105 - the name of a file
REQUESTS_A_MINUTE: int | None = 50  # Sentry allows 60 for its list of events
REQUESTS_A_SECOND: int | None = 4  # Sentry allows 5 for single events
SCOPES = "project:read, event:read and org:read"
_HOW = (
    "set ops_sentry_url, ops_sentry_organization, ops_sentry_project and ops_sentry_token"
    " and run playbooks/phase2_deploy.yml"
)


@dataclass(frozen=True)
class SentrySettings:
    """Where Sentry is read. ``plan_ends`` (ISO date or empty) and ``cost_per_year`` are for the checklist."""

    url: str
    organization: str
    project: str
    plan_ends: str = ""
    cost_per_year: float = 0.0
    token: str = field(default="", repr=False)


def load_sentry_settings(directory: Path | None = None) -> SentrySettings:
    """Read sentry.json and sentry-token.

    Raises:
        OpsError: one is missing, not readable by this user, damaged, or lacks a value.
    """
    directory = directory or settings_directory()
    path = directory / SETTINGS_FILE
    try:
        document = json.loads(_read(path))
    except ValueError:
        raise OpsError(f"{path} is not JSON; {_HOW}.") from None
    if not isinstance(document, dict):
        raise OpsError(f"{path} must hold one JSON object; {_HOW}.")
    missing = [name for name in ("url", "organization", "project") if not str(document.get(name) or "")]
    if missing:
        raise OpsError(f"{path} lacks {', '.join(missing)}; {_HOW}.")
    token = _read(directory / TOKEN_FILE).strip()
    if not token:
        raise OpsError(f"{directory / TOKEN_FILE} is empty; {_HOW}.")
    cost = document.get("cost_per_year") or 0
    return SentrySettings(
        url=str(document["url"]),
        organization=str(document["organization"]),
        project=str(document["project"]),
        plan_ends=str(document.get("plan_ends") or ""),
        cost_per_year=float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) else 0.0,
        token=token,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise OpsError(f"{path} is missing, so Sentry cannot be read; {_HOW}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OpsError(f"{path} cannot be read: {error}; run this as root or as glitchtip-ops.") from None


def sentry_client(settings: SentrySettings) -> Client:
    """A client that only reads, at Sentry's pace. Raises OpsError for an address or a token that is none."""
    try:
        return Client(
            settings.url,
            settings.token,
            read_only=True,
            per_second=REQUESTS_A_SECOND,
            per_minute=REQUESTS_A_MINUTE,
            concurrent=1,
            user_agent="glitchtip-ops/1",
        )
    except InvalidError as error:
        raise OpsError(f"Sentry cannot be read: {error}.") from None


def plain_http(url: str) -> bool:
    """Whether a token would go over the network unencrypted."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost")


class Side:
    """One tracker's project. ``name`` is ``Sentry`` or ``GlitchTip``, for sentences."""

    def __init__(self, name: str, client: Client, organization: str, project: str) -> None:
        self.name = name
        self.client = client
        self.organization = organization
        self.project = project
        self._path = path_of("projects", organization, project)

    def check(self) -> None:
        """See that the project is there. Raises OpsError, one sentence, when it is not or may not be read.

        A list of a project that is not there is empty on GlitchTip, not a failure (5.2, measured).
        """
        where = f"project {self.organization}/{self.project} at {self.client.url}"
        try:
            found = self.client.get(self._path)
        except GlitchTipError as error:
            raise OpsError(_sentence(self.name, where, error)) from None
        if not isinstance(found, dict) or "id" not in found:
            raise OpsError(f"{self.name} described {where} without an id; is that the address of its API?")

    def events(self, window: Window) -> Iterator[dict[str, Any]]:
        """Events around the window (``PADDING`` seconds more at both ends), newest first, a page at a time.

        Reading ends with the first event older than that. Raises OpsError when Sentry or GlitchTip refuses.
        """
        params = {
            "per_page": 100,
            "start": _param(window.since - PADDING),
            "end": _param(window.until + PADDING),
        }
        oldest = window.since - PADDING
        try:
            for found in self.client.paginate(f"{self._path}events/", params):
                event = normal_event(found)
                created = epoch(event.get("dateCreated"))
                received = epoch(event.get("dateReceived"))
                order = created if received is None else received
                if order is not None and order < oldest:
                    return
                if created is not None and oldest <= created < window.until + PADDING:
                    yield event
        except GlitchTipError as error:
            raise OpsError(_sentence(self.name, "the list of events", error)) from None

    def event(self, event_id: str) -> dict[str, Any] | None:
        """One event whole, with its level under ``level`` where the tracker tells it; None without it."""
        try:
            event = self.client.events.get(self.organization, self.project, event_id)
            if event is None:
                return None
            event = normal_event(event)
            if "level" not in tags_of(event):
                event["level"] = self._level(event)
        except GlitchTipError as error:
            raise OpsError(_sentence(self.name, f"event {event_id}", error)) from None
        return event

    def _level(self, event: Mapping[str, Any]) -> str | None:
        """GlitchTip tells an event's level only in its raw form; Sentry as a tag."""
        raw = self.client.issues.event_json(self.organization, str(event["groupID"]), str(event["eventID"]))
        return None if raw is None or not raw.get("level") else str(raw["level"])


def glitchtip_side(settings: Settings) -> Side:
    """The GlitchTip of this host. Raises OpsError for settings that are none."""
    try:
        client = Client(settings.url, settings.token, read_only=True)
    except InvalidError as error:
        raise OpsError(f"GlitchTip cannot be read: {error}.") from None
    return Side("GlitchTip", client, settings.organization, settings.project)


def sentry_side(settings: SentrySettings) -> Side:
    """The Sentry of the settings."""
    return Side("Sentry", sentry_client(settings), settings.organization, settings.project)


def tags_of(event: Mapping[str, Any]) -> dict[str, str]:
    """An event's tags as an object, whatever form they came in."""
    tags = event.get("tags")
    if isinstance(tags, Mapping):
        return {str(key): str(value) for key, value in tags.items()}
    return {
        str(tag["key"]): str(tag.get("value"))
        for tag in tags or []
        if isinstance(tag, Mapping) and "key" in tag
    }


def _param(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _sentence(name: str, what: str, error: GlitchTipError) -> str:
    """Why a tracker could not be read, for people."""
    if error.status == 401:
        token = f"the token in {TOKEN_FILE}" if name == "Sentry" else "its token"
        return f"{name} refused {token} ({error.status}): it is wrong, revoked or expired; give a new one."
    if error.status == 403:
        return (
            f"{name} does not let this token read {what} (403): it needs {SCOPES}, and its user a membership."
        )
    if error.code == "not_found":
        return f"{name} knows no {what}, or the token's user is not a member there."
    if error.code in ("redirect", "login_page"):
        return (
            f"{name} redirects {what} elsewhere, which is not followed with a token: {error.detail};"
            " was the project renamed, or is its data in another region (us.sentry.io, de.sentry.io)?"
        )
    if error.status == 429:
        return f"{name} asks to come back later ({what}, 429); its limit is for all who use this account."
    return f"{name} could not be read ({what}): {error}"
