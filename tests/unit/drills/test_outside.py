"""What the observer counts: ledger against databases, services heard since all came to rest."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import pytest
from ai_admin.ledger import Ledger, parse_ledger
from drills import outside
from drills.outside import EMITTING, Observer, after_rest, compare

NAMES = {"sentry.example.org": "old", "glitchtip.example.org": "new"}


def _ledger(*entries: tuple[str, str, str, str | None], second: int = 0) -> Ledger:
    """Entries as (service, id, state, host)."""
    lines = [
        json.dumps(
            {
                "at": f"2026-11-21T10:00:{second:02d}.000Z",
                "service": service,
                "event_id": event_id,
                "state": state,
                "status": 200,
                "host": host,
            }
        )
        for service, event_id, state, host in entries
    ]
    return parse_ledger("\n".join(lines) + "\n")


SENT = _ledger(
    ("api", "a", "captured", None),
    ("api", "a", "acknowledged", "sentry.example.org"),
    ("api", "b", "captured", None),
    ("api", "b", "acknowledged", "glitchtip.example.org"),
    ("api", "c", "captured", None),
)


def test_what_is_stored_on_either_side_is_not_lost():
    counts = compare(SENT, [{"a": 1}, {"b": 1}])
    assert (counts.captured, counts.acknowledged, counts.stored, counts.lost, counts.duplicated) == (
        3,
        2,
        2,
        0,
        0,
    )


def test_what_was_acknowledged_and_is_stored_nowhere_is_lost():
    assert compare(SENT, [{"a": 1}, {}]).lost == 1


def test_an_event_that_was_never_acknowledged_is_not_lost():
    assert compare(SENT, [{"a": 1}, {"b": 1}]).lost == 0


def test_an_answer_to_an_event_of_before_is_not_counted_but_must_be_stored():
    late = _ledger(("api", "z", "acknowledged", "sentry.example.org"), ("api", "a", "captured", None))
    assert compare(late, [{"z": 1}, {}]).acknowledged == 0
    assert compare(late, [{}, {}]).lost == 1


def test_one_event_twice_in_a_tracker_or_once_in_both_is_stored_twice():
    assert compare(SENT, [{"a": 2}, {"b": 1}]).duplicated == 1
    assert compare(SENT, [{"a": 1, "b": 1}, {"b": 1}]).duplicated == 1


def test_a_service_is_heard_only_on_its_own_side_and_after_all_is_at_rest():
    rest = SENT.captured["a"].at.timestamp()
    wanted = {"api": "old"}
    assert after_rest(SENT, rest, NAMES, wanted) == ({"api"}, ("api",))
    assert after_rest(SENT, rest + 1, NAMES, wanted) == (set(), ())
    only_new = _ledger(("api", "b", "captured", None), ("api", "b", "acknowledged", "glitchtip.example.org"))
    assert after_rest(only_new, rest, NAMES, wanted) == (set(), ("api",))


class Streaming:
    """A world in which at every look one more event is acknowledged, and is stored a look later."""

    def __init__(self, losing: frozenset[str] = frozenset()) -> None:
        self.losing = losing
        self.ids: list[str] = []
        self.name = "sentry.example.org"
        self.sentry = self
        self.glitchtip = SimpleNamespace(name="glitchtip.example.org", stored=lambda _since: Counter())

    def ledger(self, _since: float) -> Ledger:
        self.ids.append(str(len(self.ids)))
        entries = [(service, f"{service}-{number}") for number in self.ids for service in EMITTING]
        return _ledger(
            *((service, name, "captured", None) for service, name in entries),
            *((service, name, "acknowledged", self.name) for service, name in entries),
        )

    def stored(self, _since: float) -> Counter[str]:
        before = self.ids[:-1]
        self.ids.append(str(len(self.ids)))
        return Counter(f"{service}-{n}" for n in before for service in EMITTING if f"{service}-{n}" not in self.losing)


@pytest.mark.parametrize(("losing", "lost"), [(frozenset(), 0), (frozenset({f"{EMITTING[0]}-0"}), 1)])
def test_events_under_way_at_the_end_are_waited_for_and_not_counted_as_lost(
    monkeypatch: pytest.MonkeyPatch, losing: frozenset[str], lost: int
) -> None:
    """Services never stop sending; with one that is lost as the control."""
    observer = Observer.__new__(Observer)
    observer.world = Streaming(losing)  # type: ignore[assignment] - the part of a world that is asked
    monkeypatch.setattr(outside.time, "sleep", lambda _seconds: None)
    counts = observer._events(0.0, 0.0, dict.fromkeys(EMITTING, "old"), 0.5)
    assert (counts.lost, counts.silent) == (lost, ())
