"""Gathering the proofs of many services in as little time as the slowest of them needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .api import Tracker
from .config import Config
from .dsn import Dsn
from .errors import CutoverError, ServiceError
from .host import Host
from .pm2 import Process
from .proof import Proof, find_own_event
from .services import Services

_EVENT_POLL = 0.5


class Proving:
    """Proves services that were restarted through ``services``."""

    def __init__(self, config: Config, host: Host, services: Services) -> None:
        self._config = config
        self._host = host
        self._services = services

    def outcomes(
        self, names: list[str], expected: Mapping[str, Dsn], tracker: Tracker | None, baseline: set[str]
    ) -> Iterator[tuple[str, Proof | CutoverError]]:
        """A proof, or what stands against it, for each name; those that report by themselves first."""
        pending = list(names)
        listed = self._services.processes()
        by_name = {process.name: process for process in listed}
        while pending:
            events = tracker.recent_events() if tracker is not None else []
            for name in tuple(pending):
                process = by_name.get(name)
                if process is None:
                    pending.remove(name)
                    yield name, ServiceError(f"PM2 knows no service {name}")
                    continue
                since = self._services.watched[name].since
                own = find_own_event(events, self._config.service_tag, process, baseline)
                if own is not None and tracker is not None and tracker.event(own.event_id) is not None:
                    pending.remove(name)
                    yield name, Proof("own_event", own.event_id, round(self._host.monotonic() - since, 1))
            for name in tuple(pending):
                process = by_name[name]
                since = self._services.watched[name].since
                wait = self._config.own_event_wait if tracker is not None and not process.idle_job else 0.0
                if self._host.monotonic() - since >= wait:
                    pending.remove(name)
                    yield name, self._probe(process, expected[name], tracker, since)
                    break
            else:
                if pending:
                    self._host.sleep(_EVENT_POLL)

    def _probe(
        self, process: Process, expected: Dsn, tracker: Tracker | None, since: float
    ) -> Proof | CutoverError:
        """Probe one service, and check that its process is one of after the switch."""
        self._host.progress(f"{process.name} is silent: probing")
        try:
            old = {known.pid for known in self._services.watched[process.name].before if known.pid}
            if process.online and process.pid in old:
                raise ServiceError(f"{process.name} still runs in its process of before the switch")
            proof = self._host.prober.probe(process, expected, tracker)
        except CutoverError as error:
            return error if process.name in str(error) else ServiceError(f"{process.name}: {error}")
        note = "a job: its next run uses this DSN" if process.idle_job else proof.note
        return Proof(proof.kind, proof.event_id, round(self._host.monotonic() - since, 1), note)
