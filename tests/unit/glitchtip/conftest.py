"""A ``docker`` on PATH that knows images from a file and writes down how it was called."""

from __future__ import annotations

import json
import os
import sys

import pytest

PROGRAM = """#!{python}
import json, os, subprocess, sys, time
path = os.path.join({root!r}, "world.json")
world = json.load(open(path))
argv = sys.argv[1:]
with open(os.path.join({root!r}, "calls"), "a") as calls:
    calls.write(" ".join(argv) + "\\n")
if argv[:2] == ["image", "inspect"]:
    image = world["local"].get(argv[2])
    if image is None:
        sys.exit("Error response from daemon: No such image: " + argv[2])
    print(json.dumps([image]))
elif argv[:1] == ["pull"]:
    if not sys.stdout.isatty():
        sys.exit("docker shows the bytes of a layer to a terminal only")
    for text in world.get("progress", []):
        print("0123456789ab: " + text, flush=True)
        time.sleep(world.get("pause", 0))
    if world.get("hangs"):
        child = subprocess.Popen(["sleep", "600"])
        print(child.pid, os.getpid(), file=open(os.path.join({root!r}, "pids"), "w"))
        while True:
            time.sleep(0.1)
            if world.get("repeats"):
                print("0123456789ab: " + world["repeats"], flush=True)
    if world.get("refusal"):
        sys.exit(world["refusal"])
    if argv[1] not in world["registry"]:
        sys.exit("Error response from daemon: manifest for " + argv[1] + " not found")
    if not world.get("forgets"):
        world["local"][argv[1]] = world["registry"][argv[1]]
        json.dump(world, open(path, "w"))
    print(argv[1])
else:
    sys.exit("unexpected: " + " ".join(argv))
"""


class Engine:
    """The images that the fake engine has (``local``) and could pull (``registry``)."""

    def __init__(self, root):
        self.root = root
        self.write({"local": {}, "registry": {}})

    def write(self, world):
        (self.root / "world.json").write_text(json.dumps(world))

    def set(self, **knobs):
        self.write({**json.loads((self.root / "world.json").read_text()), **knobs})

    @property
    def pulls(self):
        path = self.root / "calls"
        calls = path.read_text().splitlines() if path.exists() else []
        return [call.removeprefix("pull ") for call in calls if call.startswith("pull ")]


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """The fake engine, first on PATH."""
    root = tmp_path / "engine"
    root.mkdir()
    program = root / "docker"
    program.write_text(PROGRAM.format(python=sys.executable, root=str(root)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{root}{os.pathsep}{os.environ['PATH']}")
    return Engine(root)
