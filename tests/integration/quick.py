"""What many tests start, started with less work: ansible-playbook, our program, and what npm installs.

Nothing of what runs is changed: what was compiled or packed before is read, and a package is installed once in a run.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE_PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
HERE = Path(__file__).resolve().parent / "quick_python"
#: Runs a zipapp with ``-I``, which leaves PYTHONPATH out of account: ``python -I -c RUN HERE DIRECTORY PROGRAM ...``.
RUN = """
import runpy, sys
_, here, directory, *sys.argv = sys.argv
sys.path.insert(0, here)
import sitecustomize as quick
del sys.path[0], sys.modules["sitecustomize"]
quick.keep_compiled(directory)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@functools.cache
def kept() -> Path:
    """Directory of what is kept during this run; it is removed at its end."""
    directory = Path(tempfile.mkdtemp(prefix="kept-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def python_variables() -> dict[str, str]:
    """Variables for Python and ansible-playbook that read what was made before."""
    return {"PYTHONPATH": str(HERE), "TEST_KEPT_DIR": str(kept())}


def zipapp(program: Path, *, python: str = sys.executable) -> list[str]:
    """The beginning of a command that runs a zipapp as ``python -I PROGRAM`` does."""
    return [python, "-I", "-c", RUN, str(HERE), str(kept()), str(program)]


def ansible_variables(**more: str) -> dict[str, str]:
    """The environment of ``ansible-playbook`` with this repository's settings."""
    settings = {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
        "ANSIBLE_DEPRECATION_WARNINGS": "0",
    }
    return {**os.environ, **settings, **python_variables(), **more}


def npm(*arguments: str, cwd: Path) -> None:
    """Run npm, quietly."""
    done = subprocess.run(
        ["npm", *arguments, "--loglevel=error", "--no-audit", "--no-fund"],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"npm {arguments[0]} did not work: {done.stderr.strip().splitlines()[:1]}"


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A directory that the first of pytest's workers fills, and the others read."""
    base = factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / name).exists():
            part = shared / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            make(part)
            part.rename(shared / name)
    return shared / name
