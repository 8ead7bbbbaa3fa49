"""What a killed worker left is stored in the end: none lost, none counted twice, whatever interrupts it."""

from __future__ import annotations

import json
import os
import signal
from datetime import UTC, datetime
from typing import Any

import pytest
from unit.ops_queue import SERVER, PlayedStack, event_id, kombu, vtask

from glitchtip_core.files import write_object
from glitchtip_ops import stack as stack_command
from glitchtip_ops import worker_stop
from glitchtip_ops.probe import Probe
from glitchtip_ops.process import OpsError
from glitchtip_ops.queue import recovery
from glitchtip_ops.queue.commands import recover, status
from glitchtip_ops.queue.state import read_queue
from glitchtip_ops.queue.valkey import open_valkey

pytestmark = [pytest.mark.slow, pytest.mark.skipif(SERVER is None, reason="neither valkey-server nor redis-server is installed")]
FAILED, INGEST, DEFAULT = "{vt}:q:failed", "{vt}:q:ingest", "{vt}:q:default"


def now() -> datetime:
    return datetime.now(UTC)


def test_what_a_killed_worker_left_is_stored_once(stack: PlayedStack, settings: Any) -> None:
    for number in range(60):
        stack.unacked(number)
    for number in range(20):  # these had been stored, the worker died before it acknowledged them
        stack.rows[event_id(number)] = stack.counts[event_id(number)] = 1
    stack.unacked(900, task="apps.alerts.tasks.send_notification")
    stack.valkey("SET", "unacked_mutex", "held by the dead worker")
    assert status(settings, stack).code == 3
    outcome = recover(settings, stack)
    assert outcome.code == 0, outcome.lines
    assert set(stack.rows) == {event_id(number) for number in range(60)}
    assert set(stack.counts.values()) == {1}, "an event was counted twice"
    found = outcome.document
    figures = found["left"], found["already_stored"], found["recovered_events"], found["recovered_tasks"]
    assert figures == (61, 20, 40, 1)
    assert stack.log == ["stop worker", "start worker"]
    assert status(settings, stack).code == 0
    assert not recover(settings, stack).document["changed"]


def test_without_the_recovery_a_new_start_of_the_worker_brings_nothing_back(
    stack: PlayedStack, settings: Any
) -> None:
    for number in range(5):
        stack.unacked(number)
    worker = stack.container("worker")
    stack.stop(worker, 30)
    stack.start(worker)
    assert stack.rows == {}
    assert recover(settings, stack).code == 0
    assert len(stack.rows) == 5


def test_what_a_stopping_worker_gave_back_and_had_stored_is_taken_out_too(
    stack: PlayedStack, settings: Any
) -> None:
    for number in range(100):
        stack.valkey("LPUSH", "celery", kombu(number))
    for number in range(200, 260):
        stack.valkey("RPUSH", "celery", kombu(number, redelivered=True))
        stack.rows[event_id(number)] = stack.counts[event_id(number)] = 1
    stack.valkey("RPUSH", "celery", kombu(300, redelivered=True))
    stack.unacked(400)
    outcome = recover(settings, stack)
    assert outcome.document["already_stored"] == 60
    assert len(stack.rows) == 162
    assert set(stack.counts.values()) == {1}


