"""The senders: what they print is read, what they complain about is handed on, the DSN stays out of it."""

from __future__ import annotations

import json
import re
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from unit.ops_local_test.support import KEY, SCRIPTS

from glitchtip_ops.local_test.expectations import EXPECTATIONS
from glitchtip_ops.local_test.judging import Raised
from glitchtip_ops.local_test.sending import NodeSender, PythonSender, parse_output
from glitchtip_ops.process import OpsError

DSN = f"http://{KEY}@127.0.0.1:9/1"
LINES: list[dict[str, Any]] = [
    {"sdk": "@sentry/node", "version": "10.24.0"},
    {"scenario": "burst", "event_id": "a", "sent_at": 1500},
    {"event_id": "a", "raised": {"file": "x.cjs", "function": "burst", "line": 2}},
    {"scenario": "burst", "event_id": "b", "sent_at": 2000},
    {"event_id": "a", "status": 200, "answered_at": 2500},
    {"event_id": "b", "status": None, "answered_at": 2600},
    {"profiles": 1, "transaction_status": 200, "complete": True},
]


def test_both_scripts_have_exactly_the_expected_scenarios() -> None:
    """Five SDK scenarios and five patterns, the same in both scripts and in the expectations."""
    expected = [item.scenario for item in EXPECTATIONS]
    node = re.findall(r"^  '([a-z-]+)': \w+,$", (SCRIPTS / "scenarios.cjs").read_text(), re.MULTILINE)
    python = re.findall(r'^    "([a-z-]+)": \w+,$', (SCRIPTS / "scenarios.py").read_text(), re.MULTILINE)
    assert node == python == expected
    assert [name.partition("-")[0] for name in expected] == ["sdk"] * 5 + ["pattern"] * 5


def test_output_of_a_script() -> None:
    """Times become seconds, a raising line is quoted from the script, answers are counted."""
    text = "\n".join(json.dumps(line) for line in LINES)
    sent = parse_output(text, "one\n  throw two\n")
    assert (sent.sdk, sent.version, sent.complete) == ("@sentry/node", "10.24.0", True)
    assert (sent.at, sent.status) == ({"a": 1.5, "b": 2.0}, {"a": 200, "b": None})
    assert (sent.answered["a"], sent.accepted, sent.profiles) == (2.5, 1, 1)
    assert sent.raised == {"a": Raised("x.cjs", "burst", 2, "throw two")}


@pytest.mark.parametrize("without", [0, -1])
def test_output_that_is_something_else_is_refused(without: int) -> None:
    """Nothing, another text, or no first or last line."""
    lines = [json.dumps(line) for line in LINES]
    del lines[without]
    for wrong in ("", "hello", "\n".join(lines), "[]"):
        with pytest.raises(OpsError, match="something else"):
            parse_output(wrong)


def program(directory: Path, text: str) -> Path:
    path = directory / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "package.json").write_text("{}")
    return tmp_path


def node(app: Path, program: Path | str) -> NodeSender:
    return NodeSender(SCRIPTS / "scenarios.cjs", DSN, None, None, app, str(program))


def test_a_sender_hands_over_its_order_and_the_dsn_but_never_in_the_arguments(app: Path) -> None:
    """The order on standard input, the DSN in the environment, the script from a copy that anyone may read."""
    seen = app / "seen"
    lines = "\n".join(json.dumps(line) for line in LINES)
    script = program(
        app,
        f'cat > {seen}.order; echo "$LOCAL_TEST_DSN" > {seen}.dsn; echo "$@" > {seen}.args; '
        f'stat -c %a "$1" > {seen}.mode; stat -c %a "$(dirname "$1")" >> {seen}.mode; cat <<X\n{lines}\nX',
    )
    sent = node(app, script).send([{"scenario": "sdk-user", "event_id": "a"}], ["b"])
    assert sent.accepted == 1
    order = json.loads(Path(f"{seen}.order").read_text())
    assert (order["items"], order["burst"]) == ([{"scenario": "sdk-user", "event_id": "a"}], ["b"])
    assert order["app_dir"] == str(app)
    assert Path(f"{seen}.dsn").read_text().strip() == DSN
    arguments = Path(f"{seen}.args").read_text().split()
    assert (len(arguments), Path(arguments[0]).name) == (1, "scenarios.cjs")
    assert not Path(arguments[0]).exists()
    assert Path(f"{seen}.mode").read_text().split() == ["644", "755"]


def test_what_an_sdk_complains_about_is_handed_on_without_the_dsn(app: Path) -> None:
    """One sentence, and no key."""
    script = program(app, "echo \"Cannot find module '@sentry/node' for $LOCAL_TEST_DSN\" >&2; exit 1")
    with pytest.raises(OpsError, match="could not send the test errors: Cannot find module") as error:
        node(app, script).send([], ["a"])
    assert KEY not in str(error.value)


def test_what_is_missing_is_said_before_anything_runs(tmp_path: Path, app: Path) -> None:
    """The product, Node.js, Python, the scripts."""
    for sender, sentence in (
        (node(tmp_path / "nowhere", "sh"), "is not the directory of a Node.js product"),
        (node(app, "/nowhere/node"), "/nowhere/node is not a program here"),
        (PythonSender(SCRIPTS / "scenarios.py", DSN, python="/nowhere/python"), "is not a program here"),
        (PythonSender(tmp_path / "no.py", DSN), "no.py cannot be read"),
    ):
        with pytest.raises(OpsError, match=sentence):
            sender.check()
    node(app, "sh").check()
    PythonSender(SCRIPTS / "scenarios.py", DSN).check()


def test_a_python_without_the_sdk_says_so(tmp_path: Path) -> None:
    """A Python that sees no packages: its name and the missing module."""
    isolated = tmp_path / "python"
    isolated.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    isolated.chmod(isolated.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(OpsError, match="No module named 'sentry_sdk': install sentry-sdk"):
        PythonSender(SCRIPTS / "scenarios.py", DSN, python=str(isolated)).send([], ["a" * 32])


def test_a_dsn_is_not_shown_by_the_sender_itself(app: Path) -> None:
    """Not in its representation, which may stand in a traceback."""
    assert KEY not in repr(node(app, "sh"))
    assert KEY not in repr(PythonSender(SCRIPTS / "scenarios.py", DSN))
