"""What a host's ports raise is always one of our errors, whatever a dependency raised below them.

The manager, the trackers, the probes, systemd, the clocks: every call of them passes here once. So each place that
handles CutoverError also handles what nobody foresaw (a field of another type, a text that is nested too deeply,
memory that ran out), and a bad answer of one dependency ends a run exactly as a refusal of it does.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from .errors import CutoverError, InterruptedRunError, UnexpectedError, unexpected
from .host import Host

_P = ParamSpec("_P")
_R = TypeVar("_R")
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


def contain(function: Callable[_P, _R], what: str) -> Callable[_P, _R]:
    """The same function, which raises nothing but CutoverError; ``what`` begins the sentence."""

    @functools.wraps(function, assigned=("__doc__",), updated=())
    def call(*arguments: _P.args, **named: _P.kwargs) -> _R:
        try:
            return function(*arguments, **named)
        except CutoverError:
            raise
        except Exception as error:
            raise UnexpectedError(f"{what} failed: {unexpected(error)}") from error

    return call


class _Contained:
    """Stands for a port: its methods and properties raise nothing but CutoverError."""

    def __init__(self, port: object, what: str) -> None:
        self._port = port
        self._what = what

    def __getattr__(self, name: str) -> Any:
        value = contain(getattr, self._what)(self._port, name)
        if not callable(value):
            return value
        call = contain(value, self._what)

        def contained(*arguments: Any, **named: Any) -> Any:
            result = call(*arguments, **named)
            # a tracker with a time limit is a tracker
            return _Contained(result, self._what) if type(result) is type(self._port) else result

        return contained


def contain_port(port: _R, what: str) -> _R:
    """An object with the same methods, which raise nothing but CutoverError."""
    return cast(_R, _Contained(port, what))


def _progress(function: Callable[[str], None]) -> Callable[[str], None]:
    """Progress that cannot be shown stops nothing."""

    def progress(line: str) -> None:
        try:
            function(line)
        except InterruptedRunError:
            raise
        except Exception:  # noqa: S110 - nobody sees progress then, nor that it failed
            pass

    return progress


def _notify(function: Callable[[str, Mapping[str, Any]], list[str]]) -> Callable[[str, Mapping[str, Any]], list[str]]:
    """Notifications that fail are a problem to report, never an error."""

    def notify(event: str, facts: Mapping[str, Any]) -> list[str]:
        try:
            return function(event, facts)
        except InterruptedRunError:
            raise
        except Exception as error:
            return [f"nobody was notified: {unexpected(error)}"]

    return notify


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
        progress=_progress(host.progress),
        notify=_notify(host.notify),
    )
