"""The stand-in's worker and scheduler of the 6.2 line: what a kill loses, what becomes of failures, what ends the scheduler."""

from __future__ import annotations

import fnmatch
import json
import socket
import threading
import time

import pytest
from standin import settings, vtasks, vtasks_queue
from standin.vtasks_queue import ValkeyTasks
from standin.wire import unwrap_vtask


class Valkey:
    """As much of a Valkey as the queues need; ``down`` makes every call fail."""

    def __init__(self):
        self.lists = {}
        self.values = {}
        self.down = False

    def __getattribute__(self, name):
        if not name.startswith("_") and name not in {"lists", "values", "down"} and self.down:
            raise ConnectionError("Valkey does not answer")
        return super().__getattribute__(name)

    def lpush(self, key, *values):
        for value in values:
            self.lists.setdefault(key, []).insert(0, value)

    def rpop(self, key, count=None):
        found = self.lists.get(key, [])
        if count is None:
            return found.pop() if found else None
        return [found.pop() for _ in range(min(count, len(found)))] or None

    def lmove(self, source, target, _, __):
        value = self.rpop(source)
        if value is not None:
            self.lpush(target, value)
        return value

    def lrem(self, key, _, value):
        if value in self.lists.get(key, []):
            self.lists[key].remove(value)

    def ltrim(self, key, start, end):
        self.lists[key] = self.lists.get(key, [])[start : end + 1]

    def pipeline(self):
        return self

    def execute(self):
        return []

    def eval(self, _, __, queue, key, value, ___):
        if key in self.values:
            return 0
        self.values[key] = "1"
        self.lpush(queue, value)
        return 1

    def scan_iter(self, match):
        return [key for key in self.lists if fnmatch.fnmatch(key, match)]

    def exists(self, key):
        return key in self.values

    def set(self, key, value, nx=False, ex=None):  # noqa: ARG002
        if nx and key in self.values:
            return None
        self.values[key] = value
        return True

    def get(self, key):
        return self.values.get(key)

    def expire(self, _, __):
        return True


FAILED, DEFAULT, INGEST = "{vt}:q:failed", "{vt}:q:default", "{vt}:q:ingest"


@pytest.fixture
def valkey():
    return Valkey()


@pytest.fixture
def tasks(valkey):
    return tasks_of(valkey)


def tasks_of(valkey, **given):
    environment = {"STANDIN_LINE": "6.2", **{f"VTASKS_{name.upper()}": str(v) for name, v in given.items()}}
    return ValkeyTasks(valkey, settings.load(environment))


def event(number):
    return {"task": "ingest", "project": 1, "id": str(number), "event": {}}


