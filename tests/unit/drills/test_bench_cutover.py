"""The figures of the bench under load."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from ai_admin.ledger import Entry
from bench import cutover
from rig.shell import RigError

START = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


def _captured(service: str, *seconds: float) -> list[Entry]:
    return [Entry(START + timedelta(seconds=s), service, f"{service}{s}", "captured") for s in seconds]


def test_twenty_events_a_second_are_four_of_each_of_five_services():
    assert cutover.interval_ms(20) == 250


def test_the_longest_gap_is_of_one_service_and_without_its_usual_period():
    entries = _captured("api", 0, 1, 2, 7, 8) + _captured("bot", 0, 2, 4)
    assert cutover.longest_gap(entries) == pytest.approx(4)


def test_a_service_with_one_event_has_no_gap():
    assert cutover.longest_gap(_captured("api", 0)) == 0


def test_events_of_different_services_do_not_fill_each_others_gaps():
    entries = _captured("api", 0, 1, 2, 3, 9) + _captured("bot", 4, 5, 6, 7, 8)
    assert cutover.longest_gap(entries) == pytest.approx(5)


def test_an_answer_without_a_figure_is_one_sentence():
    with pytest.raises(RigError, match="no seconds_proof"):
        cutover.figure({}, "seconds_proof")
