"""What a failed scenario failed on is told at the end: the gate's log may show nothing else."""

from __future__ import annotations

from rig.suites import _reasons

LOG = """\
\x1b[2m\u2502\x1b[0m FAILED - RETRYING: [walk]: Wait for the verdict (80 retries left).
  \x1b[2m\u2502\x1b[0m \x1b[0;31mfatal: [walk]: FAILED! => {"msg": "no room"}\x1b[0m
E       AssertionError: lost 2
FAILED molecule/default/tests/test_1_walk.py::test_no_event_was_lost
1 failed, 3 passed
"""


def test_failed_tasks_and_tests_are_found_and_retries_are_not() -> None:
    assert _reasons(LOG) == [
        'fatal: [walk]: FAILED! => {"msg": "no room"}',
        "E       AssertionError: lost 2",
        "FAILED molecule/default/tests/test_1_walk.py::test_no_event_was_lost",
    ]


def test_only_the_last_reasons_are_told() -> None:
    told = _reasons("\n".join(f"FAILED test_{number}" for number in range(40)))
    assert len(told) == 12
    assert told[-1] == "FAILED test_39"
