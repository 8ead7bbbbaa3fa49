"""Services that have to be heard themselves before a switch is confirmed, because they report often enough."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from glitchtip_core.files import read_json, write_json
from glitchtip_core.transaction.journal import Journal
from glitchtip_core.transaction.state import State
from glitchtip_core.transaction.store import Store

from .api import Event
from .config import Config
from .heard import Attribution
from .host import Host
from .proof import Proof
from .services import Services, of
from .targets import Target

_FILE = "awaited.json"


class Awaited:
    """The list of an attempt, kept beside its states: for each service how many events are expected within the confirm
    window; when its switch began (epoch seconds); and the ids of the events that the new tracker held then (``known``).

    Whether an event is new is told by its id: the host's clock may be set, and the tracker's is another one.
    """

    def __init__(
        self, config: Config, host: Host, store: Store, journal: Journal, services: Services
    ) -> None:
        self._config = config
        self._host = host
        self._store = store
        self._journal = journal
        self._services = services

    def record(
        self,
        attempt: int,
        began: float,
        known: Collection[str],
        proofs: Mapping[str, Proof],
        talking: Mapping[str, float],
    ) -> dict[str, float]:
        """Keep which services are still to be heard, and return them. Accepted ones are not awaited."""
        names = {
            name: expected
            for name, expected in talking.items()
            if name in proofs
            and proofs[name].kind != "own_event"
            and name not in self._config.accept_unproven
        }
        document = {"began": began, "known": sorted(known), "services": names}
        write_json(self._store.attempt_directory(attempt) / _FILE, document)
        return names

    def hear(self, state: State, target: Target, skipped: Collection[str] = ()) -> list[str]:
        """Look for events of the awaited services once more; a sentence for each that is still silent.

        What was heard is journalled and becomes the service's proof.
        """
        path = self._store.attempt_directory(state.attempt) / _FILE
        stored = read_json(path)
        document: dict[str, Any] = stored if isinstance(stored, dict) else {"services": {}}
        awaited: dict[str, float] = document["services"]
        names = [name for name in awaited if name not in skipped and name in target.sides]
        if not names:
            return []
        listed = self._services.processes()
        attribution = Attribution(self._config, listed)
        heard: dict[str, str] = {}
        for name in names:
            sides = target.sides[name]
            tracker = self._host.tracker(sides[0])
            # A job that rests has not run since: what the tracker had before the switch proves nothing.
            fresh = [event for event in tracker.recent_events() if _is_new(event, document)]
            event = attribution.find(fresh, of(listed, name), (), tracker.event)
            if event is not None and all(self._host.tracker(side).event(event.event_id) for side in sides):
                heard[name] = event.event_id
        for name, event_id in heard.items():
            self._journal.append("heard", service=name, event_id=event_id)
            self._host.progress(f"{name}: own_event {event_id}")
        if heard:
            self._keep(heard)
            left = {name: expected for name, expected in awaited.items() if name not in heard}
            write_json(path, {**document, "services": left})
        return [
            f"{name} was not heard since its restart, although about {awaited[name]:g} events are expected within the "
            f"confirm window of {self._config.confirm_window:g} s: it may still report elsewhere"
            for name in names
            if name not in heard
        ]

    def _keep(self, heard: Mapping[str, str]) -> None:
        """Put the events into the rows of the applied change."""
        path = self._config.state_dir / "applied.json"
        stored = read_json(path)
        if not isinstance(stored, dict):
            return
        for row in stored["services"]:
            if row["name"] in heard:
                row.update(proof="own_event", event_id=heard[row["name"]], note="")
        write_json(path, stored)


def _is_new(event: Event, document: Mapping[str, Any]) -> bool:
    """Whether the tracker got an event after the switch began; a list of an earlier version tells it by the date alone."""
    known = document.get("known")
    return event.event_id not in known if isinstance(known, list) else bool(event.created >= document["began"])
