"""The real PM2 as real hosts have it: in nvm's layout, of a third user, started from a shell with variables of its own.

Neither ``node`` nor ``pm2`` is on the PATH of those who ask, as in a unit of systemd.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glitchtip_cutover.config import Pm2Settings
from glitchtip_cutover.pm2 import Pm2
from glitchtip_ops.host_state import read_pm2

ROOT = Path(__file__).resolve().parents[3]
USER = "nobody"
#: Names that PM2's own settings have, too. ``env`` is the one of which it keeps what the shell says.
SHELL = {"env": "production", "status": "broken", "restart_time": "many", "pm_uptime": "never", "autorestart": "maybe"}

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None or shutil.which("npm") is None, reason="node and npm are not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start PM2 as somebody else"),
]


class Runtime:
    """nvm's layout below ``root``, with the real programs, and a service under a PM2 of USER."""

    def __init__(self, root: Path, installed: Path) -> None:
        prefix = root / "nvm/versions/node/v20.0.0"
        (prefix / "bin").mkdir(parents=True)
        (prefix / "bin/node").symlink_to(os.path.realpath(str(shutil.which("node"))))
        (prefix / "lib").symlink_to(installed.parents[1] / "lib")
        self.node, self.pm2, self.home = prefix / "bin/node", prefix / "bin/pm2", root / "home"
        self.pm2.symlink_to("../lib/node_modules/pm2/bin/pm2")
        self.home.mkdir()
        shutil.chown(self.home, USER)
        (root / "app.js").write_text("setInterval(() => {}, 1000);\n")
        self.app = root / "app.js"

    def call(self, *arguments: str, **variables: str) -> str:
        environment = {"PATH": f"{self.node.parent}:/usr/bin:/bin", "HOME": str(self.home), "PM2_HOME": str(self.home)}
        done = subprocess.run(
            [self.pm2, *arguments], env={**environment, **variables}, cwd="/", user=USER, capture_output=True, text=True,
            timeout=120, check=True,
        )  # fmt: skip
        return done.stdout


@pytest.fixture
def runtime(binary: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    root = Path(tempfile.mkdtemp(prefix="cutover-runtime-"))
    root.chmod(0o755)
    made = Runtime(root, binary)
    made.call("start", str(made.app), "--name", "api", "-i", "2", **SHELL)
    monkeypatch.setenv("PATH", "/nonexistent")
    try:
        yield made
    finally:
        made.call("kill")
        shutil.rmtree(root, ignore_errors=True)


def ask_module(runtime: Runtime) -> dict[str, Any]:
    """``pm2_info`` as a program of its own, as Ansible runs it on the host."""
    code = (
        "import json, sys; sys.path[:0] = sys.argv[1:3]\n"
        "import ansible.module_utils as utils; utils.__path__.append(sys.argv[2])\n"
        "from ansible.module_utils.testing import patch_module_args\n"
        "import pm2_info\n"
        "with patch_module_args(json.loads(sys.argv[3])): pm2_info.main()\n"
    )
    options = {"user": USER, "home": str(runtime.home), "binary": str(runtime.pm2), "expected": ["api"]}
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "library"), str(ROOT / "src"), json.dumps(options)],
        env={"PATH": "/nonexistent"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


def test_every_reader_reads_it(runtime: Runtime) -> None:
    raw = json.loads(runtime.call("jlist"))
    assert raw[0]["pm2_env"]["env"] == "production"  # else this test would show nothing
    phase0 = ask_module(runtime)
    assert not phase0.get("failed"), phase0
    assert (phase0["node"], phase0["missing"], phase0["not_online"]) == (str(runtime.node), [], [])
    assert [each["name"] for each in phase0["processes"]] == ["api", "api"]
    sampled = read_pm2(USER, str(runtime.home), str(runtime.pm2), "")
    assert [(each.name, each.well, each.restarts) for each in sampled] == [("api", True, 0)] * 2
    pm2 = Pm2(Pm2Settings(USER, runtime.home, runtime.pm2, None))
    before = pm2.processes()
    assert [(each.name, each.online) for each in before] == [("api", True)] * 2
    pm2.restart_together([(each, None) for each in before])
    after = pm2.processes()
    assert {each.pid for each in after}.isdisjoint({each.pid for each in before})
    assert [each.online for each in after] == [True, True]
