"""Alarms of the queue come before its limit, each for its own reason; a recovery by itself has bounds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from unit.ops_queue import PlayedStack, event_id, kombu

from glitchtip_core.files import write_object
from glitchtip_ops import pipeline, worker_stop
from glitchtip_ops.monitor import MonitorConfig, decide
from glitchtip_ops.pipeline import Check, Pipeline, check_dead_letters, check_queue, check_unacked
from glitchtip_ops.queue.state import QueueState

NOW = datetime(2026, 1, 10, 6, 0, tzinfo=UTC)
IDLE = QueueState(
    at=NOW.isoformat(),
    line="5.2",
    waiting=0,
    queues={"celery": 0},
    oldest=None,
    in_hand=0,
    oldest_in_hand=None,
    stranded=0,
    overdue=0,
    dead_letters=0,
    left_behind=0,
    memory_used=2**20,
    memory_limit=100 * 2**20,
    loss_bound=None,
)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({}, ""),
        ({"waiting": 2000, "oldest": 300.0, "memory_used": 70 * 2**20}, ""),
        ({"waiting": 2001}, "more than 2000"),
        ({"waiting": 1, "oldest": 301.0}, "longer than 300 s"),
        ({"memory_used": 71 * 2**20}, "above 70 %: at its limit Valkey is killed"),
        ({"memory_used": 500 * 2**20, "memory_limit": 0}, ""),
        ({"line": "6.x", "left_behind": 3}, "3 more are in the list of the 5.2 line"),
    ],
)
def test_each_sign_of_a_queue_that_piles_up_alone_is_trouble(changes: dict[str, Any], detail: str) -> None:
    check = check_queue(replace(IDLE, **changes), MonitorConfig())
    assert check.ok is not bool(detail)
    assert detail in check.detail


def test_what_was_left_or_given_up_is_trouble_with_the_command_to_run() -> None:
    assert check_unacked(IDLE).ok
    assert check_dead_letters(replace(IDLE, dead_letters=4), 4).ok
    for check in (
        check_unacked(replace(IDLE, stranded=1)),
        check_unacked(replace(IDLE, overdue=1)),
        check_dead_letters(replace(IDLE, dead_letters=5), 4),
    ):
        assert not check.ok
        assert "glitchtip-ops queue recover" in check.detail


def test_a_quick_run_forgets_nothing_of_the_other_checks() -> None:
    state = {"disk": {"since": NOW.isoformat(), "alerted_at": NOW.isoformat()}}
    decision = decide(state, [Check("queue", False, "full")], NOW, 3600)
    assert set(decision.told) == {"disk", "queue"}
    assert set(decision.untold) == {"disk", "queue"}
    assert decision.recovered == ()
    assert decide(decision.told, [Check("disk", True, "fine")], NOW, 3600).recovered


def run(
    settings: Any, stack: PlayedStack, minutes: float = 5, *, act: bool = True, **limits: Any
) -> dict[str, Check]:
    now = datetime.now(UTC) + timedelta(minutes=minutes)
    checks = Pipeline(settings, stack, MonitorConfig(**limits), lambda: now, act=act).checks()
    return {check.name: check for check in checks}


def leave(stack: PlayedStack, number: int) -> None:
    """A worker dies with an event in hand and is started again."""
    stack.unacked(number)
    stack.entries["worker"]["State"]["StartedAt"] = datetime.now(UTC).isoformat()


def test_what_a_killed_worker_left_is_brought_back_and_people_are_told(
    stack: PlayedStack, settings: Any
) -> None:
    leave(stack, 1)
    stack.valkey("LPUSH", "celery", kombu(2))
    found = run(settings, stack)
    assert "brought back by itself" in found["unacked"].detail
    assert not found["unacked"].ok
    assert event_id(1) in stack.rows
    assert run(settings, stack)["unacked"].ok


@pytest.mark.parametrize(
    ("limits", "act", "minutes", "why"),
    [
        ({"auto_recover": False}, True, 5, "queue recover"),
        ({}, False, 5, "queue recover"),
        ({}, True, 0.5, "has just started"),
    ],
)
def test_nothing_is_done_by_itself_where_it_is_not_to_be(
    stack: PlayedStack, settings: Any, limits: dict[str, Any], act: bool, minutes: float, why: str
) -> None:
    leave(stack, 1)
    check = run(settings, stack, minutes, act=act, **limits)["unacked"]
    assert not check.ok
    assert why in check.detail
    assert stack.log == []


def test_a_worker_that_is_ill_is_not_stopped_for_a_recovery(stack: PlayedStack, settings: Any) -> None:
    leave(stack, 1)
    stack.entries["worker"]["State"]["Health"]["Status"] = "unhealthy"
    assert "worker is running/unhealthy" in run(settings, stack)["unacked"].detail
    assert stack.log == []


def test_what_a_person_recovers_right_now_is_no_trouble_and_no_attempt(stack: PlayedStack, settings: Any) -> None:
    leave(stack, 1)
    with worker_stop.exclusive(settings.state_dir):
        found = run(settings, stack)
    assert found["unacked"].ok
    assert "is at work" in found["unacked"].detail
    assert not (settings.state_dir / "queue-recoveries.json").exists()
    assert not run(settings, stack)["unacked"].ok


def test_a_slow_worker_is_not_stopped_for_what_it_holds(stack: PlayedStack, settings: Any) -> None:
    stack.entries["worker"]["State"]["StartedAt"] = "2026-01-10T00:00:00Z"
    stack.unacked(1, taken=datetime.now(UTC).timestamp() - 600)
    stack.valkey("LPUSH", "celery", *[kombu(number) for number in range(100, 301)])
    check = run(settings, stack)["unacked"]
    assert "it may only be slow" in check.detail
    assert stack.log == []
    stack.valkey("DEL", "celery")
    assert "brought back by itself" in run(settings, stack)["unacked"].detail


@pytest.mark.slow
def test_a_message_that_kills_its_worker_is_not_brought_back_for_ever(
    stack: PlayedStack, settings: Any
) -> None:
    stack.stuck = True
    for number in range(3):
        leave(stack, number)
        assert "failed" in run(settings, stack)["unacked"].detail
    leave(stack, 9)
    stack.log.clear()
    assert "3 attempts in a day" in run(settings, stack)["unacked"].detail
    assert stack.log == []


def test_a_worker_that_an_interrupted_command_left_stopped_is_started(
    stack: PlayedStack, settings: Any
) -> None:
    stack.entries["worker"]["State"]["Status"] = "exited"
    write_object(
        worker_stop.record_of(settings.state_dir), {"since": "06:00", "reason": "a recovery of the queue"}
    )
    assert not run(settings, stack, act=False)["worker_start"].ok
    assert not stack.log
    with worker_stop.exclusive(settings.state_dir):
        assert "worker_start" not in run(settings, stack)  # it is at work right now
    assert "started the worker" in run(settings, stack)["worker_start"].detail
    assert stack.log == ["start worker"]
    assert "worker_start" not in run(settings, stack)


def test_memory_kills_of_healthy_containers_are_told_for_an_hour(
    stack: PlayedStack, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = {"postgres": 0}
    monkeypatch.setattr(pipeline, "read_oom_kills", lambda container: kills.get(container.service))
    assert run(settings, stack)["oom"].ok
    kills["postgres"] = 1
    stack.entries["web"]["State"]["OOMKilled"] = True
    assert all(container.well for container in stack.containers())
    check = run(settings, stack)["oom"]
    assert "processes of postgres, web for lack of memory" in check.detail
    assert run(settings, stack, 70)["oom"].ok
    assert "earlier: postgres, web" in run(settings, stack, 71)["oom"].detail
    kills["postgres"] = 2
    assert "processes of postgres for lack" in run(settings, stack, 72)["oom"].detail


def test_a_restart_by_hand_does_not_repeat_the_alarm_of_an_old_kill(
    stack: PlayedStack, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = {"worker": 0}
    monkeypatch.setattr(pipeline, "read_oom_kills", lambda container: kills.get(container.service))
    entry = stack.entries["worker"]
    entry["State"]["OOMKilled"] = True
    assert not run(settings, stack)["oom"].ok
    entry["State"]["StartedAt"] = datetime.now(UTC).isoformat()
    assert run(settings, stack, 70)["oom"].ok
    entry["State"]["StartedAt"] = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    entry["RestartCount"] = entry.get("RestartCount", 0) + 1  # the engine started it: its process was killed
    assert not run(settings, stack, 71)["oom"].ok
    assert run(settings, stack, 140)["oom"].ok
    kills["worker"] = 1  # a child of it
    assert not run(settings, stack, 141)["oom"].ok


def test_a_queue_that_cannot_be_read_is_trouble(stack: PlayedStack, settings: Any) -> None:
    stack.entries["valkey"]["State"]["Status"] = "exited"
    found = run(settings, stack)
    assert not found["queue"].ok
    assert "no running container of service valkey" in found["queue"].detail
