"""What every `ensure_*` function needs: the result, the match by name, and messages about the parent."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..errors import MASK, AmbiguousError, GlitchTipError, MissingError
from ..late_answers import identity
from ..resources.base import Objects

_Answer = TypeVar("_Answer")
_SECRET_ID = 32  # an id of that length is a UUID, as DSN keys have them
SECRET_KEYS = frozenset(
    {
        *("api_key", "apiKey", "dsn", "token", "public", "secret", "security"),
        *("heartbeatEndpoint", "endpointID", "inviteLink"),
    }
)


@dataclass(frozen=True)
class Outcome:
    """What was found and what it became.

    Attributes:
        changed: something was written, or would be in a dry run.
        before: the object as it was found, None when there was none.
        after: the object as it is (or would be) now, None when there is none.
        predicted: `after` was not read from the server.
        warnings: sentences for people.
    """

    changed: bool
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    predicted: bool = False
    warnings: tuple[str, ...] = ()

    def diff(self) -> dict[str, dict[str, Any]]:
        """``{"before", "after"}`` with the changed keys only, secrets and webhook addresses masked."""
        before = _with_state(self.before)
        after = _with_state(self.after)
        keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        return {
            "before": masked({key: before[key] for key in keys if key in before}),
            "after": masked({key: after[key] for key in keys if key in after}),
        }


def _with_state(thing: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"state": "absent"} if thing is None else {"state": "present", **thing}


def masked(thing: Any) -> Any:
    """A deep copy without secrets: values of secret names, and all of a webhook's address but its host."""
    if isinstance(thing, Mapping):
        return {name: _masked_value(name, value) for name, value in thing.items()}
    if isinstance(thing, list):
        return [masked(value) for value in thing]
    return thing


def _masked_value(name: str, value: Any) -> Any:
    if not value or not isinstance(value, str):
        return masked(value)
    if name in SECRET_KEYS or (
        name == "id" and len(value) >= _SECRET_ID
    ):  # the id of a DSN key is its secret
        return MASK
    if name == "url":
        parts = urlsplit(value)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{MASK}"
    return value


def slugify(name: str) -> str:
    """The slug that the server will probably make of a name (it adds a suffix when that is taken)."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain.lower())).strip("-_")


def only(objects: Iterable[Mapping[str, Any]], field: str, value: str, what: str) -> dict[str, Any] | None:
    """The one object whose `field` is `value`, or None. Raises AmbiguousError when there are several."""
    found = [dict(thing) for thing in objects if thing.get(field) == value]
    if len(found) > 1:
        ids = ", ".join(str(thing.get("slug") or identity(thing)) for thing in found)
        raise AmbiguousError(
            code="ambiguous",
            detail=f"{len(found)} {what} are called {value!r}: {ids}",
            hint="rename or delete all but one",
        )
    return found[0] if found else None


def named(
    objects: Iterable[Mapping[str, Any]], field: str, value: str, known: Iterable[Mapping[str, Any]] = ()
) -> Objects:
    """Those whose `field` is `value`, without the ones that were `known` before."""
    ids = {str(thing.get("id") or thing.get("slug")) for thing in known}
    return [
        dict(thing)
        for thing in objects
        if thing.get(field) == value and str(thing.get("id") or thing.get("slug")) not in ids
    ]


def same_but(*names: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], bool]:
    """A comparison of two objects that takes no notice of these keys."""

    def is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        return all(one.get(name) == other.get(name) for name in {*one, *other} - set(names))

    return is_same


def within(call: Callable[[], _Answer], where: str) -> _Answer:
    """What a call answers that needs its parent. Raises MissingError naming the parent after a 404."""
    try:
        return call()
    except GlitchTipError as error:
        if error.code != "not_found":
            raise
        raise missing(where) from None


def missing(what: str) -> MissingError:
    """The error for something that had to be there first."""
    return MissingError(code="missing", detail=f"there is no {what}, or the token's user is no member")


def removal_warning(kind: str, name: str) -> str:
    """What people should know before they delete something that still gets events.

    On the 5.2 line (measured) the worker stores up to 100 events in one transaction; when the project of one of
    them is gone by then, the whole batch is lost, with the events of other projects that were answered 200.
    """
    return (
        f"{kind} {name!r} is removed: stop what still sends to it first, because an event on its way can take "
        "up to a hundred events of other projects with it"
    )
