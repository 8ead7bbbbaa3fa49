"""The stack's secrets are made once, on the host, for their owner only, and never printed."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[3] / "roles/glitchtip/files/generate_secrets.py"


def generate(path):
    return subprocess.run(
        [sys.executable, PROGRAM, path], capture_output=True, text=True, check=False, umask=0o000, timeout=20
    )


def test_they_have_the_right_form_and_only_their_owner_reads_them(tmp_path):
    done = generate(tmp_path / ".env")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    forms = {
        "SECRET_KEY": r"[0-9a-f]{64}",
        "POSTGRES_PASSWORD": r"[0-9a-f]{32}",
        "SUPERUSER_PASSWORD": r"[A-Za-z0-9_-]{32}",
    }
    found = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines())
    assert set(found) == set(forms)
    assert all(re.fullmatch(forms[name], value) for name, value in found.items())


def test_two_hosts_share_none(tmp_path):
    for name in ("one", "two"):
        generate(tmp_path / name)
    one, two = (set((tmp_path / name).read_text().splitlines()) for name in ("one", "two"))
    assert not one & two


def test_a_file_that_is_there_is_never_overwritten(tmp_path):
    (tmp_path / ".env").write_text("SECRET_KEY=mine\n")
    assert generate(tmp_path / ".env").returncode != 0
    assert (tmp_path / ".env").read_text() == "SECRET_KEY=mine\n"


def test_a_part_of_an_interrupted_run_does_no_harm(tmp_path):
    (tmp_path / ".env.part").write_text("SECRET_")
    assert generate(tmp_path / ".env").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == [".env"]
