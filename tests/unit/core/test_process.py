"""A program that is run ends in time, prints no more than is allowed, and leaves nothing running."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from glitchtip_core.errors import CoreError
from glitchtip_core.process import OUTPUT_LIMIT, run, run_raw

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


def python(source: str, **options: object):
    return run([sys.executable, "-IS", "-c", source], environment=ENVIRONMENT, **{"timeout": 30, **options})  # type: ignore[arg-type]


def test_input_and_both_outputs_of_any_size_pass_at_once() -> None:
    """More than a pipe holds, in each direction: neither side may wait for the other."""
    source = "import sys; d = sys.stdin.read(); sys.stderr.write(d); sys.stdout.write(d)"
    given = "line ä\n" * 100_000
    done = python(source, stdin=given)
    assert (done.code, done.output, done.errors) == (0, given, given)
    assert done.output.encode() == given.encode()


def test_a_program_that_reads_nothing_is_no_error() -> None:
    assert python("print('done')", stdin="x" * 10**6).output == "done\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_without_end_is_cut_with_one_error(stream: str) -> None:
    source = f"import sys\nwhile True: sys.{stream}.write('y' * 65536)"
    began = time.monotonic()
    with pytest.raises(CoreError, match=r"^python\S* printed more than 1000000 bytes and was ended$"):
        python(source, limit=10**6)
    assert time.monotonic() - began < 20


def test_output_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    """The control of the test above: the limit is what ends it."""
    assert len(python("print('y' * 999, flush=True)", limit=1000).output) == 1000
    with pytest.raises(CoreError, match="printed more than 1000 bytes"):
        python("print('y' * 1000, flush=True)", limit=1000)
    assert OUTPUT_LIMIT >= 30 * 2**20  # the log of a container that is rotated at 3 x 10 MB


@pytest.mark.parametrize("how", ["time", "output"])
def test_what_the_program_started_is_ended_with_it(tmp_path: Path, how: str) -> None:
    pids = tmp_path / "pids"
    source = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"open({str(pids)!r}, 'w').write(str(child.pid))\n"
        + ("time.sleep(600)" if how == "time" else "while True: print('y' * 65536)")
    )
    with pytest.raises(CoreError, match="did not end within 3 s" if how == "time" else "printed more than"):
        python(source, timeout=3, limit=10**5)
    child = Path("/proc") / pids.read_text()
    deadline = time.monotonic() + 10
    while (
        child.exists() and "Z" not in (child / "stat").read_text().split()[2] and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert not child.exists() or (child / "stat").read_text().split()[2] == "Z"


def test_a_program_that_closes_its_outputs_and_stays_is_ended() -> None:
    with pytest.raises(CoreError, match="did not end within 1 s"):
        python("import os, time; os.close(1); os.close(2); time.sleep(600)", timeout=1)


def test_files_as_input_and_output_have_no_limit(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(os.urandom(3 * 10**6))
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        done = run_raw(["cat"], environment=ENVIRONMENT, timeout=30, stdin=source, stdout=target, limit=1000)
    assert (done.code, done.output) == (0, b"")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


def test_line_ends_and_bytes_that_are_no_text_are_read_as_before() -> None:
    done = python("import sys; sys.stdout.buffer.write(b'a\\r\\nb\\rc\\n\\xff')")
    assert done.output == "a\nb\nc\n�"
