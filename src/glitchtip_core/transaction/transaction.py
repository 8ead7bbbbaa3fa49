"""The course of a transaction, whatever is changed: begin, finish, confirm, take back, restore, recover.

States: none -> applying -> applied (provisional) -> confirmed, and from each of them -> rolling_back -> rolled_back. A failed attempt
restores what stood before it; a rollback to the snapshot leads to before everything. The client's part are the acts in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

from ..errors import (
    BusyError,
    CoreError,
    IncompleteError,
    InterruptedRunError,
    RolledBackError,
    UnrecordedError,
    unexpected,
)
from .bookkeeping import Bookkeeping
from .contract import accountable
from .journal import Journal
from .limits import MARGIN, NOTIFYING
from .reserve import Reserve
from .state import Kinds, State
from .store import Store

_R = TypeVar("_R")
# Seconds that a recovery, and a rollback by the timer of the confirm window, wait for another run.
_RECOVERY_WAIT, _TIMER_WAIT = 60.0, 120.0


class Window(Protocol):
    """The timer of the confirm window."""

    def arm(self, attempt: int, seconds: float) -> None:
        """Take that attempt back in so many seconds. Raises CoreError."""

    def disarm(self) -> None:
        """Stop the timer where there is one."""


class Ports(Protocol):
    """What a transaction touches outside of its own files; the ports raise nothing but CoreError (see ``containment``)."""

    @property
    def clock(self) -> Callable[[], float]:
        """Epoch seconds."""

    @property
    def monotonic(self) -> Callable[[], float]:
        """Seconds that only grow."""

    @property
    def sleep(self) -> Callable[[float], None]:
        """Wait so many seconds."""

    @property
    def progress(self) -> Callable[[str], None]:
        """Show a line."""

    @property
    def limit(self) -> Callable[[float, str], AbstractContextManager[None]]:
        """Bounds the time of a step."""

    @property
    def notify(self) -> Callable[[str, Mapping[str, Any]], list[str]]:
        """Tell people of an event; problems with that."""

    @property
    def observer(self) -> Callable[[str, str], None] | None:
        """Is called around each record."""

    @property
    def deadline(self) -> Window:
        """The timer of the confirm window."""


@dataclass(frozen=True)
class Client:
    """Whose transaction it is: its directory, the name and the kinds of its journal.

    ``about``: facts of every notification. ``following``: what people do next after a run that is not complete.
    """

    directory: Path
    journal: str
    kinds: Kinds
    about: Mapping[str, Any]
    following: str


class Transaction:
    """The transaction of one client on this host."""

    def __init__(self, client: Client, ports: Ports) -> None:
        self.client = client
        self.ports = ports
        self.journal = Journal(client.directory / client.journal, ports.clock, ports.observer, kinds=client.kinds)
        self.store = Store(client.directory, monotonic=ports.monotonic, sleep=ports.sleep)
        self.reserve = Reserve(client.directory)
        self.books = Bookkeeping(self.store, self.journal, self.reserve, ports.progress)

    def state(self) -> State:
        """The state that the journal tells. Raises CoreError."""
        return self.journal.state()

    # ------------------------------------------------------------------ people

    def tell(self, event: str, facts: Mapping[str, Any]) -> list[str]:
        """Notify people; what went wrong with that is returned and noted in the journal, and stops nothing."""
        try:
            with self.ports.limit(NOTIFYING, "the notification"):
                problems = self.ports.notify(event, {**self.client.about, **facts})
        except Exception as error:
            problems = [unexpected(error)]
        notes = [f"notification {event}: {problem}" for problem in problems]
        for text in notes:
            self.note(text)
        return notes

    def note(self, text: str) -> None:
        """Show a sentence, and keep it in the journal where that can be written."""
        self.ports.progress(text)
        try:
            self.journal.append("note", text=text)
        except CoreError as error:
            self.ports.progress(str(error))

    # ------------------------------------------------------------------ a command

    @contextmanager
    def alone(
        self, command: str, *, wait: float = 0.0, unattended: bool = False, restores: bool = False
    ) -> Iterator[None]:
        """Hold the lock, and hold the command to what it may end as (see ``contract``).

        ``restores``: the command restores what was recorded before. It runs even where nothing can be locked, and
        that is a problem to report at its end.
        """
        with ExitStack() as stack:
            self.books.begin(restores=restores)
            try:
                with self.ports.limit(wait + MARGIN, "waiting for the lock"):
                    stack.enter_context(self.store.lock(wait=wait))
            except (BusyError, InterruptedRunError):
                raise
            except CoreError as error:
                if not restores:
                    raise
                self.books.add(str(error))
            stack.enter_context(
                accountable(
                    command,
                    self.journal,
                    self.store,
                    self.tell,
                    following=self.client.following,
                    unattended=unattended,
                )
            )
            yield

    def taking_back(self, *, by_timer: bool) -> AbstractContextManager[None]:
        """A rollback: asked for by somebody who waits for it, or by the timer of the confirm window."""
        return self.alone("rollback", wait=_TIMER_WAIT if by_timer else 0.0, unattended=by_timer, restores=True)

    # ------------------------------------------------------------------ forward

    def begin(self, attempt: int, *, target: str, **facts: Any) -> None:
        """Record that an attempt begins. Raises CoreError, and then it has not begun."""
        self.store.mark_open(attempt)  # before the journal: the recovery unit looks only where it is
        try:
            self.journal.append("apply_begin", attempt=attempt, target=target, **facts)
        except Exception:
            state = self.state()
            if state.attempt != attempt and state.settled:
                self.store.unmark_open()
            raise

    def finish(self, attempt: int, window: float) -> int | None:
        """Record that all acts of an attempt are done, and that it is confirmed where there is no ``window`` (seconds).

        Returns when the window ends (epoch seconds), None without one. Raises CoreError.
        """
        if not window:
            self.journal.append("applied", attempt=attempt)
            self.journal.append("confirmed", attempt=attempt)
            self.store.unmark_open()
            return None
        self.ports.deadline.arm(attempt, window)
        ends = round(self.ports.clock() + window)
        self.journal.append("applied", attempt=attempt, deadline=ends)
        return ends

    def close(self) -> list[str]:
        """After a confirm: remove the mark and stop the timer. Sentences about what failed; neither takes anything back any more."""
        problems = []
        for act in (self.store.unmark_open, self.ports.deadline.disarm):
            try:
                act()
            except Exception as error:
                problems.append(unexpected(error))
                self.note(f"after the confirm: {unexpected(error)}")
        return problems

    # ------------------------------------------------------------------ back

    def take_back(self, put_back: Callable[[str], None], error: Exception, facts: Mapping[str, Any]) -> NoReturn:
        """After an attempt that failed with ``error``: put the state of before it back and raise what has to be told.

        ``put_back`` takes the reason. Raises RolledBackError, IncompleteError or UnrecordedError; people are notified.
        """
        reason = unexpected(error)
        self.ports.progress(f"rolling back: {reason}")
        try:
            put_back(reason)
            stands = self.state().stands
        except UnrecordedError as failure:
            self.tell("incomplete", {**facts, "reason": reason, **failure.details})
            raise UnrecordedError(f"{reason}; {failure}", failure.details) from error
        except Exception as failure:
            told = unexpected(failure)
            details = failure.details if isinstance(failure, IncompleteError) else {"problems": [told]}
            self.tell("incomplete", {**facts, "reason": reason, **details})
            raise IncompleteError(f"{reason}; and the rollback is incomplete: {told}", details) from error
        self.tell("rolled_back", {**facts, "reason": reason, "stands": stands})
        raise RolledBackError(
            f"{reason}; the state of before is back", {"state": "rolled_back", "changed": False}
        ) from error

    def put_back(self, target: str, reason: str, restore: Callable[[State, list[str]], bool]) -> None:
        """Roll back: ``restore`` gets the state and the list to which it adds what could not be restored.

        It returns whether what it restored could be looked at; else the mark of the verify unit is left. A record that
        cannot be written stops nothing: where everything is restored, UnrecordedError says so at the end. Raises
        IncompleteError when parts failed.
        """
        books = self.books
        state = books.state() or State()
        books.mark_open(state.attempt)
        books.record("rollback_begin", target=target, reason=reason)
        problems: list[str] = []
        seen = restore(state, problems)
        if problems:
            books.record("rollback_incomplete", problems=problems)
            told = [*problems, *books.problems]
            raise IncompleteError("; ".join(told), {"problems": told, "state": "rolling_back"})
        if not seen:
            books.mark_verify({"event": "rolled_back", "reason": reason, "target": target})
        if books.record("rolled_back", target=target):
            books.unmark_open()
        with suppress(CoreError):
            self.ports.deadline.disarm()
        books.raise_unrecorded()

    def recover(
        self,
        clean: Callable[[], None],
        change: Callable[[State, str], _R],
        part: Callable[[State], _R],
        nothing: Callable[[State, bool], _R],
    ) -> _R:
        """Take back what an interrupted run left open (at boot, or after its process was killed).

        ``clean`` removes what interrupted writes left. ``change`` gets an open change and the reason, ``part`` an unfinished
        rollback of one part. Without either, ``nothing`` gets whether the mark of an open change was left.
        """
        with self.alone("recover", wait=_RECOVERY_WAIT, unattended=True, restores=True):
            state = self.state()
            clean()
            if state.open:
                return change(state, f"the run was interrupted while {state.phase}")
            if state.overriding:
                return part(state)
            marked = self.store.open_marker.exists()
            self.books.unmark_open()
            self.books.raise_unrecorded()
            return nothing(state, marked)
