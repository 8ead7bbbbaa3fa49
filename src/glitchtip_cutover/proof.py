"""Proof that a service really reports to a DSN: an event that came back through the API, never file content.

Two ways: ``own_event`` is an event that the service itself captured after its restart; ``probe`` is a
one-shot Node.js process that stands in for a silent service: its manager runs it with the service's user,
working directory and environment.
"""

from __future__ import annotations

import json
import pkgutil
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from .api import PROBE_TAG, Event, Tracker, await_event
from .config import Config
from .dsn import Dsn
from .errors import CutoverError, ServiceError
from .manager import Manager, Process, manager_for

_PROBE_FLUSH_MS = 10000
_PROBE_TIMEOUT = 60.0


@dataclass(frozen=True)
class Proof:
    """How a service was proven: ``kind`` own_event, probe or none; the event read back; seconds taken."""

    kind: str
    event_id: str = ""
    seconds: float = 0.0
    note: str = ""


SERVER_TAG = "server_name"


def is_own(event: Event, tag: str, process: Process, servers: Collection[str] = ()) -> bool:
    """Whether a service captured this event, and not one of its probes, nor its namesake on another server.

    Several servers of a product may report to one project, with the same services. SDKs name the server in each event:
    one that names another is not ours. ``servers`` are further names by which this service is known to go.
    """
    server = event.tags.get(SERVER_TAG, "")
    return (
        event.tags.get(tag) == process.name
        and PROBE_TAG not in event.tags
        and (not server or server == process.server_name or server in servers)
    )


def find_own_event(
    events: Collection[Event],
    tag: str,
    process: Process,
    baseline: Collection[str],
    servers: Collection[str] = (),
) -> Event | None:
    """The newest event that this very process captured: see ``is_own``, made after it started.

    ``baseline`` holds the ids that were there before the restart. The sender's time and the manager's start time
    come from the same clock.
    """
    for event in events:
        if (
            event.event_id not in baseline
            and event.created >= process.started_at
            and is_own(event, tag, process, servers)
        ):
            return event
    return None


def instrument_path(config: Config, process: Process) -> str:
    """The instrument file of a service: below its working directory when there is one, else the product's.

    In a container it is the image's own and stands below the image's working directory. Raises ServiceError
    where this host can see that there is none.
    """
    own = Path(process.cwd) / config.instrument
    if process.container or own.is_file():
        return str(own)
    common = config.app_dir / config.instrument
    if not common.is_file():
        raise ServiceError(f"the probe of {process.name} failed: there is no {common}")
    return str(common)


def read_report(output: str, marker: str) -> Mapping[str, object]:
    """The probe's report among whatever the product printed. Raises CutoverError when there is none."""
    for line in reversed(output.splitlines()):
        if line.startswith(marker):
            report = json.loads(line[len(marker) :])
            if isinstance(report, dict):
                return report
    raise CutoverError("the probe ended without a report")


def check_report(report: Mapping[str, object], expected: Dsn, service: str) -> None:
    """Raise ServiceError unless the SDK client of the probe used exactly the ``expected`` DSN."""
    if report.get("problem"):
        raise ServiceError(f"the probe of {service} failed: {report['problem']}")
    found = (report.get("host"), str(report.get("project_id")), report.get("key_sha256"))
    if found[:2] != (expected.netloc, expected.project_id):
        raise ServiceError(
            f"{service} would still report to {found[0]} project {found[1]}, "
            f"not to {expected.netloc} project {expected.project_id}"
        )
    if found[2] != expected.key_sha256:
        raise ServiceError(f"{service} would report to {expected.netloc} with another key")


class Prober:
    """Runs probes for one configuration."""

    def __init__(
        self,
        config: Config,
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
        manager: Manager | None = None,
    ) -> None:
        self.config = config
        self._manager = manager or manager_for(config)
        self._monotonic = monotonic
        self._sleep = sleep

    def probe(
        self, process: Process, expected: Dsn, tracker: Tracker | None, limit: float | None = None
    ) -> Proof:
        """Prove one service by a probe. Raises ServiceError when it is not on the ``expected`` DSN.

        Without a tracker to read from, an accepting answer (2xx) of the transport has to do. ``limit`` is how
        many seconds the probe's process may take.
        """
        began = self._monotonic()
        event_id = uuid.uuid4().hex
        report = self._run(process, event_id, limit)
        check_report(report, expected, process.name)
        if tracker is None:
            status = report.get("status")
            if not isinstance(status, int) or not 200 <= status < 300:
                raise ServiceError(f"{expected.netloc} did not accept the probe's event of {process.name}")
            return Proof("probe", event_id, self._monotonic() - began, "accepted, not read back")
        event = await_event(
            tracker, event_id, self.config.probe_wait, monotonic=self._monotonic, sleep=self._sleep
        )
        if event is None:
            raise ServiceError(
                f"the probe's event of {process.name} was not stored within {self.config.probe_wait:g} s"
            )
        if event.tags.get(self.config.service_tag) != process.name:
            raise ServiceError(f"the probe's event of {process.name} came back without its tag")
        return Proof("probe", event_id, self._monotonic() - began)

    def uses(self, process: Process, expected: Dsn) -> int | None:
        """HTTP status of the answer to a probe's event, None when nothing answered.

        Raises ServiceError when the service would use another DSN than ``expected``.
        """
        report = self._run(process, uuid.uuid4().hex)
        check_report(report, expected, process.name)
        status = report.get("status")
        return status if isinstance(status, int) else None

    def _run(self, process: Process, event_id: str, limit: float | None = None) -> Mapping[str, object]:
        script = pkgutil.get_data(__package__, "probe.mjs")
        if script is None:
            raise CutoverError("the probe script is missing from this program")
        timeout = _PROBE_TIMEOUT if limit is None else max(2.0, min(_PROBE_TIMEOUT, limit))
        marker = f"@@cutover-probe-{uuid.uuid4().hex}@@"
        request = {
            "marker": marker,
            "event_id": event_id,
            "service": process.name,
            "instrument": instrument_path(self.config, process),
            "tags": {self.config.service_tag: process.name, PROBE_TAG: "service"},
            "flush_ms": int(min(_PROBE_FLUSH_MS, timeout * 500)),
        }
        done = self._manager.run_node(
            process, ["--input-type=module", "-", json.dumps(request)], script.decode(), timeout
        )
        return read_report(done.output, marker)
