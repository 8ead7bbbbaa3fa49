"""The stand-in has the names of celery that the role's worker command uses, and its queue's messages are as large in kind as celery's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from standin.wire import unwrap_kombu, wrap_kombu

ROOT = Path(__file__).resolve().parents[3]
COMMAND = ROOT / "roles/glitchtip/files/worker_with_beat.py"
#: Instead of the stand-in's worker: what it was asked for, and one task queued through the scheduler.
SITE = """
import sys, types
entry = types.ModuleType("standin.__main__")
def main(arguments):
    from celery.beat import Scheduler, _Process
    Scheduler().apply_async(lambda: print(arguments, _Process))
    return 0
entry.main = main
sys.modules["standin.__main__"] = entry
"""


def test_the_roles_worker_command_runs_and_leaves_its_mark(tmp_path):
    program = SITE + COMMAND.read_text().replace('"/tmp/', f'"{tmp_path}/')
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests/standin")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "['worker_with_beat'] None\n"
    assert (tmp_path / "beat_mark").read_text().strip().isdigit()


def test_a_task_that_cannot_be_queued_leaves_no_mark(tmp_path):
    program = SITE.replace("print(arguments, _Process)", "1 / 0") + COMMAND.read_text().replace(
        '"/tmp/', f'"{tmp_path}/'
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests/standin")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert "ZeroDivisionError" in done.stderr
    assert not (tmp_path / "beat_mark").exists()


@pytest.mark.parametrize(
    "message", [{"task": "ingest", "id": "1", "project": 1, "event": {"text": "Ж \U0001f600 {{ x }}"}}, {"task": "x"}]
)
def test_a_message_comes_back_as_it_was_put(message):
    assert unwrap_kombu(wrap_kombu(message)) == message


def test_a_waiting_event_is_larger_than_what_was_sent():
    message = {"task": "ingest", "project": 1, "event": {"text": "x" * 2000}}
    packed = wrap_kombu(message)
    assert len(packed) > 1.3 * len(json.dumps(message)) + 1000
    assert json.loads(packed)["content-type"] == "application/json"
