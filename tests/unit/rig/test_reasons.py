"""What a failed scenario failed on is told at the end: the gate's log may show nothing else."""

from __future__ import annotations

from rig.reasons import reasons

LOG = """\
\x1b[2m\u2502\x1b[0m TASK [ops : Wait for the verdict]
\x1b[2m\u2502\x1b[0m   ****************
\x1b[2m\u2502\x1b[0m FAILED - RETRYING: [walk]: Wait for the verdict (80 retries left).
  \x1b[2m\u2502\x1b[0m \x1b[0;31mfatal: [walk]: FAILED! =>\x1b[0m
  \x1b[2m\u2502\x1b[0m \x1b[0;31m    changed: false\x1b[0m
  \x1b[2m\u2502\x1b[0m \x1b[0;31m    cmd:\x1b[0m
  \x1b[2m\u2502\x1b[0m \x1b[0;31m    - a-command\x1b[0m
  \x1b[2m\u2502\x1b[0m \x1b[0;31m    msg: 'No room:\x1b[0m
  \x1b[2m\u2502\x1b[0m \x1b[0;31m  make some.'\x1b[0m
  \x1b[2m\u2502\x1b[0m \x1b[0;31m    rc: 1\x1b[0m
  \x1b[2m\u2502\x1b[0m
  \x1b[2m\u2502\x1b[0m fatal: [walk]: FAILED! => {"msg": "no room"}
E       AssertionError: lost 2
FAILED molecule/default/tests/test_1_walk.py::test_no_event_was_lost
1 failed, 3 passed
ERROR    default \u279c verify: Executed: Failed
"""


def test_failed_tasks_with_their_message_and_failed_tests_are_found() -> None:
    assert reasons(LOG) == [
        "fatal: [walk]: FAILED! => (Wait for the verdict) 'No room: make some.'",
        'fatal: [walk]: FAILED! => {"msg": "no room"} (Wait for the verdict)',
        "E       AssertionError: lost 2",
        "FAILED molecule/default/tests/test_1_walk.py::test_no_event_was_lost",
    ]


def test_only_the_last_ones_are_told() -> None:
    told = reasons("\n".join(f"FAILED test_{number}" for number in range(40)))
    assert len(told) == 8
    assert told[-1] == "FAILED test_39"


def test_what_molecule_says_is_told_where_nothing_else_is() -> None:
    assert reasons("a line\nERROR    no such image\n") == ["ERROR    no such image"]
    assert reasons("Traceback:\n  File x\nTypeError: not a text\n") == ["TypeError: not a text"]
