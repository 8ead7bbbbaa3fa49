"""An uptime monitor that is up, broken, alerts, recovers and alerts: with a target and a receiver of our own.

Both are one small HTTP server at ``bind``, an address that the server's worker reaches. Monitor and rule bear names
of their own and are removed again whatever happens, also when their creation was answered with an error.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from glitchtip_api import Client, GlitchTipError
from glitchtip_api.resources.monitors import REASONS

from ..process import OpsError

NAME = "glitchtip-ops local test"
_POLL = 0.4
_LARGEST_BODY = 1_000_000
_CHECK_TIMEOUT = 10


class NotRunError(Exception):
    """The monitor could not be tested from here; says why."""


class Site:
    """The watched target (GET; 200, or 503 while ``broken``) and the receiver of alerts (POST), on one port.

    Their paths are secret, so that nobody else is taken for GlitchTip. ``visits`` counts the checks, ``alerts`` keeps
    (wall time, text) of each alert.

    Args:
        bind: address to listen on.
        reach: host name or address under which the server reaches it; empty: ``bind``.
        port: 0 for any.
    """

    def __init__(
        self, bind: str, reach: str = "", port: int = 0, clock: Callable[[], float] = time.time
    ) -> None:
        self.broken = False
        self.visits = 0
        self.alerts: list[tuple[float, str]] = []
        secret = secrets.token_hex(12)
        target, hook = f"/target-{secret}", f"/hook-{secret}"
        site = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                if self.path != target:
                    return self._answer(404)
                site.visits += 1
                return self._answer(503 if site.broken else 200)

            do_HEAD = do_GET  # noqa: N815

            def do_POST(self) -> None:
                if self.path != hook:
                    return self._answer(404)
                size = self.headers.get("Content-Length") or ""
                if not size.isdigit() or int(size) > _LARGEST_BODY:
                    return self._answer(400)
                text = self.rfile.read(int(size)).decode("utf-8", "replace")
                site.alerts.append((clock(), text))
                return self._answer(200)

            def _answer(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing: paths are secret."""

        try:
            self._server = ThreadingHTTPServer((bind, port), Handler)
        except (OSError, OverflowError) as error:
            raise OpsError(
                f"{bind} is no address of this machine ({error}); give one that GlitchTip reaches (--bind)."
            ) from None
        base = f"http://{reach or bind}:{self._server.server_address[1]}"
        self.target_url, self.hook_url, self.base_url = base + target, base + hook, base
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Free the port."""
        self._server.shutdown()
        self._server.server_close()

    def alert(self, name: str, up: bool, since: float) -> float | None:
        """When the alert about monitor ``name`` came that says up or down, at ``since`` or later."""
        for at, text in list(self.alerts):
            if at >= since and name in text and _says(text, name) is up:
                return at
        return None


def _says(text: str, name: str) -> bool | None:
    """Whether an alert says that a monitor is up (True) or down (False); None when it says neither.

    5.2 and 6.x: ``The monitored site has gone down.`` and ``The monitored site is back up.`` (measured on 5.2).
    """
    words = text.replace(name, "")
    if re.search(r"\bdown\b", words):
        return False
    return True if re.search(r"\bup\b", words) else None


@dataclass(frozen=True)
class UptimeLimits:
    """``interval`` of the checks in seconds, ``wait``: seconds that each step may take."""

    interval: int = 5
    wait: float = 90.0


@dataclass
class UptimeResult:
    """What became of it: ``status`` is passed, failed, not run or not asked; steps with their seconds."""

    status: str = "not asked"
    reason: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)

    def as_dict(self, interval: int) -> dict[str, Any]:
        """For the report."""
        return {
            "status": self.status,
            "reason": self.reason,
            "interval_seconds": interval,
            "steps": self.steps,
            "left_behind": self.left_behind,
        }

    def seconds(self, step: str) -> float | None:
        """How long a step took; None when it was not reached."""
        return next((entry["seconds"] for entry in self.steps if entry["step"] == step), None)

    def problems(self) -> list[str]:
        """One clause each."""
        found = [] if self.status in ("passed", "not asked") else [f"uptime {self.status}: {self.reason}"]
        return found + [f"uptime: {thing} could not be removed" for thing in self.left_behind]


STEPS = ("up", "down", "alert down", "up again", "alert recovered")


class UptimeTest:
    """One walk of a monitor. ``site`` must be served already; ``stopped`` ends it early."""

    def __init__(
        self,
        client: Client,
        organization: str,
        project: str,
        project_id: str,
        site: Site,
        limits: UptimeLimits,
        *,
        clock: Callable[[], float] = time.time,
        stopped: threading.Event | None = None,
    ) -> None:
        self.client = client
        self.organization = organization
        self.project = project
        self.project_id = project_id
        self.site = site
        self.limits = limits
        self.clock = clock
        self.stopped = stopped or threading.Event()
        self.name = f"{NAME} {secrets.token_hex(4)}"
        self._monitor: Mapping[str, Any] | None = None

    def run(self) -> UptimeResult:
        """Walk it and remove everything. Never raises for what the server does; the result says it."""
        result = UptimeResult("failed")
        try:
            self._walk(result)
            result.status = "passed"
        except NotRunError as why:
            result.status, result.reason = "not run", str(why)
        except GlitchTipError as error:
            result.reason = str(error)
        except _StepError as error:
            result.reason = str(error)
        finally:
            result.left_behind = self._remove()
        return result

    def _walk(self, result: UptimeResult) -> None:
        self._create()
        self._step(result, "up", self.clock(), lambda: self._state() is True)
        since = self.clock()
        self.site.broken = True
        self._step(result, "down", since, lambda: self._state() is False)
        self._step(result, "alert down", since, lambda: self.site.alert(self.name, False, since) is not None)
        again = self.clock()
        self.site.broken = False
        self._step(result, "up again", again, lambda: self._state() is True)
        self._step(
            result, "alert recovered", again, lambda: self.site.alert(self.name, True, again) is not None
        )

    def _create(self) -> None:
        """The rule first: an alert may follow the monitor's first change at once."""
        recipient = {"recipientType": "webhook", "url": self.site.hook_url}
        rule = {"name": self.name, "uptime": True, "alertRecipients": [recipient]}
        monitor = {
            "name": self.name,
            "monitorType": "GET",
            "url": self.site.target_url,
            "expectedStatus": 200,
            "expectedBody": "",
            "interval": self.limits.interval,
            "timeout": _CHECK_TIMEOUT,
            "project": self.project_id,
        }
        try:
            self.client.alerts.create(self.organization, self.project, rule)
            self._monitor = self.client.monitors.create(self.organization, monitor)
        except GlitchTipError as error:
            if error.status == 403:
                raise NotRunError(
                    f"the token may not create an alert rule or a monitor ({error}); it needs project:write to create and "
                    "project:admin to remove them"
                ) from None
            if error.status in (400, 422):
                raise NotRunError(
                    f"the server refuses {self.site.base_url} as target or receiver ({error}); private addresses need "
                    "GLITCHTIP_ALLOW_PRIVATE_IPS and GLITCHTIP_UPTIME_ALLOW_PRIVATE_IPS on its side"
                ) from None
            raise

    def _state(self) -> bool | None:
        monitor = self.client.monitors.get(self.organization, int((self._monitor or {})["id"]))
        if monitor is None:
            raise _StepError("the monitor was deleted by somebody else meanwhile")
        self._monitor = monitor
        state: bool | None = monitor.get("isUp")
        return state

    def _step(self, result: UptimeResult, step: str, since: float, reached: Callable[[], bool]) -> None:
        deadline = since + self.limits.wait
        while not reached():
            if self.stopped.is_set():
                raise _StepError("the test was stopped")
            if self.clock() >= deadline:
                self._late(step)
            self.stopped.wait(_POLL)
        result.steps.append({"step": step, "seconds": round(self.clock() - since, 1)})

    def _late(self, step: str) -> None:
        """Say why a step was not reached: when no check ever came, the server does not reach us."""
        wait = f"{self.limits.wait:g} s"
        if step == "up" and not self.site.visits:
            checks = list((self._monitor or {}).get("checks") or [])
            if not checks:
                raise _StepError(
                    f"no check was made within {wait}: is the server's worker with beat running?"
                )
            reason = REASONS.get(checks[0].get("reason"), "no reason")
            raise NotRunError(
                f"the server did not reach {self.site.base_url} within {wait} ({reason}): a firewall between it and this "
                "machine, or an address that it cannot reach (--bind, --reach)"
            )
        raise _StepError(f"step {step!r} was not reached within {wait}")

    def _remove(self) -> list[str]:
        """Delete our monitor and our rule, by id or else by name; what could not be deleted."""
        left = []
        try:
            # Without an id its creation may have been answered with an error and done nevertheless.
            monitors = [self._monitor] if self._monitor else self.client.monitors.list(self.organization)
            for monitor in monitors:
                if monitor.get("name") == self.name:
                    self.client.monitors.delete(self.organization, int(monitor["id"]))
        except GlitchTipError as error:
            left.append(f"the monitor {self.name!r} ({error})")
        try:
            for rule in self.client.alerts.list(self.organization, self.project):
                if rule.get("name") == self.name:
                    self.client.alerts.delete(self.organization, self.project, int(rule["id"]))
        except GlitchTipError as error:
            left.append(f"the alert rule {self.name!r} ({error})")
        return left


class _StepError(Exception):
    """A step was not reached; says which."""