@pytest.mark.parametrize("step", ["_read_unacked", "_read_returned", "stored_ids", "await_stored"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OpsError])
def test_a_failure_at_any_step_leaves_the_worker_running_and_the_next_run_finishes(
    stack: PlayedStack, settings: Any, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    for number in range(30):
        stack.unacked(number)
    stack.rows[event_id(0)] = stack.counts[event_id(0)] = 1
    calls: list[int] = []
    real = getattr(recovery, step)

    def broken(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if step == "stored_ids" and len(calls) == 1:
            return real(*arguments, **options)
        raise error("broken here")

    with monkeypatch.context() as patch:
        patch.setattr(recovery, step, broken)
        with pytest.raises(error):
            recover(settings, stack)
    assert stack.container("worker").running
    recover(settings, stack)
    assert len(stack.rows) == 30
    assert set(stack.counts.values()) == {1}


def test_a_signal_starts_the_worker_before_the_program_ends(stack: PlayedStack, settings: Any) -> None:
    def work() -> None:
        with worker_stop.stopped_worker(stack, settings.state_dir, "a test"):
            assert not [each for each in stack.containers() if each.service == "worker" and each.running]
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the signal was ignored")

    with pytest.raises(SystemExit):
        work()
    assert stack.container("worker").running


def test_a_program_that_was_killed_is_noticed_and_the_next_run_starts_the_worker(
    stack: PlayedStack, settings: Any
) -> None:
    for number in range(3):
        stack.unacked(number)
    child = os.fork()
    if child == 0:  # pragma: no cover - it is killed
        with worker_stop.stopped_worker(stack, settings.state_dir, "a recovery of the queue"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    stack.entries["worker"]["State"]["Status"] = "exited"  # as the child left it
    found = status(settings, stack)
    assert (found.code, found.document["interrupted"]) == (3, True)
    assert recover(settings, stack, check=True).lines[0].startswith("start the worker")
    outcome = recover(settings, stack)
    assert "was interrupted: started the worker" in outcome.document["interrupted"]
    assert stack.container("worker").running
    assert len(stack.rows) == 3
    assert not worker_stop.record_of(settings.state_dir).exists()


def test_two_at_once_are_refused_and_check_changes_nothing(stack: PlayedStack, settings: Any) -> None:
    stack.unacked(1)
    with worker_stop.exclusive(settings.state_dir), pytest.raises(OpsError, match="runs already"):
        recover(settings, stack)
    planned = recover(settings, stack, check=True)
    assert planned.document["changed"]
    assert planned.lines[0].startswith("stop the worker (30 s")
    assert (stack.log, stack.rows) == ([], {})


def test_a_database_that_is_down_is_found_before_anything_is_stopped(
    stack: PlayedStack, settings: Any
) -> None:
    stack.unacked(1)
    stack.entries["postgres"]["State"]["Health"]["Status"] = "unhealthy"
    with pytest.raises(OpsError, match="nothing was stopped"):
        recover(settings, stack)
    assert stack.log == []


def test_events_that_are_not_stored_in_the_end_are_named(stack: PlayedStack, settings: Any) -> None:
    stack.unacked(7)
    stack.stuck = True
    stack.exit_code = 137
    outcome = recover(settings, stack)
    assert outcome.code == 3
    assert outcome.document["missing"] == [event_id(7)]
    assert any(event_id(7) in line for line in outcome.lines)
    assert any("was killed" in line for line in outcome.lines)


# --- reading ----------------------------------------------------------------------------------------------


def test_the_oldest_waiting_event_is_the_one_that_is_taken_next(stack: PlayedStack) -> None:
    moment = now()
    for age in (400, 90, 10):
        stack.valkey("LPUSH", "celery", kombu(age, received=moment.timestamp() - age))
    state = read_queue(stack, moment)
    assert (state.line, state.waiting, state.dead_letters, state.loss_bound) == ("5.2", 3, 0, None)
    assert state.oldest == pytest.approx(400, abs=1)


def test_messages_of_the_living_worker_are_not_left_until_they_are_overdue(stack: PlayedStack) -> None:
    moment = now()
    stack.entries["worker"]["State"]["StartedAt"] = "2026-01-10T00:00:00.123456789Z"
    stack.unacked(1, taken=moment.timestamp() - 2)
    stack.unacked(2, taken=moment.timestamp() - 900, task="apps.x.later", eta="2026-01-10T00:00:00")
    assert read_queue(stack, moment).abandoned == 0
    stack.unacked(3, taken=moment.timestamp() - 301)
    assert (read_queue(stack, moment).overdue, read_queue(stack, moment).stranded) == (1, 0)
    stack.entries["worker"]["State"]["StartedAt"] = moment.isoformat()
    assert read_queue(stack, moment).stranded == 3
    stack.entries["worker"]["State"]["Status"] = "exited"
    assert read_queue(stack, moment).stranded == 3


def test_an_image_with_redis_cli_alone_is_asked_with_that(stack: PlayedStack) -> None:
    stack.tools = ["redis-cli"]
    assert open_valkey(stack).call("PING").strip() == "PONG"
    stack.tools = []
    with pytest.raises(OpsError, match="has neither valkey-cli nor redis-cli"):
        open_valkey(stack).call("PING")


def test_an_error_of_the_server_is_told_in_its_words(stack: PlayedStack) -> None:
    with pytest.raises(OpsError, match="refused a command"):
        open_valkey(stack).evaluate("return redis.call('NONSENSE')")


# --- dead letters of the 6.x line -------------------------------------------------------------------------


def test_dead_letters_go_back_to_their_queue_once(
    stack: PlayedStack, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = [vtask(number) for number in range(30)]
    letters += [
        vtask(50, queue="default", func="apps.x.task", args=[]),
        vtask(51, error_msg="Exceeded max_rescues (0)"),
    ]
    letters += [vtask(52), b"no JSON", b"zstd:\x28\xb5\x2f\xfd\xff", vtask(53, queue="elsewhere")]
    for letter in letters:
        stack.valkey("LPUSH", FAILED, letter)
    stack.rows[event_id(52)] = 1  # stored after all
    rows = stack.rows
    monkeypatch.setattr(
        recovery, "stored_ids", lambda _s, _p, ids: {each for each in ids if each in rows or each < "2"}
    )
    outcome = recover(settings, stack)
    assert outcome.document["recovered_events"] == int(stack.valkey("LLEN", INGEST))
    assert stack.valkey("LLEN", DEFAULT) == "1"
    left = stack.valkey("LRANGE", FAILED, "0", "-1")
    assert "Exceeded max_rescues" in left
    assert "no JSON" in left
    assert "from the 6.x source" in outcome.lines[-2 if outcome.code else -1]
    first = json.loads(stack.valkey("LINDEX", INGEST, "-1"))
    assert first["id"] == "task-0", "the oldest does not come first"
    waiting = stack.valkey("LRANGE", INGEST, "0", "-1").splitlines()
    assert len({json.loads(each)["id"] for each in waiting}) == len(waiting)
    before = stack.valkey("LLEN", FAILED)
    again = recover(settings, stack)
    assert again.document["recovered_events"] == 0
    assert stack.valkey("LLEN", FAILED) == before
    assert status(settings, stack).code == 0, "what was left on purpose alarms for ever"
    stack.valkey("LPUSH", FAILED, vtask(99))
    assert status(settings, stack).code == 3


def test_dead_letters_that_nobody_could_read_are_not_taken_for_known(stack: PlayedStack, settings: Any) -> None:
    stack.valkey("LPUSH", FAILED, b"zstd:\x28\xb5\x2f\xfd\x01")
    stack.can_decode = False
    with pytest.raises(OpsError, match="docker exec failed"):
        recover(settings, stack)
    assert status(settings, stack).code == 3
    assert stack.valkey("LLEN", FAILED) == "1"


def test_dead_letters_stay_while_the_database_is_not_well(stack: PlayedStack, settings: Any) -> None:
    stack.valkey("LPUSH", FAILED, vtask(1))
    stack.entries["postgres"]["State"]["Health"]["Status"] = "starting"
    with pytest.raises(OpsError, match="does not run well"):
        recover(settings, stack)
    assert stack.valkey("LLEN", FAILED) == "1"


def test_what_was_counted_and_not_stored_is_taken_out_of_the_counts(
    stack: PlayedStack, settings: Any
) -> None:
    for number in range(10):
        stack.unacked(number)
    stack.excess = {5: 4, 6: 0, 7: 3, 8: -2}
    outcome = recover(settings, stack)
    assert outcome.document["recounted"] == 7
    assert stack.excess == {5: 0, 6: 0, 7: 0, 8: -2}
    assert any("7 events had been counted and not stored" in line for line in outcome.lines)


def test_an_excess_of_another_cause_is_left_alone_and_told(stack: PlayedStack, settings: Any) -> None:
    stack.unacked(1)
    stack.excess = {5: 1, 6: 1}
    outcome = recover(settings, stack)
    assert (outcome.document["recounted"], stack.excess) == (0, {5: 1, 6: 1})
    assert "issues count 2 events that are not stored" in outcome.document["note"]


# --- restart of a part ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "log"),
    [
        ("postgres", ["stop worker", "restart postgres", "start worker"]),
        ("valkey", ["stop worker", "restart valkey", "start worker"]),
        ("worker", ["stop worker", "start worker"]),
    ],
)
def test_the_worker_is_stopped_first_and_started_last(
    stack: PlayedStack, settings: Any, monkeypatch: pytest.MonkeyPatch, service: str, log: list[str]
) -> None:
    monkeypatch.setattr(stack_command, "send_probe", lambda *_, **__: Probe("e" * 32, True, 1.0, None))
    found = stack_command.restart(settings, stack, service)
    assert (stack.log, found["probe"]["captured"]) == (log, True)
    assert len(stack_command.plan_of(service)) >= 3


def test_a_restart_that_fails_starts_the_worker_and_finishes_an_earlier_one(
    stack: PlayedStack, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OpsError("docker restart failed: no space left on device")

    monkeypatch.setattr(stack, "restart", broken)
    stack.entries["worker"]["State"]["Status"] = "exited"
    write_object(worker_stop.record_of(settings.state_dir), {"since": "earlier", "reason": "a test"})
    with pytest.raises(OpsError, match="no space left"):
        stack_command.restart(settings, stack, "postgres")
    assert stack.container("worker").running
    assert stack.log == ["start worker", "stop worker", "start worker"]


@pytest.mark.parametrize("service", ["postgres", "valkey"])
def test_a_part_that_does_not_answer_after_its_restart_is_told(stack: PlayedStack, service: str) -> None:
    stack_command.await_answer(stack, service, seconds=5)
    stack.close()
    stack.entries["postgres"]["State"]["Status"] = "restarting"
    with pytest.raises(OpsError, match=f"{service} does not answer 0 s after its restart"):
        stack_command.await_answer(stack, service, seconds=0)
