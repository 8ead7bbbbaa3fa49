"""Proof that a service really reports to a DSN: an event that came back through the API, never file content.

Two ways: ``own_event`` is an event that the service itself captured after its restart; ``probe`` is a
one-shot Node.js process that stands in for a silent service: it is started just as the service's running process
was, and judges the SDK client that the service's own start sets up (see ``probe.mjs``).
"""

from __future__ import annotations

import base64
import hashlib
import json
import pkgutil
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from glitchtip_core.dsn import Dsn, shown
from glitchtip_core.json_text import decode_json

from .api import PROBE_TAG, Event, Tracker, await_event
from .config import Config
from .errors import CutoverError, ProcessGoneError, ServiceError, UnprovenServiceError
from .launch import Launch
from .manager import Manager, Process, manager_for, manager_label
from .running import service_processes

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


def sha256(text: str) -> str:
    """Hex digest of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


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


def environment_problem(config: Config, process: Process, expected: Dsn) -> str:
    """What the environment of a service's running processes says against the ``expected`` DSN; empty when nothing does.

    A variable of the process wins over ``.env``, wherever it came from. Raises ProcessGoneError when the process of a
    service that is no job is gone.
    """
    if not process.online:
        return ""
    try:
        found = service_processes(process.name, process.pid, process.command)
    except ProcessGoneError:
        if process.cron_job:
            return ""
        raise
    for running, _ in found:
        value = running.environment.get(config.env_key)
        if value is not None and value != expected.value:
            held = "an empty value" if not value else f"that of {shown(value)}"
            return (
                f"{process.name} still runs with another {config.env_key} in the environment of its process {running.pid} "
                f"({held}, not that of {expected.netloc}): remove the variable where {manager_label(config)} or a "
                "script that it starts sets it"
            )
    return ""


def instrument_paths(config: Config, process: Process, cwd: str) -> list[str]:
    """Where the instrument file of a service may be: below its working directory, else below the product's.

    An absolute path counts as it is. In a container it is the image's own. Which of them counts is seen where the
    service runs: the first that its script loads.
    """
    wanted = config.instrument_of(process.name)
    paths = [str(Path(cwd) / wanted)]
    if not process.container:
        paths.append(str(config.app_dir / wanted))
    return list(dict.fromkeys(paths))


def read_report(output: str, marker: str, service: str) -> Mapping[str, object]:
    """The probe's report among whatever the product printed. Raises UnprovenServiceError when there is none."""
    for line in reversed(output.splitlines()):
        if line.startswith(marker):
            try:
                report = decode_json(line[len(marker) :])
            except ValueError:
                raise UnprovenServiceError(f"{service}: the report of the probe cannot be read") from None
            if isinstance(report, dict):
                return report
    raise UnprovenServiceError(f"{service}: the probe ended without a report")


def check_report(report: Mapping[str, object], expected: Dsn, service: str) -> None:
    """Raise ServiceError unless every SDK client of the probe used exactly the ``expected`` DSN."""
    clients = report.get("clients")
    for found in clients if isinstance(clients, list) else []:
        if not isinstance(found, dict):
            raise UnprovenServiceError(f"{service}: the probe saw an SDK client without a DSN")
        if (found.get("host"), str(found.get("project_id"))) != (expected.netloc, expected.project_id):
            raise ServiceError(
                f"{service} would still report to {found.get('host')} project {found.get('project_id')}, "
                f"not to {expected.netloc} project {expected.project_id}"
            )
        if found.get("key_sha256") != expected.key_sha256:
            raise ServiceError(f"{service} would report to {expected.netloc} with another key")
    check_conditions(report, service)


def check_conditions(report: Mapping[str, object], service: str) -> None:
    """Raise UnprovenServiceError where the probe is no evidence of what the service itself does."""
    reasons = [report["unproven"]] if report.get("unproven") else report.get("doubts")
    if isinstance(reasons, list) and reasons:
        raise UnprovenServiceError(f"{service}: a probe proves nothing: {'; '.join(map(str, reasons))}")
    if not report.get("clients"):
        raise UnprovenServiceError(f"{service}: the probe saw no SDK client")


def check_surroundings(report: Mapping[str, object], launch: Launch, key: str, service: str) -> None:
    """Raise UnprovenServiceError unless the probe ran as the service's process does."""
    ran = report.get("ran")
    if not isinstance(ran, dict):
        return
    given = launch.environment.get(key)
    wanted: dict[str, object] = {"cwd": launch.cwd}
    if launch.pid:
        wanted |= {"program": launch.executable, "env_sha256": None if given is None else sha256(given)}
    if launch.identity is not None:
        wanted["user"] = launch.identity.user
    names = {
        "cwd": "another directory",
        "program": "another Node.js",
        "user": "another user",
        "env_sha256": f"another {key} in its environment",
    }
    # What the service loads before its script may itself set the variable: then its own value says nothing here.
    loads = any(word.startswith(("-r", "--require", "--import", "--env-file")) for word in launch.options)
    for name, value in wanted.items():
        if ran.get(name) != value and not (
            name == "env_sha256" and (loads or "NODE_OPTIONS" in launch.environment)
        ):
            raise UnprovenServiceError(
                f"{service}: a probe proves nothing: it ran with {names[name]} than the service"
            )


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
        """Prove one service by a probe. Raises ServiceError when it is not on the ``expected`` DSN, and
        UnprovenServiceError where a probe cannot tell.

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

        Raises ServiceError when the service would use another DSN than ``expected``, UnprovenServiceError where a
        probe cannot tell.
        """
        report = self._run(process, uuid.uuid4().hex)
        check_report(report, expected, process.name)
        status = report.get("status")
        return status if isinstance(status, int) else None

    def rehearse(self, process: Process) -> None:
        """Check without sending anything that a probe of this service would count. Raises UnprovenServiceError."""
        check_conditions(self._run(process, uuid.uuid4().hex, send=False), process.name)

    def _run(
        self, process: Process, event_id: str, limit: float | None = None, *, send: bool = True
    ) -> Mapping[str, object]:
        launch = self._manager.launch(process)
        timeout = _PROBE_TIMEOUT if limit is None else max(2.0, min(_PROBE_TIMEOUT, limit))
        marker = f"@@cutover-probe-{uuid.uuid4().hex}@@"
        request = {
            "marker": marker,
            "event_id": event_id,
            "service": process.name,
            "env_key": self.config.env_key,
            "script": launch.script,
            "instruments": instrument_paths(self.config, process, launch.cwd),
            "tags": {self.config.service_tag: process.name, PROBE_TAG: "service"},
            "flush_ms": int(min(_PROBE_FLUSH_MS, timeout * 500)),
            "send": send,
        }
        done = self._manager.run_launch(process, launch, _import_option(request), timeout)
        if "bad option: --import" in done.errors:
            raise UnprovenServiceError(
                f"{process.name}: its Node.js is older than 18.18, which cannot run a probe"
            )
        report = read_report(done.output, marker, process.name)
        if launch.pid and not process.cron_job and self._manager.launch(process) != launch:
            raise UnprovenServiceError(f"{process.name}: its process changed while the probe ran")
        check_surroundings(report, launch, self.config.env_key, process.name)
        return report


def _import_option(request: Mapping[str, object]) -> str:
    """The option with which Node.js loads the probe, with its request, before the service's script."""
    script = pkgutil.get_data(__package__, "probe.mjs")
    if script is None:
        raise CutoverError("the probe script is missing from this program")
    text = f"const request = {json.dumps(request)};\n".encode() + script
    return f"--import=data:text/javascript;base64,{base64.b64encode(text).decode()}"
