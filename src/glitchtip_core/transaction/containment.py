"""What ports raise is always one of our errors, whatever a dependency raised below them.

A port is what a client asks or changes outside of its own files: every call of it passes here once. So each place that
handles CoreError also handles what nobody foresaw (a field of another type, a text that is nested too deeply,
memory that ran out), and a bad answer of one dependency ends a run exactly as a refusal of it does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from ..errors import CoreError, InterruptedRunError, UnexpectedError, unexpected

_P = ParamSpec("_P")
_R = TypeVar("_R")


def contain(function: Callable[_P, _R], what: str) -> Callable[_P, _R]:
    """The same function, which raises nothing but CoreError; ``what`` begins the sentence."""

    @functools.wraps(function, assigned=("__doc__",), updated=())
    def call(*arguments: _P.args, **named: _P.kwargs) -> _R:
        try:
            return function(*arguments, **named)
        except CoreError:
            raise
        except Exception as error:
            raise UnexpectedError(f"{what} failed: {unexpected(error)}") from error

    return call


class _Contained:
    """Stands for a port: its methods and properties raise nothing but CoreError."""

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
            # a port that gives one of its kind, as one with a time limit
            return _Contained(result, self._what) if type(result) is type(self._port) else result

        return contained


def contain_port(port: _R, what: str) -> _R:
    """An object with the same methods, which raise nothing but CoreError."""
    return cast(_R, _Contained(port, what))


def contain_progress(function: Callable[[str], None]) -> Callable[[str], None]:
    """Progress that cannot be shown stops nothing."""

    def progress(line: str) -> None:
        try:
            function(line)
        except InterruptedRunError:
            raise
        except Exception:  # noqa: S110 - nobody sees progress then, nor that it failed
            pass

    return progress


def contain_notify(function: Callable[[str, Mapping[str, Any]], list[str]]) -> Callable[[str, Mapping[str, Any]], list[str]]:
    """Notifications that fail are a problem to report, never an error."""

    def notify(event: str, facts: Mapping[str, Any]) -> list[str]:
        try:
            return function(event, facts)
        except InterruptedRunError:
            raise
        except Exception as error:
            return [f"nobody was notified: {unexpected(error)}"]

    return notify
