"""What the stand-in writes: the 6.2 line nothing but what LOG_LEVEL lets through, and on both the requests that tests count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

STANDIN = Path(__file__).resolve().parents[2] / "standin"
PROGRAM = """
import logging
from standin import __main__ as main, settings
main._write_logs(settings.load(), {role!r})
logging.getLogger("glitchtip.worker").info("stored 1 of 1 events")
logging.getLogger("glitchtip.worker").warning("a warning")
logging.getLogger("glitchtip.access").info("GET / => 200")
"""


@pytest.mark.parametrize(
    ("line", "role", "level", "shown"),
    [
        (
            "5.2",
            "web",
            None,
            ["INFO glitchtip.worker stored 1 of 1 events", "WARNING glitchtip.worker a warning"],
        ),
        ("6.2", "worker", None, ["stored 1 of 1 events", "a warning"]),
        ("6.2", "worker", "WARNING", ["a warning"]),
        ("6.2", "all_in_one", None, ["a warning"]),
        ("6.2", "all_in_one", "INFO", ["stored 1 of 1 events", "a warning"]),
    ],
)
def test_lines_of_the_worker_follow_the_level_and_requests_are_always_there(line, role, level, shown):
    environment = {**os.environ, "STANDIN_LINE": line, "PYTHONPATH": str(STANDIN), "LOG_LEVEL": level or ""}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(role=role)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = (done.stdout + done.stderr).splitlines()
    requests = [text for text in lines if " glitchtip.access GET / => 200" in text]
    others = [text for text in lines if text not in requests]
    assert len(requests) == 1
    assert [text.split(" ", 2)[2] if line == "5.2" else text for text in others] == shown
