"""Others at work during a recovery, and parts of it that fail: no event is lost, none counted twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from unit.ops_queue import PlayedStack, event_id

from glitchtip_ops.process import OpsError
from glitchtip_ops.queue import counts, recovery
from glitchtip_ops.queue.commands import recover, status

pytestmark = pytest.mark.slow


def test_a_statement_of_the_killed_worker_that_stores_late_is_waited_for(
    stack: PlayedStack, settings: Any
) -> None:
    def store_meanwhile(_: float) -> None:
        for number in range(5):
            stack.rows[event_id(number)] = stack.counts[event_id(number)] = 1

    for number in range(9):
        stack.unacked(number)
    stack.exit_code, stack.writes = 137, ["71 12.5\n", "71 12.5\n80 13.0\n", "80 13.0\n"]
    recovery.recover_unacked(stack, settings.state_dir, sleep=store_meanwhile)
    assert len(stack.rows) == 9
    assert set(stack.counts.values()) == {1}
    assert len(stack.writes) == 0


def test_a_statement_that_does_not_end_stops_the_recovery_before_it_changes_anything(
    stack: PlayedStack, settings: Any
) -> None:
    stack.unacked(1)
    stack.exit_code, stack.writes = 137, ["71 12.5\n"] * 100
    with pytest.raises(OpsError, match=r"pid 71\).*nothing was changed"):
        recovery.recover_unacked(stack, settings.state_dir, sleep=lambda _: None)
    assert stack.valkey("ZSCORE", "unacked_index", "tag-1") != "0"
    assert stack.container("worker").running


def test_a_worker_that_somebody_else_starts_meanwhile_keeps_what_it_has_in_hand(
    stack: PlayedStack, settings: Any
) -> None:
    def deploy() -> None:
        stack.start(stack.workers(stack.containers())[0])
        stack.unacked(50, taken=1e12)

    for number in range(3):
        stack.unacked(number)
    stack.on_count = deploy
    with pytest.raises(OpsError, match="was started by another program"):
        recover(settings, stack)
    assert "0" not in [stack.valkey("ZSCORE", "unacked_index", f"tag-{number}") for number in (0, 50)]


def test_a_web_server_is_never_stopped_in_the_place_of_a_worker(stack: PlayedStack, settings: Any) -> None:
    stack.unacked(1)
    del stack.entries["worker"]
    with pytest.raises(OpsError, match="there is no worker"):
        recover(settings, stack)
    assert stack.log == []


# --- what may fail ----------------------------------------------------------------------------------------


def test_counts_that_cannot_be_compared_do_not_keep_the_events_away(stack: PlayedStack, settings: Any) -> None:
    def late() -> None:
        raise OpsError("psql failed: canceling statement due to statement timeout")

    stack.unacked(1)
    stack.on_count = late
    outcome = recover(settings, stack)
    assert (outcome.code, list(stack.rows)) == (0, [event_id(1)])
    assert "may count some events twice: psql failed" in "\n".join(outcome.lines)


def test_what_is_taken_out_of_the_counts_is_on_record_and_can_be_switched_off(
    stack: PlayedStack, settings: Any
) -> None:
    for number in range(4):
        stack.unacked(number)
    stack.excess = {5: 3}
    recover(settings, stack)
    (line,) = (settings.state_dir / counts.LOG).read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["taken_out"] == {"5": 3}
    stack.unacked(9)
    stack.excess = {5: 1}
    assert recover(settings, stack, keep_counts=True).document["recounted"] == 0
    assert stack.excess == {5: 1}


def test_a_time_without_a_message_is_not_reported_for_ever(stack: PlayedStack, settings: Any) -> None:
    stack.valkey("ZADD", "unacked_index", "1000", "of nothing")
    assert status(settings, stack).code == 3
    recover(settings, stack)
    assert status(settings, stack).code == 0
