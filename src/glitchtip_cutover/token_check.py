"""Whether a tracker can be read with a token that was given, before the token is written anywhere."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .api import Tracker
from .config import Side
from .errors import CutoverError

_LIMIT = 20.0
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
#: What people leave in place of a token; Sentry's are at least 32 signs long.
_PLACEHOLDER = re.compile(r"replace[-_ ]?me|change[-_ ]?(?:me|it)|your[-_ ]?token|^<.*>$|^x+$", re.IGNORECASE)


@dataclass(frozen=True)
class Given:
    """The tracker as an operator described it: ``variables`` is the prefix of the variables (``ops_sentry``)."""

    variables: str
    address_variable: str
    address: str
    organization: str
    project: str
    token: str = field(repr=False)


class _GivenTracker(Tracker):
    """Reads with a token from memory."""

    def __init__(self, side: Side, token: str, place: str) -> None:
        super().__init__(side)
        self._given = token
        self._place = place

    def _token(self) -> str:
        return self._given

    @property
    def _token_place(self) -> str:
        return self._place


def tracker_problems(given: Given, monotonic: Callable[[], float] = time.monotonic) -> tuple[list[str], str]:
    """What keeps the tracker from being read, a sentence each, and the id of its project (empty: not known).

    Asks for the project and its newest events: that is what later phases do with the token.
    """
    problems = _incomplete(given)
    if problems:
        return problems, ""
    token = f"{given.variables}_token"
    side = Side("old", given.address.rstrip("/"), given.organization, given.project, Path("/nowhere"))
    until = monotonic() + _LIMIT
    tracker = _GivenTracker(side, given.token, token).within(lambda: until - monotonic())
    advice = f"Correct it, or set {given.address_variable} and {token} to \"\" to do without"
    try:
        number = tracker.project_id()
        tracker.recent_events()
    except CutoverError as error:
        text = str(error)
        if f"refused {token} (401)" in text:
            text += ": the token is wrong, revoked or expired"
        elif f"refused {token} (403)" in text:
            text += ": the token lacks a scope (event:read, project:read) or may not see the project"
        return [f"{text}. {advice}."], ""
    return [], number


def _incomplete(given: Given) -> list[str]:
    """Settings that are missing or cannot be right, before anybody is asked."""
    problems = []
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s?#]*)?", given.address):
        problems.append(f"{given.address_variable} must be an http or https address without user and password.")
    for name, value in (("organization", given.organization), ("project", given.project)):
        if not _SLUG.fullmatch(value):
            problems.append(f"{given.variables}_{name} must be the slug from the address of its pages ({value or 'it is empty'}).")
    if not given.token.strip():
        problems.append(f"{given.variables}_token is empty although {given.address_variable} is set; set both or neither.")
    elif _PLACEHOLDER.search(given.token) or len(given.token.split()) != 1 or not given.token.isascii():
        problems.append(f"{given.variables}_token is a placeholder or no token; put the real one into the vault.")
    return problems
