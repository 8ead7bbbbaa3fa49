"""Compressed entries of the 6.x line are read where GlitchTip's own libraries are, without their payload."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from unit.ops_queue import event_id, vtask
from unit.ops_support import container

from glitchtip_ops.docker_stack import Stack, parse_container
from glitchtip_ops.process import OpsError
from glitchtip_ops.queue.messages import Message, parse_celery, parse_vtask
from glitchtip_ops.queue.vtasks import parse_entries

WEB = parse_container(container("web"))


class GlitchTipContainer(Stack):
    """Runs Python programs here, with a module in the place of the real compression."""

    def __init__(self, root: Path, *, module: str = "pyzstd") -> None:
        super().__init__()
        self.root = root
        self.printed = ""
        (root / f"{module}.py").write_text("from zlib import decompress\n")

    def execute(self, _: Any, argv: Sequence[str], stdin: str = "") -> str:
        """The program's output."""
        assert argv[:2] == ["python", "-c"]
        done = subprocess.run(
            [sys.executable, *argv[1:]],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONPATH": str(self.root)},
        )
        if done.returncode:
            raise OpsError(f"docker exec failed: {done.stderr[-80:]}")
        self.printed = done.stdout
        return done.stdout


def packed(data: bytes) -> bytes:
    return b"zstd:" + zlib.compress(data)


def test_plain_and_compressed_entries_are_read_in_their_order(tmp_path: Path) -> None:
    task = json.loads(vtask(2))
    task["args"][0]["payload"]["user"] = {"email": "someone@example.org"}
    task["error_traceback"] = "a line of somebody's source"
    entries = [
        vtask(1),
        packed(json.dumps(task).encode()),
        b"no JSON",
        b"zstd:broken",
        packed(b"[]"),
        vtask(3),
    ]
    stack = GlitchTipContainer(tmp_path)
    found = parse_entries(stack, [WEB], entries)
    assert [each and each.event_id for each in found] == [
        event_id(1),
        event_id(2),
        None,
        None,
        None,
        event_id(3),
    ]
    assert found[1] is not None
    assert (found[1].queue, found[1].failed, found[1].rescued) == ("ingest", True, False)
    assert "someone" not in stack.printed
    assert "somebody" not in stack.printed


def test_without_the_library_or_a_container_compressed_entries_stay_unread(tmp_path: Path) -> None:
    stack = GlitchTipContainer(tmp_path, module="another")
    assert parse_entries(stack, [WEB], [packed(vtask(1))]) == [None]
    assert parse_entries(stack, [], [packed(vtask(1)), vtask(2)])[0] is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"error_msg": "Exceeded max_rescues (0)"}, {"failed": True, "rescued": True}),
        ({"queue": None}, {"queue": "default"}),
        ({"args": [{"payload": {"type": "transaction", "event_id": "x"}}]}, {"event_id": ""}),
        ({"args": [7]}, {"event_id": "", "received": 5.0}),
        ({"args": None}, {"event_id": ""}),
    ],
)
def test_a_task_of_the_new_line_tells_what_it_is(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    found = parse_vtask({**json.loads(vtask(1)), **changes})
    assert found is not None
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"7", b"\xff", b'{"body": "no base64!"}', b'{"body": 7}', b'{"headers": 7}']
)
def test_what_is_no_message_is_none_or_a_task_without_an_event(data: bytes) -> None:
    found = parse_celery(data)
    assert found in (None, Message())