def until(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_keys_are_those_that_operators_count(valkey, tasks):
    tasks.put({"task": "maintenance"})
    assert tasks.put_once(event(1), "uuid1")
    assert not tasks.put_once(event(1), "uuid1")
    assert {key: len(entries) for key, entries in valkey.lists.items()} == {DEFAULT: 1, INGEST: 1}


def test_a_batch_in_hand_is_in_no_list_and_a_single_task_is(valkey, tasks):
    for number in range(3):
        tasks.put(event(number))
    tasks.put({"task": "maintenance"})
    assert [message["id"] for _, message in tasks.take("ingest", 100)] == ["0", "1", "2"]
    taken = tasks.take("default", 1)
    assert valkey.lists == {INGEST: [], DEFAULT: [], f"{{vt}}:processing:{vtasks_queue.me()}": [taken[0][0]]}
    tasks.done(taken)
    assert not any(valkey.lists.values())


def test_a_killed_worker_has_lost_its_batch(valkey, tasks):
    """Nothing brings it back: neither a rescue nor the dead letters have it."""
    tasks.put(event(1))
    vtasks.Worker(tasks, 1)._collect()  # popped, then SIGKILL
    again = tasks_of(valkey)
    assert (again.rescue(), again.take("ingest", 100), valkey.lists.get(FAILED)) == (0, [], None)


def test_a_worker_that_is_told_to_stop_stores_its_batch(tasks, monkeypatch):
    stored = []
    monkeypatch.setattr(vtasks.storage, "store_batch", lambda events: stored.extend(events) or len(events))
    monkeypatch.setattr(vtasks.logs, "store", lambda _: None)
    worker = vtasks.Worker(tasks, 2)
    thread = threading.Thread(target=worker.run)
    tasks.put(event(1))
    thread.start()
    until(lambda: worker._batch)
    worker.stopping.set()
    thread.join(10)
    assert [message["id"] for message in stored] == ["1"]


def test_every_event_of_a_batch_that_fails_is_a_dead_letter_and_nothing_is_tried_again(
    valkey, tasks, monkeypatch
):
    calls = []

    def refuse(events):
        calls.append(len(events))
        raise OSError("the database system is starting up")

    monkeypatch.setattr(vtasks.storage, "store_batch", refuse)
    for number in range(3):
        tasks.put(event(number))
    clock = iter(range(0, 1000, 10)).__next__
    worker = vtasks.Worker(tasks, 2, clock=clock)
    for _ in range(3):
        worker.step()
    until(lambda: len(valkey.lists.get(FAILED, [])) == 3)
    found = {
        (unwrap_vtask(text)["id"], "starting up" in json.loads(text)["error_msg"])
        for text in valkey.lists[FAILED]
    }
    assert found == {(str(n), True) for n in range(3)}
    worker.step()
    assert (calls, valkey.lists[INGEST]) == ([3], [])


def test_a_dead_letter_that_is_moved_back_is_a_task_again(valkey, tasks):
    tasks.fail([("", event(7))], "OSError: down")
    valkey.lmove(FAILED, INGEST, "RIGHT", "LEFT")
    ((_, message),) = tasks.take("ingest", 1)
    assert {key: message[key] for key in event(7)} == event(7)


def test_the_dead_letters_keep_the_newest_up_to_the_cap(valkey):
    tasks = tasks_of(valkey, dlq_cap=5)
    for number in range(8):
        tasks.fail([("", event(number))], "x")
    assert [unwrap_vtask(text)["id"] for text in valkey.lists[FAILED]] == ["7", "6", "5", "4", "3"]


@pytest.mark.parametrize(("rescues", "where"), [(0, FAILED), (1, DEFAULT)], ids=["dead letter", "once more"])
def test_a_task_of_a_killed_worker_of_this_host_is_found_again(valkey, rescues, where):
    tasks = tasks_of(valkey, max_rescues=rescues)
    tasks.put({"task": "maintenance"})
    valkey.lmove(DEFAULT, f"{{vt}}:processing:{socket.gethostname()}-1", "RIGHT", "LEFT")
    assert tasks.rescue() == rescues
    assert [unwrap_vtask(text)["task"] for text in valkey.lists[where]] == ["maintenance"]


def test_a_task_of_another_host_name_is_never_found(valkey, tasks):
    tasks.put({"task": "maintenance"})
    valkey.lmove(DEFAULT, "{vt}:processing:an-older-container-1", "RIGHT", "LEFT")
    assert tasks.rescue() == 0
    assert len(valkey.lists["{vt}:processing:an-older-container-1"]) == 1


def test_the_sweep_makes_a_false_dead_letter_of_what_this_worker_has_in_hand(valkey, tasks):
    tasks.put({"task": "maintenance"})
    taken = tasks.take("default", 1)
    tasks.rescue()
    tasks.done(taken)
    assert [json.loads(text)["error_msg"] for text in valkey.lists[FAILED]] == ["Exceeded max_rescues (0)"]


def test_single_tasks_and_batches_share_the_places(valkey, tasks):
    release = threading.Event()
    vtasks_tasks = {"maintenance": lambda _: release.wait(5)}
    worker = vtasks.Worker(tasks, 2, clock=iter(range(0, 1000, 10)).__next__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vtasks, "TASKS", vtasks_tasks)
        for _ in range(2):
            tasks.put({"task": "maintenance"})
        worker.step()
        tasks.put(event(1))
        worker.step()
        assert [message["id"] for _, message in worker._batch] == ["1"], "it waits for a place"
        release.set()
        until(lambda: not any(valkey.lists.values()))


# The scheduler


@pytest.fixture
def scheduler(valkey, tasks):
    return vtasks.Scheduler(vtasks.Marks(valkey), tasks, alert_interval=60)


def names(valkey, queue=DEFAULT):
    return [unwrap_vtask(text)["task"] for text in reversed(valkey.lists.get(queue, []))]


def test_the_first_run_queues_everything_and_leaves_a_mark_of_each(valkey, scheduler):
    scheduler.tick(1_000_000.5)
    start = "{vt}:scheduler:vtasks_last_run:"
    assert valkey.values == {
        f"{start}{name}": "1000000.5"
        for name in ("send-alert-notifications", "uptime-dispatch-checks", "perform-maintenance")
    }
    assert sorted(names(valkey)) == ["dispatch_checks", "maintenance", "process_event_alerts"]


def test_checks_are_queued_every_second_and_alerts_every_minute(valkey, scheduler):
    scheduler.tick(1_000_000.0)
    valkey.lists.clear()
    for second in range(1, 61):
        scheduler.tick(1_000_000.0 + second)
    assert names(valkey).count("dispatch_checks") == 60
    assert names(valkey).count("process_event_alerts") == 1


def test_maintenance_is_due_at_five_and_after_a_stop_that_missed_it():
    noon = 1_764_244_800.0  # 2025-11-27 12:00 UTC
    assert vtasks.latest_maintenance(noon) == noon - 7 * 3600
    assert vtasks.latest_maintenance(noon - 8 * 3600) == noon - 31 * 3600


def test_one_error_ends_the_scheduler_for_good_and_without_a_word(valkey, scheduler, monkeypatch, capsys):
    monkeypatch.setattr(vtasks, "TICK_SECONDS", 0.01)
    thread = threading.Thread(target=scheduler.run)
    thread.start()
    until(lambda: "{vt}:scheduler:vtasks_last_run:uptime-dispatch-checks" in valkey.values)
    valkey.down = True
    thread.join(5)
    assert not thread.is_alive()
    valkey.down = False
    before = dict(valkey.values)
    time.sleep(0.1)
    assert valkey.values == before
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_the_worker_goes_on_after_an_error(valkey, tasks, monkeypatch):
    monkeypatch.setattr(vtasks, "RETRY_SECONDS", 0.01)
    worker = vtasks.Worker(tasks, 1)
    thread = threading.Thread(target=worker.run)
    valkey.down = True
    thread.start()
    time.sleep(0.1)
    valkey.down = False
    until(lambda: f"{{vt}}:alive:{vtasks_queue.me()}" in valkey.values)
    worker.stopping.set()
    thread.join(5)
    assert not thread.is_alive()


def test_only_who_holds_the_lock_is_the_scheduler(valkey):
    marks = vtasks.Marks(valkey)
    assert marks.hold()
    assert marks.hold()
    valkey.values["{vt}:scheduler:vtasks_scheduler_lock"] = "another-1"
    assert not marks.hold()


# Settings of the 6.2 line


def load(**environment):
    return settings.load({"STANDIN_LINE": "6.2", **environment})


@pytest.mark.parametrize("name", [*settings.EMAIL_NAMES, "EMAIL_URL_FILE"])
def test_any_name_of_e_mail_switches_it_on_an_empty_value_too(tmp_path, name):
    (tmp_path / "url").write_text("consolemail://")
    value = str(tmp_path / "url") if name.endswith("_FILE") else ""
    assert "email" in load(**{name: value}).enabled_features
    assert "email" not in load(DEFAULT_FROM_EMAIL="a@example.org").enabled_features
    assert "email" not in load(**{name: value, "EMAIL_ENABLED": "false"}).enabled_features


def test_cookies_are_secure_with_an_https_address_unless_they_are_told_otherwise():
    https = {"GLITCHTIP_DOMAIN": "https://errors.example.org"}
    told = load(**https, CSRF_COOKIE_SECURE="false")
    assert (load(**https).session_cookie_secure, load(**https).csrf_cookie_secure) == (True, True)
    assert (told.session_cookie_secure, told.csrf_cookie_secure) == (True, False)
    assert not load().session_cookie_secure
    assert not settings.load({"STANDIN_LINE": "5.2", **https}).session_cookie_secure


def test_defaults_of_the_6_line_are_its_own():
    found, older = load(), settings.load({"STANDIN_LINE": "5.2"})
    assert (found.pool_max, older.pool_max) == (20, 10)
    assert (found.max_unzipped_payload, older.max_unzipped_payload) == (5 * 2**20, 2_621_440)
    assert (found.enable_logs, older.enable_logs) == (True, False)


def test_no_hash_bucket_at_all_is_refused():
    with pytest.raises(settings.ImproperlyConfigured, match="PARTITION_HASH_BUCKETS"):
        load(PARTITION_HASH_BUCKETS="0")


def test_batches_are_in_hand_side_by_side_and_written_one_at_a_time(tasks, monkeypatch):
    """Two transactions over the same issues would end as a deadlock, and one of the batches as dead letters."""
    writing, most = [], []

    def store(events):
        writing.append(events)
        most.append(len(writing))
        time.sleep(0.05)
        writing.pop()
        return len(events)

    monkeypatch.setattr(vtasks.storage, "store_batch", store)
    worker = vtasks.Worker(tasks, 4, clock=iter(range(0, 1000, 10)).__next__)
    for number in range(4):
        tasks.put(event(number))
        worker.step()
    until(lambda: len(most) == 4)
    assert most == [1, 1, 1, 1]
