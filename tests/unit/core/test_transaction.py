"""The course of a transaction with a client that is no switch: it sets values in files, and nothing here knows what for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from glitchtip_core.errors import (
    BusyError,
    CoreError,
    IncompleteError,
    RolledBackError,
    UnexpectedError,
    UnrecordedError,
)
from glitchtip_core.transaction.limits import unlimited
from glitchtip_core.transaction.state import ATTEMPT, SNAPSHOT, Kinds, State
from glitchtip_core.transaction.transaction import Client, Transaction

KINDS = Kinds(remarks=frozenset({"compared"}), saved="kept", part="file", fingerprint="set_sha256", target="new")


class Timer:
    """The timer of the confirm window, in memory."""

    def __init__(self) -> None:
        self.armed: tuple[int, float] | None = None

    def arm(self, attempt: int, seconds: float) -> None:
        self.armed = attempt, seconds

    def disarm(self) -> None:
        self.armed = None


class Ports:
    """Everything outside of the transaction's own files."""

    def __init__(self) -> None:
        self.now = 100.0
        self.deadline = Timer()
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.lines: list[str] = []
        self.limit: Callable[[float, str], contextlib.AbstractContextManager[None]] = unlimited
        self.observer: Callable[[str, str], None] | None = None
        self.progress: Callable[[str], None] = self.lines.append

    def clock(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def notify(self, event: str, facts: Mapping[str, Any]) -> list[str]:
        self.told.append((event, dict(facts)))
        return []


class Pair:
    """The client: two files that hold ``old`` and shall hold ``new``, and which of them cannot be written."""

    def __init__(self, root: Path) -> None:
        self.files = [root / "one", root / "two"]
        for file in self.files:
            file.write_text("old")
        self.ports = Ports()
        client = Client(root / "state", "log.jsonl", KINDS, {"client": "pair"}, "look at the files")
        self.change = Transaction(client, self.ports)
        self.broken: set[str] = set()
        self.seen = True

    def _set(self, file: Path, value: str) -> None:
        if file.name in self.broken:
            raise OSError(5, "Input/output error")
        file.write_text(value)

    def apply(self, window: float = 0.0) -> int | None:
        attempt = self.change.state().attempt + 1
        with self.change.alone("apply"):
            self.change.begin(attempt, target="new", set_sha256="ab")
            try:
                for file in self.files:
                    self.change.journal.append("set", file=file.name)
                    self._set(file, "new")
                return self.change.finish(attempt, window)
            except Exception as error:
                self.change.take_back(lambda reason: self.put_back(ATTEMPT, reason), error, {"attempt": attempt})

    def put_back(self, target: str, reason: str) -> None:
        def restore(_state: State, problems: list[str]) -> bool:
            for file in self.files:
                try:
                    self.broken.discard("one")  # it is mended by now
                    self._set(file, "old")
                except OSError as error:
                    problems.append(f"{file.name}: {error.strerror}")
            return self.seen

        self.change.put_back(target, reason, restore)

    def recover(self) -> str:
        def change(_state: State, reason: str) -> str:
            self.put_back(ATTEMPT, reason)
            return reason

        return self.change.recover(lambda: None, change, lambda state: state.overriding, lambda _state, marked: f"nothing {marked}")

    def values(self) -> list[str]:
        return [file.read_text() for file in self.files]

    @property
    def marked(self) -> bool:
        return self.change.store.open_marker.exists()

    def state(self) -> tuple[str, str]:
        state = self.change.state()
        return state.phase, state.stands


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_without_a_window_a_change_is_confirmed_at_once(pair: Pair) -> None:
    assert pair.apply() is None
    assert (pair.state(), pair.values(), pair.marked) == (("confirmed", "new"), ["new", "new"], False)
    assert pair.ports.deadline.armed is None


def test_with_a_window_it_waits_for_its_confirm_and_the_timer_runs(pair: Pair) -> None:
    assert pair.apply(60.0) == 160
    assert (pair.state(), pair.marked, pair.ports.deadline.armed) == (("applied", "new"), True, (1, 60.0))
    with pair.change.alone("confirm"):
        pair.change.journal.append("confirmed", attempt=1)
        assert pair.change.close() == []
    assert (pair.state(), pair.marked, pair.ports.deadline.armed) == (("confirmed", "new"), False, None)


def test_a_failed_act_puts_the_state_of_before_back(pair: Pair) -> None:
    pair.broken = {"two", "one"}
    with pytest.raises(IncompleteError, match="two: Input/output error"):
        pair.apply()
    assert (pair.state(), pair.marked) == (("rolling_back", "before"), True)
    pair.broken = set()
    assert pair.recover() == "the run was interrupted while rolling_back"
    assert (pair.state(), pair.values(), pair.marked) == (("rolled_back", "before"), ["old", "old"], False)
    pair.broken = {"one"}
    with pytest.raises(RolledBackError, match="the state of before is back"):
        pair.apply()
    assert [event for event, _ in pair.ports.told] == ["incomplete", "rolled_back"]
    assert all(facts["client"] == "pair" for _, facts in pair.ports.told)


@pytest.mark.parametrize("event", ["apply_begin", "set", "applied"])
def test_whatever_record_a_run_is_killed_at_the_recovery_takes_it_back(pair: Pair, event: str) -> None:
    class Killed(BaseException):
        pass

    def kill(seen: str, when: str) -> None:
        if (seen, when) == (event, "after"):
            raise Killed

    pair.change.journal._observer = kill
    with pytest.raises(Killed):
        pair.apply(60.0)
    pair.change.journal._observer = None
    assert pair.marked
    assert pair.recover().startswith("the run was interrupted while appl")
    assert (pair.state(), pair.values(), pair.marked) == (("rolled_back", "before"), ["old", "old"], False)
    assert pair.recover() == "nothing False"


def test_what_a_way_back_could_not_look_at_is_left_to_the_verification(pair: Pair) -> None:
    pair.apply()
    pair.seen = False
    pair.put_back(SNAPSHOT, "asked for")
    assert pair.change.store.to_verify() == {"event": "rolled_back", "reason": "asked for", "target": "snapshot"}
    assert pair.change.state().at_origin


def test_an_unfinished_part_is_the_clients(pair: Pair) -> None:
    pair.apply()
    pair.change.journal.append("override_begin", file="one")
    assert pair.recover() == "one"


def test_records_that_cannot_be_written_keep_nothing_from_being_restored(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.apply(60.0)

    def full(*_: object, **__: object) -> None:
        raise CoreError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(pair.change.journal, "append", full)
        with pytest.raises(UnrecordedError, match="everything is restored, but the record of it is incomplete: no room"):
            pair.put_back(SNAPSHOT, "asked for")
        assert pair.values() == ["old", "old"]
        with pytest.raises(CoreError, match="no room"):  # the control: an apply begins nothing that it cannot record
            pair.apply()
        assert pair.values() == ["old", "old"]
    assert pair.marked  # of the change whose way back has no record


def test_an_attempt_that_has_not_begun_leaves_no_mark(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise CoreError("no room")

    monkeypatch.setattr(pair.change.journal, "append", full)
    with pytest.raises(CoreError, match="no room"):
        pair.apply()
    assert (pair.state(), pair.values(), pair.marked) == (("none", "before"), ["old", "old"], False)


def one_act_and_no_end(pair: Pair) -> None:
    with pair.change.alone("apply"):
        pair.change.journal.append("set", file="one")
        raise KeyError("odd")


def test_one_run_at_a_time_and_no_foreign_exception_ends_it(pair: Pair) -> None:
    other = Transaction(pair.change.client, pair.ports)
    with pair.change.alone("apply"), pytest.raises(BusyError, match="another run is under way"), other.alone("apply"):
        pass
    with pytest.raises(UnexpectedError, match="apply changed nothing"), pair.change.alone("apply"):
        raise KeyError("odd")
    with pytest.raises(IncompleteError, match="apply is not complete: look at the files"):
        one_act_and_no_end(pair)
    assert pair.ports.told[-1][0] == "incomplete"
