"""What the ports of the switch raise is always one of our errors: the manager, the trackers, the probes, systemd, the clocks."""

from __future__ import annotations

import dataclasses
from typing import Any

from glitchtip_core.transaction.containment import contain, contain_notify, contain_port, contain_progress

from .host import Host

#: Names of the ports in messages.
_PORTS = {
    "manager": "the manager of the services",
    "tracker": "the API of a tracker",
    "deadline": "the timer of the confirm window",
    "prober": "the probe",
    "clock": "the clock",
    "monotonic": "the clock",
    "sleep": "waiting",
    "send_test_event": "sending a test event",
    "start_watch": "the start of the watch",
    "mirror_problem": "the check of the mirror",
    "surroundings": "the check of the surroundings",
}


def contain_host(host: Host) -> Host:
    """The same host, whose ports raise nothing but CutoverError; ``observer`` belongs to tests and stays as it is."""
    tracker = contain(host.tracker, _PORTS["tracker"])
    ports = ("manager", "deadline", "prober")
    functions = ("clock", "monotonic", "sleep", "send_test_event", "start_watch", "mirror_problem", "surroundings")
    contained: dict[str, Any] = {name: contain_port(getattr(host, name), _PORTS[name]) for name in ports}
    contained |= {name: contain(getattr(host, name), _PORTS[name]) for name in functions}
    return dataclasses.replace(
        host,
        **contained,
        tracker=lambda side: contain_port(tracker(side), f"the API of the {side.name} tracker"),
        progress=contain_progress(host.progress),
        notify=contain_notify(host.notify),
    )
