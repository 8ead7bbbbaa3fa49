"""One way to say a line and one way to run a process in the rig."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"


class RigError(Exception):
    """One sentence: what is wrong, where, what to do."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(text, flush=True)


def run(
    argv: Sequence[str],
    *,
    input_text: str | None = None,
    env: dict[str, str] | None = None,
    timeout: float = 900,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a process with its output captured; raise RigError with its last lines when it fails and ``check`` is set."""
    done = subprocess.run(
        list(argv),
        input=input_text,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=None if env is None else {**os.environ, **env},
    )
    if check and done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise RigError(f"`{' '.join(argv[:4])} ...` failed with exit code {done.returncode}:\n{tail}")
    return done


def wait_for(what: str, probe: Callable[[], bool], *, seconds: float = 60, pause: float = 0.5) -> None:
    """Poll ``probe`` until it is true; RigError naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            raise RigError(f"{what} did not happen within {seconds:.0f} s.")
        time.sleep(pause)
