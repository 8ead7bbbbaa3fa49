"""Which service captured an event, and how often a service is heard.

An event names its service by a tag. Where it has none, or one that names no configured service, the start time of
the process that sent it does: SDKs for Node.js report it in every event, and the kernel knows when each service's
process was started. It counts only where it fits the processes of one service alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from .api import PROBE_TAG, Event, Tracker
from .config import Config, Side
from .errors import CutoverError, InterruptedRunError
from .host import Host
from .manager import Process
from .proof import SERVER_TAG, is_own
from .running import service_processes

DAY = 86400.0
# From this many events within the confirm window on, a service has to be heard itself.
TALKS = 3.0
# So many events of one process say something about its rate, however short it has run.
_ENOUGH = 3
_PAGES = 5
_READ_SECONDS = 10.0
_DETAILS = 40
# The SDK's start time is taken when Node.js is up: that much later than the kernel's.
_EARLIER, _LATER = 0.2, 2.0

Detail = Callable[[str], Event | None]


class Attribution:
    """Tells whose an event is. ``listed`` are all processes that run now, those of other services too."""

    def __init__(self, config: Config, listed: Iterable[Process]) -> None:
        self._config = config
        self._listed = list(listed)
        self._starts: list[tuple[str, float]] = []
        self._whole: dict[str, Event | None] = {}
        for process in self._listed:
            if process.online:
                with suppress(CutoverError):
                    self._starts += [
                        (process.name, running.started_at)
                        for running, _ in service_processes(process.name, process.pid, process.command)
                        if running.started_at
                    ]

    def find(
        self,
        events: Collection[Event],
        instances: Sequence[Process],
        baseline: Collection[str],
        detail: Detail,
        servers: Collection[str] = (),
    ) -> Event | None:
        """The newest event that one of these instances of a service captured since it was started."""
        since = min((process.started_at for process in instances), default=0.0)
        for event in events:
            if event.event_id in baseline or event.created < since or PROBE_TAG in event.tags:
                continue
            if any(self._is_of(event, process, detail, servers) for process in instances):
                return event
        return None

    def is_of(self, event: Event, process: Process, detail: Detail) -> bool:
        """Whether the process's service captured this event."""
        return PROBE_TAG not in event.tags and self._is_of(event, process, detail, ())

    def _is_of(self, event: Event, process: Process, detail: Detail, servers: Collection[str]) -> bool:
        tag = self._config.service_tag
        if self.is_named(event):
            return is_own(event, tag, process, servers)
        server = event.tags.get(SERVER_TAG, "")
        if server and server != process.server_name and server not in servers:
            return False
        return self._sender(event, detail) == process.name

    def is_named(self, event: Event) -> bool:
        """Whether its tag names a service of ours."""
        named = event.tags.get(self._config.service_tag)
        return named in self._config.services or named in self._config.without_sdk

    def _sender(self, event: Event, detail: Detail) -> str | None:
        """Name of the only service that has a process which was started when the event's was."""
        started = event.process_started
        if started is None and not event.whole:
            if event.event_id not in self._whole and len(self._whole) < _DETAILS:
                self._whole[event.event_id] = detail(event.event_id)
            whole = self._whole.get(event.event_id)
            started = whole.process_started if whole else None
        if started is None:
            return None
        names = {name for name, begun in self._starts if -_EARLIER <= started - begun <= _LATER}
        return names.pop() if len(names) == 1 else None


@dataclass(frozen=True)
class Rate:
    """Events of one service: how many were counted over how many seconds, and when the newest was sent."""

    events: int
    seconds: float
    newest: float = 0.0

    def within(self, window: float) -> float:
        """How many of them are to be expected in ``window`` seconds."""
        return self.events * window / self.seconds if self.seconds > 0 else 0.0


def rates(config: Config, host: Host, listed: Sequence[Process], sides: Iterable[Side]) -> dict[str, Rate]:
    """How often each service was heard in the last 24 h, as far as these trackers can be read."""
    found: dict[str, Rate] = {}
    now = host.clock()
    attribution = Attribution(config, listed)
    until = host.monotonic() + _READ_SECONDS
    for side in sides:
        try:
            tracker = host.tracker(side).within(lambda: until - host.monotonic())
            events, since = tracker.events_since(now - DAY, _PAGES)
            counted = _count(config, attribution, listed, events, since, now, tracker)
        except InterruptedRunError:
            raise
        except CutoverError as error:
            host.progress(f"{error}; how often the services report there is not known")
            continue
        for name, rate in counted.items():
            known = found.get(name, Rate(0, 0.0))
            if rate.within(DAY) > known.within(DAY):
                found[name] = rate
    return found


def _count(
    config: Config,
    attribution: Attribution,
    listed: Sequence[Process],
    events: Sequence[Event],
    since: float,
    now: float,
    tracker: Tracker,
) -> Mapping[str, Rate]:
    """Events are counted over the whole time, and since the service's process began where they are enough to go by.

    Of those without a name, which only tell about that process, a few are looked at.
    """
    nameless = [event for event in events if not attribution.is_named(event)][:_DETAILS]
    seen_since = nameless[-1].created if len(nameless) == _DETAILS else since
    found: dict[str, Rate] = {}
    for name in config.services:
        instances = [process for process in listed if process.name == name]
        if not instances:
            continue

        def own(some: Sequence[Event], mine: Sequence[Process] = instances) -> list[float]:
            return [
                event.created
                for event in some
                if any(attribution.is_of(event, process, tracker.event) for process in mine)
            ]

        named = own([event for event in events if attribution.is_named(event)])
        others = own(nameless)
        began = max(since, min(process.started_at for process in instances))
        lately = [created for created in named if created >= began]
        candidates = (
            (named, since, 1),
            (lately, began, _ENOUGH),
            (others, max(seen_since, began), _ENOUGH),
        )
        rates_found = [
            Rate(len(times), max(now - start, 1.0), max(times))
            for times, start, enough in candidates
            if len(times) >= enough
        ]
        if rates_found:
            found[name] = max(rates_found, key=lambda rate: rate.within(DAY))
    return found


def talkers(
    config: Config, counted: Mapping[str, Rate], listed: Iterable[Process], now: float
) -> dict[str, float]:
    """Services that are to be heard themselves, with how many events are expected within the confirm window.

    A job reports when it runs: it counts only where it was heard within the last such window.
    """
    window = config.confirm_window or config.own_event_wait
    jobs = {process.name for process in listed if process.cron_job}
    return {
        name: round(rate.within(window), 1)
        for name, rate in counted.items()
        if rate.within(window) >= TALKS and (name not in jobs or rate.newest >= now - window)
    }
