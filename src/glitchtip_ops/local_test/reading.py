"""Finding events by their ids without asking for each: pages of the project's list, newest first.

A thousand single requests per round would weigh more on the server than the burst itself. So a round reads pages
as long as they bring something new. Batches may be stored out of order: a round after a fruitless one reads down to
the newest event of before the test. Only a few ids that are still missing are asked one by one, and at the very end
every one that no page showed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from glitchtip_api import Client, GlitchTipError
from glitchtip_api.paging import PAGE_SIZE

POLL = 0.4
FEW = 5
_PARALLEL = 4
_MOST_PAGES = 200


@dataclass
class Found:
    """Ids that could be read: the wall time in seconds at which each was seen first, and its issue."""

    seen: dict[str, float] = field(default_factory=dict)
    issues: dict[str, str] = field(default_factory=dict)


class Reader:
    """Reads one project. ``clock`` is wall time in seconds, ``sleep`` waits."""

    def __init__(
        self,
        client: Client,
        organization: str,
        project: str,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.client = client
        self.organization = organization
        self.project = project
        self.clock = clock
        self.sleep = sleep
        self._mark: str | None = None

    def mark(self) -> None:
        """Remember the newest event: what is older is none of the events that are looked for."""
        path = f"/api/0/projects/{self.organization}/{self.project}/events/"
        newest = self.client.get(path, {"limit": 1})
        self._mark = str(newest[0].get("eventID")) if isinstance(newest, list) and newest else None

    def await_all(
        self, ids: Sequence[str], sending: Callable[[], bool], patience: float, grace: float
    ) -> tuple[Found, float]:
        """Look until every id is there, or ``patience`` + ``grace`` seconds after the sending ended.

        Args:
            ids: 32 lower-case hexadecimal digits each.
            sending: whether events may still leave; raises what made it end early.

        Returns what was found, and the wall time until which an event is on time. Raises GlitchTipError when
        the API refuses or stays away.
        """
        found = Found()
        missing = set(ids)
        on_time: float | None = None
        fruitful = True
        while True:
            if on_time is None and not sending():
                on_time = self.clock() + patience
            last = on_time is not None and self.clock() >= on_time + grace
            before = len(missing)
            self._pages(missing, found, deep=last or not fruitful)
            if missing and (last or len(missing) <= FEW):
                self._one_by_one(missing, found)
            fruitful = len(missing) < before
            if not missing or last:
                return found, on_time if on_time is not None else self.clock() + patience
            self.sleep(POLL)

    def _pages(self, missing: set[str], found: Found, *, deep: bool) -> None:
        """Take what the list shows: up to the first page without anything new, or with ``deep`` to the mark."""
        listed = self.client.events.iterate(self.organization, self.project)
        for _ in range(_MOST_PAGES):
            page = list(islice(listed, PAGE_SIZE))
            new = [event for event in page if event.get("eventID") in missing]
            self._take(new, missing, found)
            marked = any(event.get("eventID") == self._mark for event in page)
            if not missing or marked or len(page) < PAGE_SIZE or not (new or deep):
                return

    def _one_by_one(self, missing: set[str], found: Found) -> None:
        with ThreadPoolExecutor(max_workers=_PARALLEL) as executor:
            for event in executor.map(self.event, sorted(missing)):
                self._take([event] if event else [], missing, found)

    def _take(self, events: Sequence[dict[str, Any]], missing: set[str], found: Found) -> None:
        now = self.clock()
        for event in events:
            event_id = str(event["eventID"])
            missing.discard(event_id)
            found.seen[event_id] = now
            found.issues[event_id] = str(event["groupID"])

    def event(self, event_id: str) -> dict[str, Any] | None:
        """One event whole, None when it is not there."""
        return self.client.events.get(self.organization, self.project, event_id)

    def level(self, event_id: str, issue: str) -> Any:
        """The level of one event: only its raw form has it. The issue's, where the server has no raw form."""
        path = f"/api/0/organizations/{self.organization}/issues/{issue}/events/{event_id}/json/"
        try:
            raw = self.client.get(path)
            if isinstance(raw, dict) and "level" in raw:
                return raw["level"]
        except GlitchTipError:
            pass  # missing is 500 on the 5.2 line; the issue tells instead
        return (self.client.issues.get(issue) or {}).get("level")
