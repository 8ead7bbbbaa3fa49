"""Values of every role, held to the roles' argument specifications before the first phase changes anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .sources import Given
from .values import is_secret_name

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_KEPT = ("type", "choices", "elements", "options", "required", "no_log")
#: Returns the error messages of one value against its specification.
Validate = Callable[[dict[str, Any], dict[str, Any]], list[str]]
#: Templates a value; raises an exception whose text says what is not defined.
Render = Callable[[Any], Any]


def read_specifications(roles: Path) -> dict[str, dict[str, Any]]:
    """Every variable of every role with its specification, as ``ArgumentSpecValidator`` takes it."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - a safe loader
        for entry in data["argument_specs"].values():
            for name, specification in (entry.get("options") or {}).items():
                found[name] = _trimmed(specification)
    return found


def _trimmed(specification: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: specification[key] for key in _KEPT if key in specification}
    if "options" in kept:
        kept["options"] = {name: _trimmed(option) for name, option in kept["options"].items()}
    return kept


def wrong_values(
    given: Sequence[Given],
    specifications: Mapping[str, Mapping[str, Any]],
    current: Mapping[str, Any],
    render: Render,
    validate: Validate,
) -> Iterator[str]:
    """A sentence for each given variable that is undefined or not of its type; secrets are not shown."""
    places = {one.name: one.place for one in given}
    for name, place in places.items():
        if name not in specifications or name not in current:
            continue
        try:
            value = render(current[name])
        except Exception as error:
            yield f"{place}: the value of {name} cannot be used: {_first_line(error)}."
            continue
        specification = dict(specifications[name])
        specification.pop("required", None)
        for message in validate({name: specification}, {name: value}):
            text = message.strip().rstrip(".")
            yield (
                f"{place}: the value of {name} is not of the type {specification.get('type', 'str')}."
                if is_secret_name(name)
                else f"{place}: {text}."
            )


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
