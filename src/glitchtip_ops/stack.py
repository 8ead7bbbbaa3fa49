"""``glitchtip-ops stack restart``: restart PostgreSQL, Valkey or the worker without losing accepted events.

GlitchTip 5.2 loses the batch in hand for good when PostgreSQL restarts under its worker (measured: 248 of 1,997
events), 6.x moves whole queues to its dead letters, and its scheduler ends with the first error of Valkey (from
the source). So the worker is stopped first and started last; meanwhile events wait in Valkey.
While Valkey itself is down, GlitchTip answers 500 and SDKs drop or retry what they send.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from .cli import BAD_ANSWER, Outcome
from .docker_stack import Stack
from .probe import send_probe
from .process import OpsError
from .queue.commands import stack_of
from .queue.valkey import Valkey
from .settings import Settings, load_settings, settings_directory
from .worker_stop import exclusive, finish_interrupted, stopped_worker, wait_until_well

SERVICES = ("postgres", "valkey", "worker")
#: Seconds that PostgreSQL and Valkey get to write what they hold.
_GRACE = 60
_PROBE_TIMEOUT = 90.0
_ANSWERS_WITHIN = 120.0


def plan_of(service: str) -> list[str]:
    """The steps, for people."""
    steps = [] if service == "worker" else [f"restart {service} and wait until it is healthy"]
    return [
        "stop the worker (30 s, or its own longer grace): events wait in Valkey meanwhile",
        *steps,
        "start the worker and wait until it is healthy",
        "prove it: a test event is read back",
    ]


def await_answer(stack: Stack, service: str, *, seconds: float = _ANSWERS_WITHIN) -> None:
    """Wait until PostgreSQL runs a statement, or Valkey has loaded its data. Raises OpsError after ``seconds``.

    A container that runs is no proof, even if its last check was healthy: the worker loses the batch that meets a
    database which is still starting.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            container = wait_until_well(stack, [service], seconds=max(end - time.monotonic(), 0.0))[0]
            if service == "postgres":
                stack.database_run(
                    container, ["psql", "-X", "-q", "-A", "-t"], timeout=10.0, text="SELECT 1;"
                )
            elif Valkey(stack, container).call("PING").strip() != "PONG":
                raise OpsError(f"{container.name} is still loading its data")
            return
        except OpsError as error:
            if time.monotonic() >= end:
                raise OpsError(
                    f"{service} does not answer {seconds:.0f} s after its restart: {error}"
                ) from None
            time.sleep(0.5)


def restart(settings: Settings, stack: Stack, service: str) -> dict[str, Any]:
    """Restart ``service`` with the worker stopped, start the worker, read a test event back.

    Returns ``{"changed", "service", "worker_ended_by_itself", "seconds", "probe"}``. Raises OpsError when the
    engine fails or a container does not become healthy; the worker is started again all the same.
    """
    began = time.monotonic()
    with exclusive(settings.state_dir):
        finish_interrupted(stack, settings.state_dir)
        containers = stack.containers()
        if service != "worker" and service not in {each.service for each in containers}:
            raise OpsError(f"there is no service {service} in the Compose project {stack.project}")
        with stopped_worker(stack, settings.state_dir, f"a restart of {service}") as by_itself:
            for container in containers:
                if service != "worker" and container.service == service:
                    stack.restart(container, max(_GRACE, container.stop_timeout))
            if service != "worker":
                await_answer(stack, service)
        wait_until_well(stack, [each.service for each in stack.workers(containers)])
    probe = send_probe(settings, "restart", timeout=_PROBE_TIMEOUT)
    if not probe.captured:  # each pooled connection of a web process answers 500 once (5.2, measured)
        probe = send_probe(settings, "restart", timeout=_PROBE_TIMEOUT)
    return {
        "changed": True,
        "service": service,
        "worker_ended_by_itself": by_itself,
        "seconds": round(time.monotonic() - began, 1),
        "probe": {"captured": probe.captured, "seconds": probe.seconds, "error": probe.error},
    }


def _handle(options: argparse.Namespace) -> Outcome:
    if options.check:
        steps = plan_of(options.service)
        return Outcome({"changed": True, "plan": steps}, steps)
    result = restart(load_settings(), stack_of(settings_directory()), options.service)
    probe = result["probe"]
    lines = [f"{options.service} was restarted in {result['seconds']} s"]
    if not result["worker_ended_by_itself"]:
        lines.append("the worker was killed after its grace; see: glitchtip-ops queue status")
    lines.append(
        f"a test event was read back after {probe['seconds']} s"
        if probe["captured"]
        else f"TROUBLE a test event was not read back: {probe['error']}"
    )
    return Outcome(result, lines, 0 if probe["captured"] else BAD_ANSWER)


def register(subparsers: Any) -> None:
    """Add ``stack`` with its actions."""
    parser = subparsers.add_parser("stack", help="restart a part of the stack without losing events")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    again = actions.add_parser("restart", help="worker stopped first, started last, then a test event")
    again.add_argument("service", choices=SERVICES)
    again.add_argument("--check", action="store_true", help="only print the steps")
    parser.set_defaults(handler=_handle)
