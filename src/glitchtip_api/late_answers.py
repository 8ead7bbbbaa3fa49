"""Creates whose answer was lost: look for the object as long as the request may live, and never leave two.

GlitchTip keeps no names unique and knows no idempotency key. A create that a proxy answered with 504, or whose
connection broke, may still be carried out, seconds or a minute later. So after such an answer the object is
looked for until `LONGEST_REQUEST_SECONDS` have passed; only then is the create sent a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import MASK, AmbiguousError, GlitchTipError, UnreachableError

if TYPE_CHECKING:
    from .transport import Transport

#: The longest that a request is expected to live on the server after its answer was lost: the 60 s after which
#: nginx answers 504, and the 30 s that GlitchTip waits for a connection to PostgreSQL (source, both lines).
LONGEST_REQUEST_SECONDS = 90.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 5.0
LOOKS_AFTER_AN_ANSWER = 3
_PAUSE_FACTOR = 1.5
_SECRET_ID = 32  # an id of that length is a UUID, as DSN keys have them

Thing = dict[str, Any]


@dataclass(frozen=True)
class Made:
    """What was created or adopted, with sentences for people."""

    thing: Thing
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """How an object is found again after a lost answer, and what may be done with a second one.

    Attributes:
        what: for messages, e.g. ``alert rule 'chat'``.
        find: reads the server: everything that may be the object, without what was there before the request.
        is_same: whether two of these are the same but for their ids and slugs.
        is_unused: whether nobody has used one of these yet: no events, nothing in it.
        remove: deletes one; None where the API cannot, or where the server never makes a second one.
        advice: what a person does when two exist and none may be removed.
    """

    what: str
    find: Callable[[], list[Thing]]
    is_same: Callable[[Thing, Thing], bool] = lambda one, other: one == other
    is_unused: Callable[[Thing], bool] = lambda thing: bool(thing)
    remove: Callable[[Thing], object] | None = None
    advice: str = "delete the one that is not used, then run it again"


def create_once(transport: Transport, create: Callable[[], Thing], wanted: Wanted) -> Made:
    """Create, and after a lost answer adopt what the request made.

    A 500 is an answer, and so is a page instead of JSON: the request has ended, though a create that is not atomic may
    have left its object, so there are a few looks and no second try.

    Raises the server's error when the object is not there in the end; AmbiguousError when two are there and the second
    one must not be removed.
    """
    try:
        return Made(create())
    except GlitchTipError as error:
        if not error.maybe_applied:
            raise
        lost = error
    found = _look(transport, wanted, lost)
    if not found and not _has_ended(lost):
        found, lost = _create_again(transport, create, wanted, lost)
    if not found:
        raise lost
    return _only_one(wanted, found)


def write_until_seen(
    transport: Transport, write: Callable[[], object], is_done: Callable[[], bool], what: str
) -> None:
    """Send a write that may be repeated, such as adding a team, until it is answered or its effect is seen.

    Raises the server's error when neither happens within `LONGEST_REQUEST_SECONDS`.
    """
    try:
        write()
        return
    except GlitchTipError as error:
        if not error.maybe_applied:
            raise
        lost = error
    for _ in _looks(transport, LOOKS_AFTER_AN_ANSWER if _has_ended(lost) else None):
        try:
            if is_done():
                return
            write()
            return
        except GlitchTipError as error:
            if not _is_transient(error):
                raise
    raise lost if _has_ended(lost) else _unseen(lost, what)


def _create_again(
    transport: Transport, create: Callable[[], Thing], wanted: Wanted, lost: GlitchTipError
) -> tuple[list[Thing], GlitchTipError]:
    """The second try, after the first request cannot live any more. Everything that is there afterwards."""
    try:
        made = create()
    except GlitchTipError as error:
        if not error.maybe_applied:
            raise
        return _look(
            transport, wanted, error, enough=2
        ), error  # the first request may still be on its way, too
    seen = wanted.find()
    return [made, *(thing for thing in seen if _id_of(thing) != _id_of(made))], lost


def _look(transport: Transport, wanted: Wanted, lost: GlitchTipError, *, enough: int = 1) -> list[Thing]:
    """Look until there are `enough` or the request cannot live any more. What is there then."""
    found: list[Thing] = []
    failure: GlitchTipError | None = None
    for _ in _looks(transport, LOOKS_AFTER_AN_ANSWER if _has_ended(lost) else None):
        try:
            found, failure = wanted.find(), None
        except GlitchTipError as error:
            if error.status in (401, 403):  # may write and not read
                raise _unseen(lost, wanted.what) from None
            if not _is_transient(error):
                raise
            found, failure = [], error
        if len(found) >= enough:
            break
    if failure is not None:  # nobody knows whether it is there, so it must not be sent again
        raise _unseen(lost, wanted.what)
    return found


def _looks(transport: Transport, most: int | None) -> Iterator[None]:
    """Yield now, and after growing pauses again, until a request cannot live any more or `most` were made."""
    began, slept, pause, made = transport.clock(), 0.0, FIRST_PAUSE_SECONDS, 0
    while True:
        yield
        made += 1
        left = LONGEST_REQUEST_SECONDS - max(slept, transport.clock() - began)
        if left <= 0 or made == most:
            return
        step = min(pause, left)
        transport.sleep(step)
        slept += step
        pause = min(LONGEST_PAUSE_SECONDS, pause * _PAUSE_FACTOR)


def _has_ended(lost: GlitchTipError) -> bool:
    """Whether the server itself answered. 502 to 504, and what proxies make beyond, say that nobody knows."""
    return lost.status is not None and lost.status <= 501


def _is_transient(error: GlitchTipError) -> bool:
    return isinstance(error, UnreachableError) or (error.status or 0) >= 500


def _unseen(lost: GlitchTipError, what: str) -> GlitchTipError:
    return type(lost)(
        lost.method,
        lost.path,
        lost.status,
        lost.code,
        lost.detail,
        f"whether {what} came about is not known: run it again when the server answers, which looks first",
        maybe_applied=True,
    )


def _only_one(wanted: Wanted, found: list[Thing]) -> Made:
    """The oldest; the others are removed when that loses nothing."""
    kept, *twins = sorted(found, key=_age)
    warnings = []
    for twin in twins:
        if wanted.remove is None or not wanted.is_same(kept, twin) or not _is_unused(wanted, twin):
            raise AmbiguousError(
                code="made_twice",
                detail=f"{wanted.what} exists twice, ids {identity(kept)} and {identity(twin)}: the server carried "
                "out a request late that it had not answered",
                hint=wanted.advice,
            )
        wanted.remove(twin)
        warnings.append(
            f"{wanted.what} was made twice, because the server carried out a request late that it had not "
            f"answered; the second one, id {identity(twin)}, was the same and unused, and is removed"
        )
    return Made(kept, tuple(warnings))


def _is_unused(wanted: Wanted, twin: Thing) -> bool:
    """What cannot be read (the token may lack a scope) counts as used."""
    try:
        return wanted.is_unused(twin)
    except GlitchTipError:
        return False


def _age(thing: Mapping[str, Any]) -> tuple[str, int, str]:
    number = _id_of(thing)
    created = str(thing.get("dateCreated") or thing.get("created") or "")
    return ("", int(number), "") if number.isdigit() else (created, 0, number)


def _id_of(thing: Mapping[str, Any]) -> str:
    return str(thing.get("id") or thing.get("slug") or "")


def identity(thing: Mapping[str, Any]) -> str:
    """The id for messages, else the slug; of the id of a DSN key, which is its secret, the beginning."""
    number = _id_of(thing)
    return f"{number[:8]}{MASK}" if len(number) >= _SECRET_ID else number
