"""The switch's managers on a real systemd and on the engine and Compose that the role installed."""

import subprocess
from pathlib import Path

import pytest

from glitchtip_cutover.bundle import bundle

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = "/root/ai-admin-cutover.pyz"


@pytest.fixture
def server(host, tmp_path):
    """A server that has the program and the two scripts."""
    name = host.check_output("hostname")
    program = tmp_path / "program.pyz"
    program.write_bytes(bundle(ROOT / "src/glitchtip_cutover"))
    copies = {program: PROGRAM} | {
        path: f"/root/{path.name}" for path in (ROOT / "tests/integration/cutover").glob("real_*.py")
    }
    for source, target in copies.items():
        subprocess.run(["docker", "cp", str(source), f"{name}:{target}"], check=True, capture_output=True)
    return host


@pytest.mark.parametrize("manager", ["systemd", "compose"])
def test_services_go_there_and_back_under_a_real_manager(server, manager):
    done = server.run(f"python3 /root/real_{manager}.py {PROGRAM}")
    assert done.rc == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all checks hold\n")
