"""Gathering the proofs of many services in as little time as the slowest of them needs.

A service that stays silent is probed; the probes' events are awaited together. With an end (``until``) nothing
takes longer than that, and a tracker that does not answer is left out instead of failing the whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from .api import Event, Tracker
from .config import Config, Side
from .errors import CutoverError, ServiceError
from .heard import Attribution
from .host import Host
from .manager import Process, manager_label
from .proof import Proof, environment_problem
from .services import Services
from .targets import Target

_EVENT_POLL = 0.5
# Of the time that there is, the part in which services may report by themselves before they are probed.
_OWN_SHARE = 3
ACCEPTED = "accepted, not read back"


@dataclass
class _Readers:
    """The trackers that are asked; with ``until`` one that failed is not asked again."""

    host: Host
    until: float | None
    trackers: dict[Side, Tracker] = field(default_factory=dict)
    unread: dict[Side, str] = field(default_factory=dict)

    def of(self, side: Side) -> Tracker:
        if side not in self.trackers:
            tracker = self.host.tracker(side)
            until = self.until
            if until is not None:
                tracker = tracker.within(lambda: until - self.host.monotonic())
            self.trackers[side] = tracker
        return self.trackers[side]

    def recent(self, side: Side) -> list[Event]:
        try:
            return self.of(side).recent_events()
        except CutoverError as error:
            self._failed(side, error)
            return []

    def holds(self, side: Side, event_id: str) -> Event | None:
        try:
            return self.of(side).event(event_id)
        except CutoverError as error:
            self._failed(side, error)
            return None

    def _failed(self, side: Side, error: CutoverError) -> None:
        if self.until is None:
            raise error
        self.unread[side] = str(error)
        self.host.progress(f"{error}; the proof goes on without it")

    def readable(self, sides: Collection[Side]) -> tuple[Side, ...]:
        return tuple(side for side in sides if side not in self.unread)


class Proving:
    """Proves services that were restarted through ``services``.

    ``unread`` holds, after ``outcomes`` with an end, why trackers could not be asked.
    """

    def __init__(self, config: Config, host: Host, services: Services) -> None:
        self._config = config
        self._host = host
        self._services = services
        self.unread: list[str] = []

    def baseline(self, target: Target, names: Collection[str]) -> set[str]:
        """Ids of the events that are there already; none of them proves anything."""
        sides = {target.sides[name][0] for name in names if target.sides[name]}
        return {event.event_id for side in sides for event in self._host.tracker(side).recent_events()}

    def outcomes(
        self, names: list[str], target: Target, baseline: Collection[str] = (), until: float | None = None
    ) -> Iterator[tuple[str, Proof | CutoverError]]:
        """A proof, or what stands against it, for each name; those that report by themselves first."""
        readers = _Readers(self._host, until)
        began = self._host.monotonic()
        pending = list(names)
        listed = self._services.processes()
        by_name: dict[str, list[Process]] = {}
        for process in listed:
            by_name.setdefault(process.name, []).append(process)
        attribution = Attribution(self._config, listed)
        probed: dict[str, tuple[Proof, float]] = {}
        while pending:
            for name, outcome in self._reported(
                pending, by_name, target, readers, probed, baseline, attribution
            ):
                pending.remove(name)
                yield name, outcome
            now = self._host.monotonic()
            if until is not None and now >= until:
                for name in pending:
                    yield name, ServiceError(f"{name}: the time for its proof was over")
                break
            silent = [
                name
                for name in pending
                if name not in probed
                and now >= self._patience(by_name[name][0], target, readers, until, began)
            ]
            if silent:
                name = silent[0]
                asked = self._probe(by_name[name], target, None if until is None else until - now)
                if isinstance(asked, CutoverError):
                    pending.remove(name)
                    yield name, asked
                else:
                    probed[name] = (asked, self._host.monotonic())
            elif pending:
                self._host.sleep(_EVENT_POLL)
        self.unread = list(readers.unread.values())

    def _patience(
        self, process: Process, target: Target, readers: _Readers, until: float | None, began: float
    ) -> float:
        """Until when this service may report by itself (monotonic seconds)."""
        since = self._since(process.name)
        if process.idle_job or not readers.readable(target.sides[process.name]):
            return since
        end = since + self._config.own_event_wait
        return end if until is None else min(end, began + (until - began) / _OWN_SHARE)

    def _since(self, name: str) -> float:
        return self._services.watched[name].since

    def _reported(
        self,
        pending: list[str],
        by_name: Mapping[str, Sequence[Process]],
        target: Target,
        readers: _Readers,
        probed: dict[str, tuple[Proof, float]],
        baseline: Collection[str],
        attribution: Attribution,
    ) -> list[tuple[str, Proof | CutoverError]]:
        """Those of ``pending`` that are decided by what the trackers hold now."""
        found: list[tuple[str, Proof | CutoverError]] = []
        recent: dict[Side, list[Event]] = {}
        for name in pending:
            instances = by_name.get(name)
            if not instances:
                found.append((name, ServiceError(f"{manager_label(self._config)} knows no service {name}")))
                continue
            sides = readers.readable(target.sides[name])
            if name in probed:
                outcome = self._read_back(name, *probed[name], sides, target.sides[name], readers)
                if outcome is not None:
                    found.append((name, outcome))
                continue
            if not sides:
                continue
            if sides[0] not in recent:
                recent[sides[0]] = readers.recent(sides[0])
            side = sides[0]
            own = attribution.find(recent[side], instances, baseline, partial(readers.holds, side))
            if own is not None and all(readers.holds(side, own.event_id) for side in sides):
                proof = Proof("own_event", own.event_id, self._seconds(name))
                found.append((name, self._problem(instances, target) or proof))
        return found

    def _read_back(
        self,
        name: str,
        proof: Proof,
        asked_at: float,
        sides: tuple[Side, ...],
        wanted: tuple[Side, ...],
        readers: _Readers,
    ) -> Proof | CutoverError | None:
        """What became of a probe's accepted event; None while it is awaited."""
        for side in sides:
            event = readers.holds(side, proof.event_id)
            if event is None:
                if side in readers.unread:
                    return None
                if self._host.monotonic() - asked_at < self._config.probe_wait:
                    return None
                return ServiceError(
                    f"the probe's event of {name} was not stored by the {side.name} tracker "
                    f"within {self._config.probe_wait:g} s"
                )
            if event.tags.get(self._config.service_tag) != name:
                return ServiceError(f"the probe's event of {name} came back without its tag")
        note = proof.note if not sides or len(sides) < len(wanted) or proof.note != ACCEPTED else ""
        return replace(proof, seconds=self._seconds(name), note=note)

    def _seconds(self, name: str) -> float:
        return round(self._host.monotonic() - self._since(name), 1)

    def _problem(self, instances: Sequence[Process], target: Target) -> CutoverError | None:
        """What speaks against a service that was heard: the event is of one instance, and others may differ."""
        if len(instances) == 1:
            return None
        try:
            for process in instances:
                if problem := environment_problem(self._config, process, target.services[process.name]):
                    return ServiceError(problem)
        except CutoverError as error:
            return error
        return None

    def _probe(
        self, instances: Sequence[Process], target: Target, limit: float | None
    ) -> Proof | CutoverError:
        """Have a probe's event accepted, and see that the service's processes are ones of after the switch."""
        process = instances[0]
        self._host.progress(f"{process.name} is silent: probing")
        try:
            old = {known.pid for known in self._services.watched[process.name].before if known.pid}
            for instance in instances:
                if instance.online and instance.pid in old:
                    raise ServiceError(f"{process.name} still runs in the process that it had before the switch")
                if problem := environment_problem(self._config, instance, target.services[process.name]):
                    raise ServiceError(problem)
            proof = self._host.prober.probe(process, target.services[process.name], None, limit)
        except CutoverError as error:
            return error if process.name in str(error) else ServiceError(f"{process.name}: {error}")
        note = "a job: its next run uses this DSN" if process.idle_job else ACCEPTED
        return Proof(proof.kind, proof.event_id, proof.seconds, note)
