"""Checking JSON bodies and query parameters, with the 422 answers that pydantic gives on the real server."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .http import HttpError, Request, fail

Error = dict[str, Any]


def unprocessable(errors: Any) -> HttpError:
    """422 with these errors, to be raised."""
    return fail(422, errors)


def missing(*where: str | int) -> Error:
    """The error for a required field that is not there."""
    return {"type": "missing", "loc": list(where), "msg": "Field required"}


@dataclass(frozen=True)
class Field:
    """One field of a body. ``kind`` is ``str``, ``int``, ``bool``, ``list``, ``dict`` or ``any``."""

    name: str
    kind: str = "str"
    required: bool = False
    nullable: bool = False
    max_length: int | None = None
    pattern: str | None = None
    choices: tuple[str, ...] = ()

    def check(self, value: Any, where: list[str | int]) -> Error | None:
        """The error of a value that is there, or None."""
        if value is None and self.nullable:
            return None
        if self.kind == "int":
            return _integer(value, where)
        expected: dict[str, tuple[type, str, str]] = {
            "str": (str, "string_type", "Input should be a valid string"),
            "bool": (bool, "bool_type", "Input should be a valid boolean"),
            "list": (list, "list_type", "Input should be a valid list"),
            "dict": (dict, "dict_type", "Input should be a valid dictionary"),
        }
        if self.choices and value not in self.choices:
            text = " or ".join(
                [", ".join(f"'{choice}'" for choice in self.choices[:-1]), f"'{self.choices[-1]}'"]
            )
            return {"type": "enum", "loc": where, "msg": f"Input should be {text}", "ctx": {"expected": text}}
        if self.kind in expected:
            kind, name, message = expected[self.kind]
            if not isinstance(value, kind):
                return {"type": name, "loc": where, "msg": message}
        if self.max_length is not None and len(value) > self.max_length:
            return {
                "type": "string_too_long",
                "loc": where,
                "msg": f"String should have at most {self.max_length} characters",
                "ctx": {"max_length": self.max_length},
            }
        if self.pattern is not None and not re.search(self.pattern, value):
            return {
                "type": "string_pattern_mismatch",
                "loc": where,
                "msg": f"String should match pattern '{self.pattern}'",
                "ctx": {"pattern": self.pattern},
            }
        return None


def _integer(value: Any, where: list[str | int]) -> Error | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return {"type": "int_type", "loc": where, "msg": "Input should be a valid integer"}
    try:
        int(value)
    except ValueError:
        return {
            "type": "int_parsing",
            "loc": where,
            "msg": "Input should be a valid integer, unable to parse string as an integer",
        }
    return None


def snake(name: str) -> str:
    """``timespanMinutes`` -> ``timespan_minutes``."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def payload(request: Request, fields: Sequence[Field]) -> dict[str, Any]:
    """The known fields that the body has, under their names. Unknown ones are ignored; snake_case is
    accepted, too.

    Raises 400 for broken JSON and 422 for what does not fit.
    """
    body = request.json()
    if not isinstance(body, dict):
        raise unprocessable(
            [
                {
                    "type": "model_attributes_type",
                    "loc": ["body", "payload"],
                    "msg": "Input should be a valid dictionary or object to extract fields from",
                }
            ]
        )
    result: dict[str, Any] = {}
    errors: list[Error] = []
    for item in fields:
        name = item.name if item.name in body else snake(item.name)
        if name not in body:
            if item.required:
                errors.append(missing("body", "payload", item.name))
            continue
        error = item.check(body[name], ["body", "payload", item.name])
        if error:
            errors.append(error)
        else:
            result[item.name] = (
                int(body[name]) if item.kind == "int" and body[name] is not None else body[name]
            )
    if errors:
        raise unprocessable(errors)
    return result


def integer_parameter(request: Request, name: str) -> int | None:
    """A query parameter as a number; 422 when it is none."""
    value = request.parameter(name)
    if value is None:
        return None
    error = _integer(value, ["query", name])
    if error:
        raise unprocessable([error])
    return int(value)


def integers(request: Request, name: str, least: int | None = None) -> tuple[list[int], list[Error]]:
    """All values of a repeatable parameter of a filter as numbers, and the errors of those that are none."""
    found: list[int] = []
    errors: list[Error] = []
    for place, value in enumerate(request.parameters(name)):
        where: list[str | int] = ["query", "filters", name, place]
        error = _integer(value, where)
        if error is None and least is not None and int(value) < least:
            error = {
                "type": "greater_than_equal",
                "loc": where,
                "msg": f"Input should be greater than or equal to {least}",
                "ctx": {"ge": least},
            }
        if error is None:
            found.append(int(value))
        else:
            errors.append(error)
    return found, errors


def literal(
    request: Request, name: str, choices: Sequence[str], errors: list[Error], default: str | None = None
) -> str:
    """A query parameter that is one of these words; what is wrong goes into ``errors``."""
    value = request.parameter(name)
    if value is None and default is not None:
        return default
    if value is None:
        errors.append(missing("query", name))
        return ""
    if value not in choices:
        text = " or ".join([", ".join(f"'{choice}'" for choice in choices[:-1]), f"'{choices[-1]}'"])
        errors.append(
            {
                "type": "literal_error",
                "loc": ["query", name],
                "msg": f"Input should be {text}",
                "ctx": {"expected": text},
            }
        )
    return value


_RELATIVE = re.compile(r"now(?:\s*-\s*(\d+)\s*([mhd])\s*)?\Z")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def moment(value: str, name: str, relative: bool = True) -> dt.datetime:
    """A query parameter as a time: ISO date or datetime, or ``now`` / ``now-24h`` where that is understood.

    A time without an offset is UTC. 422 for anything else.
    """
    match = _RELATIVE.match(value) if relative else None
    if match:
        delta = dt.timedelta(**{_UNITS[match[2]]: int(match[1])}) if match[1] else dt.timedelta()
        return dt.datetime.now(dt.UTC) - delta
    try:
        parsed = dt.datetime.fromisoformat(value)
    except ValueError:
        reason = "input is too short" if len(value) < 10 else "invalid character in year"
        raise unprocessable(
            [
                {
                    "type": "datetime_from_date_parsing",
                    "loc": ["query", name],
                    "msg": f"Input should be a valid datetime or date, {reason}",
                    "ctx": {"error": reason},
                }
            ]
        ) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=dt.UTC)
