"""The health check of the 5.2 worker goes red when Valkey or the scheduler is silent; run as the container runs it, with other paths."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[3] / "roles/glitchtip/files/worker_health.py"


class Valkey:
    """Answers every connection with one line."""

    def __init__(self, answer):
        self.answer = answer
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        if answer is None:
            self.socket.close()  # nobody listens there now
        else:
            threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.recv(64)
                connection.sendall(self.answer)


@pytest.fixture
def check(tmp_path):
    """check(answer=...) -> (exit code, reason); marks are files of ``tmp_path``."""
    servers = []

    def run(answer=b"+PONG\r\n"):
        server = Valkey(answer)
        servers.append(server)
        text = PROGRAM.read_text().replace('"/tmp/', f'"{tmp_path}/')
        assert '("valkey", 6379)' in text
        text = text.replace('("valkey", 6379)', f'("127.0.0.1", {server.port})')
        argv = [sys.executable, "-I", "-S", "-c", text]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr.strip()

    yield run
    for server in servers:
        server.socket.close()


@pytest.fixture
def mark(tmp_path):
    """mark(name, age in seconds)"""

    def make(name, age):
        path = tmp_path / name
        path.touch()
        os.utime(path, (time.time() - age, time.time() - age))

    return make


@pytest.mark.parametrize(
    "name", ["beat_mark", "celerybeat-schedule", "celerybeat-schedule.db", "celerybeat-schedule-wal"]
)
def test_a_scheduler_that_was_just_at_work_is_healthy(check, mark, name):
    mark(name, 5)
    assert check() == (0, "")


@pytest.mark.parametrize(
    ("name", "age", "healthy"),
    [
        ("beat_mark", 100, True),
        ("beat_mark", 130, False),
        ("celerybeat-schedule", 200, True),
        ("celerybeat-schedule", 450, False),
        ("celerybeat-schedule-wal", 450, False),
    ],
)
def test_a_silent_scheduler_is_not(check, mark, name, age, healthy):
    mark(name, age)
    code, reason = check()
    assert (code == 0) == healthy
    told = re.search(r"the scheduler has shown no sign of life for (\d+) s", reason)
    assert healthy if told is None else age <= int(told[1]) < age + 30


def test_the_mark_of_a_queued_task_counts_more_than_the_schedule_file(check, mark):
    """celery writes the file although it can queue nothing."""
    mark("celerybeat-schedule", 1)
    mark("beat_mark", 3600)
    assert "no sign of life for 3600 s" in check()[1]


def test_the_newest_part_of_the_schedule_counts(check, mark):
    mark("celerybeat-schedule", 3600)
    mark("celerybeat-schedule-wal", 10)
    assert check()[0] == 0


def test_without_a_schedule_there_is_no_scheduler(check):
    assert check() == (1, "the scheduler has not started")


@pytest.mark.parametrize(
    ("answer", "words"), [(None, "Valkey does not respond"), (b"-LOADING\r\n", "to PING")]
)
def test_a_queue_that_does_not_answer_is_red_with_a_living_scheduler(check, mark, answer, words):
    mark("beat_mark", 1)
    code, reason = check(answer)
    assert code == 1
    assert words in reason
